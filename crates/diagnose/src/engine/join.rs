//! Where an anomaly goes: into an incident, into several that it shows to be one, back into one that had ended, into
//! a new one, or nowhere yet.

use super::case::{brief, cause_keys, service_of};
use super::{Engine, SYSTEM};
use crate::rank::suggested_fault;
use crate::relate::{Brief, Link, related};
use nightshift_model::incident::MEMBERS_MAX;
use nightshift_model::{
    Anomaly, AnomalyKind, EntityId, EventKind, FaultClass, IncidentId, IncidentStatus, Phase, Timestamp,
};
use nightshift_topology::Topology;
use std::collections::BTreeMap;
use std::time::Duration;

/// Symptoms of one entity that an incident keeps whole; further ones are counted. A host has about sixty.
const MEMBERS_PER_ENTITY_MAX: usize = 100;
/// Places kept free for symptoms that tell more than the hundredth of their kind: earlier ones, shared dependencies.
const RESERVED: usize = 50;
/// Weak symptoms that one incident takes as evidence.
const WEAK_MAX: usize = 40;
/// Ids of counted symptoms remembered; beyond it a repeated record is counted again.
const COUNTED_MAX: usize = 50_000;
/// Occurrences of one series from which it flaps: further ones within the TTL are not told.
const FLAPS: usize = 3;
/// Growth of a score that is told.
const WORSE: f64 = 0.1;

impl Engine {
    pub(super) fn anomaly(&mut self, mut a: Anomaly, topology: &Topology, now: Timestamp) {
        self.stats.records += 1;
        if a.tenant != self.tenant {
            self.stats.foreign += 1;
            return;
        }
        a.entity.id = topology.resolve(&a.entity.id).clone();
        a.score = if a.score.is_finite() { a.score.clamp(0.0, 1.0) } else { 0.0 };
        a.last_seen = a.last_seen.max(a.onset);

        if let Some(number) = self.members.get(&a.id).copied() {
            self.known(number, a, topology, now);
        } else if self.counted.contains_key(&a.id) {
            self.counted_again(&a, now);
        } else if a.phase == Phase::Closed {
            self.unknown_end(a, topology);
        } else {
            self.new_symptom(a, topology, now);
        }
    }

    /// A record of a symptom that an incident has.
    fn known(&mut self, number: u64, a: Anomaly, topology: &Topology, now: Timestamp) {
        let Some(case) = self.cases.get(&number) else { return };
        let Some(kept) = case.inc.anomaly(a.id) else { return };
        if !case.inc.status.is_open() {
            // The symptom of a resolved incident that goes on: what a person ended stays ended until something new
            // begins; what ended because nobody spoke of it is back.
            let by_person = case.inc.resolved_by.as_deref() != Some(SYSTEM);
            let a = self.tempered(a, topology);
            let expected = a.explanation.features.contains_key(super::expected::EXPECTED);
            let weak = expected || a.score.max(kept.score) < self.config.open_score_min;
            if a.phase == Phase::Closed || a.last_seen <= kept.last_seen || by_person || weak {
                self.stats.silent += 1;
                return;
            }
            let whole = newest(kept, a);
            self.members.remove(&whole.id);
            self.place(whole, topology, now);
            return;
        }
        let was_open = kept.phase != Phase::Closed;
        let is_open = a.phase != Phase::Closed;
        let ttl = Duration::from_secs(self.config.duplicate_ttl_secs);
        let why = match (was_open, is_open) {
            (true, false) => "ended",
            (false, true) if a.last_seen > kept.last_seen => "came back",
            (true, true) if a.score >= kept.score + WORSE || a.severity > kept.severity => "got worse",
            (true, true) if a.last_seen.since(case.inc.updated_at) >= ttl => "still going on",
            _ => {
                self.stats.silent += 1;
                return;
            }
        };
        let was_weak = kept.score < self.config.open_score_min;
        let a = if was_weak { self.tempered(a, topology) } else { a };
        let anomaly = newest(kept, a);
        let at = anomaly.last_seen.min(now);
        let now_strong = was_weak && anomaly.score >= self.config.open_score_min;
        if matches!(why, "got worse" | "came back") {
            self.dirty.insert(number);
        }
        let others = if now_strong { self.find_related(&anomaly, topology) } else { BTreeMap::new() };
        self.emit(number, at, SYSTEM, EventKind::AnomalyJoined { anomaly: Box::new(anomaly), why: why.into() });
        if now_strong {
            let mut all: Vec<(u64, Link)> = others.into_iter().collect();
            all.push((number, Link::Same));
            self.unite(&all, at, topology);
        }
    }

