//! All documents together: what is found in them, and whether they agree with each other and with what there is.

use crate::document::{PastIncident, Runbook, Section, ServiceDocument, TeamDocument};
use crate::outcome::{Cause, Confirmed, Outcome, Tried};
use nightshift_model::{EntityId, FaultClass};
use nightshift_topology::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Documents that are kept at most.
pub const DOCUMENTS_MAX: usize = 10_000;
/// A section with fewer characters says nothing by itself.
const SECTION_CHARS_MIN: usize = 30;

/// A problem and the document that has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DocumentProblem {
    /// Name of the document, a path as a rule.
    pub document: String,
    /// What is wrong, and where.
    pub problem: Problem,
}

impl std::fmt::Display for DocumentProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.document, self.problem)
    }
}

/// What there is, by name; documents are held against it.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Entities.
    pub entities: BTreeSet<String>,
    /// Playbooks.
    pub playbooks: BTreeSet<String>,
}

/// Documents by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Library {
    documents: BTreeMap<String, TeamDocument>,
}

impl Library {
    /// Reads documents, given as names and texts. Those with problems are left out, and every problem is told.
    pub fn read<N: Into<String>, T: AsRef<str>>(
        files: impl IntoIterator<Item = (N, T)>,
    ) -> (Self, Vec<DocumentProblem>) {
        let (mut library, mut problems) = (Self::default(), Vec::new());
        for (name, text) in files {
            let name = name.into();
            if library.documents.len() >= DOCUMENTS_MAX {
                let message = format!("more than {DOCUMENTS_MAX} documents: this one and those after it are not read");
                let problem = Problem { line: 0, message, hint: String::new() };
                problems.push(DocumentProblem { document: name, problem });
                break;
            }
            match TeamDocument::parse(text.as_ref()) {
                Ok(document) => {
                    library.documents.insert(name, document);
                }
                Err(found) => {
                    problems
                        .extend(found.into_iter().map(|problem| DocumentProblem { document: name.clone(), problem }));
                }
            }
        }
        (library, problems)
    }

