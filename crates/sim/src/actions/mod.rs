//! What can be done to the estate. Each action changes a cause of the model; whether that helps is the model's answer.

mod image;

use crate::spec::Part;
use crate::world::World;
use crate::world::state::{Replica, Roll};
use nightshift_model::{Action, ActionType, ChangeType, EntityId, Image, Operation};
use serde_json::Value;
use std::collections::BTreeMap;

/// Seconds that a replaced pod of a restart is away.
const RESTART_SECS: f64 = 10.0;
/// Seconds that a pod of a rolling update takes; the old one serves meanwhile.
const ROLLOUT_SECS: f64 = 6.0;
/// Seconds that a job takes.
const JOB_SECS: f64 = 7.0;
/// Seconds that a standby takes to become primary.
const FAILOVER_SECS: f64 = 6.0;
/// Operations remembered at most; the oldest are forgotten first, long after anybody could ask.
const REMEMBERED_MAX: usize = 10_000;

/// One operation on the estate.
#[derive(Debug, Clone, PartialEq)]
pub struct SimAction {
    /// Idempotency key: the same key is the same operation.
    pub key: String,
    /// Fencing token: lower than the highest seen is refused.
    pub fence: u64,
    /// What.
    pub action: ActionType,
    /// To what.
    pub target: EntityId,
    /// How, with the names that [`World::image`] and the plans use.
    pub params: Image,
    /// Undo: back to this image.
    pub undo_to: Option<Image>,
    /// Canary: only this share of the target, above 0 and below 1.
    pub share: Option<f64>,
}

impl SimAction {
    /// An operation with key and fence of its own: what a trial on a copy needs.
    pub fn new(action: ActionType, target: EntityId, params: Image) -> Self {
        Self { key: String::new(), fence: 0, action, target, params, undo_to: None, share: None }
    }
}

impl From<&Action> for SimAction {
    fn from(a: &Action) -> Self {
        let canary = a.operation == Operation::Canary;
        Self {
            key: a.key.clone(),
            fence: a.fence,
            action: a.action,
            target: a.target.clone(),
            params: a.params.clone(),
            undo_to: (a.operation == Operation::Undo).then(|| a.before.clone()),
            share: canary
                .then(|| a.params.get(nightshift_act::CANARY_SHARE).and_then(Value::as_f64).unwrap_or(1.0 / 3.0)),
        }
    }
}

/// Why an operation was not carried out. None of them changed anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Somebody newer holds the lease.
    #[error("fencing token {given} is older than {seen}, which was seen already")]
    StaleFence {
        /// The highest seen.
        seen: u64,
        /// The one given.
        given: u64,
    },
    /// Nothing of that id can be acted on.
    #[error("the estate has no {0}")]
    NoTarget(String),
    /// The target cannot have that done to it.
    #[error("{0}")]
    Refused(String),
}

/// Whether an operation was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// Nobody asked for it, or it was refused.
    NotDone,
    /// It was begun.
    UnderWay,
    /// It is done.
    Done,
}

/// When an operation counts as done.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Until {
    Secs(f64),
    Pods(usize),
}

/// What happens when a job ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Deed {
    CleanDisk(usize),
    RenewCertificate(usize),
    WarmCache(usize),
}

/// Operations carried out so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    highest_fence: u64,
    done: BTreeMap<String, (Until, String)>,
    oldest: std::collections::VecDeque<String>,
    due: Vec<(f64, Deed)>,
}

fn number(params: &Image, name: &str) -> Option<f64> {
    params.get(name).and_then(Value::as_f64).filter(|v| v.is_finite())
}

fn text<'a>(params: &'a Image, name: &str) -> Option<&'a str> {
    params.get(name).and_then(Value::as_str)
}

impl World {
    /// What an id stands for.
    pub fn part(&self, id: &EntityId) -> Option<Part> {
        let at = *self.by_id.get(id)? as usize;
        self.spec.parts().get(at).copied()
    }

    /// Carries out an operation. The same key again has no further effect and gets the same answer: one line on what
    /// was begun.
    ///
    /// # Errors
    /// See [`ApplyError`]; nothing was changed then.
    pub fn apply(&mut self, action: &SimAction) -> Result<String, ApplyError> {
        if let Some((_, said)) = self.ledger.done.get(&action.key).filter(|_| !action.key.is_empty()) {
            return Ok(said.clone());
        }
        let part = self.check(action)?;
        self.ledger.highest_fence = self.ledger.highest_fence.max(action.fence);
        let (until, said) = match &action.undo_to {
            Some(before) => self.undo(action.action, part, before),
            None => self.carry_out(action, part),
        };
        if !action.key.is_empty() {
            if self.ledger.oldest.len() >= REMEMBERED_MAX
                && let Some(key) = self.ledger.oldest.pop_front()
            {
                self.ledger.done.remove(&key);
            }
            self.ledger.oldest.push_back(action.key.clone());
            self.ledger.done.insert(action.key.clone(), (until, said.clone()));
        }
        Ok(said)
    }

