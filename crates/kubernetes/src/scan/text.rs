//! Findings for people, and for programs.

use super::{Sight, Unseen};
use nightshift_cluster::{Finding, Grade};

/// Facts that are shown of a finding; JSON has all.
const FACTS_SHOWN: usize = 4;
/// Suffering objects that are shown; JSON has all.
const SYMPTOMS_SHOWN: usize = 6;

/// One finding as a line of JSON.
///
/// # Errors
/// Never in practice: a finding is texts alone.
pub fn json(finding: &Finding) -> Result<String, serde_json::Error> {
    // When it began is no part of this format.
    serde_json::to_string(&Finding { since: None, ..finding.clone() })
}

/// All findings for people: grouped by how bad they are, a block each, and a line that counts them.
pub fn text(findings: &[Finding], sight: &Sight, namespace: Option<&str>, colour: bool) -> String {
    let mut out = String::new();
    let mut group = None;
    for finding in findings {
        if group != Some(finding.severity) {
            group = Some(finding.severity);
            let n = findings.iter().filter(|f| f.severity == finding.severity).count();
            let title = format!("{} ({n})", finding.severity.as_str().to_uppercase());
            push(&mut out, &paint(&title, colour_of(finding.severity), colour));
            out.push('\n');
        }
        block(&mut out, finding, colour);
    }
    push(&mut out, &counted(findings, sight, namespace));
    out
}

/// What could not be seen, a line for each reason.
pub fn not_seen(unseen: &[Unseen]) -> Vec<String> {
    let mut by_why: Vec<(&str, Vec<&str>)> = Vec::new();
    for Unseen { what, why } in unseen {
        // The server's words name the kind; without them the same refusal is one line.
        let why = if why.starts_with("forbidden: ") { "forbidden" } else { why };
        match by_why.iter_mut().find(|(w, _)| *w == why) {
            Some((_, kinds)) => kinds.push(what),
            None => by_why.push((why, vec![what])),
        }
    }
    by_why.into_iter().map(|(why, kinds)| format!("cannot see {}: {why}", kinds.join(", "))).collect()
}

fn block(out: &mut String, finding: &Finding, colour: bool) {
    let bold = |text: &str| paint(text, "1", colour);
    let dim = |text: &str| paint(text, "2", colour);
    push(out, &format!("  {}  {}", bold(&finding.object.to_string()), dim(finding.fault.slug())));
    push(out, &format!("    {}", clean(&finding.summary)));
    if finding.cause.why != finding.summary || finding.cause.object != finding.object {
        let by =
            if finding.cause.object == finding.object { String::new() } else { format!("{}: ", finding.cause.object) };
        push(out, &format!("    because   {}", clean(&format!("{by}{}", finding.cause.why))));
    }
    if !finding.fix.is_empty() {
        push(out, &format!("    fix       {}", clean(&finding.fix)));
    }
    for (i, fact) in finding.evidence.iter().take(FACTS_SHOWN).enumerate() {
        let head = if i == 0 { "evidence" } else { "" };
        push(out, &format!("    {head:<9} {}  {}", clean(&fact.text), dim(&fact.id)));
    }
    if !finding.symptoms.is_empty() {
        let mut names: Vec<String> = finding.symptoms.iter().take(SYMPTOMS_SHOWN).map(ToString::to_string).collect();
        if finding.symptoms.len() > SYMPTOMS_SHOWN {
            names.push(format!("and {} more", finding.symptoms.len() - SYMPTOMS_SHOWN));
        }
        push(out, &format!("    suffering {}", clean(&names.join(", "))));
    }
    out.push('\n');
}

