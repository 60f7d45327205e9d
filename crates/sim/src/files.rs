//! The estate in the formats that others read: Prometheus text and the topology file.

use crate::spec::{EstateSpec, Part, ServiceSpec};
use crate::world::World;
use nightshift_model::batch::SeriesKind;
use std::collections::BTreeMap;
use std::fmt::Write;

/// A text as a quoted string that YAML, JSON and Prometheus read alike (no control characters occur in names).
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// The current values in the Prometheus text format, with the names under which the estate can be scraped, and
/// `failure_injections_total` by kind of fault.
pub fn exposition(world: &World) -> String {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, def) in world.series().iter().enumerate() {
        by_name.entry(def.name).or_default().push(i);
    }
    let mut out = String::new();
    // Writing to a String cannot fail.
    for (name, members) in by_name {
        let kind = members.first().map_or(SeriesKind::Gauge, |i| world.series()[*i].kind);
        let kind = if kind == SeriesKind::Gauge { "gauge" } else { "counter" };
        let _ = writeln!(out, "# TYPE {name} {kind}");
        for i in members {
            let def = &world.series()[i];
            let Some(value) = world.value(i).filter(|v| !v.is_nan()) else { continue };
            let _ = write!(out, "{name}{{{}={}", def.entity.id.kind_str(), quoted(&def.entity.id.name()));
            for (label, text) in &def.labels {
                let _ = write!(out, ",{label}={}", quoted(text));
            }
            let _ = writeln!(out, "}} {value}");
        }
    }
    let mut injected: BTreeMap<&str, u64> = BTreeMap::new();
    for fault in world.faults().iter().filter(|f| !f.kind.is_lookalike() && f.start_secs <= world.now_secs()) {
        *injected.entry(fault.kind.name()).or_default() += 1;
    }
    out.push_str("# TYPE failure_injections_total counter\n");
    for (kind, n) in injected {
        let _ = writeln!(out, "failure_injections_total{{type={}}} {n}", quoted(kind));
    }
    out
}

/// The topology file of an estate: what its teams would have written down.
pub fn topology_yaml(spec: &EstateSpec) -> String {
    let mut out = format!(
        "version: 1\ncluster: {}\nenvironment: {}\nservices:\n",
        quoted(&spec.cluster),
        quoted(&spec.environment)
    );
    let name = |part: Part| quoted(spec.id(part).as_str());
    for part in spec.parts() {
        let id = spec.id(part);
        let _ = writeln!(out, "  - name: {}", quoted(&id.name()));
        if !id.namespace().is_empty() {
            let _ = writeln!(out, "    namespace: {}", quoted(&id.namespace()));
        }
        if id.kind_str() != "service" {
            let _ = writeln!(out, "    kind: {}", id.kind_str());
        }
        match part {
            Part::Service(i) => service(&mut out, spec, i, &name),
            Part::Database(i) => {
                let owner = &spec.databases[i].owner;
                let _ =
                    writeln!(out, "    owner: {}\n    on_call: {}", quoted(owner), quoted(&format!("{owner}-oncall")));
                let _ = writeln!(out, "    criticality: P0\n    attributes: {{ self_heal: \"true\" }}");
            }
            Part::Topic(_) | Part::Node(_) => {
                let _ = writeln!(out, "    owner: platform\n    on_call: platform-oncall");
                out.push_str("    attributes: { self_heal: \"true\" }\n");
            }
            Part::Resolver => {
                let _ = writeln!(out, "    owner: platform\n    on_call: platform-oncall\n    criticality: P0");
                out.push_str("    attributes: { self_heal: \"true\" }\n");
            }
        }
    }
    out
}

fn service(out: &mut String, spec: &EstateSpec, i: usize, name: &dyn Fn(Part) -> String) {
    let s: &ServiceSpec = &spec.services[i];
    let _ = writeln!(out, "    owner: {}\n    on_call: {}", quoted(&s.owner), quoted(&s.on_call));
    let _ = writeln!(out, "    criticality: {}", s.criticality);
    let _ = writeln!(out, "    sla: {}", quoted(&format!("{} %", s.sla_percent)));
    if !s.business_impact.is_empty() {
        let _ = writeln!(out, "    business_impact: {}", quoted(&s.business_impact));
    }
    // What is promised to users is counted at the edge, with retries and redundancy; the objective of a service is what
    // its own requests can keep: twice the errors of a quiet day, and no request beyond twice its usual latency.
    let objective = 100.0 - 2.0 * s.error_percent.max(0.05);
    out.push_str("    slos:\n");
    let _ = writeln!(
        out,
        "      - {{ name: success, objective: {objective}, window: 30d, indicator: service_error_rate_percent }}"
    );
    out.push_str("    depends_on:\n");
    for call in &s.calls {
        let _ = writeln!(out, "      - {}", name(Part::Service(call.to)));
    }
    if let Some(d) = s.database {
        let _ = writeln!(out, "      - {}", name(Part::Database(d)));
    }
    if let Some(c) = &s.consumer {
        let _ = writeln!(out, "      - {{ name: {}, type: messages }}", name(Part::Topic(c.topic)));
    }
    if spec.resolver.is_some() {
        let _ = writeln!(out, "      - {}", name(Part::Resolver));
    } else if s.calls.is_empty() && s.database.is_none() && s.consumer.is_none() {
        out.push_str("      []\n");
    }
    if !spec.nodes.is_empty() {
        out.push_str("    runs_on:\n");
        let mut nodes: Vec<usize> = (0..s.replicas as usize).map(|r| (i + r) % spec.nodes.len()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        for n in nodes {
            let _ = writeln!(out, "      - {}", name(Part::Node(n)));
        }
    }
    let _ = writeln!(
        out,
        "    attributes: {{ language: {}, min_replicas: \"{}\", max_replicas: \"{}\", self_heal: \"true\" }}",
        quoted(&s.language),
        s.replicas_min,
        s.replicas_max
    );
}
