//! The check of a document against a schema: everything that is wrong, in one walk.

use crate::hint::{self, cut, list, nearest, quoted};
use crate::node::{Entry, Kind, Node, Step, parse, path_text};
use crate::problem::{Level, Origin, Problem, Problems, SpanIndex, variable};
use crate::secret::{FORMS, Reference, SecretSource, SecretString};
use crate::shape::Shape;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Tells everything that is wrong with `text`, called `file`, as a document of `schema`. Unknown keys are errors. Of
/// secrets it looks at the form only, not where they lead.
pub fn check(text: &str, file: &str, schema: &schemars::Schema) -> Problems {
    let mut problems = Problems::new(file);
    let document = parse(text, file, &mut problems);
    examine(&document, file, schema.as_value(), Level::Error, None, &mut problems);
    problems
}

/// What [`examine`] found besides problems.
#[derive(Debug, Default)]
pub(crate) struct Examined {
    /// What must be taken out of the document before the rest can be read, parents before children.
    pub(crate) unusable: BTreeSet<Vec<Step>>,
    /// What the references to secrets led to.
    pub(crate) secrets: BTreeMap<Vec<Step>, SecretString>,
}

/// Checks a document, and enters the places of its keys into `problems`. References to secrets are followed where
/// `secrets` is given.
pub(crate) fn examine(
    document: &Node,
    file: &str,
    schema: &Value,
    unknown: Level,
    secrets: Option<&dyn SecretSource>,
    problems: &mut Problems,
) -> Examined {
    let mut spans = SpanIndex::default();
    document.index(&mut Vec::new(), &mut spans);
    problems.set_spans(spans);
    let mut walker = Walker {
        root: schema,
        file,
        unknown,
        secrets,
        path: Vec::new(),
        found: Vec::new(),
        examined: Examined::default(),
        patterns: BTreeMap::new(),
    };
    if !walker.value(document, &document.origin, Shape::of(schema, schema)) {
        walker.examined.unusable.insert(Vec::new());
    }
    walker.found.into_iter().for_each(|p| problems.push(p));
    walker.examined
}

struct Walker<'s> {
    root: &'s Value,
    file: &'s str,
    unknown: Level,
    secrets: Option<&'s dyn SecretSource>,
    path: Vec<Step>,
    found: Vec<Problem>,
    examined: Examined,
    patterns: BTreeMap<&'s str, Option<regex::Regex>>,
}

impl<'s> Walker<'s> {
    fn tell(&mut self, level: Level, origin: &Origin, message: impl Into<String>, hint: impl Into<String>) {
        let (file, at) = match origin {
            Origin::File(at) => (self.file.to_owned(), Some(*at)),
            Origin::Variable(name) => (variable(name), None),
        };
        let (message, hint) = (message.into(), hint.into());
        self.found.push(Problem { level, file, at, path: path_text(&self.path), message, hint });
    }

    fn error(&mut self, origin: &Origin, message: impl Into<String>, hint: impl Into<String>) -> bool {
        self.tell(Level::Error, origin, message, hint);
        false
    }

    fn key(&self) -> &str {
        match self.path.last() {
            Some(Step::Key(key)) => key,
            _ => "",
        }
    }

    /// Checks one value; `origin` is where its key stands. Whether it can be used as it is, but for the parts
    /// entered in `unusable`.
    fn value(&mut self, node: &Node, origin: &Origin, shape: Shape<'s>) -> bool {
        if shape.deprecated {
            self.tell(Level::Warning, origin, "is going away", shape.description.unwrap_or_default());
        }
        if shape.secret {
            return self.secret(node, origin, shape);
        }
        if !shape.variants.is_empty() {
            return self.variant(node, origin, shape);
        }
        if shape.is_any() {
            return true;
        }
        match &node.kind {
            Kind::Table(entries) if shape.takes("object") || shape.types.is_empty() => {
                self.table(entries, origin, &shape)
            }
            Kind::Array(items) if shape.takes("array") => self.array(items, origin, &shape),
            Kind::String(text) if shape.takes("string") => self.text(text, origin, &shape),
            Kind::Integer(number, raw) if shape.takes("integer") => {
                let Some(number) = number else {
                    let message = format!("{} does not fit into 64 bits", cut(raw));
                    return self.error(origin, message, "write a smaller number");
                };
                self.number(*number as f64, raw, origin, &shape)
            }
            Kind::Float(x, raw) if shape.takes("number") => {
                if !x.is_finite() {
                    let message = format!("{} is not a finite number", cut(raw));
                    return self.error(origin, message, "write a number");
                }
                self.number(*x, raw, origin, &shape)
            }
            Kind::Boolean(_) if shape.takes("boolean") => true,
            _ => self.wrong_type(node, origin, &shape),
        }
    }

