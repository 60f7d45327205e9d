//! An alert storm: 500 services need one bad database; ten symptoms each within a minute. How many incidents, and how
//! long does grouping and ranking take?
//!
//! `cargo run --release -p nightshift-diagnose --example storm`

use nightshift_diagnose::{DiagnoseConfig, Engine, Input};
use nightshift_model::{
    Anomaly, AnomalyKind, Direction, EdgeKind, EntityId, EntityMeta, Explanation, FaultClass, Observation,
    OccurrenceId, Phase, Severity, Timestamp,
};
use nightshift_topology::{Topology, TopologyConfig};
use std::collections::BTreeMap;

const SERVICES: i64 = 500;
const SIGNALS: i64 = 10;

fn symptom(name: &str, signal: &str, fault: FaultClass, at: Timestamp) -> Anomaly {
    let entity = EntityId::new("prod", "service", "shop", name);
    let labels = BTreeMap::new();
    let kind = AnomalyKind::Statistical;
    let fingerprint = Anomaly::fingerprint_of("default", entity.as_str(), kind, signal, &labels);
    Anomaly {
        id: OccurrenceId::derive(fingerprint, at),
        fingerprint,
        tenant: "default".into(),
        entity: EntityMeta::bare(entity),
        kind,
        signal: signal.into(),
        labels,
        onset: at,
        last_seen: at,
        phase: Phase::Open,
        score: 0.9,
        severity: Severity::from_score(0.9),
        direction: Direction::Up,
        fault,
        description: format!("{signal} of {name} is unusual"),
        explanation: Explanation::default(),
        source: "storm".into(),
    }
}

fn main() {
    let start = Timestamp::from_secs(1_000_000);
    let mut topology = Topology::new(TopologyConfig::default());
    let to = EntityId::new("prod", "service", "shop", "db");
    for i in 0..SERVICES {
        let from = EntityId::new("prod", "service", "shop", &format!("s{i}"));
        let edge = Observation::Edge { from, to: to.clone(), kind: EdgeKind::Calls, count: 1, at: start };
        topology.apply(&edge, start);
    }
    // Second by second, as the bus hands them over; the database's own symptom comes among the others.
    let mut seconds: BTreeMap<i64, Vec<Input>> = BTreeMap::new();
    for n in 0..SERVICES * SIGNALS {
        let (service, signal) = (n % SERVICES, n / SERVICES);
        let second = (n * 60) / (SERVICES * SIGNALS);
        let at = Timestamp(start.0 + second * 1_000_000_000);
        let (metric, fault) = match signal % 2 {
            0 => ("service_error_rate_percent", FaultClass::ErrorRateSpike),
            _ => ("service_latency_p99_ms", FaultClass::LatencySpike),
        };
        let one = symptom(&format!("s{service}"), &format!("{metric}_{signal}"), fault, at);
        seconds.entry(second).or_default().push(one.into());
    }
    let db = symptom("db", "service_error_rate_percent", FaultClass::ErrorRateSpike, start);
    seconds.entry(30).or_default().push(db.into());

    let mut engine = Engine::new(DiagnoseConfig::default(), "default");
    let mut rows = 0;
    let began = std::time::Instant::now();
    for (second, mut inputs) in seconds {
        inputs.push(Input::Tick);
        rows += engine.step_all(inputs, &topology, Timestamp(start.0 + second * 1_000_000_000)).len();
    }
    let took = began.elapsed();
    let open: Vec<_> = engine.incidents().filter(|i| i.status.is_open()).collect();
    let all = engine.incidents().count();
    println!("{} symptoms: {} open incidents, {all} ever opened", engine.stats().records, open.len());
    for inc in open {
        println!(
            "  {} with {} symptoms, of which {} are kept whole",
            inc.title,
            inc.anomalies_total,
            inc.anomalies.len()
        );
    }
    println!("{rows} journal rows, {} symptoms wait, {:.0} ms", engine.held().0, took.as_secs_f64() * 1_000.0);
}
