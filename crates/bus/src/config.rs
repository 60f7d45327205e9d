//! Which bus to use, as the user writes it.

use crate::embedded::{EmbeddedBus, EmbeddedReader};
use crate::memory::MemoryBus;
use crate::{Bus, BusError};
use nightshift_config::SecretString;
use nightshift_model::Clock;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The bus that carries everything between the rooms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BusConfig {
    /// A durable log in the data folder, for one process. The default: nothing else to install.
    Embedded(EmbeddedConfig),
    /// Apache Kafka, for more than one process or machine.
    Kafka(KafkaConfig),
    /// In memory only: everything is lost when the process ends. For tests and trials.
    Memory(MemoryConfig),
}

impl Default for BusConfig {
    fn default() -> Self {
        Self::Embedded(EmbeddedConfig::default())
    }
}

/// The embedded log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EmbeddedConfig {
    /// Whether records are synced to the disk before they are acknowledged. Without it a power cut (not a crash of
    /// Nightshift) can lose the last seconds.
    pub fsync: bool,
    /// A segment file is closed and a new one begun at this size. Old records are removed by whole segments.
    #[schemars(range(min = 4096, max = 1_073_741_824))]
    pub segment_bytes: u64,
    /// Records older than this are removed. 7 days by default.
    #[schemars(range(min = 1))]
    pub retention_secs: u64,
    /// The oldest records of a topic are removed while all of the topic takes more than this on disk. The newest
    /// segment always stays.
    #[schemars(range(min = 4096))]
    pub retention_bytes: u64,
    /// The largest record that is taken.
    #[schemars(range(min = 1024, max = 268_435_456))]
    pub max_record_bytes: u64,
    /// Bytes of a topic that may wait to be written; above it publishers are told to come back later.
    #[schemars(range(min = 4096, max = 1_073_741_824))]
    pub max_pending_bytes: u64,
    /// Bytes by which the slowest running consumer of a topic may lag before publishers are told to come back later,
    /// give or take a segment. 0: never. Keep it below `retention_bytes`, so that a consumer that is slow loses
    /// nothing.
    pub max_lag_bytes: u64,
    /// Newest bytes of each topic that are kept in memory, so that consumers that keep up read no file.
    pub tail_cache_bytes: u64,
    /// Bytes that one poll of a consumer brings at most (and always at least one record).
    #[schemars(range(min = 1))]
    pub max_poll_bytes: u64,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            fsync: true,
            segment_bytes: 128 << 20,
            retention_secs: 7 * 24 * 3600,
            retention_bytes: 8 << 30,
            max_record_bytes: 16 << 20,
            max_pending_bytes: 64 << 20,
            max_lag_bytes: 6 << 30,
            tail_cache_bytes: 32 << 20,
            max_poll_bytes: 16 << 20,
        }
    }
}

impl EmbeddedConfig {
    /// Refuses figures that the format of the files cannot hold.
    pub(crate) fn check(&self) -> Result<(), BusError> {
        let ranges = [
            ("segment_bytes", self.segment_bytes, 4096, 1 << 30),
            ("max_record_bytes", self.max_record_bytes, 1, 256 << 20),
            ("max_pending_bytes", self.max_pending_bytes, 4096, 1 << 30),
            ("max_poll_bytes", self.max_poll_bytes, 1, u64::MAX),
        ];
        for (name, value, min, max) in ranges {
            if !(min..=max).contains(&value) {
                return Err(BusError::Invalid(format!("bus `{name}` is {value}, use {min} to {max}")));
            }
        }
        Ok(())
    }
}

/// The in-memory bus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MemoryConfig {
    /// Bytes by which the slowest running consumer of a topic may lag before publishers are told to come back later.
    /// 0: never.
    pub max_lag_bytes: u64,
    /// The oldest records of a topic are removed while all of the topic takes more than this.
    #[schemars(range(min = 1))]
    pub retention_bytes: u64,
    /// The largest record that is taken.
    #[schemars(range(min = 1))]
    pub max_record_bytes: u64,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { max_lag_bytes: 128 << 20, retention_bytes: 256 << 20, max_record_bytes: 16 << 20 }
    }
}

/// Apache Kafka.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct KafkaConfig {
    /// Where to find the cluster: `host:port`, several separated by commas.
    pub bootstrap_servers: String,
    /// Put before every topic name.
    pub topic_prefix: String,
    /// Put before every consumer group and client id; one of each per agent.
    pub group_prefix: String,
    /// Whether topics that are missing are made. Where not, they must exist with enough partitions.
    pub create_topics: bool,
    /// Copies of each record; as many as the cluster has brokers where that is fewer.
    #[schemars(range(min = 1, max = 100))]
    pub replication: u32,
    /// Retention of topics that are made here. 7 days by default.
    #[schemars(range(min = 1))]
    pub retention_secs: u64,
    /// The largest record that is sent; the cluster's own limit (1 MiB unless changed) holds as well.
    #[schemars(range(min = 1024, max = 100_000_000))]
    pub max_record_bytes: u64,
    /// Bytes that may wait for the cluster; above it publishers are told to come back later.
    #[schemars(range(min = 4096, max = 1_073_741_824))]
    pub max_pending_bytes: u64,
    /// How long a publish is tried before it fails.
    #[schemars(range(min = 1, max = 3600))]
    pub publish_timeout_secs: u64,
    /// How long other requests are tried before they fail.
    #[schemars(range(min = 1, max = 600))]
    pub request_timeout_secs: u64,
    /// A consumer that is not heard of for this long loses its partitions.
    #[schemars(range(min = 6, max = 300))]
    pub session_timeout_secs: u64,
    /// Encryption; without it everything is sent in the clear.
    pub tls: Option<KafkaTls>,
    /// Login.
    pub sasl: Option<KafkaSasl>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: "127.0.0.1:9092".into(),
            topic_prefix: String::new(),
            group_prefix: "nightshift-".into(),
            create_topics: true,
            replication: 3,
            retention_secs: 7 * 24 * 3600,
            max_record_bytes: 1_000_000,
            max_pending_bytes: 64 << 20,
            publish_timeout_secs: 30,
            request_timeout_secs: 15,
            session_timeout_secs: 45,
            tls: None,
            sasl: None,
        }
    }
}

