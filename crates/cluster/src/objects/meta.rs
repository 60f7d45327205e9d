//! What all objects share: metadata, selectors, quantities, lists that may be null.

use nightshift_model::Timestamp;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

/// A list; `null`, which the API server sends for some empty ones, is an empty list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Many<T>(pub Vec<T>);

impl<T> Default for Many<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for Many<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut items = Option::<Vec<T>>::deserialize(d)?.unwrap_or_default();
        items.shrink_to_fit();
        Ok(Self(items))
    }
}

impl<'a, T> IntoIterator for &'a Many<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// Names and values; `null` is empty. Sorted by name in one block: most have a handful of entries.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Labels(Vec<(Box<str>, Box<str>)>);

impl Labels {
    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.binary_search_by(|(n, _)| n.as_ref().cmp(name)).ok().map(|i| self.0[i].1.as_ref())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_ref(), v.as_ref()))
    }

    /// Whether `self` has every entry of `wanted`.
    pub fn has_all(&self, wanted: &Self) -> bool {
        wanted.iter().all(|(n, v)| self.get(n) == Some(v))
    }
}

impl FromIterator<(String, String)> for Labels {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(items: I) -> Self {
        let sorted: BTreeMap<String, String> = items.into_iter().collect();
        Self(sorted.into_iter().map(|(n, v)| (n.into(), v.into())).collect())
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.iter().enumerate() {
            write!(f, "{}{name}={value}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let map = Option::<BTreeMap<String, Option<String>>>::deserialize(d)?.unwrap_or_default();
        Ok(Self(map.into_iter().map(|(n, v)| (n.into(), v.unwrap_or_default().into())).collect()))
    }
}

/// Annotations that are never kept: whole copies of the object, with whatever is in it.
const DROPPED_ANNOTATIONS: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", "objectset.rio.cattle.io/applied"];

fn annotations<'de, D: Deserializer<'de>>(d: D) -> Result<Labels, D::Error> {
    let mut labels = Labels::deserialize(d)?;
    labels.0.retain(|(n, _)| !DROPPED_ANNOTATIONS.contains(&n.as_ref()));
    Ok(labels)
}

/// Metadata of an object. Of its managed fields only who, how and when.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Meta {
    /// Name.
    pub name: String,
    /// Namespace; empty for what has none.
    pub namespace: String,
    /// Unique for all time.
    pub uid: String,
    /// Version of its contents, for optimistic concurrency.
    pub resource_version: String,
    /// Counts changes of its specification.
    pub generation: i64,
    /// When it was made.
    pub creation_timestamp: Option<Timestamp>,
    /// When it is to be gone: set while it terminates, the grace period included.
    pub deletion_timestamp: Option<Timestamp>,
    /// Seconds of grace that the deletion was asked with.
    pub deletion_grace_period_seconds: Option<i64>,
    /// Labels.
    pub labels: Labels,
    /// Annotations, without copies of the whole object.
    #[serde(deserialize_with = "annotations")]
    pub annotations: Labels,
    /// Owners.
    pub owner_references: Many<OwnerRef>,
    /// Who must let go before it is deleted.
    pub finalizers: Many<String>,
    /// Who changed it last, and when.
    pub managed_fields: Many<Managed>,
}

impl Meta {
    /// The owner that controls it.
    pub fn controller(&self) -> Option<&OwnerRef> {
        self.owner_references.iter().find(|o| o.controller)
    }

    /// Who changed it last by writing (not its status), with the time.
    pub fn last_writer(&self) -> Option<&Managed> {
        self.managed_fields.iter().filter(|m| m.subresource.is_empty()).max_by_key(|m| m.time)
    }
}

impl Meta {
    /// Who wrote the data of a config map or secret last, and when: labels and annotations do not count where the
    /// server tells which parts were written.
    pub fn last_data_writer(&self) -> Option<&Managed> {
        let wrote = |m: &&Managed| m.subresource.is_empty() && m.parts.is_none_or(|p| p.data);
        self.managed_fields.iter().filter(wrote).max_by_key(|m| m.time)
    }
}

/// A reference to an owner.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OwnerRef {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Whether it is the one that controls it.
    pub controller: bool,
}

/// Who changed some fields.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Managed {
    /// `kubectl-client-side-apply`, `helm` …
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
    /// `status`, or empty for the object itself.
    pub subresource: String,
    /// When.
    pub time: Option<Timestamp>,
    /// Which parts of the object it wrote.
    #[serde(rename = "fieldsV1", deserialize_with = "parts")]
    pub parts: Option<Parts>,
}

