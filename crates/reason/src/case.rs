//! One incident in the workflow: what is kept of it between two steps, and how that is written down.

use crate::node::Node;
use crate::watch::Watch;
use nightshift_act::{Execution, Finish};
use nightshift_guard::ExternalAnswer;
use nightshift_model::{EntityId, FaultClass, Image, Incident, IncidentId, Kpi, Plan, PlanHash, Timestamp, Verdict};
use nightshift_plan::Look;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the written form.
const VERSION: u32 = 1;
/// Longest checkpoint that is read, in bytes.
pub const CHECKPOINT_BYTES_MAX: usize = 8 << 20;

/// The ranking that a plan was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ranked {
    pub(crate) revision: u32,
    pub(crate) top: Option<(EntityId, FaultClass)>,
    pub(crate) confidence: f64,
    pub(crate) score: f64,
}

/// Confidence of the same cause by which a ranking must differ to be another one.
const CONFIDENCE_STEP: f64 = 0.1;

impl Ranked {
    pub(crate) fn of(inc: &Incident) -> Self {
        let top = inc.hypotheses.iter().find_map(|h| Some((h.entity.clone()?, h.fault, h.confidence)));
        let confidence = top.as_ref().map_or(0.0, |t| t.2);
        let top = top.map(|(entity, fault, _)| (entity, fault));
        Self { revision: inc.rca_revision, top, confidence, score: inc.score }
    }

    /// Another cause, or the same one much more or less sure.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        self.names_another(other) || (self.confidence - other.confidence).abs() > CONFIDENCE_STEP
    }

    /// Another cause.
    pub(crate) fn names_another(&self, other: &Self) -> bool {
        self.top != other.top
    }
}

/// Looks that the planner asked for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Looks {
    /// Under way.
    pub(crate) pending: Vec<Look>,
    /// Answered or given up: (entity, action, actuator).
    pub(crate) done: Vec<Look>,
    /// What was read, by entity.
    pub(crate) images: BTreeMap<EntityId, Image>,
    /// What could not be, one line each.
    pub(crate) failed: Vec<String>,
    pub(crate) rounds: u32,
}

/// An operation that was intended and has no end yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub(crate) key: String,
    pub(crate) changes: bool,
    pub(crate) target: EntityId,
}

/// A question to the external policy engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PolicyAsk {
    pub(crate) plan: PlanHash,
    pub(crate) answer: Option<ExternalAnswer>,
}

/// How what was done ended, of the last plan that was carried out or rehearsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Done {
    /// Nothing was carried out.
    #[default]
    Nothing,
    /// Rehearsed only.
    Rehearsed,
    /// Carried out; whether it helped is not known yet.
    Applied,
    /// Carried out and verified.
    Verified,
}

