//! What the API server says when it refuses a pod, read from its message.

use crate::{Context, ObjectRef};
use nightshift_model::FaultClass;

/// Longest message that is read, bytes.
const MESSAGE_MAX: usize = 4096;

/// A refusal in words of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::checks) struct Refusal {
    /// What kind.
    pub(in crate::checks) fault: FaultClass,
    /// The object whose state must change.
    pub(in crate::checks) cause: ObjectRef,
    /// Why.
    pub(in crate::checks) why: String,
    /// What to do.
    pub(in crate::checks) fix: String,
    /// Objects whose own faults would explain it.
    pub(in crate::checks) explained_by: Vec<ObjectRef>,
}

/// Reads a message about pods (or claims) of a workload. `None`: it is no refusal that stays, such as a conflict.
pub(in crate::checks) fn read(cx: &Context<'_>, workload: &ObjectRef, message: &str) -> Option<Refusal> {
    let message = clip(message);
    let lower = message.to_ascii_lowercase();
    if lower.contains("because it is being terminated") || lower.contains("object has been modified") {
        return None;
    }
    quota(workload, message)
        .or_else(|| limit_range(cx, workload, message))
        .or_else(|| pod_security(workload, message))
        .or_else(|| account(workload, message))
        .or_else(|| webhook_down(cx, message))
        .or_else(|| denied(cx, workload, message))
        .or_else(|| missing_class(workload, message))
        .or_else(|| forbidden(message))
        .or_else(|| Some(other(workload, message)))
}

