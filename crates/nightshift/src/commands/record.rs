//! `postmortem` and `replay`: what the record of an incident tells.

use super::incidents::{path_part, print_line};
use crate::cli::{ReplayArgs, ShowArgs};
use crate::client::Client;
use crate::exit::{CommandResult, bad_input};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Longest file of policies, bytes; a server takes no larger body unless told to.
const POLICY_BYTES_MAX: u64 = 1 << 20;

/// `nightshift postmortem`.
///
/// # Errors
/// When there is none, or the server cannot be asked.
pub async fn postmortem(args: &ShowArgs, json: bool) -> CommandResult {
    let client = Client::new(&args.server)?;
    let answer = client.get(&format!("/api/v1/incidents/{}/postmortem", path_part(&args.id)?), &[]).await?;
    if json {
        print_line(&answer.to_string())?;
        return Ok(());
    }
    print_line(answer["data"]["markdown"].as_str().unwrap_or_default().trim_end())?;
    Ok(())
}

/// `nightshift replay`.
///
/// # Errors
/// When the policy cannot be read, or the record does not allow it.
pub async fn replay(args: &ReplayArgs, json: bool) -> CommandResult {
    let client = Client::new(&args.server)?;
    let id = path_part(&args.id)?;
    let body = match &args.with_policy {
        None => json!({}),
        Some(file) => {
            let bad = |why: String| bad_input(format!("--with-policy {}: {why}", file.display()));
            let size = std::fs::metadata(file).map_err(|e| bad(e.to_string()))?.len();
            if size > POLICY_BYTES_MAX {
                return Err(bad(format!("{size} bytes, at most {POLICY_BYTES_MAX}")));
            }
            json!({ "policy": std::fs::read_to_string(file).map_err(|e| bad(e.to_string()))? })
        }
    };
    let answer = client.post(&format!("/api/v1/incidents/{id}/replay"), body).await?;
    if json {
        print_line(&answer.to_string())?;
        return Ok(());
    }
    print_line(tell(&answer["data"]).trim_end())?;
    Ok(())
}

/// A replay as text.
fn tell(replay: &Value) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = tell_into(&mut out, replay);
    out
}

fn tell_into(out: &mut String, replay: &Value) -> std::fmt::Result {
    for decided in replay["decisions"].as_array().into_iter().flatten() {
        let text = |key: &str| decided[key].as_str().unwrap_or_default();
        let differs = decided["differs"] == true;
        writeln!(out, "{} {:<20} {}", if differs { "!" } else { " " }, text("node"), text("recorded"))?;
        if differs || text("recorded") != text("replayed") {
            writeln!(out, "  {:<20} {}", "  now", text("replayed"))?;
        }
    }
    match replay["same"].as_bool() {
        Some(true) => writeln!(out, "Every decision is made again as it was recorded."),
        Some(false) => writeln!(out, "Decisions that differ are marked with `!`."),
        None => writeln!(out, "The server says: {replay:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_marked() {
        let decided = |node: &str, replayed: &str, differs: bool| json!({ "node": node, "recorded": "execute", "replayed": replayed, "differs": differs });
        let decisions = [decided("safety", "ask", true), decided("is_real", "execute", false)];
        let text = tell(&json!({ "same": false, "decisions": decisions }));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("! safety") && lines[1].trim() == "now                ask", "{text}");
        assert!(lines[2].starts_with("  is_real") && lines[3].contains("marked with `!`"), "{text}");
        assert!(tell(&json!({ "same": true, "decisions": [] })).contains("again as it was recorded"));
    }
}