    /// Whether that sort of action can be done to that entity, whatever its values.
    pub fn handles(&self, action: ActionType, target: &EntityId) -> bool {
        use ActionType as A;
        match self.part(target) {
            None | Some(Part::Topic(_)) => false,
            Some(Part::Service(_)) => !matches!(action, A::DrainNode | A::FailoverDb),
            Some(Part::Database(_)) => {
                matches!(
                    action,
                    A::FailoverDb | A::PatchResources | A::RunJob | A::RecycleConnections | A::ManualReview
                )
            }
            Some(Part::Node(_)) => matches!(action, A::DrainNode | A::ManualReview),
            Some(Part::Resolver) => matches!(action, A::RestartPods | A::ManualReview),
        }
    }

    /// What [`World::apply`] would say, without doing it.
    ///
    /// # Errors
    /// Those of `apply`.
    pub fn dry_run(&self, action: &SimAction) -> Result<String, ApplyError> {
        self.check(action).map(|_| format!("{} of {} would be accepted", action.action, action.target.name()))
    }

    /// Whether the operation of this key was carried out.
    pub fn observe(&self, key: &str) -> Observed {
        let now = self.now_secs();
        match self.ledger.done.get(key) {
            None => Observed::NotDone,
            Some((Until::Secs(at), _)) if *at <= now => Observed::Done,
            Some((Until::Pods(i), _)) if self.services[*i].roll.is_none() && self.all_ready(*i, now) => Observed::Done,
            Some(_) => Observed::UnderWay,
        }
    }

    fn all_ready(&self, i: usize, now: f64) -> bool {
        now >= self.wait_for[i] && self.services[i].replicas.iter().all(|r| r.ready_at <= now)
    }

    /// Jobs that end.
    pub(crate) fn settle_actions(&mut self) {
        if self.ledger.due.is_empty() {
            return;
        }
        let now = self.now_secs();
        for (_, deed) in self.ledger.due.extract_if(.., |(at, _)| *at <= now) {
            match deed {
                Deed::CleanDisk(d) => {
                    let usual = self.spec.databases[d].disk_gb * self.spec.databases[d].disk_used_percent / 100.0;
                    self.databases[d].disk_used_gb = self.databases[d].disk_used_gb.min(usual);
                    self.databases[d].cleaned = now;
                }
                Deed::RenewCertificate(i) => {
                    self.services[i].certificate_renewed = now;
                    self.services[i].certificate_end = now + 90.0 * 86_400.0;
                }
                Deed::WarmCache(i) => {
                    self.services[i].cache_warmed = now;
                    self.services[i].hits = self.spec.services[i].cache.as_ref().map_or(0.0, |c| 0.97 * c.hit_ratio);
                }
            }
        }
    }

