//! The reader of playbook files: strict, bounded, and every mistake told at once with its line and what to do.

mod fields;
pub(crate) mod keys;
mod parts;

use crate::expr::Expr;
use crate::playbook::Playbook;
use fields::{Fields, Reader};
use nightshift_model::Priority;
use nightshift_topology::yaml::{self, Node, Problem, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Largest file that is read, in bytes.
pub const FILE_BYTES_MAX: usize = 128 << 10;
/// Problems reported at most; the last one says that there are more.
pub const PROBLEMS_MAX: usize = 50;

/// Reads one playbook.
pub(crate) fn parse(text: &str) -> Result<Playbook, Vec<Problem>> {
    let root = yaml::parse(text, FILE_BYTES_MAX).map_err(|p| vec![p])?;
    let mut reader = Reader::default();
    let playbook = file(&mut reader, root, digest(text));
    let mut problems = reader.problems;
    match playbook {
        Some(playbook) if problems.is_empty() => Ok(playbook),
        _ => {
            if problems.is_empty() {
                problems.push(Problem { line: 0, message: "this is no playbook".into(), hint: String::new() });
            }
            problems.sort();
            problems.dedup();
            if problems.len() > PROBLEMS_MAX {
                let more = problems.len() - (PROBLEMS_MAX - 1);
                problems.truncate(PROBLEMS_MAX - 1);
                let hint = "repair these first".to_owned();
                problems.push(Problem { line: 0, message: format!("{more} further problems"), hint });
            }
            Err(problems)
        }
    }
}

/// First 12 digits of the SHA-256 of the text.
fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(6).fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn file(r: &mut Reader, root: Node, digest: String) -> Option<Playbook> {
    let line = root.line;
    let Value::Map(_) = root.value else {
        r.problem(line, format!("the file holds {}, expected a map", root.value.what()), "begin with `name:`");
        return None;
    };
    let mut f = Fields::read(r, root, keys::TOP, "a playbook");
    let name = f.name(r, "name");
    let title = f.need_text(r, "title", "one line that people read before they approve it");
    let heals = parts::heals(r, f.take("heals"), line);
    let params = f.take("params").map(|n| parts::params(r, n)).unwrap_or_default();
    let when = conditions(r, f.take("when"));
    let steps = parts::steps(r, f.take("steps"), line);
    let acts = steps.iter().any(|s| s.action != nightshift_model::ActionType::ManualReview);
    let verify = parts::verify(r, f.take("verify"), line, acts);
    let playbook = Playbook {
        name: name.unwrap_or_default(),
        title: title.unwrap_or_default(),
        digest,
        heals,
        params,
        when,
        steps,
        verify,
        acts_at_once: f.boolean(r, "acts_at_once").unwrap_or(false),
        priority: f
            .word::<Priority>(r, "priority", Priority::ALL.iter().map(|p| p.as_str()))
            .unwrap_or(Priority::Within15Min),
        owner: f.text(r, "owner").unwrap_or_default(),
        escalation: f.texts(r, "escalation", 8),
        estimated_resolution_secs: f.whole(r, "estimated_resolution_secs", 1, 604_800).unwrap_or(300),
        harm: f.number(r, "harm", 0.0, 1.0).unwrap_or(0.01),
    };
    circles(r, &playbook.params, line);
    Some(playbook)
}

fn conditions(r: &mut Reader, node: Option<Node>) -> Vec<Expr> {
    let Some(node) = node else { return Vec::new() };
    r.list_or_one("when", node, 16).into_iter().filter_map(|n| r.expr("when", n)).collect()
}

/// A parameter that needs itself, at once or around a corner.
fn circles(r: &mut Reader, params: &BTreeMap<String, crate::playbook::Param>, line: u64) {
    for (name, param) in params {
        if param.value.names().contains(&name.as_str()) {
            let hint = "a parameter hides the fact of its name: call it otherwise, for instance `wanted`";
            r.problem(line, format!("parameter `{name}` is made from itself"), hint);
            return;
        }
    }
    // The order leaves out what hangs in a circle.
    let mut done: Vec<&str> = Vec::new();
    loop {
        let before = done.len();
        for (name, param) in params {
            let ready = param.value.names().iter().all(|n| !params.contains_key(*n) || done.contains(n));
            if ready && !done.contains(&name.as_str()) {
                done.push(name);
            }
        }
        if done.len() == before {
            break;
        }
    }
    let stuck: Vec<&str> = params.keys().map(String::as_str).filter(|n| !done.contains(n)).collect();
    if !stuck.is_empty() {
        let message = format!("parameters are made from each other in a circle: {}", stuck.join(", "));
        r.problem(line, message, "make one of them from facts alone");
    }
}

/// For fuzzing: any bytes are read or refused, nothing else.
#[doc(hidden)]
pub fn fuzz_playbook_yaml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match parse(text) {
        Ok(playbook) => {
            assert!(!playbook.name.is_empty() && !playbook.steps.is_empty() && !playbook.heals.is_empty());
            assert_eq!(playbook.param_order().len(), playbook.params.len());
        }
        Err(problems) => assert!(!problems.is_empty() && problems.len() <= PROBLEMS_MAX),
    }
}
