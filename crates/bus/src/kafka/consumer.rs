//! A member of a Kafka consumer group.
//!
//! librdkafka tells of a rebalance in a callback and waits for an answer. We answer in the poll after the one that
//! told our caller: so what is assigned is read only after the caller could seek, and what is revoked goes to its next
//! owner only after the caller had the time between two polls to store its state. Partitions move one by one
//! (cooperative), the rest is read on meanwhile.

use super::{Inner, client, failed, log_line, not_ready, refused};
use crate::embedded::blocking;
use crate::{BusError, Consumer, Polled, Record, TopicPartition};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Bytes that one poll brings at most (and always at least one record).
const MAX_POLL_BYTES: usize = 16 << 20;
/// How often a poll that waits looks whether its consumer was dropped.
const LOOK_UP_EVERY: Duration = Duration::from_millis(100);
/// How long a commit waits for a rebalance to end; longer cannot help, it may wait for our own poll.
const COMMIT_WAITS: Duration = Duration::from_secs(2);

type Client = BaseConsumer<GroupContext>;

/// A partition by its name in Kafka.
type Place = (String, i32);

#[derive(Debug)]
enum Rebalance {
    Assign(Vec<Place>),
    Revoke(Vec<Place>),
}

/// What was asked of librdkafka and is done at the start of the next poll.
#[derive(Debug)]
enum Step {
    /// With where to begin, if not at the commit.
    Assign(BTreeMap<Place, Option<u64>>),
    Revoke(Vec<Place>),
    Seek(Place, u64),
}

/// Collects rebalances.
#[derive(Debug, Default)]
pub(crate) struct GroupContext {
    rebalances: Mutex<VecDeque<Rebalance>>,
    /// Nobody polls any more: answer at once.
    leaving: AtomicBool,
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka consumer");
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let places: Vec<Place> = list.elements().iter().map(|e| (e.topic().to_string(), e.partition())).collect();
        let assigned = err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.leaving.load(Ordering::Acquire) {
            let answer = if assigned { consumer.incremental_assign(list) } else { consumer.incremental_unassign(list) };
            if let Err(e) = answer {
                tracing::debug!(error = %e, "answer a rebalance while leaving");
            }
            return;
        }
        self.rebalances.lock().push_back(if assigned { Rebalance::Assign(places) } else { Rebalance::Revoke(places) });
    }
}

/// What a poll in its own thread brought.
#[derive(Default)]
struct Fetched {
    records: Vec<Record>,
    rebalances: Vec<Rebalance>,
}

type PollTask = JoinHandle<Result<Fetched, BusError>>;
/// How a poll ended: the task's own failure outside, the bus' inside.
type PollResult = Result<Result<Fetched, BusError>, tokio::task::JoinError>;
/// Records that a wait may bring: what one turn of an agent takes.
const READY_RECORDS: usize = 512;

/// A member of a group.
pub(super) struct KafkaConsumer {
    inner: Arc<Inner>,
    client: Arc<Client>,
    /// Names with prefix and without.
    topics: Arc<BTreeMap<String, Arc<str>>>,
    owned: BTreeSet<TopicPartition>,
    steps: Vec<Step>,
    /// A poll whose caller went away before it was done; its records must not be lost.
    running: Option<PollTask>,
    /// What a poll brought that nobody took yet.
    finished: Option<PollResult>,
}

fn to_list(places: impl IntoIterator<Item = Place>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in places {
        list.add_partition(&topic, partition);
    }
    list
}

fn apply(client: &Client, step: &Step, timeout: Duration) -> Result<(), KafkaError> {
    match step {
        Step::Assign(places) => {
            let mut list = TopicPartitionList::new();
            for ((topic, partition), from) in places {
                let from = from.map_or(Offset::Stored, |o| Offset::Offset(o as i64));
                list.add_partition_offset(topic, *partition, from)?;
            }
            client.incremental_assign(&list)
        }
        Step::Revoke(places) => client.incremental_unassign(&to_list(places.iter().cloned())),
        Step::Seek((topic, partition), offset) => {
            client.seek(topic, *partition, Offset::Offset(*offset as i64), timeout)
        }
    }
}

fn apply_all(client: &Client, steps: Vec<Step>, timeout: Duration) -> Result<(), BusError> {
    let began = Instant::now();
    for step in steps {
        while let Err(e) = apply(client, &step, timeout) {
            match &step {
                // A partition that was just assigned cannot be moved before its fetcher runs.
                Step::Seek(..) if began.elapsed() < timeout => std::thread::sleep(Duration::from_millis(20)),
                Step::Seek((topic, partition), _) => {
                    return Err(failed(&format!("seek in partition {partition} of topic `{topic}`"), e));
                }
                // It was lost meanwhile; the next rebalance says so.
                Step::Assign(_) | Step::Revoke(_) => {
                    tracing::debug!(error = %e, ?step, "answer a rebalance");
                    break;
                }
            }
        }
    }
    Ok(())
}

