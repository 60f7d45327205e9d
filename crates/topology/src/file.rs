//! The topology file: reading it, with every problem told at once.

use crate::declared::{Criticality, Dependency, ServiceSpec};
use crate::yaml::{self, Node, Problem, Value, nearest};
use nightshift_model::{EdgeKind, EntityId, Slo};
use std::collections::BTreeMap;

/// Largest file that is read, in bytes.
pub const FILE_BYTES_MAX: usize = 8 << 20;
/// Services in a file at most.
pub const SERVICES_MAX: usize = 20_000;
/// Problems reported at most; the last one says that there are more.
pub const PROBLEMS_MAX: usize = 100;
/// Longest text of one field, in bytes.
const TEXT_BYTES_MAX: usize = 2_048;
/// Dependencies, aliases, SLOs or attributes of one service at most.
const ITEMS_MAX: usize = 1_000;

const TOP_KEYS: &[&str] = &["version", "cluster", "environment", "services"];
const SERVICE_KEYS: &[&str] = &[
    "name",
    "namespace",
    "cluster",
    "kind",
    "owner",
    "on_call",
    "criticality",
    "tier",
    "sla",
    "environment",
    "business_impact",
    "slos",
    "depends_on",
    "runs_on",
    "aliases",
    "attributes",
];
const SLO_KEYS: &[&str] = &["name", "objective", "window", "indicator"];
const DEPENDENCY_KEYS: &[&str] = &["name", "type"];
const EDGE_KINDS: &[&str] = &["calls", "runs_on", "messages"];
/// Kinds that entities of ours have, and Kubernetes' own.
const KINDS: &[&str] = &[
    "service",
    "workload",
    "deployment",
    "statefulset",
    "daemonset",
    "job",
    "cronjob",
    "pod",
    "node",
    "host",
    "topic",
    "database",
    "cloud_resource",
    "other",
];

/// A file that was read without a problem.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TopologyFile {
    /// What it declares, in its order.
    pub services: Vec<ServiceSpec>,
}

/// A dependency that is not resolved yet: other services may stand below.
struct Wanted {
    line: u64,
    name: String,
    kind: EdgeKind,
}

struct Reader<'a> {
    problems: Vec<Problem>,
    cluster: String,
    environment: String,
    default_cluster: &'a str,
}

impl TopologyFile {
    /// Reads the text of a file. `default_cluster` is the cluster of services where neither the service nor the file
    /// names one.
    ///
    /// # Errors
    /// Every problem, by line, at most [`PROBLEMS_MAX`].
    pub fn parse(text: &str, default_cluster: &str) -> Result<Self, Vec<Problem>> {
        let root = yaml::parse(text, FILE_BYTES_MAX).map_err(|p| vec![p])?;
        let mut reader = Reader {
            problems: Vec::new(),
            cluster: default_cluster.to_owned(),
            environment: String::new(),
            default_cluster,
        };
        let services = reader.file(root);
        let mut problems = reader.problems;
        if problems.is_empty() {
            return Ok(Self { services });
        }
        problems.sort();
        problems.dedup();
        if problems.len() > PROBLEMS_MAX {
            let more = problems.len() - (PROBLEMS_MAX - 1);
            problems.truncate(PROBLEMS_MAX - 1);
            let hint = "repair these first".to_owned();
            problems.push(Problem { line: 0, message: format!("{more} further problems"), hint });
        }
        Err(problems)
    }
}