    /// A record of a symptom that a storm only counted.
    fn counted_again(&mut self, a: &Anomaly, now: Timestamp) {
        let Some((number, open)) = self.counted.get_mut(&a.id) else { return };
        if a.phase == Phase::Closed && *open {
            *open = false;
            self.storm.entry(*number).or_default().closed += 1;
            return;
        }
        let number = *number;
        self.stats.silent += 1;
        // A word now and then, so that the storm does not look as if its telemetry had stopped.
        let ttl = Duration::from_secs(self.config.duplicate_ttl_secs);
        if let Some(case) = self.cases.get(&number)
            && case.inc.status.is_open()
            && a.last_seen.min(now).since(case.inc.updated_at) >= ttl
        {
            let row = EventKind::StormJoined { count: 0, open: 0, closed: 0 };
            self.emit(number, a.last_seen.min(now), SYSTEM, row);
        }
    }

    /// The end of something whose beginning is not known (yet).
    fn unknown_end(&mut self, a: Anomaly, topology: &Topology) {
        if !self.uncounted.is_empty() && !self.waiting.contains_key(&a.id) {
            // Counted before a restart: its place tells to which storm it belongs.
            let storms = self.find_related(&a, topology);
            if let Some(number) = storms.into_keys().find(|n| self.uncounted.contains_key(n)) {
                self.storm.entry(number).or_default().closed += 1;
                if let Some(left) = self.uncounted.get_mut(&number) {
                    *left -= 1;
                    if *left == 0 {
                        self.uncounted.remove(&number);
                    }
                }
                return;
            }
        }
        self.wait(a);
    }

    fn new_symptom(&mut self, a: Anomaly, topology: &Topology, now: Timestamp) {
        let a = self.tempered(a, topology);
        // What is older than a restart would be told of is no longer known, forgotten already or not.
        let oldest = now - self.config.anomalies_lookback();
        let ends_it = |w: &&Anomaly| w.phase == Phase::Closed && w.last_seen >= a.last_seen.max(oldest);
        let early_end = self.waiting.get(&a.id).filter(ends_it).cloned();
        if a.score < self.config.open_score_min {
            let joined = self.find_related(&a, topology).into_iter().next();
            match joined {
                Some((number, link)) if self.weak_of(number) < WEAK_MAX => {
                    let id = a.id;
                    self.waiting.remove(&id);
                    self.join(number, a, link.as_str(), topology, now);
                    if let (Some(end), true) = (early_end, self.members.contains_key(&id)) {
                        self.known(number, end, topology, now);
                    }
                }
                Some(_) => self.stats.silent += 1,
                // Its end came first: nothing is left to wait for, but it still is evidence.
                None => self.wait(early_end.unwrap_or(a)),
            }
            return;
        }
        let id = a.id;
        self.waiting.remove(&id);
        self.place(a, topology, now);
        if let Some(end) = early_end
            && let Some(number) = self.members.get(&id).copied()
        {
            self.known(number, end, topology, now);
        }
    }

    fn weak_of(&self, number: u64) -> usize {
        let weak = |a: &&Anomaly| a.score < self.config.open_score_min;
        self.cases.get(&number).map_or(0, |c| c.inc.anomalies.iter().filter(weak).count())
    }

