//! What all checks of pods ask of one pod.

use crate::objects::{Condition, Container, ContainerStatus, Event, Node, Pod};
use crate::{Context, Finding, LogTail, ObjectRef};
use nightshift_model::{FaultClass, Timestamp};
use std::time::Duration;

/// One pod, and the workload that it belongs to.
pub(super) struct Subject<'a> {
    pub(super) cx: &'a Context<'a>,
    pub(super) pod: &'a Pod,
    pub(super) root: &'a ObjectRef,
    pub(super) me: ObjectRef,
    pub(super) victims: &'a super::preempt::Victims<'a>,
    /// Pods of the workload that run or will.
    pub(super) live: i64,
    /// Whether others of the workload have been looked at closely: what explains them explains this one.
    pub(super) brief: bool,
}

/// A container as wanted and as it is.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) spec: &'a Container,
    pub(super) status: Option<&'a ContainerStatus>,
    /// Whether it is an init container (a sidecar too).
    pub(super) init: bool,
}

impl<'a> Subject<'a> {
    pub(super) fn new(
        cx: &'a Context<'a>,
        pod: &'a Pod,
        root: &'a ObjectRef,
        victims: &'a super::preempt::Victims<'a>,
    ) -> Self {
        Self { cx, pod, root, me: ObjectRef::of("Pod", &pod.metadata), victims, live: 0, brief: false }
    }

    pub(super) fn namespace(&self) -> &'a str {
        &self.pod.metadata.namespace
    }

    pub(super) fn name(&self) -> &'a str {
        &self.pod.metadata.name
    }

    /// A draft about the pod's workload, which the pod suffers from.
    pub(super) fn draft(&self, fault: FaultClass, summary: impl Into<String>) -> Finding {
        let draft = Finding::new(fault, self.root.clone(), summary);
        if self.me == *self.root { draft } else { draft.hits(self.me.clone()) }
    }

    /// All containers, init containers first.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part<'a>> + use<'a> {
        let (spec, status) = (&self.pod.spec, &self.pod.status);
        let init = spec.init_containers.iter().map(move |c| Part {
            spec: c,
            status: status.init_container_statuses.iter().find(|s| s.name == c.name),
            init: true,
        });
        let main = spec.containers.iter().map(move |c| Part {
            spec: c,
            status: status.container_statuses.iter().find(|s| s.name == c.name),
            init: false,
        });
        init.chain(main)
    }

    /// The events about it, oldest first.
    pub(super) fn events(&self) -> &'a [&'a Event] {
        self.cx.events("Pod", self.namespace(), self.name())
    }

    /// The newest event with one of these reasons, after `since` where it is given.
    pub(super) fn newest(&self, reasons: &[&str], since: Option<Timestamp>) -> Option<&'a Event> {
        let late = |e: &&&Event| since.is_none_or(|s| e.last_seen().is_none_or(|t| t >= s));
        self.events().iter().rev().filter(late).find(|e| reasons.contains(&e.reason.as_str())).copied()
    }

    pub(super) fn logs(&self, container: &str) -> Option<&'a LogTail> {
        if self.cx.world.logs.is_empty() {
            return None;
        }
        self.cx.world.logs.get(&(self.namespace().to_owned(), self.name().to_owned(), container.to_owned()))
    }

    pub(super) fn condition(&self, kind: &str) -> Option<&'a Condition> {
        self.pod.status.conditions.of(kind)
    }

    /// The node that it is bound to, if it was seen.
    pub(super) fn node(&self) -> Option<&'a Node> {
        let name = self.pod.spec.node_name.as_str();
        (!name.is_empty()).then(|| self.cx.world.nodes.get("", name)).flatten()
    }

    /// Its node, when that is known to be in trouble: it then explains what its pods suffer.
    pub(super) fn bad_node(&self) -> Option<ObjectRef> {
        let node = self.node()?;
        node_is_bad(node).then(|| ObjectRef::of("Node", &node.metadata))
    }

    /// Time since then.
    pub(super) fn age(&self, at: Timestamp) -> Duration {
        self.cx.age(at)
    }

    /// Time since it was made.
    pub(super) fn own_age(&self) -> Option<Duration> {
        self.pod.metadata.creation_timestamp.map(|t| self.age(t))
    }

    /// Whether a job makes it.
    pub(super) fn of_job(&self) -> bool {
        self.pod.metadata.controller().is_some_and(|o| o.kind == "Job")
    }

    /// `kubectl` words for its workload: `deployment/web -n shop`.
    pub(super) fn target(&self) -> String {
        target(self.root)
    }
}

