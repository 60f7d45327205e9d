//! Services, routes, network policies, cluster DNS, webhooks.
//!
//! A service without endpoints names why: which label differs, since when, and who changed it. What its workload
//! explains is only told as a symptom. All lookups of pods by labels go through one index, built once per scan.

mod backend;
mod callers;
mod certificate;
mod dns;
mod external;
mod gateway;
mod index;
mod ingress;
mod missing;
mod overlap;
mod policy;
mod ports;
mod reach;
mod route;
mod selector;
mod service;
mod tls;
mod webhook;

use crate::{Context, Finding, ObjectRef};
use callers::Calls;
use index::Net;
use std::collections::{BTreeMap, BTreeSet};

/// The services that each workload's configuration names, by workload.
pub(in crate::checks) fn called_by(cx: &Context<'_>) -> BTreeMap<ObjectRef, BTreeSet<ObjectRef>> {
    let calls = Calls::new(&Net::new(cx));
    let service = |c: &callers::Call| ObjectRef::new("Service", c.namespace.clone(), c.service.clone());
    calls.iter().map(|(caller, all)| (caller.clone(), all.iter().map(service).collect())).collect()
}

/// Runs the checks of this group.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    let net = Net::new(cx);
    let calls = Calls::new(&net);
    let start = out.len();
    service::run(&net, &calls, out);
    overlap::run(&net, out);
    external::run(&net, &calls, out);
    missing::run(&net, &calls, out);
    ingress::run(&net, out);
    tls::run(&net, out);
    gateway::run(&net, out);
    route::run(&net, out);
    policy::run(&net, &calls, out);
    dns::run(&net, out);
    webhook::run(&net, out);
    missing::gather(&net, &mut out[start..]);
}
