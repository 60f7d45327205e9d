//! Pod disruption budgets: those that let nothing go, and those that protect nothing.

use super::kinds::{Workload, is_ready};
use crate::objects::Pdb;
use crate::{Context, Finding, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::BTreeMap;

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, all: &[Workload<'_>], out: &mut Vec<Finding>) {
    let mut by_namespace: BTreeMap<&str, Vec<&Workload<'_>>> = BTreeMap::new();
    for w in all {
        by_namespace.entry(&w.meta.namespace).or_default().push(w);
    }
    // Pods that no known workload made: of operators, which keep them themselves.
    let known: std::collections::BTreeSet<&ObjectRef> = all.iter().map(|w| &w.object).collect();
    let mut strays: BTreeMap<&str, Vec<(&ObjectRef, i64, &crate::objects::Labels)>> = BTreeMap::new();
    for (root, pods) in cx.workloads().filter(|(root, _)| !known.contains(root)) {
        if let Some(pod) = pods.first() {
            let n = i64::try_from(pods.len()).unwrap_or(i64::MAX);
            strays.entry(&root.namespace).or_default().push((root, n, &pod.metadata.labels));
        }
    }
    let mut budget_of: BTreeMap<ObjectRef, ObjectRef> = BTreeMap::new();
    for pdb in cx.world.pdbs.iter().filter(|p| p.metadata.deletion_timestamp.is_none()) {
        let object = ObjectRef::of("PodDisruptionBudget", &pdb.metadata);
        let selects = |labels| pdb.spec.selector.as_ref().is_some_and(|s| s.matches(labels));
        let mut targets: Vec<(ObjectRef, i64)> = Vec::new();
        let own = by_namespace.get(object.namespace.as_str()).map_or(&[][..], Vec::as_slice);
        targets.extend(own.iter().filter(|w| selects(w.labels)).map(|w| (w.object.clone(), w.wanted)));
        let others = strays.get(object.namespace.as_str()).map_or(&[][..], Vec::as_slice);
        targets.extend(others.iter().filter(|(_, _, l)| selects(l)).map(|(root, n, _)| ((*root).clone(), *n)));
        let found = if targets.is_empty() { nothing(cx, &object, pdb) } else { one(cx, &object, pdb, &targets) };
        let rival =
            targets.iter().filter(|(_, n)| *n > 0).find_map(|(t, _)| Some((t.clone(), budget_of.get(t)?.clone())));
        out.extend(found.or_else(|| rival.map(|(target, other)| twice(&object, &target, &other))));
        for (target, _) in targets {
            budget_of.entry(target).or_insert_with(|| object.clone());
        }
    }
}

fn rule(pdb: &Pdb) -> String {
    match (&pdb.spec.min_available, &pdb.spec.max_unavailable) {
        (Some(min), _) => format!("minAvailable {min}"),
        (None, Some(max)) => format!("maxUnavailable {max}"),
        (None, None) => "no bound".into(),
    }
}

fn nothing(cx: &Context<'_>, object: &ObjectRef, pdb: &Pdb) -> Option<Finding> {
    let namespace = &object.namespace;
    let world = cx.world;
    let seen = world.pods.sees(namespace)
        && world.deployments.sees(namespace)
        && world.stateful_sets.sees(namespace)
        && world.replica_sets.sees(namespace)
        && world.daemon_sets.sees(namespace);
    // An operator makes budgets for pods that are not there yet, or not at this size.
    if !seen || pdb.metadata.controller().is_some() || pdb.status.expected_pods > 0 {
        return None;
    }
    let selector = pdb.spec.selector.as_ref().map_or_else(|| "no selector".to_owned(), ToString::to_string);
    Some(
        Finding::new(
            FaultClass::PdbSelectsNothing,
            object.clone(),
            format!("{object} protects nothing: no pod or workload of the namespace meets its selector"),
        )
        .because(
            object.clone(),
            format!("spec.selector is `{selector}`, and no pod template in {namespace} has these labels"),
        )
        .fix("Set the selector to the labels of the pods that it is meant to protect, or delete the budget")
        .field(object, "spec.selector", selector),
    )
}

fn twice(object: &ObjectRef, target: &ObjectRef, other: &ObjectRef) -> Finding {
    Finding::new(
        FaultClass::PdbBlocksEvictions,
        object.clone(),
        format!("{object} and {other} both protect {target}: its pods cannot be evicted at all"),
    )
    .because(other.clone(), "the API server refuses to evict a pod that has more than one disruption budget")
    .fix(format!("Keep one budget for {target}: delete the other, or narrow its selector"))
    .field(object, "spec.selector", format!("selects {target}"))
    .field(other, "spec.selector", format!("selects {target}"))
    .hits(target.clone())
}

fn one(cx: &Context<'_>, object: &ObjectRef, pdb: &Pdb, targets: &[(ObjectRef, i64)]) -> Option<Finding> {
    let wanted: i64 = targets.iter().map(|(_, n)| *n).sum();
    let names: Vec<String> = targets.iter().filter(|(_, n)| *n > 0).take(5).map(|(t, _)| t.to_string()).collect();
    let names = names.join(", ");
    if wanted <= 0 {
        return None;
    }
    // Shares are rounded up, for both bounds.
    let must_stay = match (&pdb.spec.min_available, &pdb.spec.max_unavailable) {
        (Some(min), _) => min.of(wanted, true)?,
        (None, Some(max)) => wanted - max.of(wanted, true)?,
        (None, None) => return None,
    };
    let status = &pdb.status;
    let told = status.conditions.when("DisruptionAllowed", "False");
    let add = |finding: Finding| {
        let finding = finding.field(object, "spec", format!("{}, {wanted} pods wanted", rule(pdb)));
        let finding = if status.expected_pods > 0 {
            let text = format!(
                "{} (healthy {}, must stay {}, expected {})",
                status.disruptions_allowed, status.current_healthy, status.desired_healthy, status.expected_pods
            );
            finding.field(object, "status.disruptionsAllowed", text)
        } else {
            finding
        };
        let hit = targets.iter().filter(|(_, n)| *n > 0).map(|(t, _)| t.clone());
        hit.take(20).fold(finding, Finding::hits)
    };
    if must_stay >= wanted {
        let why = format!("{} of {wanted} pods must stay ({}), so none may ever go", must_stay.min(wanted), rule(pdb));
        return Some(add(Finding::new(
            FaultClass::PdbBlocksEvictions,
            object.clone(),
            format!("{object} blocks every eviction of {names}: drains and upgrades of nodes hang"),
        )
        .because(object.clone(), why)
        .fix(if wanted == 1 {
            format!("Run two replicas of {names}, or set maxUnavailable: 1 in the budget")
        } else {
            "Set maxUnavailable: 1 in the budget instead".to_owned()
        })));
    }
    if let Some(c) = told.filter(|c| c.reason == "SyncFailed") {
        return Some(add(Finding::new(
            FaultClass::PdbBlocksEvictions,
            object.clone(),
            format!("{object} cannot be computed, and blocks every eviction of {names}"),
        )
        .because(object.clone(), c.message.clone())
        .fix("Use minAvailable with a number: a share needs pods whose owners have a scale")));
    }
    // Enough may go in principle, but too many are down already.
    let down = status.expected_pods - status.current_healthy;
    if status.expected_pods > 0
        && status.disruptions_allowed == 0
        && down > 0
        && status.current_healthy <= status.desired_healthy
    {
        let sick = cx.pods_of(&targets.first()?.0).iter().find(|p| !is_ready(p)).map(|p| p.metadata.name.clone());
        let sick = sick.map_or(String::new(), |p| format!(", {p} among them"));
        let mut finding = Finding::new(
            FaultClass::PdbBlocksEvictions,
            object.clone(),
            format!(
                "The budget of {object} is used up: {down} of {} pods of {names} are down already",
                status.expected_pods
            ),
        )
        .because(
            targets.first()?.0.clone(),
            format!(
                "{down} of its pods are not healthy{sick}, and {} must stay ({})",
                status.desired_healthy,
                rule(pdb)
            ),
        )
        .fix(format!(
            "Mend the pods of {names} that are not ready; until then no node with one of them can be drained"
        ));
        for (target, _) in targets {
            finding = finding.explained_by(target.clone());
            for node in cx.pods_of(target).iter().filter(|p| !is_ready(p) && !p.spec.node_name.is_empty()) {
                finding = finding.explained_by(ObjectRef::new("Node", "", node.spec.node_name.clone()));
            }
        }
        return Some(add(finding));
    }
    None
}
