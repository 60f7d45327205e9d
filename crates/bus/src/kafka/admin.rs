//! Topics, how far they reach, where groups stand, and reading outside of a group.

use super::consumer::GroupContext;
use super::{Quiet, client, failed, refused, until_ready};
use crate::config::KafkaConfig;
use crate::embedded::blocking;
use crate::{BusError, GroupPosition, PartitionInfo, Record, TopicPartition, TopicSpec};
use bytes::Bytes;
use nightshift_model::topics;
use parking_lot::{Mutex, RwLock};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Clients that read outside of a group, at the same time.
const READERS: usize = 2;
/// How often a topic that was just made is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

type Reader = BaseConsumer<Quiet>;

/// Everything but publishing and groups' reading.
pub(super) struct Admin {
    shared: Arc<Shared>,
    admin: AdminClient<Quiet>,
    readers: Arc<Semaphore>,
}

struct Shared {
    config: KafkaConfig,
    /// Asks; never reads and is in no group.
    asker: Reader,
    /// Partitions of topics that were seen, by name without prefix.
    known: RwLock<BTreeMap<String, u32>>,
    idle_readers: Mutex<Vec<Reader>>,
}

impl Admin {
    pub(super) fn new(config: &KafkaConfig) -> Result<Self, BusError> {
        let settings = client(config, "admin");
        Ok(Self {
            admin: settings.create_with_context(Quiet).map_err(|e| refused("make the Kafka admin client", e))?,
            shared: Arc::new(Shared {
                asker: settings.create_with_context(Quiet).map_err(|e| refused("make a Kafka client", e))?,
                config: config.clone(),
                known: RwLock::default(),
                idle_readers: Mutex::default(),
            }),
            readers: Arc::new(Semaphore::new(READERS)),
        })
    }

    /// Partitions of a topic that was seen before.
    pub(super) fn known(&self, topic: &str) -> Option<u32> {
        self.shared.known.read().get(topic).copied()
    }

    pub(super) fn forget(&self, topic: &str) {
        self.shared.known.write().remove(topic);
    }

    /// Asks the cluster for a topic's partitions.
    pub(super) fn look_up(&self, topic: &str) -> Result<u32, BusError> {
        self.shared.look_up(topic)
    }

