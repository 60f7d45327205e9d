//! Findings: what is wrong, with which object, why, and what to do.

use crate::ObjectRef;
use crate::objects::Event;
use nightshift_model::{FaultClass, Timestamp};
use serde::Serialize;

/// How bad it is. The first four are faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Could be better; hidden unless asked for.
    Advice,
    /// Worth knowing, no fault.
    Info,
    /// Will become a fault, or costs little.
    Low,
    /// A part is impaired.
    Medium,
    /// A workload does not do its work.
    High,
    /// Many workloads, or the cluster itself.
    Critical,
}

impl Grade {
    /// Lower-case name, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Advice => "advice",
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// Whether it is a fault: what makes a scan end with exit code 3.
    pub const fn is_fault(self) -> bool {
        !matches!(self, Self::Advice | Self::Info)
    }
}

/// Why: the object whose state must change, and one sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// The object; it may be missing.
    #[serde(flatten)]
    pub object: ObjectRef,
    /// One sentence.
    pub why: String,
}

/// A fact that a finding rests on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fact {
    /// Points back at it: `pod/shop/web-1#status.phase`, `event/shop/web-1.17ab`, `log/shop/web-1/app/previous`.
    pub id: String,
    /// Kind of the object, `event`, `log` or `metric`.
    pub source: String,
    /// What it says.
    pub text: String,
}

/// Longest text of a fact, characters.
const FACT_CHARS_MAX: usize = 400;
/// Facts of a finding at most.
const FACTS_MAX: usize = 12;

/// One thing that is wrong. What a check gives is a draft: joining turns those that another explains into its symptoms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The object at fault: of pods, the workload that they belong to.
    #[serde(flatten)]
    pub object: ObjectRef,
    /// What is wrong, a slug of the catalogue.
    pub fault: FaultClass,
    /// How bad.
    pub severity: Grade,
    /// One sentence.
    pub summary: String,
    /// Why.
    pub cause: Cause,
    /// What to do, one or two sentences.
    pub fix: String,
    /// What it rests on.
    pub evidence: Vec<Fact>,
    /// Objects that suffer from it.
    pub symptoms: Vec<ObjectRef>,
    /// Since when, where it can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Objects whose own faults would explain this one: it is folded into such a fault as a symptom.
    #[serde(skip)]
    pub explained_by: Vec<ObjectRef>,
    /// Says only that something is wrong with the object: any other fault of the same object explains it.
    #[serde(skip)]
    pub generic: bool,
    /// Shown only among the symptoms of what explains it, never by itself.
    #[serde(skip)]
    pub symptom_only: bool,
    /// Objects whose trouble in behaviour (crashes, failing probes, pods that are not made) this explains, where the
    /// check that sees the trouble cannot know.
    #[serde(skip)]
    pub explains: Vec<ObjectRef>,
}

impl Finding {
    /// A fault of an object, graded by the catalogue, caused by itself until told otherwise.
    pub fn new(fault: FaultClass, object: ObjectRef, summary: impl Into<String>) -> Self {
        use nightshift_model::Severity;
        let severity = match fault.info().severity {
            Severity::Critical => Grade::Critical,
            Severity::High => Grade::High,
            Severity::Medium => Grade::Medium,
            Severity::Low => Grade::Low,
        };
        let summary = summary.into();
        let cause = Cause { object: object.clone(), why: summary.clone() };
        Self {
            object,
            fault,
            severity,
            summary,
            cause,
            fix: String::new(),
            evidence: Vec::new(),
            symptoms: Vec::new(),
            since: None,
            explained_by: Vec::new(),
            generic: false,
            symptom_only: false,
            explains: Vec::new(),
        }
    }

    /// Names the cause.
    #[must_use]
    pub fn because(mut self, object: ObjectRef, why: impl Into<String>) -> Self {
        self.cause = Cause { object, why: why.into() };
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }

    /// Grades it otherwise than the catalogue.
    #[must_use]
    pub const fn graded(mut self, severity: Grade) -> Self {
        self.severity = severity;
        self
    }

    /// Adds a field of an object as a fact: `path` as in manifests (`status.phase`).
    #[must_use]
    pub fn field(mut self, of: &ObjectRef, path: &str, text: impl AsRef<str>) -> Self {
        let text = format!("{path}: {}", text.as_ref());
        self.add(format!("{}#{path}", of.path()), &of.kind.to_ascii_lowercase(), &text);
        self
    }

    /// Adds an event as a fact.
    #[must_use]
    pub fn event(mut self, event: &Event) -> Self {
        let (meta, times) = (&event.metadata, event.times());
        let times = if times > 1 { format!(" ({times} times)") } else { String::new() };
        let text = format!("{}: {}{times}", event.reason, event.message);
        self.add(format!("event/{}/{}", meta.namespace, meta.name), "event", &text);
        self
    }

    /// Adds any other fact, with an id that points back at it.
    #[must_use]
    pub fn fact(mut self, id: impl Into<String>, source: &str, text: impl AsRef<str>) -> Self {
        self.add(id.into(), source, text.as_ref());
        self
    }

    fn add(&mut self, id: String, source: &str, text: &str) {
        if self.evidence.len() < FACTS_MAX && self.evidence.iter().all(|f| f.id != id) {
            let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
            self.evidence.push(Fact {
                id,
                source: source.to_owned(),
                text: line.chars().take(FACT_CHARS_MAX).collect(),
            });
        }
    }

    /// Adds an object that suffers from it.
    #[must_use]
    pub fn hits(mut self, object: ObjectRef) -> Self {
        self.symptoms.push(object);
        self
    }

    /// Says since when.
    #[must_use]
    pub const fn since(mut self, since: Option<Timestamp>) -> Self {
        self.since = since;
        self
    }

    /// Names an object whose own faults would explain this one.
    #[must_use]
    pub fn explained_by(mut self, object: ObjectRef) -> Self {
        self.explained_by.push(object);
        self
    }

    /// Says that any other fault of the same object explains this one.
    #[must_use]
    pub const fn generic(mut self) -> Self {
        self.generic = true;
        self
    }

    /// Says that it is shown only among the symptoms of what explains it; it explains nothing itself.
    #[must_use]
    pub const fn only_as_symptom(mut self) -> Self {
        self.symptom_only = true;
        self
    }

    /// Names an object whose trouble in behaviour this explains.
    #[must_use]
    pub fn explains(mut self, object: ObjectRef) -> Self {
        self.explains.push(object);
        self
    }

    /// What identifies it within a cluster: never its text.
    pub fn identity(&self) -> (&ObjectRef, FaultClass) {
        (&self.object, self.fault)
    }
}
