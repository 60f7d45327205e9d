//! Pods that have a node and do not start: sandbox, network addresses, volumes, what they name and nobody has made.

use super::facts::Subject;
use super::text::{between, quote, span};
use super::{Trouble, Weight, missing};
use crate::objects::{Event, Volume};
use crate::{Finding, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A pod that waits for longer without a word of why is told of.
const SILENT: Duration = Duration::from_secs(600);
/// Workloads on one node from which their common trouble is the node's.
const NODE_WIDE: usize = 3;

/// Why a pod that is bound to a node does not start.
pub(super) fn stuck(subject: &Subject<'_>, out: &mut Vec<Trouble>) {
    let creating = |r: &str| matches!(r, "ContainerCreating" | "PodInitializing" | "");
    let up = subject.parts().any(|p| p.running() || p.ended().is_some() || !creating(p.waits().0));
    if up || subject.condition("Ready").is_some_and(|c| c.status == "True") || subject.pod.status.phase == "Running" {
        return;
    }
    // What the kubelet did after a failure says that the failure is over.
    let went_on = subject.newest(&["Pulling", "Pulled", "Created", "Started"], None).and_then(Event::last_seen);
    let newest = |reasons: &[&str]| {
        subject.newest(reasons, None).filter(|e| went_on.is_none_or(|t| e.last_seen().is_none_or(|s| s > t)))
    };
    let mounts = ["FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedMountOnFilesystemMismatch"];
    let mount = newest(&mounts);
    // The newest message may say only that time ran out; an earlier one says why.
    let telling = subject.events().iter().rev().filter(|e| mount.is_some() && mounts.contains(&e.reason.as_str()));
    for event in telling.clone() {
        let Some(wanted) = missing::parse(&event.message, &subject.pod.spec) else { continue };
        // It is there by now: the next try will find it.
        let Some(mut trouble) = missing::told(subject, None, &wanted) else { return };
        trouble.finding = trouble.finding.event(event);
        out.push(trouble);
        return;
    }
    if let Some(trouble) = named(subject, mount, telling.clone().map(|e| e.message.as_str())) {
        out.push(trouble);
        return;
    }
    let sandbox =
        newest(&["FailedCreatePodSandBox", "FailedCreatePodSandbox", "NetworkNotReady", "FailedPodSandBoxStatus"]);
    if let Some(event) = sandbox {
        out.push(no_sandbox(subject, event));
        return;
    }
    // Both of these only mean that the kubelet has not yet heard of an object.
    let transient = |e: &&&&Event| !e.message.contains("not registered") && !e.message.contains("failed to sync");
    let telling: Vec<&Event> = telling.filter(|e| transient(&e)).copied().collect();
    let why = telling.iter().find(|e| !e.message.contains("timed out waiting for the condition")).or(telling.first());
    if let Some(event) = why {
        out.push(volume(subject, event));
        return;
    }
    silent(subject, out);
}

/// What its specification names and certainly is not there.
fn named<'a>(subject: &Subject<'_>, mount: Option<&Event>, messages: impl Iterator<Item = &'a str>) -> Option<Trouble> {
    let (world, namespace, spec) = (subject.cx.world, subject.namespace(), &subject.pod.spec);
    let messages: Vec<&str> = messages.collect();
    let waits = !spec.node_name.is_empty() || mount.is_some();
    let statuses =
        !subject.pod.status.container_statuses.is_empty() || !subject.pod.status.init_container_statuses.is_empty();
    let account = if spec.service_account_name.is_empty() { "default" } else { &spec.service_account_name };
    let no_account = messages.iter().any(|m| {
        let low = m.to_ascii_lowercase();
        low.contains("serviceaccount") && low.contains("not found")
    });
    if no_account {
        let finding = missing::account(subject, account);
        let finding = mount.map_or(finding.clone(), |e| finding.event(e));
        return Some(Trouble::new(Weight::Exact, "", finding));
    }
    if !(waits && (statuses || mount.is_some())) {
        return None;
    }
    let volumes = missing::of_spec(world, namespace, spec, true);
    for wanted in volumes.into_iter().chain(missing::of_spec(world, namespace, spec, false)) {
        if let Some(mut trouble) = missing::told(subject, None, &wanted) {
            trouble.finding = trouble.finding.field(&subject.me, "status.phase", "Pending, ContainerCreating");
            if let Some(event) = mount {
                trouble.finding = trouble.finding.event(event);
            }
            return Some(trouble);
        }
    }
    if let Some(name) = missing_claim(subject) {
        let finding = missing::claim(subject, name).field(&subject.me, "spec.volumes", format!("claim {name}"));
        return Some(Trouble::new(Weight::Exact, "", finding));
    }
    // The controller makes `default` in its own time.
    if account != "default" && world.service_accounts.look(namespace, account).is_missing() {
        let finding = missing::account(subject, account).field(&subject.me, "spec.serviceAccountName", account);
        return Some(Trouble::new(Weight::Exact, "", finding));
    }
    None
}

