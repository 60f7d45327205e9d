//! The simulated estate: a small honest model of services under load, in virtual time, repeatable from its seed.
//!
//! Lives here: the model (load, queues, pools, caches, topics, databases, nodes, names), faults and look-alikes, the
//! telemetry that real sources would send, actions with the effect they would have, the truth for graders.
//!
//! Never here: detection, diagnosis, a decision, I/O, a clock, unseeded randomness.
//!
//! What makes it honest: a fault changes a cause (workers hang, a limit is lower, a route leads elsewhere), and all that
//! is measured follows from the model. Latency is service time and queueing (Sakasegawa's M/M/c) and what is called
//! below; errors are timeouts, full pools, full queues and pods that fail; memory leaks until collections thrash and the
//! kernel kills. An action changes a cause too. Nothing says which action heals which fault: `tests/actions.rs` finds out.
//!
//! # An episode
//!
//! `Episode::of(SimFault::DbConnectionExhaustion, EstateSpec::six(), seed, 600.0)`, scraped every second:
//!
//! ```text
//!    0 s  payment-service  db_connections 30, p99 380 ms, errors 0.5 %
//!  690 s  transactions begin to hang                       (injected; nothing is said of it)
//!  691 s  payment-service  db_connections 30 → 33          (onset: out of the band of its noise)
//!  719 s  payment-service  p99 380 → 680 ms                requests wait for a connection
//!  720 s  payment-service  "connection pool exhausted: 100 of 100 in use"
//!  721 s  payment-service  errors 60 %, order-service 26 %, api-gateway 18 %
//!         recycling frees the connections and they hang again; limiting callers as well keeps them free;
//!         more replicas keep more idle connections and make it worse
//!  895 s  it is over by itself
//! ```
//!
//! The truth about it (`Episode::truth`) comes from running the estate with and without the fault, both without noise.
//!
//! # A copy to try things on
//!
//! [`World::starting`] runs an estate from any second on, [`World::noise`] and [`World::talking`] switch off what costs
//! time, [`SimFault::of_class`] and [`InjectedFault::at`] say what a hypothesis may mean, [`World::apply`] does what a
//! plan would do, [`World::value`] reads a series.

mod actions;
mod actuator;
mod chance;
mod episode;
mod estates;
pub mod fault;
mod files;
pub mod knowledge;
pub mod spec;
pub mod telemetry;
mod whatif;
mod world;

pub use actions::{ApplyError, Observed, SimAction};
pub use actuator::SimActuator;
pub use episode::{Episode, Truth};
pub use fault::{InjectedFault, SimFault, TargetPart};
pub use files::{exposition, topology_yaml};
pub use spec::{
    CacheSpec, CallSpec, ConsumerSpec, DatabaseSpec, EstateSpec, LoadSpec, NodeSpec, Part, PoolSpec, ResolverSpec,
    ServiceSpec, TopicSpec,
};
pub use telemetry::{LogLine, Scrape, SeriesDef, SpanSample};
pub use whatif::{FittedEstate, WhatIfConfig};
pub use world::{Totals, World};
