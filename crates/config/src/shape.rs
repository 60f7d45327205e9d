//! What a JSON schema says of one value, with references followed and parts merged.
//!
//! Understands what schemars derives from serde structs and enums, no more: [`unknown_keywords`] names what a schema
//! uses beyond that, so that a test can hold the two together.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// References and `allOf` nest no deeper in a derived schema; more is a circle.
const DEPTH_MAX: usize = 32;

/// What is known of one value.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shape<'s> {
    /// JSON types that it may have; empty: any.
    pub(crate) types: Vec<&'s str>,
    /// Whether it may be left out as null (TOML has none, so this only says that it is optional).
    pub(crate) nullable: bool,
    pub(crate) properties: BTreeMap<&'s str, &'s Value>,
    pub(crate) required: Vec<&'s str>,
    /// Schema of keys that are not in `properties`; `None`: there are no others.
    pub(crate) others: Option<&'s Value>,
    pub(crate) items: Option<&'s Value>,
    pub(crate) choices: Option<Vec<&'s Value>>,
    /// What each choice means, where the schema says so.
    pub(crate) choice_docs: Vec<(&'s str, &'s str)>,
    pub(crate) minimum: Option<f64>,
    pub(crate) maximum: Option<f64>,
    /// Whether the ends of the range are outside of it.
    pub(crate) above_minimum: bool,
    pub(crate) below_maximum: bool,
    pub(crate) length: (Option<u64>, Option<u64>),
    pub(crate) count: (Option<u64>, Option<u64>),
    pub(crate) pattern: Option<&'s str>,
    pub(crate) format: Option<&'s str>,
    /// One of these, each a schema of its own.
    pub(crate) variants: Vec<&'s Value>,
    pub(crate) unique: Option<&'s Value>,
    pub(crate) secret: bool,
    pub(crate) deprecated: bool,
    pub(crate) description: Option<&'s str>,
    pub(crate) default: Option<&'s Value>,
    pub(crate) examples: Option<&'s Vec<Value>>,
}

/// The variants of a tagged enum.
pub(crate) struct Tagged<'s> {
    /// The key that tells them apart.
    pub(crate) tag: &'s str,
    /// Each by its name.
    pub(crate) variants: Vec<(&'s str, &'s Value)>,
}

impl<'s> Shape<'s> {
    /// What `schema`, a part of `root`, says.
    pub(crate) fn of(root: &'s Value, schema: &'s Value) -> Self {
        let mut shape = Self::default();
        shape.merge(root, schema, 0);
        shape
    }

    /// Adds what `schema` says.
    pub(crate) fn with(mut self, root: &'s Value, schema: &'s Value) -> Self {
        self.variants.clear();
        self.merge(root, schema, 0);
        self
    }