    /// Keeps the newest record of a symptom that has no incident.
    fn wait(&mut self, a: Anomaly) {
        let age = |a: &Anomaly| (a.last_seen, a.phase == Phase::Closed);
        if self.waiting.get(&a.id).is_some_and(|known| age(known) > age(&a)) {
            return;
        }
        self.waiting.insert(a.id, a);
        while self.waiting.len() > self.config.waiting_max {
            let oldest = self.waiting.values().min_by_key(|w| (w.last_seen, w.id)).map(|w| w.id);
            let Some(id) = oldest else { break };
            self.waiting.remove(&id);
        }
    }

    /// Finds the incident of a symptom that is strong enough to have one.
    fn place(&mut self, a: Anomaly, topology: &Topology, now: Timestamp) {
        let at = a.last_seen.min(now);
        let related: Vec<(u64, Link)> = self.find_related(&a, topology).into_iter().collect();
        if let Some(link) = related.first().map(|(_, link)| *link) {
            let elder = self.unite(&related, at, topology);
            if self.flaps(elder, &a) {
                self.stats.silent += 1;
                return;
            }
            self.join_with_company(elder, a, link.as_str(), topology, now);
            return;
        }
        // A record of something that goes on tells of now, not of when it began.
        let began = if a.phase == Phase::Open { a.onset } else { a.last_seen };
        let mut recurrence_of = None;
        if let Some((number, id, resolved_at)) = self.same_cause_before(&a, topology) {
            if began <= resolved_at + Duration::from_secs(self.config.reopen_secs) {
                self.reopen(number, began, resolved_at, at, topology);
                self.join_with_company(number, a, "it is back", topology, now);
                return;
            }
            recurrence_of = Some(id);
        }
        if self.cases.values().filter(|c| c.inc.status.is_open()).count() >= self.config.open_max {
            self.stats.not_opened += 1;
            return;
        }
        let fault = suggested_fault(&a);
        let title = title(fault, &a.entity.id, &a.signal);
        let copy = a.clone();
        let number = self.open(a, title, recurrence_of, at);
        self.index(number, topology);
        self.dirty.insert(number);
        self.gather_company(number, &copy, topology, now);
    }

    fn reopen(&mut self, number: u64, began: Timestamp, resolved_at: Timestamp, at: Timestamp, topology: &Topology) {
        let why = if began > resolved_at {
            format!("the same symptom returned {:.0} s after the end", began.since(resolved_at).as_secs_f64())
        } else {
            "the same symptom still shows".into()
        };
        for numbers in self.past.values_mut() {
            numbers.remove(&number);
        }
        self.past.retain(|_, numbers| !numbers.is_empty());
        self.emit(number, at.max(resolved_at), SYSTEM, EventKind::Reopened { why });
        self.index(number, topology);
        self.dirty.insert(number);
    }

    /// The newest resolved incident of the same cause.
    fn same_cause_before(&self, a: &Anomaly, topology: &Topology) -> Option<(u64, IncidentId, Timestamp)> {
        let keys = cause_keys(a, topology);
        let numbers = keys.iter().filter_map(|key| self.past.get(key)).flatten();
        numbers
            .filter_map(|n| self.cases.get(n))
            .filter(|c| c.inc.status == IncidentStatus::Resolved && c.inc.synthetic == a.synthetic())
            .filter_map(|c| Some((c.inc.resolved_at?, c.inc.number, c.inc.id)))
            .max()
            .map(|(at, number, id)| (number, id, at))
    }

    /// Whether this occurrence is one too many of a series that comes and goes.
    fn flaps(&self, number: u64, a: &Anomaly) -> bool {
        let ttl = Duration::from_secs(self.config.duplicate_ttl_secs);
        let Some(case) = self.cases.get(&number) else { return false };
        let recent = |m: &&Anomaly| m.fingerprint == a.fingerprint && a.last_seen.since(m.last_seen) < 2 * ttl;
        let same: Vec<&Anomaly> = case.inc.anomalies.iter().filter(recent).collect();
        same.len() >= FLAPS && same.iter().any(|m| a.last_seen.since(m.last_seen) < ttl)
    }

