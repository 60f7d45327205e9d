//! `approve`, `reject`, `override`, `feedback`: what a person decides, for the plan that they saw.

use super::describe::describe_plan;
use super::incidents::{path_part, print_line, say};
use crate::cli::{ApproveArgs, FeedbackArgs, OverrideArgs, OverrideTo, RejectArgs};
use crate::client::{Client, data};
use crate::exit::{CommandResult, Failure, bad_input};
use anyhow::anyhow;
use nightshift_model::{FaultClass, Incident};
use serde_json::{Value, json};
use std::io::{BufRead as _, IsTerminal as _, Write as _};

/// `nightshift approve`.
///
/// # Errors
/// When no plan is named and nobody can be asked, or the server refuses.
pub async fn approve(args: &ApproveArgs, json: bool) -> CommandResult {
    let client = Client::new(&args.server)?;
    let id = path_part(&args.id)?;
    let plan = match &args.plan {
        Some(plan) => plan.clone(),
        None => seen(&client, id, "approve", "Let it run?").await?,
    };
    let body = json!({ "plan": plan, "note": args.note });
    let answer = client.post(&format!("/api/v1/incidents/{id}/approve"), body).await?;
    say(answer, json, |i| format!("{} approved; `nightshift show {0}` tells how it goes", i.short_id()))
}

/// `nightshift reject`.
///
/// # Errors
/// When there is no plan, or the server refuses.
pub async fn reject(args: &RejectArgs, json: bool) -> CommandResult {
    let client = Client::new(&args.server)?;
    let id = path_part(&args.id)?;
    let plan = match &args.plan {
        Some(plan) => plan.clone(),
        None => current(&client, id).await?.0,
    };
    let body = json!({ "plan": plan, "why": args.why });
    let answer = client.post(&format!("/api/v1/incidents/{id}/reject"), body).await?;
    say(answer, json, |i| format!("{} rejected: {}", i.short_id(), i.title))
}

/// `nightshift override`.
///
/// # Errors
/// When it has no reason, no plan is named and nobody can be asked, or the server refuses.
pub async fn instead(args: &OverrideArgs, json: bool) -> CommandResult {
    let why = args.why.trim();
    if why.is_empty() {
        return Err(bad_input("an override needs a reason: -m WHY"));
    }
    let client = Client::new(&args.server)?;
    let id = path_part(&args.id)?;
    let to = match args.to {
        OverrideTo::Execute => "execute",
        OverrideTo::Deny => "deny",
    };
    let plan = match (&args.plan, args.to) {
        (Some(plan), _) => plan.clone(),
        // To say no is the safe side: nobody has to be asked twice.
        (None, OverrideTo::Deny) => current(&client, id).await?.0,
        (None, OverrideTo::Execute) => seen(&client, id, "override", "Override the guard and let it run?").await?,
    };
    let body = json!({ "plan": plan, "to": to, "why": why });
    let answer = client.post(&format!("/api/v1/incidents/{id}/override"), body).await?;
    say(answer, json, |i| format!("{}: the verdict is {to} now", i.short_id()))
}

/// `nightshift feedback`.
///
/// # Errors
/// When the fault class is none, or the server refuses.
pub async fn feedback(args: &FeedbackArgs, json: bool) -> CommandResult {
    let id = path_part(&args.id)?;
    let body = match (&args.true_cause, &args.fault) {
        (Some(entity), Some(fault)) => {
            let fault: FaultClass = fault.parse().map_err(bad_input)?;
            json!({ "verdict": "true_cause", "entity": entity, "fault": fault.slug(), "note": args.note })
        }
        _ => json!({ "verdict": "false_positive", "note": args.note }),
    };
    let client = Client::new(&args.server)?;
    let answer = client.post(&format!("/api/v1/incidents/{id}/feedback"), body).await?;
    say(answer, json, |i| format!("{}: taken note of; the next diagnosis knows", i.short_id()))
}

/// The hash of the current plan, and what is to be shown of it.
async fn current(client: &Client, id: &str) -> Result<(String, String), Failure> {
    let answer = client.get(&format!("/api/v1/incidents/{id}"), &[]).await?;
    let more: Value = answer["data"].clone();
    let incident: Incident = data(answer)?;
    match &incident.plan {
        Some(plan) => Ok((plan.hash.to_string(), describe_plan(&incident, &more))),
        None => {
            let next = format!("`nightshift show {}` tells what is known", incident.short_id());
            Err(anyhow!("{} has no plan: it is {}; {next}", incident.short_id(), incident.status).into())
        }
    }
}

/// Shows the current plan and asks. An answer counts for what was shown, so it needs somebody who sees it.
async fn seen(client: &Client, id: &str, verb: &str, question: &str) -> Result<String, Failure> {
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(bad_input(format!(
            "which plan? Nobody can be asked here; `nightshift show {id}` shows it, then: nightshift {verb} {id} --plan HASH"
        )));
    }
    let (hash, text) = current(client, id).await?;
    let mut err = std::io::stderr().lock();
    write!(err, "{}\n\n{question} [y/N] ", text.trim()).and_then(|()| err.flush())?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(hash);
    }
    print_line("Nothing was done.")?;
    Err(Failure::Declined)
}
