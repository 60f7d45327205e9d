//! The bus on Apache Kafka, through librdkafka.
//!
//! Lives here: clients and their settings, publishing; reading is in `consumer`, topics, figures and groups in
//! `admin`. Never here: choosing partitions by Kafka's own hash. The partition is [`nightshift_model::Routing`]'s, so
//! that the order per key is the same on every kind of bus.

mod admin;
mod consumer;

use crate::config::KafkaConfig;
use crate::embedded::blocking;
use crate::{
    Bus, BusError, Capabilities, Consumer, GroupPosition, Outgoing, PartitionInfo, Record, TopicSpec, check_name,
};
use admin::Admin;
use async_trait::async_trait;
use consumer::{GroupContext, KafkaConsumer};
use nightshift_model::Routing;
use parking_lot::{Mutex, RwLock};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::{ClientContext, Statistics};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a publisher that finds too much waiting is told to wait.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Pause between tries while a coordinator or a leader is not ready yet.
const RETRY_EVERY: Duration = Duration::from_millis(200);

/// A bus on a Kafka cluster.
pub struct KafkaBus {
    inner: Arc<Inner>,
}

/// What the bus and its consumers share.
pub(crate) struct Inner {
    config: KafkaConfig,
    /// Replaced when it met an error that ends it.
    producer: RwLock<FutureProducer<Quiet>>,
    admin: Admin,
    /// Bytes handed in and not yet answered.
    pending: AtomicU64,
    /// Live members by group, for figures about groups.
    members: Mutex<BTreeMap<String, Weak<BaseConsumer<GroupContext>>>>,
    /// Threads in which consumers leave their group.
    leaving: Mutex<Vec<JoinHandle<()>>>,
    closed: AtomicBool,
}

/// Sends librdkafka's words to our log. They never hold passwords.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka client");
    }

    fn stats(&self, _: Statistics) {}
}

impl ConsumerContext for Quiet {}

fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::warn!(facility, message, "kafka client");
        }
        _ => tracing::debug!(facility, message, "kafka client"),
    }
}

/// The settings that every client shares. `agent` names it, so that rights can be given per agent.
fn client(config: &KafkaConfig, agent: &str) -> ClientConfig {
    let mut out = ClientConfig::new();
    out.set("bootstrap.servers", &config.bootstrap_servers)
        .set("client.id", format!("{}{agent}", config.group_prefix))
        .set("socket.keepalive.enable", "true")
        .set("allow.auto.create.topics", "false")
        .set_log_level(RDKafkaLogLevel::Warning);
    let protocol = match (&config.tls, &config.sasl) {
        (None, None) => "plaintext",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), None) => "ssl",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    out.set("security.protocol", protocol);
    if let Some(tls) = &config.tls {
        let files = [
            ("ssl.ca.location", &tls.ca_file),
            ("ssl.certificate.location", &tls.cert_file),
            ("ssl.key.location", &tls.key_file),
        ];
        for (key, file) in files {
            if let Some(file) = file {
                out.set(key, file.to_string_lossy());
            }
        }
    }
    if let Some(sasl) = &config.sasl {
        out.set("sasl.mechanism", sasl.mechanism.as_str())
            .set("sasl.username", &sasl.username)
            .set("sasl.password", sasl.password.expose());
    }
    out
}

fn make_producer(config: &KafkaConfig) -> Result<FutureProducer<Quiet>, BusError> {
    client(config, "publisher")
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "2")
        .set("compression.type", "lz4")
        // A record's own overhead on the wire is far below 64 KiB.
        .set("message.max.bytes", (config.max_record_bytes + (64 << 10)).to_string())
        // We bound what waits ourselves; librdkafka must never be the one that is full.
        .set("queue.buffering.max.kbytes", (2 * config.max_pending_bytes / 1024 + 1024).to_string())
        .set("queue.buffering.max.messages", "0")
        .set("delivery.timeout.ms", (config.publish_timeout_secs * 1000).to_string())
        .create_with_context(Quiet)
        .map_err(|e| refused("make the Kafka producer", e))
}

/// A configuration that the client refuses is wrong, not unlucky.
fn refused(what: &str, e: KafkaError) -> BusError {
    match e {
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) => {
            BusError::Invalid(format!("{what}: {e}; correct the bus's settings"))
        }
        e => failed(what, e),
    }
}

