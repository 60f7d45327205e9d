//! What an incident teaches changes the next ranking, in the right direction and never without bound.

use crate::*;
use nightshift_diagnose::RankConfig;
use nightshift_diagnose::rank::{Symptom, rank};
use nightshift_model::journal::apply;
use nightshift_model::{
    Action, ActionOutcome, ActionType, Anomaly, AnomalyKind, Compare, Covered, Direction, EntityId, EntityMeta,
    EventKind, Explanation, FaultClass, Feedback, Hypothesis, Incident, IncidentId, JournalEvent, Kpi, OccurrenceId,
    Operation, Phase, Plan, PlanHash, PlanStep, Priority, Risk, Rollback, Severity, SignalFamily, Timestamp,
    Verification,
};
use nightshift_topology::{Topology, TopologyConfig};
use std::time::Duration;

const DAY: u64 = 86_400;

fn service(name: &str) -> EntityId {
    EntityId::new("c", "service", "", name)
}

fn now() -> Timestamp {
    Timestamp::from_secs(1_800_000_000)
}

fn ago(days: u64) -> Timestamp {
    now() - Duration::from_secs(days * DAY)
}

fn anomaly(n: u128, name: &str) -> Anomaly {
    Anomaly {
        id: OccurrenceId(n),
        fingerprint: n as u64,
        tenant: "default".into(),
        entity: EntityMeta::bare(service(name)),
        kind: AnomalyKind::Statistical,
        signal: "service_latency_p99_ms".into(),
        labels: Default::default(),
        onset: ago(1),
        last_seen: ago(1),
        phase: Phase::Open,
        score: 0.9,
        severity: Severity::Critical,
        direction: Direction::Up,
        fault: FaultClass::LatencySpike,
        description: "slow".into(),
        explanation: Explanation::default(),
        source: "test".into(),
    }
}

fn symptom(a: &Anomaly) -> Symptom {
    Symptom::from_anomaly(a, &Topology::new(TopologyConfig::default()))
}

/// Two services that are ill alike: nothing but the past tells which is the cause.
fn ranking(knowledge: &Knowledge) -> Vec<Hypothesis> {
    let symptoms = ["a", "b"].map(|name| symptom(&anomaly(u128::from(name.as_bytes()[0]), name)));
    let topology = Topology::new(TopologyConfig::default());
    rank(&RankConfig::default(), knowledge.priors(), &symptoms, &[], &topology)
}

fn confidence(knowledge: &Knowledge, name: &str) -> f64 {
    let list = ranking(knowledge);
    list.iter().filter(|h| h.entity == Some(service(name))).map(|h| h.confidence).sum()
}

/// The journal of one incident.
struct Book(Vec<JournalEvent>, IncidentId);

impl Book {
    /// Opened by latency on `name`; the machine puts latency on `top` first.
    fn new(n: u128, name: &str, top: &str) -> Self {
        let mut book = Self(Vec::new(), IncidentId(n));
        let (number, title) = (n as u64, format!("slow {name}"));
        book.add(EventKind::Opened { number, title, anomaly: Box::new(anomaly(n, name)), recurrence_of: None });
        let h = |name: &str, confidence| Hypothesis {
            entity: Some(service(name)),
            fault: FaultClass::LatencySpike,
            confidence,
            score: 1.0,
            summary: name.into(),
            contributions: Vec::new(),
            evidence: Vec::new(),
            signal: String::new(),
        };
        let other = if top == "a" { "b" } else { "a" };
        book.add(EventKind::CausesRanked { revision: 1, hypotheses: vec![h(top, 0.6), h(other, 0.3)] });
        book
    }

    fn add(&mut self, event: EventKind) -> &mut Self {
        let (seq, tenant, actor) = (self.0.len() as u64 + 1, "default".into(), "system".into());
        let at = ago(1) + Duration::from_secs(seq);
        self.0.push(JournalEvent { tenant, seq, incident: self.1, at, actor, event });
        self
    }

