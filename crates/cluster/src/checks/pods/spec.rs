//! What the specification alone says cannot work: two containers on one port, a DNS policy that cannot resolve names of
//! the cluster.

use super::facts::target;
use super::{Trouble, Weight, preempt};
use crate::objects::{Pod, PodSpec};
use crate::{Context, Finding, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Looks at a workload with pods.
pub(super) fn workload(cx: &Context<'_>, root: &ObjectRef, pods: &[&Pod], out: &mut Vec<Trouble>) {
    let live = || {
        pods.iter().filter(|p| {
            p.metadata.deletion_timestamp.is_none() && !matches!(p.status.phase.as_str(), "Succeeded" | "Failed")
        })
    };
    let Some(any) = live().next() else { return };
    // Both run and are ready: one of them does not use the port that it declares.
    let unready =
        live().find(|p| p.status.container_statuses.is_empty() || p.status.container_statuses.iter().any(|s| !s.ready));
    let with_status = unready.filter(|p| {
        p.status.container_statuses.iter().any(|s| {
            s.restart_count > 0
                || s.state.terminated.is_some()
                || s.state.waiting.as_ref().is_some_and(|w| w.reason == "CrashLoopBackOff")
        }) || p.status.container_statuses.is_empty()
    });
    if let Some(finding) = with_status.and_then(|p| ports(root, &p.spec)) {
        let me = ObjectRef::of("Pod", &with_status.map_or(&any.metadata, |p| &p.metadata).clone());
        let finding = if me == *root { finding } else { finding.hits(me) };
        out.push(Trouble::new(Weight::Exact, "", finding));
    }
    if let Some(finding) = names(cx, root, &any.spec) {
        let me = ObjectRef::of("Pod", &any.metadata);
        let finding = if me == *root { finding } else { finding.hits(me) };
        out.push(Trouble::new(Weight::Exact, "", finding));
    }
}

/// Looks at the templates of workloads that have no pods yet.
pub(super) fn without_pods(cx: &Context<'_>, out: &mut Vec<Finding>) {
    let world = cx.world;
    let deployments = world.deployments.iter().map(|d| ("Deployment", &d.metadata, &d.spec.template.spec));
    let sets = world.stateful_sets.iter().map(|d| ("StatefulSet", &d.metadata, &d.spec.template.spec));
    let daemons = world.daemon_sets.iter().map(|d| ("DaemonSet", &d.metadata, &d.spec.template.spec));
    for (kind, meta, spec) in deployments.chain(sets).chain(daemons) {
        let root = ObjectRef::of(kind, meta);
        if !cx.pods_of(&root).is_empty() || (kind != "DaemonSet" && preempt::wanted(cx, &root) == Some(0)) {
            continue;
        }
        out.extend(ports(&root, spec));
        out.extend(names(cx, &root, spec));
    }
}

/// Two containers of a pod that share a network declare one port.
fn ports(root: &ObjectRef, spec: &PodSpec) -> Option<Finding> {
    let mut seen: BTreeMap<(i64, &str), &str> = BTreeMap::new();
    let beside = spec.containers.iter().chain(spec.init_containers.iter().filter(|c| c.is_sidecar()));
    for (container, port) in beside.flat_map(|c| c.ports.iter().map(move |p| (c, p))) {
        let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
        let first = *seen.entry((port.container_port, protocol)).or_insert(&container.name);
        if first != container.name {
            let n = port.container_port;
            let text = format!(
                "Containers {first} and {} both want port {n}/{protocol}, and they share one network: one of them cannot start",
                container.name
            );
            return Some(
                Finding::new(FaultClass::PortConflict, root.clone(), text.clone())
                    .because(root.clone(), text)
                    .fix(format!(
                        "Give container {} in {} a port of its own, in its settings and its probes.",
                        container.name,
                        target(root)
                    ))
                    .field(root, &format!("spec.containers[{first}].ports"), format!("{n}/{protocol}"))
                    .field(root, &format!("spec.containers[{}].ports", container.name), format!("{n}/{protocol}")),
            );
        }
    }
    None
}

/// Name servers of the cluster.
fn cluster_dns<'a>(cx: &'a Context<'_>) -> Vec<&'a str> {
    let system = cx.world.services.in_namespace("kube-system");
    let is = |s: &&crate::objects::Service| {
        s.metadata.labels.get("k8s-app") == Some("kube-dns")
            || matches!(s.metadata.name.as_str(), "kube-dns" | "coredns")
    };
    system.filter(is).map(|s| s.spec.cluster_ip.as_str()).filter(|ip| !ip.is_empty() && *ip != "None").collect()
}

fn is_public(ip: &str) -> bool {
    match ip.parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => {
            let shared = v4.octets()[0] == 100 && (64..128).contains(&v4.octets()[1]);
            !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || shared)
        }
        Ok(IpAddr::V6(v6)) => {
            !(v6.is_loopback() || (v6.segments()[0] & 0xfe00) == 0xfc00 || (v6.segments()[0] & 0xffc0) == 0xfe80)
        }
        Err(_) => false,
    }
}

