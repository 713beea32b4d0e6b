//! A real Apache Kafka, topics and records for tests, and the operator's own tools.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{
    BorrowedMessage, DeliveryResult, Header, Headers, Message, OwnedHeaders, OwnedMessage,
};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::util::Timeout;
use rdkafka::{ClientContext, Timestamp};

use crate::broker::Broker;
use crate::process::{next_number, scratch};
use crate::wait;

/// Names the address of a running broker; without it the test process starts its own.
const ADDRESS_VARIABLE: &str = "PGSLUICE_TEST_KAFKA";
/// Names the directory of that broker; only needed where its secured listener is.
const DIRECTORY_VARIABLE: &str = "PGSLUICE_TEST_KAFKA_DIR";
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// A broker that a test restarts under load needs a while until it takes records again.
const PRODUCE_DEADLINE: Duration = Duration::from_secs(120);

static BROKERS: OnceLock<String> = OnceLock::new();
/// Where this test process started one.
static OWN: OnceLock<Mutex<Broker>> = OnceLock::new();

/// The broker's `bootstrap.servers`; starts the broker on first use.
pub fn brokers() -> &'static str {
    BROKERS.get_or_init(|| {
        let given = std::env::var(ADDRESS_VARIABLE).ok().filter(|address| !address.is_empty());
        given.unwrap_or_else(|| own().address().to_owned())
    })
}

/// A broker that nobody else uses meanwhile: for tests that stop it. All tests of their binary have
/// to begin with this.
pub fn alone() -> MutexGuard<'static, Broker> {
    let mut broker = own();
    let address = BROKERS.get_or_init(|| broker.address().to_owned());
    assert_eq!(address, broker.address(), "a test of this binary uses the shared broker");
    broker.ensure_running();
    broker
}

fn own() -> MutexGuard<'static, Broker> {
    let broker = OWN.get_or_init(|| Mutex::new(Broker::own()));
    // A test that failed may have left it stopped, nothing else.
    broker.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The listener of [`brokers`] that wants TLS and SCRAM: its address, and the file that holds the
/// authority of its certificate. User and password are in scripts/kafka/run.sh.
pub fn secured() -> (String, PathBuf) {
    let plain = brokers();
    let directory = match std::env::var(DIRECTORY_VARIABLE) {
        Ok(directory) => PathBuf::from(directory),
        Err(_) => scratch().join("kafka"),
    };
    let address = std::fs::read_to_string(directory.join("secured.servers")).unwrap_or_else(|_| {
        panic!("{plain}: set {DIRECTORY_VARIABLE} to the DIR that scripts/kafka/run.sh was given")
    });
    (address.trim().to_owned(), directory.join("ca.pem"))
}

fn client_config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

/// Waits for an admin call; they are asynchronous in the client.
fn wait_for<T>(call: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("build a runtime").block_on(call)
}

fn admin() -> AdminClient<DefaultClientContext> {
    client_config(brokers()).create().expect("create an admin client")
}

/// Creates a topic whose name is `name` and a number of its own.
pub fn topic(name: &str, partitions: i32) -> String {
    let topic = format!("{name}-{}-{}", std::process::id(), next_number());
    create_topic(&topic, partitions);
    topic
}

/// Creates a topic of exactly that name and waits until its partitions have leaders.
pub fn create_topic(topic: &str, partitions: i32) {
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(CALL_DEADLINE));
    let created = wait_for(admin().create_topics([&new], &options)).expect("create a topic");
    created[0].as_ref().unwrap_or_else(|(name, error)| panic!("create {name}: {error}"));
    wait::until("the topic has leaders", CALL_DEADLINE, || {
        partition_count(topic) == usize::try_from(partitions).ok()
    });
}

/// Deletes a topic and waits until it is gone.
pub fn delete_topic(topic: &str) {
    let options = AdminOptions::new().operation_timeout(Some(CALL_DEADLINE));
    let deleted = wait_for(admin().delete_topics(&[topic], &options)).expect("delete a topic");
    deleted[0].as_ref().unwrap_or_else(|(name, error)| panic!("delete {name}: {error}"));
    wait::until("the topic is gone", CALL_DEADLINE, || partition_count(topic).is_none());
}