/// The last line: what was looked at, and how much was found.
fn counted(findings: &[Finding], sight: &Sight, namespace: Option<&str>) -> String {
    let looked = format!(
        "{} of {} in {}",
        plural(sight.objects, "object"),
        plural(sight.kinds, "kind"),
        plural(sight.namespaces, "namespace")
    );
    let about = namespace.map(|n| format!(" that concerns {n}")).unwrap_or_default();
    let partly = if sight.unseen.is_empty() { "" } else { "; not everything could be seen" };
    if findings.is_empty() {
        return format!("{looked}: nothing wrong found{about}{partly}.");
    }
    let mut counts = Vec::new();
    for grade in [Grade::Critical, Grade::High, Grade::Medium, Grade::Low, Grade::Info, Grade::Advice] {
        let n = findings.iter().filter(|f| f.severity == grade).count();
        if n > 0 {
            counts.push(format!("{n} {}", grade.as_str()));
        }
    }
    format!("{}{about} ({}) in {looked}{partly}.", plural(findings.len(), "finding"), counts.join(", "))
}

fn plural(n: usize, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

fn push(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

/// A text without what could steer a terminal: names and messages are somebody else's.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn paint(text: &str, code: &str, colour: bool) -> String {
    let clean = clean(text);
    if colour { format!("\x1b[{code}m{clean}\x1b[0m") } else { clean }
}

const fn colour_of(grade: Grade) -> &'static str {
    match grade {
        Grade::Critical | Grade::High => "1;31",
        Grade::Medium => "1;33",
        Grade::Low => "33",
        Grade::Info | Grade::Advice => "36",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_cluster::ObjectRef;
    use nightshift_model::{FaultClass, Timestamp};

    fn finding() -> Finding {
        let web = ObjectRef::new("Deployment", "shop", "web");
        Finding::new(FaultClass::CrashLoop, web.clone(), "web crashes")
            .because(ObjectRef::new("ConfigMap", "shop", "app"), "it is missing")
            .fix("create it")
            .field(&web, "status.x", "y\u{1b}[31m")
            .hits(ObjectRef::new("Pod", "shop", "web-1"))
            .since(Some(Timestamp::EPOCH))
    }

    #[test]
    fn json_has_the_keys_that_are_promised_and_no_others() {
        let line = json(&finding()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let mut keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        keys.sort();
        let promised =
            ["cause", "evidence", "fault", "fix", "kind", "name", "namespace", "severity", "summary", "symptoms"];
        assert_eq!(keys, promised);
        assert_eq!(
            value["cause"],
            serde_json::json!({"kind": "ConfigMap", "namespace": "shop", "name": "app", "why": "it is missing"})
        );
        assert_eq!(value["symptoms"], serde_json::json!([{"kind": "Pod", "namespace": "shop", "name": "web-1"}]));
        assert_eq!(value["fault"], "crash_loop");
        assert!(value["evidence"][0].as_object().unwrap().keys().eq(["id", "source", "text"]));
        assert!(!line.contains('\n'));
    }

    #[test]
    fn text_tells_what_why_and_what_to_do() {
        let sight = Sight { objects: 412, kinds: 38, namespaces: 1, ..Sight::default() };
        let told = text(&[finding()], &sight, None, false);
        let parts = [
            "HIGH (1)",
            "Deployment shop/web",
            "web crashes",
            "because   ConfigMap shop/app: it is missing",
            "fix       create it",
            "suffering Pod shop/web-1",
            "1 finding (1 high) in 412 objects of 38 kinds in 1 namespace.",
        ];
        for part in parts {
            assert!(told.contains(part), "{part} in {told}");
        }
        assert!(!told.contains('\u{1b}'), "{told:?}");
        assert!(text(&[finding()], &sight, None, true).contains("\u{1b}[1;31mHIGH (1)\u{1b}[0m"));
        let nothing = text(&[], &sight, Some("shop"), true);
        assert_eq!(nothing, "412 objects of 38 kinds in 1 namespace: nothing wrong found that concerns shop.\n");
    }

    #[test]
    fn one_line_for_one_reason() {
        let of = |what: &str, why: &str| Unseen { what: what.into(), why: why.into() };
        let lines =
            not_seen(&[of("nodes", "forbidden: nodes is"), of("pods", "slow"), of("secrets", "forbidden: secrets is")]);
        assert_eq!(lines, ["cannot see nodes, secrets: forbidden", "cannot see pods: slow"]);
    }
}