    fn check(&self, a: &SimAction) -> Result<Part, ApplyError> {
        if a.fence < self.ledger.highest_fence {
            return Err(ApplyError::StaleFence { seen: self.ledger.highest_fence, given: a.fence });
        }
        let part = self.part(&a.target).ok_or_else(|| ApplyError::NoTarget(a.target.to_string()))?;
        let no = |why: String| Err(ApplyError::Refused(why));
        let name = a.target.name();
        if a.share.is_some_and(|s| !(s > 0.0 && s < 1.0)) {
            return no("a canary takes a share above 0 and below 1".into());
        }
        if a.undo_to.is_some() {
            return Ok(part);
        }
        let p = &a.params;
        match (a.action, part) {
            (ActionType::ManualReview | ActionType::PolicyException, _) => Ok(part),
            (ActionType::ScaleDeployment | ActionType::CostScaleDown, Part::Service(i)) => {
                let s = &self.spec.services[i];
                match number(p, "replicas") {
                    Some(n) if n.fract() == 0.0 && n >= f64::from(s.replicas_min) && n <= f64::from(s.replicas_max) => {
                        Ok(part)
                    }
                    Some(n) => no(format!("{name} takes {} to {} replicas, not {n}", s.replicas_min, s.replicas_max)),
                    None => no("give `replicas`".into()),
                }
            }
            (ActionType::RestartPods, Part::Service(_) | Part::Resolver) => Ok(part),
            (ActionType::RollbackDeploy, Part::Service(i)) => match text(p, "version") {
                Some(v) if !self.services[i].versions.iter().any(|known| known == v) => {
                    no(format!("{name} never ran version {v}"))
                }
                _ => Ok(part),
            },
            (ActionType::ToggleFeature, Part::Service(i)) => {
                let flag = text(p, "flag").unwrap_or_default();
                if !self.spec.services[i].flags.iter().any(|(f, _)| f == flag) {
                    return no(format!("{name} has no flag `{flag}`"));
                }
                if p.get("enabled").and_then(Value::as_bool).is_none() {
                    return no("give `enabled`: true or false".into());
                }
                Ok(part)
            }
            (ActionType::AdjustRouting, Part::Service(i)) => {
                let Some(weights) = p.get("weights").and_then(Value::as_object) else {
                    return no("give `weights`: a weight for each route".into());
                };
                let routes = &self.spec.services[i].routes;
                if let Some(unknown) = weights.keys().find(|w| routes.iter().all(|(r, _)| r != *w)) {
                    return no(format!("{name} has no route `{unknown}`"));
                }
                let bad = weights.values().any(|w| !w.as_f64().is_some_and(|w| w >= 0.0 && w.is_finite()));
                if bad { no("weights are 0 or more".into()) } else { Ok(part) }
            }
            (ActionType::LimitTraffic, Part::Service(_)) => match number(p, "limit_rps") {
                Some(l) if l > 0.0 => Ok(part),
                _ => no("give `limit_rps` above 0".into()),
            },
            (ActionType::RecycleConnections, Part::Service(i)) if self.spec.services[i].pool.is_some() => Ok(part),
            (ActionType::RecycleConnections, Part::Database(_)) => Ok(part),
            (ActionType::PatchResources, Part::Service(_)) => match number(p, "memory_limit_mib") {
                Some(m) if m < 1.0 => no("a pod needs memory: give `memory_limit_mib` of 1 or more".into()),
                _ => Ok(part),
            },
            (ActionType::PatchResources, Part::Database(i)) => match number(p, "disk_gib") {
                Some(gb) if gb >= self.databases[i].disk_gb => Ok(part),
                _ => no(format!("a disk only grows: give `disk_gib` of {:.0} or more", self.databases[i].disk_gb)),
            },
            (ActionType::DrainNode, Part::Node(i)) => {
                let others = self.nodes.iter().enumerate().any(|(n, node)| n != i && !node.cordoned && node.ready);
                if others { Ok(part) } else { no("no other node takes pods".into()) }
            }
            (ActionType::FailoverDb, Part::Database(i)) if self.spec.databases[i].standby => Ok(part),
            (ActionType::FailoverDb, Part::Database(_)) => no(format!("{name} has no standby")),
            (ActionType::GitopsSync, Part::Service(_)) => Ok(part),
            (ActionType::RunJob, part) => match (text(p, "job").unwrap_or_default(), part) {
                ("clean-disk", Part::Database(_)) => Ok(part),
                ("renew-certificate", Part::Service(i)) if self.spec.services[i].certificate_days.is_some() => Ok(part),
                ("warm-cache", Part::Service(i)) if self.spec.services[i].cache.is_some() => Ok(part),
                (job, _) => no(format!("{name} has no job `{job}`")),
            },
            (action, _) => no(format!("{action} cannot be done to a {}", a.target.kind_str())),
        }
    }

