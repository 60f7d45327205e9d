//! The reference: every key with what it means, its range and its default, as a file that can be used as it is.
//!
//! Two kinds of comment: `# text` explains, `#key = value` is a setting that may be let in by taking off the sign.
//! Read as it is, the file sets nothing; with every setting let in ([`uncomment`]) it still is valid.

use crate::check::{range, type_name};
use crate::shape::Shape;
use serde_json::Value;
use std::fmt::Write as _;

/// Width at which explanations are broken.
const WIDTH: usize = 110;

/// Prints the reference of a configuration with this schema. `defaults` is the default configuration as JSON.
pub fn reference(schema: &schemars::Schema, defaults: &Value) -> String {
    let root = schema.as_value();
    let mut out = String::from(
        "# Every key of the configuration, with its default. The empty file is valid: nothing here must be set.\n\
         # `# text` explains; `#key = value` is a setting: take the sign off to set it.\n\
         # An environment variable NIGHTSHIFT__SECTION__KEY goes before the file. Secrets are never written here but\n\
         # referred to: { env = \"NAME\" }, { file = \"/path\" } or { vault = \"path#key\" }. (This version has no vault\n\
         # client: let the vault's agent write a file.)\n",
    );
    Writer { root, out: &mut out }.table(&Shape::of(root, root), "", "", defaults, false);
    out
}

