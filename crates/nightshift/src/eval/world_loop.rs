//! The loop in virtual time: an estate, the rooms that watch it, and what they made of it. No bus, no store, no clock:
//! the rooms are pure, so they are stepped here just as their agents step them.

use super::closed::{Responder, Twin, series_of};
use super::recheck::Recheck;
use crate::agents::{DetectRooms, ShardRooms};
use nightshift_detect::Effects;
use nightshift_diagnose::{DiagnoseConfig, Effect, Engine, Input};
use nightshift_model::batch::{BatchBuilder, BatchView, labels};
use nightshift_model::hash::series_fingerprint;
use nightshift_model::{
    AnomalyKind, Decision, EntityId, EventKind, Hypothesis, IncidentId, JournalDraft, OccurrenceId, Operation, Phase,
    Plan, PlanHash, Timestamp, proto,
};
use nightshift_reason as reason;
use nightshift_sim::{Scrape, World};
use nightshift_topology::{SpanJoiner, Topology};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Score from which an open alarm counts as a flagged sample: what a dashboard shows.
const FLAGGED_SCORE: f64 = 0.5;

/// Rounds in which workflow and errands answer each other within a second: far above the longest way.
const ROUNDS_MAX: usize = 200;

/// One ranking of causes as it was told.
#[derive(Debug, Clone)]
pub(crate) struct Ranked {
    pub(crate) at: Timestamp,
    pub(crate) hypotheses: Vec<Hypothesis>,
}

/// One incident as the journal tells it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// When it was opened, by the clock of the loop.
    pub(crate) opened: Timestamp,
    /// The same in seconds of the simulation.
    pub(crate) opened_secs: f64,
    pub(crate) title: String,
    /// Entities of its symptoms.
    pub(crate) members: BTreeSet<EntityId>,
    pub(crate) rankings: Vec<Ranked>,
    pub(crate) merged_into: Option<IncidentId>,
    /// Plans that were made.
    pub(crate) plans: BTreeMap<PlanHash, Plan>,
    /// A person was asked.
    pub(crate) asked: bool,
    /// Operations that changed something, undo left out, and when the first of them began.
    pub(crate) changed: u64,
    pub(crate) first_change: Option<Timestamp>,
    /// Operations that were taken back.
    pub(crate) undone: u64,
    /// Verified after something was executed: when, which plan.
    pub(crate) verified: Option<(f64, Option<PlanHash>)>,
    /// It came back after it was verified.
    pub(crate) relapsed: bool,
    /// When the KPI of the verified plan was back in the estate without actions, if before.
    pub(crate) twin_back: Option<f64>,
    /// What happened, one line each, for those who tune.
    pub(crate) story: Vec<String>,
}

/// What became of actions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Deeds {
    /// Actions that a policy stopped.
    pub(crate) blocked: u64,
    /// Actions that ran though a rule speaks against them.
    pub(crate) violations: u64,
}

/// Wire forms of an estate's series, made once.
pub(crate) struct Wire {
    labels: Vec<(u64, Vec<u8>)>,
}

impl Wire {
    fn of(world: &World) -> Self {
        let tenant = world.spec().tenant.clone();
        let wire = |def: &nightshift_sim::SeriesDef| {
            let mut pairs: Vec<(&str, &str)> = vec![(labels::NAME, def.name)];
            pairs.extend(def.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())));
            pairs.sort_unstable();
            let mut bytes = Vec::new();
            for (name, value) in pairs {
                labels::push(&mut bytes, name, value);
            }
            (series_fingerprint(&tenant, def.entity.id.as_str(), &bytes), bytes)
        };
        Self { labels: world.series().iter().map(wire).collect() }
    }
}

/// Samples of series that are well, and how many of them were flagged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Samples {
    pub(crate) healthy: u64,
    pub(crate) flagged: u64,
}

