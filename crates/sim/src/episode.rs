//! Episodes for graders: an estate of its own, what happens to it, and the truth about it.
//!
//! The truth is for whoever grades. Nothing that detects, diagnoses, plans or tries may see it.

use crate::chance::Draw;
use crate::fault::{InjectedFault, SimFault, TargetPart};
use crate::spec::{EstateSpec, Part};
use crate::world::World;
use nightshift_model::{EntityId, FaultClass};
use std::collections::BTreeSet;

/// One estate and what happens to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Episode {
    /// Of load, noise and choices.
    pub seed: u64,
    /// The estate.
    pub spec: EstateSpec,
    /// Seconds before anything happens: what detectors may learn from.
    pub history_secs: f64,
    /// Seconds in all, history included.
    pub length_secs: f64,
    /// What happens. Inject it at once: [`Episode::world`] does.
    pub faults: Vec<InjectedFault>,
}

/// What is true about one fault (or look-alike) of an episode.
#[derive(Debug, Clone, PartialEq)]
pub struct Truth {
    /// What.
    pub kind: SimFault,
    /// Its class; `None` for a look-alike.
    pub class: Option<FaultClass>,
    /// Where it began.
    pub cause: EntityId,
    /// When it was injected, simulated seconds.
    pub injected_secs: f64,
    /// First sample at which a signal without noise is out of its band (what the noise of that signal can do to the
    /// value of the same second in an estate without the fault), or at which the rule of the fault holds.
    pub onset_secs: f64,
    /// When it is over by itself.
    pub end_secs: f64,
    /// The signal, or the rule, by which the onset was told.
    pub onset_by: String,
    /// Entities of which at least one signal leaves its band before the end, the cause among them.
    pub affected: BTreeSet<EntityId>,
}

impl Episode {
    /// One fault or look-alike, somewhere that can have it, with times and size that differ by seed.
    /// `None` when the estate has no place for it.
    pub fn of(kind: SimFault, spec: EstateSpec, seed: u64, history_secs: f64) -> Option<Self> {
        let mut draw = Draw::new(seed ^ 0x0065_7069_736f_6465 ^ ((kind as u64 + 1) << 40));
        let start = (history_secs + draw.range(30.0, 150.0)).round();
        let fault = vary(kind, &spec, start, &mut draw)?;
        let length_secs = fault.end_secs().max(start) + 240.0;
        Some(Self { seed, spec, history_secs, length_secs, faults: vec![fault] })
    }

    /// Two faults at once that have nothing to do with each other: nobody calls both, and neither calls the other.
    /// `None` when the estate has no such two services.
    pub fn pair(spec: EstateSpec, seed: u64, history_secs: f64) -> Option<Self> {
        const KINDS: [SimFault; 9] = [
            SimFault::LatencySpike,
            SimFault::ErrorRateSpike,
            SimFault::CpuSaturation,
            SimFault::MemoryLeak,
            SimFault::KafkaConsumerLag,
            SimFault::DeploymentFailure,
            SimFault::BadFlag,
            SimFault::CertificateExpiry,
            SimFault::PartialReplicaFailure,
        ];
        let mut draw = Draw::new(seed ^ 0x7061_6972);
        let reach: Vec<BTreeSet<usize>> = (0..spec.services.len()).map(|i| related(&spec, i)).collect();
        for _ in 0..1_000 {
            let (a, b) = (draw.below(reach.len()), draw.below(reach.len()));
            let (one, other) = (KINDS[draw.below(KINDS.len())], KINDS[draw.below(KINDS.len())]);
            if a == b || one == other || !reach[a].is_disjoint(&reach[b]) {
                continue;
            }
            let start = (history_secs + draw.range(30.0, 150.0)).round();
            let first = InjectedFault::at(one, &spec, Part::Service(a), start);
            let second = InjectedFault::at(other, &spec, Part::Service(b), start + draw.range(0.0, 20.0).round());
            if let (Some(first), Some(second)) = (first, second) {
                let length_secs = first.end_secs().max(second.end_secs()) + 240.0;
                return Some(Self { seed, spec, history_secs, length_secs, faults: vec![first, second] });
            }
        }
        None
    }

    /// The estate with its faults, at the beginning of the history.
    pub fn world(&self) -> World {
        let mut world = World::new(self.spec.clone(), self.seed);
        self.faults.iter().for_each(|f| world.inject(f.clone()));
        world
    }

    /// The truth about each of [`Episode::faults`], found by running an estate with it beside one without, both
    /// without noise.
    pub fn truth(&self) -> Vec<Truth> {
        self.faults.iter().map(|f| self.truth_of(f)).collect()
    }

