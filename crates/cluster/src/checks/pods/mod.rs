//! Pods and containers: why a pod does not start, does not stay up, or does not end.
//!
//! One finding for each workload and fault, not for each pod. Of a container only its most exact trouble is told: what
//! kills it, not that it keeps dying.

mod affinities;
mod change;
mod container;
mod crash;
mod create;
mod ending;
mod facts;
mod filters;
mod fit;
mod image;
mod init;
mod logs;
mod missing;
mod preempt;
mod probes;
mod schedule;
mod spec;
mod terminating;
mod text;
mod usage;

use crate::{Context, Finding, ObjectRef};
use facts::Subject;

/// How much a trouble says about its own cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// That it does not work: anything else that is found with the workload says more.
    Weak,
    /// That a container keeps dying.
    Crash,
    /// What is wrong.
    Exact,
}

/// Something wrong with a pod or one of its containers.
struct Trouble {
    /// The container; empty for the pod as a whole.
    container: String,
    weight: Weight,
    finding: Finding,
}

impl Trouble {
    fn new(weight: Weight, container: &str, finding: Finding) -> Self {
        Self { container: container.to_owned(), weight, finding }
    }
}

/// Pods of a workload that are looked at closely: the rest have the same trouble, and looking for what explains it
/// takes time.
const CLOSELY: usize = 3;

/// Runs the checks of this group.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    let first = out.len();
    let victims = preempt::victims(cx);
    for (root, pods) in cx.workloads() {
        let mut troubles = Vec::new();
        let live = pods.iter().filter(|p| ending::is_live(p)).count() as i64;
        for (i, pod) in pods.iter().enumerate() {
            let mut subject = Subject::new(cx, pod, root, &victims);
            (subject.live, subject.brief) = (live, i >= CLOSELY);
            look(&subject, &mut troubles);
        }
        spec::workload(cx, root, pods, &mut troubles);
        out.extend(settle(troubles));
    }
    spec::without_pods(cx, out);
    preempt::run(cx, &victims, out);
    terminating::claims_and_namespaces(cx, out);
    create::gather_by_node(out, first);
}

/// Everything wrong with one pod.
fn look(subject: &Subject<'_>, out: &mut Vec<Trouble>) {
    let pod = subject.pod;
    if pod.metadata.deletion_timestamp.is_some() {
        terminating::pod(subject, out);
        return;
    }
    match pod.status.phase.as_str() {
        // The kubelet of its node is gone: its statuses are old, and the node has a finding of its own.
        "Unknown" => return,
        "Succeeded" => {
            image::slow(subject, out);
            return;
        }
        "Failed" => {
            ending::failed(subject, out);
            return;
        }
        _ => {}
    }
    let before = out.len();
    schedule::unbound(subject, out);
    if out.len() > before {
        return;
    }
    container::all(subject, out);
    if out.len() == before {
        create::stuck(subject, out);
    }
    if out.len() == before {
        probes::readiness(subject, out);
    }
    if out.len() == before {
        schedule::missing_node(subject, out);
    }
    ending::left_behind(subject, out);
    usage::run(subject, out);
    image::slow(subject, out);
}

/// What is left of a workload's troubles: the weak ones only where nothing else was found, crashes only of containers
/// that nothing exact is known of. Several pods with one trouble are one finding.
fn settle(troubles: Vec<Trouble>) -> Vec<Finding> {
    let exact = |t: &&Trouble| t.weight == Weight::Exact && t.finding.severity.is_fault();
    let containers: std::collections::BTreeSet<String> =
        troubles.iter().filter(exact).map(|t| t.container.clone()).collect();
    let strongest = troubles.iter().filter(|t| t.finding.severity.is_fault()).map(|t| t.weight).max();
    let keep = |t: &Trouble| match t.weight {
        _ if !t.finding.severity.is_fault() => true,
        Weight::Exact => true,
        Weight::Crash => !containers.contains(&t.container) && !containers.contains(""),
        Weight::Weak => strongest == Some(Weight::Weak),
    };
    let mut out: Vec<Finding> = Vec::new();
    for trouble in troubles.into_iter().filter(keep) {
        let found = trouble.finding;
        match out.iter_mut().find(|f| f.object == found.object && f.fault == found.fault) {
            Some(told) => {
                told.symptoms.extend(found.symptoms);
                for object in found.explained_by {
                    if !told.explained_by.contains(&object) {
                        told.explained_by.push(object);
                    }
                }
                told.since = [told.since, found.since].into_iter().flatten().min();
                // Facts of a few pods are enough.
                for fact in found.evidence.into_iter().take(2) {
                    *told = std::mem::replace(told, Finding::new(found.fault, ObjectRef::default(), "")).fact(
                        fact.id,
                        &fact.source,
                        fact.text,
                    );
                }
            }
            None => out.push(found),
        }
    }
    out
}
