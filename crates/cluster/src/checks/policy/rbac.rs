//! Service accounts that may not do what they try, from events and log lines, and roles that grant everything.

use crate::checks::workloads::refusal::{between, clip};
use crate::objects::{PolicyRule, Role, RoleBinding};
use crate::{Context, Finding, Grade, Look, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::BTreeMap;

/// A request that was refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::checks) struct Denied {
    /// Who: namespace and name of a service account, or a user's name with an empty namespace.
    account: (String, String),
    verb: String,
    resource: String,
    group: String,
    /// Namespace of the request, empty for the whole cluster.
    scope: String,
    /// Name of the object, where one was named.
    name: String,
}

const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

impl Denied {
    /// Reads `… is forbidden: User "…" cannot VERB resource "R" in API group "G" in the namespace "N"`.
    pub(in crate::checks) fn read(text: &str) -> Option<Self> {
        let text = clip(text);
        // Logs escape quotes.
        let clean = text.replace("\\\"", "\"");
        let user = between(&clean, "User \"", "\"")?;
        let verb = between(&clean, "\" cannot ", " ")?;
        let resource = between(&clean, " resource \"", "\"")?;
        let group = between(&clean, " in API group \"", "\"").unwrap_or_default();
        let scope = between(&clean, " in the namespace \"", "\"").unwrap_or_default();
        let word = |t: &str| !t.is_empty() && t.len() <= 128 && !t.contains(char::is_whitespace);
        if !word(user) || !word(verb) || !word(resource) {
            return None;
        }
        let account = match user.strip_prefix(SERVICE_ACCOUNT).and_then(|r| r.split_once(':')) {
            Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
            None => (String::new(), user.to_owned()),
        };
        let named =
            between(&clean, " \"", "\" is forbidden").unwrap_or_default().rsplit('"').next().unwrap_or_default();
        Some(Self {
            account,
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            group: group.to_owned(),
            scope: scope.to_owned(),
            name: if word(named) { named.to_owned() } else { String::new() },
        })
    }

    fn who(&self) -> ObjectRef {
        if self.account.0.is_empty() {
            ObjectRef::new("User", "", self.account.1.clone())
        } else {
            ObjectRef::new("ServiceAccount", self.account.0.clone(), self.account.1.clone())
        }
    }

    fn what(&self) -> String {
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        let place = if self.scope.is_empty() {
            " in the whole cluster".to_owned()
        } else {
            format!(" in namespace {}", self.scope)
        };
        format!("{} {}{group}{place}", self.verb, self.resource)
    }

    /// Cause, why and fix.
    pub(in crate::checks) fn tell(&self) -> (ObjectRef, String, String) {
        let (who, what) = (self.who(), self.what());
        let role = format!("{}-{}", self.account.1, self.resource.replace('/', "-"));
        let resource =
            if self.group.is_empty() { self.resource.clone() } else { format!("{}.{}", self.resource, self.group) };
        let subject = format!("--serviceaccount={}:{}", self.account.0, self.account.1);
        let fix = if self.scope.is_empty() {
            format!(
                "Grant it, if it is meant to: kubectl create clusterrole {role} --verb={} --resource={resource}, and kubectl \
                 create clusterrolebinding {role} --clusterrole={role} {subject}",
                self.verb
            )
        } else {
            format!(
                "Grant it, if it is meant to: kubectl -n {0} create role {role} --verb={1} --resource={resource}, and \
                 kubectl -n {0} create rolebinding {role} --role={role} {subject}",
                self.scope, self.verb
            )
        };
        (
            who.clone(),
            format!("{who} may not {what}: no role that is bound to it grants verb {} on {resource}", self.verb),
            fix,
        )
    }

