//! Trials: a cause is assumed in the copy, as strong as the symptoms say, and minutes are played with and without the
//! plan.

use super::fit::{Fitted, Sources};
use super::observe::{Meaning, Slot, meaning};
use crate::actions::{ApplyError, Observed, SimAction};
use crate::fault::{InjectedFault, SimFault};
use crate::spec::{EstateSpec, Part};
use crate::world::World;
use nightshift_model::{ActionType, EntityId, FaultClass, Hypothesis, Plan};

/// Simulated second at which the assumed fault begins.
const BEGINS: f64 = 1_000.0;
/// Shortest and longest time that the fault is given to become what it is now, seconds.
const GROWS: (f64, f64) = (6.0, 45.0);
/// Longest time that a step is waited for, and that its effect is looked at, seconds.
const STEP_SECS: f64 = 60.0;
const LOOK_SECS: f64 = 75.0;
/// Seconds before the plan in which the KPI must have been bad once: pods that crash come and go.
const LAST_SECS: f64 = 4.0;
/// A fit that is off by more than this (of the natural logarithm) is tried at other strengths.
const OFF: f64 = 0.35;
/// Other strengths that are tried, in units of the first guess.
const STRENGTHS: [f64; 3] = [0.7, 1.4, 2.0];
/// How much worse a part must be with the plan than without for a harm: points of errors, factor of latency.
const WORSE: (f64, f64) = (2.0, 1.5);

/// What one trial showed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    /// Seconds from the first step until the KPI was good for as many readings as the plan wants.
    pub(crate) recovered: Option<f64>,
    /// It still was at the end.
    pub(crate) lasts: bool,
    /// The KPI at the end, in the unit of its signal.
    pub(crate) with: f64,
    pub(crate) without: f64,
    pub(crate) harms: Vec<String>,
    /// How far the copy was from what was seen, mean of the absolute logarithm.
    pub(crate) off: f64,
}

/// The fault of the model that a class stands for; `None` when the model has none.
fn fault_of(class: FaultClass, part: Part) -> Option<SimFault> {
    use FaultClass as C;
    Some(match (class, part) {
        (C::LatencySpike, Part::Service(_)) => SimFault::LatencySpike,
        (C::ErrorRateSpike, Part::Service(_)) => SimFault::ErrorRateSpike,
        (C::CpuSaturation, Part::Service(_)) => SimFault::CpuSaturation,
        (C::MemoryLeak | C::MemorySaturation, Part::Service(_)) => SimFault::MemoryLeak,
        (C::DbConnectionExhaustion, Part::Service(_)) => SimFault::DbConnectionExhaustion,
        (C::KafkaConsumerLag, Part::Service(_)) => SimFault::KafkaConsumerLag,
        (C::DeploymentFailure, Part::Service(_)) => SimFault::DeploymentFailure,
        (C::BadConfig, Part::Service(_)) => SimFault::BadFlag,
        (C::RetryStorm, Part::Service(_)) => SimFault::RetryStorm,
        (C::NoisyNeighbour, Part::Node(_)) => SimFault::NoisyNeighbour,
        (C::NodeNotReady, Part::Node(_)) => SimFault::NodeNotReady,
        (C::DiskFull, Part::Database(_)) => SimFault::DiskFilling,
        (C::LockContention, Part::Database(_)) => SimFault::LockContention,
        (C::DependencyOutage, Part::Database(_)) => SimFault::DatabasePrimaryLost,
        (C::CertificateExpiry, Part::Service(_)) => SimFault::CertificateExpiry,
        (C::DnsFailure, Part::Resolver) => SimFault::DnsFailure,
        (C::CacheStampede, Part::Service(_)) => SimFault::CacheStampede,
        (C::TrafficSurge, Part::Service(_)) => SimFault::TrafficSurge,
        (C::CascadeFailure, Part::Service(_)) => SimFault::CascadingTimeout,
        (C::PartialReplicaFailure, Part::Service(_)) => SimFault::PartialReplicaFailure,
        (C::MisroutedTraffic, Part::Service(_)) => SimFault::MisroutedTraffic,
        (C::CrashLoop, Part::Service(_)) => SimFault::CrashLoop,
        (C::OomKill, Part::Service(_)) => SimFault::OomKill,
        _ => return None,
    })
}

/// Seconds that the fault has had so far.
pub(crate) fn grown(s: Sources<'_>, now: nightshift_model::Timestamp) -> f64 {
    now.since(s.incident.onset).as_secs_f64().clamp(GROWS.0, GROWS.1)
}

