//! The doors for telemetry on the API's own port.

use crate::remote_write::{self, RemoteWriteState};
use axum::Router;

/// What the doors work with.
#[derive(Clone, Default)]
pub struct IngestState {
    /// `POST /api/v1/write`; `None` where it is switched off.
    pub remote_write: Option<RemoteWriteState>,
}

/// Routes for what pushes telemetry over HTTP. Those of events and of Alertmanager are in their own modules; merge
/// them. Serve the whole with [`crate::http::serve`], which bounds what clients may do.
pub fn ingest_router(state: IngestState) -> Router {
    state.remote_write.map_or_else(Router::new, remote_write::router)
}
