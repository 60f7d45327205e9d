//! Network policies: that select nothing, that let everything through, that cut off what is called.

use super::callers::{Call, Calls};
use super::index::{Net, Template};
use super::reach::{Direction, Target, allowed, asks_dns, covers, peers, policies, rules};
use super::selector;
use crate::objects::text::span;
use crate::objects::{IntOrString, NetworkPeer, NetworkPolicy, NetworkRule};
use crate::{Finding, Look, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::{BTreeMap, BTreeSet};

/// Checks every policy, and every call that configuration names.
pub(super) fn run(net: &Net<'_>, calls: &Calls, out: &mut Vec<Finding>) {
    let all = &net.cx.world.network_policies;
    for policy in all.iter().filter(|p| p.metadata.deletion_timestamp.is_none()) {
        let object = ObjectRef::of("NetworkPolicy", &policy.metadata);
        out.extend(selects_nothing(net, policy, &object));
        out.extend(allows_all(policy, &object));
    }
    if !all.is_empty() {
        blocked(net, calls, out);
    }
}

fn selects_nothing(net: &Net<'_>, policy: &NetworkPolicy, object: &ObjectRef) -> Option<Finding> {
    let selector = &policy.spec.pod_selector;
    let world = net.cx.world;
    let namespace = &object.namespace;
    let seen = world.pods.sees(namespace) && world.deployments.sees(namespace) && world.cron_jobs.sees(namespace);
    if selector.is_empty() || !seen {
        return None;
    }
    // Pods that come and go with each challenge of an issuer.
    let passing = selector.match_labels.iter().any(|(n, _)| n.starts_with("acme.cert-manager.io/"));
    let selected = net.templates(namespace).iter().any(|t| selector.matches(&t.labels))
        || net.cx.pods_matching(namespace, selector).next().is_some();
    if passing || selected {
        return None;
    }
    let finding = Finding::new(
        FaultClass::NetworkPolicySelectsNothing,
        object.clone(),
        format!("{object} selects no pod: nothing in {namespace} has {selector}"),
    )
    .field(object, "spec.podSelector", selector.to_string());
    let reason = Some(&selector.match_labels).filter(|l| !l.is_empty() && selector.match_expressions.is_empty());
    Some(match reason.and_then(|l| selector::reason(net, object, &policy.metadata, "spec.podSelector", l)) {
        Some(reason) => reason.tell(finding),
        None => finding
            .because(object.clone(), format!("no pod and no workload of {namespace} has {selector}"))
            .fix(format!("Correct podSelector of {object} to the labels of the pods it is for, or delete it.")),
    })
}

/// A rule without peers and ports, or one for every address or every pod of every namespace.
fn open(rule: &NetworkRule, direction: Direction) -> Option<&'static str> {
    if !rule.ports.is_empty() {
        return None;
    }
    let peers = peers(rule, direction);
    if peers.is_empty() {
        return Some("a rule that names neither peers nor ports lets everybody through");
    }
    let everywhere = |p: &NetworkPeer| {
        p.ip_block.as_ref().is_some_and(|b| matches!(b.cidr.as_str(), "0.0.0.0/0" | "::/0") && b.except.is_empty())
    };
    let everyone = |p: &NetworkPeer| {
        p.namespace_selector.as_ref().is_some_and(crate::objects::LabelSelector::is_empty)
            && p.pod_selector.as_ref().is_none_or(crate::objects::LabelSelector::is_empty)
    };
    if peers.iter().any(everywhere) {
        Some("a rule for every address lets everybody through on every port")
    } else if peers.iter().any(everyone) {
        Some("a rule for every namespace lets every pod of the cluster through on every port")
    } else {
        None
    }
}

fn allows_all(policy: &NetworkPolicy, object: &ObjectRef) -> Option<Finding> {
    let in_ = covers(policy, Direction::Ingress);
    let out = covers(policy, Direction::Egress);
    let find = |direction| rules(policy, direction).iter().find_map(|r| open(r, direction));
    let (ingress, egress) = (find(Direction::Ingress).filter(|_| in_), find(Direction::Egress).filter(|_| out));
    // Going out is often open by intent, beside rules for what comes in; to limit only what goes out as well.
    let (why, field, direction) = match (ingress, egress) {
        (Some(why), egress) if !out || egress.is_some() || policy.spec.ingress.len() > 1 => {
            (why, "spec.ingress", Direction::Ingress)
        }
        (None, Some(why)) if !in_ => {
            // Addresses outside are what most go out for: only a rule without any limit says nothing.
            if policy.spec.egress.iter().all(|r| !r.to.is_empty()) {
                return None;
            }
            (why, "spec.egress", Direction::Egress)
        }
        _ => return None,
    };
    let others = rules(policy, direction).len() > 1;
    let whom = if policy.spec.pod_selector.is_empty() {
        format!("all pods of {}", object.namespace)
    } else {
        format!("the pods with {}", policy.spec.pod_selector)
    };
    Some(
        Finding::new(
            FaultClass::NetworkPolicyAllowsAll,
            object.clone(),
            format!(
                "{object} lets everything through for {whom}{}",
                if others { ", which makes its other rules void" } else { "" }
            ),
        )
        .because(object.clone(), why)
        .fix(format!(
            "Name peers and ports in that rule of {object}; to refuse everything leave the list of rules empty."
        ))
        .field(object, field, why),
    )
}