    fn join_with_company(&mut self, number: u64, a: Anomaly, why: &str, topology: &Topology, now: Timestamp) {
        let copy = a.clone();
        self.join(number, a, why, topology, now);
        self.gather_company(number, &copy, topology, now);
    }

    /// Weak symptoms that waited for this one join with it.
    fn gather_company(&mut self, number: u64, a: &Anomaly, topology: &Topology, now: Timestamp) {
        let room = WEAK_MAX.saturating_sub(self.weak_of(number));
        if self.waiting.is_empty() || room == 0 {
            return;
        }
        let near = self.neighbourhood(&a.entity.id, topology);
        let this = brief(a);
        let oldest = now - self.config.anomalies_lookback();
        let mut found: Vec<(Link, Anomaly)> = Vec::new();
        for w in self.waiting.values() {
            let weak = w.score < self.config.open_score_min && w.synthetic() == a.synthetic() && w.last_seen >= oldest;
            let link = near.get(topology.resolve(&w.entity.id)).copied();
            if let Some(link) = link.filter(|link| weak && related(&self.config, *link, &this, &brief(w))) {
                found.push((link, w.clone()));
            }
        }
        found.sort_by_key(|(link, w)| (*link, w.onset, w.id));
        for (link, w) in found.into_iter().take(room) {
            self.waiting.remove(&w.id);
            self.join(number, w, link.as_str(), topology, now);
        }
    }

    /// Adds a symptom to an open incident, whole if there is room for it.
    fn join(&mut self, number: u64, mut a: Anomaly, why: &str, topology: &Topology, now: Timestamp) {
        let at = a.last_seen.min(now);
        let Some(case) = self.cases.get_mut(&number) else { return };
        a.entity.id = topology.resolve(&a.entity.id).clone();
        let kept = case.inc.anomalies.len();
        let again = case.inc.anomaly(a.id).is_some();
        let of_entity = case.of_entity(&a.entity.id).count();
        let telling = a.onset < case.inc.onset
            || of_entity == 0 && topology.callers(&a.entity.id).filter(|n| case.is_about(n.id)).nth(1).is_some();
        let room = of_entity < MEMBERS_PER_ENTITY_MAX && kept < MEMBERS_MAX - RESERVED || telling && kept < MEMBERS_MAX;
        if !again && !room {
            if a.score >= self.config.open_score_min {
                if !case.is_about(&a.entity.id) {
                    case.unlisted.insert(a.entity.id.clone());
                    case.refresh_listed(&a.entity.id);
                    self.entities.entry_ref(&a.entity.id).or_default().insert(number);
                    self.dirty.insert(number);
                }
                let count = self.storm.entry(number).or_default();
                count.count += 1;
                count.open += u64::from(a.phase != Phase::Closed);
                if self.counted.len() < COUNTED_MAX {
                    self.counted.insert(a.id, (number, a.phase != Phase::Closed));
                }
            }
            return;
        }
        self.members.insert(a.id, number);
        self.entities.entry_ref(&a.entity.id).or_default().insert(number);
        if let Some(service) = service_of(&a) {
            self.services.entry_ref(service).or_default().insert(number);
        }
        self.emit(number, at, SYSTEM, EventKind::AnomalyJoined { anomaly: Box::new(a), why: why.to_owned() });
        self.dirty.insert(number);
        if let Some(case) = self.cases.get_mut(&number) {
            if again { case.refresh(topology) } else { case.note_last(topology) }
        }
    }