/// The fault of a hypothesis, as strong as what it shows says.
fn assume(h: &Hypothesis, f: &Fitted, s: Sources<'_>, grown: f64) -> Option<(EstateSpec, InjectedFault)> {
    let id = s.topology.resolve(h.entity.as_ref()?);
    let part = f.part(id)?;
    let kind = fault_of(h.fault, part)?;
    let mut spec = f.spec.clone();
    if let Part::Service(i) = part {
        match kind {
            // The fault brings the version that runs now; the one before is where it begins.
            SimFault::DeploymentFailure | SimFault::CrashLoop => {
                let service = &mut spec.services[i];
                service.version = std::mem::replace(&mut service.previous_version, "the one before that".into());
            }
            // What came with the new limit was there before, in a larger one.
            SimFault::OomKill => spec.services[i].memory_limit_mb /= 0.45,
            // It must have an outside for the surge to come from.
            SimFault::TrafficSurge => spec.services[i].external_rps = spec.services[i].rest_rps.max(0.1),
            _ => {}
        }
    }
    let mut fault = fault_at(kind, &spec, part)?;
    let rest = |slot| s.rest(id, slot);
    let now = |slot| s.now(id, slot);
    let errors = || (now(Slot::Errors).unwrap_or(0.0) / 100.0).clamp(0.02, 0.98);
    fault.ramp_secs = fault.ramp_secs.min(0.7 * grown).max(0.5);
    // It does not end by itself within the trial.
    fault.hold_secs = 100_000.0;
    match kind {
        SimFault::LatencySpike | SimFault::CascadingTimeout | SimFault::LockContention => {
            fault.magnitude = now(Slot::Latency).unwrap_or(fault.magnitude).max(1.0);
        }
        SimFault::ErrorRateSpike | SimFault::DeploymentFailure | SimFault::BadFlag | SimFault::CertificateExpiry => {
            fault.magnitude = errors();
        }
        SimFault::DnsFailure => fault.magnitude = errors(),
        SimFault::PartialReplicaFailure => {
            let replicas = if let Part::Service(i) = part { f64::from(spec.services[i].replicas) } else { 1.0 };
            fault.magnitude = (errors() * replicas).min(0.95);
        }
        SimFault::CpuSaturation => fault.magnitude = now(Slot::Cpu).unwrap_or(fault.magnitude),
        SimFault::TrafficSurge => {
            fault.magnitude = (now(Slot::Rate)? / rest(Slot::Rate)?.max(1e-9)).max(1.05);
        }
        SimFault::MemoryLeak => {
            let (from, to) = (rest(Slot::Memory)?, now(Slot::Memory)?);
            let share = ((to - from) / (98.0 - from).max(1.0)).clamp(0.02, 0.98);
            fault.magnitude = 98.0;
            fault.ramp_secs = -grown / (1.0 - share).ln();
        }
        SimFault::DbConnectionExhaustion => {
            fault.magnitude = now(Slot::Connections)?.max(rest(Slot::Connections)? + 1.0);
            fault.ramp_secs = grown;
        }
        SimFault::KafkaConsumerLag => {
            let slope = ((now(Slot::Lag)? - rest(Slot::Lag)?) / grown).max(1.0);
            fault.magnitude = slope * (fault.ramp_secs + fault.hold_secs) / 3.0;
        }
        SimFault::DiskFilling => {
            fault.magnitude = (60.0 * (now(Slot::Disk)? - rest(Slot::Disk)?) / grown).max(0.5);
        }
        SimFault::NoisyNeighbour => fault.magnitude = (now(Slot::Steal)? / 100.0).clamp(0.05, 0.9),
        SimFault::CacheStampede => {
            fault.magnitude = (1.0 - now(Slot::CacheHits)? / rest(Slot::CacheHits)?.max(1e-9)).clamp(0.05, 0.98);
        }
        _ => {}
    }
    Some((spec, fault))
}

/// [`InjectedFault::at`] where the copy has what the fault needs.
fn fault_at(kind: SimFault, spec: &EstateSpec, part: Part) -> Option<InjectedFault> {
    InjectedFault::at(kind, spec, part, BEGINS)
}

/// The copy with its fault, some seconds before the moment in which the plan would begin.
fn play(spec: &EstateSpec, fault: &InjectedFault, grown: f64) -> World {
    let mut world = World::starting(spec.clone(), 0, BEGINS - 2.0).noise(false).talking(false);
    world.inject(fault.clone());
    world.run_until(BEGINS + grown - LAST_SECS);
    world
}