    fn incident(&self) -> Incident {
        self.0.iter().fold(None, apply).unwrap()
    }

    fn learnt(&self) -> Outcome {
        learn(&self.incident(), &self.0).unwrap()
    }

    /// A plan for latency on `name` is carried out, and helps or not.
    fn carried_out(&mut self, name: &str, helped: bool) -> &mut Self {
        let plan = plan(self.1, name);
        let hash = plan.hash;
        let action = Action {
            key: "k".into(),
            incident: self.1,
            plan: hash,
            step: 0,
            operation: Operation::Apply,
            attempt: 1,
            action: ActionType::RestartPods,
            target: service(name),
            actuator: "estate".into(),
            params: Default::default(),
            before: Default::default(),
            fence: 1,
            deadline: now(),
            synthetic: false,
        };
        self.add(EventKind::PlanProposed { plan: Box::new(plan), alternatives: Vec::new(), findings: Vec::new() });
        self.add(EventKind::ActionIntended { action: Box::new(action) });
        let (key, outcome, detail, image) = ("k".into(), ActionOutcome::Done, String::new(), Default::default());
        self.add(EventKind::ActionEnded { key, outcome, detail, image });
        if helped {
            self.add(EventKind::Verified { plan: Some(hash), readings: Vec::new(), executed: true });
            self.add(EventKind::Resolved { why: "back".into() })
        } else {
            self.add(EventKind::VerificationFailed { plan: hash, readings: Vec::new(), why: "no".into() });
            self.add(EventKind::Escalated { why: "no".into(), to: Vec::new() })
        }
    }

    fn feedback(&mut self, feedback: Feedback) -> &mut Self {
        self.add(EventKind::FeedbackGiven { feedback })
    }
}

fn plan(incident: IncidentId, name: &str) -> Plan {
    Plan {
        hash: PlanHash::default(),
        parent: None,
        incident,
        tenant: "default".into(),
        rca_revision: 1,
        playbook: "restart_hung".into(),
        playbook_digest: "0123456789ab".into(),
        title: "restart".into(),
        covers: vec![Covered { entity: service(name), fault: FaultClass::LatencySpike, confidence: 0.6 }],
        confidence: 0.6,
        steps: vec![PlanStep {
            name: "restart".into(),
            action: ActionType::RestartPods,
            target: service(name),
            actuator: "estate".into(),
            params: Default::default(),
            expects: Default::default(),
            risk: Risk::Low,
            estimated_impact: String::new(),
            deadline_secs: 30,
            rollback: Rollback::Nothing,
            canary: None,
        }],
        verification: Verification {
            kpi: Kpi { entity: service(name), signal: "x".into(), labels: Default::default() },
            compare: Compare::Below,
            threshold: 1.0,
            readings: 3,
            interval_secs: 1,
            deadline_secs: 60,
        },
        risk: Risk::Low,
        priority: Priority::Immediate,
        owner: String::new(),
        escalation_path: Vec::new(),
        estimated_resolution_secs: 30,
        expected_benefit: 0.5,
        acts_at_once: true,
        prediction: None,
        made_at: ago(1),
    }
    .sealed()
}

fn false_alarm() -> Feedback {
    Feedback::FalsePositive { note: String::new() }
}

fn truth(name: &str) -> Feedback {
    Feedback::TrueCause { entity: service(name), fault: FaultClass::LatencySpike, note: String::new() }
}

fn fold(outcomes: impl IntoIterator<Item = Outcome>) -> Knowledge {
    Knowledge::fold(outcomes, &LearnConfig::default(), now())
}