    /// Open incidents that a symptom belongs to, with the closest link to each.
    fn find_related(&mut self, a: &Anomaly, topology: &Topology) -> BTreeMap<u64, Link> {
        let near = self.neighbourhood(&a.entity.id, topology);
        let this = brief(a);
        let mut found = BTreeMap::new();
        let many = self.many_alike(&this, &near, topology);
        if near.len() <= self.entities.len() {
            for (id, link) in near.iter().filter(|(_, link)| many || **link != Link::SharedByMany) {
                if let Some(numbers) = self.entities.get(id) {
                    self.check(a, &this, id, *link, numbers, &mut found);
                }
            }
        } else {
            for (id, numbers) in &self.entities {
                if let Some(link) = near.get(id).filter(|link| many || **link != Link::SharedByMany) {
                    self.check(a, &this, id, *link, numbers, &mut found);
                }
            }
        }
        if let Some(service) = service_of(a) {
            let (cluster, environment) = (a.entity.id.cluster(), &a.entity.environment);
            for number in self.services.get(service).into_iter().flatten() {
                let Some(case) = self.cases.get(number).filter(|c| c.inc.synthetic == a.synthetic()) else { continue };
                // A service of the same name in another cluster or environment is another one.
                let belongs = case.of_service(service).any(|m| {
                    m.entity.id.cluster() == cluster
                        && (m.entity.environment == *environment
                            || m.entity.environment.is_empty()
                            || environment.is_empty())
                        && self.strong_enough(m)
                        && related(&self.config, Link::Service, &this, &brief(m))
                });
                if belongs {
                    let link = found.entry(*number).or_insert(Link::Service);
                    *link = (*link).min(Link::Service);
                }
            }
        }
        found
    }

    /// Whether two others that need the same as this one look alike now, neither of them because of what it needs
    /// itself. What everybody needs (a node, a resolver) makes two that look alike no pair; three are.
    fn many_alike(&self, this: &Brief, near: &BTreeMap<EntityId, Link>, topology: &Topology) -> bool {
        let alike = |id: &EntityId, numbers: &std::collections::BTreeSet<u64>| {
            let cases = numbers.iter().filter_map(|n| self.cases.get(n));
            let ill = cases
                .flat_map(|c| c.of_entity(id))
                .any(|m| self.strong_enough(m) && related(&self.config, Link::SharedByMany, this, &brief(m)));
            ill && !topology.dependencies(id).any(|n| self.entities.contains_key(n.id))
        };
        let mut roots = 0;
        for (id, link) in near {
            if *link == Link::SharedByMany
                && let Some(numbers) = self.entities.get(id)
                && alike(id, numbers)
            {
                roots += 1;
                if roots >= 2 {
                    return true;
                }
            }
        }
        false
    }

    /// A weak symptom joins what is strong; it is no bridge between others.
    fn strong_enough(&self, member: &Anomaly) -> bool {
        member.score >= self.config.open_score_min
    }

    fn check(
        &self,
        a: &Anomaly,
        this: &Brief,
        entity: &EntityId,
        link: Link,
        numbers: &std::collections::BTreeSet<u64>,
        found: &mut BTreeMap<u64, Link>,
    ) {
        for number in numbers {
            if found.get(number).is_some_and(|known| *known <= link) {
                continue;
            }
            let Some(case) = self.cases.get(number).filter(|c| c.inc.synthetic == a.synthetic()) else { continue };
            let mut any = false;
            let mut belongs = case.of_entity(entity).any(|m| {
                any = true;
                self.strong_enough(m) && related(&self.config, link, this, &brief(m))
            });
            if !any {
                // Only counted in a storm: its time is that of the incident, its illness one of those that it keeps.
                let whole = Brief { onset: case.inc.onset, end: Some(case.inc.updated_at), fault: this.fault };
                let nearer = Brief { onset: this.onset.min(case.inc.updated_at), ..whole };
                let alike = case.inc.anomalies.iter().any(|m| suggested_fault(m) == this.fault);
                let direct = matches!(link, Link::Same | Link::Dependency | Link::Caller);
                belongs = (alike || direct)
                    && this.onset + self.config.window() >= case.inc.onset
                    && related(&self.config, link, this, &nearer);
            }
            if belongs {
                found.insert(*number, link);
            }
        }
    }

