//! `backtest metrics|rca|logs`: recorded data through the code that runs live. Reads files, prints JSON lines; all
//! judgement is in the rooms.

mod logs;
mod metrics;
mod rca;
mod table;

use crate::cli::Backtest;
use crate::exit::CommandResult;

/// `nightshift backtest …`.
///
/// # Errors
/// When an input cannot be read.
pub fn run(command: &Backtest) -> CommandResult {
    match command {
        Backtest::Metrics { series, jobs, config } => metrics::run(series, *jobs, config.as_deref()),
        Backtest::Rca { cases, no_graph, no_logs, no_traces, top } => {
            rca::run(cases, rca::Without { graph: *no_graph, logs: *no_logs, traces: *no_traces }, *top)
        }
        Backtest::Logs { input, format } => logs::run(input, *format),
    }
}