impl Reader<'_> {
    fn problem(&mut self, line: u64, message: impl Into<String>, hint: impl Into<String>) {
        // A file of a million mistakes must not become a million strings.
        if self.problems.len() < 10 * PROBLEMS_MAX {
            self.problems.push(Problem { line, message: message.into(), hint: hint.into() });
        }
    }

    fn file(&mut self, root: Node) -> Vec<ServiceSpec> {
        let entries = match root.value {
            // The empty file is valid: everything is learned.
            Value::Null => return Vec::new(),
            Value::Map(entries) => entries,
            other => {
                let message = format!("the file holds {}, expected a map with `services`", other.what());
                self.problem(root.line, message, "begin with `services:`");
                return Vec::new();
            }
        };
        let mut list = None;
        for (key, node) in entries {
            match key.text.as_str() {
                "version" => {
                    if self.text("version", node).is_some_and(|v| v != "1") {
                        self.problem(key.line, "version of the file is not known", "this program knows version 1");
                    }
                }
                "cluster" => self.cluster = self.text("cluster", node).unwrap_or_else(|| self.default_cluster.into()),
                "environment" => self.environment = self.text("environment", node).unwrap_or_default(),
                "services" => list = self.list("services", node),
                other => self.unknown_key(key.line, other, TOP_KEYS, "the file"),
            }
        }
        let list = list.unwrap_or_default();
        if list.len() > SERVICES_MAX {
            self.problem(0, format!("{} services, at most {SERVICES_MAX} are read", list.len()), "split the file");
        }
        let mut specs = Vec::new();
        let mut wanted = Vec::new();
        for node in list.into_iter().take(SERVICES_MAX) {
            let line = node.line;
            if let Some((spec, needs)) = self.service(node) {
                specs.push((line, spec));
                wanted.push(needs);
            }
        }
        self.resolve(specs, wanted)
    }

    fn service(&mut self, node: Node) -> Option<(ServiceSpec, Vec<Wanted>)> {
        let line = node.line;
        let Value::Map(entries) = node.value else {
            self.problem(line, format!("a service is {}, expected a map", node.value.what()), "write `- name: NAME`");
            return None;
        };
        let (mut name, mut namespace, mut cluster, mut kind) = (None, None, None, None);
        let named = entries.iter().any(|(key, _)| key.text == "name");
        // The id is known only when all keys are read.
        let mut spec = ServiceSpec::bare(EntityId::new("", "service", "", ""));
        spec.environment.clone_from(&self.environment);
        let mut needs = Vec::new();
        for (key, node) in entries {
            match key.text.as_str() {
                "name" => name = self.text("name", node),
                "namespace" => namespace = self.text("namespace", node),
                "cluster" => cluster = self.text("cluster", node),
                "kind" => kind = self.choice("kind", node, KINDS),
                "owner" => spec.owner = self.text("owner", node).unwrap_or_default(),
                "on_call" => spec.on_call = self.text("on_call", node).unwrap_or_default(),
                "criticality" => spec.criticality = self.criticality(node),
                "tier" => spec.tier = self.text("tier", node).unwrap_or_default(),
                "sla" => spec.sla = self.text("sla", node).unwrap_or_default(),
                "environment" => spec.environment = self.text("environment", node).unwrap_or_default(),
                "business_impact" => spec.business_impact = self.text("business_impact", node).unwrap_or_default(),
                "slos" => spec.slos = self.slos(node),
                "depends_on" => needs.extend(self.needs("depends_on", node, EdgeKind::Calls)),
                "runs_on" => needs.extend(self.needs("runs_on", node, EdgeKind::RunsOn)),
                "aliases" => {
                    let items = self.list_or_one("aliases", node);
                    spec.aliases = items.into_iter().filter_map(|n| self.text("aliases", n)).collect();
                }
                "attributes" => spec.attributes = self.attributes(node),
                other => self.unknown_key(key.line, other, SERVICE_KEYS, "a service"),
            }
        }
        let Some(name) = name else {
            if !named {
                self.problem(line, "a service has no `name`", "give it the name that its telemetry carries");
            }
            return None;
        };
        let cluster = cluster.unwrap_or_else(|| self.cluster.clone());
        let id =
            EntityId::new(&cluster, &kind.unwrap_or_else(|| "service".into()), &namespace.unwrap_or_default(), &name);
        match EntityId::parse(id.as_str()) {
            Ok(id) => spec.id = id,
            Err(e) => {
                self.problem(line, e, "shorten the name");
                return None;
            }
        }
        Some((spec, needs))
    }

    fn resolve(&mut self, specs: Vec<(u64, ServiceSpec)>, wanted: Vec<Vec<Wanted>>) -> Vec<ServiceSpec> {
        // A name may be written as `name`, `namespace/name` or the whole id; several may share a short one.
        let mut by_name: BTreeMap<String, Vec<EntityId>> = BTreeMap::new();
        let mut first_line: BTreeMap<EntityId, u64> = BTreeMap::new();
        for (line, spec) in &specs {
            if let Some(first) = first_line.get(&spec.id) {
                let message = format!("`{}` stands in the file twice, first on line {first}", spec.id);
                self.problem(*line, message, "join the two, or tell them apart by namespace");
                continue;
            }
            first_line.insert(spec.id.clone(), *line);
            let (name, namespace) = (spec.id.name(), spec.id.namespace());
            if !namespace.is_empty() {
                by_name.entry(format!("{namespace}/{name}")).or_default().push(spec.id.clone());
            }
            by_name.entry(name).or_default().push(spec.id.clone());
        }
        let mut alias_of: BTreeMap<String, EntityId> = BTreeMap::new();
        for (line, spec) in &specs {
            for alias in &spec.aliases {
                let other = alias_of.insert(alias.clone(), spec.id.clone());
                if let Some(other) = other.filter(|other| *other != spec.id) {
                    let message = format!("alias `{alias}` is given to `{other}` and to `{}`", spec.id);
                    self.problem(*line, message, "an alias stands for one entity");
                }
            }
        }
        let mut out = Vec::with_capacity(specs.len());
        for ((_, mut spec), needs) in specs.into_iter().zip(wanted) {
            for want in needs {
                let found = match by_name.get(&want.name).map(Vec::as_slice) {
                    Some([one]) => Some(one.clone()),
                    Some(many) => {
                        // The same namespace first: that is what people mean.
                        let same = many.iter().find(|id| id.namespace() == spec.id.namespace());
                        if same.is_none() {
                            let list = many.iter().map(EntityId::as_str).collect::<Vec<_>>().join(", ");
                            self.problem(
                                want.line,
                                format!("`{}` is not one service: {list}", want.name),
                                "write NAMESPACE/NAME",
                            );
                        }
                        same.cloned()
                    }
                    None => alias_of.get(&want.name).cloned().or_else(|| EntityId::parse(&want.name).ok()),
                };
                match found {
                    Some(to) if to == spec.id => {
                        self.problem(want.line, format!("`{}` depends on itself", want.name), "remove the entry");
                    }
                    Some(to) => spec.depends_on.push(Dependency { to, kind: want.kind }),
                    None if by_name.contains_key(&want.name) => {}
                    None => {
                        let mut hint = nearest(&want.name, by_name.keys().map(String::as_str));
                        if hint.is_empty() {
                            hint = "declare it, or write its whole id CLUSTER/KIND/NAMESPACE/NAME".into();
                        }
                        self.problem(want.line, format!("`{}` is no service of this file", want.name), hint);
                    }
                }
            }
            spec.depends_on.sort();
            spec.depends_on.dedup();
            out.push(spec);
        }
        out
    }

    fn needs(&mut self, field: &str, node: Node, kind: EdgeKind) -> Vec<Wanted> {
        let mut out = Vec::new();
        for item in self.list_or_one(field, node) {
            let line = item.line;
            let Value::Map(entries) = item.value else {
                out.extend(self.text(field, item).map(|name| Wanted { line, name, kind }));
                continue;
            };
            let (mut name, mut kind) = (None, kind);
            for (key, node) in entries {
                match key.text.as_str() {
                    "name" => name = self.text("name", node),
                    "type" => match self.choice("type", node, EDGE_KINDS).as_deref() {
                        Some("runs_on") => kind = EdgeKind::RunsOn,
                        Some("messages") => kind = EdgeKind::Messages,
                        _ => {}
                    },
                    other => self.unknown_key(key.line, other, DEPENDENCY_KEYS, "a dependency"),
                }
            }
            match name {
                Some(name) => out.push(Wanted { line, name, kind }),
                None => self.problem(line, format!("an entry of `{field}` has no `name`"), "name what it depends on"),
            }
        }
        out
    }

    fn slos(&mut self, node: Node) -> Vec<Slo> {
        let mut out: Vec<Slo> = Vec::new();
        for item in self.list("slos", node).unwrap_or_default() {
            let line = item.line;
            let Value::Map(entries) = item.value else {
                self.problem(line, "an SLO is not a map", "write `- { name: …, objective: 99.9, window: 30d }`");
                continue;
            };
            let (mut name, mut objective, mut window, mut indicator) = (None, None, None, String::new());
            let measured = entries.iter().any(|(key, _)| key.text == "objective");
            for (key, node) in entries {
                let line = node.line;
                match key.text.as_str() {
                    "name" => name = self.text("name", node),
                    "objective" => {
                        if let Some(text) = self.text("objective", node) {
                            let percent = text.trim_end_matches('%').trim().parse::<f64>().ok();
                            objective = percent.filter(|p| *p > 0.0 && *p < 100.0);
                            if objective.is_none() {
                                self.problem(
                                    line,
                                    format!("objective `{text}` is not a percentage between 0 and 100"),
                                    "write 99.9",
                                );
                            }
                        }
                    }
                    "window" => {
                        if let Some(text) = self.text("window", node) {
                            window = parse_window(&text);
                            if window.is_none() {
                                self.problem(
                                    line,
                                    format!("window `{text}` is not a duration"),
                                    "write 30d, 4w, 12h or 90m",
                                );
                            }
                        }
                    }
                    "indicator" => indicator = self.text("indicator", node).unwrap_or_default(),
                    other => self.unknown_key(key.line, other, SLO_KEYS, "an SLO"),
                }
            }
            let Some(name) = name else {
                self.problem(line, "an SLO has no `name`", "name it, for instance `availability`");
                continue;
            };
            if out.iter().any(|s| s.name == name) {
                self.problem(line, format!("SLO `{name}` stands twice"), "names are unique within a service");
                continue;
            }
            let Some(objective) = objective else {
                if !measured {
                    self.problem(line, format!("SLO `{name}` has no `objective`"), "write `objective: 99.9`");
                }
                continue;
            };
            out.push(Slo { name, objective, window_secs: window.unwrap_or(30 * 86_400), indicator });
        }
        out
    }

    fn attributes(&mut self, node: Node) -> BTreeMap<String, String> {
        let line = node.line;
        let Value::Map(entries) = node.value else {
            if !matches!(node.value, Value::Null) {
                self.problem(line, "`attributes` is not a map", "write `attributes: { language: go }`");
            }
            return BTreeMap::new();
        };
        if entries.len() > ITEMS_MAX {
            self.problem(line, format!("more than {ITEMS_MAX} attributes"), "keep those that people read");
        }
        entries
            .into_iter()
            .take(ITEMS_MAX)
            .filter_map(|(key, node)| self.text("attributes", node).map(|value| (key.text, value)))
            .collect()
    }

    fn criticality(&mut self, node: Node) -> Option<Criticality> {
        let line = node.line;
        let text = self.text("criticality", node)?;
        text.parse().map_err(|e: String| self.problem(line, format!("criticality {e}"), "P0 is worst")).ok()
    }

    fn choice(&mut self, field: &str, node: Node, names: &[&str]) -> Option<String> {
        let line = node.line;
        let text = self.text(field, node)?;
        if names.contains(&text.as_str()) {
            return Some(text);
        }
        let mut hint = nearest(&text, names.iter().copied());
        if hint.is_empty() {
            hint = format!("one of {}", names.join(", "));
        }
        self.problem(line, format!("{field} `{text}` is not known"), hint);
        None
    }

    fn text(&mut self, field: &str, node: Node) -> Option<String> {
        match node.value {
            Value::Null => None,
            Value::Scalar(text) if text.len() > TEXT_BYTES_MAX => {
                self.problem(
                    node.line,
                    format!("`{field}` has {} bytes", text.len()),
                    format!("at most {TEXT_BYTES_MAX}"),
                );
                None
            }
            Value::Scalar(text) if text.trim().is_empty() => {
                self.problem(node.line, format!("`{field}` is empty"), "give it a value or remove the key");
                None
            }
            Value::Scalar(text) => Some(text.trim().to_owned()),
            other => {
                self.problem(node.line, format!("`{field}` is {}, expected one value", other.what()), "");
                None
            }
        }
    }

    fn list(&mut self, field: &str, node: Node) -> Option<Vec<Node>> {
        match node.value {
            Value::Null => None,
            Value::List(items) if field != "services" && items.len() > ITEMS_MAX => {
                self.problem(
                    node.line,
                    format!("`{field}` has {} entries", items.len()),
                    format!("at most {ITEMS_MAX}"),
                );
                None
            }
            Value::List(items) => Some(items),
            other => {
                let hint = "begin each entry with `- `";
                self.problem(node.line, format!("`{field}` is {}, expected a list", other.what()), hint);
                None
            }
        }
    }

    fn list_or_one(&mut self, field: &str, node: Node) -> Vec<Node> {
        if matches!(node.value, Value::Scalar(_)) { vec![node] } else { self.list(field, node).unwrap_or_default() }
    }

    fn unknown_key(&mut self, line: u64, key: &str, known: &[&str], of: &str) {
        let mut hint = nearest(key, known.iter().copied());
        if hint.is_empty() {
            hint = format!("known keys: {}", known.join(", "));
        }
        let shown: String = key.chars().take(80).collect();
        self.problem(line, format!("unknown key `{shown}` of {of}"), hint);
    }
}

/// `90m`, `12h`, `30d`, `4w`, `3600s` in seconds; `None` when it is none or zero.
fn parse_window(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let secs = match unit.trim() {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(secs).filter(|s| *s > 0)
}

/// For fuzzing: any bytes are read or refused, nothing else.
#[doc(hidden)]
pub fn fuzz_topology_yaml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match TopologyFile::parse(text, "local") {
        Ok(file) => {
            let mut topology = crate::Topology::new(crate::TopologyConfig::default());
            topology.declare(&file);
            let ids: Vec<EntityId> = file.services.iter().take(50).map(|s| s.id.clone()).collect();
            let _ = topology.blast_radius(&ids);
        }
        Err(problems) => assert!(!problems.is_empty() && problems.len() <= PROBLEMS_MAX),
    }
}
