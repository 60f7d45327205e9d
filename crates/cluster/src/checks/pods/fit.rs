//! Whether a node would take a pod: what the scheduler's filters ask, as far as objects tell.

use crate::objects::{Node, NodeTerms, Pod, Taint, Toleration};
use std::collections::BTreeMap;

/// Whether a toleration covers a taint.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.is_empty() || toleration.effect == taint.effect;
    let key = toleration.key.is_empty() || toleration.key == taint.key;
    let value = match toleration.operator.as_str() {
        "Exists" => true,
        _ => !toleration.key.is_empty() && toleration.value == taint.value,
    };
    effect && key && value
}

/// The taints of a node that keep the pod off it.
pub(super) fn untolerated<'a>(node: &'a Node, pod: &Pod) -> impl Iterator<Item = &'a Taint> {
    let tolerations = pod.spec.tolerations.0.clone();
    let hard = node.spec.taints.iter().filter(|t| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute"));
    hard.filter(move |taint| !tolerations.iter().any(|t| tolerates(t, taint)))
}

/// Whether a node meets one of these terms.
pub(super) fn meets(terms: &NodeTerms, node: &Node) -> bool {
    let name = || [("metadata.name".to_owned(), node.metadata.name.clone())].into_iter().collect();
    terms.node_selector_terms.iter().any(|t| {
        let asks = !t.match_expressions.is_empty() || !t.match_fields.is_empty();
        asks && t.match_expressions.iter().all(|r| r.matches(&node.metadata.labels))
            && t.match_fields.iter().all(|r| r.matches(&name()))
    })
}

/// Whether a node has the labels that the pod's selector and affinity ask for.
pub(super) fn selected(node: &Node, pod: &Pod) -> bool {
    let required = pod
        .spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    node.metadata.labels.has_all(&pod.spec.node_selector) && required.is_none_or(|terms| meets(terms, node))
}

/// What the pod asks for, by resource: all containers together, or the largest init container.
pub(super) fn requests(pod: &Pod) -> BTreeMap<String, f64> {
    let mut sum: BTreeMap<String, f64> = BTreeMap::new();
    let asked = |c: &crate::objects::Container| {
        let mut all = c.resources.limits.clone();
        all.extend(c.resources.requests.clone());
        all
    };
    let sidecars = pod.spec.init_containers.iter().filter(|c| c.is_sidecar());
    for container in pod.spec.containers.iter().chain(sidecars) {
        for (resource, amount) in asked(container) {
            *sum.entry(resource).or_default() += amount.0;
        }
    }
    for init in pod.spec.init_containers.iter().filter(|c| !c.is_sidecar()) {
        for (resource, amount) in asked(init) {
            let entry = sum.entry(resource).or_default();
            *entry = entry.max(amount.0);
        }
    }
    sum
}

/// What the pod asks for and the node could not give it even if it were empty: resource, asked, had.
pub(super) fn too_large(node: &Node, pod: &Pod) -> Option<(String, f64, f64)> {
    requests(pod).into_iter().find_map(|(resource, asked)| {
        let has = node.status.allocatable.get(&resource).map_or(0.0, |q| q.0);
        (asked > has).then_some((resource, asked, has))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str) -> Pod {
        serde_json::from_str(&format!(r#"{{"spec":{spec}}}"#)).unwrap()
    }

    #[test]
    fn tolerations_cover_taints_as_the_scheduler_sees_it() {
        let node: Node = serde_json::from_str(
            r#"{"spec":{"taints":[{"key":"dedicated","value":"gpu","effect":"NoSchedule"},{"key":"soft","effect":"PreferNoSchedule"}]}}"#,
        )
        .unwrap();
        let left = |spec: &str| untolerated(&node, &pod(spec)).count();
        assert_eq!(left("{}"), 1);
        assert_eq!(left(r#"{"tolerations":[{"operator":"Exists"}]}"#), 0);
        assert_eq!(left(r#"{"tolerations":[{"key":"dedicated","value":"gpu"}]}"#), 0);
        assert_eq!(left(r#"{"tolerations":[{"key":"dedicated","value":"db"}]}"#), 1);
        assert_eq!(left(r#"{"tolerations":[{"key":"dedicated","operator":"Exists","effect":"NoExecute"}]}"#), 1);
    }

    #[test]
    fn requests_are_what_the_scheduler_counts() {
        let pod = pod(
            r#"{"containers":[{"resources":{"requests":{"cpu":"1"}}},{"resources":{"limits":{"cpu":"500m"}}}],
                "initContainers":[{"resources":{"requests":{"cpu":"2"}}},{"restartPolicy":"Always","resources":{"requests":{"memory":"1Gi"}}}]}"#,
        );
        let asked = requests(&pod);
        assert_eq!((asked["cpu"], asked["memory"]), (2.0, 1_073_741_824.0));
        let node: Node = serde_json::from_str(r#"{"status":{"allocatable":{"cpu":"4","memory":"512Mi"}}}"#).unwrap();
        assert_eq!(too_large(&node, &pod).unwrap().0, "memory");
    }
}
