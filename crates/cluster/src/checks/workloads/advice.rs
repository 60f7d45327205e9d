//! Advice on how a workload could be safer. Off unless asked for.

use super::kinds::Workload;
use crate::objects::Container;
use crate::{Finding, Grade};
use nightshift_model::FaultClass;

/// Namespaces of the cluster's own parts, which need rights that others do not.
const OF_THE_CLUSTER: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// Runs the checks.
pub(super) fn run(all: &[Workload<'_>], out: &mut Vec<Finding>) {
    out.extend(all.iter().filter(|w| !OF_THE_CLUSTER.contains(&w.meta.namespace.as_str())).filter_map(one));
}

fn one(w: &Workload<'_>) -> Option<Finding> {
    let containers = || w.spec.containers.iter().chain(&w.spec.init_containers);
    let names = |test: &dyn Fn(&Container) -> bool| {
        containers().filter(|c| test(c)).map(|c| c.name.as_str()).take(5).collect::<Vec<_>>().join(", ")
    };
    let prefix = if w.object.kind == "Pod" { "spec" } else { "spec.template.spec" };
    let mut told: Vec<(String, String, &str)> = Vec::new();
    let mut tell = |path: &str, what: String, fix: &'static str| told.push((format!("{prefix}.{path}"), what, fix));
    let account = w.spec.service_account_name.as_str();
    if matches!(account, "" | "default") && w.spec.automount_service_account_token != Some(false) {
        tell(
            "serviceAccountName",
            "it uses the namespace's default service account, with its token".into(),
            "give it a service account of its own, or automountServiceAccountToken: false",
        );
    }
    let privileged = names(&|c| c.security_context.as_ref().is_some_and(|s| s.privileged == Some(true)));
    if !privileged.is_empty() {
        tell(
            "containers.securityContext.privileged",
            format!("{privileged} has all rights of the node"),
            "drop privileged and add the one capability that is needed",
        );
    }
    let pod = w.spec.security_context.as_ref();
    let of_pod = pod.is_some_and(|s| *s != Default::default());
    let bare = names(&|c| c.security_context.is_none() && !of_pod);
    if !bare.is_empty() {
        tell(
            "securityContext",
            format!("{bare} has no security context"),
            "set runAsNonRoot: true and allowPrivilegeEscalation: false",
        );
    }
    let no_requests = names(&|c| c.resources.requests.is_empty() && c.resources.limits.is_empty());
    if !no_requests.is_empty() {
        tell(
            "containers.resources.requests",
            format!("{no_requests} requests no CPU or memory"),
            "set requests from what it uses",
        );
    }
    let no_limits = names(&|c| !c.resources.limits.contains_key("memory"));
    if !no_limits.is_empty() {
        tell(
            "containers.resources.limits",
            format!("{no_limits} has no memory limit"),
            "set a memory limit above its peak",
        );
    }
    if told.is_empty() {
        return None;
    }
    let what: Vec<&str> = told.iter().map(|t| t.1.as_str()).collect();
    let fixes: Vec<&str> = told.iter().map(|t| t.2).collect();
    let finding = Finding::new(
        FaultClass::WorkloadAdvice,
        w.object.clone(),
        format!("{} could be safer: {}", w.object, what.join("; ")),
    )
    .because(w.object.clone(), what.join("; "))
    .fix(format!("In its template: {}", fixes.join("; ")))
    .graded(Grade::Advice);
    Some(told.iter().fold(finding, |f, (path, what, _)| f.field(&w.object, path, what)))
}
