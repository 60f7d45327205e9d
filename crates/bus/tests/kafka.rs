//! The Kafka bus: the common suite against librdkafka's mock cluster, and against a real broker where there is one
//! (`testenv/kafka/up`).
#![cfg(feature = "kafka")]
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

use async_trait::async_trait;
use nightshift_bus::conformance::{self, Harness};
use nightshift_bus::kafka::KafkaBus;
use nightshift_bus::{Bus, BusError, KafkaConfig, KafkaSasl, KafkaTls, Outgoing, SaslMechanism, TopicSpec};
use nightshift_model::Routing;
use rdkafka::mocking::MockCluster;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

/// Opens buses on one cluster, apart by their prefixes.
struct Cluster {
    config: KafkaConfig,
    run: String,
    mock: Option<Mock>,
}

impl Cluster {
    fn new(config: KafkaConfig, mock: Option<Mock>) -> Self {
        // A broker may hold what an earlier run left. (The clock is only a source of names here.)
        #[expect(clippy::disallowed_methods, reason = "only makes a name that no earlier run used")]
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Self { config, run: format!("t{}-{}", std::process::id(), since.as_millis()), mock }
    }

    fn config(&self, name: &str, tight: bool) -> KafkaConfig {
        let mut config = self.config.clone();
        config.topic_prefix = format!("{}.{name}.", self.run);
        config.group_prefix = format!("{}-{name}-", self.run);
        if tight {
            config.max_pending_bytes = 64 << 10;
        }
        config
    }
}

#[async_trait]
impl Harness for Cluster {
    async fn open(&self, name: &str, tight: bool) -> Arc<dyn Bus> {
        Arc::new(KafkaBus::connect(self.config(name, tight)).await.unwrap())
    }

    async fn make_topic(&self, name: &str, bus: &dyn Bus, topic: &str, partitions: u32) {
        if let Some(mock) = &self.mock {
            mock.make_topic(&format!("{}{topic}", self.config(name, false).topic_prefix), partitions);
        }
        bus.ensure_topics(&[TopicSpec { name: topic.into(), partitions }]).await.unwrap();
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(90)
    }
}

/// A mock cluster, which cannot leave its thread and cannot make topics by request.
struct Mock {
    bootstrap: String,
    make: mpsc::SyncSender<(String, u32, mpsc::SyncSender<()>)>,
}

