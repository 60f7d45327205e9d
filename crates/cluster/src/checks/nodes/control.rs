//! The API server, what serves APIs beside it, and etcd.

use crate::objects::{ApiService, Event};
use crate::{Context, Finding, Grade, Look, ObjectRef, signal};
use nightshift_model::FaultClass;

/// Share of answers with 5xx that is trouble.
const ERRORS_MAX: f64 = 0.05;
/// 99th percentile of request time in seconds that is trouble; the objective of Kubernetes is 1 s for one object.
const LATENCY_MAX: f64 = 4.0;
/// Requests turned away per second that are no hiccup.
const REJECTED_MAX: f64 = 1.0;
/// How many times its usual rate a client must send to be a surge, and at what rate at least.
const SURGE: (f64, f64) = (5.0, 50.0);
/// Share of its quota above which etcd must be looked after: at all of it, it refuses every write.
const ETCD_MAX: f64 = 0.9;
/// Times that others say that the API server fails, until it counts.
const COMPLAINTS_MIN: i64 = 3;

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    out.extend(cx.world.api_services.iter().filter_map(|a| aggregated(cx, a)));
    out.extend(overload(cx));
    out.extend(failing(cx));
    out.extend(etcd(cx));
}

/// The object that stands for the API server: its service is in every cluster.
fn server() -> ObjectRef {
    ObjectRef::new("Service", "default", "kubernetes")
}

fn measured(cx: &Context<'_>, name: &str) -> Option<f64> {
    cx.world.signal(&server(), name).filter(|v| v.is_finite())
}

fn metric(finding: Finding, object: &ObjectRef, name: &str, value: f64) -> Finding {
    finding.fact(format!("metric/{}#{name}", object.path()), "metric", format!("{value:.3}"))
}

/// An API that another server serves, and does not.
fn aggregated(cx: &Context<'_>, api: &ApiService) -> Option<Finding> {
    let service = api.spec.service.as_ref()?;
    let me = ObjectRef::of("APIService", &api.metadata);
    let target = ObjectRef::new("Service", service.namespace.clone(), service.name.clone());
    let missing = cx.world.services.look(&service.namespace, &service.name).is_missing();
    let condition = api.status.conditions.when("Available", "False");
    if condition.is_none() && !missing {
        return None;
    }
    let said = condition.map_or("", |c| c.message.as_str());
    let reason = condition.map_or("ServiceNotFound", |c| c.reason.as_str());
    let (cause, why, fix) = if missing {
        (
            target.clone(),
            format!("service {}/{}, which serves it, does not exist", service.namespace, service.name),
            format!("Install what serves it again, or remove the API: kubectl delete apiservice {}", me.name),
        )
    } else {
        match reason {
            "MissingEndpoints" | "EndpointsNotFound" | "EndpointsInaccessible" => (
                target.clone(),
                format!("service {}/{} has no ready endpoint: {said}", service.namespace, service.name),
                format!("Bring the pods of service {}/{} up", service.namespace, service.name),
            ),
            "FailedDiscoveryCheck" => (
                target.clone(),
                format!("service {}/{} does not answer as an API server: {said}", service.namespace, service.name),
                "See the log of what serves it, its certificate (spec.caBundle) and network policies between it and the API server".to_owned(),
            ),
            _ => (target.clone(), format!("it is not available ({reason}): {said}"), "Do what the message asks for".to_owned()),
        }
    };
    let mut finding = Finding::new(FaultClass::AggregatedApiDown, me.clone(), format!("API {} is down", me.name))
        .because(cause, why.trim_end_matches([':', ' ']))
        .fix(fix)
        .field(&me, "spec.service", format!("{}/{}", service.namespace, service.name))
        .since(condition.and_then(|c| c.last_transition_time));
    if let Some(condition) = condition {
        finding = finding.field(
            &me,
            "status.conditions[Available]",
            format!("False {} {}", condition.reason, condition.message),
        );
    }
    // A service that is not there is told here; one without endpoints has a fault of its own, or its pods have.
    if let Look::Found(found) = cx.world.services.look(&service.namespace, &service.name) {
        finding = finding.explained_by(target);
        if !found.spec.selector.is_empty() {
            for pod in cx.pods_with(&service.namespace, &found.spec.selector) {
                finding = finding.explained_by(cx.root(pod));
            }
        }
    }
    Some(finding)
}

fn overload(cx: &Context<'_>) -> Option<Finding> {
    let me = server();
    let clients = cx.world.signals.iter().filter(|((o, n), _)| n == signal::API_REQUESTS_PER_SEC && *o != me);
    let surging = clients.filter_map(|((client, _), rate)| {
        let usual = cx.world.signal(client, signal::API_REQUESTS_USUAL_PER_SEC)?;
        (*rate >= SURGE.1 && *rate >= usual.max(0.0) * SURGE.0).then_some((client, *rate, usual))
    });
    let worst = surging.max_by(|a, b| a.1.total_cmp(&b.1));
    let rejected = measured(cx, signal::API_REJECTED_PER_SEC).filter(|r| *r >= REJECTED_MAX);
    let complaints =
        complaints(cx, |m| m.contains("the server has received too many requests and has asked us to try again later"));
    if worst.is_none() && rejected.is_none() && complaints.0 < COMPLAINTS_MIN {
        return None;
    }
    let turned_away = rejected.map_or(String::new(), |r| format!("; it turns away {r:.0} requests a second"));
    let mut finding = Finding::new(FaultClass::ApiServerOverload, me.clone(), "the API server is overloaded");
    finding = match worst {
        Some((client, rate, usual)) => {
            let workloads = workloads_of(cx, client);
            let cause = if let [one] = workloads.as_slice() { one.clone() } else { client.clone() };
            let f = finding
                .because(cause, format!("{client} sends {rate:.0} requests a second, usually {usual:.0}{turned_away}"))
                .fix(format!("Stop or scale down what acts as {client}, and give it a flow schema of its own with a low priority; see what it lists or watches in a loop"));
            metric(f, client, signal::API_REQUESTS_PER_SEC, rate)
        }
        None => finding
            .because(me.clone(), format!("it answers 429 to its clients{turned_away}"))
            .fix("Find the client with most requests (apiserver_request_total, audit log), slow it down, and give it a flow schema of its own"),
    };
    if let Some(rejected) = rejected {
        finding = metric(finding, &me, signal::API_REJECTED_PER_SEC, rejected);
    }
    Some(complaints.1.iter().fold(finding, |f, e| f.event(e)))
}

