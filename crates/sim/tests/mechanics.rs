//! What the estate does at rest and under faults.

#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

use nightshift_model::{EntityId, EntityKind, FaultClass};
use nightshift_sim::{Episode, EstateSpec, InjectedFault, Part, Scrape, SimFault, World, exposition, topology_yaml};
use nightshift_topology::{Criticality, TopologyFile};

fn steady() -> EstateSpec {
    let mut spec = EstateSpec::six();
    spec.load.day_share = 0.0;
    spec.load.burst_share = 0.0;
    spec
}

fn series(world: &World, part: Part, name: &str) -> usize {
    let id = world.spec().id(part);
    world.series().iter().position(|d| d.entity.id == id && d.name == name).unwrap()
}

fn named(spec: &EstateSpec, name: &str) -> Part {
    Part::Service(spec.service(name).unwrap())
}

/// Everything of a scrape, as bytes.
fn bytes(scrape: &Scrape, out: &mut Vec<u8>) {
    out.extend(scrape.at.0.to_be_bytes());
    scrape.values.iter().for_each(|v| out.extend(v.to_bits().to_be_bytes()));
    out.extend(scrape.text.as_bytes());
    out.extend(format!("{:?}{:?}{:?}", scrape.logs, scrape.spans, scrape.changes).as_bytes());
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_does_not() {
    let run = |seed: u64| {
        let episode = Episode::of(SimFault::DeploymentFailure, EstateSpec::six(), seed, 60.0).unwrap();
        let (mut world, mut scrape, mut out) = (episode.world(), Scrape::default(), Vec::new());
        while world.now_secs() < 400.0 {
            world.tick();
            world.scrape(&mut scrape);
            bytes(&scrape, &mut out);
        }
        out
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11), run(12));
}

#[test]
fn how_often_it_is_scraped_and_whether_it_talks_changes_nothing_of_what_happens() {
    let episode = Episode::of(SimFault::RetryStorm, EstateSpec::six(), 5, 30.0).unwrap();
    let (mut often, mut seldom) = (episode.world(), episode.world().talking(false).noise(false));
    let mut scrape = Scrape::default();
    while often.now_secs() < 300.0 {
        often.tick();
        often.scrape(&mut scrape);
        seldom.tick();
    }
    for service in 0..often.spec().services.len() {
        assert_eq!(often.totals(service), seldom.totals(service));
    }
}

#[test]
fn at_rest_every_signal_stays_in_the_band_of_its_noise() {
    let spec = steady();
    let mut world = World::new(spec.clone(), 4);
    world.tick();
    let quiet = World::new(spec.clone(), 4).noise(false);
    let mut quiet = quiet;
    quiet.run_until(30.0);
    let rest: Vec<f64> = (0..quiet.series().len()).map(|i| quiet.value(i).unwrap()).collect();
    let mut scrape = Scrape::default();
    let (mut critical, mut lines) = (0, 0);
    while world.now_secs() < 3_600.0 {
        world.tick();
        world.scrape(&mut scrape);
        for (i, (value, rest)) in scrape.values.iter().zip(&rest).enumerate() {
            let def = &world.series()[i];
            // Whole numbers are rounded; certificates run down.
            let slack = if def.name == "service_certificate_days_left" { 0.1 } else { 0.51 };
            let band =
                def.noise * rest.abs() + slack * f64::from(u8::from(rest.fract() == 0.0 || def.floor >= 1.0)) + 1e-6;
            assert!((value - rest).abs() <= band, "{} of {}: {value} at rest {rest}", def.name, def.entity.id);
        }
        lines += scrape.logs.len();
        critical += scrape.logs.iter().filter(|l| l.severity >= 21).count();
        assert!(scrape.changes.is_empty());
    }
    assert_eq!(critical, 0, "nobody dies at rest");
    assert!((3_600..36_000).contains(&lines), "{lines} lines in an hour");
    // The figures of the contract.
    for (name, rate, p99, cpu, memory) in [
        ("api-gateway", 150.0, 120.0, Some(30.0), None),
        ("payment-service", 80.0, 380.0, None, None),
        ("order-service", 60.0, 280.0, None, None),
        ("user-service", 200.0, 150.0, None, None),
        ("inventory-service", 30.0, 220.0, None, None),
        ("notification-service", 40.0, 500.0, None, Some(55.0)),
    ] {
        let at = |signal: &str| rest[series(&quiet, named(&spec, name), signal)];
        assert!((at("service_request_rate") / rate - 1.0).abs() < 0.01, "{name}");
        assert!((at("service_latency_p99_ms") / p99 - 1.0).abs() < 0.01, "{name}");
        assert!((at("service_error_rate_percent") - 0.5).abs() < 0.01, "{name}");
        assert!(cpu.is_none_or(|c: f64| (at("service_cpu_percent") - c).abs() < 0.5), "{name}");
        assert!(memory.is_none_or(|m: f64| (at("service_memory_percent") - m).abs() < 0.5), "{name}");
    }
    assert_eq!(rest[series(&quiet, named(&spec, "payment-service"), "service_db_connections")], 30.0);
    assert_eq!(rest[series(&quiet, named(&spec, "order-service"), "kafka_consumer_lag")], 100.0);
}

