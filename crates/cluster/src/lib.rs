//! What is known of a Kubernetes cluster, and what is wrong with it.
//!
//! Lives here: compact views of objects ([`objects`]), everything known of one cluster at a moment ([`World`]), the
//! checks that find faults in it ([`checks`]) and the joining of symptoms to the root that explains them ([`scan`]).
//!
//! Never here: I/O, a client, a clock. `now` is passed in; the same world gives the same findings in the same order.

#[cfg(any(test, feature = "test-support"))]
pub mod cases;
pub mod checks;
mod concern;
mod context;
mod finding;
mod join;
pub mod objects;
mod refs;
mod report;
pub mod signal;
mod world;

pub use concern::concerns;
pub use context::{Context, Index, Options};
pub use finding::{Cause, Fact, Finding, Grade};
pub use join::join;
pub use refs::ObjectRef;
pub use report::{FaultReading, REACH, ReportConfig, Reporter, Told, entity_of};
pub use world::{Key, LogTail, Look, Resource, Seen, Table, Usage, World};

use nightshift_model::Timestamp;

/// Everything that is wrong, root objects only, worst first. Advice only where the options ask for it.
pub fn scan(world: &World, options: &Options, now: Timestamp) -> Vec<Finding> {
    let cx = Context::new(world, options, now);
    let mut drafts = Vec::new();
    checks::run(&cx, &mut drafts);
    join(&cx, drafts)
}
