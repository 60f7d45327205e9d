//! `incidents`, `show`, `ack`, `resolve`: the client's view of what goes on.

use crate::cli::{ActArgs, IncidentsArgs, ShowArgs};
use crate::client::{Client, data};
use crate::exit::CommandResult;
use nightshift_model::{Clock, Incident, IncidentStatus, Phase, Severity, Timestamp};
use std::collections::HashMap;
use std::fmt::Write as _;
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
    print_line(describe(&data(answer)?, clock.now()).trim_end())?;
    Ok(())
}

/// `nightshift ack` and `nightshift resolve`; `verb` is the last part of the path.
///
/// # Errors
/// When the server refuses.
pub async fn act(args: &ActArgs, verb: &str, json: bool) -> CommandResult {
    let client = Client::new(&args.server)?;
    let path = format!("/api/v1/incidents/{}/{verb}", path_part(&args.id)?);
    let answer = client.post(&path, serde_json::json!({ "note": args.note })).await?;
    if json {
        print_line(&answer.to_string())?;
        return Ok(());
    }
    let incident: Incident = data(answer)?;
    let done = if verb == "ack" { "acknowledged" } else { "resolved" };
    print_line(&format!("{} {done}: {}", incident.short_id(), incident.title))?;
    Ok(())
}

/// An id as a part of a path.
fn path_part(id: &str) -> Result<&str, crate::exit::Failure> {
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
    format!(
        "{:<9} {:<8} {:<17} {:>6}  {}{test}{cause}",
        i.short_id(),
        i.severity,
        i.status,
        age(now.since(i.detected_at)),
        i.title
    )
}

/// A duration as people say it: `45s`, `12m`, `3h`, `2d`.
fn age(d: Duration) -> String {
    match d.as_secs() {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3_600 => format!("{}m", s / 60),
        s @ 3_600..172_800 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    }
}

/// An incident as text.
pub fn describe(i: &Incident, now: Timestamp) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = describe_into(&mut out, i, now);
    out
}

fn describe_into(out: &mut String, i: &Incident, now: Timestamp) -> std::fmt::Result {
    writeln!(out, "{}  {}", i.short_id(), i.title)?;
    writeln!(out, "{}, {}, score {:.2}, {} old", i.severity, i.status, i.score, age(now.since(i.detected_at)))?;
    writeln!(out, "began {}, noticed {}", i.onset, i.detected_at)?;
    if let (Some(at), Some(by)) = (i.resolved_at, &i.resolved_by) {
        writeln!(out, "resolved {at} by {by}, {} after it was noticed", age(at.since(i.detected_at)))?;
    }
    if let Some(who) = &i.acknowledged_by {
        writeln!(out, "acknowledged by {who}")?;
    }
    if let Some(elder) = i.merged_into {
        writeln!(out, "joined into {elder}")?;
    }
    if let Some(earlier) = i.recurrence_of {
        writeln!(out, "came back: recurrence of {earlier}")?;
    }
    let b = &i.blast_radius;
    writeln!(out, "\nAffected ({})", b.affected.len())?;
    for entity in b.affected.iter().take(20) {
        writeln!(out, "  {entity}")?;
    }
    if b.affected.len() > 20 {
        writeln!(out, "  … and {} more", b.affected.len() - 20)?;
    }
    if !b.at_risk.is_empty() {
        writeln!(out, "  at risk: {}", b.at_risk.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))?;
    }
    if let Some(impact) = &b.estimated_user_impact {
        writeln!(out, "  impact: {impact}")?;
    }
    writeln!(out, "\nCauses (revision {})", i.rca_revision)?;
    if i.hypotheses.is_empty() {
        writeln!(out, "  not ranked yet")?;
    }
    for (n, h) in i.hypotheses.iter().enumerate() {
        let whose = h.entity.as_ref().map(|e| format!(" of {e}")).unwrap_or_default();
        writeln!(out, "  {}. {:.0} %  {}{whose}", n + 1, h.confidence * 100.0, h.summary)?;
        // The likeliest is explained in full; the others on the page and in --json.
        if n == 0 {
            for c in &h.contributions {
                writeln!(out, "       {:+.2}  {:<14} {}", c.log_odds, c.factor, c.why)?;
            }
        }
    }
    writeln!(out, "\nSymptoms ({} in all, {} going on)", i.anomalies_total, i.anomalies_open)?;
    for a in i.anomalies.iter().take(20) {
        let state = if a.phase == Phase::Closed { "over" } else { "open" };
        writeln!(out, "  {state}  {:.2}  {}  {}", a.score, a.entity.id.name(), a.description)?;
    }
    if i.anomalies.len() > 20 {
        writeln!(out, "  … and {} more", i.anomalies_total - 20)?;
    }
    writeln!(out, "\nTimeline")?;
    for t in &i.timeline {
        writeln!(out, "  {}  {:<14} {:<8} {}", t.at, t.action, t.actor, t.detail)?;
    }
    Ok(())
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