#[test]
fn an_incident_whose_fix_helped_raises_its_cause_next_time() {
    let nothing = Knowledge::default();
    assert!((confidence(&nothing, "a") - confidence(&nothing, "b")).abs() < 1e-9);
    let outcome = Book::new(1, "b", "b").carried_out("b", true).learnt();
    assert_eq!((outcome.confirmed, outcome.cause.clone().unwrap().entity), (Confirmed::Verification, service("b")));
    assert_eq!(
        outcome.tried,
        [Tried { playbook: "restart_hung".into(), fault: FaultClass::LatencySpike, helped: true }]
    );
    assert_eq!(outcome.symptoms[&service("b")].iter().copied().collect::<Vec<_>>(), [SignalFamily::Latency]);
    let knowledge = fold([outcome.clone()]);
    assert!(confidence(&knowledge, "b") > confidence(&nothing, "b"));
    assert!(confidence(&knowledge, "a") < confidence(&nothing, "a"));
    // The next ranking says whom it has that from.
    let first = &ranking(&knowledge)[0];
    assert_eq!(first.entity, Some(service("b")));
    let cited = format!("incident:{}", outcome.incident);
    assert!(first.evidence.iter().any(|e| e.id == cited), "{:?}", first.evidence);
    assert!(first.contributions.iter().any(|c| c.evidence.contains(&cited) && c.log_odds > 0.0));
}

#[test]
fn a_false_alarm_lowers_what_was_put_first() {
    let outcome =
        Book::new(1, "b", "b").add(EventKind::Resolved { why: "over".into() }).feedback(false_alarm()).learnt();
    assert!(outcome.false_positive && outcome.cause.is_none());
    let (before, after) = (Knowledge::default(), fold([outcome]));
    assert!(confidence(&after, "b") < confidence(&before, "b"));
    assert!(confidence(&after, "a") > confidence(&before, "a"));
}

#[test]
fn a_wrong_label_is_corrected_by_a_person() {
    // The machine said b, its plan even seemed to help; a person knows that it was a.
    let mut book = Book::new(1, "b", "b");
    book.carried_out("b", true);
    let before = fold([book.learnt()]);
    let after = fold([book.feedback(truth("a")).learnt()]);
    assert!(confidence(&before, "b") > confidence(&before, "a"));
    assert!(confidence(&after, "a") > confidence(&after, "b"));
    // Right after all: nothing is lowered.
    let outcome = Book::new(2, "a", "a").feedback(truth("a")).learnt();
    assert_eq!((outcome.wrongly.clone(), outcome.confirmed), (None, Confirmed::Person));
    // The newest word counts: of both the later outcome.
    let taken_back = book.feedback(false_alarm()).learnt();
    assert!(taken_back.false_positive && taken_back.wrongly.is_some());
}

#[test]
fn a_label_that_nothing_confirms_teaches_nothing() {
    let by_itself = Book::new(1, "b", "b").add(EventKind::Resolved { why: "symptoms ended".into() }).learnt();
    let not_helped = Book::new(2, "b", "b").carried_out("b", false).learnt();
    for outcome in [&by_itself, &not_helped] {
        assert_eq!((outcome.confirmed, &outcome.cause), (Confirmed::No, &None));
    }
    let knowledge = fold([by_itself, not_helped]);
    assert!(knowledge.priors().is_empty());
    let rate = knowledge.rate("restart_hung", FaultClass::LatencySpike).unwrap();
    assert!(rate.failures > 0.9 && rate.successes == 0.0 && rate.mean() < 0.4, "{rate:?}");
    assert_eq!(knowledge.counts().collect::<Vec<_>>(), [("restart_hung", FaultClass::LatencySpike, 0, 1)]);
}

