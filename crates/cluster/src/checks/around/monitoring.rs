//! Prometheus Operator: configuration that is refused, monitors without targets, rules that cannot be read.

use super::{all, named, outdated, words};
use crate::objects::{Custom, LabelSelector, Meta, Service};
use crate::{Context, Finding, ObjectRef};
use nightshift_model::FaultClass;
use serde::Deserialize as _;
use serde_json::Value;

const GROUP: &str = "monitoring.coreos.com";

/// Runs the checks of the Prometheus Operator.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    for server in all(cx, GROUP, "Prometheus").chain(all(cx, GROUP, "Alertmanager")) {
        let conditions = server.conditions();
        let said = conditions.when("Reconciled", "False").or_else(|| conditions.when("Available", "False"));
        let Some(said) = said.filter(|c| !outdated(server, c)) else { continue };
        let object = named(server);
        let mut finding = broken(server, &format!("is not {}", said.kind.to_lowercase()), words(said))
            .fix("Mend what the message names in its specification or in the objects that it selects.")
            .field(&object, &format!("status.conditions[{}].message", said.kind), words(said))
            .since(said.last_transition_time);
        let set = format!("{}-{}", server.kind.to_lowercase(), server.metadata.name);
        finding = finding.explained_by(ObjectRef::new("StatefulSet", server.metadata.namespace.clone(), set));
        out.push(finding);
    }
    for monitor in all(cx, GROUP, "ServiceMonitor") {
        out.extend(no_service(cx, monitor));
    }
    for monitor in all(cx, GROUP, "PodMonitor") {
        out.extend(no_pod(cx, monitor));
    }
    for rules in all(cx, GROUP, "PrometheusRule") {
        out.extend(bad_rule(rules));
    }
}

fn broken(of: &Custom, what: &str, why: &str) -> Finding {
    let object = named(of);
    Finding::new(FaultClass::MonitoringBroken, object.clone(), format!("{} {} {what}", of.kind, of.metadata.name))
        .because(object, why)
}

fn selector_of(monitor: &Custom) -> LabelSelector {
    monitor.spec.get("selector").and_then(|s| LabelSelector::deserialize(s).ok()).unwrap_or_default()
}

/// Whether a monitor looks into a namespace.
fn looks_into(monitor: &Custom, namespace: &str) -> bool {
    let any = monitor.spec.pointer("/namespaceSelector/any").and_then(Value::as_bool) == Some(true);
    let names = monitor.spec.pointer("/namespaceSelector/matchNames").and_then(Value::as_array);
    match names.filter(|n| !n.is_empty()) {
        _ if any => true,
        Some(names) => names.iter().any(|n| n.as_str() == Some(namespace)),
        None => namespace == monitor.metadata.namespace,
    }
}

fn no_service(cx: &Context<'_>, monitor: &Custom) -> Option<Finding> {
    if !cx.world.services.sees(&monitor.metadata.namespace) {
        return None;
    }
    let object = named(monitor);
    let selector = selector_of(monitor);
    let fits = |meta: &Meta| looks_into(monitor, &meta.namespace) && selector.matches(&meta.labels);
    let services: Vec<&Service> = cx.world.services.iter().filter(|s| fits(&s.metadata)).collect();
    if services.is_empty() {
        return Some(
            broken(monitor, "has no targets", &format!("no Service has the labels that it selects ({selector})"))
                .fix(format!("Make spec.selector of {} fit the labels of a Service.", monitor.metadata.name))
                .field(&object, "spec.selector", selector.to_string()),
        );
    }
    let endpoints = monitor.spec.get("endpoints").and_then(Value::as_array)?;
    let port = endpoints
        .iter()
        .filter_map(|e| e.get("port").and_then(Value::as_str))
        .find(|port| services.iter().all(|s| s.spec.ports.iter().all(|p| p.name != *port)))?;
    let service = ObjectRef::of("Service", &services[0].metadata);
    let has: Vec<&str> = services[0].spec.ports.iter().map(|p| p.name.as_str()).filter(|n| !n.is_empty()).collect();
    let has = if has.is_empty() { "none with a name".to_owned() } else { has.join(", ") };
    Some(
        broken(monitor, "has no targets", "")
            .because(service.clone(), format!("{service} has no port named {port}; it has {has}"))
            .fix(format!(
                "Name a port of the Service in spec.endpoints of {}, or name the Service's port {port}.",
                monitor.metadata.name
            ))
            .field(&object, "spec.endpoints.port", port),
    )
}

