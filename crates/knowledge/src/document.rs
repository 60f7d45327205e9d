//! Documents that a team wrote: past incidents, runbooks, service documents. Markdown with a head in YAML:
//!
//! ```text
//! ---
//! kind: runbook
//! title: A database pool runs dry
//! faults: [db_connection_exhaustion]
//! ---
//! ## Recognise it
//! …
//! ```
//!
//! Every problem of a document is told at once, with its line. What is outside a document's own words (whether a
//! service or a playbook exists) is for [`crate::check`].

use nightshift_model::{FaultClass, Severity, Timestamp};
use nightshift_topology::Problem;
use nightshift_topology::yaml::{Node, Value, nearest, parse};
use serde::{Deserialize, Serialize};

/// Largest document that is read, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 256 << 10;
/// Problems of one document that are told at most.
pub const PROBLEMS_MAX: usize = 50;
/// Longest text of one field, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;
/// Items of one list at most.
const ITEMS_MAX: usize = 100;
/// Sections of one document at most.
const SECTIONS_MAX: usize = 100;

/// A part of a document's text, from one `## ` to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Its heading, without the signs.
    pub title: String,
    /// What stands below it.
    pub text: String,
    /// Line of the heading, from 1.
    pub line: u64,
}

/// An incident of the past, as its postmortem tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PastIncident {
    /// Its own id, unique among documents.
    pub id: String,
    /// One line.
    pub title: String,
    /// How bad it was.
    pub severity: Severity,
    /// Where the cause was: a service, database, topic … by name.
    pub service: String,
    /// What it was.
    pub fault: FaultClass,
    /// When it began.
    pub began: Timestamp,
    /// How long it lasted, in minutes.
    pub lasted_minutes: f64,
    /// Playbook that was carried out; empty when people did it by hand.
    pub playbook: String,
    /// Whether that helped.
    pub helped: bool,
    /// Who else was hit, by name.
    pub affected: Vec<String>,
    /// Summary, root cause, resolution, factors …
    pub sections: Vec<Section>,
}

/// What to do about a kind of trouble.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runbook {
    /// Its name, unique among runbooks.
    pub name: String,
    /// One line.
    pub title: String,
    /// Fault classes that it is for.
    pub faults: Vec<FaultClass>,
    /// Services that it is for, by name; empty: all.
    pub services: Vec<String>,
    /// Team that keeps it.
    pub owner: String,
    /// Playbooks that do the same by machine.
    pub playbooks: Vec<String>,
    /// Recognise it, settle it, prevent it …
    pub sections: Vec<Section>,
}

/// What there is to know of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDocument {
    /// The service, by name.
    pub service: String,
    /// Team that answers for it.
    pub team: String,
    /// Whom to wake.
    pub on_call: String,
    /// P0 to P3.
    pub criticality: String,
    /// What it is written in.
    pub language: String,
    /// What was promised to users, percent of time or requests.
    pub sla_percent: String,
    /// What it needs, by name.
    pub depends_on: Vec<String>,
    /// What needs it, by name.
    pub needed_by: Vec<String>,
    /// How it usually fails.
    pub failure_modes: Vec<FaultClass>,
    /// Runbooks, by name.
    pub runbooks: Vec<String>,
    /// What it does, how it fails, what to look at …
    pub sections: Vec<Section>,
}

/// A document of any kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TeamDocument {
    /// An incident of the past.
    Incident(PastIncident),
    /// What to do.
    Runbook(Runbook),
    /// What there is to know.
    Service(ServiceDocument),
}

const KINDS: [&str; 3] = ["incident", "runbook", "service"];
const INCIDENT_KEYS: &[&str] = &[
    "kind",
    "id",
    "title",
    "severity",
    "service",
    "fault",
    "began",
    "lasted_minutes",
    "playbook",
    "helped",
    "affected",
];
const RUNBOOK_KEYS: &[&str] = &["kind", "name", "title", "faults", "services", "owner", "playbooks"];
const SERVICE_KEYS: &[&str] = &[
    "kind",
    "service",
    "team",
    "on_call",
    "criticality",
    "language",
    "sla_percent",
    "depends_on",
    "needed_by",
    "failure_modes",
    "runbooks",
];

