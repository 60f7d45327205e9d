//! The one table of routes: what there is, what it takes to call it, and who answers.

use crate::seams::ApiState;
use crate::verbs::Verb;
use crate::{act, automation, incidents, openapi, page, read, story, stream};
use axum::routing::{MethodRouter, get, post};

/// What it takes to call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Nothing, through every listener.
    Public,
    /// Nothing on loopback; beyond it a token, viewer or more.
    Read,
    /// A token, viewer or more, through every listener: it changes nothing, but whoever asks makes us work.
    Work,
    /// Nothing on loopback; beyond it a token, operator or more. Ingest and test injection.
    Ingest,
    /// A token, operator or more, through every listener.
    Change,
    /// A token, approver or more, through every listener; admin where the plan is of critical risk.
    Approve,
    /// A token, admin, through every listener.
    Admin,
    /// A form of our own pages, which carries the token itself; the handler asks for what the API's route does.
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
    let mut all = vec![
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
        route("get", "/api/v1/incidents/{id}/journal", Access::Read, get(story::journal)),
        route("get", "/api/v1/incidents/{id}/postmortem", Access::Read, get(story::postmortem)),
        route("post", "/api/v1/incidents/{id}/replay", Access::Work, post(story::replay)),
        route("get", "/api/v1/actions", Access::Read, get(automation::actions)),
        route("get", "/api/v1/deliveries", Access::Read, get(automation::deliveries)),
        route("get", "/api/v1/playbooks", Access::Read, get(automation::playbooks)),
        route("get", "/api/v1/policies", Access::Read, get(automation::policies)),
        route("get", "/api/v1/guard", Access::Read, get(automation::guard)),
        route("get", "/api/v1/kill-switch", Access::Read, get(automation::kill_switch)),
        route("post", "/api/v1/kill-switch", Access::Admin, post(act::kill_switch)),
        route("post", "/api/v1/test/inject", Access::Ingest, post(act::inject)),
        route("get", "/api/v1/ws/events", Access::Read, get(stream::upgrade)),
        route("get", "/metrics", Access::Read, get(read::metrics)),
        route("get", "/api/openapi.json", Access::Read, get(openapi::serve)),
        route("get", "/", Access::Read, get(page::list)),
        route("get", "/guard", Access::Read, get(page::guard)),
        route("get", "/incidents/{id}", Access::Read, get(page::one)),
        route("get", "/incidents/{id}/postmortem", Access::Read, get(page::postmortem)),
        route("post", "/kill-switch", Access::Form, post(page::kill_switch)),
        route("post", "/sign-in", Access::Form, post(page::sign_in)),
    ];
    for verb in Verb::ALL {
        let (api, form) = verb.paths();
        all.push(route("post", api, verb.access(), act::on_incident(verb)));
        all.push(route("post", form, Access::Form, page::on_incident(verb)));
    }
    all
}

/// Method, path and access of every route, those of ingest too.
pub fn listed_routes() -> Vec<(&'static str, &'static str, Access)> {
    let own = routes().into_iter().map(|r| (r.method, r.path, r.access));
    own.chain(INGEST.map(|(method, path)| (method, path, Access::Ingest))).collect()
}
