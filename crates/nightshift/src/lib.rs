//! Nightshift: the binary's parts. The engine on call that never sleeps.
//!
//! Lives here: the command line, the settings (every room's own section, joined), the agents that put the rooms to
//! work on the bus, the wiring of it all, and the one clock that reads the system's.
//!
//! Never here: domain logic. What is an anomaly, what belongs together, what caused it: the rooms decide.

pub mod agents;
mod api;
mod bearer;
mod check;
pub mod cli;
mod client;
mod clock;
pub mod commands;
pub mod demo;
mod eval;
pub mod exit;
mod files;
mod inject;
mod kubernetes;
mod library;
pub mod opa;
mod paths;
mod redrive;
mod run;
pub mod settings;
pub mod switch;
mod wiring;

use cli::{Cli, Command, ConfigCommand};
use exit::CommandResult;
use std::sync::Arc;

/// Does what the command line says.
///
/// # Errors
/// As the command's own.
pub async fn dispatch(cli: Cli) -> CommandResult {
    let json = cli.json;
    let clock = Arc::new(clock::SystemClock);
    match cli.command {
        Command::Run(args) => run::run(&args).await,
        Command::Init(args) => commands::init::run(&args, json).await,
        Command::Check(args) => commands::check::run(&args, json),
        Command::Incidents(args) => commands::incidents::list(&args, json, &*clock).await,
        Command::Show(args) => commands::incidents::show(&args, json, &*clock).await,
        Command::Ack(args) => commands::incidents::act(&args, "ack", json).await,
        Command::Resolve(args) => commands::incidents::act(&args, "resolve", json).await,
        Command::Approve(args) => commands::decide::approve(&args, json).await,
        Command::Reject(args) => commands::decide::reject(&args, json).await,
        Command::Override(args) => commands::decide::instead(&args, json).await,
        Command::Pause(args) => commands::incidents::act(&args, "pause", json).await,
        Command::Resume(args) => commands::incidents::act(&args, "resume", json).await,
        Command::TakeOver(args) => commands::incidents::act(&args, "take-over", json).await,
        Command::Feedback(args) => commands::decide::feedback(&args, json).await,
        Command::Postmortem(args) => commands::record::postmortem(&args, json).await,
        Command::Replay(args) => commands::record::replay(&args, json).await,
        Command::KillSwitch(args) => commands::kill_switch::run(&args, json, clock).await,
        Command::Playbooks(args) => commands::playbooks::list(&args, json),
        Command::K8s(command) => commands::k8s::run(&command, json, &*clock).await,
        Command::Backtest(command) => commands::backtest::run(&command),
        Command::Demo(args) => demo::run(&args, json).await,
        Command::Eval(args) => eval::run(&args, json),
        Command::Bus(command) => commands::bus::run(&command, json, clock).await,
        Command::Faults => commands::simple::faults(json),
        Command::Token(command) => commands::token::run(&command, json, clock).await,
        Command::Model(command) => commands::model::run(&command, json, clock).await,
        Command::Audit(command) => commands::audit::run(&command, json).await,
        Command::Config(ConfigCommand::Reference) => commands::simple::reference(),
        Command::Completions { shell } => {
            commands::simple::completions(shell);
            Ok(())
        }
    }
}