/// A claim that the pod names and that certainly does not exist.
pub(super) fn missing_claim<'a>(subject: &Subject<'a>) -> Option<&'a str> {
    let claims = subject.pod.spec.volumes.iter().filter_map(|v| v.persistent_volume_claim.as_ref());
    claims.map(|c| c.claim_name.as_str()).find(|c| subject.cx.world.claims.look(subject.namespace(), c).is_missing())
}

/// Whether a network plugin says that it has no addresses left.
fn no_addresses(text: &str) -> bool {
    let low = text.to_ascii_lowercase();
    [
        "no available ip",
        "failed to assign an ip address",
        "no ip addresses available",
        "no more ips",
        "no more ip addresses",
        "out of ip addresses",
        "ip addresses exhausted",
        "insufficientfreeaddresses",
        "no free ip",
        "no addresses available",
        "range is full",
        "unable to allocate ip",
        "failed to allocate for range",
        "insufficient ip",
        "pool exhausted",
    ]
    .iter()
    .any(|w| low.contains(w))
}

fn no_sandbox(subject: &Subject<'_>, event: &Event) -> Trouble {
    let text = &event.message;
    let low = text.to_ascii_lowercase();
    let node = &subject.pod.spec.node_name;
    let node = if node.is_empty() && event.reporter() == "kubelet" { &event.source.host } else { node };
    let place = if node.is_empty() { "its node".to_owned() } else { format!("node {node}") };
    let plugin = between(text, "plugin type=\"", "\"").map(|p| format!(" ({p})")).unwrap_or_default();
    let (fault, why, fix) = if no_addresses(text) {
        (
            FaultClass::IpExhaustion,
            format!("The network plugin{plugin} has no pod addresses left on {place}"),
            format!(
                "Give {place} or the cluster a larger range of pod addresses, add nodes, or remove pods that are not needed."
            ),
        )
    } else if low.contains("too many open files") {
        (
            FaultClass::FileDescriptorsExhausted,
            format!("{place} has no file descriptors or watches left"),
            format!("Raise fs.inotify.max_user_instances and fs.file-max on {place}, and find what holds them."),
        )
    } else {
        let fix = if low.contains("not found") && low.contains("runtime") && low.contains("handler") {
            format!(
                "Install the runtime that runtimeClassName of {} names on {place}, or name another.",
                subject.target()
            )
        } else {
            format!(
                "Look at the network plugin and the container runtime on {place}: restart the plugin's pod there, or drain the node."
            )
        };
        (
            FaultClass::SandboxFailure,
            format!("The pod's sandbox cannot be made on {place}{plugin}: {}", quote(text)),
            fix,
        )
    };
    let mut finding = subject.draft(fault, format!("A pod of {} does not start: {}", subject.root.name, lower(&why)));
    finding = if node.is_empty() {
        finding.because(subject.root.clone(), why)
    } else {
        let object = ObjectRef::new("Node", "", node.clone());
        finding.because(object.clone(), why).explained_by(object)
    };
    Trouble::new(Weight::Exact, "", finding.fix(fix).event(event))
}

fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|c| c.to_ascii_lowercase().to_string() + letters.as_str()).unwrap_or_default()
}

/// The volume of the pod that a message is about.
fn volume_of<'a>(subject: &Subject<'a>, text: &str) -> Option<&'a Volume> {
    let name = between(text, "for volume \"", "\"").or_else(|| between(text, "unmounted volumes=[", "]"));
    let volumes = &subject.pod.spec.volumes;
    let by_name = name.and_then(|n| volumes.iter().find(|v| n.split([' ', ',']).any(|w| w == v.name)));
    let by_claim = || {
        volumes.iter().find(|v| {
            let claim = v.persistent_volume_claim.as_ref().map(|c| c.claim_name.as_str());
            let claim = claim.and_then(|c| subject.cx.world.claims.get(subject.namespace(), c));
            claim.is_some_and(|c| !c.spec.volume_name.is_empty() && text.contains(&c.spec.volume_name))
        })
    };
    let only = || {
        let mut claims = volumes.iter().filter(|v| v.persistent_volume_claim.is_some());
        claims.next().filter(|_| claims.next().is_none())
    };
    by_name.or_else(by_claim).or_else(only)
}

fn volume(subject: &Subject<'_>, event: &Event) -> Trouble {
    let text = &event.message;
    let low = text.to_ascii_lowercase();
    let (cx, namespace) = (subject.cx, subject.namespace());
    let volume = volume_of(subject, text);
    let claim = volume.and_then(|v| v.persistent_volume_claim.as_ref()).map(|c| c.claim_name.as_str());
    let called = match (claim, volume) {
        (Some(c), _) => format!("claim {c}"),
        (None, Some(v)) => format!("volume {}", v.name),
        (None, None) => "a volume".into(),
    };
    let node = &subject.pod.spec.node_name;
    let twice = low.contains("multi-attach");
    let fault = if twice { FaultClass::VolumeMultiAttach } else { FaultClass::VolumeMountFailure };
    let verb = if event.reason == "FailedAttachVolume" { "attached" } else { "mounted" };
    let mut finding =
        subject.draft(fault, format!("The pod waits for {called}, which cannot be {verb}: {}", quote(text)));
    let mut cause = claim.map_or(subject.root.clone(), |c| ObjectRef::new("PersistentVolumeClaim", namespace, c));
    let mut why = format!("{called} cannot be {verb} on node {node}");
    let mut fix = format!("Look at {called} and the storage driver on node {node}; the message says what was refused.");
    if twice {
        // Whoever holds it must let go.
        let holder = claim.and_then(|c| {
            let uses = |p: &&crate::objects::Pod| {
                let volumes = &p.spec.volumes;
                p.spec.node_name != *node
                    && p.metadata.name != subject.name()
                    && volumes.iter().any(|v| v.persistent_volume_claim.as_ref().is_some_and(|v| v.claim_name == c))
            };
            cx.world.pods.in_namespace(namespace).find(uses)
        });
        if let Some(holder) = holder {
            cause = ObjectRef::of("Pod", &holder.metadata);
            why = format!(
                "{called} is still attached to node {} for pod {}, and it can be on one node only",
                holder.spec.node_name, holder.metadata.name
            );
        }
        fix = format!(
            "Let the other pod go first (strategy Recreate in {}), or wait until its node has let go; ReadWriteMany volumes may be on several nodes.",
            subject.target()
        );
    } else if low.contains("not found in the list of registered csi drivers") {
        let driver = between(text, "driver name ", " not found").unwrap_or("of the volume");
        cause = ObjectRef::new("Node", "", node.clone());
        why = format!("Storage driver {driver} does not run on node {node}");
        fix = format!(
            "Bring up the node pod of driver {driver} on {node} (its DaemonSet), or move the pod to a node that has it."
        );
    } else if low.contains("hostpath type check failed") {
        cause = subject.root.clone();
        why = format!("The path that {called} names does not exist on node {node}, or is of another type");
        fix = format!("Make the path on the node, or set type DirectoryOrCreate of {called} in {}.", subject.target());
    } else if low.contains("connection refused")
        || low.contains("timed out")
        || low.contains("deadlineexceeded")
        || low.contains("no route")
    {
        why = format!("Its storage does not answer node {node}");
        fix = format!("Check that the storage behind {called} is up and can be reached from node {node}.");
    }
    if let Some(c) = claim {
        finding = finding.explained_by(ObjectRef::new("PersistentVolumeClaim", namespace, c));
        if let Some(found) = cx.world.claims.get(namespace, c).filter(|c| !c.spec.volume_name.is_empty()) {
            finding = finding.explained_by(ObjectRef::new("PersistentVolume", "", found.spec.volume_name.clone()));
        }
    }
    if let Some(node) = subject.bad_node() {
        finding = finding.explained_by(node);
    }
    Trouble::new(Weight::Exact, "", finding.because(cause, why).fix(fix).event(event))
}