/// Name of a quantity in the model.
fn series_name(part: Part, slot: Slot) -> Option<&'static str> {
    Some(match (part, slot) {
        (Part::Service(_), Slot::Rate) => "service_request_rate",
        (Part::Service(_), Slot::Errors) => "service_error_rate_percent",
        (Part::Service(_), Slot::Latency) => "service_latency_p99_ms",
        (Part::Service(_), Slot::Cpu) => "service_cpu_percent",
        (Part::Service(_), Slot::Memory) => "service_memory_percent",
        (Part::Service(_), Slot::Connections) => "service_db_connections",
        (Part::Service(_), Slot::Lag) => "kafka_consumer_lag",
        (Part::Service(_), Slot::Ready) => "service_replicas_ready",
        (Part::Service(_), Slot::Queue) => "service_queue_depth",
        (Part::Service(_), Slot::CacheHits) => "service_cache_hit_percent",
        (Part::Service(_), Slot::Retries) => "service_retry_rate",
        (Part::Service(_), Slot::Misdirected) => "service_misdirected_request_rate",
        (Part::Service(_), Slot::CertificateDays) => "service_certificate_days_left",
        (Part::Database(_), Slot::Cpu) => "db_cpu_percent",
        (Part::Database(_), Slot::Latency) => "db_query_latency_p99_ms",
        (Part::Database(_), Slot::Disk) => "db_disk_used_percent",
        (Part::Database(_), Slot::Locks) => "db_lock_waits",
        (Part::Database(_), Slot::Up) => "db_up",
        (Part::Topic(_), Slot::Rate) => "kafka_topic_messages_rate",
        (Part::Node(_), Slot::Cpu) => "node_cpu_utilization_percent",
        (Part::Node(_), Slot::Steal) => "node_cpu_steal_percent",
        (Part::Node(_), Slot::Up) => "node_ready",
        (Part::Resolver, Slot::Rate) => "dns_request_rate",
        (Part::Resolver, Slot::Errors) => "dns_failed_queries_percent",
        (Part::Resolver, Slot::Latency) => "dns_latency_p99_ms",
        _ => return None,
    })
}

fn series(world: &World, part: Part, slot: Slot) -> Option<usize> {
    let (name, id) = (series_name(part, slot)?, world.spec().id(part));
    world.series().iter().position(|d| d.name == name && d.entity.id == id && d.labels.is_empty())
}

/// What is small enough to be the same as nothing.
const fn trifle(slot: Slot) -> f64 {
    match slot {
        Slot::Latency => 5.0,
        Slot::Lag => 100.0,
        _ => 2.0,
    }
}

/// How far the copy is from what was seen, over what its cause and its KPI show.
fn off(world: &World, f: &Fitted, ids: &[&EntityId], s: Sources<'_>) -> f64 {
    const SLOTS: [Slot; 9] = [
        Slot::Latency,
        Slot::Errors,
        Slot::Cpu,
        Slot::Memory,
        Slot::Connections,
        Slot::Lag,
        Slot::CacheHits,
        Slot::Disk,
        Slot::Steal,
    ];
    let (mut sum, mut n) = (0.0, 0.0_f64);
    for id in ids {
        let Some(part) = f.part(id) else { continue };
        for slot in SLOTS {
            let Some((seen, i)) = s.now(id, slot).zip(series(world, part, slot)) else { continue };
            let Some(made) = world.value(i).filter(|v| v.is_finite()) else { continue };
            sum += ((made.max(0.0) + trifle(slot)) / (seen.max(0.0) + trifle(slot))).ln().abs();
            n += 1.0;
        }
    }
    sum / n.max(1.0)
}