#[test]
fn influence_is_bounded_however_long_the_history() {
    let one = Book::new(1, "b", "b").carried_out("b", true).feedback(truth("b")).learnt();
    let many = (0..1_000).map(|i| Outcome { incident: format!("{i:032x}"), ..one.clone() });
    let (few, all) = (fold((0..5).map(|i| Outcome { incident: format!("{i:032x}"), ..one.clone() })), fold(many));
    let most = nightshift_diagnose::priors::PLACE_MAX + nightshift_diagnose::priors::FAULT_MAX;
    let sum = |k: &Knowledge| k.priors().of(&service("b"), FaultClass::LatencySpike).map(|t| t.log_odds).sum::<f64>();
    assert!(sum(&all) <= most && sum(&all) >= sum(&few) && sum(&few) > 0.5, "{} {}", sum(&few), sum(&all));
    let rate = all.rate("restart_hung", FaultClass::LatencySpike).unwrap();
    assert!(rate.successes <= 50.0 + 1e-9 && rate.mean() < 1.0);
    // What is seen now still wins: an ill service against a healthy one with a history.
    let symptoms = [symptom(&anomaly(1, "a"))];
    let topology = Topology::new(TopologyConfig::default());
    let list = rank(&RankConfig::default(), all.priors(), &symptoms, &[], &topology);
    assert_eq!(list[0].entity, Some(service("a")));
}

#[test]
fn lessons_fade_and_repeats_count_once() {
    let one = Book::new(1, "b", "b").feedback(truth("b")).learnt();
    let aged = |days| Outcome { at: ago(days), ..one.clone() };
    let sum = |outcomes: Vec<Outcome>| {
        fold(outcomes).priors().of(&service("b"), FaultClass::LatencySpike).map(|t| t.log_odds).sum::<f64>()
    };
    let (fresh, old) = (sum(vec![aged(0)]), sum(vec![aged(90)]));
    assert!((old - fresh / 2.0).abs() < 1e-9, "{fresh} {old}");
    assert_eq!(sum(vec![aged(2_000)]), 0.0);
    assert_eq!(sum(vec![aged(0), aged(0), aged(90)]), fresh);
    let off = LearnConfig { enabled: false, ..LearnConfig::default() };
    assert!(Knowledge::fold([one], &off, now()).priors().is_empty());
}

#[test]
fn injected_and_joined_incidents_teach_nothing() {
    let mut book = Book::new(1, "b", "b");
    book.carried_out("b", true);
    let mut synthetic = book.incident();
    synthetic.synthetic = true;
    assert_eq!(learn(&synthetic, &book.0), None);
    let mut merged = book.incident();
    merged.merged_into = Some(IncidentId(2));
    assert_eq!(learn(&merged, &book.0), None);
    assert_eq!(learn(&book.incident(), &book.0[1..]), None);
    assert_eq!(learn(&book.incident(), &[]), None);
}

#[test]
fn outcomes_are_kept_and_read_back() {
    let outcome = Book::new(1, "b", "b").carried_out("b", true).learnt();
    assert_eq!(Outcome::from_bytes(&outcome.to_bytes()), Some(outcome));
    assert_eq!(Outcome::from_bytes(b"{}"), None);
}

#[test]
fn what_was_alike_is_found_the_likest_first() {
    let at_a = Book::new(1, "a", "a").learnt();
    let at_b = Book::new(2, "b", "b").learnt();
    let knowledge = fold([at_a.clone(), at_b]);
    let found = knowledge.similar(&at_a.symptoms, 5);
    let order: Vec<(f64, &str)> = found.iter().map(|(l, o)| (*l, o.short.as_str())).collect();
    assert_eq!(order, [(1.0, "INC-0001"), (0.5, "INC-0002")]);
    assert!(knowledge.similar(&Default::default(), 5).is_empty());
}

mod documents {
    use super::*;

    const PAST: &str = "---\nkind: incident\nid: past-1\ntitle: Slow\nseverity: high\nservice: b\nfault: latency_spike\nbegan: 2026-11-01T02:10:00Z\nlasted_minutes: 30\nplaybook: restart_hung\n---\n## Summary\nIt was slow.\n";
    const BOOK: &str = "---\nkind: runbook\nname: slow\ntitle: Slow\nfaults: [latency_spike]\nservices: [b]\nowner: t\nplaybooks: [restart_hung]\n---\n## Look\nLook at what the workers of the service wait for.\n## Hm\nToo short.\n";
    const GENERAL: &str = "---\nkind: runbook\nname: any\ntitle: Any\nfaults: [latency_spike]\nowner: t\n---\n## All\nSomething that is true of every service there is.\n";