/// An estate and the rooms that watch it.
pub(crate) struct WorldLoop {
    world: Arc<Mutex<World>>,
    wire: Wire,
    tenant: String,
    rooms: ShardRooms,
    spans: SpanJoiner,
    pub(crate) engine: Engine,
    pub(crate) topology: Topology,
    scrape: Scrape,
    batch: BatchBuilder,
    effects: Effects,
    inputs: Vec<Input>,
    /// Alarms of metrics that are open and count.
    alarms: BTreeSet<OccurrenceId>,
    pub(crate) seen: BTreeMap<IncidentId, Seen>,
    pub(crate) samples: Samples,
    traces: u64,
    responder: Option<Responder>,
    twins: BTreeMap<IncidentId, Twin>,
    recheck: Recheck,
    pub(crate) deeds: Deeds,
    /// Whether a story is wanted.
    pub(crate) telling: bool,
}

impl WorldLoop {
    pub(crate) fn new(world: World, rooms: &DetectRooms, diagnose: &DiagnoseConfig, topology: Topology) -> Self {
        let tenant = world.spec().tenant.clone();
        Self {
            wire: Wire::of(&world),
            rooms: ShardRooms::new(rooms, 0),
            spans: SpanJoiner::new(rooms.spans.clone()),
            engine: Engine::new(diagnose.clone(), &tenant),
            topology,
            scrape: Scrape::default(),
            batch: BatchBuilder::default(),
            effects: Effects::default(),
            inputs: Vec::new(),
            alarms: BTreeSet::new(),
            seen: BTreeMap::new(),
            samples: Samples::default(),
            traces: 0,
            responder: None,
            twins: BTreeMap::new(),
            recheck: Recheck::default(),
            deeds: Deeds::default(),
            telling: false,
            tenant,
            world: Arc::new(Mutex::new(world)),
        }
    }

    /// The estate, for its actuator.
    pub(crate) fn world(&self) -> Arc<Mutex<World>> {
        Arc::clone(&self.world)
    }

    /// From now on something is done about incidents.
    pub(crate) fn close(&mut self, responder: Responder) {
        self.responder = Some(responder);
    }

    /// What became of the KPIs where nothing was done; asked for at the end.
    pub(crate) fn compare(&mut self) {
        for (id, twin) in &self.twins {
            if let Some(seen) = self.seen.get_mut(id) {
                seen.twin_back = twin.back_secs;
            }
        }
    }

    pub(crate) fn now_secs(&self) -> f64 {
        self.world.lock().now_secs()
    }

    /// One second: the estate moves, is scraped, and what the rooms find is grouped and ranked. `healthy`: nothing is
    /// wrong in truth, so that every flagged sample is a false one.
    pub(crate) fn step(&mut self, healthy: bool) {
        let now = {
            let mut world = self.world.lock();
            world.tick();
            world.scrape(&mut self.scrape);
            world.now()
        };
        for twin in self.twins.values_mut() {
            twin.step();
        }
        let payload = self.pack();
        if let Ok(mut view) = BatchView::parse(&payload) {
            // What is built here is whole; were it not, nothing would be detected and the figures would say so.
            let _ = self.rooms.step(&self.tenant, &mut view, &mut self.spans, &mut self.effects, now);
        }
        self.rooms.tick(now, &mut self.effects);
        for (_, edge) in self.spans.drain(now) {
            self.topology.apply(&edge, now);
        }
        // A change is published as it is received; what telemetry shows of it takes one hop more.
        if let Some(r) = &mut self.responder {
            self.scrape.changes.iter().for_each(|c| r.keep_change(c));
        }
        self.inputs.extend(self.scrape.changes.drain(..).map(Input::from));
        for anomaly in self.effects.anomalies.drain(..) {
            if matches!(anomaly.kind, AnomalyKind::Statistical) {
                match anomaly.phase {
                    Phase::Closed => drop(self.alarms.remove(&anomaly.id)),
                    _ if anomaly.score >= FLAGGED_SCORE => drop(self.alarms.insert(anomaly.id)),
                    _ => {}
                }
            }
            self.inputs.push(Input::from(anomaly));
        }
        let minutes = std::mem::take(&mut self.effects.features);
        if healthy {
            self.samples.healthy += self.scrape.values.iter().filter(|v| v.is_finite()).count() as u64;
            self.samples.flagged += self.alarms.len() as u64;
        }
        self.inputs.push(Input::Tick);
        let effects = self.engine.step_all(self.inputs.drain(..), &self.topology, now);
        let mut touched = BTreeSet::new();
        for draft in effects.into_iter().filter_map(Effect::into_journal) {
            touched.insert(draft.incident);
            self.note(draft, now);
        }
        let Some(mut r) = self.responder.take() else { return };
        let mut news: VecDeque<reason::Input> = touched
            .iter()
            .filter_map(|id| self.engine.incident(*id))
            .map(|incident| reason::Input::Incident(Box::new(incident.clone())))
            .collect();
        if !minutes.is_empty() {
            minutes.iter().for_each(|row| r.count(row));
            r.account(&self.topology, now);
        }
        {
            let world = self.world.lock();
            if let Some(what_if) = &mut r.what_if {
                for (def, value) in world.series().iter().zip(&self.scrape.values).filter(|(_, v)| v.is_finite()) {
                    what_if.observe(&def.entity.id, def.name, self.scrape.at, *value);
                }
            }
            let value_of =
                |kpi: &nightshift_model::Kpi| series_of(&world, kpi).and_then(|i| self.scrape.values.get(i).copied());
            r.readings(value_of, self.scrape.at, &mut news);
            r.answers(world.now_secs(), &mut news);
        }
        news.push_back(reason::Input::Tick);
        self.respond(&mut r, news, now);
        self.responder = Some(r);
    }

