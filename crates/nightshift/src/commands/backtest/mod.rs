//! `backtest metrics|rca|logs`: recorded data through the code that runs live. Reads files, prints JSON lines; all
//! judgement is in the rooms.

mod logs;
mod metrics;
mod table;

use crate::cli::Backtest;
use crate::exit::CommandResult;

/// `nightshift backtest …`.
///
/// # Errors
/// When an input cannot be read.
pub fn run(command: &Backtest) -> CommandResult {
    match command {
        Backtest::Metrics { series, jobs } => metrics::run(series, *jobs),
        Backtest::Rca { .. } => unreachable!(),
        Backtest::Logs { input, format } => logs::run(input, *format),
    }
}