/// A name of the cluster that the pod needs: by its variables, its own or from config maps.
fn needs(cx: &Context<'_>, namespace: &str, spec: &PodSpec) -> Option<String> {
    let world = cx.world;
    let containers = || spec.init_containers.iter().chain(spec.containers.iter());
    let own = containers().flat_map(|c| c.env.iter()).filter_map(|e| e.value.as_ref()?.endpoint.as_deref());
    let maps = containers().flat_map(|c| {
        let whole = c.env_from.iter().filter_map(|f| f.config_map_ref.as_ref()).map(|r| (r.name.as_str(), None));
        let keys = c
            .env
            .iter()
            .filter_map(|e| e.value_from.as_ref()?.config_map_key_ref.as_ref())
            .map(|r| (r.name.as_str(), Some(r.key.as_str())));
        whole.chain(keys)
    });
    let from_maps =
        maps.filter_map(|(name, key)| world.config_maps.get(namespace, name).map(|m| (m, key))).flat_map(|(m, key)| {
            m.data
                .iter()
                .filter(move |(k, _)| key.is_none_or(|key| *k == key))
                .filter_map(|(_, v)| v.endpoint.as_deref())
        });
    own.chain(from_maps)
        .find(|host| {
            let name = host.rsplit_once(':').map_or(*host, |(h, _)| h).trim_end_matches('.');
            if name.parse::<IpAddr>().is_ok() {
                return false;
            }
            let mut labels = name.split('.');
            let (first, second, third) = (labels.next().unwrap_or_default(), labels.next(), labels.next());
            third == Some("svc")
                || (third.is_none() && world.services.get(second.unwrap_or(namespace), first).is_some())
        })
        .map(str::to_owned)
}

/// A DNS policy by which names of the cluster cannot be resolved, though the pod needs them.
fn names(cx: &Context<'_>, root: &ObjectRef, spec: &PodSpec) -> Option<Finding> {
    let needed = || needs(cx, &root.namespace, spec);
    let told = |why: String, name: Option<String>, fix: &str| {
        let name = name.map(|n| format!(" ({n})")).unwrap_or_default();
        let policy = if spec.dns_policy.is_empty() { "ClusterFirst" } else { &spec.dns_policy };
        Finding::new(
            FaultClass::DnsPolicyBroken,
            root.clone(),
            format!("Pods of {} cannot resolve names of the cluster{name}: {why}", root.name),
        )
        .because(root.clone(), why)
        .fix(format!("Set dnsPolicy: {fix} in {}.", target(root)))
        .field(root, "spec.template.spec.dnsPolicy", format!("{policy}, hostNetwork {}", spec.host_network))
    };
    match spec.dns_policy.as_str() {
        "None" => {
            let config = spec.dns_config.as_ref()?;
            let servers = &config.nameservers;
            let dns = cluster_dns(cx);
            let ours = |ip: &&String| {
                dns.contains(&ip.as_str()) || cx.world.services.iter().any(|s| s.spec.cluster_ip == **ip)
            };
            let local = |ip: &&String| ip.starts_with("169.254.") || ip.starts_with("127.");
            if servers.iter().any(|s| ours(&s) || local(&s)) {
                let name =
                    needed().filter(|n| !n.contains(".svc.") && !config.searches.iter().any(|s| s.contains("svc.")))?;
                return Some(told(
                    "its dnsConfig has no search domains, so short names do not resolve".into(),
                    Some(name),
                    "ClusterFirst, or add searches NAMESPACE.svc.cluster.local and svc.cluster.local,",
                ));
            }
            let public = !servers.is_empty() && servers.iter().all(|s| is_public(s));
            let name = needed();
            let foreign = !dns.is_empty() && name.is_some();
            (public || foreign).then(|| {
                told(
                    format!("dnsPolicy None asks only {}, which does not know the cluster", servers.join(", ")),
                    name,
                    "ClusterFirst (or add the cluster's name server to dnsConfig)",
                )
            })
        }
        "Default" => needed().map(|n| {
            told(
                "dnsPolicy Default asks the name servers of the node, which do not know the cluster".into(),
                Some(n),
                "ClusterFirst",
            )
        }),
        "" | "ClusterFirst" if spec.host_network => needed().map(|n| {
            told(
                "with hostNetwork, dnsPolicy ClusterFirst falls back to the name servers of the node".into(),
                Some(n),
                "ClusterFirstWithHostNet",
            )
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_are_told_apart() {
        for ip in ["8.8.8.8", "1.1.1.1", "2001:4860:4860::8888"] {
            assert!(is_public(ip), "{ip}");
        }
        for ip in ["10.96.0.10", "169.254.20.10", "127.0.0.1", "100.64.0.10", "fd00::a", "nonsense"] {
            assert!(!is_public(ip), "{ip}");
        }
    }

    #[test]
    fn only_containers_that_run_together_share_ports() {
        let root = ObjectRef::new("Deployment", "shop", "web");
        let found = |json: &str| ports(&root, &serde_json::from_str(json).unwrap()).is_some();
        assert!(found(
            r#"{"containers":[{"name":"a","ports":[{"containerPort":80}]},{"name":"b","ports":[{"containerPort":80,"protocol":"TCP"}]}]}"#
        ));
        assert!(!found(
            r#"{"containers":[{"name":"a","ports":[{"containerPort":53,"protocol":"TCP"},{"containerPort":53,"protocol":"UDP"}]}]}"#
        ));
        assert!(!found(
            r#"{"containers":[{"name":"a","ports":[{"containerPort":80}]}],"initContainers":[{"name":"b","ports":[{"containerPort":80}]}]}"#
        ));
    }
}