impl TeamDocument {
    /// Reads the text of a document.
    ///
    /// # Errors
    /// Every problem, by line, at most [`PROBLEMS_MAX`].
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        if text.len() > DOCUMENT_BYTES_MAX {
            let message = format!("the document has {} bytes, at most {DOCUMENT_BYTES_MAX} are read", text.len());
            return Err(vec![problem(0, message, "split it into several")]);
        }
        let (head, body, body_line) = split(text)?;
        // The head begins on line 2 of the document.
        let root = parse(head, DOCUMENT_BYTES_MAX)
            .map_err(|p| vec![Problem { line: if p.line == 0 { 0 } else { p.line + 1 }, ..p }])?;
        let mut reader = Reader { problems: Vec::new(), entries: Vec::new(), keys: &[] };
        let document = reader.document(root, body, body_line);
        let mut problems = reader.problems;
        problems.sort();
        problems.dedup();
        match document {
            Some(document) if problems.is_empty() => Ok(document),
            _ => {
                if problems.len() > PROBLEMS_MAX {
                    let more = problems.len() - (PROBLEMS_MAX - 1);
                    problems.truncate(PROBLEMS_MAX - 1);
                    problems.push(problem(0, format!("{more} further problems"), "repair these first"));
                }
                Err(problems)
            }
        }
    }

    /// Its parts.
    pub fn sections(&self) -> &[Section] {
        match self {
            Self::Incident(d) => &d.sections,
            Self::Runbook(d) => &d.sections,
            Self::Service(d) => &d.sections,
        }
    }
}

fn problem(line: u64, message: impl Into<String>, hint: impl Into<String>) -> Problem {
    Problem { line, message: message.into(), hint: hint.into() }
}

/// The head, the body, and the line with which the body begins.
fn split(text: &str) -> Result<(&str, &str, u64), Vec<Problem>> {
    let hint = "begin the document with a line `---`, the head, and another line `---`";
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Some((first, rest)) = text.split_once('\n').filter(|(first, _)| first.trim_end() == "---") else {
        return Err(vec![problem(1, "the document has no head", hint)]);
    };
    let mut at = 0;
    for (i, line) in rest.split_inclusive('\n').enumerate() {
        if line.trim_end() == "---" {
            let body = &rest[at + line.len()..];
            return Ok((&rest[..at], body, i as u64 + 3));
        }
        at += line.len();
    }
    let _ = first;
    Err(vec![problem(1, "the head of the document does not end", hint)])
}

struct Reader {
    problems: Vec<Problem>,
    entries: Vec<(u64, String, Node)>,
    keys: &'static [&'static str],
}

impl Reader {
    fn problem(&mut self, line: u64, message: impl Into<String>, hint: impl Into<String>) {
        // A document of a thousand mistakes must not become a thousand strings.
        if self.problems.len() < 4 * PROBLEMS_MAX {
            self.problems.push(problem(line, message, hint));
        }
    }

    fn document(&mut self, root: Node, body: &str, body_line: u64) -> Option<TeamDocument> {
        let Value::Map(entries) = root.value else {
            let message = format!("the head holds {}, expected keys and values", root.value.what());
            self.problem(root.line + 1, message, "begin with `kind: runbook`, `kind: service` or `kind: incident`");
            return None;
        };
        for (key, node) in entries {
            let line = key.line + 1;
            // YAML itself refuses a key that is there twice.
            self.entries.push((line, key.text, node));
        }
        let kind = self.text("kind");
        let document = match kind.as_str() {
            "incident" => self.incident().map(TeamDocument::Incident),
            "runbook" => self.runbook().map(TeamDocument::Runbook),
            "service" => self.service().map(TeamDocument::Service),
            "" => return None,
            other => {
                let line = self.line("kind");
                let hint = nearest(other, KINDS.into_iter());
                self.problem(
                    line,
                    format!("`{}` is no kind of document; one of {}", cut(other), KINDS.join(", ")),
                    hint,
                );
                return None;
            }
        };
        for (line, key, _) in std::mem::take(&mut self.entries) {
            if !self.keys.contains(&key.as_str()) {
                let hint = nearest(&key, self.keys.iter().copied());
                self.problem(line, format!("unknown key `{}`", cut(&key)), hint);
            }
        }
        let sections = self.sections(body, body_line);
        let mut document = document?;
        match &mut document {
            TeamDocument::Incident(d) => d.sections = sections,
            TeamDocument::Runbook(d) => d.sections = sections,
            TeamDocument::Service(d) => d.sections = sections,
        }
        Some(document)
    }

