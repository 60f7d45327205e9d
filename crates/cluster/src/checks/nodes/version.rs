//! Versions that are further apart than Kubernetes supports.

use crate::objects::Node;
use crate::{Context, Finding, ObjectRef};
use nightshift_model::FaultClass;

/// Minor versions that a kubelet or kube-proxy may be behind the API server (since 1.28).
const NODE_BEHIND_MAX: u32 = 3;
/// Minor versions that a controller manager or scheduler may be behind.
const CONTROL_BEHIND_MAX: u32 = 1;

/// Major and minor of `v1.36.3`, `v1.30.5+k3s1`, `1.29`. `None` for what is no such version (`kwok-v0.8.0`).
fn parse(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
    let major = parts.next()?.parse().ok()?;
    let minor: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
    Some((major, minor.parse().ok()?))
}

/// What is wrong with a version beside that of the API server.
fn skew(part: &str, server: &str, behind_max: u32) -> Option<String> {
    let ((part_major, minor), (server_major, server_minor)) = (parse(part)?, parse(server)?);
    if part_major != server_major {
        return None;
    }
    if minor > server_minor {
        return Some(format!("{part} is newer than the API server ({server}), which is never supported"));
    }
    let behind = server_minor - minor;
    (behind > behind_max).then(|| {
        format!("{part} is {behind} minor versions behind the API server ({server}); {behind_max} are supported")
    })
}

/// The kubelet of a node.
pub(super) fn of_node(cx: &Context<'_>, node: &Node, out: &mut Vec<Finding>) {
    let me = ObjectRef::of("Node", &node.metadata);
    let version = &node.status.node_info.kubelet_version;
    let Some(why) = skew(version, &cx.world.server_version, NODE_BEHIND_MAX) else { return };
    out.push(
        Finding::new(
            FaultClass::VersionSkew,
            me.clone(),
            format!("the kubelet of node {} is of a version that does not go with the API server", me.name),
        )
        .because(me.clone(), format!("its kubelet {why}"))
        .fix(format!("Upgrade node {} to {} (drain it first), or replace it", me.name, cx.world.server_version))
        .field(&me, "status.nodeInfo.kubeletVersion", version),
    );
}

/// Parts of the control plane and kube-proxy, by the tags of their images.
pub(super) fn of_control_plane(cx: &Context<'_>, out: &mut Vec<Finding>) {
    let parts = [
        ("kube-controller-manager", CONTROL_BEHIND_MAX),
        ("kube-scheduler", CONTROL_BEHIND_MAX),
        ("kube-proxy", NODE_BEHIND_MAX),
    ];
    for pod in cx.world.pods.in_namespace("kube-system") {
        for container in &pod.spec.containers {
            let Some((_, behind)) = parts.iter().find(|(name, _)| container.name == *name) else { continue };
            // The name of the image, then its tag, without a digest.
            let image = container.image.split('@').next().unwrap_or_default();
            let Some((_, tag)) = image.rsplit_once(':') else { continue };
            let Some(why) = skew(tag, &cx.world.server_version, *behind) else { continue };
            let (root, me) = (cx.root(pod), ObjectRef::of("Pod", &pod.metadata));
            out.push(
                Finding::new(
                    FaultClass::VersionSkew,
                    root.clone(),
                    format!("{} does not go with the version of the API server", container.name),
                )
                .because(root, why)
                .fix(format!("Bring {} to the version of the API server, {}", container.name, cx.world.server_version))
                .field(&me, "spec.containers.image", &container.image)
                .hits(me.clone()),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_supported_is_skew() {
        let wrong = |part: &str| skew(part, "v1.36.3", NODE_BEHIND_MAX).is_some();
        for (part, is) in [
            ("v1.36.3", false),
            ("v1.36.9", false),
            ("v1.33.0", false),
            ("v1.33.7+k3s1", false),
            ("v1.32.9-gke.100", true),
            ("v1.37.0", true),
            ("kwok-v0.8.0", false),
            ("", false),
            ("v1.3x", true),
        ] {
            assert_eq!(wrong(part), is, "{part}");
        }
        assert!(skew("v1.30.0", "", NODE_BEHIND_MAX).is_none());
    }
}