impl Mock {
    fn start() -> Self {
        let (make, wanted) = mpsc::sync_channel::<(String, u32, mpsc::SyncSender<()>)>(1);
        let (tell, bootstrap) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let cluster = MockCluster::new(1).unwrap();
            tell.send(cluster.bootstrap_servers()).unwrap();
            for (topic, partitions, done) in wanted {
                cluster.create_topic(&topic, partitions as i32, 1).unwrap();
                done.send(()).unwrap();
            }
        });
        Self { bootstrap: bootstrap.recv().unwrap(), make }
    }

    fn make_topic(&self, topic: &str, partitions: u32) {
        let (done, made) = mpsc::sync_channel(1);
        self.make.send((topic.into(), partitions, done)).unwrap();
        made.recv().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_on_the_mock_cluster() {
    let mock = Mock::start();
    // The mock cluster frees what a member held only when its session times out, whether it left or not.
    let config =
        KafkaConfig { bootstrap_servers: mock.bootstrap.clone(), session_timeout_secs: 6, ..KafkaConfig::default() };
    conformance::run(Arc::new(Cluster::new(config, Some(mock)))).await;
}

/// The variable, or a loud line that says what was not tested.
fn env_or_skip(test: &str, name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|v| !v.is_empty());
    if value.is_none() {
        // Not `eprintln!`: the test runner hides that of a test that passes.
        let line = format!("SKIPPED: {test}: {name} is not set; run testenv/kafka/up, then testenv/run cargo test\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_on_a_real_broker() {
    let Some(bootstrap_servers) = env_or_skip("conforms_on_a_real_broker", "NIGHTSHIFT_TEST_KAFKA") else { return };
    let config = KafkaConfig { bootstrap_servers, ..KafkaConfig::default() };
    conformance::run(Arc::new(Cluster::new(config, None))).await;
}

/// Settings for the listener with TLS and SCRAM.
fn tls_config(test: &str) -> Option<KafkaConfig> {
    let bootstrap_servers = env_or_skip(test, "NIGHTSHIFT_TEST_KAFKA_TLS")?;
    let var =
        |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} belongs to NIGHTSHIFT_TEST_KAFKA_TLS"));
    Some(KafkaConfig {
        bootstrap_servers,
        tls: Some(KafkaTls { ca_file: Some(var("NIGHTSHIFT_TEST_KAFKA_CA").into()), ..KafkaTls::default() }),
        sasl: Some(KafkaSasl {
            mechanism: SaslMechanism::ScramSha512,
            username: var("NIGHTSHIFT_TEST_KAFKA_USER"),
            password: var("NIGHTSHIFT_TEST_KAFKA_PASSWORD").into(),
        }),
        ..KafkaConfig::default()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_on_a_real_broker_over_tls_with_scram() {
    let Some(config) = tls_config("conforms_on_a_real_broker_over_tls_with_scram") else { return };
    conformance::run(Arc::new(Cluster::new(config, None))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_or_authority_is_an_error_that_says_so() {
    let Some(good) = tls_config("a_wrong_password_or_authority_is_an_error_that_says_so") else { return };
    let mut wrong_password = good.clone();
    wrong_password.request_timeout_secs = 4;
    wrong_password.sasl.as_mut().unwrap().password = "wrong-and-secret".into();
    let mut no_authority = good;
    no_authority.request_timeout_secs = 4;
    no_authority.tls = Some(KafkaTls::default());
    for config in [wrong_password, no_authority] {
        let bus = KafkaBus::connect(config).await.unwrap();
        let error = bus.ensure_topics(&[TopicSpec { name: "t".into(), partitions: 1 }]).await.unwrap_err();
        assert!(matches!(error, BusError::Io { .. }), "{error:?}");
        assert!(!format!("{error:?}").contains("wrong-and-secret"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_made_with_our_retention_or_asked_for() {
    let Some(bootstrap_servers) =
        env_or_skip("topics_are_made_with_our_retention_or_asked_for", "NIGHTSHIFT_TEST_KAFKA")
    else {
        return;
    };
    let cluster = Cluster::new(KafkaConfig { bootstrap_servers, ..KafkaConfig::default() }, None);
    let config = cluster.config("topics", false);
    let spec = [TopicSpec { name: "t".into(), partitions: 64 }];

    let strict = KafkaBus::connect(KafkaConfig { create_topics: false, ..config.clone() }).await.unwrap();
    let Err(BusError::Invalid(text)) = strict.ensure_topics(&spec).await else { panic!("it made the topic") };
    assert!(text.contains("with 64 partitions"), "{text}");

    let bus = KafkaBus::connect(config.clone()).await.unwrap();
    bus.ensure_topics(&spec).await.unwrap();
    strict.ensure_topics(&spec).await.unwrap();
    assert_eq!(bus.partitions().await.unwrap().len(), 64);

    let admin: rdkafka::admin::AdminClient<_> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &config.bootstrap_servers).create().unwrap();
    let name = format!("{}t", config.topic_prefix);
    let resource = rdkafka::admin::ResourceSpecifier::Topic(&name);
    let found = admin.describe_configs([&resource], &rdkafka::admin::AdminOptions::new()).await.unwrap();
    let topic = found.into_iter().next().unwrap().unwrap();
    assert_eq!(topic.get("retention.ms").unwrap().value.as_deref(), Some("604800000"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_loading_is_waited_for() {
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    let loading = RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS;
    let (tell, bootstrap) = mpsc::sync_channel(1);
    let (stop, stopped) = mpsc::sync_channel::<()>(1);
    let thread = std::thread::spawn(move || {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        cluster.request_errors(RDKafkaApiKey::InitProducerId, &[loading; 3]);
        cluster.request_errors(RDKafkaApiKey::OffsetCommit, &[loading; 2]);
        tell.send(cluster.bootstrap_servers()).unwrap();
        let _ = stopped.recv();
    });
    let config = KafkaConfig { bootstrap_servers: bootstrap.recv().unwrap(), ..KafkaConfig::default() };
    let bus = KafkaBus::connect(config).await.unwrap();
    bus.publish("t", vec![Outgoing { routing: Routing::Shard(0), bytes: "x".into() }]).await.unwrap();
    let mut consumer = bus.consumer("g", &["t"]).await.unwrap();
    let began = Instant::now();
    let record = loop {
        assert!(began.elapsed() < Duration::from_secs(60), "the record never came");
        let polled = consumer.poll(10, Duration::from_millis(100)).await.unwrap();
        if let Some(record) = polled.records.into_iter().next() {
            break record;
        }
    };
    let at = nightshift_bus::TopicPartition { topic: "t".into(), partition: 0 };
    consumer.commit(&[(at, record.offset + 1)]).await.unwrap();
    let groups = bus.groups().await.unwrap();
    assert_eq!(groups.iter().map(|g| (g.committed, g.lag)).collect::<Vec<_>>(), [(Some(1), 0)]);
    drop(consumer);
    bus.close().await.unwrap();
    stop.send(()).unwrap();
    thread.join().unwrap();
}

/// A poll that its caller gave up must not lose what it was about to bring.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_that_is_cancelled_loses_nothing() {
    let mock = Mock::start();
    mock.make_topic("t", 1);
    let config = KafkaConfig { bootstrap_servers: mock.bootstrap.clone(), ..KafkaConfig::default() };
    let bus = KafkaBus::connect(config).await.unwrap();
    let mut consumer = bus.consumer("g", &["t"]).await.unwrap();
    let mut got = Vec::new();
    let began = Instant::now();
    let mut published = 0;
    while got.len() < 50 {
        assert!(began.elapsed() < Duration::from_secs(60), "{got:?}");
        if published < 50 {
            let bytes = published.to_string().into();
            bus.publish("t", vec![Outgoing { routing: Routing::Shard(0), bytes }]).await.unwrap();
            published += 1;
        }
        let poll = consumer.poll(3, Duration::from_secs(1));
        if let Ok(polled) = tokio::time::timeout(Duration::from_millis(3), poll).await {
            got.extend(polled.unwrap().records.iter().map(|r| String::from_utf8_lossy(&r.bytes).into_owned()));
        }
    }
    assert_eq!(got, (0..50).map(|i| i.to_string()).collect::<Vec<_>>());
}
