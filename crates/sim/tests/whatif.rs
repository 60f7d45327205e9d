//! What-if on the estate: it sees the telemetry that a scraper would, and nothing else.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what is not there is a failed test")]

use nightshift_model::{
    Anomaly, AnomalyKind, Direction, EntityId, EntityMeta, Explanation, FaultClass, Hypothesis, Incident, IncidentId,
    IncidentStatus, OccurrenceId, Phase, Plan, Prediction, Severity, Timestamp,
};
use nightshift_plan::{Ask, Images, PlanConfig, Playbooks, Stats, WhatIf, propose};
use nightshift_sim::{
    EstateSpec, FittedEstate, InjectedFault, Part, Scrape, SimFault, WhatIfConfig, World, topology_yaml,
};
use nightshift_topology::{Topology, TopologyConfig, TopologyFile};
use std::collections::BTreeMap;

/// An estate in which something went wrong some seconds ago, as the outside sees it.
struct Scene {
    world: World,
    seen: FittedEstate,
    topology: Topology,
    images: Images,
    incident: Incident,
}

/// Rests for four minutes, then has the fault for `after` seconds, all of it scraped every second.
fn scene(kind: SimFault, after: f64, causes: &[(Part, FaultClass, f64)]) -> Scene {
    let spec = EstateSpec::six();
    let start = 240.0;
    let fault = InjectedFault::usual(kind, &spec, start).unwrap();
    let mut topology = Topology::new(TopologyConfig::default());
    topology.declare(&TopologyFile::parse(&topology_yaml(&spec), &spec.cluster).unwrap());
    let mut world = World::new(spec, 11).talking(false);
    world.inject(fault);
    let mut seen = FittedEstate::new(WhatIfConfig::default());
    let (mut scrape, mut rest) = (Scrape::default(), Vec::new());
    while world.now_secs() < start + after {
        world.tick();
        world.scrape(&mut scrape);
        for (def, value) in world.series().iter().zip(&scrape.values) {
            seen.observe(&def.entity.id, def.name, scrape.at, *value);
        }
        if world.now_secs() <= start - 1.0 {
            rest.clone_from(&scrape.values);
        }
    }
    let onset = world.time_at(start + 1.0);
    let mut anomalies = Vec::new();
    for (i, def) in world.series().iter().enumerate() {
        let (now, usual) = (scrape.values[i], rest[i]);
        let band = 0.25 * usual.abs() + def.floor;
        if def.labels.is_empty() && (now - usual).abs() > band {
            anomalies.push(anomaly(&def.entity, def.name, onset, usual, now, band));
        }
    }
    let spec = world.spec();
    let hypotheses = causes.iter().map(|(part, fault, c)| hypothesis(spec.id(*part), *fault, *c)).collect();
    let images: Images = spec.parts().into_iter().map(|p| (spec.id(p), world.facts(p))).collect();
    let incident = incident(anomalies, hypotheses, onset, world.now());
    Scene { incident, world, seen, topology, images }
}

fn anomaly(e: &EntityMeta, signal: &str, onset: Timestamp, expected: f64, observed: f64, band: f64) -> Anomaly {
    let fingerprint =
        Anomaly::fingerprint_of("default", e.id.as_str(), AnomalyKind::Statistical, signal, &BTreeMap::new());
    Anomaly {
        id: OccurrenceId::derive(fingerprint, onset),
        fingerprint,
        tenant: "default".into(),
        entity: e.clone(),
        kind: AnomalyKind::Statistical,
        signal: signal.into(),
        labels: BTreeMap::new(),
        onset,
        last_seen: onset,
        phase: Phase::Open,
        score: 0.9,
        severity: Severity::Critical,
        direction: if observed > expected { Direction::Up } else { Direction::Down },
        fault: FaultClass::Unknown,
        description: String::new(),
        explanation: Explanation {
            observed: Some(observed),
            expected: Some(expected),
            lower: Some(expected - band),
            upper: Some(expected + band),
            ..Explanation::default()
        },
        source: String::new(),
    }
}

fn hypothesis(entity: EntityId, fault: FaultClass, confidence: f64) -> Hypothesis {
    Hypothesis {
        entity: Some(entity),
        fault,
        confidence,
        score: 0.0,
        summary: String::new(),
        contributions: Vec::new(),
        evidence: Vec::new(),
        signal: String::new(),
    }
}

fn incident(anomalies: Vec<Anomaly>, hypotheses: Vec<Hypothesis>, onset: Timestamp, now: Timestamp) -> Incident {
    Incident {
        id: IncidentId::derive("default", anomalies.first().map_or(OccurrenceId(1), |a| a.id)),
        number: 1,
        tenant: "default".into(),
        title: String::new(),
        status: IncidentStatus::RcaComplete,
        severity: Severity::Critical,
        score: 0.9,
        onset,
        detected_at: now,
        updated_at: now,
        resolved_at: None,
        resolved_by: None,
        acknowledged_by: None,
        anomalies_total: anomalies.len() as u64,
        anomalies_open: anomalies.len() as u64,
        anomalies,
        hypotheses,
        rca_revision: 1,
        blast_radius: Default::default(),
        timeline: Vec::new(),
        merged_into: None,
        recurrence_of: None,
        synthetic: false,
        plan: None,
        plans_total: 0,
        verdict: None,
        approval: None,
        actions: Vec::new(),
        actions_total: 0,
        automation: Default::default(),
        taken_over_by: None,
        nodes: Vec::new(),
        verified_at: None,
        feedback: None,
        postmortem_at: None,
    }
}

