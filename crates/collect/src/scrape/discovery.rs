//! Targets: those of the configuration and those of files, in the form that Prometheus has for file service discovery.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

/// Largest file of targets, bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Most targets of one source.
const TARGETS_MAX: usize = 10_000;

/// Addresses with the labels that they share: an entry of the configuration or of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TargetGroup {
    /// Addresses, `host:port`.
    pub targets: Vec<String>,
    /// Labels of every series of these targets. `__scheme__` and `__metrics_path__` say how to ask.
    pub labels: BTreeMap<String, String>,
}

/// One thing to scrape.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Target {
    /// `host:port`, the `instance` label unless the labels have one.
    pub(crate) address: String,
    /// What is asked.
    pub(crate) url: String,
    /// Labels, `instance` and `job` among them.
    pub(crate) labels: BTreeMap<String, String>,
}

/// Why a file gave no targets.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiscoveryError {
    #[error("read the file")]
    Read(#[from] std::io::Error),
    #[error("file has more than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("file is no list of targets: {0}")]
    Parse(String),
}

/// What the targets of a source share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults<'a> {
    pub(crate) job: &'a str,
    pub(crate) scheme: &'a str,
    pub(crate) path: &'a str,
}

/// The targets of groups, without repetition, and what is wrong with those that were left out.
pub(crate) fn targets<'a>(
    groups: impl IntoIterator<Item = &'a TargetGroup>,
    defaults: Defaults<'_>,
) -> (BTreeSet<Target>, Vec<String>) {
    let (mut found, mut wrong) = (BTreeSet::new(), Vec::new());
    for group in groups {
        for address in &group.targets {
            match target(address, &group.labels, defaults) {
                Some(_) if found.len() >= TARGETS_MAX => {
                    wrong.push(format!("more than {TARGETS_MAX} targets; the rest is left out"));
                    return (found, wrong);
                }
                Some(target) => _ = found.insert(target),
                None => wrong.push(format!("`{}` is not host:port", address.chars().take(80).collect::<String>())),
            }
        }
    }
    (found, wrong)
}

fn target(address: &str, labels: &BTreeMap<String, String>, defaults: Defaults<'_>) -> Option<Target> {
    // A path, a user or a query would end up in another place of the URL.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if address.is_empty() || address.len() > 300 || !address.chars().all(plain) {
        return None;
    }
    let label = |name: &str, default| labels.get(name).map_or(default, String::as_str);
    let scheme = label("__scheme__", defaults.scheme);
    let path = label("__metrics_path__", defaults.path);
    let url = reqwest::Url::parse(&format!("{scheme}://{address}/{}", path.trim_start_matches('/'))).ok()?;
    if !matches!(url.scheme(), "http" | "https") {
        return None;
    }
    let mut labels: BTreeMap<_, _> =
        labels.iter().filter(|(n, _)| !n.starts_with("__")).map(|(n, v)| (n.clone(), v.clone())).collect();
    labels.entry("instance".into()).or_insert_with(|| address.to_owned());
    labels.entry("job".into()).or_insert_with(|| defaults.job.to_owned());
    Some(Target { address: address.to_owned(), url: url.into(), labels })
}

/// Reads a file of target groups: JSON, or YAML where the name ends so.
pub(crate) fn read(path: &Path) -> Result<Vec<TargetGroup>, DiscoveryError> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(DiscoveryError::TooLarge);
    }
    let yaml = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("yml") || e.eq_ignore_ascii_case("yaml"));
    parse(&text, yaml).map_err(DiscoveryError::Parse)
}

fn parse(text: &str, yaml: bool) -> Result<Vec<TargetGroup>, String> {
    if yaml {
        serde_saphyr::from_str(text).map_err(|e| e.to_string())
    } else {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }
}

/// For fuzzing: files of target groups.
#[doc(hidden)]
pub fn fuzz_file_sd(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for yaml in [false, true] {
        if let Ok(groups) = parse(text, yaml) {
            let (found, _) = targets(&groups, Defaults { job: "j", scheme: "http", path: "/metrics" });
            assert!(found.iter().all(|t| t.url.starts_with("http")), "a target leads elsewhere");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Defaults<'_> = Defaults { job: "web", scheme: "http", path: "/metrics" };

    fn group(targets: &[&str], labels: &[(&str, &str)]) -> TargetGroup {
        TargetGroup {
            targets: targets.iter().map(|t| (*t).to_owned()).collect(),
            labels: labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn groups_become_targets() {
        let groups = [
            group(&["a:1", "a:1", "[::1]:2"], &[("env", "x")]),
            group(&["b"], &[("__scheme__", "https"), ("__metrics_path__", "m?x=1"), ("instance", "i"), ("job", "j")]),
        ];
        let (found, wrong) = targets(&groups, DEFAULTS);
        let urls: Vec<_> = found.iter().map(|t| t.url.as_str()).collect();
        assert_eq!(urls, ["http://[::1]:2/metrics", "http://a:1/metrics", "https://b/m?x=1"]);
        assert!(wrong.is_empty());
        let b = found.last().unwrap();
        assert_eq!((b.labels["instance"].as_str(), b.labels["job"].as_str(), b.labels.len()), ("i", "j", 2));
    }

    #[test]
    fn bad_addresses_are_named_and_left_out() {
        let long = "x".repeat(400);
        for bad in ["", "http://a", "a/b", "u@a", "a?b", "a#b", "a b", "é", "a:99999", &long] {
            let (found, wrong) = targets(&[group(&[bad, "ok:1"], &[])], DEFAULTS);
            assert_eq!((found.len(), wrong.len()), (1, 1), "{bad}");
        }
        let (found, wrong) = targets(&[group(&["a"], &[("__scheme__", "file")])], DEFAULTS);
        assert_eq!((found.len(), wrong.len()), (0, 1));
    }

    #[test]
    fn files_are_json_or_yaml() {
        let want = vec![group(&["a:1"], &[("env", "x")])];
        assert_eq!(parse(r#"[{"targets":["a:1"],"labels":{"env":"x"}}]"#, false), Ok(want.clone()));
        assert_eq!(parse("- targets: ['a:1']\n  labels:\n    env: x\n", true), Ok(want));
        for (bad, yaml) in
            [("", false), ("{}", false), ("[1]", false), ("- targets: 5", true), ("a: b", true), ("[", true)]
        {
            assert!(parse(bad, yaml).is_err(), "{bad}");
        }
    }

    #[test]
    fn corpus() {
        crate::corpus::replay("file_sd", fuzz_file_sd);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            fuzz_file_sd(&bytes);
        }
    }
}