/// Parts of an object that somebody wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts {
    /// `data` or `binaryData`, of config maps and secrets.
    pub data: bool,
    /// `spec`.
    pub spec: bool,
    /// `spec.selector`.
    pub selector: bool,
    /// Labels of `spec.template`.
    pub template_labels: bool,
}

/// Of a tree of fields only the few names that are asked for.
fn parts<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Parts>, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Tree {
        #[serde(rename = "f:data")]
        data: Option<serde::de::IgnoredAny>,
        #[serde(rename = "f:binaryData")]
        binary_data: Option<serde::de::IgnoredAny>,
        #[serde(rename = "f:spec")]
        spec: Option<Spec>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Spec {
        #[serde(rename = "f:selector")]
        selector: Option<serde::de::IgnoredAny>,
        #[serde(rename = "f:template")]
        template: Template,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Template {
        #[serde(rename = "f:metadata")]
        metadata: Metadata,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Metadata {
        #[serde(rename = "f:labels")]
        labels: Option<serde::de::IgnoredAny>,
    }
    let Some(tree) = Option::<Tree>::deserialize(d)? else { return Ok(None) };
    Ok(Some(Parts {
        data: tree.data.is_some() || tree.binary_data.is_some(),
        spec: tree.spec.is_some(),
        selector: tree.spec.as_ref().is_some_and(|s| s.selector.is_some()),
        template_labels: tree.spec.as_ref().is_some_and(|s| s.template.metadata.labels.is_some()),
    }))
}

/// A selector of labels. Absent and empty are not the same: see who uses it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LabelSelector {
    /// All of these.
    pub match_labels: Labels,
    /// And all of these.
    pub match_expressions: Many<Requirement>,
}

/// One requirement of a selector.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Requirement {
    /// Name of a label.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`; of nodes also `Gt`, `Lt`.
    pub operator: String,
    /// Values.
    pub values: Many<String>,
}

impl Requirement {
    /// Whether the labels meet it. An unknown operator is met by nothing.
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let number = |text: &str| text.parse::<i64>().ok();
        match self.operator.as_str() {
            "In" => value.is_some_and(|v| self.values.iter().any(|w| w == v)),
            "NotIn" => value.is_none_or(|v| self.values.iter().all(|w| w != v)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" | "Lt" => match (value.and_then(number), self.values.first().and_then(|v| number(v))) {
                (Some(have), Some(bound)) => {
                    (self.operator == "Gt" && have > bound) || (self.operator == "Lt" && have < bound)
                }
                _ => false,
            },
            _ => false,
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operator.as_str() {
            "Exists" => f.write_str(&self.key),
            "DoesNotExist" => write!(f, "!{}", self.key),
            "Gt" => write!(f, "{} > {}", self.key, self.values.join(",")),
            "Lt" => write!(f, "{} < {}", self.key, self.values.join(",")),
            "NotIn" => write!(f, "{} not in ({})", self.key, self.values.join(",")),
            _ => write!(f, "{} in ({})", self.key, self.values.join(",")),
        }
    }
}

impl LabelSelector {
    /// Whether the labels meet all of it; an empty selector is met by everything.
    pub fn matches(&self, labels: &Labels) -> bool {
        labels.has_all(&self.match_labels) && self.match_expressions.iter().all(|r| r.matches(labels))
    }

    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.match_labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
        parts.extend(self.match_expressions.iter().map(ToString::to_string));
        f.write_str(&parts.join(","))
    }
}

/// An amount as Kubernetes writes it: `250m`, `128Mi`, `1e3`, with its value in units (cores, bytes, pieces).
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Quantity(pub f64);

