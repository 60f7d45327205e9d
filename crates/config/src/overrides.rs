//! Environment overrides: `NIGHTSHIFT__SECTION__KEY=value`.
//!
//! They are laid over the document before it is checked, so that what they say is checked like the rest.

use crate::node::{Entry, Kind, Node, Step, parse_value, path_text};
use crate::problem::{Level, Origin, Problem, Problems, variable};
use crate::shape::Shape;
use serde_json::Value;

/// What the names of overrides begin with. A single underscore is part of a key, two separate keys.
pub const PREFIX: &str = "NIGHTSHIFT__";

/// Most keys in one name; none of ours is deeper.
const DEPTH_MAX: usize = 16;

/// Lays the overrides among `env` over the document. Those that cannot be are reported.
pub(crate) fn apply(
    document: &mut Node,
    schema: &Value,
    env: impl IntoIterator<Item = (String, String)>,
    problems: &mut Problems,
) {
    let mut overrides: Vec<_> = env.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    // Whatever order the system lists them in, the outcome is one. Which variant it is comes before its keys.
    overrides.sort_by(|(a, _), (b, _)| (!a.ends_with("__TYPE"), a).cmp(&(!b.ends_with("__TYPE"), b)));
    for (name, value) in overrides {
        let steps: Vec<_> = name[PREFIX.len()..].split("__").map(str::to_lowercase).collect();
        let mut path = Vec::new();
        // One that is refused half way leaves nothing behind.
        let mut with = document.clone();
        match put(&mut with, schema, &steps, &name, &value, &mut path) {
            Ok(()) => *document = with,
            Err((message, hint)) => {
                let (file, path) = (variable(&name), path_text(&path));
                problems.push(Problem { level: Level::Error, file, at: None, path, message, hint });
            }
        }
    }
}

type Refused = (String, String);

fn put(
    document: &mut Node,
    root: &Value,
    steps: &[String],
    name: &str,
    text: &str,
    path: &mut Vec<Step>,
) -> Result<(), Refused> {
    let refuse = |message: &str, hint: &str| Err((message.to_owned(), hint.to_owned()));
    if steps.len() > DEPTH_MAX || steps.iter().any(String::is_empty) {
        return refuse("the name is not SECTION__KEY", "write for example NIGHTSHIFT__API__LISTEN");
    }
    let origin = Origin::Variable(name.to_owned());
    let mut node = document;
    let mut shape = Shape::of(root, root);
    for (i, step) in steps.iter().enumerate() {
        let last = i + 1 == steps.len();
        // Which variant it is decides what its keys are.
        if let Some(tagged) = shape.tagged(root) {
            let chosen = node.get(tagged.tag).and_then(|n| match &n.kind {
                Kind::String(name) => Some(name.clone()),
                _ => None,
            });
            if let Some((_, variant)) = tagged.variants.iter().find(|(n, _)| Some(*n) == chosen.as_deref()) {
                shape = shape.with(root, variant);
            } else if step == tagged.tag {
                // The tag itself is being chosen: a plain text.
                shape = Shape { types: vec!["object"], others: Some(&STRING), ..Shape::default() };
            }
        }
        let here = node;
        match &mut here.kind {
            Kind::Array(items) => {
                let Some(index) = step.parse::<usize>().ok().filter(|i| *i <= items.len()) else {
                    let message = format!("`{step}` is not one of the {} elements, counted from 0", items.len());
                    return Err((message, String::new()));
                };
                path.push(Step::Index(index));
                shape = shape.items.map(|s| Shape::of(root, s)).unwrap_or_default();
                if index == items.len() {
                    items.push(Node { origin: origin.clone(), kind: Kind::Table(Vec::new()) });
                }
                node = &mut items[index];
            }
            Kind::Table(entries) => {
                path.push(Step::Key(step.clone()));
                let inner = shape.properties.get(step.as_str()).copied().or(shape.others);
                shape = inner.map(|s| Shape::of(root, s)).unwrap_or_default();
                let at = entries.iter().position(|e| e.key == *step).unwrap_or_else(|| {
                    let kind = if !last && shape.takes("array") { Kind::Array(vec![]) } else { Kind::Table(vec![]) };
                    let value = Node { origin: origin.clone(), kind };
                    entries.push(Entry { key: step.clone(), origin: origin.clone(), value });
                    entries.len() - 1
                });
                if last {
                    entries[at].origin = origin.clone();
                }
                node = &mut entries[at].value;
            }
            _ => return refuse("is a single value, it has no keys", "take the last part off the name"),
        }
    }
    *node = typed(text, &shape, &origin).map_err(|why| (why, String::new()))?;
    Ok(())
}

static STRING: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| serde_json::json!({ "type": "string" }));

/// Reads the text as the type that the schema asks for. What does not fit is kept as text, for the check to refuse.
fn typed(text: &str, shape: &Shape<'_>, origin: &Origin) -> Result<Node, String> {
    let node = |kind| Node { origin: origin.clone(), kind };
    let as_text = || node(Kind::String(text.to_owned()));
    let trimmed = text.trim();
    if shape.takes("string") || shape.choices.is_some() || shape.is_any() {
        return Ok(as_text());
    }
    if shape.takes("array") && !trimmed.starts_with('[') {
        let parts = trimmed.split(',').map(str::trim).filter(|p| !p.is_empty());
        let items = parts.map(|p| parse_value(p, origin).unwrap_or_else(|_| node(Kind::String(p.to_owned()))));
        return Ok(node(Kind::Array(items.collect())));
    }
    let structured = shape.takes("array") || shape.takes("object") || !shape.variants.is_empty();
    match parse_value(trimmed, origin) {
        Ok(value) => Ok(value),
        // Never repeat the text: it may be a secret that was meant to be given by reference.
        Err(why) if structured && !shape.secret => Err(format!("cannot be read as a TOML value: {why}")),
        Err(_) => Ok(as_text()),
    }
}
