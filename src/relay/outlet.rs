//! The producer on its own thread: sends portions of letters and says how far each stream came.
//!
//! Within a stream letters are sent in order and a stream stands still at the first letter that
//! was not delivered. What was delivered behind it is sent again later: at least once, and the
//! last copies are in order.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::header::{Form, headers};
use crate::config::{DeadLetterConfig, KafkaConfig};
use crate::kafka::faults::{ProduceFault, on_produce};
use crate::kafka::log::LogOnly;
use crate::kafka::settings;
use crate::store::letter::publication::StoredLetter;
use pgsluice_core::record::{RecordId, StreamId};

/// How long one question to a broker may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a topic that was just created may take to show up.
const CREATION_PATIENCE: Duration = Duration::from_secs(10);
/// How long a topic's partition count is taken for granted.
const TOPIC_MEMORY: Duration = Duration::from_secs(300);
/// A longer key is left out of a pointer.
const POINTER_KEY_BYTES: usize = 64 * 1024;

/// What became of a portion.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    /// Letters that the topic has, acknowledged by all in-sync replicas.
    pub(super) published: Vec<RecordId>,
    /// Streams that stand still at a letter, and why.
    pub(super) stuck: Vec<Stuck>,
}

/// A stream whose next letter could not be delivered.
#[derive(Debug)]
pub(super) struct Stuck {
    pub(super) stream: StreamId,
    /// The dead letter topic.
    pub(super) topic: String,
    pub(super) error: KafkaError,
}

type Job = (Vec<StoredLetter>, oneshot::Sender<Delivery>);

/// The thread's other end. Dropping it ends the thread once it is done.
#[derive(Debug)]
pub(super) struct Outlet {
    jobs: Sender<Job>,
}

impl Outlet {
    /// Starts the thread.
    pub(super) fn start(
        kafka: &KafkaConfig,
        dead_letter: &DeadLetterConfig,
    ) -> Result<Self, KafkaError> {
        let (jobs, inbox) = unbounded();
        let sender = Producing::connect(kafka, dead_letter)?;
        std::thread::Builder::new()
            .name("publisher".to_owned())
            .spawn(move || sender.serve(&inbox))
            .map_err(|_| {
                KafkaError::ClientCreation("cannot start the publisher's thread".to_owned())
            })?;
        Ok(Self { jobs })
    }

    /// Sends a portion; `None` when the thread has ended.
    pub(super) async fn send(&self, letters: Vec<StoredLetter>) -> Option<Delivery> {
        let (answer, delivery) = oneshot::channel();
        self.jobs.send((letters, answer)).ok()?;
        delivery.await.ok()
    }
}

type LetterProducer = FutureProducer<LogOnly>;

struct Producing {
    kafka: KafkaConfig,
    dead_letter: DeadLetterConfig,
    producer: LetterProducer,
    runtime: Runtime,
    topics: HashMap<String, (i32, Instant)>,
}

