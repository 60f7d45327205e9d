//! Case files: a fault and its healthy twins as manifests, with the finding that is expected. The same files are run
//! offline (tests of this crate) and on a real API server (tests of `nightshift-kubernetes`).
//!
//! A file holds a list of cases:
//!
//! ```yaml
//! - name: crash_loop_after_bad_image      # unique; also the namespace on a server: letters, digits, dashes
//!   check: pods / crash loop              # the row of the check list
//!   sees: O                               # O, H, L or M
//!   base: [objects of both]
//!   fault: [objects]
//!   expect:                               # all of these, and nothing else
//!     - { object: Deployment/NS/web, fault: crash_loop, cause: ConfigMap/NS/app, symptoms: [Service/NS/web] }
//!   healthy: { twin: [objects], other_twin: [objects] }
//!   logs: [ { pod: web-1, container: app, current: [lines], previous: [lines] } ]
//!   usage: [ { pod: web-1, container: app, cpu: 0.5, memory: 1000000 } ]
//!   node_usage: [ { node: n1, cpu: 0.5, memory: 1000000 } ]
//!   signals: [ { object: Pod/NS/web-1, name: cpu_throttled/app, value: 0.4 } ]
//!   history: [ { object: Pod/NS/web-1, at: now-5m, restarts: 3 } ]
//!   options: { advice: true }
//!   unseen: [secrets]                     # kinds that could not be seen (plural), refused by the server
//!   offline: creation times are the server's  # why it cannot be put on a real API server; left out when it can
//! ```
//!
//! `NS` stands for the namespace of the case, and objects without a namespace get it. `now`, `now-5m`, `now+2h` in any
//! text value that is nothing else stand for times. `NAME_OF_CASE` stands for the case's name, for objects of the whole
//! cluster. Logs, usage, signals and history of a twin are those of the case unless it names `healthy_logs`,
//! `healthy_usage`, `healthy_signals`, `healthy_history`. A text `BYTES_1000` stands for that many letters.

use crate::checks::history::Record;
use crate::{Finding, LogTail, ObjectRef, Options, Resource, Seen, Usage, World};
use nightshift_model::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Longest text that `BYTES_…` makes: more than an object may have.
const BYTES_MAX: usize = 2 << 20;

/// One case.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Case {
    /// Unique.
    pub name: String,
    /// Row of the check list.
    pub check: String,
    /// `O`, `H`, `L` or `M`.
    pub sees: String,
    /// Objects of the fault and of every twin.
    pub base: Vec<Value>,
    /// Objects of the fault.
    pub fault: Vec<Value>,
    /// What must be found, and nothing else.
    pub expect: Vec<Expected>,
    /// Objects of the healthy twins, by name: nothing may be found.
    pub healthy: BTreeMap<String, Vec<Value>>,
    /// Log lines.
    pub logs: Vec<Logs>,
    /// Use of containers.
    pub usage: Vec<Used>,
    /// Use of nodes.
    pub node_usage: Vec<Used>,
    /// Measurements of objects.
    pub signals: Vec<Measured>,
    /// What objects were before.
    pub history: Vec<Past>,
    /// Log lines of the twins.
    pub healthy_logs: Option<Vec<Logs>>,
    /// Use in the twins.
    pub healthy_usage: Option<Vec<Used>>,
    /// Measurements of the twins.
    pub healthy_signals: Option<Vec<Measured>>,
    /// History of the twins.
    pub healthy_history: Option<Vec<Past>>,
    /// Options of the scan.
    pub options: CaseOptions,
    /// Kinds that could not be seen.
    pub unseen: Vec<String>,
    /// Why it cannot be put on a real API server; empty when it can.
    pub offline: String,
}

/// Options of a case.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaseOptions {
    /// Advice too.
    pub advice: bool,
}

/// A finding that is expected.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expected {
    /// `Kind/namespace/name`.
    pub object: String,
    /// Slug.
    pub fault: String,
    /// `Kind/namespace/name` of the cause; not looked at when empty.
    pub cause: String,
    /// Grade; not looked at when empty.
    pub severity: String,
    /// Symptoms that must be among them.
    pub symptoms: Vec<String>,
    /// Words that summary, cause or fix must have.
    pub says: Vec<String>,
}