    fn carry_out(&mut self, a: &SimAction, part: Part) -> (Until, String) {
        let now = self.now_secs();
        let p = &a.params;
        let name = a.target.name();
        let at_once = |said: String| (Until::Secs(now), said);
        let (until, said, kind) = match (a.action, part) {
            (ActionType::ScaleDeployment | ActionType::CostScaleDown, Part::Service(i)) => {
                let to = number(p, "replicas").unwrap_or(1.0) as u32;
                self.scale(i, to);
                (Until::Pods(i), format!("replicas of {name} to {to}"), ChangeType::Scaling)
            }
            (ActionType::RestartPods, Part::Service(i)) => {
                let n = self.services[i].replicas.len();
                let share = number(p, "max_unavailable").unwrap_or(0.34).clamp(0.0, 1.0);
                let batch = ((n as f64 * share) as usize).max(1);
                let left = a.share.map_or(n, |s| ((n as f64 * s).ceil() as usize).max(1));
                let version = self.services[i].version;
                self.services[i].roll =
                    Some(Roll { before: now, batch, left, takes: RESTART_SECS, surge: false, version });
                (Until::Pods(i), format!("restart of {left} pods of {name}, {batch} at a time"), ChangeType::Event)
            }
            (ActionType::RestartPods, Part::Resolver) => {
                self.resolver.restarted = now;
                self.resolver.down_until = now + 8.0;
                (Until::Secs(now + 8.0), format!("restart of {name}"), ChangeType::Event)
            }
            (ActionType::RollbackDeploy, Part::Service(i)) => {
                let service = &self.services[i];
                let named = text(p, "version").and_then(|v| service.versions.iter().position(|known| known == v));
                let to = named.map_or(service.previous, |v| v as u16);
                let n = service.replicas.len();
                let left = a.share.map_or(usize::MAX, |s| ((n as f64 * s).ceil() as usize).max(1));
                self.roll_to(i, to, left);
                let version = self.services[i].versions[usize::from(to)].clone();
                let said = format!("{name} back to {version}");
                self.tell_change(i, ChangeType::Deployment, &version, "nightshift", &said);
                return (Until::Pods(i), said);
            }
            (ActionType::ToggleFeature, Part::Service(i)) => {
                let flag = text(p, "flag").unwrap_or_default();
                let value = p.get("enabled").and_then(Value::as_bool).unwrap_or(false);
                self.set_flag(i, flag, value);
                (Until::Secs(now), format!("flag {flag} of {name} to {value}"), ChangeType::FeatureFlag)
            }
            (ActionType::AdjustRouting, Part::Service(i)) => {
                for (route, weight) in p.get("weights").and_then(Value::as_object).into_iter().flatten() {
                    self.set_weight(i, route, weight.as_f64().unwrap_or(0.0));
                }
                (Until::Secs(now), format!("route weights of {name} set"), ChangeType::Config)
            }
            (ActionType::LimitTraffic, Part::Service(i)) => {
                let limit = number(p, "limit_rps").unwrap_or(f64::INFINITY);
                self.services[i].limit_rps = limit;
                (Until::Secs(now), format!("{name} lets {limit:.0} requests a second in"), ChangeType::Config)
            }
            (ActionType::RecycleConnections, Part::Service(i)) => {
                let share = number(p, "share").unwrap_or(1.0).clamp(0.0, 1.0) * a.share.unwrap_or(1.0);
                self.services[i].stuck *= 1.0 - share;
                (Until::Secs(now), format!("connections of {name} recycled"), ChangeType::Event)
            }
            (ActionType::RecycleConnections, Part::Database(i)) => {
                self.databases[i].unlocked = now;
                (Until::Secs(now), format!("sessions of {name} closed"), ChangeType::Event)
            }
            (ActionType::PatchResources, Part::Service(i)) => {
                if let Some(limit) = number(p, "memory_limit_mib") {
                    self.services[i].memory_limit_mb = limit;
                }
                let version = self.services[i].version;
                let roll = Roll { before: now, batch: 1, left: usize::MAX, takes: ROLLOUT_SECS, surge: true, version };
                self.services[i].roll = Some(roll);
                (Until::Pods(i), format!("resources of {name} patched"), ChangeType::Config)
            }
            (ActionType::PatchResources, Part::Database(i)) => {
                let gb = number(p, "disk_gib").unwrap_or(0.0).max(self.databases[i].disk_gb);
                self.databases[i].disk_gb = gb;
                (Until::Secs(now), format!("disk of {name} to {gb:.0} GiB"), ChangeType::Config)
            }
            (ActionType::DrainNode, Part::Node(n)) => {
                self.drain(n);
                (Until::Secs(now + 9.0), format!("{name} cordoned and drained"), ChangeType::Event)
            }
            (ActionType::FailoverDb, Part::Database(i)) => {
                self.databases[i].failover_at = now + FAILOVER_SECS;
                (Until::Secs(now + FAILOVER_SECS), format!("standby of {name} becomes primary"), ChangeType::Event)
            }
            (ActionType::GitopsSync, Part::Service(i)) => {
                let spec = std::sync::Arc::clone(&self.spec);
                let declared = &spec.services[i];
                self.services[i].weights = declared.routes.iter().map(|(_, w)| *w).collect();
                self.services[i].memory_limit_mb = declared.memory_limit_mb;
                (Until::Secs(now), format!("{name} synced to git"), ChangeType::Config)
            }
            (ActionType::RunJob, part) => {
                let job = text(p, "job").unwrap_or_default();
                let deed = match (job, part) {
                    ("clean-disk", Part::Database(d)) => Some(Deed::CleanDisk(d)),
                    ("renew-certificate", Part::Service(i)) => Some(Deed::RenewCertificate(i)),
                    ("warm-cache", Part::Service(i)) => Some(Deed::WarmCache(i)),
                    _ => None,
                };
                self.ledger.due.extend(deed.map(|d| (now + JOB_SECS, d)));
                (Until::Secs(now + JOB_SECS), format!("job {job} for {name}"), ChangeType::Event)
            }
            _ => return at_once("nothing to carry out".into()),
        };
        let service = if let Part::Service(i) = part { self.spec.services[i].name.clone() } else { String::new() };
        self.tell(Some(a.target.clone()), service, kind, "", "nightshift", &said);
        (until, said)
    }

