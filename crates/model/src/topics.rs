//! The topics of the bus, and what each is keyed by.

/// What decides a record's partition, and so its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyedBy {
    /// [`crate::hash::shard_of`]; the partition is the shard.
    Shard,
    /// The tenant.
    Tenant,
    /// The incident.
    Incident,
    /// The entity.
    Entity,
    /// The source.
    Source,
}

/// One topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    /// Name without the configured prefix.
    pub name: &'static str,
    /// Its key.
    pub keyed_by: KeyedBy,
}

impl Topic {
    /// Partitions: 64 for what is keyed by shard, else 12.
    pub const fn partitions(self) -> u32 {
        match self.keyed_by {
            KeyedBy::Shard => crate::SHARDS,
            _ => 12,
        }
    }
}

macro_rules! topics {
    ($($(#[$doc:meta])* $name:ident $text:literal $key:ident;)*) => {
        $($(#[$doc])* pub const $name: Topic = Topic { name: $text, keyed_by: KeyedBy::$key };)*
        /// Every topic.
        pub const ALL: &[Topic] = &[$($name),*];
    };
}

topics! {
    /// Batches of samples, log lines and spans, entities resolved.
    TELEMETRY_RAW "telemetry.raw" Shard;
    /// Features per entity and minute: an optional export.
    TELEMETRY_ENRICHED "telemetry.enriched" Shard;
    /// Deployments, config edits, scaling, flags, events.
    CHANGES_OBSERVED "changes.observed" Tenant;
    /// Entities, aliases and edges learned.
    TOPOLOGY_OBSERVED "topology.observed" Tenant;
    /// Anomalies.
    ANOMALIES_DETECTED "anomalies.detected" Tenant;
    /// Incidents, when opened.
    INCIDENTS_OPENED "incidents.opened" Incident;
    /// Incidents, whenever they change.
    INCIDENTS_UPDATED "incidents.updated" Incident;
    /// Incidents, when resolved.
    INCIDENTS_RESOLVED "incidents.resolved" Incident;
    /// Hypotheses, by revision.
    RCA_COMPLETED "rca.completed" Incident;
    /// Plans.
    REMEDIATION_PLANS "remediation.plans" Incident;
    /// Actions and their outcomes.
    REMEDIATION_ACTIONS "remediation.actions" Incident;
    /// Verdicts that stopped something.
    POLICY_VIOLATIONS "policy.violations" Incident;
    /// All verdicts.
    POLICY_AUDIT "policy.audit" Incident;
    /// Forecasts.
    CAPACITY_FORECASTS "capacity.forecasts" Entity;
    /// Right-sizing that was applied.
    CAPACITY_CHANGES "capacity.changes" Entity;
    /// Postmortems.
    POSTMORTEMS_GENERATED "postmortems.generated" Incident;
    /// What could not be read, with the reason and the bytes.
    DEAD_LETTER "telemetry.dead-letter" Source;
}

/// The topic with this name.
pub fn by_name(name: &str) -> Option<Topic> {
    ALL.iter().copied().find(|t| t.name == name)
}