impl KafkaConsumer {
    pub(super) fn join(inner: Arc<Inner>, group: &str, topics: &[String]) -> Result<Self, BusError> {
        let config = &inner.config;
        let client: Client = client(config, group)
            .set("group.id", format!("{}{group}", config.group_prefix))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", (config.session_timeout_secs * 1000).to_string())
            .set("heartbeat.interval.ms", (config.session_timeout_secs * 1000 / 15).to_string())
            .set("fetch.wait.max.ms", "100")
            // What is fetched ahead, per partition; the default would hold 64 MB of each topic.
            .set("queued.max.messages.kbytes", "16384")
            .create_with_context(GroupContext::default())
            .map_err(|e| refused("make a Kafka consumer", e))?;
        let topics: BTreeMap<String, Arc<str>> =
            topics.iter().map(|t| (inner.full_name(t), Arc::from(t.as_str()))).collect();
        let names: Vec<&str> = topics.keys().map(String::as_str).collect();
        client.subscribe(&names).map_err(|e| failed(&format!("join group `{group}`"), e))?;
        let client = Arc::new(client);
        inner.members.lock().insert(group.into(), Arc::downgrade(&client));
        Ok(Self {
            inner,
            client,
            topics: Arc::new(topics),
            owned: BTreeSet::new(),
            steps: Vec::new(),
            running: None,
            finished: None,
        })
    }

    fn place(&self, at: &TopicPartition) -> Place {
        (self.inner.full_name(&at.topic), at.partition as i32)
    }

    fn at(&self, (topic, partition): &Place) -> Option<TopicPartition> {
        let topic = self.topics.get(topic)?.to_string();
        Some(TopicPartition { topic, partition: *partition as u32 })
    }

    /// Waits for the poll that runs, or for a new one.
    async fn finish(&mut self, max_records: usize, max_wait: Duration) -> PollResult {
        let task = match self.running.take() {
            Some(task) => task,
            None => self.start_poll(max_records, max_wait),
        };
        // Kept while we wait: a caller that stops waiting finds its records at the next poll.
        let result = self.running.insert(task).await;
        self.running = None;
        result
    }

    fn start_poll(&mut self, max_records: usize, max_wait: Duration) -> PollTask {
        let (client, topics, inner) = (self.client.clone(), self.topics.clone(), self.inner.clone());
        let steps = std::mem::take(&mut self.steps);
        tokio::task::spawn_blocking(move || {
            apply_all(&client, steps, inner.request_timeout())?;
            read(&client, &topics, &inner, max_records, max_wait)
        })
    }

    /// Takes note of rebalances, and drops records that their next owner will read.
    fn digest(&mut self, fetched: Fetched) -> Polled {
        let mut polled = Polled { records: fetched.records, ..Polled::default() };
        for rebalance in fetched.rebalances {
            match rebalance {
                Rebalance::Assign(places) => {
                    let news: Vec<_> = places.iter().filter_map(|p| self.at(p)).collect();
                    for at in news {
                        if self.owned.insert(at.clone()) {
                            polled.assigned.push(at);
                        }
                    }
                    self.steps.push(Step::Assign(places.into_iter().map(|p| (p, None)).collect()));
                }
                Rebalance::Revoke(places) => {
                    let gone: Vec<_> = places.iter().filter_map(|p| self.at(p)).collect();
                    for at in gone {
                        if self.owned.remove(&at) {
                            polled.revoked.push(at);
                        }
                    }
                    self.steps.push(Step::Revoke(places));
                }
            }
        }
        let owned = &self.owned;
        polled
            .records
            .retain(|r| owned.contains(&TopicPartition { topic: r.topic.to_string(), partition: r.partition }));
        polled
    }
}

/// Polls until there are records, a rebalance, or the time is over.
fn read(
    client: &Client,
    topics: &BTreeMap<String, Arc<str>>,
    inner: &Inner,
    max_records: usize,
    max_wait: Duration,
) -> Result<Fetched, BusError> {
    let deadline = Instant::now() + max_wait;
    let context = client.context();
    let mut out = Fetched::default();
    let mut bytes = 0;
    loop {
        inner.open()?;
        if context.leaving.load(Ordering::Acquire) {
            return Ok(out);
        }
        let wait = match out.records.is_empty() {
            true => deadline.saturating_duration_since(Instant::now()).min(LOOK_UP_EVERY),
            false => Duration::ZERO,
        };
        let message = client.poll(wait);
        let idle = message.is_none();
        match message {
            Some(Ok(message)) => {
                if let Some(topic) = topics.get(message.topic()) {
                    let payload = message.payload().unwrap_or_default();
                    bytes += payload.len();
                    out.records.push(Record {
                        topic: topic.clone(),
                        partition: message.partition() as u32,
                        offset: message.offset() as u64,
                        bytes: Bytes::copy_from_slice(payload),
                    });
                }
            }
            Some(Err(e)) => note_error(e)?,
            None => {}
        }
        out.rebalances.extend(context.rebalances.lock().drain(..));
        let full = out.records.len() >= max_records || bytes >= MAX_POLL_BYTES;
        let ended = Instant::now() >= deadline || !out.records.is_empty();
        if !out.rebalances.is_empty() || full || (idle && ended) {
            return Ok(out);
        }
    }
}

