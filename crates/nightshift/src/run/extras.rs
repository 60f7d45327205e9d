//! What a service has beside what its settings name. The demo's is an estate.

use crate::agents::{Tap, Told};
use nightshift_act::Actuator;
use nightshift_bus::Bus;
use nightshift_collect::Source;
use nightshift_knowledge::Outcome;
use nightshift_model::Clock;
use nightshift_plan::WhatIf;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Makes sources once there is a bus.
type MakeSources = Box<dyn FnOnce(&Arc<dyn Bus>) -> Vec<Box<dyn Source>> + Send>;

/// Hears of rows.
type Hear = dyn Fn(&Told) + Send + Sync;

/// By default nothing.
#[derive(Default)]
pub(crate) struct Extras {
    /// The time, where it is not the system's.
    pub(crate) clock: Option<Arc<dyn Clock>>,
    /// Actuators by name, beside those of the settings.
    pub(crate) actuators: BTreeMap<String, Arc<dyn Actuator>>,
    /// Tries plans on a fitted copy of the estate.
    pub(crate) what_if: Option<Arc<dyn WhatIf>>,
    /// What learns from telemetry without being a detector.
    pub(crate) taps: Vec<Arc<dyn Tap>>,
    /// What the team learned before.
    pub(crate) past: Vec<Outcome>,
    /// Sources beside those of the settings.
    pub(crate) sources: Option<MakeSources>,
    /// Routes beside the API's.
    pub(crate) routes: Option<axum::Router>,
    /// Told of every row that became durable.
    pub(crate) told: Option<Arc<Hear>>,
    /// Told where the page is, once it answers.
    pub(crate) ready: Option<Box<dyn FnOnce(SocketAddr) + Send>>,
    /// Ends the service, beside the signals.
    pub(crate) stop: Option<CancellationToken>,
}
