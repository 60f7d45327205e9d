//! YAML as a tree that knows its lines, so that every problem of a file is reported at once and where it is.
//! (Deserialising into a struct stops at the first.) Playbooks are read with it too.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Line, from 1; 0 when the file as a whole is meant.
    pub line: u64,
    /// What is wrong.
    pub message: String,
    /// What to do; empty when the message says it.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "; {}", self.hint) }
    }
}

/// A value and the line it stands on.
#[derive(Debug)]
pub struct Node {
    /// Line, from 1.
    pub line: u64,
    /// What stands there.
    pub value: Value,
}

/// What a value can be. Numbers and booleans keep their text: `1.20` stays a version.
#[derive(Debug)]
pub enum Value {
    /// Nothing.
    Null,
    /// One value, as text.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in its order.
    Map(Vec<(Key, Node)>),
}

/// A key and its line.
#[derive(Debug)]
pub struct Key {
    /// Line, from 1.
    pub line: u64,
    /// The key.
    pub text: String,
}

impl Value {
    /// For messages.
    pub const fn what(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar(_) => "a value",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(d)?;
        Ok(Self { line: spanned.referenced.line(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value, a list or a map")
            }
            fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
                Ok(Value::Scalar(v.to_string()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
                Ok(Value::Scalar(v.to_string()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
                Ok(Value::Scalar(v.to_string()))
            }
            fn visit_i128<E>(self, v: i128) -> Result<Value, E> {
                Ok(Value::Scalar(v.to_string()))
            }
            fn visit_u128<E>(self, v: u128) -> Result<Value, E> {
                Ok(Value::Scalar(v.to_string()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
                Ok(Value::Scalar(v.to_string()))
            }
            fn visit_str<E>(self, v: &str) -> Result<Value, E> {
                Ok(Value::Scalar(v.to_owned()))
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
                Value::deserialize(d)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Value::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<Spanned<String>, Node>()? {
                    entries.push((Key { line: key.referenced.line(), text: key.value }, value));
                }
                Ok(Value::Map(entries))
            }
        }
        d.deserialize_any(V)
    }
}

/// Parses one document of at most `bytes_max` bytes.
///
/// # Errors
/// A text that is no YAML has one problem: where it stops being it.
pub fn parse(text: &str, bytes_max: usize) -> Result<Node, Problem> {
    if text.len() > bytes_max {
        return Err(Problem {
            line: 0,
            message: format!("the file has {} bytes, at most {bytes_max} are read", text.len()),
            hint: "split it into several files".into(),
        });
    }
    // Two documents, an anchor bomb or a thousand brackets are nothing that a person wrote.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 16,
            max_documents: 1,
            max_anchors: 1_000,
            max_aliases: 1_000,
            max_nodes: 1_000_000,
            max_events: 2_000_000,
        },
    };
    serde_saphyr::from_str_with_options::<Option<Node>>(text, options)
        .map(|node| node.unwrap_or(Node { line: 0, value: Value::Null }))
        .map_err(|e| {
            let whole = e.without_snippet().to_string();
            let first = whole.lines().next().unwrap_or("not readable").chars().take(200).collect::<String>();
            Problem {
                line: e.location().map_or(0, |l| l.line()),
                message: format!("read YAML: {first}"),
                hint: "check indentation, quotes and brackets on this line".into(),
            }
        })
}

/// The nearest of `names` to what was written, as a hint; empty when none is near.
pub fn nearest<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> String {
    names
        .map(|name| (strsim::osa_distance(written, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.chars().count().min(written.chars().count()) / 3)
        .min()
        .map(|(_, name)| format!("did you mean `{name}`?"))
        .unwrap_or_default()
}