impl Quantity {
    /// Reads it. `None`: not an amount.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() || text.len() > 64 {
            return None;
        }
        const SUFFIXES: [(&str, f64); 15] = [
            ("Ki", 1024.0),
            ("Mi", 1_048_576.0),
            ("Gi", 1_073_741_824.0),
            ("Ti", 1_099_511_627_776.0),
            ("Pi", 1_125_899_906_842_624.0),
            ("Ei", 1_152_921_504_606_846_976.0),
            ("n", 1e-9),
            ("u", 1e-6),
            ("m", 1e-3),
            ("k", 1e3),
            ("M", 1e6),
            ("G", 1e9),
            ("T", 1e12),
            ("P", 1e15),
            ("E", 1e18),
        ];
        let (number, factor) = SUFFIXES
            .iter()
            .find_map(|(suffix, factor)| text.strip_suffix(suffix).map(|n| (n, *factor)))
            .unwrap_or((text, 1.0));
        let value = number.parse::<f64>().ok()? * factor;
        value.is_finite().then_some(Self(value))
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        // What cannot be read is zero: the API server has checked it, and a list must not fail for one object.
        Ok(match serde_json::Value::deserialize(d)? {
            serde_json::Value::String(text) => Self::parse(&text).unwrap_or_default(),
            serde_json::Value::Number(n) => Self(n.as_f64().unwrap_or_default()),
            _ => Self::default(),
        })
    }
}

/// Amounts by resource: `cpu` (cores), `memory` (bytes), `pods` …
pub type Amounts = BTreeMap<String, Quantity>;

/// A number or a name or percentage.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Int(i64),
    /// A name (`http`) or percentage (`25%`).
    Text(String),
}

impl IntOrString {
    /// The number itself, or the percentage of `total`, rounded up or down. `None`: neither.
    pub fn of(&self, total: i64, up: bool) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            Self::Text(text) => {
                let percent = text.strip_suffix('%')?.parse::<f64>().ok()?;
                let exact = percent / 100.0 * total as f64;
                Some(if up { exact.ceil() } else { exact.floor() } as i64)
            }
        }
    }
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(n) => n.fmt(f),
            Self::Text(text) => f.pad(text),
        }
    }
}

/// A condition of a status.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Condition {
    /// `Ready`, `Available` …
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Since when it is so.
    pub last_transition_time: Option<Timestamp>,
    /// When it was last looked at.
    #[serde(alias = "lastHeartbeatTime")]
    pub last_probe_time: Option<Timestamp>,
    /// Generation that it is about, where it says so.
    pub observed_generation: Option<i64>,
}

impl Many<Condition> {
    /// The condition of this type.
    pub fn of(&self, kind: &str) -> Option<&Condition> {
        self.iter().find(|c| c.kind == kind)
    }

    /// The condition of this type, when it has this status.
    pub fn when(&self, kind: &str, status: &str) -> Option<&Condition> {
        self.of(kind).filter(|c| c.status == status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, value) in [
            ("250m", 0.25),
            ("128Mi", 134_217_728.0),
            ("1e3", 1000.0),
            ("2", 2.0),
            ("5k", 5000.0),
            ("1.5Gi", 1_610_612_736.0),
            ("100n", 1e-7),
        ] {
            assert!((Quantity::parse(text).unwrap().0 - value).abs() <= value * 1e-12, "{text}");
        }
        for bad in ["", "Mi", "1x", "ten", "1e999", &"1".repeat(100)] {
            assert_eq!(Quantity::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn selectors_know_expressions() {
        let labels: Labels =
            [("app", "web"), ("size", "3")].map(|(a, b)| (a.to_owned(), b.to_owned())).into_iter().collect();
        let is = |json: &str| serde_json::from_str::<LabelSelector>(json).unwrap().matches(&labels);
        assert!(is("{}"));
        assert!(is(r#"{"matchLabels":{"app":"web"}}"#));
        assert!(!is(r#"{"matchLabels":{"app":"api"}}"#));
        assert!(is(r#"{"matchExpressions":[{"key":"app","operator":"In","values":["api","web"]}]}"#));
        assert!(!is(r#"{"matchExpressions":[{"key":"app","operator":"NotIn","values":["web"]}]}"#));
        assert!(is(r#"{"matchExpressions":[{"key":"gone","operator":"DoesNotExist"}],"matchLabels":null}"#));
        assert!(!is(r#"{"matchExpressions":[{"key":"gone","operator":"Exists","values":null}]}"#));
        assert!(is(r#"{"matchExpressions":[{"key":"size","operator":"Gt","values":["2"]}]}"#));
        assert!(!is(r#"{"matchExpressions":[{"key":"size","operator":"Odd"}]}"#));
    }

    #[test]
    fn the_applied_copy_of_an_object_is_not_kept() {
        let meta: Meta = serde_json::from_str(
            r#"{"name":"a","annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{secret}","x":"y"},"creationTimestamp":null,"labels":null}"#,
        )
        .unwrap();
        assert_eq!(meta.annotations.iter().collect::<Vec<_>>(), [("x", "y")]);
    }
}