    /// Every document with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TeamDocument)> {
        self.documents.iter().map(|(name, d)| (name.as_str(), d))
    }

    /// Past incidents.
    pub fn incidents(&self) -> impl Iterator<Item = &PastIncident> {
        self.documents.values().filter_map(|d| if let TeamDocument::Incident(d) = d { Some(d) } else { None })
    }

    /// Runbooks.
    pub fn runbooks(&self) -> impl Iterator<Item = &Runbook> {
        self.documents.values().filter_map(|d| if let TeamDocument::Runbook(d) = d { Some(d) } else { None })
    }

    /// Service documents.
    pub fn services(&self) -> impl Iterator<Item = &ServiceDocument> {
        self.documents.values().filter_map(|d| if let TeamDocument::Service(d) = d { Some(d) } else { None })
    }

    /// The document of a service, by its exact name.
    pub fn service(&self, name: &str) -> Option<&ServiceDocument> {
        self.services().find(|d| d.service == name)
    }

    /// Sections of the runbooks for a fault class and service, those written for this very service first, at most
    /// `most`. Sections of fewer than 30 characters are left out.
    pub fn sections_for(&self, fault: FaultClass, service: &str, most: usize) -> Vec<(&Runbook, &Section)> {
        let fits = |r: &&Runbook| {
            r.faults.contains(&fault) && (r.services.is_empty() || r.services.iter().any(|s| s == service))
        };
        let mut books: Vec<&Runbook> = self.runbooks().filter(fits).collect();
        books.sort_by_key(|r| r.services.is_empty());
        let sections = books.into_iter().flat_map(|r| r.sections.iter().map(move |s| (r, s)));
        sections.filter(|(_, s)| s.text.chars().count() >= SECTION_CHARS_MIN).take(most).collect()
    }

    /// Past incidents as outcomes. `entity` finds what is meant by a name; one that it does not know teaches nothing.
    pub fn outcomes(&self, entity: impl Fn(&str) -> Option<EntityId>) -> Vec<Outcome> {
        self.incidents().filter_map(|d| Some(past_outcome(d, entity(&d.service)?))).collect()
    }

    /// Holds the documents against each other and against what there is.
    pub fn check(&self, known: &Known) -> Vec<DocumentProblem> {
        let mut out = Vec::new();
        let runbooks: BTreeSet<&str> = self.runbooks().map(|r| r.name.as_str()).collect();
        let mut ids: BTreeMap<(&str, &str), &str> = BTreeMap::new();
        for (name, document) in self.iter() {
            let mut say = |message: String, hint: &str| {
                let problem = Problem { line: 1, message, hint: hint.into() };
                out.push(DocumentProblem { document: name.into(), problem });
            };
            let (kind, id) = match document {
                TeamDocument::Incident(d) => ("incident", d.id.as_str()),
                TeamDocument::Runbook(d) => ("runbook", d.name.as_str()),
                TeamDocument::Service(d) => ("service", d.service.as_str()),
            };
            if let Some(other) = ids.insert((kind, id), name) {
                say(format!("{kind} `{id}` is also in {other}"), "give one of them another name");
            }
            let (entities, playbooks): (Vec<&String>, Vec<&String>) = match document {
                TeamDocument::Incident(d) => {
                    let playbook = (!d.playbook.is_empty()).then_some(&d.playbook);
                    (std::iter::once(&d.service).chain(&d.affected).collect(), playbook.into_iter().collect())
                }
                TeamDocument::Runbook(d) => (d.services.iter().collect(), d.playbooks.iter().collect()),
                TeamDocument::Service(d) => {
                    (std::iter::once(&d.service).chain(&d.depends_on).chain(&d.needed_by).collect(), Vec::new())
                }
            };
            for entity in entities.into_iter().filter(|e| !known.entities.contains(*e)) {
                say(format!("nothing is called `{entity}`"), "is it spelt as in the topology?");
            }
            for playbook in playbooks.into_iter().filter(|p| !known.playbooks.contains(*p)) {
                say(format!("there is no playbook `{playbook}`"), "is it spelt as in the playbook's `name`?");
            }
            let TeamDocument::Service(d) = document else { continue };
            for book in d.runbooks.iter().filter(|r| !runbooks.contains(r.as_str())) {
                say(format!("there is no runbook `{book}`"), "is it spelt as in the runbook's `name`?");
            }
            for other in d.depends_on.iter().filter_map(|n| self.service(n)) {
                if !other.needed_by.contains(&d.service) {
                    say(
                        format!("it needs `{}`, whose document does not say so", other.service),
                        "add it to `needed_by` there",
                    );
                }
            }
            for other in d.needed_by.iter().filter_map(|n| self.service(n)) {
                if !other.depends_on.contains(&d.service) {
                    say(
                        format!("`{}` is said to need it, whose document does not say so", other.service),
                        "add it to `depends_on` there",
                    );
                }
            }
        }
        out.sort();
        out
    }
}

/// What a past incident teaches: less than one that was lived through, as its document may be wrong or out of date.
fn past_outcome(d: &PastIncident, entity: EntityId) -> Outcome {
    let lasted = Duration::from_secs_f64(d.lasted_minutes.clamp(0.0, 1e6) * 60.0);
    let tried =
        (!d.playbook.is_empty()).then(|| Tried { playbook: d.playbook.clone(), fault: d.fault, helped: d.helped });
    Outcome {
        incident: d.id.clone(),
        short: d.id.clone(),
        title: d.title.clone(),
        cause: Some(Cause { entity, fault: d.fault }),
        confirmed: Confirmed::Document,
        wrongly: None,
        false_positive: false,
        tried: tried.into_iter().collect(),
        symptoms: BTreeMap::new(),
        onset: d.began,
        at: d.began + lasted,
        mttr_secs: Some(lasted.as_secs_f64()),
    }
}
