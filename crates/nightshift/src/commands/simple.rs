//! Commands that only print what the program knows: `faults`, `completions`.

use super::incidents::print_line;
use crate::cli::Cli;
use crate::exit::CommandResult;
use crate::settings::Settings;
use clap::CommandFactory as _;
use nightshift_model::FaultClass;

/// `nightshift faults`.
///
/// # Errors
/// When standard output fails.
pub fn faults(json: bool) -> CommandResult {
    if json {
        let rows: Vec<_> = FaultClass::ALL.iter().map(|f| f.info()).collect();
        print_line(&serde_json::json!({ "data": rows }).to_string())?;
        return Ok(());
    }
    print_line(&format!("{:<26} {:<9} {:<34} {}", "SLUG", "SEVERITY", "TITLE", "HITS"))?;
    for fault in FaultClass::ALL {
        let info = fault.info();
        let kinds: Vec<_> = info.kinds.iter().map(|k| k.as_str()).collect();
        print_line(&format!("{:<26} {:<9} {:<34} {}", info.slug, info.severity, info.title, kinds.join(" ")))?;
    }
    Ok(())
}

/// `nightshift completions SHELL`.
pub fn completions(shell: clap_complete::Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "nightshift", &mut std::io::stdout());
}

/// `nightshift config reference`.
///
/// # Errors
/// When standard output fails.
pub fn reference() -> CommandResult {
    let defaults = serde_json::to_value(Settings::default())?;
    let schema = nightshift_config::schema_of::<Settings>();
    print_line(nightshift_config::reference(&schema, &defaults).trim_end())?;
    Ok(())
}