/// What one policy cuts off.
#[derive(Default)]
struct Cut {
    callers: BTreeSet<ObjectRef>,
    services: BTreeSet<ObjectRef>,
    example: String,
    fix: String,
}

/// Calls that configuration names and that policies do not let through.
fn blocked(net: &Net<'_>, calls: &Calls, out: &mut Vec<Finding>) {
    let mut cuts: BTreeMap<ObjectRef, (&NetworkPolicy, Cut)> = BTreeMap::new();
    for (root, named) in calls.iter() {
        let Some(caller) = net.templates(&root.namespace).iter().find(|t| t.root == *root) else { continue };
        // What the caller's own side lets out is the same for all of its calls.
        let leaving = policies(net, caller, Direction::Egress);
        for call in named {
            let Some((policy, example, fix)) = cut(net, caller, &leaving, call) else { continue };
            let object = ObjectRef::of("NetworkPolicy", &policy.metadata);
            let (_, cut) = cuts.entry(object).or_insert_with(|| (policy, Cut::default()));
            cut.callers.insert(root.clone());
            cut.services.insert(ObjectRef::new("Service", call.namespace.clone(), call.service.clone()));
            if cut.example.is_empty() {
                (cut.example, cut.fix) = (example, fix);
            }
        }
    }
    for (object, (policy, cut)) in cuts {
        let writer = policy.metadata.last_writer().filter(|m| m.time.is_some());
        let at = writer.and_then(|m| m.time).or(policy.metadata.creation_timestamp);
        let when = at.map(|at| format!("; it was written {} ago", span(net.cx.age(at)))).unwrap_or_default();
        let who = writer.map(|m| format!(" by {}", m.manager)).unwrap_or_default();
        let selector = if policy.spec.pod_selector.is_empty() {
            "(all pods)".to_owned()
        } else {
            policy.spec.pod_selector.to_string()
        };
        let mut finding =
            Finding::new(FaultClass::NetworkPolicyBlocks, object.clone(), format!("{object} blocks {}", cut.example))
                .because(object.clone(), format!("no rule lets {} through{when}{who}", cut.example))
                .fix(cut.fix)
                .since(at)
                .field(&object, "spec.podSelector", selector);
        for hit in cut.callers {
            finding = finding.hits(hit.clone()).explains(hit);
        }
        out.push(cut.services.into_iter().fold(finding, Finding::hits));
    }
}

/// The policy that cuts a call off, the call in words, and what to do.
fn cut<'a>(
    net: &Net<'a>,
    caller: &Template<'_>,
    leaving: &[&'a NetworkPolicy],
    call: &Call,
) -> Option<(&'a NetworkPolicy, String, String)> {
    let Look::Found(service) = net.cx.world.services.look(&call.namespace, &call.service) else { return None };
    if service.spec.selector.is_empty() {
        return None;
    }
    let port = match call.port {
        Some(number) => service.spec.ports.iter().find(|p| p.port == number)?,
        None => service.spec.ports.first()?,
    };
    let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
    let number = port.target_port.clone().filter(|t| *t != IntOrString::Int(0)).unwrap_or(IntOrString::Int(port.port));
    let makers: Vec<&Template<'_>> = net.makers(&call.namespace, &service.spec.selector).collect();
    let name = ObjectRef::new("Service", call.namespace.clone(), call.service.clone());
    let newest = |all: &[&'a NetworkPolicy]| {
        all.iter().copied().max_by_key(|p| (p.metadata.creation_timestamp, std::cmp::Reverse(&p.metadata.name)))
    };
    let words = format!("{} from calling {name} on port {}", caller.root, port.port);
    let mut verdict = None;
    for maker in makers {
        let target = Target { port: number.clone(), protocol, spec: maker.spec };
        let coming = policies(net, maker, Direction::Ingress);
        if !allowed(net, leaving, Direction::Egress, maker, &target) {
            let fix = format!(
                "Allow egress to pods with {} on port {number} for the pods with {} in {}.",
                *maker.labels, *caller.labels, caller.root.namespace
            );
            verdict = Some((newest(leaving)?, words.clone(), fix));
        } else if !allowed(net, &coming, Direction::Ingress, caller, &target) {
            let from = if caller.root.namespace == call.namespace {
                String::new()
            } else {
                format!(" of namespace {}", caller.root.namespace)
            };
            let fix = format!(
                "Allow ingress from pods with {}{from} on port {number} to the pods with {}.",
                *caller.labels, *maker.labels
            );
            verdict = Some((newest(&coming)?, words.clone(), fix));
        } else {
            // One way in is enough.
            verdict = None;
            break;
        }
    }
    if verdict.is_none() && !asks_dns(leaving) {
        let words = format!("{} from asking cluster DNS for {name}", caller.root);
        let fix = format!(
            "Allow egress to port 53 (UDP and TCP) of the pods k8s-app=kube-dns in kube-system for the pods with {}.",
            *caller.labels
        );
        return Some((newest(leaving)?, words, fix));
    }
    verdict
}
