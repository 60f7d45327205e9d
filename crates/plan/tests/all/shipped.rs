//! The playbooks that ship: each can be read, bound and checked, and between them nothing is left out.

use crate::{Case, cause, change, id, service, symptom};
use nightshift_model::{ActionType, ChangeType, EntityId, EntityKind, FaultClass, Risk, SignalFamily};
use nightshift_plan::Playbooks;
use serde_json::json;
use std::collections::BTreeSet;

#[test]
fn every_file_of_the_folder_ships_and_is_without_a_problem() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../playbooks");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    files.sort();
    let shipped: Vec<&str> = Playbooks::shipped_files().iter().map(|(name, _)| *name).collect();
    assert_eq!(files, shipped, "left: playbooks/, right: what is built in");
    let (all, problems) = Playbooks::default().load(Playbooks::shipped_files().iter().copied());
    assert_eq!(problems, [], "{}", problems.iter().map(|p| format!("{p}\n")).collect::<String>());
    assert_eq!(all, Playbooks::shipped());
    assert_eq!(all.len(), files.len());
    for (file, _) in Playbooks::shipped_files() {
        assert!(all.get(file.trim_end_matches(".yaml")).is_some(), "{file} holds a playbook of another name");
    }
}

#[test]
fn every_fault_class_is_healed_or_falls_to_a_person() {
    let all = Playbooks::shipped();
    for fault in FaultClass::ALL {
        for kind in fault.info().kinds {
            let people = all.iter().filter(|p| !p.acts()).any(|p| p.heals(*fault, *kind).next().is_some());
            assert!(people, "{fault} on {kind:?} would be silence");
        }
    }
    // Causes that something can be done about: those of the simulated faults and of the contract.
    let healed = "latency_spike error_rate_spike cpu_saturation memory_leak db_connection_exhaustion \
        kafka_consumer_lag deployment_failure cascade_failure dependency_outage traffic_surge bad_config oom_kill \
        crash_loop image_pull_failure policy_violation cost_spike disk_full certificate_expiry dns_failure \
        node_not_ready lock_contention retry_storm noisy_neighbour cache_stampede partial_replica_failure \
        misrouted_traffic";
    for slug in healed.split_whitespace() {
        let fault: FaultClass = slug.parse().unwrap();
        assert!(all.iter().any(|p| p.acts() && p.heals.iter().any(|h| h.fault == fault)), "{slug}");
    }
}

#[test]
fn every_action_type_is_used() {
    let used: BTreeSet<ActionType> =
        Playbooks::shipped().iter().flat_map(|p| p.steps.iter().map(|s| s.action).collect::<Vec<_>>()).collect();
    let all: BTreeSet<ActionType> = ActionType::ALL.iter().copied().collect();
    assert_eq!(used, all);
}

#[test]
fn what_a_person_must_decide_is_at_high_risk() {
    let all = Playbooks::shipped();
    for name in ["failover_database", "renew_certificate", "except_policy"] {
        assert!(all.get(name).unwrap().risk() >= Risk::High, "{name} would run by itself");
    }
    // A pool that is exhausted is never answered with more clients.
    for playbook in all.iter().filter(|p| p.heals.iter().any(|h| h.fault == FaultClass::DbConnectionExhaustion)) {
        assert!(playbook.steps.iter().all(|s| s.action != ActionType::ScaleDeployment), "{}", playbook.name);
    }
    // What nothing but the version before heals is not scaled or restarted.
    for playbook in all.iter().filter(|p| p.acts()) {
        for heals in playbook.heals.iter().filter(|h| h.fault == FaultClass::DeploymentFailure) {
            assert!(
                playbook.steps.iter().all(|s| s.action == ActionType::RollbackDeploy),
                "{} {heals:?}",
                playbook.name
            );
        }
    }
}

/// Where a fault would be seen, and by which signal.
fn place(fault: FaultClass) -> (EntityId, &'static str) {
    let kinds = fault.info().kinds;
    let entity = match fault {
        FaultClass::DnsFailure => id("workload", "coredns"),
        _ if kinds.contains(&EntityKind::Service) => service("payment-service"),
        FaultClass::NodeNotReady | FaultClass::NoisyNeighbour | FaultClass::NodeCordoned => id("node", "node-1"),
        FaultClass::DiskFull => id("database", "shop-db"),
        _ => id("workload", "coredns"),
    };
    let entity = match fault {
        FaultClass::LockContention | FaultClass::DependencyOutage => id("database", "shop-db"),
        FaultClass::KafkaConsumerLag => service("order-service"),
        FaultClass::NoisyNeighbour => id("node", "node-1"),
        _ => entity,
    };
    let signal = match SignalFamily::ALL.iter().find(|f| fault.info().evidence.first() == Some(&f.as_str())) {
        Some(SignalFamily::ErrorRatio) => "service_error_rate_percent",
        Some(SignalFamily::Cpu) => "service_cpu_percent",
        Some(SignalFamily::Memory) => "service_memory_percent",
        Some(SignalFamily::DbConnections) => "service_db_connections",
        Some(SignalFamily::ConsumerLag) => "kafka_consumer_lag",
        Some(SignalFamily::Cost) => "service_cost_usd",
        _ => "service_latency_p99_ms",
    };
    (entity, signal)
}

