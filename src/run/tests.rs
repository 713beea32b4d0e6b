//! The run loop on a source of the tests: what the coordinator asks for reaches it, and what happens
//! there reaches the coordinator. No Kafka, no database.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::fetching::{Fetch, Fetched};
use super::*;
use pgsluice_core::event::{Content, Envelope, Event};
use pgsluice_core::fault::PollFault;
use pgsluice_core::input::{Claim, MirrorPosition, RevokeTicket, TakeReply};
use pgsluice_core::position::{KafkaPosition, LogEnd};
use pgsluice_core::record::{
    Generation, NextOffset, Offset, OwnerEpoch, Raw, Record, StreamId, TimestampType,
};
use pgsluice_core::verdict::Reason;

const SESSION: SessionId = SessionId(1);
const TICKET: RevokeTicket = RevokeTicket(7);
const OWNED: OwnedStream = OwnedStream { stream: StreamId(3), epoch: OwnerEpoch(4) };

/// Remembers what it is told, in words. Told to close, it is asked for a partition once more.
#[derive(Debug)]
struct Double {
    told: Mutex<Vec<String>>,
    events: UnboundedSender<PollEvent>,
}

impl Double {
    fn tell(&self, words: String) {
        self.told.lock().unwrap().push(words);
    }
}

fn places(positions: &[MirrorPosition]) -> String {
    let place = |position: &MirrorPosition| format!("{} {}", position.partition, position.next.0);
    positions.iter().map(place).collect::<Vec<_>>().join(", ")
}

impl Source for Double {
    fn send(&self, command: Command) {
        self.tell(match &command {
            Command::Seek { partition, next, .. } => format!("seek {partition} {}", next.0),
            Command::Pause(partition) => format!("pause {partition}"),
            Command::Resume(partition) => format!("resume {partition}"),
            Command::Released { ticket, commits } => {
                format!("released {} [{}]", ticket.0, places(commits))
            }
            Command::Decode(_) => "decode".to_owned(),
            Command::Learned(missing) => format!("learned {missing}"),
            Command::StopPolling => "stop polling".to_owned(),
            Command::Close => "close".to_owned(),
        });
        if let Command::Close = command {
            let partitions = vec![partition()];
            self.events.send(PollEvent::Revoked { partitions, ticket: TICKET, lost: false }).ok();
            self.events.send(PollEvent::Closed).ok();
        }
    }

    fn free(&self, weight: usize) {
        self.tell(format!("free {weight}"));
    }

    fn in_flight(&self) -> usize {
        0
    }

    fn mirror(&self, positions: Vec<MirrorPosition>) {
        self.tell(format!("mirror {}", places(&positions)));
    }

    fn forget(&self, partition: TopicPartition) {
        self.tell(format!("forget {partition}"));
    }

    fn flush(&self, _timeout: Duration) -> bool {
        self.tell("flush".to_owned());
        true
    }

    fn positions(
        &self,
        _partitions: &[TopicPartition],
        _timeout: Duration,
    ) -> HashMap<TopicPartition, KafkaPosition> {
        HashMap::new()
    }

    fn cluster_id(&self, _timeout: Duration) -> Option<String> {
        None
    }

    fn ends(&self, _partitions: &[TopicPartition]) -> HashMap<TopicPartition, LogEnd> {
        HashMap::new()
    }
}

fn partition() -> TopicPartition {
    TopicPartition { topic: "t".into(), partition: 0 }
}

/// A record that a route skips, without a notification: it is finished as soon as it is read.
fn skipped(offset: i64) -> Event {
    let record = Record {
        partition: partition(),
        offset: Offset(offset),
        generation: Generation(1),
        timestamp: None,
        timestamp_type: TimestampType::NotAvailable,
        raw: Raw::default(),
    };
    let content = Content::Skip(Reason::SkipRoute);
    Event { record, envelope: Envelope::default(), content }
}

