//! A broker with one topic, and a running consumer thread that is listened to.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::OwnedHeaders;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use tokio::sync::mpsc::{UnboundedReceiver, error::TryRecvError, unbounded_channel};

use super::super::*;
use pgsluice_core::decode::{Decode, Decoded};
use pgsluice_core::event::{Content, Envelope, Event};
use pgsluice_core::record::{Anchor, Generation, NextOffset, Record, TopicPartition};
use pgsluice_core::verdict::Reason;

pub(super) const PATIENCE: Duration = Duration::from_secs(30);

struct AsSkip;

/// An event of which nothing matters but its record.
pub(super) fn skipped(record: Record) -> Event {
    let content = Content::Skip(Reason::SkipRoute);
    Event { record, envelope: Envelope::default(), content }
}

impl Decode for AsSkip {
    fn decode(&self, record: Record) -> Decoded {
        Decoded::Ready(skipped(record))
    }
}

/// A broker with one topic of two partitions; records go to the first.
pub(super) struct Broker {
    pub(super) address: String,
    pub(super) topic: String,
    /// Timestamp of all records. Not long ago, or the broker's retention takes them away.
    pub(super) now: i64,
    pub(super) mock: Option<MockCluster<'static, DefaultProducerContext>>,
}

impl Broker {
    pub(super) fn start(name: &str) -> Self {
        let topic = format!("{name}-{}", std::process::id());
        let now = jiff::Timestamp::now().as_millisecond();
        if let Some(address) = std::env::var("PGSLUICE_TEST_KAFKA").ok().filter(|a| !a.is_empty()) {
            let broker = Self { address, topic, now, mock: None };
            broker.create();
            return broker;
        }
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic(&topic, 2, 1).unwrap();
        Self { address: mock.bootstrap_servers(), topic, now, mock: Some(mock) }
    }

    /// Creates the topic on a real broker.
    fn create(&self) {
        let client = ClientConfig::new().set("bootstrap.servers", &self.address).clone();
        let admin: AdminClient<DefaultClientContext> = client.create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let topic = NewTopic::new(&self.topic, 2, TopicReplication::Fixed(1));
        runtime.block_on(admin.create_topics([&topic], &options)).unwrap();
    }

    pub(super) fn producer(&self) -> BaseProducer {
        ClientConfig::new().set("bootstrap.servers", &self.address).create().unwrap()
    }

    pub(super) fn produce(&self, values: impl IntoIterator<Item = String>) {
        self.produce_with(&self.producer(), values);
    }

    /// Produces with a producer that is connected already.
    pub(super) fn produce_with(
        &self,
        producer: &BaseProducer,
        values: impl IntoIterator<Item = String>,
    ) {
        self.produce_to(producer, 0, values);
    }

    /// Produces to a partition.
    pub(super) fn produce_to(
        &self,
        producer: &BaseProducer,
        partition: i32,
        values: impl IntoIterator<Item = String>,
    ) {
        for value in values {
            let headers =
                OwnedHeaders::new().insert(rdkafka::message::Header { key: "h", value: Some("1") });
            let record = BaseRecord::to(&self.topic)
                .partition(partition)
                .key("k")
                .payload(&value)
                .timestamp(self.now)
                .headers(headers);
            producer.send(record).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    }

    pub(super) fn produce_numbers(&self, count: usize) {
        self.produce((0..count).map(|n| n.to_string()));
    }

    pub(super) fn partition(&self, partition: i32) -> TopicPartition {
        TopicPartition { topic: self.topic.as_str().into(), partition }
    }

    pub(super) fn committed(&self, partition: i32) -> (i64, String) {
        let client: rdkafka::consumer::BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.address)
            .set("group.id", &self.topic)
            .create()
            .unwrap();
        let mut list = rdkafka::TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        let list = client.committed_offsets(list, PATIENCE).unwrap();
        let entry = list.find_partition(&self.topic, partition).unwrap();
        (entry.offset().to_raw().unwrap(), entry.metadata().to_owned())
    }

