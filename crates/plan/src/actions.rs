//! What each action type takes, touches and risks: the words that playbooks, the checker and actuators share.

use crate::playbook::ParamType;
use nightshift_model::{ActionType, EntityId, Image, Risk};
use serde::Serialize;
use serde_json::json;

/// One value that an action takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ParamInfo {
    /// Its name in a step's `params`.
    pub name: &'static str,
    /// What it must be.
    #[serde(rename = "type")]
    pub kind: ParamType,
    /// Whether the action means nothing without it.
    pub required: bool,
    /// Least and most that any playbook may ask for, whatever the entity allows.
    pub range: Option<(f64, f64)>,
    /// What it is, with its unit.
    pub what: &'static str,
}

/// One action type.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ActionInfo {
    /// Which.
    pub action: ActionType,
    /// What it does, for people.
    pub what: &'static str,
    /// No step of it may claim less.
    pub risk_min: Risk,
    /// Whether the world is another one afterwards.
    pub changes: bool,
    /// Whether a before-image brings the target back. A restart changes nothing that could be put back.
    pub restorable: bool,
    /// Whether it can be done to a part first.
    pub partial: bool,
    /// What it takes.
    pub params: &'static [ParamInfo],
    /// Facts that an actuator reads of the target before it, where the target has them. `flag.*` stands for all that
    /// begin so.
    pub facts: &'static [&'static str],
}

const fn param(
    name: &'static str,
    kind: ParamType,
    required: bool,
    range: Option<(f64, f64)>,
    what: &'static str,
) -> ParamInfo {
    ParamInfo { name, kind, required, range, what }
}

use ParamType::{Bool, Int, Map, Number, Text};

const REPLICAS: ParamInfo = param("replicas", Int, true, Some((1.0, 10_000.0)), "replicas afterwards");
const MIB: Option<(f64, f64)> = Some((1.0, 16_777_216.0));

macro_rules! action {
    ($action:ident $what:literal $risk:ident changes $changes:literal restorable $restorable:literal
     partial $partial:literal [$($param:expr),* $(,)?] [$($fact:literal),*]) => {
        ActionInfo {
            action: ActionType::$action,
            what: $what,
            risk_min: Risk::$risk,
            changes: $changes,
            restorable: $restorable,
            partial: $partial,
            params: const { &[$($param),*] },
            facts: &[$($fact),*],
        }
    };
}