/// Changes settings of a topic.
pub fn alter_topic(topic: &str, settings: &[(&str, &str)]) {
    let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for (name, value) in settings {
        change = change.set(name, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(CALL_DEADLINE));
    let altered = wait_for(admin().alter_configs([&change], &options)).expect("alter a topic");
    altered[0].as_ref().unwrap_or_else(|(_, error)| panic!("alter {topic}: {error}"));
}

/// How many partitions with a leader a topic has; `None` while it does not exist.
pub fn partition_count(topic: &str) -> Option<usize> {
    let client: BaseConsumer = client_config(brokers()).create().expect("create a client");
    let metadata = client.fetch_metadata(Some(topic), CALL_DEADLINE).expect("read metadata");
    let partitions = metadata.topics().first()?.partitions();
    (!partitions.is_empty()).then(|| partitions.iter().filter(|p| p.leader() >= 0).count())
}

/// The offset after the last record (and marker) of a partition.
pub fn end_offset(topic: &str, partition: i32) -> i64 {
    let client: BaseConsumer = client_config(brokers()).create().expect("create a client");
    client.fetch_watermarks(topic, partition, CALL_DEADLINE).expect("read the end offset").1
}

/// The group's committed offset; `None` where there is none.
pub fn committed(group: &str, topic: &str, partition: i32) -> Option<i64> {
    let found = committed_list(group, topic, partition);
    match found.elements()[0].offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

/// What was committed with that offset; empty where nothing was.
pub fn committed_metadata(group: &str, topic: &str, partition: i32) -> String {
    committed_list(group, topic, partition).elements()[0].metadata().to_owned()
}

fn committed_list(group: &str, topic: &str, partition: i32) -> TopicPartitionList {
    let client: BaseConsumer =
        client_config(brokers()).set("group.id", group).create().expect("create a client");
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition(topic, partition);
    client.committed_offsets(wanted, CALL_DEADLINE).expect("read committed offsets")
}

/// A consumer that has joined a group with the protocol most clients use; a member while it lives.
pub fn member(group: &str, topic: &str) -> BaseConsumer {
    let mut config = client_config(brokers());
    config.set("group.id", group).set("partition.assignment.strategy", "range");
    let consumer: BaseConsumer = config.create().expect("create a client");
    consumer.subscribe(&[topic]).expect("subscribe");
    wait::until("the consumer has joined", CALL_DEADLINE, || {
        // What it reads, if anything, is of no interest.
        drop(consumer.poll(Duration::from_millis(50)));
        consumer.assignment().is_ok_and(|partitions| partitions.count() > 0)
    });
    consumer
}

/// Commits an offset for a group without members, as an operator's tool does.
pub fn commit(group: &str, topic: &str, next: Place) {
    let client: BaseConsumer =
        client_config(brokers()).set("group.id", group).create().expect("create a client");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, next.partition, Offset::Offset(next.offset)).expect("list");
    client.commit(&list, CommitMode::Sync).expect("commit");
}

/// Runs Kafka's own `kafka-consumer-groups` and returns what it printed.
pub fn consumer_groups_tool(arguments: &[&str]) -> String {
    tool("consumer.group.ConsumerGroupCommand", arguments)
}

/// Runs Kafka's own `kafka-acls`. What has an ACL is closed to whoever has none; what has none is
/// open. Only the listener of [`secured`] asks.
pub fn acls_tool(arguments: &[&str]) {
    tool("AclCommand", arguments);
}

fn tool(class: &str, arguments: &[&str]) -> String {
    let fetch = crate::process::root().join("scripts/kafka/fetch.sh");
    let lib = Command::new(fetch).output().expect("run scripts/kafka/fetch.sh");
    assert!(lib.status.success(), "Kafka's jars are missing: run scripts/install.sh");
    let class_path = format!("{}/*", String::from_utf8_lossy(&lib.stdout).trim());
    let output = Command::new("java")
        .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", &class_path])
        .arg(format!("org.apache.kafka.tools.{class}"))
        .args(["--bootstrap-server", brokers()])
        .args(arguments)
        .output()
        .expect("run java");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{class}: {printed}{errors}");
    printed
}

/// Where the broker put a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub partition: i32,
    pub offset: i64,
}

/// A record to produce: without key, value and headers until they are given.
#[derive(Debug, Clone, Default)]
pub struct Outgoing {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    partition: Option<i32>,
    timestamp: Option<i64>,
}

impl Outgoing {
    /// A record with that key and that value.
    pub fn new(key: &str, value: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(key.into()), value: Some(value.into()), ..Self::default() }
    }

    /// A record with a value and a null key.
    pub fn without_key(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// A record with that key and a null value.
    pub fn tombstone(key: &str) -> Self {
        Self { key: Some(key.into()), ..Self::default() }
    }

    /// Replaces the key, where it is not to be the aggregate's id.
    pub fn keyed(mut self, key: &str) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Appends a header; `None` is Kafka's null.
    pub fn header(mut self, name: &str, value: Option<&[u8]>) -> Self {
        self.headers.push((name.into(), value.map(<[u8]>::to_vec)));
        self
    }

    /// Chooses the partition instead of the key's.
    pub fn on(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the producer's timestamp, in milliseconds.
    pub fn at(mut self, timestamp: i64) -> Self {
        self.timestamp = Some(timestamp);
        self
    }
}

/// Remembers where each record went, by the number it was sent under.
#[derive(Clone, Default)]
struct Deliveries(Arc<Mutex<Vec<Option<Place>>>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, index: Box<usize>) {
        if let Ok(message) = result {
            let place = Place { partition: message.partition(), offset: message.offset() };
            self.0.lock().expect("deliveries")[*index] = Some(place);
        }
    }
}