    /// Back to what an image says, as far as the action touches it.
    fn undo(&mut self, action: ActionType, part: Part, before: &Image) -> (Until, String) {
        let now = self.now_secs();
        let mut until = Until::Secs(now);
        match (action, part) {
            (ActionType::ScaleDeployment | ActionType::CostScaleDown, Part::Service(i)) => {
                if let Some(n) = number(before, "replicas") {
                    self.scale(i, n.max(1.0) as u32);
                    until = Until::Pods(i);
                }
            }
            (ActionType::RollbackDeploy, Part::Service(i)) => {
                let was = text(before, "version").map(str::to_owned);
                if let Some(at) = was.and_then(|v| self.services[i].versions.iter().position(|known| *known == v)) {
                    self.roll_to(i, at as u16, usize::MAX);
                    until = Until::Pods(i);
                }
            }
            (ActionType::ToggleFeature, Part::Service(i)) => {
                for (name, value) in before {
                    if let (Some(flag), Some(value)) = (name.strip_prefix("flag."), value.as_bool()) {
                        self.set_flag(i, flag, value);
                    }
                }
            }
            (ActionType::AdjustRouting, Part::Service(i)) => {
                for (name, value) in before {
                    if let (Some(route), Some(weight)) = (name.strip_prefix("weight."), value.as_f64()) {
                        self.set_weight(i, route, weight);
                    }
                }
            }
            (ActionType::LimitTraffic, Part::Service(i)) => {
                self.services[i].limit_rps = number(before, "limit_rps").unwrap_or(f64::INFINITY);
            }
            (ActionType::PatchResources, Part::Service(i)) => {
                if let Some(limit) = number(before, "memory_limit_mib") {
                    self.services[i].memory_limit_mb = limit;
                }
            }
            (ActionType::DrainNode, Part::Node(n)) => self.nodes[n].cordoned = false,
            _ => return (until, "nothing to take back".into()),
        }
        (until, format!("{action} taken back"))
    }

    fn roll_to(&mut self, i: usize, version: u16, left: usize) {
        let service = &mut self.services[i];
        if left == usize::MAX && service.version != version {
            (service.previous, service.version) = (service.version, version);
        }
        let before = f64::NEG_INFINITY;
        service.roll = Some(Roll { before, batch: 1, left, takes: ROLLOUT_SECS, surge: true, version });
    }

    fn set_flag(&mut self, i: usize, flag: &str, value: bool) {
        if let Some(at) = self.spec.services[i].flags.iter().position(|(f, _)| f == flag) {
            self.services[i].flags[at] = value;
        }
    }

    fn set_weight(&mut self, i: usize, route: &str, weight: f64) {
        if let Some(at) = self.spec.services[i].routes.iter().position(|(r, _)| r == route) {
            self.services[i].weights[at] = weight.max(0.0);
        }
    }

    fn drain(&mut self, n: usize) {
        let now = self.now_secs();
        self.nodes[n].cordoned = true;
        for i in 0..self.services.len() {
            for r in 0..self.services[i].replicas.len() {
                let pod = self.services[i].replicas[r];
                if usize::from(pod.node) == n {
                    let takes = self.start_secs(i, self.spec.services[i].start_secs);
                    let node = self.node_for((n + 1 + i) as u16 % self.nodes.len().max(1) as u16);
                    self.services[i].replicas[r] = Replica::fresh(now, now + takes, pod.version, node, self.cold(i));
                }
            }
        }
    }
}