impl ActionInfo {
    /// The row of an action type.
    pub const fn of(action: ActionType) -> Self {
        match action {
            ActionType::ScaleDeployment => action!(ScaleDeployment "sets the number of replicas" Low
                changes true restorable true partial false [REPLICAS] ["replicas", "min_replicas", "max_replicas", "partitions"]),
            ActionType::RestartPods => action!(RestartPods "replaces pods, a share at a time" Medium
                changes true restorable false partial true [
                    param("max_unavailable", Number, false, Some((0.01, 1.0)), "share of the pods that are down at once, 0 to 1"),
                    param("only", Text, false, None, "`failing`: those that fail their checks; `all`"),
                ] ["replicas", "ready_replicas"]),
            ActionType::RollbackDeploy => action!(RollbackDeploy "back to the version before" Medium
                changes true restorable true partial true [
                    param("version", Text, true, None, "version afterwards"),
                    param("revision", Int, false, Some((1.0, 1_000_000.0)), "number of the revision that is meant, where versions do not tell"),
                ] ["version", "previous_version"]),
            ActionType::DrainNode => action!(DrainNode "cordons a node and moves what runs there" Medium
                changes true restorable true partial false [
                    param("grace_secs", Int, false, Some((0.0, 3_600.0)), "seconds that each pod has to end"),
                ] ["schedulable", "ready", "pods"]),
            ActionType::FailoverDb => action!(FailoverDb "makes a replica the primary" High
                changes true restorable false partial false [
                    param("to", Text, true, None, "the replica that becomes primary"),
                ] ["primary", "replica"]),
            ActionType::ToggleFeature => action!(ToggleFeature "sets a feature flag" Low
                changes true restorable true partial false [
                    param("flag", Text, true, None, "name of the flag"),
                    param("enabled", Bool, true, None, "its value afterwards"),
                ] ["flag.*"]),
            ActionType::PatchResources => action!(PatchResources "sets limits, requests, sizes" Medium
                changes true restorable true partial true [
                    param("memory_limit_mib", Number, false, MIB, "memory limit of a pod, MiB"),
                    param("memory_request_mib", Number, false, MIB, "memory request of a pod, MiB"),
                    param("jvm_heap_mib", Number, false, MIB, "heap of the JVM, MiB: must fit into the limit"),
                    param("cpu_limit_millis", Number, false, Some((10.0, 1_024_000.0)), "CPU limit of a pod, thousandths of a core"),
                    param("disk_gib", Number, false, Some((1.0, 65_536.0)), "size of the volume, GiB: it only grows"),
                ] ["memory_limit_mib", "memory_request_mib", "jvm_heap_mib", "cpu_limit_millis", "disk_gib"]),
            ActionType::PolicyException => action!(PolicyException "allows one violation for a time" Medium
                changes true restorable true partial false [
                    param("policy", Text, true, None, "name of the policy"),
                    param("expires_secs", Int, true, Some((60.0, 604_800.0)), "seconds until it ends by itself"),
                ] ["policy"]),
            ActionType::CostScaleDown => action!(CostScaleDown "scales down to spend less" Medium
                changes true restorable true partial false [REPLICAS] ["replicas", "min_replicas", "max_replicas"]),
            ActionType::AdjustRouting => action!(AdjustRouting "sets the weights of routes" Medium
                changes true restorable true partial false [
                    param("weights", Map, true, Some((0.0, 1_000_000.0)), "weight of each route afterwards"),
                ] ["weight.*", "declared_weight.*"]),
            ActionType::GitopsSync => action!(GitopsSync "syncs to what git says" Medium
                changes true restorable true partial false [
                    param("revision", Text, false, None, "commit to sync to; the head of the branch without it"),
                ] ["sync_status", "revision", "git_revision"]),
            ActionType::RunJob => action!(RunJob "runs a job that is known by name" Medium
                changes true restorable false partial false [
                    param("job", Text, true, None, "name of the job, as the actuator knows it"),
                ] []),
            ActionType::ManualReview => action!(ManualReview "asks a person" Low
                changes false restorable false partial false [
                    param("ask", Text, true, None, "what to look at or do"),
                ] []),
            ActionType::RecycleConnections => {
                action!(RecycleConnections "closes and opens the connections of a pool" Low
                changes true restorable false partial true [
                    param("share", Number, false, Some((0.01, 1.0)), "share of the connections at once, 0 to 1"),
                ] ["pool_size"])
            }
            ActionType::LimitTraffic => action!(LimitTraffic "limits what callers may send" Medium
                changes true restorable true partial false [
                    param("limit_rps", Number, true, Some((0.1, 10_000_000.0)), "requests a second that are let through"),
                ] ["limit_rps", "request_rate", "capacity_rps"]),
            ActionType::AdjustAutoscaler => action!(AdjustAutoscaler "sets the bounds of an autoscaler" Low
                changes true restorable true partial false [
                    param("max_replicas", Int, true, Some((1.0, 10_000.0)), "most replicas afterwards"),
                    param("min_replicas", Int, false, Some((1.0, 10_000.0)), "fewest replicas afterwards"),
                ] ["autoscaler_max", "autoscaler_min", "autoscaler_limit", "replicas"]),
            ActionType::SetImage => action!(SetImage "sets the image of a container" Medium
                changes true restorable true partial true [
                    param("image", Text, true, None, "image afterwards"),
                    param("container", Text, false, None, "which container; the only one whose image was changed without it"),
                ] ["image", "previous_image"]),
            ActionType::PauseRollout => action!(PauseRollout "stops a rollout where it is" Low
                changes true restorable true partial false [] ["paused"]),
            ActionType::ResumeRollout => action!(ResumeRollout "lets a rollout go on" Medium
                changes true restorable true partial false [] ["paused"]),
            ActionType::CordonNode => action!(CordonNode "lets nothing new start on a node" Low
                changes true restorable true partial false [] ["schedulable", "ready"]),
            ActionType::UncordonNode => action!(UncordonNode "lets things start on a node again" Low
                changes true restorable true partial false [] ["schedulable", "ready"]),
            ActionType::DeletePod => {
                action!(DeletePod "deletes a pod that is stuck, for its controller to make another" Medium
                changes true restorable false partial false [] ["pod_uid", "stuck"])
            }
            ActionType::GitopsRollback => action!(GitopsRollback "back to what was synced before" Medium
                changes true restorable true partial false [
                    param("revision", Text, true, None, "commit that was synced before"),
                ] ["revision", "previous_revision", "sync_status"]),
            ActionType::HelmRollback => action!(HelmRollback "a release back to an earlier revision" High
                changes true restorable true partial false [
                    param("revision", Int, true, Some((1.0, 1_000_000.0)), "number of the revision to go back to"),
                ] ["release_revision", "previous_release_revision"]),
        }
    }

    /// The value of this name.
    pub fn param(&self, name: &str) -> Option<&'static ParamInfo> {
        self.params.iter().find(|p| p.name == name)
    }
}

/// What an ordinary object looks like, by the facts of every action: for entities of a test injection, which nobody
/// can look at and on which nothing is ever carried out.
pub fn rehearsal_image(entity: &EntityId) -> Image {
    let facts = json!({
        "replicas": 3, "ready_replicas": 3, "min_replicas": 1, "max_replicas": 12, "partitions": 12,
        "version": "v2", "previous_version": "v1", "schedulable": true, "ready": true,
        "memory_limit_mib": 512, "memory_request_mib": 256, "cpu_limit_millis": 1000, "disk_gib": 20,
        "pool_size": 20, "autoscaler_max": 10, "autoscaler_min": 2, "autoscaler_limit": 20, "image": "shop:v2",
        "previous_image": "shop:v1", "paused": false, "pod_uid": "0", "stuck": true, "rehearsal": entity.name(),
    });
    let serde_json::Value::Object(map) = facts else { return Image::new() };
    map.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_action_has_its_own_row_and_says_what_it_takes() {
        for action in ActionType::ALL {
            let info = ActionInfo::of(*action);
            assert_eq!(info.action, *action);
            assert!(!info.what.is_empty());
            for param in info.params {
                assert_eq!(info.param(param.name), Some(param));
                assert!(param.range.is_none_or(|(least, most)| least < most), "{action}: {}", param.name);
                assert!(!param.what.is_empty());
            }
            // What cannot be read cannot be put back.
            assert!(!info.restorable || !info.facts.is_empty() || info.action == ActionType::ManualReview, "{action}");
        }
    }
}