/// `deployment/web -n shop`.
pub(super) fn target(object: &ObjectRef) -> String {
    let kind = object.kind.to_ascii_lowercase();
    if object.namespace.is_empty() {
        format!("{kind}/{}", object.name)
    } else {
        format!("{kind}/{} -n {}", object.name, object.namespace)
    }
}

/// Not ready, or without contact.
pub(super) fn node_is_bad(node: &Node) -> bool {
    node.status.conditions.of("Ready").is_some_and(|c| c.status != "True")
        || node
            .spec
            .taints
            .iter()
            .any(|t| matches!(t.key.as_str(), "node.kubernetes.io/unreachable" | "node.kubernetes.io/out-of-service"))
}

impl<'a> Part<'a> {
    pub(super) fn name(&self) -> &'a str {
        &self.spec.name
    }

    /// Why it waits; empty when it does not or does not say.
    pub(super) fn waits(&self) -> (&'a str, &'a str) {
        let waiting = self.status.and_then(|s| s.state.waiting.as_ref());
        waiting.map_or(("", ""), |w| (w.reason.as_str(), w.message.as_str()))
    }

    /// How it ended last: now, or before its last restart.
    pub(super) fn ended(&self) -> Option<&'a crate::objects::Terminated> {
        let status = self.status?;
        status.state.terminated.as_ref().or(status.last_state.terminated.as_ref())
    }

    pub(super) fn restarts(&self) -> i64 {
        self.status.map_or(0, |s| s.restart_count)
    }

    pub(super) fn ready(&self) -> bool {
        self.status.is_some_and(|s| s.ready)
    }

    pub(super) fn running(&self) -> bool {
        self.status.is_some_and(|s| s.state.running.is_some())
    }

    /// Since when it runs.
    pub(super) fn running_since(&self) -> Option<Timestamp> {
        self.status.and_then(|s| s.state.running.as_ref()).and_then(|r| r.started_at)
    }

    /// `container app` or `init container app`.
    pub(super) fn called(&self) -> String {
        format!("{}container {}", if self.init && !self.spec.is_sidecar() { "init " } else { "" }, self.spec.name)
    }

    /// Path of a field of its status, as in manifests.
    pub(super) fn path(&self, field: &str) -> String {
        let list = if self.init { "initContainerStatuses" } else { "containerStatuses" };
        format!("status.{list}[{}].{field}", self.spec.name)
    }

    /// Path of a field of its specification.
    pub(super) fn spec_path(&self, field: &str) -> String {
        let list = if self.init { "initContainers" } else { "containers" };
        format!("spec.{list}[{}].{field}", self.spec.name)
    }

    /// Adds how it ended as a fact.
    pub(super) fn told_end(&self, subject: &Subject<'_>, finding: Finding) -> Finding {
        let (Some(end), Some(status)) = (self.ended(), self.status) else { return finding };
        let field = if status.state.terminated.is_some() { "state.terminated" } else { "lastState.terminated" };
        let message =
            if end.message.is_empty() { String::new() } else { format!(", {}", super::text::quote(&end.message)) };
        finding.field(&subject.me, &self.path(field), format!("{} exit code {}{message}", end.reason, end.exit_code))
    }

    /// Adds why it waits as a fact.
    pub(super) fn told_wait(&self, subject: &Subject<'_>, finding: Finding) -> Finding {
        let (reason, message) = self.waits();
        if reason.is_empty() {
            return finding;
        }
        finding.field(&subject.me, &self.path("state.waiting"), format!("{reason} {message}").trim())
    }
}
