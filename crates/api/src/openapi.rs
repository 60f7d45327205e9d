//! The description of the API. Kept by hand in `openapi.json`; tests hold it to the table of routes and to the
//! answers that are really given.

use crate::seams::ApiState;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::LazyLock;

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("openapi.json")).expect("a test reads the same text"));

/// The OpenAPI 3.1 document, of this version of the program.
pub fn document(version: &str) -> Value {
    let mut document = DOCUMENT.clone();
    document["info"]["version"] = json!(version);
    document
}

/// `GET /api/openapi.json`.
pub(crate) async fn serve(State(state): State<ApiState>) -> Json<Value> {
    Json(document(&state.status.status().version))
}