/// Log lines of a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logs {
    /// Pod.
    pub pod: String,
    /// Container.
    pub container: String,
    /// Lines now.
    pub current: Vec<String>,
    /// Lines before the last restart.
    pub previous: Vec<String>,
}

/// Use of a container or node.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Used {
    /// Pod.
    pub pod: String,
    /// Container.
    pub container: String,
    /// Node, instead of the two.
    pub node: String,
    /// Cores.
    pub cpu: f64,
    /// Bytes.
    pub memory: f64,
}

/// A measurement of an object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Measured {
    /// `Kind/namespace/name`.
    pub object: String,
    /// Name of the measurement.
    pub name: String,
    /// Value, in the unit of that name.
    pub value: f64,
}

/// What an object was.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Past {
    /// `Kind/namespace/name`.
    pub object: String,
    /// When.
    pub at: String,
    /// Restarts in total.
    pub restarts: Option<i64>,
    /// Replicas wanted.
    pub replicas: Option<i64>,
    /// Labels or selector: from and to.
    pub labels: Option<(String, String)>,
    /// Change and who did it.
    pub changed: Option<(String, String)>,
    /// Leader.
    pub leader: Option<String>,
    /// Deleted.
    pub deleted: bool,
}

/// Reads the cases of a file.
///
/// # Errors
/// When it cannot be read or is no list of cases.
pub fn load(path: &Path) -> Result<Vec<Case>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("read {}: {e}", path.display()))?;
    serde_saphyr::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
}

/// Every case file below a folder, in order.
///
/// # Errors
/// When a folder or file cannot be read.
pub fn load_all(folder: &Path) -> Result<Vec<(String, Case)>, String> {
    let mut out = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|e| format!("read {}: {e}", folder.display()))?;
        let mut paths = entries.filter_map(|e| e.ok().map(|e| e.path())).collect::<Vec<_>>();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "yaml") {
                let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
                out.extend(load(&path)?.into_iter().map(|c| (name.clone(), c)));
            }
        }
    }
    out.sort_by(|a, b| (&a.0, &a.1.name).cmp(&(&b.0, &b.1.name)));
    Ok(out)
}

/// The namespace of a case on a server.
pub fn namespace_of(case: &Case, twin: Option<&str>) -> String {
    let name = twin.map_or_else(|| case.name.clone(), |t| format!("{}-{t}", case.name));
    name.to_ascii_lowercase().replace('_', "-").chars().take(63).collect::<String>().trim_end_matches('-').to_owned()
}

/// Kinds of other software whose objects have no namespace.
const CLUSTER_WIDE: [&str; 5] =
    ["ClusterPolicy", "ClusterPolicyReport", "ClusterReport", "ClusterIssuer", "CustomResourceDefinition"];

/// Puts a case's own namespace, name and times into an object.
pub fn fill(object: &Value, case: &Case, namespace: &str, now: Timestamp) -> Value {
    let mut object = object.clone();
    fill_value(&mut object, &case.name.to_ascii_lowercase().replace('_', "-"), namespace, now);
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let api = object["apiVersion"].as_str().unwrap_or("v1").to_owned();
    let group = api.split_once('/').map_or("", |(g, _)| g);
    let namespaced =
        Resource::find(group, &kind).map_or_else(|| !CLUSTER_WIDE.contains(&kind.as_str()), Resource::namespaced);
    if let Some(meta) = object["metadata"].as_object_mut()
        && namespaced
        && !meta.contains_key("namespace")
    {
        meta.insert("namespace".into(), namespace.into());
    }
    object
}