    /// What happened goes to the workflow, node after node, until it waits for something.
    fn respond(&mut self, r: &mut Responder, mut news: VecDeque<reason::Input>, now: Timestamp) {
        for _ in 0..ROUNDS_MAX {
            while let Some(input) = news.pop_front() {
                let effects = r.with(&self.topology, |workflow, rooms| workflow.take(input, rooms, now));
                self.carry(r, effects, &mut news, now);
            }
            for id in r.workflow.ready(now) {
                for _ in 0..ROUNDS_MAX {
                    let progress = r.with(&self.topology, |workflow, rooms| workflow.advance(id, rooms, now));
                    self.carry(r, progress.effects, &mut news, now);
                    if !progress.moved {
                        break;
                    }
                }
            }
            if news.is_empty() {
                return;
            }
        }
    }

    fn carry(
        &mut self,
        r: &mut Responder,
        effects: Vec<reason::Effect>,
        news: &mut VecDeque<reason::Input>,
        now: Timestamp,
    ) {
        let mut rows = Vec::new();
        let mut errands = Vec::new();
        for effect in effects {
            match effect {
                reason::Effect::Journal(draft) => rows.push(draft),
                other => errands.push(other),
            }
        }
        self.engine.fold(&rows, &self.topology);
        for draft in rows {
            if let EventKind::ApprovalRequested { plan, .. } = &draft.event {
                r.asked(self.now_secs(), draft.incident, *plan);
            }
            self.note(draft, now);
        }
        for errand in errands {
            match errand {
                reason::Effect::Look { incident, look, .. } => {
                    let result = r.look(&look);
                    news.push_back(reason::Input::Looked { incident, look, result });
                }
                reason::Effect::Order(order) => {
                    if order.operation.changes() {
                        self.about_to_change(&order, now);
                    }
                    let result = r.perform(&order);
                    news.push_back(reason::Input::Ended { order, result });
                }
                reason::Effect::Watch { kpi, since, interval_secs } => r.watch(kpi, since, interval_secs),
                reason::Effect::Unwatch(kpi) => r.unwatch(&kpi),
                _ => {}
            }
        }
    }

    /// Before the first change of an incident the estate is copied: in the copy nothing is done.
    fn about_to_change(&mut self, order: &nightshift_model::Action, now: Timestamp) {
        let Some(seen) = self.seen.get_mut(&order.incident) else { return };
        let plan = seen.plans.get(&order.plan);
        let wrong = self.recheck.executed(order, plan, &self.topology, now);
        self.deeds.violations += u64::from(!wrong.is_empty());
        if self.telling {
            seen.story.push(format!("{now} {} {} of {} {wrong:?}", order.operation, order.action, order.target.name()));
        }
        if order.operation == Operation::Undo {
            seen.undone += 1;
            return;
        }
        seen.changed += 1;
        seen.first_change = seen.first_change.or(Some(now));
        if let Some(plan) = plan {
            let world = &self.world;
            let twin =
                self.twins.entry(order.incident).or_insert_with(|| Twin::new(world.lock().clone(), &plan.verification));
            twin.promise(&plan.verification);
        }
    }