/// An error of a request.
fn failed(what: &str, e: KafkaError) -> BusError {
    use RDKafkaErrorCode as Code;
    let hint = match e.rdkafka_error_code() {
        Some(Code::QueueFull) => return BusError::Backpressure { retry_after: RETRY_AFTER },
        Some(Code::Authentication | Code::SaslAuthenticationFailed) => ": login refused, check `sasl`",
        Some(Code::SSL) => ": no TLS connection, check `tls`",
        Some(Code::TopicAuthorizationFailed) => ": this user may not use the topic, give it the right to",
        Some(Code::GroupAuthorizationFailed) => ": this user may not use the group, give it the right to",
        Some(Code::ClusterAuthorizationFailed) => ": this user may not do that, or set `create_topics = false`",
        Some(Code::AllBrokersDown | Code::BrokerTransportFailure) => ": no broker answers, check `bootstrap_servers`",
        _ => "",
    };
    BusError::io(format!("{what}{hint}"))(e)
}

/// Whether trying again soon helps: a coordinator or a leader is being found or loaded.
fn not_ready(e: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        e.rdkafka_error_code(),
        Some(
            Code::CoordinatorLoadInProgress
                | Code::CoordinatorNotAvailable
                | Code::NotCoordinator
                | Code::WaitingForCoordinator
                | Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
        )
    )
}

/// Runs `request` until it gives something else than "not ready yet", at most for `limit`.
fn until_ready<T>(limit: Duration, mut request: impl FnMut() -> Result<T, KafkaError>) -> Result<T, KafkaError> {
    let began = Instant::now();
    loop {
        match request() {
            Err(e) if not_ready(&e) && began.elapsed() < limit => std::thread::sleep(RETRY_EVERY),
            result => return result,
        }
    }
}

impl KafkaBus {
    /// Makes the clients. The cluster is first talked to when it is used.
    ///
    /// # Errors
    /// [`BusError::Invalid`] for settings that the client refuses.
    pub async fn connect(config: KafkaConfig) -> Result<Self, BusError> {
        blocking(move || {
            let inner = Inner {
                producer: RwLock::new(make_producer(&config)?),
                admin: Admin::new(&config)?,
                config,
                pending: AtomicU64::new(0),
                members: Mutex::default(),
                leaving: Mutex::default(),
                closed: AtomicBool::new(false),
            };
            Ok(Self { inner: Arc::new(inner) })
        })
        .await
    }
}

impl Inner {
    fn open(&self) -> Result<(), BusError> {
        if self.closed.load(Ordering::Acquire) { Err(BusError::Closed) } else { Ok(()) }
    }

    fn full_name(&self, topic: &str) -> String {
        format!("{}{topic}", self.config.topic_prefix)
    }

    fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.config.request_timeout_secs)
    }

    async fn partitions_of(self: &Arc<Self>, topic: &str) -> Result<u32, BusError> {
        self.open()?;
        if let Some(known) = self.admin.known(topic) {
            return Ok(known);
        }
        let (inner, topic) = (self.clone(), topic.to_string());
        blocking(move || inner.admin.look_up(&topic)).await
    }

    /// Sends all records and waits for all answers; gives the first error.
    async fn send(&self, topic: &str, partitions: u32, records: &[Outgoing]) -> Result<(), KafkaError> {
        let full_name = self.full_name(topic);
        let producer = self.producer.read().clone();
        let mut answers = Vec::with_capacity(records.len());
        let mut first = Ok(());
        for record in records {
            let key = match &record.routing {
                Routing::Shard(shard) => shard.to_string(),
                Routing::Key(key) => key.clone(),
            };
            let message = FutureRecord::to(&full_name)
                .partition(record.routing.partition(partitions) as i32)
                .key(&key)
                .payload(record.bytes.as_ref());
            match producer.send_result(message) {
                Ok(answer) => answers.push(answer),
                Err((e, _)) => {
                    first = Err(e);
                    break;
                }
            }
        }
        for answer in answers {
            let result = match answer.await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err((e, _))) => Err(e),
                Err(_) => Err(KafkaError::Canceled),
            };
            first = first.and(result);
        }
        first
    }

    async fn publish(&self, topic: &str, partitions: u32, records: &[Outgoing]) -> Result<(), BusError> {
        let began = Instant::now();
        let limit = Duration::from_secs(self.config.publish_timeout_secs);
        loop {
            let Err(e) = self.send(topic, partitions, records).await else { return Ok(()) };
            if not_ready(&e) && began.elapsed() < limit {
                tokio::time::sleep(RETRY_EVERY).await;
                continue;
            }
            return Err(match e.rdkafka_error_code() {
                Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                    self.admin.forget(topic);
                    BusError::UnknownTopic(topic.into())
                }
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => BusError::TooLarge {
                    bytes: records.iter().map(|r| r.bytes.len()).max().unwrap_or(0),
                    limit_bytes: self.config.max_record_bytes as usize,
                },
                Some(RDKafkaErrorCode::Fatal) => {
                    // An idempotent producer that lost its place takes nothing more: the next publish gets a new one.
                    *self.producer.write() = make_producer(&self.config)?;
                    failed(&format!("publish to topic `{topic}`"), e)
                }
                _ => failed(&format!("publish to topic `{topic}`"), e),
            });
        }
    }
}