fn no_pod(cx: &Context<'_>, monitor: &Custom) -> Option<Finding> {
    if !cx.world.pods.sees(&monitor.metadata.namespace) {
        return None;
    }
    let selector = selector_of(monitor);
    let any = cx
        .world
        .pods
        .iter()
        .any(|p| looks_into(monitor, &p.metadata.namespace) && selector.matches(&p.metadata.labels));
    if any {
        return None;
    }
    let object = named(monitor);
    Some(
        broken(monitor, "has no targets", &format!("no pod has the labels that it selects ({selector})"))
            .fix(format!("Make spec.selector of {} fit the labels of the pods.", monitor.metadata.name))
            .field(&object, "spec.selector", selector.to_string()),
    )
}

fn bad_rule(rules: &Custom) -> Option<Finding> {
    let object = named(rules);
    for (g, group) in rules.spec.get("groups").and_then(Value::as_array).into_iter().flatten().enumerate() {
        for (r, rule) in group.get("rules").and_then(Value::as_array).into_iter().flatten().enumerate() {
            let name = ["alert", "record"].iter().find_map(|k| rule.get(k).and_then(Value::as_str));
            let expression = match rule.get("expr") {
                Some(Value::String(text)) => text.as_str(),
                Some(Value::Number(_)) => continue,
                _ => "",
            };
            let wrong = match name {
                None => Some("it names neither an alert nor a record".to_owned()),
                Some(_) => unreadable(expression),
            };
            let Some(wrong) = wrong else { continue };
            let called = name.unwrap_or("without a name");
            return Some(
                broken(rules, "has a rule that cannot be read", &format!("rule {called}: {wrong}"))
                    .fix("Mend the expression; promtool check rules says where it ends.")
                    .field(&object, &format!("spec.groups[{g}].rules[{r}].expr"), expression),
            );
        }
    }
    None
}

/// What is certainly wrong with an expression: nothing there, or brackets and quotes that do not close.
fn unreadable(expression: &str) -> Option<String> {
    if expression.trim().is_empty() {
        return Some("its expression is empty".into());
    }
    let (mut open, mut quote) = (Vec::new(), None);
    let mut chars = expression.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('"' | '\''), '\\') => drop(chars.next()),
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quote = Some(c),
            // A comment ends with its line.
            (None, '#') => while chars.next().is_some_and(|c| c != '\n') {},
            (None, '(' | '[' | '{') => open.push(c),
            (None, ')' | ']' | '}') => {
                let wanted = match c {
                    ')' => '(',
                    ']' => '[',
                    _ => '{',
                };
                if open.pop() != Some(wanted) {
                    return Some(format!("`{c}` closes nothing"));
                }
            }
            _ => {}
        }
    }
    match (quote, open.pop()) {
        (Some(q), _) => Some(format!("a {q} does not end")),
        (None, Some(c)) => Some(format!("`{c}` is not closed")),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_that_cannot_be_read() {
        for good in [
            "up == 0",
            "sum(rate(x{a=\"(\"}[5m])) by (b)",
            "x{a='it\\'s'} # (",
            "1",
            "label_replace(up, `a`, \"$1\", \"b\", \"(.*)\")",
        ] {
            assert_eq!(unreadable(good), None, "{good}");
        }
        for bad in ["", "  ", "sum(rate(x[5m])", "up)", "x{a=\"b}", "rate(x[5m)]"] {
            assert!(unreadable(bad).is_some(), "{bad}");
        }
    }
}
