//! The incident workflow: a durable graph of nodes, the same with and without a model.
//!
//! Lives here: the graph (is it real? → cause → plan → safety → decision → act → verify → resolved → postmortem →
//! learn, with approval, monitoring and escalation), its checkpoints, bounded retries and timers, and the replay of
//! its decisions from the record.
//!
//! Never here: I/O, a clock, infrastructure. Nodes are pure steps from state to state plus effects; orders are carried
//! out by others and come back as inputs.
//!
//! How it is driven: [`Workflow::take`] what happened, commit its effects; then [`Workflow::advance`] each of
//! [`Workflow::ready`] for as long as it moves, one commit each, with its own reading of the clock. Rows and checkpoints
//! of one call are one commit; looks, orders and questions are sent after it. After a crash the checkpoints are read
//! back and everything that was sent without an answer is sent or observed again.

mod case;
mod config;
mod io;
mod node;
mod nodes;
mod people;
mod replay;
mod turn;
mod watch;
mod workflow;

pub use case::{CHECKPOINT_BYTES_MAX, Case};
pub use config::WorkflowConfig;
pub use io::{Effect, Input, Rooms};
pub use node::Node;
pub use replay::{Decided, Replay, ReplayRooms, replay};
pub use workflow::{Progress, Workflow};

#[doc(hidden)]
pub use case::fuzz_checkpoint;
