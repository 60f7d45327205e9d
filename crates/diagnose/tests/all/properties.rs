//! What holds for any input.

use crate::{World, change, closed, ill, service, t, update};
use nightshift_diagnose::{DiagnoseConfig, Input, PersonAction, PersonVerb, Priors, RankConfig, rank};
use nightshift_model::{Anomaly, AnomalyKind, ChangeType, Direction, FaultClass, Hypothesis, IncidentStatus};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const EDGES: &[&str] = &["a>b", "b>c", "d>c", "e>f", "f>a", "g>h"];
const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
const FAULTS: [FaultClass; 5] = [
    FaultClass::LatencySpike,
    FaultClass::ErrorRateSpike,
    FaultClass::CpuSaturation,
    FaultClass::TrafficSurge,
    FaultClass::Unknown,
];
const SIGNALS: [&str; 4] = ["service_latency_p99_ms", "service_error_rate_percent", "service_request_rate", "x"];

fn anomaly(span: i64, score: std::ops::Range<f64>) -> impl Strategy<Value = Anomaly> {
    (0..NAMES.len(), 0..SIGNALS.len(), 0..FAULTS.len(), score, 0..span, 0..4u8).prop_map(
        |(name, signal, fault, score, at, kind)| {
            let mut a = ill(&service(NAMES[name]), SIGNALS[signal], FAULTS[fault], score, at);
            a.kind =
                [AnomalyKind::Statistical, AnomalyKind::Log, AnomalyKind::Rule, AnomalyKind::Alert][usize::from(kind)];
            a.direction = if at % 2 == 0 { Direction::Up } else { Direction::Down };
            a
        },
    )
}

/// Which symptoms ended up together.
fn memberships(world: &World) -> BTreeSet<BTreeSet<String>> {
    world.list().iter().map(|i| i.anomalies.iter().map(|a| a.id.to_string()).collect()).collect()
}

fn check_ranking(list: &[Hypothesis]) -> Result<(), TestCaseError> {
    prop_assert!(list.iter().any(|h| h.entity.is_none() && h.fault == FaultClass::Unknown));
    prop_assert!((list.iter().map(|h| h.confidence).sum::<f64>() - 1.0).abs() < 1e-9);
    prop_assert!(list.windows(2).all(|w| w[0].score >= w[1].score && w[0].confidence >= w[1].confidence));
    for h in list {
        prop_assert_eq!(h.contributions.iter().map(|c| c.log_odds).sum::<f64>(), h.score);
        prop_assert!((0.0..=1.0).contains(&h.confidence));
        let known: BTreeSet<&String> = h.evidence.iter().map(|e| &e.id).collect();
        for c in &h.contributions {
            prop_assert_eq!(c.factor == "prior", c.evidence.is_empty(), "{:?}", c);
            prop_assert!(c.evidence.iter().all(|id| known.contains(id)), "{:?}", c);
        }
    }
    Ok(())
}

#[derive(Debug, Clone)]
enum Move {
    Open(Box<Anomaly>),
    Update(prop::sample::Index, i64),
    Close(prop::sample::Index, i64),
    Repeat(prop::sample::Index),
    Change(usize, i64),
    Tick(i64),
    Resolve(prop::sample::Index),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let any = any::<prop::sample::Index>;
    let one = prop_oneof![
        4 => anomaly(900, 0.1..1.0).prop_map(|a| Move::Open(Box::new(a))),
        2 => (any(), 0..1_500i64).prop_map(|(i, at)| Move::Update(i, at)),
        4 => (any(), 0..1_500i64).prop_map(|(i, at)| Move::Close(i, at)),
        1 => any().prop_map(Move::Repeat),
        1 => (0..NAMES.len(), 0..900i64).prop_map(|(n, at)| Move::Change(n, at)),
        2 => (0..9_000i64).prop_map(Move::Tick),
        1 => any().prop_map(Move::Resolve),
    ];
    prop::collection::vec(one, 1..50)
}