/// At most so much of a message, cut at a character.
pub(in crate::checks) fn clip(message: &str) -> &str {
    let mut end = message.len().min(MESSAGE_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

/// What stands between two marks; to the end when the second does not come.
pub(in crate::checks) fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let rest = text.get(start..)?;
    let end = if after.is_empty() { rest.len() } else { rest.find(after).unwrap_or(rest.len()) };
    Some(rest.get(..end)?.trim())
}

fn refusal(fault: FaultClass, cause: ObjectRef, why: String, fix: String) -> Option<Refusal> {
    Some(Refusal { fault, cause, why, fix, explained_by: Vec::new() })
}

fn quota(workload: &ObjectRef, message: &str) -> Option<Refusal> {
    if let Some(rest) = between(message, "exceeded quota: ", "") {
        let name = rest.split([',', ' ']).next().filter(|n| !n.is_empty())?;
        let quota = ObjectRef::new("ResourceQuota", workload.namespace.clone(), name);
        let part =
            |what: &str, next: &str| between(rest, what, next).unwrap_or("unknown").trim_end_matches(',').to_owned();
        let (asked, used, limit) =
            (part("requested: ", " used: "), part("used: ", " limited: "), part("limited: ", "\n"));
        let why = format!("{quota} allows {limit}, {used} is in use and its next pod asks for {asked}");
        let fix = format!(
            "Raise spec.hard of the quota (kubectl -n {} edit resourcequota {name}), or free some: lower the requests \
             or replicas of what runs in the namespace",
            workload.namespace
        );
        let mut found = refusal(FaultClass::QuotaExhausted, quota.clone(), why, fix)?;
        found.explained_by.push(quota);
        return Some(found);
    }
    let rest = between(message, "failed quota: ", "")?;
    let name = rest.split([':', ' ']).next().filter(|n| !n.is_empty())?;
    let quota = ObjectRef::new("ResourceQuota", workload.namespace.clone(), name);
    let must = between(rest, "must specify ", "\n").unwrap_or("requests and limits");
    let why = format!("{quota} demands that every container states {must}, and its pods do not");
    let fix = format!("Set {must} in the template of {workload}, or a LimitRange with defaults in the namespace");
    refusal(FaultClass::ReplicaCreateFailure, quota, why, fix)
}

fn limit_range(cx: &Context<'_>, workload: &ObjectRef, message: &str) -> Option<Refusal> {
    // `maximum cpu usage per Container is 500m, but limit is 2`, also `minimum …` and `… max limit to request ratio …`.
    let at = ["maximum ", "minimum "].iter().find_map(|m| {
        message.find(m).filter(|i| message.get(*i..).is_some_and(|t| t.contains(" usage per ") && t.contains(", but ")))
    });
    let at = at.or_else(|| message.find("max limit to request ratio per "))?;
    let rule = message.get(at..)?.trim_end_matches(['.', ' ']);
    let ranges = cx.world.limit_ranges.in_namespace(&workload.namespace);
    let names: Vec<&str> = ranges.map(|r| r.metadata.name.as_str()).collect();
    let cause = match names.first() {
        Some(name) => ObjectRef::new("LimitRange", workload.namespace.clone(), *name),
        None => workload.clone(),
    };
    let why = format!("the limit range of the namespace refuses its pods: {rule}");
    let fix = format!("Bring the requests and limits of {workload} within the range, or change the range: {rule}");
    refusal(FaultClass::LimitRangeRejects, cause, why, fix)
}

fn pod_security(workload: &ObjectRef, message: &str) -> Option<Refusal> {
    if let Some(rest) = between(message, "violates PodSecurity ", "") {
        let level = rest.split('"').nth(1).unwrap_or("its level");
        let what = between(rest, "\": ", "").unwrap_or(rest);
        let namespace = ObjectRef::new("Namespace", "", workload.namespace.clone());
        let why =
            format!("namespace {} enforces pod security {level}, which its pods break: {what}", workload.namespace);
        let fix = format!(
            "Change the security context in the template of {workload} so that it meets {level} ({what}); only if it \
             must be so, lower the label pod-security.kubernetes.io/enforce of the namespace"
        );
        return refusal(FaultClass::PodSecurityRefused, namespace, why, fix);
    }
    let old = [
        "unable to validate against any security context constraint",
        "unable to validate against any pod security policy",
    ];
    let found = old.iter().find(|t| message.contains(**t))?;
    let why =
        format!("no security rule of the cluster admits its pods: {}", between(message, found, "").unwrap_or_default());
    let fix = format!(
        "Change the security context in the template of {workload}, or let its service account use a wider rule"
    );
    refusal(FaultClass::PodSecurityRefused, workload.clone(), why, fix)
}

fn account(workload: &ObjectRef, message: &str) -> Option<Refusal> {
    if !message.contains("error looking up service account") {
        return None;
    }
    let path = between(message, "error looking up service account ", ":")?;
    let name = path.rsplit('/').next().filter(|n| !n.is_empty())?;
    let account = ObjectRef::new("ServiceAccount", workload.namespace.clone(), name);
    let why = format!("service account {name} does not exist in namespace {}", workload.namespace);
    let fix = format!(
        "Create it (kubectl -n {} create serviceaccount {name}) with the roles that it needs, or name another one in \
         spec.template.spec.serviceAccountName",
        workload.namespace
    );
    refusal(FaultClass::MissingServiceAccount, account, why, fix)
}

/// The configuration that has a webhook of this name.
fn configuration(cx: &Context<'_>, webhook: &str) -> Option<ObjectRef> {
    let kinds = [
        ("ValidatingWebhookConfiguration", &cx.world.validating_webhooks),
        ("MutatingWebhookConfiguration", &cx.world.mutating_webhooks),
    ];
    kinds.into_iter().find_map(|(kind, table)| {
        let found = table.iter().find(|c| c.webhooks.iter().any(|w| w.name == webhook))?;
        Some(ObjectRef::of(kind, &found.metadata))
    })
}

fn webhook_down(cx: &Context<'_>, message: &str) -> Option<Refusal> {
    let webhook = between(message, "failed calling webhook \"", "\"")?;
    let why = between(message, "failed to call webhook: ", "\n").unwrap_or(message);
    let cause =
        configuration(cx, webhook).unwrap_or_else(|| ObjectRef::new("ValidatingWebhookConfiguration", "", webhook));
    let why = format!("admission webhook {webhook} does not answer, and nothing is admitted without it: {why}");
    let fix = format!("Bring the service behind webhook {webhook} back, or let its failurePolicy be Ignore meanwhile");
    let mut found = refusal(FaultClass::ReplicaCreateFailure, cause.clone(), why, fix)?;
    found.explained_by.push(cause);
    Some(found)
}

/// Policy engines by a part of their webhooks' names.
const POLICY_ENGINES: [&str; 4] = ["kyverno", "gatekeeper", "kubewarden", "polaris"];

fn denied(cx: &Context<'_>, workload: &ObjectRef, message: &str) -> Option<Refusal> {
    if let Some(policy) = between(message, "ValidatingAdmissionPolicy '", "'") {
        let cause = ObjectRef::new("ValidatingAdmissionPolicy", "", policy);
        let said = between(message, "denied request: ", "\n").unwrap_or(message);
        let fix = format!("Change the template of {workload} so that it meets the policy, or exempt it: {said}");
        return refusal(FaultClass::PolicyViolation, cause, format!("policy {policy} denies its pods: {said}"), fix);
    }
    let webhook = between(message, "admission webhook \"", "\"")?;
    let said = between(message, "denied the request: ", "").or_else(|| between(message, "denied the request", ""))?;
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = if said.is_empty() { "no reason given".to_owned() } else { said };
    if !POLICY_ENGINES.iter().any(|e| webhook.contains(e)) {
        let cause =
            configuration(cx, webhook).unwrap_or_else(|| ObjectRef::new("ValidatingWebhookConfiguration", "", webhook));
        let fix = format!("Change the template of {workload} so that webhook {webhook} admits its pods: {said}");
        let why = format!("admission webhook {webhook} denies its pods: {said}");
        return refusal(FaultClass::ReplicaCreateFailure, cause, why, fix);
    }
    let policy = blocking_policy(message).unwrap_or_else(|| webhook.to_owned());
    let cause = policy_object(cx, &workload.namespace, &policy);
    let why = format!("policy {policy} blocks its pods: {said}");
    let fix = format!(
        "Change the template of {workload} so that it meets policy {policy}; if it must be so, grant an exception for \
         this workload alone, with an end"
    );
    refusal(FaultClass::PolicyViolation, cause, why, fix)
}

/// The policy that a Kyverno or Gatekeeper message names: the first line `name:` after the words about blocking, or
/// `[name] …`.
fn blocking_policy(message: &str) -> Option<String> {
    if let Some(rest) = between(message, "following policies", "") {
        let words = rest.split_whitespace().find(|w| w.ends_with(':') && w.len() > 1)?;
        return Some(words.trim_end_matches(':').to_owned());
    }
    let rest = between(message, "denied the request: ", "")?;
    rest.strip_prefix('[').and_then(|r| r.split(']').next()).map(str::to_owned)
}

/// The policy object of a name as Kyverno tells it: `name`, or `namespace/name` of a policy of a namespace.
pub(in crate::checks) fn policy_object(cx: &Context<'_>, namespace: &str, policy: &str) -> ObjectRef {
    if let Some((of, name)) = policy.split_once('/') {
        return ObjectRef::new("Policy", of, name);
    }
    let own = cx.world.customs("kyverno.io", "Policy").is_some_and(|t| t.get(namespace, policy).is_some());
    let whole = cx.world.customs("kyverno.io", "ClusterPolicy").is_some_and(|t| t.get("", policy).is_some());
    if own && !whole {
        ObjectRef::new("Policy", namespace, policy)
    } else {
        ObjectRef::new("ClusterPolicy", "", policy)
    }
}

fn missing_class(workload: &ObjectRef, message: &str) -> Option<Refusal> {
    if let Some(name) = between(message, "no PriorityClass with name ", " was found") {
        let cause = ObjectRef::new("PriorityClass", "", name);
        let why = format!("priority class {name} does not exist");
        let fix = format!("Create priority class {name}, or name one that exists in the template of {workload}");
        return refusal(FaultClass::ReplicaCreateFailure, cause, why, fix);
    }
    let name = between(message, "RuntimeClass \"", "\"").filter(|_| message.contains("not found"))?;
    let why = format!("runtime class {name} does not exist");
    let fix = format!("Create runtime class {name}, or name one that exists in the template of {workload}");
    refusal(FaultClass::ReplicaCreateFailure, ObjectRef::new("RuntimeClass", "", name), why, fix)
}

/// `User "…" cannot create resource "pods" …`: whoever makes its pods may not.
fn forbidden(message: &str) -> Option<Refusal> {
    let denied = crate::checks::policy::rbac::Denied::read(message)?;
    let (cause, why, fix) = denied.tell();
    refusal(FaultClass::RbacForbidden, cause, why, fix)
}

fn other(workload: &ObjectRef, message: &str) -> Refusal {
    let said = message.split_whitespace().collect::<Vec<_>>().join(" ");
    Refusal {
        fault: FaultClass::ReplicaCreateFailure,
        cause: workload.clone(),
        why: format!("the API server refuses its pods: {said}"),
        fix: format!("Change the template of {workload} as the message says, and look at its events again"),
        explained_by: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, World};
    use nightshift_model::Timestamp;

    fn web() -> ObjectRef {
        ObjectRef::new("Deployment", "shop", "web")
    }

    fn told(message: &str) -> Option<(FaultClass, String)> {
        let (world, options) = (World::default(), Options::default());
        let cx = Context::new(&world, &options, Timestamp::EPOCH);
        read(&cx, &web(), message).map(|r| (r.fault, format!("{}/{}", r.cause.kind, r.cause.name)))
    }

    #[test]
    fn each_refusal_names_its_cause() {
        use FaultClass as F;
        for (message, fault, cause) in [
            (
                "Error creating: pods \"web-1\" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=2, limited: pods=2",
                F::QuotaExhausted,
                "ResourceQuota/compute",
            ),
            (
                "Error creating: pods \"web-1\" is forbidden: failed quota: compute: must specify limits.cpu for: app",
                F::ReplicaCreateFailure,
                "ResourceQuota/compute",
            ),
            (
                "pods \"x\" is forbidden: maximum memory usage per Container is 1Gi, but limit is 4Gi",
                F::LimitRangeRejects,
                "Deployment/web",
            ),
            (
                "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot != true",
                F::PodSecurityRefused,
                "Namespace/shop",
            ),
            (
                "pods \"x\" is forbidden: error looking up service account shop/robot: serviceaccount \"robot\" not found",
                F::MissingServiceAccount,
                "ServiceAccount/robot",
            ),
            (
                "Internal error occurred: failed calling webhook \"a.b.c\": failed to call webhook: Post \"https://x\": refused",
                F::ReplicaCreateFailure,
                "ValidatingWebhookConfiguration/a.b.c",
            ),
            (
                "admission webhook \"validate.kyverno.svc-fail\" denied the request: resource Pod/shop/web was blocked due to the following policies require-labels: check: 'validation error'",
                F::PolicyViolation,
                "ClusterPolicy/require-labels",
            ),
            (
                "admission webhook \"validation.gatekeeper.sh\" denied the request: [owner-needed] no owner",
                F::PolicyViolation,
                "ClusterPolicy/owner-needed",
            ),
            (
                "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'no-latest' with binding 'b' denied request: tag latest",
                F::PolicyViolation,
                "ValidatingAdmissionPolicy/no-latest",
            ),
            (
                "pods \"x\" is forbidden: no PriorityClass with name gold was found",
                F::ReplicaCreateFailure,
                "PriorityClass/gold",
            ),
            ("something new", F::ReplicaCreateFailure, "Deployment/web"),
        ] {
            assert_eq!(told(message), Some((fault, cause.to_owned())), "{message}");
        }
        assert_eq!(told("unable to create new content in namespace shop because it is being terminated"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_message_breaks_it(message in "(exceeded quota: |failed quota: |maximum |admission webhook \"|denied the request: |[a-z\" :,é'\\[\\]]){0,40}") {
            told(&message);
        }
    }
}