/// Assumes the cause, fits its strength, and plays on with and without the plan. `None`: the model has no such fault
/// or action, or the cause does not bring about what was seen.
pub(crate) fn run(h: &Hypothesis, plan: &Plan, f: &Fitted, s: Sources<'_>, grown: f64) -> Option<Outcome> {
    let v = &plan.verification;
    let Meaning { slot, factor } = meaning(&v.kpi.signal).filter(|_| v.kpi.labels.is_empty())?;
    let (cause, kpi_of) = (s.topology.resolve(h.entity.as_ref()?), s.topology.resolve(&v.kpi.entity));
    let kpi_part = f.part(kpi_of)?;
    let ids: Vec<&EntityId> = if cause == kpi_of { vec![cause] } else { vec![cause, kpi_of] };

    let (spec, guess) = assume(h, f, s, grown)?;
    let mut world = play(&spec, &guess, grown);
    let mut best = off(&world, f, &ids, s);
    if best > OFF {
        for strength in STRENGTHS {
            let fault = InjectedFault { magnitude: guess.magnitude * strength, ..guess.clone() };
            let other = play(&spec, &fault, grown);
            let distance = off(&other, f, &ids, s);
            if distance < best {
                (best, world) = (distance, other);
            }
        }
    }
    let kpi = series(&world, kpi_part, slot)?;
    let value = |w: &World| w.value(kpi).map(|x| x / factor).filter(|x| x.is_finite());
    let mut bad = !v.is_good(value(&world)?);
    while world.now_secs() < BEGINS + grown {
        world.tick();
        bad |= !v.is_good(value(&world)?);
    }
    // A cause that leaves the KPI where it belongs is not what happened.
    if !bad {
        return None;
    }
    let mut without = world.clone();
    let begun = world.now_secs();
    let mut good = 0;
    let mut recovered = None;
    let mut ledger = Ledger::new(&world);
    let mut step_on = |world: &mut World| {
        world.tick();
        without.tick();
        ledger.add(world, &without);
        good = if value(world).is_some_and(|x| v.is_good(x)) { good + 1 } else { 0 };
        if good >= v.readings && recovered.is_none() {
            recovered = Some(world.now_secs() - begun);
        }
    };
    for (n, step) in plan.steps.iter().enumerate() {
        if step.action == ActionType::ManualReview {
            continue;
        }
        let part = f.part(s.topology.resolve(&step.target))?;
        let action = SimAction {
            key: format!("step {n}"),
            ..SimAction::new(step.action, world.spec().id(part), step.params.clone())
        };
        match world.apply(&action) {
            Ok(_) => {}
            // The copy does not know enough of the target to say.
            Err(ApplyError::NoTarget(_) | ApplyError::Refused(_) | ApplyError::StaleFence { .. }) => return None,
        }
        let until = world.now_secs() + STEP_SECS;
        loop {
            step_on(&mut world);
            if world.observe(&action.key) == Observed::Done || world.now_secs() >= until {
                break;
            }
        }
    }
    let until = world.now_secs() + LOOK_SECS.min(f64::from(v.deadline_secs));
    while world.now_secs() < until {
        step_on(&mut world);
    }
    let (with_end, without_end) = (value(&world)?, value(&without)?);
    Some(Outcome {
        recovered,
        lasts: v.is_good(with_end),
        with: with_end,
        without: without_end,
        harms: ledger.harms(&world, f),
        off: best,
    })
}

/// What a service went through: sums over the trial, with the plan and without.
#[derive(Debug, Clone, Copy, Default)]
struct Account {
    errors: (f64, f64),
    latency: (f64, f64),
    connections: (f64, f64),
}

/// The accounts of all services. What is over in the end was still suffered, so means are compared, not ends.
struct Ledger {
    accounts: Vec<Account>,
    steps: f64,
}

impl Ledger {
    fn new(world: &World) -> Self {
        Self { accounts: vec![Account::default(); world.services.len()], steps: 0.0 }
    }

    fn add(&mut self, with: &World, without: &World) {
        self.steps += 1.0;
        for ((account, a), b) in self.accounts.iter_mut().zip(&with.services).zip(&without.services) {
            account.errors.0 += 100.0 * a.measured.errors;
            account.errors.1 += 100.0 * b.measured.errors;
            account.latency.0 += a.measured.p99_ms;
            account.latency.1 += b.measured.p99_ms;
            account.connections.0 += a.measured.connections;
            account.connections.1 += b.measured.connections;
        }
    }

    /// What got worse.
    fn harms(&self, world: &World, f: &Fitted) -> Vec<String> {
        let mut out = Vec::new();
        let mean = |(a, b): (f64, f64)| (a / self.steps.max(1.0), b / self.steps.max(1.0));
        for (i, account) in self.accounts.iter().enumerate() {
            let (spec, name) = (&world.spec().services[i], f.name(Part::Service(i)));
            let (a, b) = mean(account.errors);
            if a > b + WORSE.0 {
                out.push(format!("{name} fails {a:.1} % of its requests, {b:.1} % without the plan"));
            }
            let (a, b) = mean(account.latency);
            if a > b * WORSE.1 && a > 2.0 * spec.p99_ms {
                out.push(format!("{name} answers in {a:.0} ms, {b:.0} ms without the plan"));
            }
            let (a, b) = mean(account.connections);
            let max = spec.pool.as_ref().map_or(f64::INFINITY, |p| p.max);
            if a > b + 0.03 * max && a > 0.6 * max {
                out.push(format!("{name} has {a:.0} of {max:.0} connections in use, {b:.0} without the plan"));
            }
        }
        out
    }
}