    fn incident(&mut self) -> Option<PastIncident> {
        self.keys = INCIDENT_KEYS;
        let fault = self.text("fault");
        let fault = self.word("fault", &fault);
        let severity = self.text("severity");
        let severity = self.word("severity", &severity);
        let began = self.text("began");
        let began = match Timestamp::parse_rfc3339(&began) {
            Ok(at) => Some(at),
            Err(_) if began.is_empty() => None,
            Err(_) => {
                let line = self.line("began");
                self.problem(line, format!("`{}` is no time", cut(&began)), "write it as 2026-03-14T02:10:00Z");
                None
            }
        };
        let lasted = self.text("lasted_minutes");
        let minutes = lasted.parse::<f64>().ok().filter(|m| (0.0..=1_000_000.0).contains(m));
        if minutes.is_none() && !lasted.is_empty() {
            let line = self.line("lasted_minutes");
            self.problem(line, format!("`{}` is no number of minutes", cut(&lasted)), "write it as 42");
        }
        let playbook = self.optional("playbook");
        let helped = match self.optional("helped").as_str() {
            "" => !playbook.is_empty(),
            "true" => true,
            "false" => false,
            other => {
                let line = self.line("helped");
                self.problem(line, format!("`{}` is neither true nor false", cut(other)), "");
                false
            }
        };
        let (id, title, service) = (self.text("id"), self.text("title"), self.text("service"));
        let affected = self.list("affected");
        Some(PastIncident {
            id,
            title,
            severity: severity?,
            service,
            fault: fault?,
            began: began?,
            lasted_minutes: minutes?,
            playbook,
            helped,
            affected,
            sections: Vec::new(),
        })
    }

    fn runbook(&mut self) -> Option<Runbook> {
        self.keys = RUNBOOK_KEYS;
        let faults = self.faults("faults");
        if faults.is_empty() {
            let line = self.line("faults");
            self.problem(line, "a runbook names at least one fault class", "`nightshift faults` lists them");
        }
        let (name, title, owner) = (self.text("name"), self.text("title"), self.text("owner"));
        let (services, playbooks) = (self.list("services"), self.list("playbooks"));
        Some(Runbook { name, title, faults, services, owner, playbooks, sections: Vec::new() })
    }

    fn service(&mut self) -> Option<ServiceDocument> {
        self.keys = SERVICE_KEYS;
        let criticality = self.text("criticality");
        if !criticality.is_empty() && criticality.parse::<nightshift_topology::Criticality>().is_err() {
            let line = self.line("criticality");
            self.problem(line, format!("`{}` is not one of P0, P1, P2, P3", cut(&criticality)), "");
        }
        let sla_percent = self.text("sla_percent");
        let sla = sla_percent.parse::<f64>().is_ok_and(|p| p > 0.0 && p <= 100.0);
        if !sla && !sla_percent.is_empty() {
            let line = self.line("sla_percent");
            self.problem(line, format!("`{}` is no percentage", cut(&sla_percent)), "write it as 99.95");
        }
        Some(ServiceDocument {
            service: self.text("service"),
            team: self.text("team"),
            on_call: self.text("on_call"),
            criticality,
            language: self.text("language"),
            sla_percent,
            depends_on: self.list("depends_on"),
            needed_by: self.list("needed_by"),
            failure_modes: self.faults("failure_modes"),
            runbooks: self.list("runbooks"),
            sections: Vec::new(),
        })
    }

    /// Line of a key, or of the head when it is not there.
    fn line(&self, key: &str) -> u64 {
        self.entries.iter().find(|(_, k, _)| k == key).map_or(1, |(line, ..)| *line)
    }

    fn word<T: std::str::FromStr<Err = String>>(&mut self, key: &str, text: &str) -> Option<T> {
        if text.is_empty() {
            return None;
        }
        match text.parse() {
            Ok(value) => Some(value),
            Err(why) => {
                let line = self.line(key);
                self.problem(line, cut(&why), "");
                None
            }
        }
    }

    /// A text that must be there; empty, with a problem, when it is not.
    fn text(&mut self, key: &str) -> String {
        let text = self.optional(key);
        if text.is_empty() && !self.problems.iter().any(|p| p.message.starts_with(&format!("`{key}`"))) {
            let line = self.line(key);
            self.problem(line, format!("`{key}` is missing or empty"), "");
        }
        text
    }

    fn optional(&mut self, key: &str) -> String {
        let Some(i) = self.entries.iter().position(|(_, k, _)| k == key) else { return String::new() };
        let (line, what) = (self.entries[i].0, self.entries[i].2.value.what());
        match &self.entries[i].2.value {
            Value::Null => String::new(),
            Value::Scalar(text) if text.len() <= TEXT_BYTES_MAX && !text.contains(char::is_control) => {
                text.trim().to_owned()
            }
            Value::Scalar(_) => {
                let hint = format!("write at most {TEXT_BYTES_MAX} bytes on one line");
                self.problem(line, format!("`{key}` is too long, or not one line"), hint);
                String::new()
            }
            Value::List(_) | Value::Map(_) => {
                self.problem(line, format!("`{key}` holds {what}, expected one value"), "");
                String::new()
            }
        }
    }