/// A loop that has not turned, and its source.
fn pipeline() -> (Pipeline, Arc<Double>) {
    let given = [
        ("PGSLUICE__KAFKA__BROKERS", "localhost:1"),
        ("PGSLUICE__KAFKA__GROUP", "g"),
        ("PGSLUICE__KAFKA__TOPICS", "t"),
        ("PGSLUICE__POSTGRES__URL", "postgres://nobody@localhost:1/unused"),
        ("PGSLUICE__NOTIFICATION__WRITE", "none"),
    ];
    let variables = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config =
        crate::config::load(None, variables.into_iter(), &crate::config::AnyProperty).unwrap();
    let (sender, events) = unbounded_channel();
    let source = Arc::new(Double { told: Mutex::default(), events: sender });
    let telemetry = Telemetry::try_new("g").unwrap();
    let port: Arc<dyn Source> = Arc::clone(&source) as _;
    (Pipeline::on(port, events, Arc::new(config), telemetry), source)
}

/// What was told since the last time.
fn told(source: &Double) -> Vec<String> {
    std::mem::take(&mut source.told.lock().unwrap())
}

/// A loop whose coordinator has a session and was given the partition; the take is not answered.
fn assigned() -> (Pipeline, Arc<Double>) {
    let (mut pipeline, source) = pipeline();
    pipeline.feed(Input::SessionOpened(SESSION));
    pipeline.on_poll_event(PollEvent::Assigned(vec![partition()]));
    assert_eq!(told(&source), [""; 0], "nothing is read before the database names a position");
    (pipeline, source)
}

/// The answer to the take.
fn take(pipeline: &mut Pipeline, reply: TakeReply) {
    pipeline.feed(Input::Taken(SESSION, vec![(partition(), Generation(1), reply)]));
}

/// A loop that reads the partition from offset 5 on.
fn reading() -> (Pipeline, Arc<Double>) {
    let (mut pipeline, source) = assigned();
    let OwnedStream { stream, epoch } = OWNED;
    let claim = Claim { stream, epoch, next: NextOffset(5), anchor: None };
    take(&mut pipeline, TakeReply::Claimed(claim));
    assert_eq!(told(&source), ["seek t/0 5", "mirror t/0 5"]);
    assert_eq!(pipeline.desk.borrow().streams, [OWNED]);
    (pipeline, source)
}

#[tokio::test]
async fn what_is_read_is_given_back_mirrored_once_it_is_durable_and_let_go_on_revocation() {
    let (mut pipeline, source) = reading();
    let event = skipped(5);
    let weight = event.weight();
    pipeline.on_poll_event(PollEvent::Polled(vec![event], std::time::Instant::now()));
    assert_eq!(told(&source), [format!("free {weight}")]);

    pipeline.feed(Input::Advanced(SESSION, vec![OWNED.stream]));
    assert_eq!(told(&source), ["mirror t/0 6"]);

    let partitions = vec![partition()];
    pipeline.on_poll_event(PollEvent::Revoked { partitions, ticket: TICKET, lost: false });
    assert_eq!(told(&source), ["forget t/0", "released 7 [t/0 6]"]);
    assert_eq!(pipeline.desk.borrow().streams, []);
}

#[tokio::test]
async fn a_partition_with_a_newer_owner_is_neither_mirrored_nor_published_any_more() {
    let (mut pipeline, source) = reading();
    pipeline.on_poll_event(PollEvent::Polled(vec![skipped(5)], std::time::Instant::now()));
    told(&source);
    pipeline.feed(Input::Advanced(SESSION, Vec::new()));
    assert_eq!(told(&source), ["pause t/0", "forget t/0"]);
    assert_eq!(pipeline.desk.borrow().streams, []);
}

#[tokio::test]
async fn a_log_that_changed_pauses_the_partition_which_is_still_ours() {
    let (mut pipeline, source) = reading();
    let (partition, generation) = (partition(), Generation(1));
    pipeline.on_poll_event(PollEvent::LogChanged { partition, generation });
    assert_eq!(told(&source), ["pause t/0"]);
    assert_eq!(pipeline.desk.borrow().streams, [OWNED]);
    assert!(!pipeline.plan_doubted);
}

