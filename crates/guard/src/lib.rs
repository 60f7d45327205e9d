//! The guard: what may be done, by whom, when, and how much of it.
//!
//! Lives here: verdicts in the order of the design (kill switch, allow-list, Rego policies, roles, confidence, risk
//! and criticality, blast radius, breaker, error budgets, cooldown, freeze windows), approvals, permits, error budgets,
//! and the state that they need.
//!
//! Never here: execution, I/O, a clock. An external policy engine's answer comes in as a value; no answer is a denial.
//!
//! [`Guard::judge`] says what may be done and changes nothing. [`Guard::permit`] is asked before every operation that
//! changes something and makes a [`Permit`], the only thing that act accepts. What people say goes through
//! [`Guard::approve`], [`Guard::reject`] and [`Guard::override_verdict`]; what became of it through [`Guard::failed`]
//! and [`Guard::finish`]. [`GuardState`] is all that it remembers.

mod budget;
mod config;
mod external;
mod facts;
mod glob;
mod guard;
mod input;
mod judge;
mod permit;
mod policy;
mod reach;
mod report;
mod role;
mod state;
mod window;

pub use budget::{BudgetLeft, Budgets, UPTIME, spend_estimate};
pub use config::{BreakerConfig, BudgetConfig, GuardConfig, Limits, OpaConfig, PolicyConfig, RiskRoles};
pub use external::{ANSWER_BYTES_MAX, ExternalAnswer};
pub use facts::{Ask, CRITICAL, Facts, Hands, IncidentFacts, Person, SELF_HEAL, TargetFacts};
pub use guard::{Guard, Refusal, RunEnd, TimedOut};
pub use input::{
    BudgetInput, IncidentInput, LimitsInput, PersonInput, PlanInput, PolicyInput, PredictionInput, StepInput,
    TargetInput, TimeInput, WindowInput,
};
pub use judge::rule;
pub use permit::{Permit, Request};
pub use policy::{INPUT_BYTES_MAX, POLICIES_MAX, POLICY_BYTES_MAX, Policies, PolicyProblem, SHIPPED, Said, TestResult};
pub use reach::{MAX_REPLICAS, MAX_UNAVAILABLE, MIN_REPLICAS, Pods, REPLICAS, Replicas};
pub use report::{BreakerState, Report};
pub use role::{Role, Verb, may, needed};
pub use state::GuardState;
pub use window::{Day, Window, WindowKind};

#[doc(hidden)]
pub use external::fuzz_opa_answer;
#[doc(hidden)]
pub use policy::fuzz_policy;