    /// Checks a secret: a reference, which is followed where there is a source, or, where it is a URL, one without a
    /// password. Nothing that stands there is repeated, it may be the secret itself.
    fn secret(&mut self, node: &Node, origin: &Origin, shape: Shape<'s>) -> bool {
        match &node.kind {
            Kind::Table(_) => {
                if !self.variant(node, origin, Shape { secret: false, ..shape }) {
                    return false;
                }
                let (Some(source), Some(reference)) = (self.secrets, Reference::of(node)) else { return true };
                match reference.resolve(source) {
                    Ok(secret) => {
                        self.examined.secrets.insert(self.path.clone(), secret);
                        true
                    }
                    Err(e) => self.error(origin, e.to_string(), e.hint()),
                }
            }
            Kind::String(url) if shape.is_url() => match crate::format::open_url(url) {
                Ok(()) => true,
                Err(why) => self.error(origin, why, format!("refer to it: {FORMS}")),
            },
            _ => self.error(origin, "a secret is never written into the file", format!("refer to it: {FORMS}")),
        }
    }

    fn wrong_type(&mut self, node: &Node, origin: &Origin, shape: &Shape<'s>) -> bool {
        let want: Vec<_> = shape.types.iter().map(|t| type_name(t)).collect();
        let want = want.join(" or ");
        let hint = match &node.kind {
            Kind::String(text) if shape.takes("integer") => hint::in_unit(self.key(), text).unwrap_or_default(),
            Kind::String(text) if shape.takes("boolean") => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => "write true".into(),
                "false" | "no" | "off" => "write false".into(),
                _ => "write true or false, without quotes".into(),
            },
            Kind::Table(_) if shape.takes("array") => {
                format!("one of a list begins with [[{}]]", path_text(&self.path))
            }
            Kind::Array(items) if shape.takes("object") && items.iter().all(|n| matches!(n.kind, Kind::Table(_))) => {
                format!("there is one of it: it begins with [{}]", path_text(&self.path))
            }
            Kind::String(_) | Kind::Integer(..) | Kind::Float(..) | Kind::Boolean(_) if shape.takes("array") => {
                format!("write [{}]", node.shown())
            }
            Kind::Integer(..) | Kind::Float(..) | Kind::Boolean(_) | Kind::Datetime(_) if shape.takes("string") => {
                format!("put it in quotes: \"{}\"", node.shown())
            }
            Kind::Integer(n, _) if shape.takes("boolean") => {
                format!("write {}", if *n == Some(0) { "false" } else { "true" })
            }
            Kind::Float(x, _) if shape.takes("integer") && x.is_finite() => format!("write {:.0}", x.round()),
            _ if shape.takes("object") => format!("begin a table: [{}]", path_text(&self.path)),
            _ => String::new(),
        };
        let message = match &node.kind {
            Kind::Array(_) | Kind::Table(_) => format!("is {}, not {want}", node.kind.name()),
            _ => format!("{} is {}, not {want}", node.shown(), node.kind.name()),
        };
        self.error(origin, message, hint)
    }

    fn table(&mut self, entries: &[Entry], origin: &Origin, shape: &Shape<'s>) -> bool {
        let mut usable = true;
        for entry in entries {
            self.path.push(Step::Key(entry.key.clone()));
            if let Some(schema) = shape.properties.get(entry.key.as_str()) {
                let mut inner = Shape::of(self.root, schema);
                // Wherever it stands, a key of this name is where something listens.
                if entry.key == "listen" && inner.format.is_none() && inner.pattern.is_none() {
                    inner.format = Some("listen");
                }
                if !self.value(&entry.value, &entry.origin, inner) {
                    if shape.required.contains(&entry.key.as_str()) {
                        usable = false;
                    } else {
                        self.examined.unusable.insert(self.path.clone());
                    }
                }
            } else if let Some(schema) = shape.others {
                if !self.value(&entry.value, &entry.origin, Shape::of(self.root, schema)) {
                    self.examined.unusable.insert(self.path.clone());
                }
            } else {
                let missing = |k: &&str| !entries.iter().any(|e| e.key == **k);
                let here: Vec<_> = shape.properties.keys().copied().filter(missing).collect();
                let hint = self.whose(&entry.key, &here, shape);
                self.tell(self.unknown, &entry.origin, "unknown key", hint);
            }
            self.path.pop();
        }
        for key in &shape.required {
            if !entries.iter().any(|e| e.key == **key) {
                let example = shape.properties.get(key).map(|s| self.example(key, s)).unwrap_or_default();
                usable = self.error(origin, format!("`{key}` is missing"), format!("add {key} = {example}"));
            }
        }
        usable
    }

    fn example(&self, key: &str, schema: &'s Value) -> String {
        crate::reference::placeholder(self.root, &Shape::of(self.root, schema), key, "")
    }

    /// What an unknown key was meant to be.
    fn whose(&self, key: &str, free: &[&str], shape: &Shape<'s>) -> String {
        if let Some(near) = nearest(key, free.iter().copied()) {
            return format!("did you mean `{near}`?");
        }
        let elsewhere = self.sections_with(key);
        if !elsewhere.is_empty() {
            return format!("it belongs in {}", list(elsewhere.iter().map(String::as_str)));
        }
        match nearest(key, shape.properties.keys().copied()) {
            Some(near) => format!("did you mean `{near}`, which is there already?"),
            None if shape.properties.is_empty() => "nothing can be set here".into(),
            None => format!("known here: {}", list(shape.properties.keys().copied())),
        }
    }

    /// Tables outside of lists that have a key of this name.
    fn sections_with(&self, key: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut todo = vec![(String::new(), Shape::of(self.root, self.root), 0)];
        while let Some((path, shape, depth)) = todo.pop() {
            for (name, schema) in &shape.properties {
                let inner = Shape::of(self.root, schema);
                let path = if path.is_empty() { (*name).to_owned() } else { format!("{path}.{name}") };
                if *name == key && depth > 0 {
                    found.push(format!("[{}]", &path[..path.len() - key.len() - 1]));
                }
                if depth < 4 && !inner.properties.is_empty() {
                    todo.push((path, inner, depth + 1));
                }
            }
        }
        found.sort();
        found.truncate(3);
        found
    }

    fn array(&mut self, items: &[Node], origin: &Origin, shape: &Shape<'s>) -> bool {
        let (least, most) = shape.count;
        let n = items.len() as u64;
        if least.is_some_and(|least| n < least) || most.is_some_and(|most| n > most) {
            return self.error(origin, format!("has {n} elements, {}", bounds(least, most)), "");
        }
        let Some(schema) = shape.items else { return true };
        for (i, item) in items.iter().enumerate() {
            self.path.push(Step::Index(i));
            if !self.value(item, &item.origin, Shape::of(self.root, schema)) {
                self.examined.unusable.insert(self.path.clone());
            }
            self.path.pop();
        }
        let key = match shape.unique {
            Some(Value::String(key)) => Some(key.as_str()),
            Some(_) => None,
            None => Some("name"),
        };
        if let Some(key) = key {
            self.unique(items, key);
        }
        true
    }

    /// Two tables of one array must not have the same name: what is told of the one would be laid to the other.
    fn unique(&mut self, items: &[Node], key: &str) {
        let mut seen: BTreeMap<&str, &Origin> = BTreeMap::new();
        for (i, item) in items.iter().enumerate() {
            let Kind::Table(entries) = &item.kind else { continue };
            let Some(entry) = entries.iter().find(|e| e.key == key) else { continue };
            let Kind::String(name) = &entry.value.kind else { continue };
            if let Some(first) = seen.get(name.as_str()) {
                let place = match first {
                    Origin::File(at) => format!("line {}", at.line),
                    Origin::Variable(name) => name.clone(),
                };
                self.path.extend([Step::Index(i), Step::Key(key.to_owned())]);
                let message = format!("{} is taken by the one of {place}", quoted(name));
                self.error(&entry.origin, message, "give each its own");
                self.path.truncate(self.path.len() - 2);
            } else {
                seen.insert(name, &entry.origin);
            }
        }
    }

    fn text(&mut self, text: &str, origin: &Origin, shape: &Shape<'s>) -> bool {
        if let Some(choices) = &shape.choices {
            let names: Vec<_> = choices.iter().filter_map(|v| v.as_str()).collect();
            if names.contains(&text) {
                return true;
            }
            let hint = nearest(text, names.iter().copied()).map(|n| format!("did you mean `{n}`?"));
            let hint = hint.unwrap_or_else(|| "write one of these".into());
            let message = format!("{} is not {}", quoted(text), list(names));
            return self.error(origin, message, hint);
        }
        let (least, most) = shape.length;
        let n = text.chars().count() as u64;
        if least.is_some_and(|least| n < least) || most.is_some_and(|most| n > most) {
            let message =
                if n == 0 { "is empty".into() } else { format!("has {n} characters, {}", bounds(least, most)) };
            return self.error(origin, message, "");
        }
        if let Some((why, hint)) = shape.format.and_then(|f| crate::format::wrong(f, text)) {
            return self.error(origin, format!("{} {why}", quoted(text)), hint);
        }
        if let Some(pattern) = shape.pattern {
            let compiled = self.patterns.entry(pattern).or_insert_with(|| regex::Regex::new(pattern).ok());
            if compiled.as_ref().is_some_and(|p| !p.is_match(text)) {
                let hint = match shape.examples.and_then(|e| e.first()) {
                    Some(example) => format!("write it like {example}"),
                    None => format!("it must match {pattern}"),
                };
                return self.error(origin, format!("{} does not have the right form", quoted(text)), hint);
            }
        }
        true
    }

    fn number(&mut self, x: f64, raw: &str, origin: &Origin, shape: &Shape<'s>) -> bool {
        let (fits_from, fits_to) = shape.format_range().unwrap_or((f64::NEG_INFINITY, f64::INFINITY));
        let least = shape.minimum.unwrap_or(fits_from).max(fits_from);
        let most = shape.maximum.unwrap_or(fits_to).min(fits_to);
        // Written positively, so that whatever cannot be compared is refused.
        let low_ok = if shape.above_minimum { x > least } else { x >= least };
        let high_ok = if shape.below_maximum { x < most } else { x <= most };
        if low_ok && high_ok {
            return true;
        }
        let raw = cut(raw);
        let (message, hint) = match (least.is_finite(), most.is_finite()) {
            (true, true) => (format!("{raw} is not within {}", range(shape)), format!("write {} to {}", least, most)),
            (true, false) => {
                let word = if shape.above_minimum { "above" } else { "at least" };
                (format!("{raw} is not {word} {least}"), format!("write a number {word} {least}"))
            }
            _ => {
                let word = if shape.below_maximum { "below" } else { "at most" };
                (format!("{raw} is not {word} {most}"), format!("write a number {word} {most}"))
            }
        };
        self.error(origin, message, hint)
    }

    /// Checks a value that may be one of several things.
    fn variant(&mut self, node: &Node, origin: &Origin, shape: Shape<'s>) -> bool {
        if let Some(tagged) = shape.tagged(self.root) {
            let names = || tagged.variants.iter().map(|(name, _)| *name);
            let Kind::Table(entries) = &node.kind else {
                let example = names().next().unwrap_or_default();
                let message = format!("{} is {}, not a table", node.shown(), node.kind.name());
                return self.error(origin, message, format!("write {{ {} = \"{example}\" }}", tagged.tag));
            };
            let Some(entry) = entries.iter().find(|e| e.key == tagged.tag) else {
                // A slip in the tag's own name would otherwise be told as two problems.
                let slip = entries.iter().find(|e| nearest(&e.key, [tagged.tag]).is_some());
                if let Some(slip) = slip {
                    self.path.push(Step::Key(slip.key.clone()));
                    let hint = format!("did you mean `{}`?", tagged.tag);
                    self.tell(Level::Error, &slip.origin, "unknown key", hint);
                    self.path.pop();
                    return false;
                }
                let hint = format!("add {} = one of {}", tagged.tag, list(names()));
                return self.error(origin, format!("`{}` is missing", tagged.tag), hint);
            };
            let name = match &entry.value.kind {
                Kind::String(name) => name.as_str(),
                _ => "",
            };
            let Some((_, variant)) = tagged.variants.iter().find(|(n, _)| *n == name) else {
                self.path.push(Step::Key(tagged.tag.to_owned()));
                let near = nearest(name, names()).map(|n| format!("did you mean `{n}`?"));
                let hint = near.unwrap_or_else(|| "write one of these".into());
                let message = format!("{} is not {}", entry.value.shown(), list(names()));
                self.error(&entry.origin, message, hint);
                self.path.pop();
                return false;
            };
            return self.value(node, origin, shape.with(self.root, variant));
        }
        self.untagged(node, origin, &shape)
    }

    /// One of several things that only their form tells apart: the best fit speaks.
    fn untagged(&mut self, node: &Node, origin: &Origin, shape: &Shape<'s>) -> bool {
        let single_keys: Vec<_> = shape
            .variants
            .iter()
            .filter_map(|v| match Shape::of(self.root, v).required.as_slice() {
                [only] => Some(*only),
                _ => None,
            })
            .collect();
        let by_key = single_keys.len() == shape.variants.len();
        if let (Kind::Table(entries), true) = (&node.kind, by_key) {
            let known = entries.iter().filter(|e| single_keys.contains(&e.key.as_str())).count();
            if known != 1 {
                let near = entries.iter().find_map(|e| nearest(&e.key, single_keys.iter().copied()));
                let message = format!("needs exactly one of {}, has {known}", list(single_keys.iter().copied()));
                let hint = near.filter(|_| known == 0).map(|n| format!("did you mean `{n}`?")).unwrap_or_default();
                return self.error(origin, message, hint);
            }
        }
        let mut best: Option<Fit> = None;
        for variant in &shape.variants {
            let found = std::mem::take(&mut self.found);
            let examined = std::mem::take(&mut self.examined);
            let usable = self.value(node, origin, shape.clone().with(self.root, variant));
            let found = std::mem::replace(&mut self.found, found);
            let examined = std::mem::replace(&mut self.examined, examined);
            // A variant of another type altogether is further away than one with a slip inside.
            let same_type = fits(node, &Shape::of(self.root, variant));
            let distance = found.len() + if same_type { 0 } else { 1_000 };
            if best.as_ref().is_none_or(|b| distance < b.distance) {
                best = Some(Fit { distance, usable, found, examined });
            }
        }
        let Some(best) = best else { return true };
        self.found.extend(best.found);
        self.examined.unusable.extend(best.examined.unusable);
        self.examined.secrets.extend(best.examined.secrets);
        best.usable
    }
}

