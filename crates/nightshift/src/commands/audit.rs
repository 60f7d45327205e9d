//! `audit verify|export`: the tamper-evident record, also while a service writes it.

use super::incidents::print_line;
use crate::cli::{AuditCommand, DataArgs};
use crate::exit::{CommandResult, Failure};
use crate::settings::Settings;
use anyhow::{Context as _, anyhow};
use nightshift_store::{HeadFiles, Store, audit};
use serde_json::json;
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `nightshift audit …`.
///
/// # Errors
/// When the chain is broken, or cannot be read.
pub async fn run(command: &AuditCommand, json: bool) -> CommandResult {
    match command {
        AuditCommand::Verify { file: Some(file), .. } => verify_file(file, json),
        AuditCommand::Verify { data, file: None } => verify(data, json).await,
        AuditCommand::Export { data, tenant } => {
            let (store, _) = open(data).await?;
            let mut out = std::io::BufWriter::new(std::io::stdout());
            let done = audit::export(&*store, tenant, &mut out).await.context("export the chain");
            match done.and_then(|_| out.flush().context("print the chain")) {
                // A reader that went away (`| head`) has what it wanted.
                Err(e) if e.chain().any(is_broken_pipe) => Ok(()),
                other => Ok(other?),
            }
        }
    }
}

fn is_broken_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

async fn open(args: &DataArgs) -> Result<(Arc<dyn Store>, PathBuf), Failure> {
    let (settings, data) = Settings::for_command(args)?;
    Ok((crate::wiring::open_store_to_read(&settings, &data).await?, data))
}

async fn verify(args: &DataArgs, json: bool) -> CommandResult {
    let (store, data) = open(args).await?;
    let reports = audit::verify_all(&*store, &HeadFiles::in_data_dir(&data)).await.context("walk the chains")?;
    let ok = reports.iter().all(audit::AuditReport::is_ok);
    if json {
        print_line(&json!({ "data": { "ok": ok, "tenants": reports } }).to_string())?;
    } else {
        if reports.is_empty() {
            print_line("Nothing is recorded yet.")?;
        }
        for report in &reports {
            let outside =
                if report.outside_head { ", the head noted outside agrees" } else { ", no head is noted outside" };
            if report.is_ok() {
                print_line(&format!("tenant {}: {} events, the chain is whole{outside}", report.tenant, report.links))?;
            } else {
                print_line(&format!("tenant {}: DAMAGED after {} good events", report.tenant, report.links))?;
            }
            for fault in &report.faults {
                print_line(&format!("  {fault}"))?;
            }
        }
    }
    if ok { Ok(()) } else { Err(anyhow!("the record is not what was written").into()) }
}

fn verify_file(path: &Path, json: bool) -> CommandResult {
    let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let summary = audit::verify_export(BufReader::new(file), None)
        .map_err(|e| anyhow!(e).context(format!("verify {}", path.display())))?;
    print_line(&if json {
        json!({ "data": { "ok": true, "tenant": summary.tenant, "events": summary.head.count } }).to_string()
    } else {
        format!("tenant {}: {} events, the chain is whole", summary.tenant, summary.head.count)
    })?;
    Ok(())
}
