//! `incidents`, `show`, `ack`, `resolve`, `pause`, `resume`, `take-over`: the client's view of what goes on.

use crate::cli::{ActArgs, IncidentsArgs, ShowArgs};
use crate::client::{Client, data};
use crate::exit::CommandResult;
use nightshift_model::{ApprovalState, AutomationState, Clock, Incident, IncidentStatus, Severity, Timestamp};
use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// `nightshift incidents`.
///
/// # Errors
/// When the server cannot be asked.
pub async fn list(args: &IncidentsArgs, json: bool, clock: &dyn Clock) -> CommandResult {
    for status in &args.status {
        status.parse::<IncidentStatus>().map_err(crate::exit::bad_input)?;
    }
    for severity in &args.severity {
        severity.parse::<Severity>().map_err(crate::exit::bad_input)?;
    }
    let client = Client::new(&args.server)?;
    let mut query = vec![("limit", args.limit.to_string())];
    let mut add = |name, value: String| {
        if !value.is_empty() {
            query.push((name, value));
        }
    };
    add("status", args.status.join(","));
    add("severity", args.severity.join(","));
    add("entity", args.entity.clone().unwrap_or_default());
    add("text", args.text.clone().unwrap_or_default());
    if args.synthetic {
        add("synthetic", "true".into());
    }
    if args.watch {
        return watch(&client, &query, json, clock).await;
    }
    let answer = client.get("/api/v1/incidents", &query).await?;
    if json {
        print_line(&answer.to_string())?;
        return Ok(());
    }
    let incidents: Vec<Incident> = data(answer)?;
    if incidents.is_empty() {
        print_line("No incidents. (`nightshift incidents --watch` waits for one.)")?;
        return Ok(());
    }
    let now = clock.now();
    print_line(&header())?;
    for incident in &incidents {
        print_line(&row(incident, now))?;
    }
    Ok(())
}

