//! Rules: conditions that people write down, over windows of metric series, with their unit tests beside them.
//!
//! Lives here: the expression language ([`expr`]), rule files and their check ([`file`]), the engine that is fed from
//! the batches of the hot path ([`engine`]), and the runner of the tests in rule files ([`testing`]). `docs/rules.md`
//! is the text for users.
//!
//! Never here: reading files, baselines (`metrics`), deciding what an alarm leads to (`diagnose`).

pub mod engine;
mod eval;
pub mod expr;
pub mod file;
mod summary;
pub mod testing;
mod tree;

pub use engine::{RuleConfig, RuleEngine, RuleStats};
pub use expr::{Expr, ExprError};
pub use file::{Problem, Rule, RuleFile, check_file, parse_file};
pub use testing::{TestResult, run_tests};