/// Produces records to one topic and knows where they went.
pub struct Producer {
    topic: String,
    client: BaseProducer<Deliveries>,
    deliveries: Deliveries,
}

impl Producer {
    /// A producer that partitions as Java's does.
    pub fn new(topic: &str) -> Self {
        Self::with(topic, &[])
    }

    /// A transactional producer, initialised.
    pub fn transactional(topic: &str) -> Self {
        let producer = Self::with(topic, &[("transactional.id", topic)]);
        producer.client.init_transactions(CALL_DEADLINE).expect("init transactions");
        producer
    }

    fn with(topic: &str, properties: &[(&str, &str)]) -> Self {
        let deliveries = Deliveries::default();
        let mut config = client_config(brokers());
        config.set("partitioner", "murmur2_random").set("linger.ms", "5");
        config.set("enable.idempotence", "true").set("message.max.bytes", "10000000");
        for (name, value) in properties {
            config.set(*name, *value);
        }
        let client = config.create_with_context(deliveries.clone()).expect("create a producer");
        Self { topic: topic.into(), client, deliveries }
    }

    /// Produces one record and waits for its place.
    pub fn send(&self, record: Outgoing) -> Place {
        self.send_all([record])[0]
    }

    /// Produces records in order and waits until the broker has them all.
    pub fn send_all(&self, records: impl IntoIterator<Item = Outgoing>) -> Vec<Place> {
        let first = self.deliveries.0.lock().expect("deliveries").len();
        for record in records {
            self.enqueue(&record);
        }
        self.client.flush(Timeout::After(PRODUCE_DEADLINE)).expect("flush");
        let places = self.deliveries.0.lock().expect("deliveries");
        places[first..].iter().map(|place| place.expect("the broker took the record")).collect()
    }

    fn enqueue(&self, outgoing: &Outgoing) {
        let index = {
            let mut places = self.deliveries.0.lock().expect("deliveries");
            places.push(None);
            places.len() - 1
        };
        let mut headers = OwnedHeaders::new();
        for (key, value) in &outgoing.headers {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let mut record: BaseRecord<'_, [u8], [u8], Box<usize>> =
            BaseRecord::with_opaque_to(&self.topic, Box::new(index)).headers(headers);
        record.key = outgoing.key.as_deref();
        record.payload = outgoing.value.as_deref();
        record.partition = outgoing.partition;
        record.timestamp = outgoing.timestamp;
        while let Err((error, refused)) = self.client.send(record) {
            let queue_full =
                error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::QueueFull);
            assert!(queue_full, "produce: {error}");
            self.client.poll(Duration::from_millis(10));
            record = refused;
        }
        self.client.poll(Duration::ZERO);
    }

    /// Begins a transaction.
    pub fn begin(&self) {
        self.client.begin_transaction().expect("begin");
    }

    /// Commits it.
    pub fn commit(&self) {
        self.client.commit_transaction(CALL_DEADLINE).expect("commit");
    }

    /// Aborts it.
    pub fn abort(&self) {
        self.client.abort_transaction(CALL_DEADLINE).expect("abort");
    }
}

/// A record as read back from a topic, with everything that must survive byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    pub partition: i32,
    pub offset: i64,
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Incoming {
    fn new(message: &OwnedMessage) -> Self {
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: match message.timestamp() {
                Timestamp::CreateTime(time) => Some(time),
                _ => None,
            },
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect(),
        }
    }

    /// The last header of that name, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().rev().find(|(header, _)| header == name)?;
        Some(String::from_utf8_lossy(value.as_deref()?).into_owned())
    }
}

/// Everything in a topic now, by partition and offset; empty while the topic does not exist.
pub fn read_all(topic: &str) -> Vec<Incoming> {
    let Some(partitions) = partition_count(topic) else { return Vec::new() };
    let client: BaseConsumer = client_config(brokers())
        .set("group.id", "reader-of-tests")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .expect("create a consumer");
    let mut assignment = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).expect("few partitions") {
        assignment
            .add_partition_offset(topic, partition, Offset::Beginning)
            .expect("a valid offset");
    }
    client.assign(&assignment).expect("assign");
    let mut open = partitions;
    let mut found = Vec::new();
    while open > 0 {
        let polled = client.poll(CALL_DEADLINE).expect("records or the end of the partition");
        match polled.as_ref().map(BorrowedMessage::detach) {
            Ok(message) => found.push(Incoming::new(&message)),
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            Err(error) => panic!("read {topic}: {error}"),
        }
    }
    found.sort_by_key(|record| (record.partition, record.offset));
    found
}
