//! A small house around the workflow: a journal, kept checkpoints, a world that does what it is told, and crashes.

use nightshift_act::{ActError, Answer, Declares};
use nightshift_guard::{Guard, GuardConfig, Policies, Role};
use nightshift_model::{
    Action, ActionOutcome, Anomaly, AnomalyKind, BlastRadius, Change, Direction, EntityId, EntityMeta, EventKind,
    Explanation, FaultClass, Hypothesis, Image, Incident, IncidentId, IncidentStatus, JournalDraft, JournalEvent,
    KillSwitch, Kpi, OccurrenceId, Operation, PersonAction, PersonVerb, Phase, PlanHash, Severity, Timestamp, journal,
};
use nightshift_plan::{Look, PlanConfig, Playbooks, Stats};
use nightshift_reason::{Effect, Input, Node, ReplayRooms, Rooms, Workflow, WorkflowConfig};
use nightshift_topology::{Topology, TopologyConfig, TopologyFile};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_767_607_200);
pub(crate) const CPU: &str = "service_cpu_percent";

const ESTATE: &str = r#"
cluster: sim
services:
  - { name: api-gateway, owner: gateway, on_call: gateway-oncall, criticality: P0, depends_on: [payment-service] }
  - { name: payment-service, owner: payments, on_call: payments-oncall, criticality: P0, depends_on: [shop-db] }
  - { name: order-service, owner: commerce, criticality: P1 }
  - { name: shop-db, kind: database, owner: platform, criticality: P0 }
"#;

pub(crate) fn service(name: &str) -> EntityId {
    EntityId::new("sim", "service", "", name)
}

pub(crate) fn symptom(entity: &EntityId, signal: &str, score: f64, at: Timestamp, synthetic: bool) -> Anomaly {
    let fingerprint =
        Anomaly::fingerprint_of("default", entity.as_str(), AnomalyKind::Statistical, signal, &BTreeMap::new());
    Anomaly {
        id: OccurrenceId::derive(fingerprint, at),
        fingerprint,
        tenant: "default".into(),
        entity: EntityMeta { synthetic, ..EntityMeta::bare(entity.clone()) },
        kind: AnomalyKind::Statistical,
        signal: signal.into(),
        labels: BTreeMap::new(),
        onset: at,
        last_seen: at + Duration::from_secs(1),
        phase: Phase::Open,
        score,
        severity: Severity::from_score(score),
        direction: Direction::Up,
        fault: FaultClass::CpuSaturation,
        description: "cpu is high".into(),
        explanation: Explanation {
            observed: Some(97.0),
            expected: Some(30.0),
            lower: Some(20.0),
            upper: Some(40.0),
            ..Explanation::default()
        },
        source: "test".into(),
    }
}

pub(crate) fn cause(entity: &EntityId, fault: FaultClass, confidence: f64) -> Hypothesis {
    Hypothesis {
        entity: Some(entity.clone()),
        fault,
        confidence,
        score: 1.0,
        summary: format!("{} on {}", fault.title(), entity.name()),
        contributions: Vec::new(),
        evidence: Vec::new(),
        signal: String::new(),
    }
}

pub(crate) fn image() -> Image {
    let Value::Object(map) = json!({
        "replicas": 3, "ready_replicas": 3, "min_replicas": 2, "max_replicas": 12,
        "version": "1.8.2", "previous_version": "1.8.1",
    }) else {
        unreachable!("it is an object")
    };
    map.into_iter().collect()
}

/// What is to happen to orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum World {
    Works,
    /// Changes fail for certain.
    Fails,
    /// Looks are refused.
    Blind,
}

