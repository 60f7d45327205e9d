//! Knowledge: what past incidents and people teach, and the documents that a team wrote.
//!
//! Lives here: outcomes of incidents and feedback as rows, the priors and success rates derived from them, past
//! incidents, runbooks and service documents with their readers.
//!
//! Never here: I/O, decisions. Loaders hand in texts and rows; what follows from them is for `diagnose` and `plan`.
//!
//! The way of a lesson: an incident ends, or somebody gives feedback → [`learn`] makes its [`Outcome`], a document of
//! the store in the collection [`OUTCOMES`] → [`Knowledge::fold`] over all of them gives the [`Priors`] that the next
//! ranking adds to its own, citing the incidents behind each, and the rates by which the planner chooses. A lesson
//! counts less as it ages and all of them together are bounded, so that the past never outvotes what is seen now.

mod document;
mod fold;
mod library;
mod outcome;
#[cfg(test)]
mod tests;

pub use document::{DOCUMENT_BYTES_MAX, PROBLEMS_MAX, PastIncident, Runbook, Section, ServiceDocument, TeamDocument};
pub use fold::{Knowledge, LearnConfig, Rate};
pub use library::{DOCUMENTS_MAX, DocumentProblem, Known, Library};
pub use nightshift_diagnose::Priors;
pub use outcome::{Cause, Confirmed, OUTCOMES, Outcome, Tried, learn, symptoms_of};

#[doc(hidden)]
pub use document::fuzz_knowledge_document;