/// Fetches at once.
struct AtOnce;

impl Fetch for AtOnce {
    fn fetch(&self, _: Missing) -> Option<Fetched> {
        Some(Box::pin(std::future::ready(())))
    }
}

/// A partition is held for a schema.
fn missing(number: i32) -> PollEvent {
    let partition = TopicPartition { partition: number, ..partition() };
    let missing = Missing { kind: "schema", id: 7 };
    PollEvent::Missing { partition, generation: Generation(1), missing }
}

#[tokio::test]
async fn what_decoding_misses_is_fetched_once_for_all_who_wait_and_they_are_told() {
    let (mut pipeline, source) = pipeline();
    pipeline.fetching = Fetching::new(AtOnce);
    for _ in 0..2 {
        pipeline.on_poll_event(missing(0));
        pipeline.on_poll_event(missing(1));
        pipeline.burst();
        assert_eq!(told(&source), ["learned schema 7"]);
    }
    assert_eq!(pipeline.exit, None);
}

#[tokio::test]
async fn a_decoder_that_misses_what_nobody_fetches_ends_the_process_as_a_bug() {
    let (mut pipeline, source) = pipeline();
    pipeline.on_poll_event(missing(0));
    assert_eq!(pipeline.exit, Some(ExitReason::Bug));
    assert_eq!(told(&source), [""; 0]);
}

#[tokio::test]
async fn a_halt_for_what_a_table_lacks_lets_every_take_look_at_the_catalog() {
    for reason in [Reason::SchemaMismatch, Reason::PermissionDenied] {
        let (mut pipeline, _) = assigned();
        assert!(!pipeline.plan_doubted);
        take(&mut pipeline, TakeReply::Halted(reason, None));
        assert!(pipeline.plan_doubted, "{reason:?}");
    }
}

#[tokio::test]
async fn the_publisher_is_told_of_letters() {
    let (mut pipeline, _) = pipeline();
    assert!(pipeline.letters_written.notified().now_or_never().is_none());
    pipeline.perform(Action::PublishLetters);
    assert!(pipeline.letters_written.notified().now_or_never().is_some());
}

#[tokio::test]
async fn a_refusal_ends_a_process_only_before_it_was_a_member() {
    let trouble = || PollEvent::Trouble {
        code: "ClusterAuthorizationFailed".into(),
        fault: PollFault::Exit,
        ends_a_start: true,
    };
    let (mut pipeline, _source) = pipeline();
    pipeline.on_poll_event(trouble());
    assert_eq!(pipeline.exit, Some(ExitReason::Configuration));

    let (mut pipeline, _source) = assigned();
    pipeline.on_poll_event(trouble());
    assert_eq!(pipeline.exit, None);
}

#[tokio::test]
async fn a_drain_stops_reading_and_the_farewell_flushes_closes_and_answers_the_group() {
    let (mut pipeline, source) = pipeline();
    let drain = CancellationToken::new();
    drain.cancel();
    let reason = pipeline.turn(&drain).await;
    assert_eq!(reason, ExitReason::Clean);
    assert_eq!(told(&source), ["stop polling"]);
    assert_eq!(pipeline.leave(reason).await, ExitReason::Clean);
    assert_eq!(told(&source), ["flush", "close", "released 7 []"]);
}

#[tokio::test]
async fn a_fenced_member_ends_without_a_farewell() {
    let (mut pipeline, source) = pipeline();
    source.events.send(PollEvent::Fenced("FencedInstanceId".into())).unwrap();
    let reason = pipeline.turn(&CancellationToken::new()).await;
    assert_eq!(reason, ExitReason::Fenced);
    assert_eq!(pipeline.leave(reason).await, ExitReason::Fenced);
    assert_eq!(told(&source), [""; 0]);
}

#[tokio::test]
async fn a_source_that_ends_by_itself_ends_the_process_as_a_bug() {
    let (mut pipeline, source) = pipeline();
    source.events.send(PollEvent::Closed).unwrap();
    assert_eq!(pipeline.turn(&CancellationToken::new()).await, ExitReason::Bug);
}