impl Scene {
    /// A plan of one shipped playbook, bound as if it healed the first cause.
    fn bind(&self, playbook: &str) -> Result<Plan, String> {
        let mut book = Playbooks::shipped().get(playbook).unwrap().clone();
        let cause = &self.incident.hypotheses[0];
        book.heals[0].fault = cause.fault;
        book.heals[0].kinds = Vec::new();
        book.heals[0].needs = None;
        let only = Playbooks::default().with([book]);
        let config = PlanConfig { benefit_min: 0.0, ..PlanConfig::default() };
        let ask = Ask {
            incident: &self.incident,
            topology: &self.topology,
            images: &self.images,
            changes: &[],
            tried: &[],
            parent: None,
            stats: &Stats::new(),
            what_if: None,
            config: &config,
            now: self.world.now(),
        };
        let proposal = propose(&only, &ask);
        proposal.plan.ok_or_else(|| proposal.candidates.into_iter().map(|c| c.why_not).collect::<Vec<_>>().join("; "))
    }

    fn plan(&self, playbook: &str) -> Plan {
        self.bind(playbook).unwrap_or_else(|why| panic!("{playbook}: {why}"))
    }

    fn predict(&self, playbook: &str) -> Option<Prediction> {
        self.seen.predict(&self.plan(playbook), &self.incident, &self.topology, &self.images, self.world.now())
    }
}

const GATEWAY: Part = Part::Service(0);
const PAYMENT: Part = Part::Service(1);
const USER: Part = Part::Service(3);

#[test]
fn scaling_helps_a_saturated_cpu() {
    let s = scene(SimFault::CpuSaturation, 30.0, &[(GATEWAY, FaultClass::CpuSaturation, 0.9)]);
    let p = s.predict("scale_out").unwrap();
    assert!(p.success_probability > 0.99 && p.recovery_secs.unwrap() < 60.0, "{p:#?}");
    assert!(p.kpi_with < 0.5 * p.kpi_without, "{p:#?}");
    assert!(p.harms.is_empty(), "{p:#?}");
    // A restart gives no more CPU.
    let p = s.predict("restart_hung").unwrap();
    assert!(p.success_probability < 0.01, "{p:#?}");
}

#[test]
fn scaling_does_not_help_a_bad_deploy_and_rolling_back_does() {
    let s = scene(SimFault::DeploymentFailure, 15.0, &[(USER, FaultClass::DeploymentFailure, 0.9)]);
    let p = s.predict("scale_out").unwrap();
    assert!(p.success_probability < 0.01, "{p:#?}");
    let p = s.predict("rollback_deploy").unwrap();
    assert!(p.success_probability > 0.99, "{p:#?}");
}

#[test]
fn scaling_harms_a_database_pool_and_recycling_with_a_limit_heals_it() {
    let s = scene(SimFault::DbConnectionExhaustion, 12.0, &[(PAYMENT, FaultClass::DbConnectionExhaustion, 0.9)]);
    let p = s.predict("scale_out").unwrap();
    assert!(p.success_probability < 0.01 && p.kpi_with >= p.kpi_without, "{p:#?}");
    assert!(!p.harms.is_empty(), "{p:#?}");
    let p = s.predict("recycle_pool_and_limit").unwrap();
    assert!(p.success_probability > 0.99, "{p:#?}");
}

#[test]
fn two_causes_are_weighed_by_their_confidence() {
    let causes = [(USER, FaultClass::DeploymentFailure, 0.7), (USER, FaultClass::ErrorRateSpike, 0.2)];
    let s = scene(SimFault::DeploymentFailure, 15.0, &causes);
    // A rollback replaces every pod too: what a restart heals it heals. The other way round it is not so.
    let rollback = s.predict("rollback_deploy").unwrap();
    assert!(rollback.success_probability > 0.99, "{rollback:#?}");
    let restart = s.predict("restart_hung").unwrap();
    assert!((restart.success_probability - 0.2 / 0.9).abs() < 0.01, "{restart:#?}");
}