/// The workloads whose pods run as this service account.
fn workloads_of(cx: &Context<'_>, account: &ObjectRef) -> Vec<ObjectRef> {
    if account.kind != "ServiceAccount" {
        return Vec::new();
    }
    let pods = cx.world.pods.in_namespace(&account.namespace).filter(|p| p.spec.service_account_name == account.name);
    let mut out: Vec<ObjectRef> = pods.map(|p| cx.root(p)).collect();
    out.sort();
    out.dedup();
    out
}

/// How often events say something, with the newest two that do.
fn complaints<'a>(cx: &Context<'a>, says: impl Fn(&str) -> bool) -> (i64, Vec<&'a Event>) {
    let mut events: Vec<&Event> = cx.world.events.iter().filter(|e| says(&e.message)).collect();
    let times = events.iter().map(|e| e.times()).sum();
    events.sort_by_key(|e| std::cmp::Reverse(e.last_seen()));
    events.truncate(2);
    (times, events)
}

fn failing(cx: &Context<'_>) -> Option<Finding> {
    let me = server();
    let errors = measured(cx, signal::API_ERROR_RATIO).filter(|r| *r >= ERRORS_MAX);
    let latency = measured(cx, signal::API_LATENCY_P99_SECS).filter(|s| *s >= LATENCY_MAX);
    let (times, events) = complaints(cx, |m| {
        [
            "etcdserver: request timed out",
            "etcdserver: leader changed",
            "etcdserver: no leader",
            "the server is currently unable to handle the request",
        ]
        .iter()
        .any(|w| m.contains(w))
    });
    let etcd = events.iter().any(|e| e.message.contains("etcdserver"));
    let why = match (errors, latency) {
        (Some(r), _) => format!("{:.0} % of its answers are server errors", r * 100.0),
        (None, Some(s)) => format!("one request in a hundred takes more than {s:.1} s"),
        (None, None) if times >= COMPLAINTS_MIN && etcd => format!("etcd does not answer it in time ({times} times)"),
        // One aggregated API that is down says the same words; it has a finding of its own.
        _ => return None,
    };
    let mut finding = Finding::new(FaultClass::ApiServerFailing, me.clone(), "the API server is slow or failing")
        .because(me.clone(), why)
        .fix("See the API server's log and the latency of etcd's disk (etcd_disk_wal_fsync_duration_seconds); move etcd to a faster disk, look for webhooks that are slow, and for large lists without a limit");
    if let Some(errors) = errors {
        finding = metric(finding, &me, signal::API_ERROR_RATIO, errors);
    }
    if let Some(latency) = latency {
        finding = metric(finding, &me, signal::API_LATENCY_P99_SECS, latency);
    }
    Some(events.iter().fold(finding, |f, e| f.event(e)))
}

fn etcd(cx: &Context<'_>) -> Option<Finding> {
    let me = server();
    let full = |m: &str| m.contains("database space exceeded");
    let (times, events) = complaints(cx, full);
    let logged = cx.world.logs.iter().find_map(|((namespace, pod, container), tail)| {
        let line = tail.current.iter().chain(&tail.previous).rev().find(|l| full(l))?;
        Some((format!("log/{namespace}/{pod}/{container}"), line))
    });
    let size = measured(cx, signal::ETCD_DB_BYTES).zip(measured(cx, signal::ETCD_QUOTA_BYTES).filter(|q| *q > 0.0));
    let near = size.filter(|(db, quota)| db / quota >= ETCD_MAX);
    let refuses = times > 0 || logged.is_some();
    if !refuses && near.is_none() {
        return None;
    }
    let share = near.map_or(String::new(), |(db, quota)| format!("{:.0} % of its quota are used", db / quota * 100.0));
    let why = match (refuses, share.is_empty()) {
        (true, true) => "its database has reached its quota: it refuses every write".to_owned(),
        (true, false) => format!("its database has reached its quota ({share}): it refuses every write"),
        (false, _) => format!("{share}; at all of it, it refuses every write"),
    };
    let mut finding = Finding::new(FaultClass::EtcdSpace, me.clone(), "etcd runs out of space")
        .because(me.clone(), why)
        .fix("Compact and defragment each member (etcdctl compact, etcdctl defrag), then clear the alarm (etcdctl alarm disarm); find what fills it (events, large config maps), or raise --quota-backend-bytes")
        .graded(if refuses { Grade::Critical } else { Grade::High });
    if let Some((db, quota)) = size {
        finding = metric(finding, &me, signal::ETCD_DB_BYTES, db);
        finding = metric(finding, &me, signal::ETCD_QUOTA_BYTES, quota);
    }
    if let Some((id, line)) = logged {
        finding = finding.fact(id, "log", line);
    }
    for event in &events {
        let about = &event.involved_object;
        finding =
            finding.event(event).hits(ObjectRef::new(about.kind.clone(), about.namespace.clone(), about.name.clone()));
    }
    Some(finding)
}