    fn granted_by(&self, rule: &PolicyRule) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|x| x == "*" || x == wanted);
        let named =
            rule.resource_names.is_empty() || (!self.name.is_empty() && rule.resource_names.contains(&self.name));
        let (plain, sub) = self.resource.split_once('/').map_or((self.resource.as_str(), None), |(p, s)| (p, Some(s)));
        let resource = has(&rule.resources, &self.resource)
            || sub.is_some_and(|s| rule.resources.iter().any(|r| *r == format!("*/{s}") || *r == format!("{plain}/*")));
        has(&rule.verbs, &self.verb) && has(&rule.api_groups, &self.group) && resource && named
    }

    fn bound(&self, binding: &RoleBinding) -> bool {
        let (namespace, name) = &self.account;
        binding.subjects.iter().any(|s| match s.kind.as_str() {
            "ServiceAccount" => {
                let of = if s.namespace.is_empty() { &binding.metadata.namespace } else { &s.namespace };
                s.name == *name && of == namespace
            }
            "User" => {
                s.name == *name && namespace.is_empty() || s.name == format!("{SERVICE_ACCOUNT}{namespace}:{name}")
            }
            "Group" => {
                s.name == "system:authenticated"
                    || (!namespace.is_empty()
                        && (s.name == "system:serviceaccounts"
                            || s.name == format!("system:serviceaccounts:{namespace}")))
            }
            _ => false,
        })
    }

    /// Whether the roles as they are now allow it: then the words are old. Unknown counts as no.
    fn is_granted(&self, cx: &Context<'_>) -> bool {
        let world = cx.world;
        let grants = |role: Option<&Role>| role.is_some_and(|r| r.rules.iter().any(|rule| self.granted_by(rule)));
        let whole = world.cluster_role_bindings.iter().filter(|b| self.bound(b));
        if whole.into_iter().any(|b| grants(world.cluster_roles.get("", &b.role_ref.name))) {
            return true;
        }
        !self.scope.is_empty()
            && world.role_bindings.in_namespace(&self.scope).filter(|b| self.bound(b)).any(|b| {
                grants(if b.role_ref.kind == "ClusterRole" {
                    world.cluster_roles.get("", &b.role_ref.name)
                } else {
                    world.roles.get(&self.scope, &b.role_ref.name)
                })
            })
    }

    /// The role that was bound to it and lacks it, or that a binding names and that is missing.
    fn nearest_role(&self, cx: &Context<'_>) -> Option<String> {
        let bindings = cx.world.role_bindings.in_namespace(&self.scope).filter(|b| self.bound(b));
        bindings.into_iter().find_map(|b| {
            let (kind, name) = (b.role_ref.kind.as_str(), b.role_ref.name.as_str());
            let look = if kind == "ClusterRole" {
                cx.world.cluster_roles.look("", name)
            } else {
                cx.world.roles.look(&self.scope, name)
            };
            let rules = match look {
                Look::Found(role) => &role.rules,
                Look::Missing => {
                    return Some(format!("; binding {} names {kind} {name}, which does not exist", b.metadata.name));
                }
                Look::Unseen => return None,
            };
            let verbs = rules.iter().filter(|r| r.resources.iter().any(|x| x == &self.resource || x == "*"));
            let verbs: Vec<&str> = verbs.flat_map(|r| r.verbs.iter().map(String::as_str)).collect();
            (!verbs.is_empty())
                .then(|| format!("; {kind} {name} grants only {} on {}", verbs.join(", "), self.resource))
        })
    }
}

/// Id, source and text of each fact.
type Facts = Vec<(String, String, String)>;

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    let mut told: BTreeMap<ObjectRef, (Denied, Facts)> = BTreeMap::new();
    for event in cx.world.events.iter().filter(|e| e.message.contains("\" cannot ")) {
        let about = &event.involved_object;
        // What could not be made is told with why it could not.
        let makes = ["ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob", "Deployment"];
        if event.reason == "FailedCreate" && makes.contains(&about.kind.as_str()) {
            continue;
        }
        let Some(denied) = Denied::read(&event.message) else { continue };
        let object = match about.kind.as_str() {
            "Pod" => match cx.world.pods.get(&about.namespace, &about.name) {
                Some(pod) => cx.root(pod),
                None if cx.world.pods.sees(&about.namespace) => continue,
                None => ObjectRef::new("Pod", about.namespace.clone(), about.name.clone()),
            },
            kind => owner(cx, kind, &about.namespace, &about.name),
        };
        let id = format!("event/{}/{}", event.metadata.namespace, event.metadata.name);
        let entry = told.entry(object).or_insert_with(|| (denied, Vec::new()));
        entry.1.push((id, "event".into(), format!("{}: {}", event.reason, event.message)));
    }
    for ((namespace, pod, container), tail) in &cx.world.logs {
        let Some(found) = cx.world.pods.get(namespace, pod) else { continue };
        for (which, lines) in [("", &tail.current), ("/previous", &tail.previous)] {
            let line = lines.iter().rev().find(|l| l.contains("cannot ") && Denied::read(l).is_some());
            let Some((line, denied)) = line.and_then(|l| Some((l, Denied::read(l)?))) else { continue };
            let id = format!("log/{namespace}/{pod}/{container}{which}");
            let entry = told.entry(cx.root(found)).or_insert_with(|| (denied, Vec::new()));
            entry.1.push((id, "log".into(), line.clone()));
        }
    }
    for (object, (denied, facts)) in told {
        if !denied.is_granted(cx) {
            out.push(forbidden(cx, &object, &denied, facts));
        }
    }
    if cx.options.advice {
        let roles = cx.world.roles.iter().map(|r| ("Role", r));
        out.extend(
            roles.chain(cx.world.cluster_roles.iter().map(|r| ("ClusterRole", r))).filter_map(|(k, r)| wildcard(k, r)),
        );
    }
}

