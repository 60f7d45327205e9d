//! The what-if of the demo: it sees the telemetry that the detectors see, and nothing else of the estate.

use crate::agents::Tap;
use nightshift_model::batch::{BatchView, MetricColumns, labels};
use nightshift_model::{Incident, Plan, Prediction, Timestamp};
use nightshift_plan::{Images, WhatIf};
use nightshift_sim::FittedEstate;
use nightshift_topology::Topology;
use parking_lot::Mutex;

/// A copy of the estate, fitted to what was heard of it.
pub(super) struct Trials(pub(super) Mutex<FittedEstate>);

impl Tap for Trials {
    fn batch(&self, _tenant: &str, view: &BatchView<'_>, columns: &MetricColumns) {
        let mut fitted = self.0.lock();
        let mut row = 0;
        // A broken dictionary was told by the detector already.
        let _ = view.for_each_series(|i, bytes| {
            let rows = row..row + columns.rows.get(i).map_or(0, |r| *r as usize);
            row = rows.end;
            if let Some(entity) = columns.entity.get(i).and_then(|e| view.entity(*e).ok()) {
                let name = labels::metric_name(bytes);
                for k in rows {
                    if let (Some(at), Some(value)) = (columns.timestamp.get(k), columns.value.get(k)) {
                        fitted.observe(&entity.id, name, Timestamp(*at), *value);
                    }
                }
            }
            true
        });
    }
}

impl WhatIf for Trials {
    fn predict(
        &self,
        plan: &Plan,
        incident: &Incident,
        topology: &Topology,
        images: &Images,
        now: Timestamp,
    ) -> Option<Prediction> {
        self.0.lock().predict(plan, incident, topology, images, now)
    }
}