#[test]
fn a_day_has_a_wave_and_bursts_and_its_mean_is_the_rest_value() {
    let spec = EstateSpec::six();
    let world = World::new(spec.clone(), 9);
    let load: Vec<f64> = (0..86_400).step_by(5).map(|s| world.load_factor(f64::from(s))).collect();
    let mean = load.iter().sum::<f64>() / load.len() as f64;
    let (low, high) = load.iter().fold((f64::MAX, 0.0_f64), |(l, h), v| (l.min(*v), h.max(*v)));
    assert!((mean - 1.0).abs() < 0.01, "{mean}");
    assert!(low < 0.87 && high > 1.15 && high < 1.2, "{low}..{high}");
    // Four in the morning is six hours before the start's ten o'clock, and eighteen after.
    assert!(world.load_factor(18.0 * 3_600.0) < 0.9 && world.load_factor(6.0 * 3_600.0) > 1.1);
}

/// Height, when it is reached and that it is over when it should be, as the issue states them.
#[test]
fn the_seven_faults_reach_what_is_said_of_them() {
    use SimFault as F;
    let spec = steady();
    for (kind, service, signal, height, secs) in [
        (F::LatencySpike, "payment-service", "service_latency_p99_ms", 7_380.0, 240.0),
        (F::ErrorRateSpike, "order-service", "service_error_rate_percent", 45.0, 180.0),
        (F::CpuSaturation, "api-gateway", "service_cpu_percent", 97.0, 300.0),
        (F::MemoryLeak, "notification-service", "service_memory_percent", 98.0, 360.0),
        (F::DbConnectionExhaustion, "payment-service", "service_db_connections", 100.0, 200.0),
        (F::KafkaConsumerLag, "order-service", "kafka_consumer_lag", 50_000.0, 300.0),
        (F::DeploymentFailure, "user-service", "service_error_rate_percent", 40.0, 240.0),
    ] {
        let fault = InjectedFault::usual(kind, &spec, 50.0).unwrap();
        assert_eq!(fault.part.part(), named(&spec, service), "{kind:?}");
        assert_eq!(fault.end_secs() - fault.start_secs, secs, "{kind:?}");
        let mut world = World::new(spec.clone(), 2).noise(false);
        let mut changes = 0;
        world.inject(fault.clone());
        let at = series(&world, fault.part.part(), signal);
        world.run_until(45.0);
        let rest = world.value(at).unwrap();
        let (mut top, mut jump, mut before) = (rest, 0.0_f64, rest);
        let mut scrape = Scrape::default();
        while world.now_secs() < fault.end_secs() {
            world.tick();
            let now = world.value(at).unwrap();
            top = top.max(now);
            jump = jump.max((now - before).abs());
            before = now;
            world.scrape(&mut scrape);
            changes += scrape.changes.len();
        }
        assert!((top / height - 1.0).abs() < 0.01, "{kind:?}: {top}, not {height}");
        assert!(jump < 0.5 * (height - rest), "{kind:?} is not gradual: {jump} in a second");
        assert_eq!(changes, usize::from(kind == F::DeploymentFailure), "{kind:?}");
        world.run_until(fault.end_secs() + 120.0);
        let after = world.value(at).unwrap();
        assert!((after - rest).abs() <= 0.08 * rest, "{kind:?} stays at {after}, rest {rest}");
    }
}

#[test]
fn every_fault_shows_at_its_cause_and_has_a_class_that_can_be_there() {
    let mut classes = std::collections::BTreeSet::new();
    for kind in SimFault::faults() {
        for seed in [2, 3, 4] {
            let episode = Episode::of(kind, EstateSpec::six(), seed, 120.0).unwrap();
            let truth = episode.truth().remove(0);
            let class = truth.class.unwrap();
            classes.insert(class.slug());
            assert_ne!(truth.onset_by, "never out of its band", "{kind:?} {seed}");
            let delay = truth.onset_secs - truth.injected_secs;
            let most = match kind {
                SimFault::GradualLeak => 5_500.0,
                _ => 12.0,
            };
            assert!((0.0..most).contains(&delay), "{kind:?} {seed}: {delay} s until {}", truth.onset_by);
            assert!(truth.onset_secs >= episode.history_secs && truth.end_secs <= episode.length_secs);
            assert!(truth.affected.contains(&truth.cause));
        }
    }
    assert!(SimFault::faults().count() >= 20 && classes.len() >= 18, "{classes:?}");
    assert_eq!(SimFault::lookalikes().count(), 6);
    for (i, kind) in SimFault::ALL.iter().enumerate() {
        assert!(SimFault::ALL[..i].iter().all(|k| k.name() != kind.name()));
    }
}