    pub(super) fn config(&self) -> Config {
        let toml = format!(
            "[kafka]\nbrokers = \"{}\"\ngroup = \"{}\"\ntopics = [\"{}\"]\n\
             [kafka.properties]\n\"session.timeout.ms\" = \"6000\"\n\
             [postgres]\nurl = \"postgres://nobody@localhost/unused\"\n",
            self.address, self.topic, self.topic
        );
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pgsluice.toml");
        std::fs::write(&file, toml).unwrap();
        crate::config::load(Some(&file), std::iter::empty(), &crate::config::AnyProperty).unwrap()
    }
}

/// A running consumer and what it said.
pub(super) struct Running {
    pub(super) consumer: Consumer,
    pub(super) heard: UnboundedReceiver<PollEvent>,
    pub(super) budget: Arc<Budget>,
    pub(super) events: Vec<Event>,
    pub(super) assigned: Vec<TopicPartition>,
}

impl Running {
    pub(super) fn start(broker: &Broker, budget: usize) -> Self {
        let (events, heard) = unbounded_channel();
        let budget = Arc::new(Budget::new(budget));
        let consumer = Consumer::start(&broker.config(), events, Arc::clone(&budget)).unwrap();
        consumer.send(Command::Decode(Arc::new(AsSkip)));
        Self { consumer, heard, budget, events: Vec::new(), assigned: Vec::new() }
    }

    /// Starts and waits for the partition.
    pub(super) fn assigned(broker: &Broker, budget: usize) -> Self {
        let mut running = Self::start(broker, budget);
        running.until("an assignment", |event| matches!(event, PollEvent::Assigned(_)));
        running
    }

    pub(super) fn seek(&self, broker: &Broker, generation: u64, next: i64, anchor: Option<Anchor>) {
        self.seek_partition(broker.partition(0), generation, next, anchor);
    }

    pub(super) fn seek_partition(
        &self,
        partition: TopicPartition,
        generation: u64,
        next: i64,
        anchor: Option<Anchor>,
    ) {
        self.consumer.send(Command::Seek {
            partition,
            generation: Generation(generation),
            next: NextOffset(next),
            anchor,
        });
    }

    pub(super) fn hear(&mut self) -> Option<PollEvent> {
        match self.heard.try_recv() {
            Ok(PollEvent::Polled(events, read)) => {
                self.events.extend(events);
                Some(PollEvent::Polled(Vec::new(), read))
            }
            Ok(PollEvent::Assigned(partitions)) => {
                self.assigned.extend(partitions.clone());
                Some(PollEvent::Assigned(partitions))
            }
            Ok(event) => Some(event),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                std::thread::sleep(Duration::from_millis(5));
                None
            }
        }
    }

    #[track_caller]
    pub(super) fn until(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&PollEvent) -> bool,
    ) -> PollEvent {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "no {what} within {PATIENCE:?}");
            if let Some(event) = self.hear()
                && wanted(&event)
            {
                return event;
            }
        }
    }

    #[track_caller]
    pub(super) fn until_events(&mut self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.events.len() < count {
            assert!(Instant::now() < deadline, "{} of {count} events", self.events.len());
            self.hear();
        }
    }

    /// Waits until the thread has looked at every command that was sent: the first heartbeat may come
    /// from the turn before.
    pub(super) fn obeyed(&mut self) {
        for _ in 0..2 {
            self.until("a heartbeat", |event| matches!(event, PollEvent::Heartbeat));
        }
    }

    pub(super) fn listen(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.hear();
        }
    }

    pub(super) fn offsets(&self) -> Vec<i64> {
        self.events.iter().map(|event| event.offset().0).collect()
    }

    pub(super) fn close(mut self) {
        self.consumer.send(Command::Close);
        self.until("end", |event| matches!(event, PollEvent::Closed));
        assert!(self.consumer.join());
    }
}
