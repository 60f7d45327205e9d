//! Resource quotas: used up, or set below what already runs.

use crate::objects::{Quantity, ResourceQuota};
use crate::{Context, Finding, Grade, ObjectRef};
use nightshift_model::FaultClass;

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    for quota in cx.world.quotas.iter().filter(|q| q.metadata.deletion_timestamp.is_none()) {
        let object = ObjectRef::of("ResourceQuota", &quota.metadata);
        let rows = rows(quota);
        let below: Vec<&Row> = rows.iter().filter(|r| r.used.0 > r.hard.0 + r.hard.0.abs() * 1e-9).collect();
        if let Some(worst) = below.first() {
            out.push(below_use(&object, worst, &below));
            continue;
        }
        // A bound of zero forbids; it is not used up.
        let full: Vec<&Row> = rows.iter().filter(|r| r.hard.0 > 0.0 && r.used.0 >= r.hard.0).collect();
        if !full.is_empty() {
            out.extend(used_up(cx, &object, &full, out));
        }
    }
}

struct Row<'a> {
    resource: &'a str,
    used: Quantity,
    hard: Quantity,
}

/// What is used of each bound. The specification is newer than the bounds that the status repeats.
fn rows(quota: &ResourceQuota) -> Vec<Row<'_>> {
    let hard = if quota.spec.hard.is_empty() { &quota.status.hard } else { &quota.spec.hard };
    hard.iter()
        .filter_map(|(resource, hard)| {
            let used = quota.status.used.get(resource)?;
            Some(Row { resource, used: *used, hard: *hard })
        })
        .collect()
}

fn list(rows: &[&Row<'_>]) -> String {
    let parts = rows
        .iter()
        .take(6)
        .map(|r| format!("{} {} of {}", r.resource, amount(r.resource, r.used), amount(r.resource, r.hard)));
    parts.collect::<Vec<_>>().join(", ")
}

/// An amount as people write it.
pub(super) fn amount(resource: &str, q: Quantity) -> String {
    if resource.ends_with("memory") || resource.ends_with("storage") {
        return if q.0 >= 1_073_741_824.0 {
            format!("{:.1} GiB", q.0 / 1_073_741_824.0)
        } else {
            format!("{:.0} MiB", q.0 / 1_048_576.0)
        };
    }
    if q.0.fract() == 0.0 { format!("{}", q.0) } else { format!("{:.2}", q.0) }
}

fn below_use(object: &ObjectRef, worst: &Row<'_>, rows: &[&Row<'_>]) -> Finding {
    let text = list(rows);
    Finding::new(FaultClass::QuotaBelowUse, object.clone(), format!("{object} is set below what runs: {text} in use"))
        .because(
            object.clone(),
            format!(
                "spec.hard.{} was lowered to {} while {} is in use: nothing that is deleted can come back",
                worst.resource,
                amount(worst.resource, worst.hard),
                amount(worst.resource, worst.used)
            ),
        )
        .fix(format!(
            "Raise spec.hard.{} to at least {}: kubectl -n {} edit resourcequota {}; or scale something down",
            worst.resource,
            amount(worst.resource, worst.used),
            object.namespace,
            object.name
        ))
        .field(object, "status.used", &text)
}

/// Used up. Where nothing is known to be refused it is worth knowing, no fault: a quota may fit exactly.
fn used_up(cx: &Context<'_>, object: &ObjectRef, rows: &[&Row<'_>], drafts: &[Finding]) -> Option<Finding> {
    // The workloads that it refuses have findings of their own, which name it.
    if drafts.iter().any(|f| f.fault == FaultClass::QuotaExhausted && f.cause.object == *object) {
        return None;
    }
    let text = list(rows);
    // Workloads whose status says that pods are missing, when pods or what they request is what is used up.
    let of_pods = rows.iter().any(|r| {
        r.resource == "pods" || r.resource == "count/pods" || ["cpu", "memory"].iter().any(|n| r.resource.ends_with(n))
    });
    let mut short: Vec<(ObjectRef, i64, i64)> = Vec::new();
    if of_pods {
        for d in cx.world.deployments.in_namespace(&object.namespace) {
            short.push((ObjectRef::of("Deployment", &d.metadata), d.spec.wanted(), d.status.replicas));
        }
        for s in cx.world.stateful_sets.in_namespace(&object.namespace) {
            short.push((ObjectRef::of("StatefulSet", &s.metadata), s.spec.wanted(), s.status.replicas));
        }
        short.retain(|(w, wanted, there)| {
            let pods = i64::try_from(cx.pods_of(w).len()).unwrap_or(i64::MAX);
            *there > 0 && there < wanted && pods < *wanted
        });
    }
    let fix = format!(
        "Raise spec.hard (kubectl -n {} edit resourcequota {}), or lower requests and replicas in the namespace",
        object.namespace, object.name
    );
    let Some((workload, wanted, there)) = short.first().cloned() else {
        return Some(
            Finding::new(FaultClass::QuotaExhausted, object.clone(), format!("{object} is used up: {text}"))
                .because(object.clone(), format!("{text}: the next pod or object that counts will be refused"))
                .fix(fix)
                .field(object, "status.used", &text)
                .graded(Grade::Info),
        );
    };
    let about = if short.len() == 1 { workload.clone() } else { object.clone() };
    let finding = Finding::new(
        FaultClass::QuotaExhausted,
        about,
        format!("{workload} has {there} of {wanted} pods, and {object} is used up: {text}"),
    )
    .because(object.clone(), format!("the quota leaves no room for another pod: {text}"))
    .fix(fix)
    .field(object, "status.used", &text)
    .field(&workload, "status.replicas", format!("{there} of {wanted}"));
    Some(short.into_iter().skip(1).fold(finding, |f, (w, _, _)| f.hits(w)))
}