    fn list(&mut self, key: &str) -> Vec<String> {
        let Some(i) = self.entries.iter().position(|(_, k, _)| k == key) else { return Vec::new() };
        let (line, what) = (self.entries[i].0, self.entries[i].2.value.what());
        let mut out = Vec::new();
        let mut wrong = None;
        match &self.entries[i].2.value {
            Value::Null => {}
            Value::List(items) if items.len() <= ITEMS_MAX => {
                for item in items {
                    match &item.value {
                        Value::Scalar(text)
                            if text.len() <= TEXT_BYTES_MAX
                                && !text.trim().is_empty()
                                && !text.contains(char::is_control) =>
                        {
                            out.push(text.trim().to_owned());
                        }
                        _ => wrong = Some((item.line + 1, format!("an item of `{key}` is no text"))),
                    }
                }
            }
            Value::List(_) => wrong = Some((line, format!("`{key}` has more than {ITEMS_MAX} items"))),
            _ => wrong = Some((line, format!("`{key}` holds {what}, expected a list"))),
        }
        if let Some((line, message)) = wrong {
            self.problem(line, message, "write it as [one, two]");
        }
        out
    }

    fn faults(&mut self, key: &str) -> Vec<FaultClass> {
        let names = self.list(key);
        names.iter().filter_map(|name| self.word(key, name)).collect()
    }

    fn sections(&mut self, body: &str, first_line: u64) -> Vec<Section> {
        let mut out: Vec<Section> = Vec::new();
        let mut code = false;
        for (i, line) in body.lines().enumerate() {
            let number = first_line + i as u64;
            // A line of a script may begin with these signs too.
            code ^= line.trim_start().starts_with("```");
            if let Some(title) = line.strip_prefix("## ").filter(|_| !code) {
                if out.len() == SECTIONS_MAX {
                    self.problem(number, format!("the document has more than {SECTIONS_MAX} sections"), "split it");
                    break;
                }
                let title = title.trim().to_owned();
                out.push(Section { title, text: String::new(), line: number });
            } else if let Some(section) = out.last_mut() {
                section.text.push_str(line);
                section.text.push('\n');
            }
        }
        for section in &mut out {
            section.text = section.text.trim().to_owned();
        }
        if out.is_empty() {
            self.problem(first_line, "the document has no section", "begin one with `## `");
        }
        out
    }
}

/// Outside text in a message: short and on one line.
fn cut(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(80).collect();
    line
}

