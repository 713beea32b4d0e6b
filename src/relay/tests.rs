//! Publishing letters of a made-up table to a broker.

use super::*;

use std::collections::BTreeSet;
use std::sync::Mutex;

use jiff::Timestamp;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use pgsluice_core::record::{Header, Offset, OwnerEpoch};

const PATIENCE: Duration = Duration::from_secs(20);
const STREAM: OwnedStream = OwnedStream { stream: StreamId(3), epoch: OwnerEpoch(1) };

/// A letter of stream 3, partition 1.
pub(crate) fn letter(offset: i64) -> StoredLetter {
    let failed_at = Timestamp::from_second(1_700_000_000).unwrap();
    StoredLetter {
        id: RecordId { stream: StreamId(3), offset: Offset(offset) },
        group: "sink".to_owned(),
        cluster_id: Some("cluster".to_owned()),
        topic: "events".to_owned(),
        partition: 1,
        log_epoch: 0,
        timestamp: Some(1_600_000_000_000),
        key: Some(b"key".to_vec()),
        value: Some(format!("value {offset}").into_bytes()),
        headers: vec![Header { name: "own".into(), value: None }],
        aggregate_type: Some("Customer".to_owned()),
        aggregate_id: Some("key".to_owned()),
        aggregate_version: Some(4),
        disposition: "poison".to_owned(),
        reason: "constraint_violation".to_owned(),
        sqlstate: Some("23514".to_owned()),
        constraint: Some("customer_email_check".to_owned()),
        attempts: 2,
        redrives: 0,
        first_failed_at: failed_at,
        failed_at,
    }
}

/// A table in memory.
#[derive(Default)]
struct Table {
    letters: Vec<StoredLetter>,
    published: Mutex<BTreeSet<RecordId>>,
    /// Told after every mark; keeps one that nobody waits for yet.
    marked: Notify,
}

impl Letters for Table {
    async fn claim(
        &self,
        streams: &[OwnedStream],
        _portion: Portion,
    ) -> Result<Vec<StoredLetter>, Fault> {
        let published = self.published.lock().unwrap();
        let open = |letter: &&StoredLetter| {
            !published.contains(&letter.id) && streams.iter().any(|s| s.stream == letter.id.stream)
        };
        Ok(self.letters.iter().filter(open).cloned().collect())
    }

    async fn mark(&self, published: &[RecordId]) -> Result<(), Fault> {
        self.published.lock().unwrap().extend(published);
        self.marked.notify_one();
        Ok(())
    }
}

fn config(brokers: &str) -> Config {
    let toml = format!(
        "[kafka]\nbrokers = \"{brokers}\"\ngroup = \"sink\"\ntopics = [\"events\"]\n\
         [postgres]\nurl = \"postgres://nobody@localhost/unused\"\n"
    );
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pgsluice.toml");
    std::fs::write(&file, toml).unwrap();
    crate::config::load(Some(&file), std::iter::empty(), &crate::config::AnyProperty).unwrap()
}

/// Publishes until the whole table is published.
fn publish(brokers: &str, letters: Vec<StoredLetter>) -> Publishing {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let count = letters.len();
    let table = Arc::new(Table { letters, ..Table::default() });
    let desk = Desk { letters: Some(Arc::clone(&table)), streams: vec![STREAM] };
    let (_keep, desk) = watch::channel(desk);
    let publisher = Publisher::start(&config(brokers), desk, Arc::default()).unwrap().unwrap();
    let status = publisher.status();
    let all = async {
        while table.published.lock().unwrap().len() < count {
            table.marked.notified().await;
        }
    };
    runtime.block_on(async {
        tokio::select! {
            () = publisher.run() => panic!("the publisher ended"),
            done = tokio::time::timeout(PATIENCE, all) => done.expect("all letters published"),
        }
    });
    status.borrow().clone()
}

fn read(brokers: &str, topic: &str, count: usize) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "reader")
        .create()
        .unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    for partition in 0..3 {
        list.add_partition_offset(topic, partition, rdkafka::Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut found = Vec::new();
    while found.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} messages", found.len());
        // A partition the topic does not have is an error here and no matter.
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            found.push(message.detach());
        }
    }
    found
}

fn header(message: &OwnedMessage, name: &str) -> Option<String> {
    let headers = message.headers().unwrap();
    let last = headers.iter().filter(|h| h.key == name).last()?;
    Some(String::from_utf8(last.value?.to_vec()).unwrap())
}

/// Proves INV-6.
#[test]
fn letters_are_published_in_order_to_the_same_partition_as_they_were_read() {
    let broker = MockCluster::new(1).unwrap();
    broker.create_topic("events-dlq", 3, 1).unwrap();
    let brokers = broker.bootstrap_servers();
    let mut letters: Vec<_> = (0..50).map(letter).collect();
    letters[7].value = None;
    letters[8].value = Some(Vec::new());
    let status = publish(&brokers, letters.clone());
    assert_eq!((status.published, status.stuck_since), (50, None));
    let found = read(&brokers, "events-dlq", 50);
    for (message, letter) in found.iter().zip(&letters) {
        assert_eq!(message.partition(), 1);
        assert_eq!(message.key(), letter.key.as_deref());
        assert_eq!(message.payload(), letter.value.as_deref());
        assert_eq!(message.timestamp().to_millis(), letter.timestamp);
        let dedupe = format!("cluster/sink/events/0/1/{}", letter.id.offset.0);
        assert_eq!(header(message, "pgsluice.dedupe").as_deref(), Some(&*dedupe));
        assert_eq!(message.headers().unwrap().get(0).key, "own");
    }
}

#[test]
fn a_letter_that_is_too_large_is_published_as_a_pointer_in_its_place() {
    let broker = MockCluster::new(1).unwrap();
    broker.create_topic("events-dlq", 3, 1).unwrap();
    let brokers = broker.bootstrap_servers();
    let too_large = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    broker.request_errors(RDKafkaApiKey::Produce, &[too_large]);
    let status = publish(&brokers, vec![letter(1)]);
    assert_eq!(status.stuck_since, None);
    let found = read(&brokers, "events-dlq", 1);
    assert_eq!(found[0].payload(), None);
    assert_eq!(header(&found[0], "pgsluice.pointer").as_deref(), Some("dead_letter_t/3/1"));
    assert_eq!(header(&found[0], "pgsluice.reason").as_deref(), Some("constraint_violation"));
}

#[test]
fn a_refused_topic_keeps_letters_in_the_table_until_it_is_allowed() {
    let broker = MockCluster::new(1).unwrap();
    broker.create_topic("events-dlq", 3, 1).unwrap();
    let brokers = broker.bootstrap_servers();
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    broker.request_errors(RDKafkaApiKey::Produce, &[refused]);
    let status = publish(&brokers, vec![letter(1), letter(2)]);
    assert_eq!((status.published, status.stuck_since), (2, None));
    let found = read(&brokers, "events-dlq", 2);
    assert_eq!(found.last().unwrap().payload(), Some(&b"value 2"[..]));
}

#[test]
fn a_topic_with_fewer_partitions_gets_letters_by_their_key() {
    let broker = MockCluster::new(1).unwrap();
    broker.create_topic("events-dlq", 1, 1).unwrap();
    let brokers = broker.bootstrap_servers();
    publish(&brokers, vec![letter(1)]);
    assert_eq!(read(&brokers, "events-dlq", 1)[0].partition(), 0);
}