fn owner(cx: &Context<'_>, kind: &str, namespace: &str, name: &str) -> ObjectRef {
    let meta = match kind {
        "ReplicaSet" => cx.world.replica_sets.get(namespace, name).map(|o| &o.metadata),
        "Job" => cx.world.jobs.get(namespace, name).map(|o| &o.metadata),
        _ => None,
    };
    meta.map_or_else(|| ObjectRef::new(kind, namespace, name), |m| cx.root_of(kind, m))
}

fn forbidden(cx: &Context<'_>, object: &ObjectRef, denied: &Denied, facts: Facts) -> Finding {
    let (cause, why, fix) = denied.tell();
    let near = denied.nearest_role(cx).unwrap_or_default();
    let summary = format!("{object} is refused by the API server: {cause} may not {}", denied.what());
    let finding = Finding::new(FaultClass::RbacForbidden, object.clone(), summary)
        .because(cause, format!("{why}{near}"))
        .fix(fix)
        // Its crashes and failing probes come from it.
        .explains(object.clone());
    facts.into_iter().fold(finding, |f, (id, source, text)| f.fact(id, &source, text))
}

fn wildcard(kind: &str, role: &Role) -> Option<Finding> {
    let meta = &role.metadata;
    let built_in = meta.labels.get("kubernetes.io/bootstrapping").is_some() || meta.name.starts_with("system:");
    if built_in || (kind == "ClusterRole" && matches!(meta.name.as_str(), "cluster-admin" | "admin" | "edit" | "view"))
    {
        return None;
    }
    let star = |list: &[String]| list.iter().any(|x| x == "*");
    let rule = role.rules.iter().find(|r| (star(&r.verbs) && !r.resources.is_empty()) || star(&r.resources))?;
    let object = ObjectRef::of(kind, meta);
    let text = format!(
        "verbs {} on resources {} of groups {:?}",
        rule.verbs.join(","),
        rule.resources.join(","),
        rule.api_groups.0
    );
    Some(
        Finding::new(FaultClass::RbacWildcard, object.clone(), format!("{object} grants by wildcard: {text}"))
            .because(object.clone(), text.clone())
            .fix("List the verbs and resources that are needed: whoever has this role can do all the rest too")
            .field(&object, "rules", text)
            .graded(Grade::Advice),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read_from_events_and_logs() {
        let text = "pods is forbidden: User \"system:serviceaccount:shop:robot\" cannot list resource \"pods\" in API group \"\" in the namespace \"shop\"";
        let denied = Denied::read(text).unwrap();
        assert_eq!(denied.account, ("shop".into(), "robot".into()));
        assert_eq!((denied.verb.as_str(), denied.resource.as_str(), denied.scope.as_str()), ("list", "pods", "shop"));
        assert_eq!(Denied::read(&format!("E1 err=\"{}\"", text.replace('"', "\\\""))).unwrap(), denied);
        let whole = Denied::read("nodes \"n1\" is forbidden: User \"system:serviceaccount:a:b\" cannot get resource \"nodes\" in API group \"\" at the cluster scope").unwrap();
        assert_eq!((whole.scope.as_str(), whole.name.as_str()), ("", "n1"));
        for bad in ["", "User \"", "User \"x\" cannot ", "User \"x y\" cannot get resource \"pods\"", "forbidden"] {
            assert_eq!(Denied::read(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_breaks_it(line in "(User \"|\" cannot | resource \"|\"|in the namespace \"|[a-zé:\\\\ ]){0,30}") {
            Denied::read(&line);
        }
    }
}