/// Lets in every setting of a printed reference.
pub fn uncomment(reference: &str) -> String {
    let set = |line: &str| match line.strip_prefix('#') {
        Some(setting)
            if setting.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[' || c == '"' || c == '_') =>
        {
            setting.to_owned()
        }
        _ => line.to_owned(),
    };
    reference.lines().map(|line| set(line) + "\n").collect()
}

struct Writer<'s, 'o> {
    root: &'s Value,
    out: &'o mut String,
}

impl<'s> Writer<'s, '_> {
    fn doc(&mut self, text: &str) {
        for paragraph in text.split("\n\n") {
            let mut line = String::from("#");
            for word in paragraph.split_whitespace() {
                if line.chars().count() + 1 + word.chars().count() > WIDTH {
                    self.line(&line);
                    line = String::from("#");
                }
                line.push(' ');
                line.push_str(word);
            }
            if line.len() > 1 {
                self.line(&line);
            }
        }
    }

    fn line(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }

    /// Prints the keys of a table. `variant` names the one it stands in, `quiet` comments its headers out.
    fn table(&mut self, shape: &Shape<'s>, path: &str, variant: &str, defaults: &Value, quiet: bool) {
        let all: Vec<_> = shape.properties.iter().map(|(key, schema)| (*key, Shape::of(self.root, schema))).collect();
        // TOML wants the plain keys before the tables. What must be there comes first.
        let (sections, mut plain): (Vec<_>, Vec<_>) = all.iter().partition(|(_, s)| self.is_section(s));
        plain.sort_by_key(|(key, _)| (!shape.required.contains(key), *key != "type", *key));
        for (key, inner) in plain {
            let must = shape.required.contains(key);
            self.setting(inner, key, variant, defaults.get(*key), must, quiet);
        }
        for (key, inner) in sections {
            let path = if path.is_empty() { toml_key(key) } else { format!("{path}.{}", toml_key(key)) };
            let default = defaults.get(*key).unwrap_or(&Value::Null);
            self.section(inner, &path, variant, default, quiet);
        }
    }

    /// Whether it is printed under a header of its own.
    fn is_section(&self, shape: &Shape<'s>) -> bool {
        if shape.secret {
            return false;
        }
        let table = |s: &Shape<'s>| !s.properties.is_empty() || s.tagged(self.root).is_some();
        table(shape) || self.element(shape).is_some_and(|e| !e.secret && table(&e))
    }

    /// What a list or a map of tables holds.
    fn element(&self, shape: &Shape<'s>) -> Option<Shape<'s>> {
        shape.items.or(shape.others).map(|s| Shape::of(self.root, s))
    }

    fn section(&mut self, shape: &Shape<'s>, path: &str, variant: &str, default: &Value, quiet: bool) {
        self.line("");
        if let Some(text) = shape.description {
            self.doc(text);
        }
        if let Some(element) = self.element(shape).filter(|_| shape.properties.is_empty()) {
            let list = shape.items.is_some();
            let n = default.as_array().map_or(0, Vec::len);
            let what = if list { "Any number of these" } else { "Any number of these, NAME is yours" };
            let none = if n == 0 { "none by default".to_owned() } else { format!("{n} by default") };
            self.doc(&format!("{what}; {none}."));
            let header = if list { format!("[[{path}]]") } else { format!("[{path}.NAME]") };
            let below = if list { path.to_owned() } else { format!("{path}.NAME") };
            match element.tagged(self.root) {
                Some(tagged) => {
                    for (i, (name, schema)) in tagged.variants.iter().enumerate() {
                        // Only one table of a map can be called NAME.
                        let (header, below) = if list {
                            (header.clone(), below.clone())
                        } else {
                            (format!("[{path}.NAME{}]", i + 1), format!("{path}.NAME{}", i + 1))
                        };
                        self.line("");
                        let chosen = element.clone().with(self.root, schema);
                        if let Some(text) = chosen.description {
                            self.doc(text);
                        }
                        self.line(&format!("#{header}"));
                        self.table(&chosen, &below, name, &Value::Null, true);
                    }
                }
                None => {
                    self.line(&format!("#{header}"));
                    self.table(&element, &below, variant, &Value::Null, true);
                }
            }
            return;
        }
        if let Some(tagged) = shape.tagged(self.root) {
            let current = default.get(tagged.tag).and_then(Value::as_str);
            let first = current.or(tagged.variants.first().map(|(n, _)| *n)).unwrap_or_default().to_owned();
            for (name, schema) in tagged.variants.iter().filter(|(n, _)| *n != first) {
                let chosen = shape.clone().with(self.root, schema);
                let text = chosen.description.unwrap_or_default();
                self.doc(&format!("Or {} = \"{name}\": {text}", tagged.tag));
                self.alternative(&chosen, tagged.tag, "");
            }
            if let Some((_, schema)) = tagged.variants.iter().find(|(n, _)| *n == first) {
                let chosen = shape.clone().with(self.root, schema);
                self.line(&format!("#[{path}]"));
                self.table(&chosen, path, &first, default, true);
            }
            return;
        }
        // An empty table says something where the table is optional, or has keys that must be there.
        let quiet = quiet || shape.nullable || default.is_null() || !shape.required.is_empty();
        if default.is_null() && shape.nullable {
            self.doc("Not there by default.");
        }
        self.line(&format!("{}[{path}]", if quiet { "#" } else { "" }));
        self.table(shape, path, variant, default, quiet);
    }

    /// Tells the keys of a variant that is not the one printed, and those of its tables.
    fn alternative(&mut self, shape: &Shape<'s>, tag: &str, prefix: &str) {
        for (key, schema) in shape.properties.iter().filter(|(k, _)| **k != tag) {
            let inner = Shape::of(self.root, schema);
            let facts = self.facts(&inner, key, inner.default, shape.required.contains(key));
            let path = format!("{prefix}{key}");
            self.doc(&format!("- {path}: {} {facts}", inner.description.unwrap_or_default()));
            if !inner.secret {
                self.alternative(&inner, "", &format!("{path}."));
            }
        }
    }

    fn setting(
        &mut self,
        shape: &Shape<'s>,
        key: &str,
        variant: &str,
        default: Option<&Value>,
        must: bool,
        inner: bool,
    ) {
        if !inner || shape.description.is_some() {
            self.line("#");
        }
        if let Some(text) = shape.description {
            self.doc(text);
        }
        let default = default.or(shape.default).filter(|v| !v.is_null());
        let facts = self.facts(shape, key, default, must);
        if !facts.is_empty() {
            self.doc(&facts);
        }
        for (name, text) in &shape.choice_docs {
            self.doc(&format!("- \"{name}\": {text}"));
        }
        let value = default.and_then(toml_text).unwrap_or_else(|| placeholder(self.root, shape, key, variant));
        self.line(&format!("#{} = {value}", toml_key(key)));
    }

    /// Type, range and default, one line.
    fn facts(&self, shape: &Shape<'s>, key: &str, default: Option<&Value>, must: bool) -> String {
        let mut kind = if shape.secret {
            let open = if shape.is_url() { ", or a URL without a password" } else { "" };
            format!("a secret by reference{open}")
        } else if let Some(choices) = &shape.choices {
            match choices.as_slice() {
                [_] => return String::new(),
                several => {
                    let names: Vec<_> = several.iter().filter_map(|v| toml_text(v)).collect();
                    format!("one of {}", names.join(", "))
                }
            }
        } else {
            shape.types.iter().map(|t| type_name(t)).collect::<Vec<_>>().join(" or ")
        };
        match shape.format {
            None if key == "listen" && shape.takes("string") => kind = "an address and port".into(),
            Some("listen") => kind = "an address and port".into(),
            Some("uri" | "url") if !shape.secret => kind = "a URL".into(),
            Some("ip") => kind = "an IP address".into(),
            _ => {}
        }
        if shape.takes("array")
            && let Some(element) = self.element(shape)
        {
            let of = element.types.iter().map(|t| type_name(t)).collect::<Vec<_>>().join(" or ");
            if !of.is_empty() {
                let _ = write!(kind, ", each {of}");
            }
        }
        let range = range(shape);
        if !range.is_empty() {
            let _ = write!(kind, ", {range}");
        }
        let mut text = kind;
        if let Some(first) = text.get(..1) {
            text = first.to_uppercase() + &text[1..];
        }
        match default.and_then(toml_text) {
            Some(value) if value.len() <= 60 => {
                let _ = write!(text, "; default {value}");
            }
            Some(_) => {}
            None if must => text.push_str("; must be there"),
            None => text.push_str("; not set by default"),
        }
        text + "."
    }
}

fn toml_key(key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if plain { key.to_owned() } else { toml::Value::String(key.to_owned()).to_string() }
}

/// A JSON value as TOML writes it on one line; `None` for what TOML does not have.
fn toml_text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        Value::Array(items) => format!("[{}]", items.iter().filter_map(toml_text).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let entries = entries.iter().filter_map(|(k, v)| Some(format!("{} = {}", toml_key(k), toml_text(v)?)));
            let entries: Vec<_> = entries.collect();
            if entries.is_empty() { "{}".into() } else { format!("{{ {} }}", entries.join(", ")) }
        }
    })
}