/// One incident that is not finished. Serialised it is the checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Case {
    pub(crate) id: IncidentId,
    pub(crate) synthetic: bool,
    pub(crate) node: Node,
    pub(crate) entered_at: Timestamp,
    /// The node was not run since it was entered.
    pub(crate) fresh: bool,
    /// How often each node was entered.
    #[serde(default)]
    pub(crate) entries: BTreeMap<Node, u32>,
    /// The timer of the node.
    #[serde(default)]
    pub(crate) due: Option<Timestamp>,
    /// Plans that were carried out.
    #[serde(default)]
    pub(crate) attempts: u32,
    /// Plans that were made.
    #[serde(default)]
    pub(crate) plans: u32,
    /// Playbooks that are not proposed again.
    #[serde(default)]
    pub(crate) tried: Vec<String>,
    #[serde(default)]
    pub(crate) ranked: Option<Ranked>,
    #[serde(default)]
    pub(crate) looks: Looks,
    #[serde(default)]
    pub(crate) plan: Option<Plan>,
    #[serde(default)]
    pub(crate) findings: Vec<String>,
    #[serde(default)]
    pub(crate) verdict: Option<Verdict>,
    #[serde(default)]
    pub(crate) policy: Option<PolicyAsk>,
    /// A person is asked about this plan.
    #[serde(default)]
    pub(crate) asked: Option<PlanHash>,
    /// A person agreed to this plan.
    #[serde(default)]
    pub(crate) agreed: Option<PlanHash>,
    /// Nothing of it changes anything.
    #[serde(default)]
    pub(crate) rehearsal: bool,
    #[serde(default)]
    pub(crate) execution: Option<Execution>,
    /// The intent of the execution that has no end yet.
    #[serde(default)]
    pub(crate) intent: Option<Intent>,
    /// The series that the execution wants read.
    #[serde(default)]
    pub(crate) verifies: Option<Kpi>,
    /// How the execution ended; nothing followed from it yet.
    #[serde(default)]
    pub(crate) finish: Option<Finish>,
    /// Why the execution was told to stop.
    #[serde(default)]
    pub(crate) stopped: Option<String>,
    /// What the guard said when it let the execution not go on.
    #[serde(default)]
    pub(crate) denied: Option<Verdict>,
    /// Plans in a row that the world refused because it was another one.
    #[serde(default)]
    pub(crate) refused: u32,
    #[serde(default)]
    pub(crate) done: Done,
    #[serde(default)]
    pub(crate) watch: Option<Watch>,
    #[serde(default)]
    pub(crate) monitor_rounds: u32,
    /// Not worth working on, watched only.
    #[serde(default)]
    pub(crate) unreal: bool,
    /// Why it is watched, escalated or over.
    #[serde(default)]
    pub(crate) why: String,
    /// Whom to call.
    #[serde(default)]
    pub(crate) to: Vec<String>,
    #[serde(default)]
    pub(crate) reminders: u32,
    /// Denied by what time or a deed lifts: judged again.
    #[serde(default)]
    pub(crate) passing: bool,
    /// How often.
    #[serde(default)]
    pub(crate) passing_rounds: u32,
    /// Watched because a person holds it.
    #[serde(default)]
    pub(crate) held: bool,
    #[serde(default)]
    pub(crate) postmortems: u32,
    #[serde(default)]
    pub(crate) resolved_at: Option<Timestamp>,
    #[serde(default)]
    pub(crate) learned: bool,
    /// It could not be read back: a person must act.
    #[serde(default)]
    pub(crate) lost: Option<String>,
    /// The incident as the journal has it.
    #[serde(skip)]
    pub(crate) inc: Option<Box<Incident>>,
    /// Changed since the last checkpoint.
    #[serde(skip)]
    pub(crate) dirty: bool,
    /// Something happened that a node must see.
    #[serde(skip)]
    pub(crate) wake: bool,
}

#[derive(Serialize)]
struct WrittenRef<'a> {
    version: u32,
    case: &'a Case,
}

#[derive(Deserialize)]
struct Written {
    version: u32,
    case: Case,
}

#[derive(Deserialize)]
struct WrittenVersion {
    version: u32,
}

impl Case {
    pub(crate) fn new(id: IncidentId, synthetic: bool, node: Node, now: Timestamp) -> Self {
        Self {
            id,
            synthetic,
            node,
            entered_at: now,
            fresh: true,
            entries: BTreeMap::from([(node, 1)]),
            due: None,
            attempts: 0,
            plans: 0,
            tried: Vec::new(),
            ranked: None,
            looks: Looks::default(),
            plan: None,
            findings: Vec::new(),
            verdict: None,
            policy: None,
            asked: None,
            agreed: None,
            rehearsal: false,
            execution: None,
            intent: None,
            verifies: None,
            finish: None,
            stopped: None,
            denied: None,
            refused: 0,
            done: Done::Nothing,
            watch: None,
            monitor_rounds: 0,
            unreal: false,
            why: String::new(),
            to: Vec::new(),
            reminders: 0,
            passing: false,
            passing_rounds: 0,
            held: false,
            postmortems: 0,
            resolved_at: None,
            learned: false,
            lost: None,
            inc: None,
            dirty: true,
            wake: false,
        }
    }

    /// The incident.
    pub const fn incident(&self) -> IncidentId {
        self.id
    }

    /// Where it stands.
    pub const fn node(&self) -> Node {
        self.node
    }

    /// The plan at hand.
    pub const fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// Whether a plan is being carried out (or rehearsed).
    pub const fn is_executing(&self) -> bool {
        self.execution.is_some()
    }

    /// The incident. Nodes run only when there is one.
    pub(crate) fn inc(&self) -> &Incident {
        self.inc.as_deref().expect("a case without its incident is not advanced")
    }

    /// Series that it needs readings of.
    pub(crate) fn kpis(&self) -> impl Iterator<Item = &Kpi> {
        self.watch.iter().map(|w| &w.kpi).chain(&self.verifies)
    }

