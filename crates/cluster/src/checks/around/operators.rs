//! Operator Lifecycle Manager: subscriptions, versions, plans and catalogues that are not healthy.

use super::{all, named, words};
use crate::objects::Custom;
use crate::{Context, Finding, Grade, ObjectRef};
use nightshift_model::FaultClass;

const GROUP: &str = "operators.coreos.com";

/// Runs the checks of operators.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    for catalog in all(cx, GROUP, "CatalogSource") {
        let state = catalog.status_text("/connectionState/lastObservedState");
        if !matches!(state, "" | "READY" | "CONNECTING" | "IDLE") {
            let why = format!("its registry cannot be reached ({state})");
            out.push(unhealthy(
                catalog,
                &why,
                "See the pod of the catalogue and the image in spec.image.",
                "status.connectionState.lastObservedState",
                state,
            ));
        }
    }
    for version in all(cx, GROUP, "ClusterServiceVersion") {
        let phase = version.status_text("/phase");
        // Copied into other namespaces: the original speaks.
        if phase == "Failed" && version.status_text("/reason") != "Copied" {
            let said = version.status_text("/message");
            let why = if said.is_empty() { version.status_text("/reason") } else { said };
            let mut finding = unhealthy(
                version,
                why,
                "Mend what the message names; OLM tries again by itself.",
                "status.phase",
                phase,
            );
            for deployment in
                version.spec.pointer("/install/spec/deployments").and_then(|d| d.as_array()).into_iter().flatten()
            {
                let name = deployment.get("name").and_then(|n| n.as_str()).unwrap_or_default();
                finding = finding.explained_by(ObjectRef::new("Deployment", version.metadata.namespace.clone(), name));
            }
            out.push(finding);
        }
    }
    for plan in all(cx, GROUP, "InstallPlan") {
        let phase = plan.status_text("/phase");
        if phase == "Failed" {
            let said = plan.conditions().when("Installed", "False").map(|c| words(c).to_owned()).unwrap_or_default();
            out.push(unhealthy(
                plan,
                &said,
                "Delete the plan so that a new one is made, after mending what it names.",
                "status.phase",
                phase,
            ));
        } else if phase == "RequiresApproval" {
            let finding = unhealthy(
                plan,
                "it waits for somebody's approval",
                "Approve it: set spec.approved to true.",
                "status.phase",
                phase,
            );
            out.push(finding.graded(Grade::Info));
        }
    }
    for subscription in all(cx, GROUP, "Subscription") {
        out.extend(subscribed(subscription));
    }
}

fn subscribed(subscription: &Custom) -> Option<Finding> {
    let conditions = subscription.conditions();
    let bad = ["CatalogSourcesUnhealthy", "ResolutionFailed", "InstallPlanFailed", "BundleUnpackFailed"]
        .into_iter()
        .find_map(|kind| conditions.when(kind, "True"));
    let state = subscription.status_text("/state");
    let (why, path, text) = match bad {
        Some(c) => (words(c).to_owned(), format!("status.conditions[{}]", c.kind), words(c).to_owned()),
        None if state == "UpgradeFailed" => {
            ("its newest upgrade failed".to_owned(), "status.state".to_owned(), state.to_owned())
        }
        None => return None,
    };
    let namespace = subscription.metadata.namespace.as_str();
    let source = subscription.spec_text("/source");
    let source_namespace = subscription.spec_text("/sourceNamespace");
    let mut finding =
        unhealthy(subscription, &why, "Mend the catalogue or the version that the message names.", &path, &text);
    if !source.is_empty() {
        let place = if source_namespace.is_empty() { namespace } else { source_namespace };
        finding = finding.explained_by(ObjectRef::new("CatalogSource", place, source));
    }
    for pointer in ["/installedCSV", "/currentCSV"] {
        let version = subscription.status_text(pointer);
        if !version.is_empty() {
            finding = finding.explained_by(ObjectRef::new("ClusterServiceVersion", namespace, version));
        }
    }
    let plan = subscription.status_text("/installPlanRef/name");
    if !plan.is_empty() {
        finding = finding.explained_by(ObjectRef::new("InstallPlan", namespace, plan));
    }
    Some(finding)
}

fn unhealthy(of: &Custom, why: &str, fix: &str, path: &str, text: &str) -> Finding {
    let object = named(of);
    let why = if why.is_empty() { "its status says so, without a reason" } else { why };
    Finding::new(
        FaultClass::OperatorUnhealthy,
        object.clone(),
        format!("{} {} is not healthy", of.kind, of.metadata.name),
    )
    .because(object.clone(), why)
    .fix(fix)
    .field(&object, path, text)
}