/// Reads any bytes as a document: for fuzzing.
#[doc(hidden)]
pub fn fuzz_knowledge_document(bytes: &[u8]) {
    match TeamDocument::parse(&String::from_utf8_lossy(bytes)) {
        Ok(document) => assert!(!document.sections().is_empty()),
        Err(problems) => assert!(!problems.is_empty() && problems.len() <= PROBLEMS_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNBOOK: &str = "---\nkind: runbook\nname: pool\ntitle: Pool runs dry\nfaults: [db_connection_exhaustion]\nowner: data\n---\nIntro.\n\n## See it\nLook.\n\n## Settle it\n```sh\n## not a heading\n```\n";

    #[test]
    fn a_runbook_is_read_with_its_sections() {
        let Ok(TeamDocument::Runbook(r)) = TeamDocument::parse(RUNBOOK) else { panic!("a runbook") };
        assert_eq!((r.name.as_str(), r.faults.as_slice()), ("pool", &[FaultClass::DbConnectionExhaustion][..]));
        let sections: Vec<(&str, u64)> = r.sections.iter().map(|s| (s.title.as_str(), s.line)).collect();
        assert_eq!(sections, [("See it", 10), ("Settle it", 13)]);
        assert!(r.sections[1].text.contains("## not a heading"));
    }

    #[test]
    fn an_incident_and_a_service_are_read() {
        let text = "---\nkind: incident\nid: past-1\ntitle: T\nseverity: high\nservice: user-service\nfault: memory_leak\nbegan: 2026-03-14T02:10:00Z\nlasted_minutes: 42.5\nplaybook: restart_leaking\n---\n## Summary\nx\n";
        let Ok(TeamDocument::Incident(i)) = TeamDocument::parse(text) else { panic!("an incident") };
        assert_eq!(
            (i.severity, i.fault, i.lasted_minutes, i.helped),
            (Severity::High, FaultClass::MemoryLeak, 42.5, true)
        );
        let text = "---\nkind: service\nservice: a\nteam: t\non_call: t-oncall\ncriticality: P1\nlanguage: go\nsla_percent: 99.9\ndepends_on: [b]\n---\r\n## About\r\nx\r\n";
        let Ok(TeamDocument::Service(s)) = TeamDocument::parse(text) else { panic!("a service") };
        assert_eq!((s.depends_on.as_slice(), s.sections[0].title.as_str()), (&["b".to_owned()][..], "About"));
    }

    /// What each bad document is told: line and words.
    #[test]
    fn bad_documents_and_what_each_is_told() {
        let with = |from: &str, to: &str| RUNBOOK.replace(from, to);
        for (text, line, words) in [
            (String::new(), 1, "no head"),
            ("# Title\n".into(), 1, "no head"),
            ("---\nkind: runbook\n".into(), 1, "does not end"),
            ("---\n- a\n---\n## x\n".into(), 2, "holds a list"),
            ("---\n---\n## x\n".into(), 1, "holds nothing"),
            ("---\n[\n---\n## x\n".into(), 2, "read YAML"),
            (with("kind: runbook", "kind: runbok"), 2, "no kind of document"),
            (with("kind: runbook\n", ""), 1, "`kind` is missing"),
            (with("faults: [db_connection_exhaustion]", "faults: [gremlins]"), 5, "`gremlins` is not a fault class"),
            (with("faults: [db_connection_exhaustion]", "faults: memory_leak"), 5, "expected a list"),
            (with("faults: [db_connection_exhaustion]", "faults: []"), 5, "at least one"),
            (with("faults: [db_connection_exhaustion]", "faults: [[a]]"), 5, "is no text"),
            (with("owner: data", "ownr: data"), 6, "unknown key `ownr`"),
            (with("owner: data", "owner: [a]"), 6, "expected one value"),
            (with("owner: data", "owner: data\nname: again"), 7, "duplicate"),
            (with("owner: data", &format!("owner: {}", "x".repeat(2_000))), 6, "too long"),
            (with("## ", "# "), 8, "no section"),
            (format!("{RUNBOOK}{}", "## s\n".repeat(200)), 115, "more than 100 sections"),
            (format!("{RUNBOOK}{}", "x".repeat(DOCUMENT_BYTES_MAX)), 0, "at most"),
        ] {
            let problems = TeamDocument::parse(&text).expect_err(words);
            let found = problems.iter().any(|p| p.line == line && p.message.contains(words));
            assert!(found, "{words} on line {line}: {problems:?}");
        }
        let text = "---\nkind: incident\nid: p\ntitle: T\nseverity: awful\nservice: s\nfault: memory_leak\nbegan: yesterday\nlasted_minutes: -3\nhelped: maybe\n---\n## x\n";
        let lines: Vec<u64> = TeamDocument::parse(text).expect_err("bad").iter().map(|p| p.line).collect();
        assert_eq!(lines, [5, 8, 9, 10], "all at once");
        let text = "---\nkind: service\nservice: a\nteam: t\non_call: o\ncriticality: P9\nlanguage: go\nsla_percent: NaN\n---\n## x\n";
        let lines: Vec<u64> = TeamDocument::parse(text).expect_err("bad").iter().map(|p| p.line).collect();
        assert_eq!(lines, [6, 8]);
    }

    #[test]
    fn problems_are_bounded() {
        let keys: String = (0..500).map(|i| format!("key{i}: x\n")).collect();
        let problems = TeamDocument::parse(&RUNBOOK.replace("owner: data\n", &keys)).expect_err("unknown keys");
        assert_eq!(problems.len(), PROBLEMS_MAX);
    }

    #[test]
    fn the_corpus_is_replayed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/knowledge_document");
        let mut n = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            fuzz_knowledge_document(&std::fs::read(entry.unwrap().path()).unwrap());
            n += 1;
        }
        assert!(n >= 3);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            fuzz_knowledge_document(&bytes);
        }

        #[test]
        fn no_damage_panics(at in 0usize..150, with in "[-\\[\\]{}:#\"'&*!|>%@\n ]{0,6}") {
            let mut text = RUNBOOK.to_owned();
            let at = at.min(text.len());
            text.insert_str(at, &with);
            fuzz_knowledge_document(text.as_bytes());
        }
    }
}