fn fill_value(value: &mut Value, name: &str, namespace: &str, now: Timestamp) {
    match value {
        Value::String(text) => {
            if let Some(at) = time(text, now) {
                // Whole seconds: what Kubernetes' plain times hold.
                *text = Timestamp::from_secs(at.millis().div_euclid(1000)).to_rfc3339();
            } else if let Some(n) = text.strip_prefix("BYTES_").and_then(|n| n.parse::<usize>().ok()) {
                *text = "x".repeat(n.min(BYTES_MAX));
            } else if text.contains("NS") || text.contains("NAME_OF_CASE") {
                *text = text.replace("NAME_OF_CASE", name);
                *text = words(text, namespace);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|v| fill_value(v, name, namespace, now)),
        Value::Object(map) => map.values_mut().for_each(|v| fill_value(v, name, namespace, now)),
        _ => {}
    }
}

/// Replaces the word `NS`, not the letters within other words (`DNS`).
fn words(text: &str, namespace: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (String::new(), 0);
    while let Some(i) = text[at..].find("NS").map(|i| i + at) {
        let free = |b: Option<&u8>| b.is_none_or(|b| !b.is_ascii_alphanumeric());
        let alone = free(i.checked_sub(1).and_then(|p| bytes.get(p))) && free(bytes.get(i + 2));
        out.push_str(&text[at..i]);
        out.push_str(if alone { namespace } else { "NS" });
        at = i + 2;
    }
    out.push_str(&text[at..]);
    out
}

/// `now`, `now-5m`, `now+2h` as a time.
fn time(text: &str, now: Timestamp) -> Option<Timestamp> {
    let rest = text.strip_prefix("now")?;
    if rest.is_empty() {
        return Some(now);
    }
    let (sign, amount) = rest.split_at_checked(1)?;
    let (number, unit) = amount.split_at_checked(amount.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    let secs = number
        * match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
    match sign {
        "-" => Some(now - Duration::from_secs(secs)),
        "+" => Some(now + Duration::from_secs(secs)),
        _ => None,
    }
}

/// The world of a case, offline: of the fault, or of one of its twins.
///
/// # Errors
/// When an object is not what its kind says.
pub fn world(case: &Case, twin: Option<&str>, now: Timestamp) -> Result<World, String> {
    let mut world = World { server_version: "v1.36.3".into(), ..World::default() };
    for resource in Resource::ALL {
        let refused = case.unseen.iter().any(|u| u == resource.plural());
        world.set_seen(*resource, if refused { Seen::Refused("forbidden".into()) } else { Seen::Whole });
    }
    let namespace = namespace_of(case, twin);
    let own = twin.map_or(Some(&case.fault), |t| case.healthy.get(t)).ok_or("no such twin")?;
    let ns = serde_json::json!({"metadata": {"name": namespace}, "status": {"phase": "Active"}});
    world.put_json(Resource::Namespaces, ns.to_string().as_bytes()).map_err(|e| e.to_string())?;
    for object in case.base.iter().chain(own) {
        let object = fill(object, case, &namespace, now);
        put(&mut world, &object).map_err(|e| format!("{}: {e}: {object}", case.name))?;
    }
    feed(&mut world, case, twin, now);
    Ok(world)
}

/// Adds what no object holds: logs, use, history.
pub fn feed(world: &mut World, case: &Case, twin: Option<&str>, now: Timestamp) {
    let namespace = namespace_of(case, twin);
    let pick = twin.is_some();
    for l in case.healthy_logs.as_ref().filter(|_| pick).unwrap_or(&case.logs) {
        let key = (namespace.clone(), l.pod.clone(), l.container.clone());
        let filled = |lines: &[String]| lines.iter().map(|line| words(line, &namespace)).collect();
        world.logs.insert(key, LogTail { current: filled(&l.current), previous: filled(&l.previous) });
    }
    for u in case.healthy_usage.as_ref().filter(|_| pick).unwrap_or(&case.usage) {
        let key = (namespace.clone(), u.pod.clone(), u.container.clone());
        world.usage.insert(key, Usage { cpu: u.cpu, memory: u.memory });
    }
    for u in &case.node_usage {
        world.node_usage.insert(u.node.clone(), Usage { cpu: u.cpu, memory: u.memory });
    }
    for s in case.healthy_signals.as_ref().filter(|_| pick).unwrap_or(&case.signals) {
        let Some(object) = ObjectRef::parse(&words(&s.object, &namespace)) else { continue };
        world.signals.insert((object, s.name.clone()), s.value);
    }
    for past in case.healthy_history.as_ref().filter(|_| pick).unwrap_or(&case.history) {
        let Some(object) = ObjectRef::parse(&words(&past.object, &namespace)) else { continue };
        let at = time(&past.at, now).unwrap_or(now);
        let mut add = |record| world.history.add(object.clone(), at, record);
        if let Some(n) = past.restarts {
            add(Record::Restarts(n));
        }
        if let Some(n) = past.replicas {
            add(Record::Replicas(n));
        }
        if let Some((from, to)) = past.labels.clone() {
            add(Record::Labels { from, to });
        }
        if let Some((what, who)) = past.changed.clone() {
            add(Record::Changed { what, who });
        }
        if let Some(leader) = past.leader.clone() {
            add(Record::Leader(leader));
        }
        if past.deleted {
            add(Record::Deleted);
        }
    }
}

/// Puts any object in.
///
/// # Errors
/// When it is not what its kind says.
pub fn put(world: &mut World, object: &Value) -> Result<(), String> {
    let api = object["apiVersion"].as_str().unwrap_or("v1");
    let group = api.split_once('/').map_or("", |(g, _)| g);
    let kind = object["kind"].as_str().ok_or("an object needs a kind")?;
    let bytes = object.to_string();
    match Resource::find(group, kind) {
        Some(resource) => world.put_json(resource, bytes.as_bytes()).map(drop),
        None => world.put_custom(bytes.as_bytes()).map(|_| {
            let table = world.custom.entry((group.to_owned(), kind.to_owned())).or_default();
            table.seen = Seen::Whole;
        }),
    }
    .map_err(|e| e.to_string())
}

/// The options of a case.
pub fn options(case: &Case) -> Options {
    Options { advice: case.options.advice, ..Options::default() }
}

/// Compares what was found with what is expected; an error for people when they differ.
///
/// # Errors
/// What is missing, what is wrong, what is too much.
pub fn compare(case: &Case, twin: Option<&str>, found: &[Finding]) -> Result<(), String> {
    let namespace = namespace_of(case, twin);
    let expected: &[Expected] = if twin.is_some() { &[] } else { &case.expect };
    let tell = |f: &Finding| {
        let ObjectRef { kind, namespace, name } = &f.object;
        let cause = &f.cause.object;
        let symptoms =
            f.symptoms.iter().map(|s| format!("{}/{}/{}", s.kind, s.namespace, s.name)).collect::<Vec<_>>().join(" ");
        format!(
            "{kind}/{namespace}/{name} {} [{}] cause {}/{}/{} symptoms [{symptoms}]: {} | {} | {}",
            f.fault,
            f.severity.as_str(),
            cause.kind,
            cause.namespace,
            cause.name,
            f.summary,
            f.cause.why,
            f.fix
        )
    };
    let mut slips = Vec::new();
    let mut left: Vec<&Finding> =
        found.iter().filter(|f| f.severity.is_fault() || case.options.advice || twin.is_none()).collect();
    for want in expected {
        let object =
            ObjectRef::parse(&words(&want.object, &namespace).replace("NAME_OF_CASE", &case.name.replace('_', "-")));
        let Some(at) = left.iter().position(|f| Some(&f.object) == object.as_ref() && f.fault.slug() == want.fault)
        else {
            slips.push(format!("missing: {} {}", want.object, want.fault));
            continue;
        };
        let f = left.remove(at);
        let name = |o: &ObjectRef| format!("{}/{}/{}", o.kind, o.namespace, o.name);
        let filled = |text: &str| words(text, &namespace).replace("NAME_OF_CASE", &case.name.replace('_', "-"));
        if !want.cause.is_empty() && name(&f.cause.object) != filled(&want.cause) {
            slips.push(format!("cause is {}, not {}: {}", name(&f.cause.object), want.cause, f.cause.why));
        }
        if !want.severity.is_empty() && f.severity.as_str() != want.severity {
            slips.push(format!("severity is {}, not {}", f.severity.as_str(), want.severity));
        }
        for symptom in &want.symptoms {
            if !f.symptoms.iter().any(|s| name(s) == filled(symptom)) {
                slips.push(format!("symptom {symptom} is not told: {}", tell(f)));
            }
        }
        let text = format!("{} {} {}", f.summary, f.cause.why, f.fix).to_lowercase();
        for word in &want.says {
            if !text.contains(&filled(word).to_lowercase()) {
                slips.push(format!("does not say `{word}`: {text}"));
            }
        }
        if f.fix.is_empty() || f.evidence.is_empty() {
            slips.push(format!("no fix or no evidence: {}", tell(f)));
        }
    }
    slips.extend(left.iter().map(|f| format!("too much: {}", tell(f))));
    if slips.is_empty() {
        return Ok(());
    }
    let twin = twin.map(|t| format!(" (twin {t})")).unwrap_or_default();
    Err(format!("{}{twin} [{}]:\n    {}", case.name, case.check, slips.join("\n    ")))
}