/// It waits, and nobody says why.
fn silent(subject: &Subject<'_>, out: &mut Vec<Trouble>) {
    let bound = !subject.pod.spec.node_name.is_empty();
    let since = subject.pod.status.start_time.or(subject.pod.metadata.creation_timestamp);
    let Some(waits) = since.map(|t| subject.age(t)).filter(|t| bound && *t >= SILENT) else { return };
    let events = subject.events().iter().rev().find(|e| e.reason == "Pulling");
    if events.is_some() || subject.condition("PodScheduled").is_some_and(|c| c.status == "False") {
        return;
    }
    let node = ObjectRef::new("Node", "", subject.pod.spec.node_name.clone());
    let finding = subject
        .draft(
            FaultClass::SandboxFailure,
            format!("A pod has waited for {} on node {} to be started, and nothing says why", span(waits), node.name),
        )
        .because(node.clone(), format!("The kubelet of node {} does not start it", node.name))
        .fix(format!("Look at the kubelet and the container runtime of node {}; drain it if other pods do not start there either.", node.name))
        .explained_by(node)
        .field(&subject.me, "status.phase", &subject.pod.status.phase);
    out.push(Trouble::new(Weight::Weak, "", finding));
}

/// Several workloads with one trouble on one node: it is the node's.
pub(super) fn gather_by_node(out: &mut Vec<Finding>, first: usize) {
    let shared = [FaultClass::IpExhaustion, FaultClass::SandboxFailure, FaultClass::FileDescriptorsExhausted];
    let mut groups: BTreeMap<(FaultClass, ObjectRef), BTreeSet<usize>> = BTreeMap::new();
    for (i, finding) in out.iter().enumerate().skip(first) {
        if shared.contains(&finding.fault) && finding.cause.object.kind == "Node" {
            groups.entry((finding.fault, finding.cause.object.clone())).or_default().insert(i);
        }
    }
    let mut gone = BTreeSet::new();
    let mut wide = Vec::new();
    for ((fault, node), members) in groups.into_iter().filter(|(_, m)| m.len() >= NODE_WIDE) {
        let Some(model) = members.first().and_then(|i| out.get(*i)).cloned() else { continue };
        let mut finding = Finding::new(
            fault,
            node.clone(),
            format!("Pods of {} workloads do not start: {}", members.len(), lower(&model.cause.why)),
        )
        .because(node, model.cause.why.clone())
        .fix(model.fix.clone());
        for i in &members {
            finding.symptoms.push(out[*i].object.clone());
            finding.symptoms.extend(out[*i].symptoms.iter().cloned());
            for fact in out[*i].evidence.iter().take(2) {
                finding = finding.fact(fact.id.clone(), &fact.source, &fact.text);
            }
        }
        gone.extend(members);
        wide.push(finding);
    }
    if gone.is_empty() {
        return;
    }
    let mut i = 0;
    out.retain(|_| {
        i += 1;
        !gone.contains(&(i - 1))
    });
    out.extend(wide);
}
