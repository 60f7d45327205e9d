//! Source `prometheus_query`: polls queries of a Prometheus that exists already (or of what speaks like it).
//!
//! Lives here: the questions and their answers. Never here: what becomes of a sample (see [`crate::ingest`]).
//!
//! Absence is not health: a query that gives nothing, a warning (a store of Thanos that did not answer) and a refusal
//! are each shown as what they are, and none of them becomes a zero.

mod answer;
mod source;

#[doc(hidden)]
pub use answer::fuzz_promql_json;
pub use answer::{Answer, AnswerError, Value, parse};
pub use source::{PromqlConfig, PromqlSource, Query};
