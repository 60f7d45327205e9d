//! `model …`: versions, trials, drift, and baselines that travel. Works on the data folder and its store, with or
//! without a running service: what a service learned it puts away every minute, and what is written to the registry it
//! obeys within seconds.

mod baselines;
mod versions;

use crate::cli::ModelCommand;
use crate::exit::CommandResult;
use nightshift_model::Clock;
use std::sync::Arc;

/// `nightshift model …`.
///
/// # Errors
/// When files, store or words are bad; the text says what to do.
pub async fn run(command: &ModelCommand, json: bool, clock: Arc<dyn Clock>) -> CommandResult {
    match command {
        ModelCommand::List { data } => versions::list(data, json).await,
        ModelCommand::Show { number, data } => versions::show(*number, data, json, &*clock).await,
        ModelCommand::Shadow(args) => versions::shadow(args, json, clock).await,
        ModelCommand::Promote { anyway, why, data } => versions::promote((*anyway, why), data, json, clock).await,
        ModelCommand::Rollback { to, why, data } => versions::rollback(*to, why, data, json, clock).await,
        ModelCommand::Drift { against, data } => baselines::drift(against.as_deref(), data, json),
        ModelCommand::Export(args) => baselines::export(args, json),
        ModelCommand::Merge { files, output } => baselines::merge(files, output.as_deref(), json),
        ModelCommand::Import { files, data } => baselines::import(files, data, json),
    }
}

fn say(line: &str) -> CommandResult {
    Ok(super::incidents::print_line(line)?)
}