/// Plays the moves; where `cuts` says so, the engine is stopped and another one restored.
fn play(moves: &[Move], cuts: impl Fn(usize) -> bool) -> World {
    let mut world = World::new(EDGES);
    let mut told: Vec<Anomaly> = Vec::new();
    for (i, m) in moves.iter().enumerate() {
        if cuts(i) {
            world.restart();
        }
        match m {
            Move::Open(a) => {
                told.push((**a).clone());
                world.give((**a).clone());
            }
            Move::Tick(at) => drop(world.tick(*at)),
            Move::Change(n, at) => drop(world.give(change(NAMES[*n], ChangeType::Deployment, *at))),
            Move::Resolve(i) => {
                let ids: Vec<_> = world.list().iter().map(|i| i.id).collect();
                if !ids.is_empty() {
                    let action = PersonAction {
                        incident: *i.get(&ids),
                        actor: "ann".into(),
                        verb: PersonVerb::Resolve { why: String::new() },
                    };
                    world.give(Input::Person(action));
                }
            }
            Move::Update(i, at) | Move::Close(i, at) if !told.is_empty() => {
                let a = i.get(&told);
                let at = (*at).max((a.onset.0 - t(0).0) / 1_000_000_000);
                let record = if matches!(m, Move::Close(..)) { closed(a, at) } else { update(a, at) };
                told.push(record.clone());
                world.give(record);
            }
            Move::Repeat(i) if !told.is_empty() => drop(world.give(i.get(&told).clone())),
            _ => {}
        }
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Symptoms that begin within the window may arrive in any order: the same ones end up together.
    #[test]
    fn the_order_of_arrival_does_not_decide(
        (list, shuffled) in prop::collection::vec(anomaly(100, 0.5..1.0), 1..24)
            .prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle()))
    ) {
        let run = |list: &[Anomaly]| {
            let mut world = World::new(EDGES);
            for a in list {
                world.give(a.clone());
            }
            world
        };
        let by_id = |list: &[Anomaly]| list.iter().map(|a| (a.id, a.clone())).collect::<BTreeMap<_, _>>();
        // The same occurrence twice with two contents is not a matter of order.
        let unique = by_id(&list);
        // Nor is which occurrence of a flapping series is one too many.
        let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
        let straight: Vec<Anomaly> = list
            .iter()
            .filter(|a| unique[&a.id] == **a)
            .filter(|a| { let n = seen.entry(a.fingerprint).or_default(); *n += 1; *n <= 3 })
            .cloned()
            .collect();
        let mixed: Vec<Anomaly> = shuffled.iter().filter(|a| straight.contains(a)).cloned().collect();
        prop_assert_eq!(memberships(&run(&straight)), memberships(&run(&mixed)));
    }

    /// A batch and its parts lead to the same incidents.
    #[test]
    fn batches_do_not_decide_either(list in prop::collection::vec(anomaly(100, 0.5..1.0), 1..24)) {
        let mut one = World::new(EDGES);
        let mut all = World::new(EDGES);
        for a in &list {
            one.give(a.clone());
        }
        all.tick(200);
        all.give_all(list.into_iter().map(Input::from).collect());
        prop_assert_eq!(memberships(&one), memberships(&all));
    }

    /// Stopped anywhere and restored from the store, the engine writes the rows it would have written.
    #[test]
    fn a_restart_changes_nothing(moves in moves(), cuts in prop::collection::vec(any::<bool>(), 50)) {
        let whole = play(&moves, |_| false);
        let cut = play(&moves, |i| cuts[i]);
        for (i, (a, b)) in whole.rows.iter().zip(&cut.rows).enumerate() {
            prop_assert_eq!(a, b, "row {}", i);
        }
        prop_assert_eq!(whole.rows.len(), cut.rows.len());
    }

    /// Whatever comes, the books are right: counts, ids, states, rankings.
    #[test]
    fn the_books_are_right(moves in moves()) {
        let world = play(&moves, |_| false);
        for inc in world.incidents.values() {
            let open = inc.anomalies.iter().filter(|a| a.phase != nightshift_model::Phase::Closed).count() as u64;
            prop_assert_eq!(inc.anomalies_open, open);
            prop_assert_eq!(inc.anomalies_total, inc.anomalies.len() as u64);
            prop_assert!(inc.anomalies.iter().any(|a| a.score >= 0.5));
            prop_assert!(inc.onset <= inc.detected_at);
            prop_assert_eq!(inc.resolved_at.is_some(), inc.status == IncidentStatus::Resolved);
            check_ranking(&inc.hypotheses)?;
        }
        // One symptom is of one open incident.
        let mut seen = BTreeSet::new();
        for a in world.list().iter().filter(|i| i.status.is_open()).flat_map(|i| &i.anomalies) {
            prop_assert!(seen.insert(a.id));
        }
        // Nothing of it outlives its time.
        let mut engine = world.engine;
        engine.step(Input::Tick, &world.topology, t(10_000));
        engine.step(Input::Tick, &world.topology, t(100_000));
        prop_assert!(engine.incidents().all(|i| !i.status.is_open() || i.anomalies.iter().any(|a| a.kind == AnomalyKind::Alert)));
    }

    /// The ranking alone: any symptoms, any changes, in any order.
    #[test]
    fn contributions_add_up_and_cite_what_exists(
        list in prop::collection::vec(anomaly(3_000, 0.0..1.0), 0..40),
        changes in prop::collection::vec((0..NAMES.len(), -4_000..3_000i64, 0..6u8), 0..8),
    ) {
        let topology = crate::topology(EDGES);
        let kinds = [ChangeType::Deployment, ChangeType::Config, ChangeType::Scaling, ChangeType::FeatureFlag, ChangeType::Migration, ChangeType::Event];
        let changes: Vec<_> = changes.into_iter().map(|(n, at, k)| change(NAMES[n], kinds[usize::from(k)], at)).collect();
        let symptoms: Vec<_> = list.iter().map(|a| rank::Symptom::from_anomaly(a, &topology)).collect();
        let config = RankConfig::default();
        let ranked = rank::rank(&config, &Priors::default(), &symptoms, &changes.iter().collect::<Vec<_>>(), &topology);
        check_ranking(&ranked)?;
        let mut backwards = symptoms;
        backwards.reverse();
        let again = rank::rank(&config, &Priors::default(), &backwards, &changes.iter().rev().collect::<Vec<_>>(), &topology);
        let key = |list: &[Hypothesis]| list.iter().map(|h| (h.entity.clone(), h.fault, h.score.to_bits())).collect::<Vec<_>>();
        prop_assert_eq!(key(&ranked), key(&again));
    }

    /// Settings at the ends of their ranges break nothing.
    #[test]
    fn odd_settings_do_no_harm(moves in moves(), zero in any::<bool>()) {
        let mut config = DiagnoseConfig { hops_max: 1, window_secs: 1, far_window_secs: 1, ..DiagnoseConfig::default() };
        if zero {
            (config.hold_secs, config.reopen_secs, config.waiting_max, config.changes_max) = (0, 0, 0, 1);
        }
        let mut world = World::with(crate::topology(EDGES), config);
        for m in &moves {
            match m {
                Move::Open(a) => drop(world.give((**a).clone())),
                Move::Tick(at) => drop(world.tick(*at)),
                _ => {}
            }
        }
    }
}
