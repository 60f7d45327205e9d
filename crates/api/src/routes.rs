//! The one table of routes: what there is, what it takes to call it, and who answers.

use crate::seams::ApiState;
use crate::{act, incidents, openapi, page, read, stream};
use axum::routing::{MethodRouter, get, post};

/// What it takes to call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Nothing, through every listener.
    Public,
    /// Nothing on loopback; beyond it a token, viewer or more.
    Read,
    /// Nothing on loopback; beyond it a token, operator or more. Ingest and test injection.
    Ingest,
    /// A token, operator or more, through every listener.
    Change,
    /// A form of our own pages, which carries the token itself; the handler asks for what [`Access::Change`] does.
    Form,
}

pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    pub(crate) handler: MethodRouter<ApiState>,
}

/// Routes of ingest, which `collect` answers and [`crate::router`] takes in.
pub(crate) const INGEST: [(&str, &str); 3] =
    [("post", "/api/v1/write"), ("post", "/api/v1/alertmanager"), ("post", "/api/v1/events")];

pub(crate) fn routes() -> Vec<Route> {
    let route = |method, path, access, handler| Route { method, path, access, handler };
    vec![
        route("get", "/api/v1/health", Access::Public, get(read::health)),
        route("get", "/livez", Access::Public, get(read::livez)),
        route("get", "/readyz", Access::Public, get(read::readyz)),
        route("get", "/api/v1/status", Access::Read, get(read::status)),
        route("get", "/api/v1/collectors", Access::Read, get(read::collectors)),
        route("get", "/api/v1/anomalies", Access::Read, get(read::anomalies)),
        route("get", "/api/v1/events", Access::Read, get(read::events)),
        route("get", "/api/v1/topology", Access::Read, get(read::topology)),
        route("get", "/api/v1/incidents", Access::Read, get(incidents::list)),
        route("get", "/api/v1/incidents/{id}", Access::Read, get(incidents::one)),
        route("post", "/api/v1/incidents/{id}/ack", Access::Change, post(act::acknowledge)),
        route("post", "/api/v1/incidents/{id}/resolve", Access::Change, post(act::resolve)),
        route("post", "/api/v1/test/inject", Access::Ingest, post(act::inject)),
        route("get", "/api/v1/ws/events", Access::Read, get(stream::upgrade)),
        route("get", "/metrics", Access::Read, get(read::metrics)),
        route("get", "/api/openapi.json", Access::Read, get(openapi::serve)),
        route("get", "/", Access::Read, get(page::list)),
        route("get", "/incidents/{id}", Access::Read, get(page::one)),
        route("post", "/incidents/{id}/ack", Access::Form, post(page::acknowledge)),
        route("post", "/incidents/{id}/resolve", Access::Form, post(page::resolve)),
        route("post", "/sign-in", Access::Form, post(page::sign_in)),
    ]
}

/// Method, path and access of every route, those of ingest too.
pub fn listed_routes() -> Vec<(&'static str, &'static str, Access)> {
    let own = routes().into_iter().map(|r| (r.method, r.path, r.access));
    own.chain(INGEST.map(|(method, path)| (method, path, Access::Ingest))).collect()
}
