//! Clues: how evidence that is no metric (logs, traces) enters the ranking of a recorded case.
//!
//! Whoever reads a kind of record weighs it itself and says so in log-odds; the ranking only adds up. So readers of
//! spans and of lines need not know of metrics, nor the other way round.

use nightshift_model::SignalFamily;

/// One thing that a record says of a service.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Clue {
    /// The service it is about.
    pub(super) service: String,
    /// Name of the factor in the explanation: `trace`, `log`.
    pub(super) factor: &'static str,
    /// What the fault would show in, when a metric of the case has this name; else empty.
    pub(super) indicator: String,
    /// What kind of metric would show it: of this family the loudest metric of the service is named, where
    /// `indicator` is empty.
    pub(super) family: Option<SignalFamily>,
    /// What it adds to the service, natural logarithm of odds; negative speaks against. Finite; what traces show reaches 12.
    pub(super) log_odds: f64,
    /// Whether it is the service's own doing (own time, a line only it writes). What may have come from a dependency
    /// is `false`: the ranking takes it back as far as a dependency explains it.
    pub(super) own: bool,
    /// One line for people.
    pub(super) why: String,
}