async fn watch(client: &Client, query: &[(&str, String)], json: bool, clock: &dyn Clock) -> CommandResult {
    let mut seen: HashMap<nightshift_model::IncidentId, Timestamp> = HashMap::new();
    let mut first = true;
    let mut lost = false;
    loop {
        match client.get("/api/v1/incidents", query).await {
            Ok(answer) => {
                let mut incidents: Vec<Incident> = data(answer)?;
                incidents.sort_by_key(|i| (i.updated_at, i.number));
                if first && !json {
                    if incidents.is_empty() && std::io::stdout().is_terminal() {
                        eprintln!("No incidents yet; waiting. Ctrl-C ends.");
                    }
                    print_line(&header())?;
                }
                if lost {
                    eprintln!("The server is back.");
                }
                (first, lost) = (false, false);
                for incident in incidents {
                    if seen.insert(incident.id, incident.updated_at) == Some(incident.updated_at) {
                        continue;
                    }
                    if json {
                        print_line(&serde_json::to_string(&incident)?)?;
                    } else {
                        print_line(&row(&incident, clock.now()))?;
                    }
                }
            }
            // Losing the server is no reason to stop watching; not finding it in the first place is.
            Err(e) if first => return Err(e),
            Err(_) if lost => {}
            Err(_) => {
                eprintln!("The server does not answer; waiting for it.");
                lost = true;
            }
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// `nightshift show`.
///
/// # Errors
/// When the server cannot be asked or has no such incident.
pub async fn show(args: &ShowArgs, json: bool, clock: &dyn Clock) -> CommandResult {
    let client = Client::new(&args.server)?;
    let answer = client.get(&format!("/api/v1/incidents/{}", path_part(&args.id)?), &[]).await?;
    if json {
        print_line(&answer.to_string())?;
        return Ok(());
    }
    let more = answer["data"].clone();
    print_line(super::describe::describe(&data(answer)?, &more, clock.now()).trim_end())?;
    Ok(())
}

/// `nightshift ack`, `resolve`, `pause`, `resume` and `take-over`; `verb` is the last part of the path.
///
/// # Errors
/// When the server refuses.
pub async fn act(args: &ActArgs, verb: &str, json: bool) -> CommandResult {
    let client = Client::new(&args.server)?;
    let path = format!("/api/v1/incidents/{}/{verb}", path_part(&args.id)?);
    let (word, done) = match verb {
        "ack" => ("note", "acknowledged"),
        "resolve" => ("note", "resolved"),
        "pause" => ("why", "the machine does nothing more here until `nightshift resume`"),
        "resume" => ("why", "the machine may act again"),
        _ => ("note", "is yours: the machine only watches"),
    };
    let answer = client.post(&path, serde_json::json!({ word: args.note })).await?;
    say(answer, json, |i| format!("{} {done}: {}", i.short_id(), i.title))
}

/// Prints what a person did: the answer, or one line about the incident as it is now.
pub(super) fn say(answer: serde_json::Value, json: bool, line: impl FnOnce(&Incident) -> String) -> CommandResult {
    if json {
        print_line(&answer.to_string())?;
        return Ok(());
    }
    print_line(&line(&data(answer)?))?;
    Ok(())
}

/// An id as a part of a path.
pub(super) fn path_part(id: &str) -> Result<&str, crate::exit::Failure> {
    let fine = !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fine { Ok(id) } else { Err(crate::exit::bad_input(format!("`{id}` is not an incident id such as INC-0001"))) }
}

/// Prints a line; a reader that went away (`| head`) ends the program quietly.
pub(super) fn print_line(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other,
    }
}

fn header() -> String {
    format!("{:<9} {:<8} {:<17} {:>6}  {}", "ID", "SEVERITY", "STATUS", "AGE", "WHAT")
}

fn row(i: &Incident, now: Timestamp) -> String {
    let cause = match i.top_cause() {
        Some(h) if h.entity.is_some() => format!("  [{} {:.0} %]", h.summary, h.confidence * 100.0),
        Some(h) => format!("  [cause unknown {:.0} %]", h.confidence * 100.0),
        None => String::new(),
    };
    let test = if i.synthetic { " (test)" } else { "" };
    let hand = match (&i.approval, i.automation) {
        (Some(ApprovalState::Asked { expires_at, .. }), _) if i.status.is_open() => {
            format!("  [approve within {}: {}]", left(expires_at.since(now)), i.short_id())
        }
        (_, AutomationState::Paused) if i.status.is_open() => "  [paused]".into(),
        (_, AutomationState::TakenOver) if i.status.is_open() => {
            format!("  [taken over by {}]", i.taken_over_by.as_deref().unwrap_or("somebody"))
        }
        _ => String::new(),
    };
    format!(
        "{:<9} {:<8} {:<17} {:>6}  {}{test}{cause}{hand}",
        i.short_id(),
        i.severity,
        i.status,
        age(now.since(i.detected_at)),
        i.title
    )
}

/// A duration as people say it: `45s`, `12m`, `3h`, `2d`.
pub(super) fn age(d: Duration) -> String {
    match d.as_secs() {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3_600 => format!("{}m", s / 60),
        s @ 3_600..172_800 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    }
}

/// Time that runs out, to the second: `4m12s`.
pub(super) fn left(d: Duration) -> String {
    match d.as_secs() {
        s @ 0..60 => format!("{s}s"),
        s => format!("{}m{:02}s", s / 60, s % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_like_people_say_them() {
        for (secs, want) in [(0, "0s"), (59, "59s"), (60, "1m"), (3_599, "59m"), (7_200, "2h"), (172_800, "2d")] {
            assert_eq!(age(Duration::from_secs(secs)), want);
        }
    }

    #[test]
    fn only_ids_become_paths() {
        assert!(path_part("INC-0001").is_ok());
        for bad in ["", "../status", "a/b", "a?b=c", "ä", &"a".repeat(65)] {
            assert!(path_part(bad).is_err(), "{bad}");
        }
    }
}