impl Producing {
    fn connect(kafka: &KafkaConfig, dead_letter: &DeadLetterConfig) -> Result<Self, KafkaError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|_| {
            KafkaError::ClientCreation("cannot start the publisher's runtime".to_owned())
        })?;
        let producer = producer(&runtime, kafka)?;
        let (kafka, dead_letter) = (kafka.clone(), dead_letter.clone());
        Ok(Self { kafka, dead_letter, producer, runtime, topics: HashMap::new() })
    }

    fn serve(mut self, inbox: &Receiver<Job>) {
        while let Ok((letters, answer)) = inbox.recv() {
            // Whoever asked may be gone; then the letters are read again some day.
            answer.send(self.deliver(&letters)).ok();
        }
    }

    /// Sends a portion, stream by stream.
    fn deliver(&mut self, letters: &[StoredLetter]) -> Delivery {
        let mut delivery = Delivery::default();
        for stream in letters.chunk_by(|a, b| a.id.stream == b.id.stream) {
            if let Err(error) = self.deliver_stream(stream, &mut delivery.published) {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                self.topics.clear();
                if on_produce(code) == ProduceFault::NewClient {
                    self.renew();
                }
                delivery.stuck.extend(stream.first().map(|letter| Stuck {
                    stream: letter.id.stream,
                    topic: self.dead_letter.topic_for(&letter.topic).unwrap_or_default(),
                    error,
                }));
            }
        }
        delivery
    }

    /// Sends the letters of one stream until one cannot be delivered.
    fn deliver_stream(
        &mut self,
        letters: &[StoredLetter],
        published: &mut Vec<RecordId>,
    ) -> Result<(), KafkaError> {
        let Some(first) = letters.first() else { return Ok(()) };
        let Some(topic) = self.dead_letter.topic_for(&first.topic) else { return Ok(()) };
        let count = self.partitions(&topic, &first.topic)?;
        let partition = (first.partition < count).then_some(first.partition);
        let mut rest = letters;
        while !rest.is_empty() {
            let (delivered, failed) = self.send_all(&topic, partition, rest);
            published.extend(rest.iter().take(delivered).map(|letter| letter.id));
            rest = &rest[delivered..];
            let (Some(error), Some(letter)) = (failed, rest.first()) else { continue };
            self.send_otherwise(&topic, partition, letter, error)?;
            published.push(letter.id);
            rest = &rest[1..];
        }
        Ok(())
    }

    /// Sends letters as they are; returns how many were delivered before the first failure.
    fn send_all(
        &self,
        topic: &str,
        partition: Option<i32>,
        letters: &[StoredLetter],
    ) -> (usize, Option<KafkaError>) {
        let mut sent = Vec::with_capacity(letters.len());
        let mut failed = None;
        for letter in letters {
            match self.enqueue(topic, partition, letter, Form::Whole) {
                Ok(delivery) => sent.push(delivery),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let mut delivered = 0;
        let mut first_failure = None;
        // All are awaited: nothing may be in flight when the next attempt begins.
        for delivery in sent {
            match (self.acknowledged(delivery), &first_failure) {
                (Ok(()), None) => delivered += 1,
                (Err(error), None) => first_failure = Some(error),
                (_, Some(_)) => {}
            }
        }
        (delivered, first_failure.or(failed))
    }

    /// Sends a letter that was refused for itself in a form that will be taken.
    fn send_otherwise(
        &self,
        topic: &str,
        partition: Option<i32>,
        letter: &StoredLetter,
        error: KafkaError,
    ) -> Result<(), KafkaError> {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        let form = match on_produce(code) {
            ProduceFault::Record => Form::Pointer,
            ProduceFault::Timestamp => Form::Retimed,
            ProduceFault::Delivered | ProduceFault::NewClient | ProduceFault::Retry => {
                return Err(error);
            }
        };
        let sent = self.enqueue(topic, partition, letter, form);
        match sent.and_then(|delivery| self.acknowledged(delivery)) {
            // The time was not the only thing the broker refuses.
            Err(error) if form == Form::Retimed => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                if on_produce(code) != ProduceFault::Record {
                    return Err(error);
                }
                let sent = self.enqueue(topic, partition, letter, Form::Pointer);
                sent.and_then(|delivery| self.acknowledged(delivery))
            }
            outcome => outcome,
        }
    }

    fn enqueue(
        &self,
        topic: &str,
        partition: Option<i32>,
        letter: &StoredLetter,
        form: Form,
    ) -> Result<DeliveryFuture, KafkaError> {
        let mut record = FutureRecord::<[u8], [u8]>::to(topic).headers(headers(letter, form));
        record.partition = partition;
        record.key = letter.key.as_deref();
        match form {
            Form::Whole => {
                record.payload = letter.value.as_deref();
                record.timestamp = letter.timestamp;
            }
            Form::Retimed => record.payload = letter.value.as_deref(),
            Form::Pointer => {
                record.key = record.key.filter(|key| key.len() <= POINTER_KEY_BYTES);
            }
        }
        self.producer.send_result(record).map_err(|(error, _)| error)
    }

    /// Waits for the answer, which `message.timeout.ms` bounds.
    fn acknowledged(&self, delivery: DeliveryFuture) -> Result<(), KafkaError> {
        match self.runtime.block_on(delivery) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => match error.rdkafka_error_code().map(on_produce) {
                Some(ProduceFault::Delivered) => Ok(()),
                _ => Err(error),
            },
            Err(_) => Err(KafkaError::Canceled),
        }
    }

    /// A new producer in place of one that is spent.
    fn renew(&mut self) {
        if let Ok(producer) = producer(&self.runtime, &self.kafka) {
            self.producer = producer;
        }
    }

    /// Partitions of the dead letter topic, which is created first when it is missing.
    fn partitions(&mut self, topic: &str, source: &str) -> Result<i32, KafkaError> {
        if let Some((count, asked)) = self.topics.get(topic)
            && asked.elapsed() < TOPIC_MEMORY
        {
            return Ok(*count);
        }
        let count = match self.count(topic)? {
            Some(count) => count,
            None if self.dead_letter.create_topic => self.create(topic, source)?,
            None => return Err(missing()),
        };
        self.topics.insert(topic.to_owned(), (count, Instant::now()));
        Ok(count)
    }

    /// Partitions of a topic, `None` when there is no such topic.
    fn count(&self, topic: &str) -> Result<Option<i32>, KafkaError> {
        let metadata = self.producer.client().fetch_metadata(Some(topic), ASK_TIMEOUT)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let Some(found) = found else { return Ok(None) };
        match found.error().map(RDKafkaErrorCode::from) {
            None | Some(RDKafkaErrorCode::LeaderNotAvailable) => {
                let count = i32::try_from(found.partitions().len()).unwrap_or(i32::MAX);
                Ok((count > 0).then_some(count))
            }
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Ok(None)
            }
            Some(code) => Err(KafkaError::MetadataFetch(code)),
        }
    }

    /// Creates the topic with as many partitions as its source has, and waits until it is known.
    fn create(&self, topic: &str, source: &str) -> Result<i32, KafkaError> {
        let count = self.count(source)?.unwrap_or(1);
        let replication = TopicReplication::Fixed(self.dead_letter.replication_factor);
        let wanted = NewTopic::new(topic, count, replication);
        let options = AdminOptions::new()
            .operation_timeout(Some(ASK_TIMEOUT))
            .request_timeout(Some(CREATION_PATIENCE));
        let admin: AdminClient<LogOnly> =
            settings::admin(&self.kafka).create_with_context(LogOnly)?;
        let results = self.runtime.block_on(admin.create_topics([&wanted], &options))?;
        for result in results {
            match result {
                Ok(_) => tracing::info!(
                    event = "topic_created",
                    topic,
                    partitions = count,
                    "dead letter topic created"
                ),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(KafkaError::AdminOp(code)),
            }
        }
        let deadline = Instant::now() + CREATION_PATIENCE;
        while Instant::now() < deadline {
            if let Some(count) = self.count(topic)? {
                return Ok(count);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(missing())
    }
}

fn missing() -> KafkaError {
    KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopic)
}

fn producer(runtime: &Runtime, kafka: &KafkaConfig) -> Result<LetterProducer, KafkaError> {
    let _inside = runtime.enter();
    settings::producer(kafka).create_with_context(LogOnly)
}