    /// Makes one of several incidents: the elder stays, the others are joined into it. Returns the elder's number.
    fn unite(&mut self, related: &[(u64, Link)], at: Timestamp, topology: &Topology) -> u64 {
        let elder = related.iter().map(|(n, _)| *n).min().unwrap_or_default();
        let younger: std::collections::BTreeSet<u64> =
            related.iter().map(|(n, _)| *n).filter(|n| *n != elder).collect();
        for number in younger {
            self.merge(elder, number, at, topology);
        }
        elder
    }

    fn merge(&mut self, elder: u64, younger: u64, at: Timestamp, topology: &Topology) {
        self.flush_storm(younger);
        let Some(into) = self.cases.get(&elder).map(|c| c.inc.id) else { return };
        let Some(case) = self.cases.get(&younger) else { return };
        let other = case.inc.id;
        let anomalies = case.inc.anomalies.clone();
        let (beyond, beyond_open) = case.beyond();
        let listed: Vec<EntityId> = case.entities().cloned().collect();
        let why = "a symptom belongs to both".to_owned();
        self.emit(younger, at, SYSTEM, EventKind::MergedInto { into, why });
        self.unindex(younger);
        for a in &anomalies {
            self.members.remove(&a.id);
        }
        self.emit(elder, at, SYSTEM, EventKind::Absorbed { other, anomalies: anomalies.clone() });
        if beyond > 0 {
            let row = EventKind::StormJoined { count: beyond, open: beyond_open, closed: 0 };
            self.emit(elder, at, SYSTEM, row);
        }
        for slot in self.counted.values_mut().filter(|(n, _)| *n == younger) {
            slot.0 = elder;
        }
        if let Some(case) = self.cases.get_mut(&elder) {
            case.unlisted.extend(listed);
        }
        self.index(elder, topology);
        for a in anomalies {
            // The elder was full: from here on these are only counted.
            if !self.members.contains_key(&a.id) && self.counted.len() < COUNTED_MAX {
                self.counted.insert(a.id, (elder, a.phase != Phase::Closed));
            }
        }
        self.dirty.insert(elder);
    }

    /// Writes what the storm of one incident came to.
    pub(super) fn flush_storm(&mut self, number: u64) {
        let Some(c) = self.storm.remove(&number) else { return };
        let Some(at) = self.cases.get(&number).map(|c| c.inc.updated_at) else { return };
        let row = EventKind::StormJoined { count: c.count, open: c.open, closed: c.closed };
        self.emit(number, at, SYSTEM, row);
    }
}

/// The newest state of a symptom: what is told of it is its worst moment, so that the end of a spike does not make
/// the spike look small.
fn newest(kept: &Anomaly, record: Anomaly) -> Anomaly {
    let mut out = kept.clone();
    out.phase = record.phase;
    out.last_seen = record.last_seen.max(kept.last_seen);
    if record.score > kept.score {
        out.score = record.score;
        out.severity = record.severity;
        out.description = record.description;
        out.explanation = record.explanation;
        out.direction = record.direction;
        if record.fault != FaultClass::Unknown {
            out.fault = record.fault;
        }
    }
    if out.kind == AnomalyKind::Alert && record.phase != Phase::Closed {
        out.labels = record.labels;
    }
    out
}

/// One line for people.
pub(super) fn title(fault: FaultClass, entity: &EntityId, signal: &str) -> String {
    match fault {
        FaultClass::Unknown => {
            let signal: String = signal.chars().take(80).collect();
            format!("Unusual {signal} on {}", entity.name())
        }
        known => format!("{} on {}", known.title(), entity.name()),
    }
}