#[test]
fn what_is_not_known_is_not_predicted() {
    let s = scene(SimFault::CpuSaturation, 30.0, &[(GATEWAY, FaultClass::CpuSaturation, 0.9)]);
    let plan = s.plan("scale_out");
    let ask =
        |seen: &FittedEstate, incident: &Incident| seen.predict(&plan, incident, &s.topology, &s.images, s.world.now());
    // No telemetry: an anomaly alone does not make an estate.
    let blind = FittedEstate::new(WhatIfConfig::default());
    let mut few = s.incident.clone();
    few.anomalies.retain(|a| a.signal == "service_cpu_percent");
    assert_eq!(ask(&blind, &few), None);
    // A class that the model does not have, and a cause that would not show this.
    let mut other = s.incident.clone();
    other.hypotheses = vec![hypothesis(s.world.spec().id(GATEWAY), FaultClass::QuotaExhausted, 0.9)];
    assert_eq!(ask(&s.seen, &other), None);
    other.hypotheses = vec![hypothesis(s.world.spec().id(GATEWAY), FaultClass::MemoryLeak, 0.9)];
    assert_eq!(ask(&s.seen, &other), None);
    // Switched off it says nothing.
    let off = FittedEstate::new(WhatIfConfig { enabled: false, ..WhatIfConfig::default() });
    assert_eq!(ask(&off, &s.incident), None);
    assert_eq!(ask(&s.seen, &s.incident), ask(&s.seen, &s.incident));
}

/// How often the trial of the playbook that heals says so, over all faults of the estate. Printed, with what failed.
#[test]
fn the_right_playbook_of_each_fault_is_predicted_to_help() {
    use FaultClass as C;
    use SimFault as F;
    let spec = EstateSpec::six();
    let table = [
        (F::LatencySpike, C::LatencySpike, "restart_hung"),
        (F::ErrorRateSpike, C::ErrorRateSpike, "restart_hung"),
        (F::CpuSaturation, C::CpuSaturation, "scale_out"),
        (F::MemoryLeak, C::MemoryLeak, "restart_leaking"),
        (F::DbConnectionExhaustion, C::DbConnectionExhaustion, "recycle_pool_and_limit"),
        (F::KafkaConsumerLag, C::KafkaConsumerLag, "scale_consumers"),
        (F::DeploymentFailure, C::DeploymentFailure, "rollback_deploy"),
        (F::BadFlag, C::BadConfig, "toggle_flag_back"),
        (F::RetryStorm, C::RetryStorm, "calm_retry_storm"),
        (F::NoisyNeighbour, C::NoisyNeighbour, "leave_noisy_node"),
        (F::DiskFilling, C::DiskFull, "clean_disk"),
        (F::CertificateExpiry, C::CertificateExpiry, "renew_certificate"),
        (F::DnsFailure, C::DnsFailure, "restart_resolver"),
        (F::CacheStampede, C::CacheStampede, "warm_cache"),
        (F::ThunderingHerd, C::TrafficSurge, "scale_out"),
        (F::CascadingTimeout, C::CascadeFailure, "restart_hung"),
        (F::PartialReplicaFailure, C::PartialReplicaFailure, "replace_failing_replicas"),
        (F::MisroutedTraffic, C::MisroutedTraffic, "restore_routes"),
        (F::TrafficSurge, C::TrafficSurge, "scale_out"),
        (F::NodeNotReady, C::NodeNotReady, "drain_dead_node"),
        (F::DatabasePrimaryLost, C::DependencyOutage, "failover_database"),
        (F::LockContention, C::LockContention, "release_locks"),
        (F::CrashLoop, C::CrashLoop, "last_good_image"),
        (F::OomKill, C::OomKill, "raise_memory"),
    ];
    let mut wrong = Vec::new();
    let (mut spent, mut trials) = (std::time::Duration::ZERO, 0_u32);
    // As early as it may be noticed, and when it stands at its height.
    for (after, least) in [(4.0, 12), (8.0, 17), (15.0, 20), (25.0, 21), (45.0, 21)] {
        let (mut helped, mut silent) = (0, Vec::new());
        for (kind, class, playbook) in table {
            let part = InjectedFault::usual(kind, &spec, 0.0).unwrap().part.part();
            // A disk fills slowly.
            let after = if kind == F::DiskFilling { after + 60.0 } else { after };
            let s = scene(kind, after, &[(part, class, 0.9)]);
            let plan = match s.bind(playbook) {
                Ok(plan) => plan,
                Err(why) => {
                    silent.push(format!("{} ({why})", kind.name()));
                    continue;
                }
            };
            let began = std::time::Instant::now();
            let said = s.seen.predict(&plan, &s.incident, &s.topology, &s.images, s.world.now());
            (spent, trials) = (spent + began.elapsed(), trials + 1);
            match said {
                None => silent.push(kind.name().to_owned()),
                Some(p) if p.success_probability >= 0.5 && p.harms.is_empty() => helped += 1,
                Some(p) => {
                    let kpi = &plan.verification;
                    wrong.push(format!(
                        "{} after {after} s ({} {}): {p:?}",
                        kind.name(),
                        kpi.kpi.signal,
                        kpi.threshold
                    ));
                }
            }
        }
        println!("after {after} s: {helped} of {} predicted to help; silent: {silent:#?}", table.len());
        assert!(helped >= least, "after {after} s only {helped}; silent: {silent:#?}; wrong: {wrong:#?}");
    }
    println!("{:.3} ms a trial", 1_000.0 * spent.as_secs_f64() / f64::from(trials.max(1)));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