    pub(super) async fn ensure(&self, specs: &[TopicSpec]) -> Result<(), BusError> {
        let mut missing = Vec::new();
        for spec in specs {
            let (shared, name) = (self.shared.clone(), spec.name.clone());
            match blocking(move || shared.look_up(&name)).await {
                Ok(have) if have < spec.partitions => {
                    return Err(BusError::Invalid(format!(
                        "topic `{}` has {have} partitions and {} are asked for: the number is fixed when a topic is \
                         made, use another `topic_prefix`",
                        self.shared.full_name(&spec.name),
                        spec.partitions
                    )));
                }
                Ok(_) => {}
                Err(BusError::UnknownTopic(_)) => missing.push(spec),
                Err(e) => return Err(e),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        if !self.shared.config.create_topics {
            let names: Vec<String> = missing
                .iter()
                .map(|s| format!("`{}` with {} partitions", self.shared.full_name(&s.name), s.partitions))
                .collect();
            return Err(BusError::Invalid(format!(
                "topics are missing: make {}, or set `create_topics = true`",
                names.join(", ")
            )));
        }
        self.create(&missing).await
    }

    async fn create(&self, specs: &[&TopicSpec]) -> Result<(), BusError> {
        let config = &self.shared.config;
        let shared = self.shared.clone();
        let brokers = blocking(move || shared.brokers()).await?;
        let replication = (config.replication as usize).clamp(1, brokers.max(1));
        let retention = (config.retention_secs.saturating_mul(1000)).to_string();
        let names: Vec<String> = specs.iter().map(|s| self.shared.full_name(&s.name)).collect();
        let topics: Vec<NewTopic<'_>> = names
            .iter()
            .zip(specs)
            .map(|(name, spec)| {
                let replication_of = TopicReplication::Fixed(replication as i32);
                let topic = NewTopic::new(name, spec.partitions as i32, replication_of).set("retention.ms", &retention);
                // With three copies an acknowledged record is on two of them at least.
                if replication >= 3 { topic.set("min.insync.replicas", "2") } else { topic }
            })
            .collect();
        let options = AdminOptions::new().operation_timeout(Some(self.shared.timeout()));
        let made = self.admin.create_topics(&topics, &options).await.map_err(|e| failed("make topics", e))?;
        for result in made {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => return Err(failed(&format!("make topic `{name}`"), KafkaError::AdminOp(code))),
            }
        }
        // Brokers learn of a new topic one after the other.
        for spec in specs {
            let began = Instant::now();
            loop {
                let (shared, name) = (self.shared.clone(), spec.name.clone());
                match blocking(move || shared.look_up(&name)).await {
                    Ok(_) => break,
                    Err(BusError::UnknownTopic(_)) if began.elapsed() < self.shared.timeout() => {
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }

    pub(super) fn partitions(&self) -> Result<Vec<PartitionInfo>, BusError> {
        self.shared.partitions()
    }

    pub(super) fn groups(
        &self,
        members: &BTreeMap<String, Arc<BaseConsumer<GroupContext>>>,
    ) -> Result<Vec<GroupPosition>, BusError> {
        self.shared.groups(members)
    }

    pub(super) async fn fetch(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        max: usize,
    ) -> Result<Vec<Record>, BusError> {
        let Ok(_one) = self.readers.clone().acquire_owned().await else { return Err(BusError::Closed) };
        let (shared, topic) = (self.shared.clone(), topic.to_string());
        blocking(move || shared.fetch(&topic, partition, from, max)).await
    }
}

/// An offset that the cluster knows.
fn offset_of(offset: Offset) -> Option<u64> {
    match offset {
        Offset::Offset(o) => u64::try_from(o).ok(),
        _ => None,
    }
}

impl Shared {
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.config.request_timeout_secs)
    }

    fn full_name(&self, topic: &str) -> String {
        format!("{}{topic}", self.config.topic_prefix)
    }

    fn brokers(&self) -> Result<usize, BusError> {
        let metadata = self.asker.fetch_metadata(None, self.timeout());
        metadata.map(|m| m.brokers().len()).map_err(|e| failed("ask for the brokers", e))
    }

    fn look_up(&self, topic: &str) -> Result<u32, BusError> {
        let what = || format!("ask for topic `{topic}`");
        let full_name = self.full_name(topic);
        let metadata = self.asker.fetch_metadata(Some(&full_name), self.timeout()).map_err(|e| failed(&what(), e))?;
        let found = metadata.topics().iter().find(|t| t.name() == full_name);
        let error = found.and_then(|t| t.error());
        match (found, error) {
            (Some(found), None) if !found.partitions().is_empty() => {
                let partitions = found.partitions().len() as u32;
                self.known.write().insert(topic.into(), partitions);
                Ok(partitions)
            }
            (_, None | Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)) => {
                Err(BusError::UnknownTopic(topic.into()))
            }
            (_, Some(e)) => Err(failed(&what(), KafkaError::MetadataFetch(e.into()))),
        }
    }

    /// Our topics, without prefix, and their partitions. Without a prefix the cluster may hold topics of others:
    /// then ours are those that were used here and those of the catalogue.
    fn topics(&self) -> Result<BTreeMap<String, u32>, BusError> {
        let metadata = self.asker.fetch_metadata(None, self.timeout()).map_err(|e| failed("ask for topics", e))?;
        let prefix = &self.config.topic_prefix;
        let known = self.known.read();
        let ours = |name: &str| !prefix.is_empty() || known.contains_key(name) || topics::by_name(name).is_some();
        Ok(metadata
            .topics()
            .iter()
            .filter(|t| t.error().is_none())
            .filter_map(|t| Some((t.name().strip_prefix(prefix.as_str())?, t.partitions().len() as u32)))
            .filter(|(name, _)| ours(name))
            .map(|(name, partitions)| (name.to_string(), partitions))
            .collect())
    }

    /// The oldest or newest offsets of all partitions, in one request per broker.
    fn offsets(
        &self,
        topics: &BTreeMap<String, u32>,
        which: Offset,
    ) -> Result<BTreeMap<TopicPartition, u64>, BusError> {
        let mut list = TopicPartitionList::new();
        for (topic, partitions) in topics {
            list.add_partition_range(&self.full_name(topic), 0, *partitions as i32 - 1);
        }
        let what = "ask how far partitions reach";
        list.set_all_offsets(which).map_err(|e| failed(what, e))?;
        // A topic that was just made has no leader everywhere yet.
        let ask = || self.asker.offsets_for_times(list.clone(), self.timeout());
        let found = until_ready(self.timeout(), ask).map_err(|e| failed(what, e))?;
        let prefix = self.config.topic_prefix.len();
        let mut out = BTreeMap::new();
        for element in found.elements() {
            element.error().map_err(|e| failed(what, e))?;
            if let Some(offset) = offset_of(element.offset()) {
                let topic = element.topic()[prefix..].to_string();
                out.insert(TopicPartition { topic, partition: element.partition() as u32 }, offset);
            }
        }
        Ok(out)
    }

    fn partitions(&self) -> Result<Vec<PartitionInfo>, BusError> {
        let topics = self.topics()?;
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let mut starts = self.offsets(&topics, Offset::Beginning)?;
        let ends = self.offsets(&topics, Offset::End)?;
        Ok(ends
            .into_iter()
            .map(|(at, end)| {
                let start = starts.remove(&at).unwrap_or(0).min(end);
                PartitionInfo { at, start, end, records: None, bytes: None }
            })
            .collect())
    }

    fn groups(
        &self,
        members: &BTreeMap<String, Arc<BaseConsumer<GroupContext>>>,
    ) -> Result<Vec<GroupPosition>, BusError> {
        let info = self.partitions()?;
        let mut names: BTreeSet<String> = members.keys().cloned().collect();
        // Groups of other processes, where we may list them.
        match self.asker.fetch_group_list(None, self.timeout()) {
            Ok(list) => {
                let ours = list.groups().iter().filter_map(|g| g.name().strip_prefix(&self.config.group_prefix));
                names.extend(ours.map(str::to_string));
            }
            Err(e) => tracing::debug!(error = %e, "cannot list the groups of the cluster"),
        }
        let mut out = Vec::new();
        for group in names {
            let subscribed: BTreeSet<String> = match members.get(&group) {
                Some(member) => member
                    .subscription()
                    .map(|list| list.elements().iter().map(|e| e.topic().to_string()).collect())
                    .unwrap_or_default(),
                None => BTreeSet::new(),
            };
            let committed = self.committed(&group, members.get(&group), &info)?;
            for place in &info {
                let committed = committed.get(&place.at).copied();
                if committed.is_none() && !subscribed.contains(&self.full_name(&place.at.topic)) {
                    continue;
                }
                let lag = place.end.saturating_sub(committed.unwrap_or(place.start).max(place.start));
                out.push(GroupPosition { group: group.clone(), at: place.at.clone(), committed, lag });
            }
        }
        Ok(out)
    }

    fn committed(
        &self,
        group: &str,
        member: Option<&Arc<BaseConsumer<GroupContext>>>,
        info: &[PartitionInfo],
    ) -> Result<BTreeMap<TopicPartition, u64>, BusError> {
        let what = format!("ask where group `{group}` stands");
        let list = || {
            let mut list = TopicPartitionList::with_capacity(info.len());
            for place in info {
                list.add_partition(&self.full_name(&place.at.topic), place.at.partition as i32);
            }
            list
        };
        let timeout = self.timeout();
        let found = match member {
            Some(member) => until_ready(timeout, || member.committed_offsets(list(), timeout)),
            None => {
                // A client of that name that asks and never joins.
                let asker: Reader = client(&self.config, group)
                    .set("group.id", format!("{}{group}", self.config.group_prefix))
                    .create_with_context(Quiet)
                    .map_err(|e| refused("make a Kafka client", e))?;
                until_ready(timeout, || asker.committed_offsets(list(), timeout))
            }
        }
        .map_err(|e| failed(&what, e))?;
        let prefix = self.config.topic_prefix.len();
        let mut out = BTreeMap::new();
        for element in found.elements() {
            if let Some(offset) = offset_of(element.offset()) {
                let topic = element.topic()[prefix..].to_string();
                out.insert(TopicPartition { topic, partition: element.partition() as u32 }, offset);
            }
        }
        Ok(out)
    }

    fn reader(&self) -> Result<Reader, BusError> {
        if let Some(idle) = self.idle_readers.lock().pop() {
            return Ok(idle);
        }
        client(&self.config, "fetch")
            // Needed to be given partitions by hand; it never joins and never commits.
            .set("group.id", format!("{}fetch", self.config.group_prefix))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "20")
            .set("queued.max.messages.kbytes", "16384")
            .create_with_context(Quiet)
            .map_err(|e| refused("make a Kafka consumer", e))
    }

    fn fetch(&self, topic: &str, partition: u32, from: u64, max: usize) -> Result<Vec<Record>, BusError> {
        let what = || format!("read partition {partition} of topic `{topic}`");
        let full_name = self.full_name(topic);
        let ask = || self.asker.fetch_watermarks(&full_name, partition as i32, self.timeout());
        let (low, high) = until_ready(self.timeout(), ask).map_err(|e| failed(&what(), e))?;
        let from = from.max(low.max(0) as u64);
        let high = high.max(0) as u64;
        if from >= high || max == 0 {
            return Ok(Vec::new());
        }
        let reader = self.reader()?;
        let result = read_to(&reader, &full_name, topic, (partition, from, high), max, self.timeout());
        let idle = reader.unassign();
        let out = result.map_err(|e| failed(&what(), e))?;
        if idle.is_ok() {
            self.idle_readers.lock().push(reader);
        }
        Ok(out)
    }
}

/// Reads one partition from an offset to the end that it had, or `max` records.
fn read_to(
    reader: &Reader,
    full_name: &str,
    topic: &str,
    (partition, from, high): (u32, u64, u64),
    max: usize,
    timeout: Duration,
) -> Result<Vec<Record>, KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(full_name, partition as i32, Offset::Offset(from as i64))?;
    reader.assign(&list)?;
    let topic: Arc<str> = topic.into();
    let began = Instant::now();
    let mut out: Vec<Record> = Vec::new();
    while out.len() < max && out.last().is_none_or(|r| r.offset + 1 < high) {
        let left = timeout.saturating_sub(began.elapsed());
        match reader.poll(left) {
            // What the last reading left behind.
            Some(Ok(m))
                if m.topic() != full_name || m.partition() as u32 != partition || (m.offset() as u64) < from => {}
            Some(Ok(m)) => out.push(Record {
                topic: topic.clone(),
                partition,
                offset: m.offset() as u64,
                bytes: Bytes::copy_from_slice(m.payload().unwrap_or_default()),
            }),
            // The newest offsets may belong to no record.
            Some(Err(KafkaError::PartitionEOF(p))) if p as u32 == partition => break,
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(e)) if began.elapsed() >= timeout => return Err(e),
            Some(Err(e)) => tracing::debug!(error = %e, "kafka reader"),
            None if began.elapsed() >= timeout => {
                return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
            }
            None => {}
        }
    }
    Ok(out)
}
