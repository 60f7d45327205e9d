//! Diagnose: anomalies into incidents, and causes ranked with evidence.
//!
//! Lives here: the [`Engine`], a state machine per tenant that decides which anomalies share a cause, when an incident
//! opens, merges, reopens and ends; [`rank`], which turns symptoms, changes and topology into hypotheses by additive
//! log-odds; [`backtest`], the same ranking over recorded metrics.
//!
//! Never here: I/O, a clock, chance, a language model. The same input gives the same rows. Everything that a decision
//! rests on is in the journal (or in the stored anomalies and changes), so an engine restored from the store decides as
//! the one that was stopped would have.

pub mod backtest;
mod config;
mod engine;
mod input;
pub mod priors;
pub mod rank;
mod relate;

pub use config::{DiagnoseConfig, RankConfig};
pub use engine::{Engine, Memory, Stats};
pub use input::{Effect, Input};
pub use nightshift_model::{PersonAction, PersonVerb};
pub use priors::{Lesson, Priors};
pub use relate::Link;