/// How well one of several variants fits.
struct Fit {
    distance: usize,
    usable: bool,
    found: Vec<Problem>,
    examined: Examined,
}

/// Whether the value is of a type that the shape takes.
fn fits(node: &Node, shape: &Shape<'_>) -> bool {
    let kind = match &node.kind {
        Kind::String(_) | Kind::Datetime(_) => "string",
        Kind::Integer(..) => "integer",
        Kind::Float(..) => "number",
        Kind::Boolean(_) => "boolean",
        Kind::Array(_) => "array",
        Kind::Table(entries) => {
            return shape.takes("object") && shape.required.iter().all(|k| entries.iter().any(|e| e.key == **k));
        }
    };
    shape.types.is_empty() || shape.takes(kind)
}

/// A JSON type, for people.
pub(crate) fn type_name(json: &str) -> &'static str {
    match json {
        "string" => "text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a table",
        _ => "something else",
    }
}

fn bounds(least: Option<u64>, most: Option<u64>) -> String {
    match (least, most) {
        (Some(least), Some(most)) => format!("{least} to {most} are allowed"),
        (Some(least), None) => format!("at least {least} are needed"),
        (None, Some(most)) => format!("at most {most} are allowed"),
        (None, None) => String::new(),
    }
}

/// `1 to 10`, `at least 1`, `above 0 and below 1`; empty when there is no bound.
pub(crate) fn range(shape: &Shape<'_>) -> String {
    let least = shape.minimum.map(|x| (x, shape.above_minimum));
    // The top of a 32-bit number is no limit that anybody chose.
    let most = shape.maximum.map(|x| (x, shape.below_maximum));
    match (least, most) {
        (Some((a, false)), Some((b, false))) => format!("{a} to {b}"),
        (Some((a, false)), None) => format!("at least {a}"),
        (Some((a, true)), None) => format!("above {a}"),
        (None, Some((b, false))) => format!("at most {b}"),
        (None, Some((b, true))) => format!("below {b}"),
        (Some((a, low)), Some((b, high))) => {
            format!("{} {a} and {} {b}", if low { "above" } else { "at least" }, if high { "below" } else { "at most" })
        }
        (None, None) => shape.format_range().map(|(a, b)| format!("{a} to {b}")).unwrap_or_default(),
    }
}