/// A value that the shape takes, as an example.
pub(crate) fn placeholder(root: &Value, shape: &Shape<'_>, key: &str, variant: &str) -> String {
    if shape.secret {
        return "{ env = \"NAME\" }".into();
    }
    if let Some(text) = shape.examples.and_then(|e| e.first()).and_then(toml_text) {
        return text;
    }
    if let Some(text) = shape.default.and_then(toml_text) {
        return text;
    }
    if let Some(text) = shape.choices.as_ref().and_then(|c| c.first()).and_then(|v| toml_text(v)) {
        return text;
    }
    match shape.format {
        _ if key == "listen" && shape.takes("string") => return "\"127.0.0.1:0\"".into(),
        Some("listen") => return "\"127.0.0.1:0\"".into(),
        Some("uri" | "url") => return "\"http://127.0.0.1:9090\"".into(),
        Some("ip" | "ipv4") => return "\"127.0.0.1\"".into(),
        Some("ipv6") => return "\"::1\"".into(),
        _ => {}
    }
    if !shape.variants.is_empty() {
        let Some(tagged) = shape.tagged(root) else {
            return placeholder(root, &shape.clone().with(root, shape.variants[0]), key, variant);
        };
        let (name, schema) = tagged.variants[0];
        return inline(root, &shape.clone().with(root, schema), name);
    }
    match shape.types.first().copied().unwrap_or("string") {
        "integer" | "number" => {
            let least = shape.minimum.unwrap_or(f64::NEG_INFINITY).max(if shape.above_minimum { 1.0 } else { 0.0 });
            let most = shape.maximum.unwrap_or(f64::INFINITY);
            let value =
                if least <= most && (least < most || !shape.below_maximum) { least.max(1.0).min(most) } else { most };
            // A ratio's range may have no whole number inside.
            let value = if shape.below_maximum && value >= most { (least.max(0.0) + most) / 2.0 } else { value };
            value.to_string()
        }
        "boolean" => "false".into(),
        "array" => match shape.items.filter(|_| shape.count.0.is_some_and(|n| n > 0)) {
            Some(items) => format!("[{}]", placeholder(root, &Shape::of(root, items), key, variant)),
            None => "[]".into(),
        },
        "object" => inline(root, shape, variant),
        // Tables that are told apart by name each get one of their own.
        _ if key == "name" && !variant.is_empty() => format!("\"{variant}\""),
        _ if shape.pattern.is_some() => "\"name\"".into(),
        _ => "\"…\"".into(),
    }
}

/// A table on one line with what must be there.
fn inline(root: &Value, shape: &Shape<'_>, variant: &str) -> String {
    let entries: Vec<_> = shape
        .required
        .iter()
        .filter_map(|key| {
            let inner = Shape::of(root, shape.properties.get(key)?);
            Some(format!("{} = {}", toml_key(key), placeholder(root, &inner, key, variant)))
        })
        .collect();
    if entries.is_empty() { "{}".into() } else { format!("{{ {} }}", entries.join(", ")) }
}
