//! Settings of the custom resources.

use serde::{Deserialize, Serialize};

/// Most namespaces beside our own from which objectives are taken: each costs a watch.
const NAMESPACES_MAX: usize = 200;

/// Where custom resources are read and written, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CrdSettings {
    /// Namespace of playbooks, policies and mirrored incidents; empty for that of the pod or context.
    pub namespace: String,
    /// Further namespaces from which objectives are taken.
    pub objective_namespaces: Vec<String>,
    /// Incidents that are mirrored at most, 1..=500: open ones first, then the newest.
    pub incidents_max: usize,
    /// Seconds for which an incident that is over stays mirrored, 60..=31,536,000.
    pub keep_resolved_secs: u64,
    /// Seconds between two full looks at what should be there, 10..=3,600.
    pub resync_secs: u64,
}

impl Default for CrdSettings {
    fn default() -> Self {
        Self {
            namespace: String::new(),
            objective_namespaces: Vec::new(),
            incidents_max: 500,
            keep_resolved_secs: 7 * 24 * 3_600,
            resync_secs: 60,
        }
    }
}

impl CrdSettings {
    /// Everything that is wrong with it, each with the key, the value and what is allowed.
    pub fn problems(&self) -> Vec<String> {
        let mut out = Vec::new();
        if self.objective_namespaces.len() > NAMESPACES_MAX {
            let n = self.objective_namespaces.len();
            out.push(format!("objective_namespaces: {n} are more than {NAMESPACES_MAX}; remove some"));
        }
        let own = Some(&self.namespace).filter(|n| !n.is_empty());
        for name in self.objective_namespaces.iter().chain(own) {
            if !is_namespace(name) {
                out.push(format!("`{name}` is no name of a namespace: at most 63 of a-z, 0-9 and `-`"));
            }
        }
        if !(1..=500).contains(&self.incidents_max) {
            out.push(format!("incidents_max: {} is not within 1..=500", self.incidents_max));
        }
        if !(60..=31_536_000).contains(&self.keep_resolved_secs) {
            out.push(format!("keep_resolved_secs: {} is not within 60..=31536000", self.keep_resolved_secs));
        }
        if !(10..=3_600).contains(&self.resync_secs) {
            out.push(format!("resync_secs: {} is not within 10..=3600", self.resync_secs));
        }
        out
    }
}

/// Whether this can be the name of a namespace.
pub(crate) fn is_namespace(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_are_all_named() {
        assert_eq!(CrdSettings::default().problems(), Vec::<String>::new());
        let bad = CrdSettings {
            namespace: "Shop".into(),
            objective_namespaces: vec!["a/b".into(), "-x".into(), String::new()],
            incidents_max: 501,
            keep_resolved_secs: 59,
            resync_secs: 0,
        };
        let text = bad.problems().join("\n");
        for part in ["Shop", "a/b", "-x", "``", "incidents_max: 501", "keep_resolved_secs: 59", "resync_secs: 0"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