/// Gives back the room that a publish took, also when its future is dropped.
struct Room<'a> {
    pending: &'a AtomicU64,
    bytes: u64,
}

impl<'a> Room<'a> {
    fn take(pending: &'a AtomicU64, bytes: u64, limit: u64) -> Result<Self, BusError> {
        let room = Self { pending, bytes };
        if pending.fetch_add(bytes, Ordering::Relaxed) + bytes > limit {
            // Dropping it takes the bytes off again.
            return Err(BusError::Backpressure { retry_after: RETRY_AFTER });
        }
        Ok(room)
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.pending.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[async_trait]
impl Bus for KafkaBus {
    fn kind(&self) -> &'static str {
        "kafka"
    }

    fn capabilities(&self) -> Capabilities {
        // Torn tails are the brokers' business.
        Capabilities { durable: true, torn_tail_recovery: false, retention: true, multi_process: true }
    }

    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), BusError> {
        self.inner.open()?;
        for spec in topics {
            check_name("topic", &self.inner.full_name(&spec.name))?;
            check_name("topic", &spec.name)?;
        }
        self.inner.admin.ensure(topics).await
    }

    async fn publish(&self, topic: &str, records: Vec<Outgoing>) -> Result<(), BusError> {
        let partitions = self.inner.partitions_of(topic).await?;
        let config = &self.inner.config;
        let limit_bytes = config.max_record_bytes as usize;
        if let Some(large) = records.iter().find(|r| r.bytes.len() > limit_bytes) {
            return Err(BusError::TooLarge { bytes: large.bytes.len(), limit_bytes });
        }
        let bytes: u64 = records.iter().map(|r| r.bytes.len() as u64).sum();
        if bytes > config.max_pending_bytes {
            return Err(BusError::TooLarge { bytes: bytes as usize, limit_bytes: config.max_pending_bytes as usize });
        }
        let _room = Room::take(&self.inner.pending, bytes, config.max_pending_bytes)?;
        self.inner.publish(topic, partitions, &records).await
    }

    async fn consumer(&self, group: &str, topics: &[&str]) -> Result<Box<dyn Consumer>, BusError> {
        check_name("group", group)?;
        for topic in topics {
            self.inner.partitions_of(topic).await?;
        }
        let (inner, group) = (self.inner.clone(), group.to_string());
        let topics: Vec<String> = topics.iter().map(|t| (*t).to_string()).collect();
        let consumer = blocking(move || KafkaConsumer::join(inner, &group, &topics)).await?;
        Ok(Box::new(consumer))
    }

    async fn fetch(&self, topic: &str, partition: u32, from: u64, max: usize) -> Result<Vec<Record>, BusError> {
        let partitions = self.inner.partitions_of(topic).await?;
        if partition >= partitions {
            return Err(BusError::Invalid(format!(
                "topic `{topic}` has no partition {partition}, its last is {}",
                partitions - 1
            )));
        }
        self.inner.admin.fetch(topic, partition, from, max).await
    }

    async fn partitions(&self) -> Result<Vec<PartitionInfo>, BusError> {
        self.inner.open()?;
        let inner = self.inner.clone();
        blocking(move || inner.admin.partitions()).await
    }

    async fn groups(&self) -> Result<Vec<GroupPosition>, BusError> {
        self.inner.open()?;
        let inner = self.inner.clone();
        blocking(move || {
            let members: BTreeMap<_, _> =
                inner.members.lock().iter().filter_map(|(g, m)| Some((g.clone(), m.upgrade()?))).collect();
            inner.admin.groups(&members)
        })
        .await
    }

    async fn close(&self) -> Result<(), BusError> {
        let inner = self.inner.clone();
        blocking(move || {
            inner.closed.store(true, Ordering::Release);
            let timeout = Duration::from_secs(inner.config.publish_timeout_secs);
            let flushed = inner.producer.read().flush(timeout).map_err(|e| failed("flush the Kafka producer", e));
            let leaving: Vec<_> = inner.leaving.lock().drain(..).collect();
            for thread in leaving {
                // It only ends early by a panic, which was already printed.
                let _ = thread.join();
            }
            flushed
        })
        .await
    }
}