/// librdkafka tells of much that it mends itself; only what it cannot mend is an error.
fn note_error(e: KafkaError) -> Result<(), BusError> {
    use RDKafkaErrorCode as Code;
    match e.rdkafka_error_code() {
        Some(
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::UnknownTopicOrPartition
            | Code::Fatal,
        ) => Err(failed("read from Kafka", e)),
        _ if matches!(e, KafkaError::MessageConsumptionFatal(_)) => Err(failed("read from Kafka", e)),
        _ => {
            tracing::debug!(error = %e, "kafka consumer");
            Ok(())
        }
    }
}

/// Commits, waiting a little for a rebalance or a coordinator.
fn commit(client: &Client, list: &TopicPartitionList) -> Result<(), BusError> {
    use RDKafkaErrorCode as Code;
    let began = Instant::now();
    loop {
        let Err(e) = client.commit(list, CommitMode::Sync) else { return Ok(()) };
        let rebalancing = e.rdkafka_error_code() == Some(Code::RebalanceInProgress);
        if (rebalancing || not_ready(&e)) && began.elapsed() < COMMIT_WAITS {
            std::thread::sleep(LOOK_UP_EVERY);
            continue;
        }
        return Err(match e.rdkafka_error_code() {
            Some(Code::IllegalGeneration | Code::UnknownMemberId | Code::FencedInstanceId | Code::AssignmentLost) => {
                BusError::Fenced
            }
            Some(Code::RebalanceInProgress) => {
                failed("commit positions while the group is being rebalanced: poll, then commit again", e)
            }
            _ => failed("commit positions", e),
        });
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        self.client.context().leaving.store(true, Ordering::Release);
        let client = self.client.clone();
        let steps = std::mem::take(&mut self.steps);
        let timeout = self.inner.request_timeout();
        // Leaving talks to the cluster, which must not hold up who drops us.
        let left = std::thread::Builder::new().name("bus leave".into()).spawn(move || {
            let missed: Vec<Rebalance> = client.context().rebalances.lock().drain(..).collect();
            let missed = missed.into_iter().map(|r| match r {
                Rebalance::Assign(places) => Step::Assign(places.into_iter().map(|p| (p, None)).collect()),
                Rebalance::Revoke(places) => Step::Revoke(places),
            });
            // Rebalances must be answered, or closing would wait for it.
            for step in steps.into_iter().chain(missed).filter(|s| !matches!(s, Step::Seek(..))) {
                if let Err(e) = apply(&client, &step, timeout) {
                    tracing::debug!(error = %e, "answer a rebalance while leaving");
                }
            }
            drop(client);
        });
        if let Ok(thread) = left {
            let mut leaving = self.inner.leaving.lock();
            leaving.retain(|t| !t.is_finished());
            leaving.push(thread);
        }
    }
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn poll(&mut self, max_records: usize, max_wait: Duration) -> Result<Polled, BusError> {
        self.inner.open()?;
        let result = match self.finished.take() {
            Some(result) => result,
            None => self.finish(max_records, max_wait).await,
        };
        let fetched = result.unwrap_or_else(|e| Err(BusError::io("poll Kafka")(e)))?;
        self.inner.open()?;
        Ok(self.digest(fetched))
    }

    async fn ready(&mut self, max_wait: Duration) {
        if self.finished.is_none() {
            self.finished = Some(self.finish(READY_RECORDS, max_wait).await);
        }
    }

    async fn seek(&mut self, at: &TopicPartition, offset: u64) -> Result<(), BusError> {
        if !self.owned.contains(at) {
            return Err(BusError::Fenced);
        }
        let place = self.place(at);
        for step in &mut self.steps {
            if let Step::Assign(places) = step
                && let Some(from) = places.get_mut(&place)
            {
                *from = Some(offset);
                return Ok(());
            }
        }
        self.steps.push(Step::Seek(place, offset));
        Ok(())
    }

    async fn commit(&mut self, positions: &[(TopicPartition, u64)]) -> Result<(), BusError> {
        self.inner.open()?;
        if positions.iter().any(|(at, _)| !self.owned.contains(at)) {
            return Err(BusError::Fenced);
        }
        if positions.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (at, offset) in positions {
            let (topic, partition) = self.place(at);
            list.add_partition_offset(&topic, partition, Offset::Offset(*offset as i64))
                .map_err(|e| failed("commit positions", e))?;
        }
        let client = self.client.clone();
        blocking(move || commit(&client, &list)).await
    }
}