    /// The scrape as one batch.
    fn pack(&mut self) -> bytes::Bytes {
        let Self { batch, world, scrape, wire, .. } = self;
        let world = world.lock();
        for meta in world.entities() {
            batch.entity(meta);
        }
        for ((def, value), (fingerprint, labels)) in world.series().iter().zip(&scrape.values).zip(&wire.labels) {
            if value.is_finite() {
                batch.series(*fingerprint, def.entity_index, def.kind, labels);
                batch.sample(scrape.at, *value);
            }
        }
        for line in &scrape.logs {
            batch.log(&proto::LogLine {
                entity: line.entity_index,
                time_ns: line.at.0,
                severity: line.severity,
                body: scrape.body(line).to_owned(),
                ..proto::LogLine::default()
            });
        }
        for span in &scrape.spans {
            self.traces += 1;
            let trace = (u128::from(self.traces) << 64 | 1).to_be_bytes().to_vec();
            let (client, server) = (self.traces.to_be_bytes().to_vec(), (!self.traces).to_be_bytes().to_vec());
            let duration_ns = (span.duration_ms * 1e6) as u64;
            let whole = proto::Span {
                entity: span.from,
                start_ns: span.at.0.saturating_sub(duration_ns as i64),
                duration_ns,
                trace_id: trace,
                span_id: client.clone(),
                operation: "call".into(),
                kind: 3,
                error: span.error,
                ..proto::Span::default()
            };
            batch.span(&whole);
            batch.span(&proto::Span { entity: span.to, span_id: server, parent_span_id: client, kind: 2, ..whole });
        }
        batch.finish("estate")
    }

    fn note(&mut self, draft: JournalDraft, now: Timestamp) {
        let now_secs = self.now_secs();
        if let EventKind::Opened { title, .. } = &draft.event {
            let seen = Seen { opened: now, opened_secs: now_secs, title: title.clone(), ..Seen::default() };
            self.seen.insert(draft.incident, seen);
        }
        let Some(seen) = self.seen.get_mut(&draft.incident) else { return };
        if self.telling && !matches!(draft.event, EventKind::AnomalyJoined { .. } | EventKind::NodeDone { .. }) {
            seen.story.push(format!("{now} {} {}", draft.event.action(), draft.event.detail()));
            if let EventKind::PlanProposed { alternatives, findings, .. } = &draft.event {
                seen.story.extend(alternatives.iter().chain(findings).map(|line| format!("    {line}")));
            }
        }
        match draft.event {
            EventKind::Opened { anomaly, .. } | EventKind::AnomalyJoined { anomaly, .. } => {
                seen.members.insert(anomaly.entity.id);
            }
            EventKind::Absorbed { anomalies, .. } => {
                seen.members.extend(anomalies.into_iter().map(|a| a.entity.id));
            }
            EventKind::CausesRanked { hypotheses, .. } => seen.rankings.push(Ranked { at: now, hypotheses }),
            EventKind::Assessed { title, .. } => seen.title = title,
            EventKind::MergedInto { into, .. } => seen.merged_into = Some(into),
            EventKind::Reopened { .. } => seen.relapsed |= seen.verified.is_some(),
            EventKind::PlanProposed { plan, .. } => drop(seen.plans.insert(plan.hash, *plan)),
            EventKind::Judged { verdict } => {
                let by_policy = verdict.decisive().any(|r| r.rule.starts_with("policy/"));
                if verdict.decision == Decision::Deny && by_policy {
                    self.deeds.blocked += seen.plans.get(&verdict.plan).map_or(1, |p| p.steps.len() as u64);
                }
            }
            EventKind::ApprovalRequested { .. } => seen.asked = true,
            EventKind::Approved { plan, .. } => self.recheck.approved(plan),
            EventKind::Verified { plan, executed: true, .. } => {
                seen.verified = Some((now_secs, plan));
                seen.relapsed = false;
            }
            _ => {}
        }
    }
}
