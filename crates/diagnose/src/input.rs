//! What goes into the engine and what comes out.

use nightshift_model::{Anomaly, Change, IncidentId, JournalDraft, PersonAction};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A symptom began, changed or ended. Boxed: it is ten times the size of the others.
    Anomaly(Box<Anomaly>),
    /// Somebody did something to the estate.
    Change(Box<Change>),
    /// Time passed. Give one every few seconds; without it nothing is ever resolved.
    Tick,
    /// A person decided.
    Person(PersonAction),
}

impl From<Anomaly> for Input {
    fn from(anomaly: Anomaly) -> Self {
        Self::Anomaly(Box::new(anomaly))
    }
}

impl From<Change> for Input {
    fn from(change: Change) -> Self {
        Self::Change(Box::new(change))
    }
}

/// What must be done because of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Append this to the journal. Rows of one step belong into one commit, in this order.
    Journal(JournalDraft),
    /// A person's action was not possible; nothing changed.
    Refused {
        /// Which incident was meant.
        incident: IncidentId,
        /// Why not, and what to do instead.
        why: String,
    },
}

impl Effect {
    /// The row, when it is one.
    pub fn into_journal(self) -> Option<JournalDraft> {
        match self {
            Self::Journal(draft) => Some(draft),
            Self::Refused { .. } => None,
        }
    }
}