#[test]
fn two_faults_at_once_have_nothing_to_do_with_each_other() {
    for seed in 0..20 {
        let episode = Episode::pair(EstateSpec::six(), seed, 60.0).unwrap();
        let truth = episode.truth();
        assert_eq!(truth.len(), 2);
        assert_ne!(truth[0].cause, truth[1].cause);
        assert!((truth[0].injected_secs - truth[1].injected_secs).abs() <= 20.0);
        let services =
            |i: usize| truth[i].affected.iter().filter(|e| e.kind() == EntityKind::Service).collect::<Vec<_>>();
        assert!(services(0).iter().all(|e| !services(1).contains(e)), "{seed}: {:?}", truth);
    }
}

/// A look-alike is seen in telemetry, or it would test nothing, and it does no harm, or it would be a fault.
#[test]
fn lookalikes_are_visible_and_harmless() {
    let spec = steady();
    for kind in SimFault::lookalikes() {
        let fault = InjectedFault::usual(kind, &spec, 50.0).unwrap();
        let mut world = World::new(spec.clone(), 2).noise(false);
        let (mut quiet, mut scrape, mut still) =
            (World::new(spec.clone(), 2).noise(false), Scrape::default(), Scrape::default());
        world.inject(fault.clone());
        let (mut differs, mut changes) = (false, 0);
        while world.now_secs() < fault.end_secs() + 30.0 {
            world.tick();
            quiet.tick();
            world.scrape(&mut scrape);
            quiet.scrape(&mut still);
            changes += scrape.changes.len();
            differs |= scrape.at != still.at;
            for (i, (a, b)) in scrape.values.iter().zip(&still.values).enumerate() {
                let def = &world.series()[i];
                differs |= a.is_nan() || (a - b).abs() > (0.08 * b).max(def.floor);
                match def.name {
                    "service_error_rate_percent" => assert!(a.is_nan() || *a < 1.0, "{kind:?} {a}"),
                    "service_latency_p99_ms" => assert!(a.is_nan() || *a < 1.5 * b, "{kind:?} {a} of {b}"),
                    "service_cpu_percent" => assert!(a.is_nan() || *a < 75.0, "{kind:?} {a}"),
                    _ => {}
                }
            }
            assert!(scrape.logs.iter().all(|l| l.severity < 21));
        }
        assert!(differs, "{kind:?} cannot be seen");
        let announced = !matches!(kind, SimFault::ClockStep | SimFault::MissingScrape);
        assert_eq!(changes > 0, announced, "{kind:?}");
    }
}

#[test]
fn no_request_is_lost_or_made_up() {
    for kind in SimFault::ALL {
        let spec = EstateSpec::six();
        let mut world = World::new(spec.clone(), 6).talking(false);
        world.inject(InjectedFault::usual(*kind, &spec, 30.0).unwrap());
        world.run_until(500.0);
        for service in 0..spec.services.len() {
            let (t, waiting) = world.totals(service).unwrap();
            let out = t.served + t.failed + t.throttled + waiting;
            assert!((t.arrived - out).abs() < 1e-6 * t.arrived, "{kind:?} {service}: {} in, {out} out", t.arrived);
        }
    }
}

#[test]
fn the_topology_file_is_read_without_a_problem_and_says_who_answers() {
    for spec in [EstateSpec::six(), EstateSpec::generated(1, 3), EstateSpec::generated(60, 3)] {
        let text = topology_yaml(&spec);
        let file = TopologyFile::parse(&text, "other").unwrap_or_else(|p| panic!("{p:?}\n{text}"));
        assert_eq!(file.services.len(), spec.parts().len());
    }
    let spec = EstateSpec::six();
    let file = TopologyFile::parse(&topology_yaml(&spec), "other").unwrap();
    let of = |name: &str| file.services.iter().find(|s| s.id.name() == name).unwrap();
    for (name, owner, rank, sla) in [
        ("api-gateway", "platform", Criticality::P0, "99.99 %"),
        ("payment-service", "payments", Criticality::P0, "99.95 %"),
        ("order-service", "commerce", Criticality::P1, "99.9 %"),
        ("user-service", "identity", Criticality::P0, "99.95 %"),
        ("inventory-service", "commerce", Criticality::P1, "99.9 %"),
        ("notification-service", "notification", Criticality::P2, "99.5 %"),
    ] {
        let s = of(name);
        assert_eq!((s.owner.as_str(), s.criticality, s.sla.as_str()), (owner, Some(rank), sla));
        assert_eq!(s.on_call, format!("{owner}-oncall"));
        assert_eq!(s.slos.len(), 1);
    }
    let calls = |name: &str| -> Vec<String> {
        of(name).depends_on.iter().filter(|d| d.to.kind() == EntityKind::Service).map(|d| d.to.name()).collect()
    };
    assert_eq!(calls("api-gateway"), ["order-service", "payment-service", "user-service"]);
    assert_eq!(calls("order-service"), ["inventory-service", "payment-service"]);
}