#[test]
fn every_playbook_binds_where_it_belongs_and_the_checker_finds_nothing() {
    let all = Playbooks::shipped();
    for playbook in all.iter() {
        let mut bound = 0;
        for heals in &playbook.heals {
            let (mut entity, signal) = place(heals.fault);
            if !heals.kinds.is_empty() && !heals.kinds.contains(&entity.kind()) {
                entity = match heals.kinds[0] {
                    EntityKind::Database => id("database", "shop-db"),
                    EntityKind::Node => id("node", "node-1"),
                    EntityKind::Workload => id("workload", "coredns"),
                    _ => service("payment-service"),
                };
            }
            // A service with one workload behind it.
            if playbook.name == "kubernetes_labels_back" {
                entity = service("status-page");
            }
            // Those that call it or run on it suffer too.
            let gateway = symptom(&service("api-gateway"), "service_latency_p99_ms", 120.0, 900.0);
            let own = symptom(&entity, signal, 100.0, 900.0);
            let mut case = Case::new(vec![own, gateway], vec![cause(&entity, heals.fault, 0.8)]);
            if playbook.name == "raise_memory_jvm" {
                case.images.get_mut(&entity).unwrap().insert("jvm_heap_mib".into(), json!(96));
            }
            match playbook.name.as_str() {
                "kubernetes_resume_rollout" => {
                    case.images.get_mut(&entity).unwrap().insert("paused".into(), json!(true));
                }
                "kubernetes_drain_node" => {
                    case.images.get_mut(&entity).unwrap().insert("pods".into(), json!(4));
                }
                "kubernetes_cordon_node" | "kubernetes_uncordon_node" => {
                    let up = playbook.name == "kubernetes_cordon_node";
                    let image = case.images.get_mut(&entity).unwrap();
                    image.extend(crate::image(json!({"schedulable": up, "ready": true})));
                }
                _ => {}
            }
            if let Some(needs) = &heals.needs {
                case.changes.push(change(&entity, needs.changes[0], 120));
            }
            let only = Playbooks::default().with([playbook.clone()]);
            let proposal = nightshift_plan::propose(&only, &case.ask());
            let Some(plan) = proposal.plan else { panic!("{} for {}: {proposal:#?}", playbook.name, heals.fault) };
            assert_eq!(plan.playbook, playbook.name);
            assert_eq!(case.findings(&plan), [], "{} for {}", playbook.name, heals.fault);
            assert!(plan.is_sealed() && !plan.title.contains('?') && !plan.title.contains('{'), "{}", plan.title);
            assert!(plan.steps.iter().all(|s| !s.estimated_impact.contains(['?', '{'])), "{:#?}", plan.steps);
            bound += 1;
        }
        assert!(bound > 0, "{}", playbook.name);
    }
}

#[test]
fn values_are_those_of_the_contract() {
    let gateway = service("payment-service");
    let case = Case::new(
        vec![symptom(&gateway, "service_cpu_percent", 30.0, 97.0)],
        vec![cause(&gateway, FaultClass::CpuSaturation, 0.9)],
    );
    let plan = case.plan();
    assert_eq!((plan.playbook.as_str(), &plan.steps[0].params["replicas"]), ("scale_out", &json!(6)));
    assert_eq!(plan.title, "Scale payment-service from 3 to 6 replicas");
    // The work is still there: twice the usual CPU is far enough from its end.
    assert_eq!(plan.verification.threshold, 60.0);
    assert_eq!(plan.verification.readings, 3);
    assert_eq!(
        (plan.owner.as_str(), plan.escalation_path.as_slice()),
        ("payments", &["payments-oncall".to_owned(), "payments".into()][..])
    );

    let case = Case::new(
        vec![symptom(&gateway, "service_latency_p99_ms", 380.0, 3_800.0)],
        vec![cause(&gateway, FaultClass::OomKill, 0.9)],
    );
    let patch = &case.plan().steps[0].params;
    assert_eq!((&patch["memory_limit_mib"], &patch["memory_request_mib"]), (&json!(256), &json!(200)));

    // Consumers: never more than there are partitions, nor than the owner allows.
    let order = service("order-service");
    let mut case = Case::new(
        vec![symptom(&order, "kafka_consumer_lag", 100.0, 30_000.0)],
        vec![cause(&order, FaultClass::KafkaConsumerLag, 0.9)],
    );
    let image = case.images.get_mut(&order).unwrap();
    image.insert("partitions".into(), json!(5));
    assert_eq!(case.plan().steps[0].params["replicas"], json!(5));
    let image = case.images.get_mut(&order).unwrap();
    image.insert("partitions".into(), json!(3));
    let proposal = case.propose();
    assert_eq!(proposal.plan.unwrap().playbook, "manual_review");
    let refused = proposal.candidates.iter().find(|c| c.playbook == "scale_consumers").unwrap();
    assert!(refused.why_not.contains("does not hold"), "{}", refused.why_not);
}

#[test]
fn a_flag_is_flipped_back_to_what_it_was() {
    let payment = service("payment-service");
    let mut case = Case::new(
        vec![symptom(&payment, "service_error_rate_percent", 0.5, 28.0)],
        vec![cause(&payment, FaultClass::BadConfig, 0.9)],
    );
    case.images.get_mut(&payment).unwrap().remove("sync_status");
    // No flag was flipped: nothing to flip back, a person looks.
    assert_eq!(case.plan().playbook, "manual_review");
    let mut flip = change(&payment, ChangeType::FeatureFlag, 60);
    flip.attributes.insert("flag".into(), "fast".into());
    case.changes.push(flip);
    let plan = case.plan();
    assert_eq!(plan.playbook, "toggle_flag_back");
    assert_eq!(plan.steps[0].params, crate::image(json!({"flag": "fast", "enabled": false})));
    assert_eq!(plan.steps[0].expects, crate::image(json!({"flag.fast": true})));
    assert!(plan.acts_at_once);
    // A change after the detection is the work of somebody who repairs, or our own.
    case.changes[0].at = crate::before(5);
    assert_eq!(case.plan().playbook, "manual_review");
}
