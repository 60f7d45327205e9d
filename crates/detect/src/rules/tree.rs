//! A YAML document as a tree that knows the place of every node, so that all problems of a file are told at once.

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// A node and where it begins, from 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) value: Value,
}

impl Node {
    /// What it is, for people.
    pub(super) const fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// A scalar as text.
    pub(super) fn text(&self) -> Option<String> {
        match &self.value {
            Value::Text(t) => Some(t.clone()),
            Value::Number(n) => Some(n.to_string()),
            Value::Bool(b) => Some(b.to_string()),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(d)?;
        let number = |n: u64| usize::try_from(n).unwrap_or(0);
        Ok(Self {
            line: number(spanned.referenced.line()),
            column: number(spanned.referenced.column()),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a YAML value")
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
            fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
                Ok(Value::Bool(v))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
                Ok(Value::Number(v as f64))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
                Ok(Value::Number(v as f64))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
                Ok(Value::Number(v))
            }
            fn visit_str<E>(self, v: &str) -> Result<Value, E> {
                Ok(Value::Text(v.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(node) = seq.next_element()? {
                    if list.len() >= LIST_MAX {
                        return Err(A::Error::custom("a list has too many entries"));
                    }
                    list.push(node);
                }
                Ok(Value::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry::<Node, Node>()? {
                    if entries.len() >= LIST_MAX {
                        return Err(A::Error::custom("a map has too many entries"));
                    }
                    entries.push(entry);
                }
                Ok(Value::Map(entries))
            }
        }
        d.deserialize_any(Any)
    }
}

/// Entries of one list or map at most.
const LIST_MAX: usize = 100_000;

/// Reads a document; the error is message, line, column (0 where unknown).
pub(super) fn read(text: &str) -> Result<Node, (String, usize, usize)> {
    serde_saphyr::from_str::<Node>(text).map_err(|e| {
        let at = e.location();
        let number = |n: u64| usize::try_from(n).unwrap_or(0);
        let message = e.without_snippet().to_string();
        let message = message.lines().next().unwrap_or("not YAML").to_owned();
        (message, at.map_or(0, |l| number(l.line())), at.map_or(0, |l| number(l.column())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_known() {
        let node = read("a:\n  - b: 5m\n    c: [1, x]\n").unwrap();
        let Value::Map(top) = &node.value else { panic!("{node:?}") };
        let Value::List(list) = &top[0].1.value else { panic!("{node:?}") };
        let Value::Map(map) = &list[0].value else { panic!("{node:?}") };
        assert_eq!((map[0].0.line, map[0].0.column), (2, 5));
        assert_eq!((map[0].1.line, map[0].1.column, map[0].1.text()), (2, 8, Some("5m".into())));
        assert_eq!(map[1].1.kind(), "a list");
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_its_line() {
        for (text, line) in [("a: [1", 1), ("a: 1\n b: 2\n", 2), ("a: *nope\n", 1)] {
            let (message, at, _) = read(text).expect_err(text);
            assert!(at >= line && !message.is_empty(), "{text}: {message} {at}");
        }
    }
}
