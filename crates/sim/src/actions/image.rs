//! What an operator can read of an object before touching it.

use crate::spec::Part;
use crate::world::World;
use nightshift_model::{ActionType, EntityId, Image};
use serde_json::{Value, json};

impl World {
    /// The facts of an entity that actions of this type touch or that choosing their values needs. `None` when the
    /// estate has no such entity.
    pub fn image(&self, entity: &EntityId, action: ActionType) -> Option<Image> {
        let facts = self.facts(self.part(entity)?);
        let wanted = |name: &str| match action {
            ActionType::ScaleDeployment => {
                matches!(
                    name,
                    "replicas" | "ready_replicas" | "min_replicas" | "max_replicas" | "partitions" | "consumers"
                )
            }
            ActionType::CostScaleDown => matches!(name, "replicas" | "min_replicas" | "max_replicas"),
            ActionType::RestartPods => matches!(name, "replicas" | "ready_replicas"),
            ActionType::RollbackDeploy => matches!(name, "version" | "previous_version" | "replicas"),
            ActionType::DrainNode => matches!(name, "schedulable" | "ready" | "pods"),
            ActionType::FailoverDb => matches!(name, "primary" | "replica" | "up"),
            ActionType::ToggleFeature => name.starts_with("flag."),
            ActionType::PatchResources => {
                matches!(name, "memory_limit_mib" | "memory_request_mib" | "disk_gib" | "disk_used_percent")
            }
            ActionType::AdjustRouting => name.starts_with("weight.") || name.starts_with("declared_weight."),
            ActionType::GitopsSync => matches!(name, "sync_status" | "revision" | "git_revision"),
            ActionType::RunJob => matches!(name, "disk_used_percent" | "certificate_days_left" | "cache_hit_percent"),
            ActionType::RecycleConnections => matches!(name, "pool_size" | "connections"),
            ActionType::LimitTraffic => matches!(name, "limit_rps" | "request_rate"),
            // The estate has no such things.
            ActionType::AdjustAutoscaler
            | ActionType::SetImage
            | ActionType::PauseRollout
            | ActionType::ResumeRollout
            | ActionType::CordonNode
            | ActionType::UncordonNode
            | ActionType::DeletePod
            | ActionType::GitopsRollback
            | ActionType::HelmRollback
            | ActionType::PolicyException
            | ActionType::ManualReview => false,
        };
        Some(facts.into_iter().filter(|(name, _)| wanted(name)).collect())
    }

    /// Every fact of a part.
    pub fn facts(&self, part: Part) -> Image {
        let now = self.now_secs();
        let mut out = Image::new();
        let mut put = |name: &str, value: Value| {
            out.insert(name.to_owned(), value);
        };
        match part {
            Part::Service(i) => {
                let (s, spec) = (&self.services[i], &self.spec.services[i]);
                put("replicas", json!(s.desired));
                put("ready_replicas", json!(s.ready(now)));
                put("min_replicas", json!(spec.replicas_min));
                put("max_replicas", json!(spec.replicas_max));
                put("version", json!(s.versions[usize::from(s.version)]));
                put("previous_version", json!(s.versions[usize::from(s.previous)]));
                put("memory_limit_mib", json!(s.memory_limit_mb));
                put("memory_request_mib", json!((s.memory_limit_mb * 0.75).round()));
                put("limit_rps", if s.limit_rps.is_finite() { json!(s.limit_rps) } else { Value::Null });
                put("request_rate", json!((s.measured.rate * 10.0).round() / 10.0));
                for ((flag, _), value) in spec.flags.iter().zip(&s.flags) {
                    put(&format!("flag.{flag}"), json!(value));
                }
                for ((route, declared), weight) in spec.routes.iter().zip(&s.weights) {
                    put(&format!("weight.{route}"), json!(weight));
                    put(&format!("declared_weight.{route}"), json!(declared));
                }
                let declared = s.weights.iter().zip(&spec.routes).all(|(w, (_, d))| w == d)
                    && s.memory_limit_mb == spec.memory_limit_mb;
                put("sync_status", json!(if declared { "synced" } else { "out_of_sync" }));
                put("revision", json!(if declared { "main" } else { "drifted" }));
                put("git_revision", json!("main"));
                if spec.pool.is_some() {
                    put("pool_size", json!(s.pool_max));
                    put("connections", json!(s.measured.connections.round()));
                }
                if let Some(consumer) = &spec.consumer {
                    let partitions = self.spec.topics.get(consumer.topic).map_or(1, |t| t.partitions);
                    put("partitions", json!(partitions));
                    put("consumers", json!(s.desired.min(partitions)));
                }
                if spec.certificate_days.is_some() {
                    put("certificate_days_left", json!(((s.certificate_end - now) / 86_400.0).floor()));
                }
                if spec.cache.is_some() {
                    put("cache_hit_percent", json!((100.0 * s.hits).round()));
                }
            }
            Part::Database(i) => {
                let (db, spec) = (&self.databases[i], &self.spec.databases[i]);
                put("primary", json!(format!("{}-{}", spec.name, db.primary % 2)));
                if spec.standby {
                    put("replica", json!(format!("{}-{}", spec.name, (db.primary + 1) % 2)));
                }
                put("up", json!(db.up));
                put("disk_gib", json!(db.disk_gb));
                put("disk_used_percent", json!((1_000.0 * db.disk_used_gb / db.disk_gb.max(1e-9)).round() / 10.0));
                put("pool_size", json!(spec.connections_max));
            }
            Part::Node(i) => {
                let pods = self.services.iter().flat_map(|s| &s.replicas).filter(|r| usize::from(r.node) == i).count();
                put("schedulable", json!(!self.nodes[i].cordoned));
                put("ready", json!(self.nodes[i].ready));
                put("pods", json!(pods));
            }
            Part::Topic(i) => put("partitions", json!(self.spec.topics[i].partitions)),
            Part::Resolver => {
                let replicas = self.spec.resolver.as_ref().map_or(0, |r| r.replicas);
                put("replicas", json!(replicas));
                put(
                    "ready_replicas",
                    json!(if self.resolver.down_until > now { replicas.saturating_sub(1) } else { replicas }),
                );
            }
        }
        out
    }
}