    /// Whether it needs readings of this series.
    pub(crate) fn reads(&self, kpi: &Kpi) -> bool {
        self.kpis().any(|k| k == kpi)
    }

    /// When it next has to be looked at because time passed.
    pub(crate) fn timer(&self) -> Option<Timestamp> {
        self.due.into_iter().chain(self.execution.as_ref().and_then(Execution::due)).min()
    }

    /// Takes over from a younger case what it tried.
    pub(crate) fn inherit(&mut self, younger: &Self) {
        let tried = younger
            .tried
            .iter()
            .chain(younger.plan.iter().filter(|_| younger.done > Done::Rehearsed).map(|p| &p.playbook));
        for name in tried {
            if !self.tried.contains(name) {
                self.tried.push(name.clone());
                self.dirty = true;
            }
        }
        if younger.done > Done::Rehearsed {
            self.attempts += younger.attempts.max(1);
            self.dirty = true;
        }
    }

    /// Bytes of the checkpoint.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&WrittenRef { version: VERSION, case: self })
            .expect("a case has string keys and finite depth")
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > CHECKPOINT_BYTES_MAX {
            return Err(format!("checkpoint of {} bytes is longer than {CHECKPOINT_BYTES_MAX}", bytes.len()));
        }
        let head: WrittenVersion =
            serde_json::from_slice(bytes).map_err(|e| format!("checkpoint is not readable: {e}"))?;
        if head.version != VERSION {
            return Err(format!("checkpoint of version {}, this program knows {VERSION}", head.version));
        }
        let written: Written = serde_json::from_slice(bytes).map_err(|e| format!("checkpoint is not readable: {e}"))?;
        debug_assert_eq!(written.version, VERSION);
        Ok(written.case)
    }
}

/// Reads any bytes as a checkpoint: for fuzzing.
#[doc(hidden)]
pub fn fuzz_checkpoint(bytes: &[u8]) {
    if let Ok(case) = Case::from_bytes(bytes) {
        let again = case.to_bytes();
        let back = Case::from_bytes(&again).expect("what was written is read");
        assert_eq!(back.to_bytes(), again);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_checkpoints_say_what_is_wrong() {
        let id = "00000000000000000000000000000001";
        let table: &[(&str, &str)] = &[
            ("", "not readable"),
            ("null", "not readable"),
            ("[]", "not readable"),
            ("{}", "missing field `version`"),
            (r#"{"version":"1"}"#, "not readable"),
            (r#"{"version":2,"case":{}}"#, "version 2, this program knows 1"),
            (r#"{"version":1}"#, "missing field `case`"),
            (r#"{"version":1,"case":{"id":"x"}}"#, "32 hexadecimal digits"),
            (&format!(r#"{{"version":1,"case":{{"id":"{id}","synthetic":false,"node":"nowhere"}}}}"#), "nowhere"),
        ];
        for (text, want) in table {
            let why = Case::from_bytes(text.as_bytes()).expect_err(text);
            assert!(why.contains(want), "{text}: {why}");
        }
        let long = vec![b' '; CHECKPOINT_BYTES_MAX + 1];
        assert!(Case::from_bytes(&long).unwrap_err().contains("longer than"));
    }

    #[test]
    fn an_older_checkpoint_with_less_in_it_is_read() {
        let text = r#"{"version":1,"case":{"id":"00000000000000000000000000000001","synthetic":false,
            "node":"root_cause","entered_at":"2026-01-05T10:00:00Z","fresh":true,"of_a_later_version":1}}"#;
        let case = Case::from_bytes(text.as_bytes()).unwrap();
        assert_eq!((case.node, case.plans, case.is_executing()), (Node::RootCause, 0, false));
    }

    #[test]
    fn the_corpus_is_read_or_refused() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/checkpoint");
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
        assert!(files.len() >= 4);
        let read = files.iter().filter(|path| {
            let bytes = std::fs::read(path).unwrap();
            fuzz_checkpoint(&bytes);
            Case::from_bytes(&bytes).is_ok()
        });
        assert_eq!(read.count(), 2, "those that are meant to be good are");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            fuzz_checkpoint(&bytes);
        }

        #[test]
        fn no_damage_panics(at in 0usize..200, byte in proptest::num::u8::ANY) {
            let case = Case::new(IncidentId(7), false, Node::Verify, Timestamp::from_secs(5));
            let mut bytes = case.to_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            fuzz_checkpoint(&bytes);
        }
    }
}
