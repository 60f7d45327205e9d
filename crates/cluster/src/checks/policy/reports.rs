//! Policy reports (`wgpolicyk8s.io` and `openreports.io`): rules that objects break.

use crate::checks::workloads::refusal::policy_object;
use crate::objects::Custom;
use crate::{Context, Finding, Grade, ObjectRef, Resource, Seen};
use nightshift_model::FaultClass;
use serde_json::Value;
use std::collections::BTreeMap;

/// Results that are read of one report.
const RESULTS_MAX: usize = 5000;
/// Kinds of reports.
const KINDS: [(&str, &str); 4] = [
    ("wgpolicyk8s.io", "PolicyReport"),
    ("wgpolicyk8s.io", "ClusterPolicyReport"),
    ("openreports.io", "Report"),
    ("openreports.io", "ClusterReport"),
];

/// Whether an object breaks a policy, by object (as the report names it) and policy.
pub(super) type Verdicts = BTreeMap<(ObjectRef, String), bool>;

struct Failure<'a> {
    report: ObjectRef,
    policy: &'a str,
    rule: &'a str,
    message: &'a str,
    grade: Grade,
}

/// Runs the checks; returns what the reports say of each object and policy.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) -> Verdicts {
    let mut verdicts = Verdicts::new();
    let mut failures: BTreeMap<ObjectRef, Vec<Failure<'_>>> = BTreeMap::new();
    let tables = KINDS.iter().filter_map(|(group, kind)| cx.world.customs(group, kind));
    for report in tables.flat_map(|t| t.iter()) {
        let Some(results) = report.results.as_array() else { continue };
        for result in results.iter().take(RESULTS_MAX) {
            one(cx, report, result, &mut verdicts, &mut failures);
        }
    }
    out.extend(failures.into_iter().map(|(object, failures)| finding(cx, object, &failures)));
    verdicts
}

fn text<'a>(value: &'a Value, names: &[&str]) -> &'a str {
    names.iter().find_map(|n| value.get(n).and_then(Value::as_str)).unwrap_or_default()
}

fn one<'a>(
    cx: &Context<'a>,
    report: &'a Custom,
    result: &'a Value,
    verdicts: &mut Verdicts,
    failures: &mut BTreeMap<ObjectRef, Vec<Failure<'a>>>,
) {
    let verdict = text(result, &["result", "status"]);
    if !matches!(verdict, "fail" | "pass") {
        return;
    }
    let lists = ["resources", "subjects"].iter().find_map(|n| result.get(n).and_then(Value::as_array));
    let own = lists.map_or(&[][..], Vec::as_slice);
    let about = if own.is_empty() { std::slice::from_ref(&report.scope) } else { own };
    for resource in about.iter().filter(|r| r.is_object()) {
        let (kind, name) = (text(resource, &["kind"]), text(resource, &["name"]));
        if kind.is_empty() || name.is_empty() {
            continue;
        }
        let known = Resource::ALL.iter().copied().find(|r| r.kind() == kind);
        let mut namespace = text(resource, &["namespace"]);
        if namespace.is_empty() && known.is_none_or(Resource::namespaced) {
            namespace = &report.metadata.namespace;
        }
        let named = ObjectRef::new(kind, namespace, name);
        let policy = text(result, &["policy"]);
        let failed = verdict == "fail";
        *verdicts.entry((named.clone(), policy.to_owned())).or_insert(false) |= failed;
        if !failed || is_gone(cx, &named) {
            continue;
        }
        failures.entry(top(cx, &named)).or_default().push(Failure {
            report: ObjectRef::of(&report.kind, &report.metadata),
            policy,
            rule: text(result, &["rule"]),
            message: text(result, &["message", "description"]),
            grade: match text(result, &["severity"]) {
                "critical" => Grade::Critical,
                "high" => Grade::High,
                "low" | "info" => Grade::Low,
                _ => Grade::Medium,
            },
        });
    }
}

/// Whether an object certainly is not there any more: reports and events outlive what they are about.
pub(super) fn is_gone(cx: &Context<'_>, object: &ObjectRef) -> bool {
    let Some(resource) = Resource::ALL.iter().copied().find(|r| r.kind() == object.kind) else { return false };
    let seen = match cx.world.seen(resource) {
        Seen::Whole => true,
        Seen::Namespaces(some) => some.contains(&object.namespace),
        _ => false,
    };
    seen && cx.world.meta(resource, &object.namespace, &object.name).is_none()
}

/// The workload at the top of what a report or event names.
pub(super) fn top(cx: &Context<'_>, object: &ObjectRef) -> ObjectRef {
    if object.kind == "Pod" {
        return cx.world.pods.get(&object.namespace, &object.name).map_or_else(|| object.clone(), |p| cx.root(p));
    }
    let resource = match object.kind.as_str() {
        "ReplicaSet" => Resource::ReplicaSets,
        "Job" => Resource::Jobs,
        _ => return object.clone(),
    };
    let meta = cx.world.meta(resource, &object.namespace, &object.name);
    meta.map_or_else(|| object.clone(), |m| cx.root_of(&object.kind, m))
}

fn finding(cx: &Context<'_>, object: ObjectRef, failures: &[Failure<'_>]) -> Finding {
    let mut names: Vec<&str> = failures.iter().map(|f| f.policy).collect();
    names.sort_unstable();
    names.dedup();
    let grade = failures.iter().map(|f| f.grade).max().unwrap_or(Grade::Medium);
    // The worst speaks; on a tie the first by name.
    let worst = failures.iter().filter(|f| f.grade == grade).min_by_key(|f| (f.policy, f.rule, f.message));
    let (policy, rule, message) = worst.map_or(("", "", ""), |f| (f.policy, f.rule, f.message));
    let rule = if rule.is_empty() { String::new() } else { format!(" (rule {rule})") };
    let finding = told(cx, &object, policy, &format!("{policy}{rule}: {message}"), &names).graded(grade);
    failures.iter().fold(finding, |f, failure| {
        let id = format!("{}#results[{}/{}]", failure.report.path(), failure.policy, failure.rule);
        let line = format!("{} {}: fail: {}", failure.policy, failure.rule, failure.message);
        f.fact(id, &failure.report.kind.to_ascii_lowercase(), line)
    })
}

/// A finding about an object that breaks a policy.
pub(super) fn told(cx: &Context<'_>, object: &ObjectRef, policy: &str, why: &str, names: &[&str]) -> Finding {
    let cause = policy_object(cx, &object.namespace, policy);
    Finding::new(
        FaultClass::PolicyViolation,
        object.clone(),
        format!("{object} breaks {} {}", if names.len() > 1 { "policies" } else { "policy" }, names.join(", ")),
    )
    .because(cause, why)
    .fix(format!(
        "Change {object} so that it meets the rule; if it must be so, grant a policy exception for it alone, with an end"
    ))
}