    fn truth_of(&self, fault: &InjectedFault) -> Truth {
        // A leak of hours began before: its height is what is noticed. It grows with the load, so only a copy that
        // begins where the episode does is as full at the same second.
        let slow = fault.kind == SimFault::GradualLeak;
        let from = if slow { 0.0 } else { fault.start_secs - 20.0 };
        let dt = self.spec.dt_secs;
        let from = ((from / dt).floor() * dt).max(0.0);
        let twin = || World::starting(self.spec.clone(), self.seed, from).noise(false).talking(false);
        let (mut with, mut without) = (twin(), twin());
        with.inject(fault.clone());
        let series = std::sync::Arc::clone(&with.series);
        let cause = self.spec.id(fault.part.part());
        let mut affected = BTreeSet::from([cause.clone()]);
        let mut onset: Option<(f64, String)> = match fault.kind {
            // These are rules: they hold from the moment at which they begin.
            SimFault::ClockStep | SimFault::MissingScrape => Some((fault.start_secs, "telemetry".into())),
            SimFault::CertificateExpiry => Some((fault.start_secs, "certificate expired".into())),
            _ => None,
        };
        while with.now_secs() < fault.end_secs() {
            with.tick();
            without.tick();
            let now = with.now_secs();
            if now < fault.start_secs {
                continue;
            }
            if slow && onset.is_none() {
                // Until collections thrash it is a figure that grows within what the limit allows.
                let thrashes = |i: usize| with.services[i].replicas.iter().any(|r| r.thrash > 0.0);
                if !fault.service().is_some_and(thrashes) {
                    continue;
                }
                onset = Some((now, "collections thrash".to_owned()));
            }
            for def in series.iter() {
                if affected.contains(&def.entity.id) && onset.is_some() {
                    continue;
                }
                let (a, b) = (with.exact(def, now), without.exact(def, now));
                if (a - b).abs() > (def.noise * b.abs()).max(def.floor) || a.is_nan() != b.is_nan() {
                    affected.insert(def.entity.id.clone());
                    onset.get_or_insert_with(|| (now, format!("{} of {}", def.name, def.entity.id.name())));
                }
            }
        }
        let (onset_secs, onset_by) = onset.unwrap_or((fault.start_secs, "never out of its band".into()));
        Truth {
            kind: fault.kind,
            class: fault.kind.class(),
            cause,
            injected_secs: fault.start_secs,
            onset_secs,
            end_secs: fault.end_secs(),
            onset_by,
            affected,
        }
    }
}

impl InjectedFault {
    /// The service it hits, when it hits one.
    pub const fn service(&self) -> Option<usize> {
        match self.part {
            TargetPart::Service(i) => Some(i),
            _ => None,
        }
    }
}

/// Usual faults at usual places half of the time, elsewhere otherwise; sizes 10 % and times 20 % around the usual.
fn vary(kind: SimFault, spec: &EstateSpec, start: f64, draw: &mut Draw) -> Option<InjectedFault> {
    let targets = kind.targets(spec);
    let usual = InjectedFault::usual(kind, spec, start)?;
    let mut fault = if draw.unit() < 0.5 {
        usual
    } else {
        InjectedFault::at(kind, spec, *targets.get(draw.below(targets.len()))?, start)?
    };
    let around = |draw: &mut Draw, share: f64| 1.0 + share * (2.0 * draw.unit() - 1.0);
    if kind != SimFault::GradualLeak {
        fault.ramp_secs *= around(draw, 0.2);
        fault.hold_secs *= around(draw, 0.2);
        fault.recovery_secs *= around(draw, 0.2);
    }
    let m = fault.magnitude;
    fault.magnitude = match kind {
        // A height that is a limit stays one.
        SimFault::DbConnectionExhaustion | SimFault::GradualLeak | SimFault::OomKill | SimFault::Autoscaling => m,
        SimFault::CpuSaturation | SimFault::MemoryLeak => m * around(draw, 0.015),
        SimFault::ClockStep => m * if draw.unit() < 0.5 { -1.0 } else { 1.0 },
        SimFault::NoisyNeighbour | SimFault::CertificateExpiry | SimFault::CacheStampede => m * around(draw, 0.05),
        SimFault::PartialReplicaFailure => (m * around(draw, 0.1)).min(1.0),
        _ => m * around(draw, 0.1),
    };
    Some(fault)
}

/// A service, all that it calls and all that call it, directly or not.
fn related(spec: &EstateSpec, start: usize) -> BTreeSet<usize> {
    let mut out = BTreeSet::from([start]);
    for down in [true, false] {
        let mut open = vec![start];
        let mut seen = BTreeSet::from([start]);
        while let Some(at) = open.pop() {
            for (i, s) in spec.services.iter().enumerate() {
                let hit = if down {
                    spec.services[at].calls.iter().any(|c| c.to == i)
                } else {
                    s.calls.iter().any(|c| c.to == at)
                };
                if hit && seen.insert(i) {
                    open.push(i);
                }
            }
        }
        out.extend(seen);
    }
    out
}