/// Encryption of the connection to Kafka.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct KafkaTls {
    /// PEM file with the authorities to trust; the system's when absent.
    pub ca_file: Option<PathBuf>,
    /// PEM file with our own certificate, where the cluster asks for one.
    pub cert_file: Option<PathBuf>,
    /// PEM file with the key of `cert_file`.
    pub key_file: Option<PathBuf>,
}

/// Login at Kafka.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KafkaSasl {
    /// How the password is proven.
    pub mechanism: SaslMechanism,
    /// User.
    pub username: String,
    /// Password.
    pub password: SecretString,
}

/// How a password is proven to Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SaslMechanism {
    /// The password itself is sent: only over TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// SCRAM with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// SCRAM with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl SaslMechanism {
    /// Its registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Opens the configured bus. `data_dir` is Nightshift's data folder; the embedded log is in `bus` beneath it.
///
/// # Errors
/// What [`EmbeddedBus::open`] says; for Kafka a configuration that the client refuses, or a build without it.
pub async fn build(config: &BusConfig, data_dir: &Path, clock: Arc<dyn Clock>) -> Result<Arc<dyn Bus>, BusError> {
    match config {
        BusConfig::Embedded(config) => {
            let (dir, config) = (data_dir.join("bus"), config.clone());
            let bus = crate::embedded::blocking(move || EmbeddedBus::open(&dir, &config, clock)).await?;
            Ok(Arc::new(bus))
        }
        #[cfg(feature = "kafka")]
        BusConfig::Kafka(config) => Ok(Arc::new(crate::kafka::KafkaBus::connect(config.clone()).await?)),
        #[cfg(not(feature = "kafka"))]
        BusConfig::Kafka(_) => Err(no_kafka()),
        BusConfig::Memory(config) => Ok(Arc::new(MemoryBus::new(config.clone()))),
    }
}

/// Opens the configured bus to be read only, also beside a process that has it: for `bus topics`, `groups` and `read`.
/// Of the embedded log nothing is made, cut or removed; publishing and joining groups is refused.
///
/// # Errors
/// [`BusError::Invalid`] when there is no embedded log in `data_dir`, or for a bus in memory; for Kafka as [`build`].
pub async fn build_reader(config: &BusConfig, data_dir: &Path) -> Result<Arc<dyn Bus>, BusError> {
    match config {
        BusConfig::Embedded(config) => {
            let (dir, config) = (data_dir.join("bus"), config.clone());
            let bus = crate::embedded::blocking(move || EmbeddedReader::open(&dir, &config)).await?;
            Ok(Arc::new(bus))
        }
        #[cfg(feature = "kafka")]
        BusConfig::Kafka(config) => Ok(Arc::new(crate::kafka::KafkaBus::connect(config.clone()).await?)),
        #[cfg(not(feature = "kafka"))]
        BusConfig::Kafka(_) => Err(no_kafka()),
        BusConfig::Memory(_) => {
            Err(BusError::Invalid("a bus in memory can only be read by its own process: ask its API".into()))
        }
    }
}

#[cfg(not(feature = "kafka"))]
fn no_kafka() -> BusError {
    BusError::Invalid("this build has no Kafka: use the published binary, or build with `--features kafka`".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_shown() {
        let text = r#"{"type":"kafka","sasl":{"mechanism":"SCRAM-SHA-512","username":"u","password":"hunter2"}}"#;
        let config: BusConfig = serde_json::from_str(text).unwrap();
        let BusConfig::Kafka(kafka) = &config else { panic!("{config:?}") };
        assert_eq!(kafka.sasl.as_ref().unwrap().password.expose(), "hunter2");
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(!serde_json::to_string(&config).unwrap().contains("hunter2"));
    }

    #[test]
    fn only_the_kind_is_needed() {
        for (text, want) in [
            (r#"{"type":"embedded"}"#, BusConfig::default()),
            (r#"{"type":"memory"}"#, BusConfig::Memory(MemoryConfig::default())),
            (r#"{"type":"kafka"}"#, BusConfig::Kafka(KafkaConfig::default())),
        ] {
            assert_eq!(serde_json::from_str::<BusConfig>(text).unwrap(), want);
        }
    }

    #[test]
    fn figures_out_of_range_are_refused() {
        let ok = EmbeddedConfig::default();
        assert!(ok.check().is_ok());
        for bad in [
            EmbeddedConfig { segment_bytes: 0, ..ok.clone() },
            EmbeddedConfig { segment_bytes: 2 << 30, ..ok.clone() },
            EmbeddedConfig { max_record_bytes: 1 << 40, ..ok.clone() },
            EmbeddedConfig { max_pending_bytes: 0, ..ok.clone() },
            EmbeddedConfig { max_poll_bytes: 0, ..ok },
        ] {
            assert!(matches!(bad.check(), Err(BusError::Invalid(_))));
        }
    }
}