    fn merge(&mut self, root: &'s Value, schema: &'s Value, depth: usize) {
        let Value::Object(object) = schema else {
            // `true`: anything goes.
            self.others = self.others.or(Some(schema));
            return;
        };
        if depth > DEPTH_MAX {
            return;
        }
        if let Some(target) =
            object.get("$ref").and_then(Value::as_str).and_then(|r| root.pointer(r.strip_prefix('#')?))
        {
            self.merge(root, target, depth + 1);
        }
        for part in object.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.merge(root, part, depth + 1);
        }
        for keyword in ["oneOf", "anyOf"] {
            let Some(all) = object.get(keyword).and_then(Value::as_array) else { continue };
            let is_null = |v: &&Value| v.get("type").and_then(Value::as_str) == Some("null");
            self.nullable |= all.iter().any(|v| is_null(&v));
            let variants: Vec<_> = all.iter().filter(|v| !is_null(v)).collect();
            let texts = (!variants.is_empty()).then(|| variants.iter().map(|v| choice(v)).collect::<Option<Vec<_>>>());
            match (texts.flatten(), variants.as_slice()) {
                (Some(texts), _) => {
                    self.types = vec!["string"];
                    for (values, doc) in texts {
                        if let (Some(doc), [Value::String(name)]) = (doc, values.as_slice()) {
                            self.choice_docs.push((name, doc));
                        }
                        self.choices.get_or_insert_default().extend(values);
                    }
                }
                (None, [only]) => self.merge(root, only, depth + 1),
                (None, several) => self.variants.extend(several),
            }
        }
        // Last, because what a field says goes before what its type says.
        self.plain(object);
    }

    fn plain(&mut self, object: &'s Map<String, Value>) {
        let text = |k: &str| object.get(k).and_then(Value::as_str);
        let number = |k: &str| object.get(k).and_then(Value::as_f64);
        let whole = |k: &str| object.get(k).and_then(Value::as_u64);
        let flag = |k: &str| object.get(k).and_then(Value::as_bool).unwrap_or(false);
        let types: Vec<&str> = match object.get("type") {
            Some(Value::String(t)) => vec![t.as_str()],
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            _ => vec![],
        };
        self.nullable |= types.contains(&"null");
        if types.iter().any(|t| *t != "null") {
            self.types = types.into_iter().filter(|t| *t != "null").collect();
        }
        if let Some(properties) = object.get("properties").and_then(Value::as_object) {
            self.properties.extend(properties.iter().map(|(k, v)| (k.as_str(), v)));
        }
        for key in object.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !self.required.contains(&key) {
                self.required.push(key);
            }
        }
        for keyword in ["additionalProperties", "unevaluatedProperties"] {
            if let Some(others) = object.get(keyword).filter(|v| **v != Value::Bool(false)) {
                self.others = Some(others);
            }
        }
        self.items = object.get("items").or(self.items);
        if let Some(all) = object.get("enum").and_then(Value::as_array) {
            self.choices = Some(all.iter().filter(|v| !v.is_null()).collect());
        }
        if let Some(only) = object.get("const") {
            self.choices = Some(vec![only]);
        }
        // A field narrows its type's range, so the later of the two counts.
        if let Some(least) = number("minimum") {
            (self.minimum, self.above_minimum) = (Some(least), false);
        }
        if let Some(most) = number("maximum") {
            (self.maximum, self.below_maximum) = (Some(most), false);
        }
        if let Some(least) = number("exclusiveMinimum") {
            (self.minimum, self.above_minimum) = (Some(least), true);
        }
        if let Some(most) = number("exclusiveMaximum") {
            (self.maximum, self.below_maximum) = (Some(most), true);
        }
        self.length = (whole("minLength").or(self.length.0), whole("maxLength").or(self.length.1));
        self.count = (whole("minItems").or(self.count.0), whole("maxItems").or(self.count.1));
        self.pattern = text("pattern").or(self.pattern);
        self.format = text("format").or(self.format);
        self.unique = object.get("x-unique").or(self.unique);
        self.secret |= flag("x-secret");
        self.deprecated |= flag("deprecated");
        self.description = text("description").or(self.description);
        self.default = object.get("default").or(self.default);
        self.examples = object.get("examples").and_then(Value::as_array).or(self.examples);
    }

    /// Whether anything goes.
    pub(crate) fn is_any(&self) -> bool {
        self.types.is_empty() && self.variants.is_empty() && self.choices.is_none() && self.properties.is_empty()
    }

    /// Whether it is a URL.
    pub(crate) fn is_url(&self) -> bool {
        matches!(self.format, Some("uri" | "url"))
    }

    /// Whether it may be of this JSON type.
    pub(crate) fn takes(&self, kind: &str) -> bool {
        self.types.contains(&kind) || (kind == "integer" && self.types.contains(&"number"))
    }

    /// Smallest and largest number that its format holds, where that is less than 64 bits.
    pub(crate) fn format_range(&self) -> Option<(f64, f64)> {
        Some(match self.format? {
            "uint8" => (0.0, 255.0),
            "uint16" => (0.0, 65_535.0),
            "uint32" => (0.0, 4_294_967_295.0),
            "int8" => (-128.0, 127.0),
            "int16" => (-32_768.0, 32_767.0),
            "int32" => (-2_147_483_648.0, 2_147_483_647.0),
            _ => return None,
        })
    }

    /// Its variants, when one key tells them apart.
    pub(crate) fn tagged(&self, root: &'s Value) -> Option<Tagged<'s>> {
        let shapes: Vec<_> = self.variants.iter().map(|v| Self::of(root, v)).collect();
        let tag = *shapes.first()?.properties.keys().find(|key| {
            shapes.iter().all(|s| {
                s.required.contains(key)
                    && s.properties.get(*key).is_some_and(|v| v.get("const").is_some_and(Value::is_string))
            })
        })?;
        let name = |s: &Self| s.properties.get(tag).and_then(|v| v.get("const")).and_then(Value::as_str);
        let variants = shapes.iter().zip(&self.variants).filter_map(|(s, v)| Some((name(s)?, *v))).collect();
        Some(Tagged { tag, variants })
    }
}

/// The texts that a variant stands for, when that is all it is.
fn choice(variant: &Value) -> Option<(Vec<&Value>, Option<&str>)> {
    let doc = variant.get("description").and_then(Value::as_str);
    if let Some(only @ Value::String(_)) = variant.get("const") {
        return Some((vec![only], doc));
    }
    let all = variant.get("enum")?.as_array()?;
    all.iter().all(Value::is_string).then(|| (all.iter().collect(), doc))
}

/// Keywords and formats that [`crate::check`] pays no attention to: a schema that has any would seem to be checked
/// and is not. A test of the whole configuration's schema expects none.
pub fn unknown_keywords(schema: &schemars::Schema) -> Vec<String> {
    const KNOWN: &[&str] = &[
        "$schema",
        "$ref",
        "$defs",
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "type",
        "properties",
        "required",
        "additionalProperties",
        "unevaluatedProperties",
        "items",
        "enum",
        "const",
        "oneOf",
        "anyOf",
        "allOf",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "pattern",
        "format",
        "x-unique",
        "x-secret",
    ];
    fn visit(schema: &Value, at: &str, found: &mut Vec<String>) {
        let Value::Object(object) = schema else { return };
        for (keyword, value) in object {
            let here = format!("{at}/{keyword}");
            match keyword.as_str() {
                "properties" | "$defs" => {
                    for (name, schema) in value.as_object().into_iter().flatten() {
                        visit(schema, &format!("{here}/{name}"), found);
                    }
                }
                "items" | "additionalProperties" | "unevaluatedProperties" => visit(value, &here, found),
                "oneOf" | "anyOf" | "allOf" => {
                    for (i, schema) in value.as_array().into_iter().flatten().enumerate() {
                        visit(schema, &format!("{here}/{i}"), found);
                    }
                }
                "format" if value.as_str().is_some_and(|f| !crate::format::KNOWN.contains(&f)) => {
                    found.push(format!("{here}: {value}"));
                }
                "pattern" if value.as_str().is_none_or(|p| regex::Regex::new(p).is_err()) => {
                    found.push(format!("{here}: not a regular expression"));
                }
                other if !KNOWN.contains(&other) => found.push(here),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    visit(schema.as_value(), "", &mut found);
    found
}
