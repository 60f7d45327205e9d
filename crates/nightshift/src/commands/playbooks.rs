//! `playbooks`: those that ship and those of a configuration.

use super::incidents::print_line;
use crate::cli::PlaybooksArgs;
use crate::exit::{CommandResult, Failure};
use crate::settings::{Settings, print_problems};
use nightshift_config::{Level, Loaded};
use serde_json::json;

/// `nightshift playbooks`.
///
/// # Errors
/// When a file cannot be read or is wrong.
pub fn list(args: &PlaybooksArgs, json: bool) -> CommandResult {
    let Loaded { config: settings, mut problems } = Settings::read(args.config.as_deref(), Level::Warning)?;
    let base = Settings::base(args.config.as_deref());
    let playbooks = crate::library::read(&settings, &base, &mut problems).playbooks;
    if problems.has_errors() {
        print_problems(&problems);
        return Err(Failure::Reported);
    }
    let rows = crate::api::playbook_rows(&playbooks);
    if json {
        print_line(&json!({ "data": rows }).to_string())?;
        return Ok(());
    }
    print_line(&format!("{:<34} {:<9} {:<14} {:<30} {}", "NAME", "RISK", "PRIORITY", "HEALS", "DOES"))?;
    for r in rows {
        let (heals, does) = (r.faults.join(" "), r.actions.join(" "));
        print_line(&format!("{:<34} {:<9} {:<14} {heals:<30} {does}", r.name, r.risk, r.priority))?;
    }
    Ok(())
}