pub(crate) struct Lab {
    pub(crate) now: Timestamp,
    pub(crate) workflow: Workflow,
    pub(crate) guard: Guard,
    config: WorkflowConfig,
    topology: Topology,
    playbooks: Playbooks,
    plan: PlanConfig,
    stats: Stats,
    actuators: BTreeMap<String, Declares>,
    pub(crate) kill_switch: Option<KillSwitch>,
    pub(crate) external_policy: bool,
    pub(crate) fence: u64,
    // What is durable.
    pub(crate) rows: Vec<JournalEvent>,
    pub(crate) incidents: BTreeMap<IncidentId, Incident>,
    pub(crate) checkpoints: BTreeMap<IncidentId, Vec<u8>>,
    guard_state: nightshift_guard::GuardState,
    // What is not.
    pub(crate) looks: VecDeque<(IncidentId, Look)>,
    pub(crate) orders: VecDeque<Action>,
    pub(crate) watched: BTreeSet<Kpi>,
    pub(crate) refused: Vec<(bool, String)>,
    pub(crate) asked_policy: Vec<(IncidentId, PlanHash)>,
    pub(crate) postmortems: Vec<IncidentId>,
    pub(crate) learned: Vec<IncidentId>,
    // The world.
    pub(crate) world: World,
    /// Keys that took effect, each with how often it was carried out.
    pub(crate) carried_out: BTreeMap<String, u32>,
    /// Commits after which the process dies; `usize::MAX`: never.
    pub(crate) dies_at: usize,
    pub(crate) commits: usize,
    pub(crate) crashes: usize,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(GuardConfig { dry_run: false, ..GuardConfig::default() }, WorkflowConfig::default())
    }

    pub(crate) fn with(guard: GuardConfig, config: WorkflowConfig) -> Self {
        let mut topology = Topology::new(TopologyConfig::default());
        topology.declare(&TopologyFile::parse(ESTATE, "sim").unwrap());
        let all = Declares { idempotent: true, observable: true, dry_run: true, canary: true };
        let guard = Guard::new(guard, Policies::none());
        Self {
            now: NOW,
            workflow: Workflow::new(config.clone(), "default"),
            guard_state: guard.state().clone(),
            guard,
            config,
            topology,
            playbooks: Playbooks::shipped(),
            plan: PlanConfig::default(),
            stats: Stats::new(),
            actuators: BTreeMap::from([("estate".to_owned(), all)]),
            kill_switch: None,
            external_policy: false,
            fence: 1,
            rows: Vec::new(),
            incidents: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            looks: VecDeque::new(),
            orders: VecDeque::new(),
            watched: BTreeSet::new(),
            refused: Vec::new(),
            asked_policy: Vec::new(),
            postmortems: Vec::new(),
            learned: Vec::new(),
            world: World::Works,
            carried_out: BTreeMap::new(),
            dies_at: usize::MAX,
            commits: 0,
            crashes: 0,
        }
    }

    /// Rows as the engine would write them, then the incident as the workflow sees it.
    pub(crate) fn engine(&mut self, id: IncidentId, events: Vec<EventKind>) {
        for event in events {
            self.append(JournalDraft { incident: id, at: self.now, actor: "system".into(), event });
        }
        self.tell(id);
    }

    pub(crate) fn tell(&mut self, id: IncidentId) {
        if let Some(inc) = self.incidents.get(&id).cloned() {
            self.give(Input::Incident(Box::new(inc)));
        }
    }

    fn append(&mut self, draft: JournalDraft) {
        let seq = self.rows.len() as u64 + 1;
        let row = JournalEvent::from_draft("default", seq, draft);
        let id = row.incident;
        if let Some(inc) = journal::apply(self.incidents.remove(&id), &row) {
            self.incidents.insert(id, inc);
        }
        self.rows.push(row);
    }

    /// Opens an incident with a ranking.
    pub(crate) fn open(&mut self, entity: &EntityId, score: f64, causes: Vec<Hypothesis>) -> IncidentId {
        self.open_as(entity, score, causes, false)
    }

    pub(crate) fn open_as(&mut self, e: &EntityId, score: f64, causes: Vec<Hypothesis>, test: bool) -> IncidentId {
        let anomaly = symptom(e, CPU, score, self.now - Duration::from_secs(1), test);
        let id = IncidentId::derive("default", anomaly.id);
        let number = self.incidents.len() as u64 + 1;
        let title = "CPU saturation".to_owned();
        let radius = BlastRadius { affected: vec![e.clone()], ..BlastRadius::default() };
        let severity = Severity::from_score(score);
        let mut events = vec![
            EventKind::Opened { number, title: title.clone(), anomaly: Box::new(anomaly), recurrence_of: None },
            EventKind::Assessed { score, severity, title, blast_radius: radius },
        ];
        if !causes.is_empty() {
            events.push(EventKind::CausesRanked { revision: 1, hypotheses: causes });
        }
        events.push(EventKind::StatusChanged { to: IncidentStatus::RcaComplete, why: "ranked".into() });
        self.engine(id, events);
        id
    }

    /// The usual one: a saturated service and a sure cause.
    pub(crate) fn usual(&mut self) -> IncidentId {
        let payment = service("payment-service");
        self.open(&payment, 0.95, vec![cause(&payment, FaultClass::CpuSaturation, 0.92)])
    }

    pub(crate) fn rank(&mut self, id: IncidentId, hypotheses: Vec<Hypothesis>) {
        let revision = self.incidents[&id].rca_revision + 1;
        self.engine(id, vec![EventKind::CausesRanked { revision, hypotheses }]);
    }

    /// Gives one input, commits what comes of it, advances what may move, one commit each.
    pub(crate) fn give(&mut self, input: Input) {
        let effects = self.work(|w, rooms, now| (w.take(input, rooms, now), false)).0;
        if self.commit(effects) {
            self.settle();
        }
    }

    pub(crate) fn settle(&mut self) {
        let mut turns = 0;
        while let Some(id) = self.workflow.ready(self.now).first().copied() {
            loop {
                turns += 1;
                assert!(turns < 500, "the workflow does not come to rest: {}", self.node_name(id));
                let (effects, moved) = self.work(|w, rooms, now| {
                    let progress = w.advance(id, rooms, now);
                    (progress.effects, progress.moved)
                });
                if !self.commit(effects) {
                    return;
                }
                if !moved {
                    break;
                }
            }
        }
    }

    fn work(
        &mut self,
        f: impl FnOnce(&mut Workflow, &mut Rooms<'_>, Timestamp) -> (Vec<Effect>, bool),
    ) -> (Vec<Effect>, bool) {
        let (changes, budgets): (Vec<Change>, _) = (Vec::new(), BTreeMap::new());
        let mut rooms = Rooms {
            topology: &self.topology,
            playbooks: &self.playbooks,
            plan: &self.plan,
            changes: &changes,
            stats: &self.stats,
            what_if: None,
            guard: &mut self.guard,
            budgets: &budgets,
            kill_switch: self.kill_switch.as_ref(),
            external_policy: self.external_policy,
            actuators: &self.actuators,
            fence: self.fence,
            worker: "lab",
        };
        f(&mut self.workflow, &mut rooms, self.now)
    }

    /// Makes effects durable, then sends what is to be sent. `false`: the process died in between.
    fn commit(&mut self, effects: Vec<Effect>) -> bool {
        if effects.is_empty() {
            return true;
        }
        let mut after = Vec::new();
        let mut touched = BTreeSet::new();
        for effect in effects {
            match effect {
                Effect::Journal(draft) => {
                    touched.insert(draft.incident);
                    self.append(draft);
                }
                Effect::Checkpoint { incident, body: Some(body) } => {
                    self.checkpoints.insert(incident, body);
                }
                Effect::Checkpoint { incident, body: None } => {
                    self.checkpoints.remove(&incident);
                }
                Effect::GuardChanged => self.guard_state = self.guard.state().clone(),
                other => after.push(other),
            }
        }
        self.oracle(&after);
        self.commits += 1;
        if self.commits == self.dies_at {
            self.crash();
            return false;
        }
        for effect in after {
            match effect {
                Effect::Look { incident, look, .. } => self.looks.push_back((incident, look)),
                Effect::Order(action) => self.orders.push_back(*action),
                Effect::AskPolicy { incident, plan, .. } => self.asked_policy.push((incident, plan)),
                Effect::Watch { kpi, .. } => drop(self.watched.insert(kpi)),
                Effect::Unwatch(kpi) => drop(self.watched.remove(&kpi)),
                Effect::Refused { forbidden, why, .. } => self.refused.push((forbidden, why)),
                Effect::Postmortem { incident } => self.postmortems.push(incident),
                Effect::Learn { incident } => self.learned.push(incident),
                Effect::Journal(_) | Effect::Checkpoint { .. } | Effect::GuardChanged => {}
            }
        }
        true
    }

    /// What must hold whatever happened before: checked at every commit, against the journal alone.
    fn oracle(&self, after: &[Effect]) {
        for effect in after {
            let Effect::Order(order) = effect else { continue };
            assert!(!order.synthetic, "a test never reaches an actuator: {order:?}");
            let of = |row: &&JournalEvent| row.incident == order.incident;
            if order.operation != Operation::Observe {
                let intended = self
                    .rows
                    .iter()
                    .filter(of)
                    .any(|r| matches!(&r.event, EventKind::ActionIntended { action } if action.key == order.key));
                assert!(intended, "no intent before {}", order.key);
            }
            if !order.operation.changes() {
                continue;
            }
            let allowed = self.rows.iter().filter(of).any(|r| match &r.event {
                EventKind::Judged { verdict } => {
                    verdict.plan == order.plan && verdict.decision.as_str() == "execute" && !verdict.dry_run
                }
                EventKind::Approved { plan, .. } => *plan == order.plan,
                EventKind::Overridden { plan, to, .. } => *plan == order.plan && to.as_str() == "execute",
                _ => false,
            });
            assert!(allowed, "{} was neither judged `execute` nor agreed to", order.key);
            assert!(self.kill_switch.as_ref().is_none_or(|k| !k.on), "the kill switch is on: {}", order.key);
        }
        // Every step is an edge of the graph.
        for id in self.incidents.keys() {
            let mut last: Option<Node> = None;
            for row in self.rows.iter().filter(|r| r.incident == *id) {
                let EventKind::NodeDone { node, .. } = &row.event else { continue };
                let node: Node = node.parse().unwrap();
                // What comes back after its case was over begins anew.
                let anew = node == Node::Detection && matches!(last, Some(Node::Learn | Node::Resolved));
                let fine = anew || last.is_none_or(|last| last.followers().contains(&node));
                assert!(fine, "{last:?} -> {node}: {}", self.path(*id));
                last = Some(node);
            }
        }
        // Never two things at once for one incident: at most one intent without an end, and one plan between them.
        for id in self.incidents.keys() {
            let mut open = BTreeSet::new();
            for row in self.rows.iter().filter(|r| r.incident == *id) {
                match &row.event {
                    EventKind::ActionIntended { action } => drop(open.insert(action.key.clone())),
                    EventKind::ActionEnded { key, .. } => drop(open.remove(key)),
                    _ => {}
                }
                assert!(open.len() <= 1, "{} has {open:?} under way at once", id);
            }
        }
    }

    /// The process dies; another one goes on from what is durable.
    pub(crate) fn crash(&mut self) {
        self.dies_at = usize::MAX;
        self.crashes += 1;
        self.fence += 1;
        self.looks.clear();
        self.orders.clear();
        self.watched.clear();
        self.guard.restore(self.guard_state.clone());
        let kept: Vec<_> = self.checkpoints.iter().map(|(id, body)| (*id, body.clone())).collect();
        self.workflow = Workflow::restore(self.config.clone(), "default", kept);
        let all: Vec<Incident> = self.incidents.values().cloned().collect();
        for inc in all {
            let known = self.checkpoints.contains_key(&inc.id) || inc.status.is_open();
            if known {
                let effects = self.work(|w, rooms, now| (w.take(Input::Incident(Box::new(inc)), rooms, now), false)).0;
                self.commit(effects);
            }
        }
        self.give(Input::Recovered);
    }

    pub(crate) fn pass(&mut self, secs: u64) {
        self.now = self.now + Duration::from_secs(secs);
        self.give(Input::Tick);
    }

    /// Lets time go on from timer to timer, at most so many seconds.
    pub(crate) fn pass_until(&mut self, secs: u64, done: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_secs(secs);
        while !done(self) && self.now < end {
            let next = self.workflow.wants_tick_at().unwrap_or(end).clamp(self.now, end);
            self.now = next.max(self.now + Duration::from_millis(100)).min(end);
            self.give(Input::Tick);
            self.pump();
        }
    }

    /// Answers everything that is under way.
    pub(crate) fn pump(&mut self) {
        for _ in 0..200 {
            if !(self.answer_look() || self.answer_order() || self.write_postmortem()) {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    pub(crate) fn answer_look(&mut self) -> bool {
        let Some((incident, look)) = self.looks.pop_front() else { return false };
        let result = match self.world {
            World::Blind => Err(ActError::NotDone("nobody answers".into())),
            _ => Ok(image()),
        };
        self.give(Input::Looked { incident, look, result });
        true
    }

    pub(crate) fn answer_order(&mut self) -> bool {
        let Some(order) = self.orders.pop_front() else { return false };
        let result = self.carry_out(&order);
        self.give(Input::Ended { order: Box::new(order), result });
        true
    }

    /// What the world does. A key takes effect once, however often it comes.
    pub(crate) fn carry_out(&mut self, order: &Action) -> Result<Answer, ActError> {
        let done = |detail: &str| Answer { outcome: ActionOutcome::Done, detail: detail.into(), image: image() };
        match order.operation {
            Operation::Prepare | Operation::DryRun => Ok(done("fine")),
            Operation::Observe => {
                let found = self.carried_out.contains_key(&order.key);
                let outcome = if found { ActionOutcome::FoundDone } else { ActionOutcome::Failed };
                Ok(Answer { outcome, detail: "looked".into(), image: image() })
            }
            Operation::Canary | Operation::Apply | Operation::Undo => {
                if self.world == World::Fails {
                    return Err(ActError::NotDone("the API server is away".into()));
                }
                *self.carried_out.entry(order.key.clone()).or_insert(0) += 1;
                Ok(done("done"))
            }
        }
    }

    pub(crate) fn write_postmortem(&mut self) -> bool {
        let Some(incident) = self.postmortems.pop() else { return false };
        let through_seq = self.rows.len() as u64;
        self.engine(incident, vec![EventKind::PostmortemWritten { sha256: "00".repeat(32), through_seq }]);
        true
    }

    /// Readings of all that is watched, one a second.
    pub(crate) fn readings(&mut self, n: u32, value: f64) {
        for _ in 0..n {
            self.now = self.now + Duration::from_secs(1);
            let kpis: Vec<Kpi> = self.watched.iter().cloned().collect();
            for kpi in kpis {
                let at = self.now;
                self.give(Input::Reading { kpi, at, value });
            }
            self.give(Input::Tick);
            self.pump();
        }
    }

    pub(crate) fn person(&mut self, incident: IncidentId, role: Role, verb: PersonVerb) {
        let action = PersonAction { incident, actor: format!("a-{role}"), verb };
        let known = self.incidents.get(&incident).cloned().map(Box::new);
        self.give(Input::Person { action, role, known });
    }

    pub(crate) fn hash(&self, id: IncidentId) -> PlanHash {
        self.incidents[&id].plan.as_ref().map(|p| p.hash).unwrap_or_default()
    }

    pub(crate) fn node(&self, id: IncidentId) -> Option<Node> {
        self.workflow.case(id).map(nightshift_reason::Case::node)
    }

    fn node_name(&self, id: IncidentId) -> &'static str {
        self.node(id).map_or("nowhere", Node::as_str)
    }

    pub(crate) fn status(&self, id: IncidentId) -> IncidentStatus {
        self.incidents[&id].status
    }

    /// Names of the nodes that an incident went through, in order.
    pub(crate) fn path(&self, id: IncidentId) -> String {
        let nodes = self.rows.iter().filter(|r| r.incident == id).filter_map(|r| match &r.event {
            EventKind::NodeDone { node, .. } => Some(node.as_str()),
            _ => None,
        });
        nodes.collect::<Vec<_>>().join(" ")
    }

    /// Rows of one word.
    pub(crate) fn count(&self, id: IncidentId, action: &str) -> usize {
        self.rows.iter().filter(|r| r.incident == id && r.event.action() == action).count()
    }

    /// Notes of the rows of one word.
    pub(crate) fn said(&self, id: IncidentId, action: &str) -> Vec<String> {
        let rows = self.rows.iter().filter(|r| r.incident == id && r.event.action() == action);
        rows.map(|r| r.event.detail()).collect()
    }

    pub(crate) fn replay_rooms<'a>(&'a self, guard: &'a Guard, workflow: &'a WorkflowConfig) -> ReplayRooms<'a> {
        ReplayRooms { topology: &self.topology, playbooks: &self.playbooks, plan: &self.plan, guard, workflow }
    }

    pub(crate) fn switch(&mut self, on: bool) {
        self.kill_switch = Some(KillSwitch { on, by: "a-admin".into(), why: String::new(), at: self.now });
        self.give(Input::Tick);
    }
}