#[test]
fn the_exposition_has_the_names_of_the_contract() {
    let spec = EstateSpec::six();
    let mut world = World::new(spec.clone(), 1);
    world.inject(InjectedFault::usual(SimFault::LatencySpike, &spec, 2.0).unwrap());
    world.run_until(5.0);
    let text = exposition(&world);
    for name in [
        "service_request_rate{service=\"api-gateway\"}",
        "service_error_rate_percent{",
        "service_latency_p99_ms{",
        "service_cpu_percent{",
        "service_memory_percent{",
        "service_db_connections{service=\"payment-service\"}",
        "kafka_consumer_lag{service=\"order-service\"}",
        "failure_injections_total{type=\"latency_spike\"} 1\n",
    ] {
        assert!(text.contains(name), "{name}\n{text}");
    }
    assert_eq!(text.matches("service_db_connections{").count(), 1);
    assert_eq!(text.matches("# TYPE service_cpu_percent gauge").count(), 1);
}

#[test]
fn generated_estates_are_what_was_asked_for_and_can_have_every_fault() {
    for n in [1, 2, 6, 50, 500] {
        let spec = EstateSpec::generated(n, 7);
        assert_eq!(spec.services.len(), n);
        assert_eq!(spec, EstateSpec::generated(n, 7));
        let mut world = World::new(spec.clone(), 1).noise(false).talking(false);
        world.run_until(20.0);
        for (i, def) in world.series().iter().enumerate() {
            let value = world.value(i).unwrap();
            assert!(def.name != "service_error_rate_percent" || value < 1.0, "{n}: {} {value}", def.entity.id);
            assert!(def.name != "service_cpu_percent" || value < 60.0, "{n}: {} {value}", def.entity.id);
        }
    }
    assert_ne!(EstateSpec::generated(50, 7), EstateSpec::generated(50, 8));
    let spec = EstateSpec::generated(50, 7);
    for kind in SimFault::ALL {
        let episode = Episode::of(*kind, spec.clone(), 3, 60.0).unwrap_or_else(|| panic!("{kind:?}"));
        assert_ne!(episode.truth()[0].onset_by, "never out of its band", "{kind:?}");
    }
}

#[test]
fn ids_are_those_of_the_topology_and_of_a_fault_class_that_fits() {
    let spec = EstateSpec::six();
    assert_eq!(spec.id(Part::Service(1)), EntityId::new("sim", "service", "shop", "payment-service"));
    for kind in SimFault::faults() {
        let class = kind.class().unwrap();
        assert_ne!(class, FaultClass::Unknown);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(24))]

    #[test]
    fn nothing_is_ever_negative_or_no_number(
        seed in 0u64..1_000,
        kinds in proptest::collection::vec(0usize..SimFault::ALL.len(), 1..4),
        size in 0.0f64..30.0,
        load in 0.0f64..20.0,
        dt in 0.1f64..10.0,
    ) {
        let mut spec = EstateSpec::six();
        spec.load.factor = load;
        spec.dt_secs = dt;
        let mut world = World::new(spec.clone(), seed);
        for k in kinds {
            let mut fault = InjectedFault::usual(SimFault::ALL[k], &spec, 10.0).unwrap();
            if SimFault::ALL[k] != SimFault::Autoscaling {
                fault.magnitude *= size;
            }
            world.inject(fault);
        }
        let mut scrape = Scrape::default();
        for _ in 0..200 {
            world.tick();
            world.scrape(&mut scrape);
            for (value, def) in scrape.values.iter().zip(world.series()) {
                // A failed scrape and a pod that is away have no value; a certificate may have ended.
                let absent = value.is_nan() && (def.name == "service_replica_error_percent" || world.faults().iter().any(|f| f.kind == SimFault::MissingScrape));
                let ended = def.name == "service_certificate_days_left";
                proptest::prop_assert!(absent || value.is_finite() && (ended || *value >= 0.0), "{} of {}: {value}", def.name, def.entity.id);
            }
        }
    }
}