    fn document(service: &str, needs: &str, needed_by: &str) -> String {
        format!(
            "---\nkind: service\nservice: {service}\nteam: t\non_call: t-oncall\ncriticality: P1\nlanguage: go\nsla_percent: 99.9\ndepends_on: [{needs}]\nneeded_by: [{needed_by}]\nrunbooks: [slow]\n---\n## About\nx\n"
        )
    }

    fn known() -> Known {
        let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect();
        Known { entities: names(&["a", "b"]), playbooks: names(&["restart_hung"]) }
    }

    #[test]
    fn past_incidents_teach_less_than_lived_ones() {
        let (library, problems) = Library::read([("past.md", PAST)]);
        assert!(problems.is_empty(), "{problems:?}");
        let outcomes = library.outcomes(|name| Some(service(name)));
        assert!(library.outcomes(|_| None).is_empty());
        let at = outcomes[0].at;
        let lived = Outcome { at, ..Book::new(1, "b", "b").carried_out("b", true).learnt() };
        let config = LearnConfig::default();
        let (past, lived) = (Knowledge::fold(outcomes, &config, at), Knowledge::fold([lived], &config, at));
        let (nothing, past, lived) =
            (confidence(&Knowledge::default(), "b"), confidence(&past, "b"), confidence(&lived, "b"));
        assert!(nothing < past && past < lived, "{nothing} {past} {lived}");
    }

    #[test]
    fn sections_for_a_service_come_before_the_general_ones() {
        let (library, _) = Library::read([("any.md", GENERAL), ("slow.md", BOOK)]);
        let found = |service, most| -> Vec<&str> {
            library
                .sections_for(FaultClass::LatencySpike, service, most)
                .iter()
                .map(|(_, s)| s.title.as_str())
                .collect()
        };
        assert_eq!(found("b", 8), ["Look", "All"]);
        assert_eq!(found("b", 1), ["Look"]);
        assert_eq!(found("a", 8), ["All"]);
        assert!(library.sections_for(FaultClass::MemoryLeak, "b", 8).is_empty());
    }

    #[test]
    fn documents_that_disagree_are_found() {
        let files = |a: &str, b: &str| {
            vec![("a.md", a.to_owned()), ("b.md", b.to_owned()), ("slow.md", BOOK.into()), ("past.md", PAST.into())]
        };
        let (library, problems) = Library::read(files(&document("a", "b", ""), &document("b", "", "a")));
        assert!(problems.is_empty() && library.check(&known()).is_empty());
        let told = |library: &Library, known: &Known| {
            library.check(known).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        let (library, _) = Library::read(files(&document("a", "b", ""), &document("b", "", "")));
        assert!(told(&library, &known()).contains("a.md: line 1: it needs `b`, whose document does not say so"));
        let (library, _) = Library::read(files(&document("a", "", ""), &document("b", "", "a")));
        assert!(told(&library, &known()).contains("b.md: line 1: `a` is said to need it"));
        let (library, _) = Library::read(files(&document("a", "c", ""), &document("a", "", "")));
        let all = told(&library, &Known::default());
        for want in ["nothing is called `c`", "service `a` is also in a.md", "no playbook `restart_hung`"] {
            assert!(all.contains(want), "{want}: {all}");
        }
        let (library, _) = Library::read([("a.md", document("a", "", ""))]);
        assert!(told(&library, &known()).contains("there is no runbook `slow`"));
        let (library, problems) = Library::read([("bad.md", "x"), ("past.md", PAST)]);
        assert_eq!((library.iter().count(), problems.len()), (1, 1));
        assert!(problems[0].to_string().starts_with("bad.md: line 1: the document has no head"));
    }
}
