//! The thread against a broker: librdkafka's mock cluster, or with `PGSLUICE_TEST_KAFKA` a real
//! one.

mod faults;
mod missing;

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::*;
use crate::config::{KafkaConfig, StartFrom};
use crate::kafka::mirror::Mirror;
use crate::kafka::positions::Positions;
use crate::telemetry::Telemetry;
use pgsluice_core::event::Event;
use pgsluice_core::fault::PollFault;
use pgsluice_core::input::MirrorPosition;
use pgsluice_core::position::{Committed, KafkaPosition};
use pgsluice_core::record::{
    Anchor, Generation, NextOffset, Offset, OwnerEpoch, StreamId, TopicPartition,
};

mod fixture;

use fixture::{Broker, PATIENCE, Running};

fn position(partition: TopicPartition, next: i64) -> MirrorPosition {
    let (stream, epoch) = (StreamId(1), OwnerEpoch(2));
    MirrorPosition { partition, stream, epoch, next: NextOffset(next) }
}

fn anchor_of(event: &Event) -> Anchor {
    Anchor { offset: event.offset(), timestamp: event.record.timestamp, crc: event.record.crc() }
}

/// Where librdkafka stands by what was polled. Its list of positions keeps a consumer from closing.
fn polled_position(consumer: &Consumer, partition: i32) -> rdkafka::Offset {
    let positions = consumer.member().upgrade().unwrap().position().unwrap();
    positions.elements().iter().find(|p| p.partition() == partition).unwrap().offset()
}

#[test]
fn records_are_read_from_the_wanted_position_and_carry_the_generation() {
    let broker = Broker::start("poll-seek");
    broker.produce_numbers(10);
    let mut running = Running::assigned(&broker, 1 << 20);
    // Nothing flows before a seek, and nothing is fetched only to be dropped.
    running.listen(Duration::from_millis(300));
    assert_eq!(running.offsets(), Vec::<i64>::new());
    let polled = polled_position(&running.consumer, 0);
    assert_eq!(polled, rdkafka::Offset::Invalid);

    running.seek(&broker, 3, 4, None);
    running.until_events(6);
    assert_eq!(running.offsets(), (4..10).collect::<Vec<_>>());
    assert!(running.events.iter().all(|event| event.record.generation == Generation(3)));
    let record = &running.events[0].record;
    assert_eq!(record.key(), Some(&b"k"[..]));
    assert_eq!(record.value(), Some(&b"4"[..]));
    assert_eq!(record.timestamp, Some(broker.now));
    assert_eq!(record.header("h").flatten(), Some(&b"1"[..]));

    // Reading again from an earlier position, with the anchor before it.
    let anchor = anchor_of(&running.events[2]);
    running.events.clear();
    running.seek(&broker, 4, 7, Some(anchor));
    running.until_events(3);
    assert_eq!(running.offsets(), [7, 8, 9]);
    assert!(running.events.iter().all(|event| event.record.generation == Generation(4)));
    running.close();
}

#[test]
fn another_record_at_the_anchors_place_means_another_log() {
    let broker = Broker::start("poll-anchor");
    broker.produce_numbers(5);
    let mut running = Running::assigned(&broker, 1 << 20);
    let anchor = Anchor { offset: Offset(2), timestamp: Some(1), crc: 0 };
    running.seek(&broker, 1, 3, Some(anchor));
    running.until("changed log", |event| {
        matches!(event, PollEvent::LogChanged { generation: Generation(1), .. })
    });
    // An accepted log is read from the start.
    running.seek(&broker, 2, 0, None);
    running.until_events(5);
    assert_eq!(running.offsets(), [0, 1, 2, 3, 4]);
    running.close();
}

#[test]
fn a_position_beyond_the_log_is_a_changed_log_and_can_be_left_again() {
    let broker = Broker::start("poll-range");
    broker.produce_numbers(5);
    let mut running = Running::assigned(&broker, 1 << 20);
    running.seek(&broker, 1, 500, None);
    running.until("changed log", |event| matches!(event, PollEvent::LogChanged { .. }));
    running.seek(&broker, 2, 3, None);
    running.until_events(2);
    assert_eq!(running.offsets(), [3, 4]);
    running.close();
}

#[test]
fn a_paused_partition_goes_on_where_it_stopped() {
    let broker = Broker::start("poll-pause");
    broker.produce_numbers(3);
    let mut running = Running::assigned(&broker, 1 << 20);
    running.seek(&broker, 1, 0, None);
    running.until_events(3);
    running.consumer.send(Command::Pause(broker.partition(0)));
    running.obeyed();
    broker.produce_numbers(3);
    running.listen(Duration::from_millis(500));
    assert_eq!(running.offsets(), [0, 1, 2]);
    running.consumer.send(Command::Resume(broker.partition(0)));
    running.until_events(6);
    assert_eq!(running.offsets(), [0, 1, 2, 3, 4, 5]);
    running.close();
}

/// Proves INV-11.
#[test]
fn a_full_budget_stops_reading_until_half_of_it_is_free_and_nothing_is_lost() {
    let broker = Broker::start("poll-budget");
    let count = 2000;
    broker.produce_numbers(count);
    let limit = 40 * 600;
    let mut running = Running::assigned(&broker, limit);
    running.seek(&broker, 1, 0, None);
    // Past the standstill, into the pause.
    running.listen(Duration::from_millis(2500));
    let read = running.events.len();
    assert!(running.budget.is_full() && read < 100, "{read} events");
    // Then everything is given back at once, again and again.
    let deadline = Instant::now() + PATIENCE;
    while running.events.len() < count {
        assert!(Instant::now() < deadline, "{} of {count}", running.events.len());
        running.budget.free(running.budget.in_flight());
        running.hear();
    }
    assert_eq!(running.offsets(), (0..count as i64).collect::<Vec<_>>());
    running.close();
}

#[test]
fn a_revocation_waits_for_its_answer_and_commits_it_with_the_tag() {
    // A broker that is in the middle of another rebalance refuses the commit. That is allowed, it
    // costs nothing but reading again, and it is not always so.
    let committed = ["revoke", "revoke-again", "revoke-once-more"].into_iter().any(|name| {
        let committed = committed_on_revocation(name);
        assert!(matches!(committed.0, 7 | -1001), "{committed:?}");
        committed == (7, "pgsluice/1/1/2".to_owned())
    });
    assert!(committed, "refused three times");
}

/// What Kafka holds for a partition after it went from one member to another.
fn committed_on_revocation(name: &str) -> (i64, String) {
    let broker = Broker::start(name);
    broker.produce_numbers(10);
    let mut first = Running::assigned(&broker, 1 << 20);
    for partition in [0, 1] {
        first.seek_partition(broker.partition(partition), 1, 0, None);
    }
    first.until_events(10);
    let mut second = Running::start(&broker, 1 << 20);
    let revoked = first.until("a revocation", |event| matches!(event, PollEvent::Revoked { .. }));
    let PollEvent::Revoked { partitions, ticket, lost } = revoked else { unreachable!() };
    assert!(!lost);
    assert_eq!(partitions.len(), 1);
    // Nobody else has it before the answer.
    second.listen(Duration::from_secs(1));
    assert_eq!(second.assigned, []);
    first
        .consumer
        .send(Command::Released { ticket, commits: vec![position(partitions[0].clone(), 7)] });
    while second.assigned.is_empty() {
        first.listen(Duration::from_millis(20));
        second.until("an assignment", |event| matches!(event, PollEvent::Assigned(_)));
    }
    assert_eq!(second.assigned, partitions);
    let committed = broker.committed(partitions[0].partition);
    first.close();
    second.close();
    committed
}

#[test]
fn the_mirror_commits_the_newest_position_with_the_tag() {
    let broker = Broker::start("poll-mirror");
    broker.produce_numbers(3);
    let running = Running::assigned(&broker, 1 << 20);
    let mirror = Mirror::start(&running.consumer, Telemetry::try_new("t").unwrap()).unwrap();
    mirror.commit(vec![position(broker.partition(0), 2)]);
    mirror.commit(vec![position(broker.partition(0), 3)]);
    assert!(mirror.flush(PATIENCE));
    assert_eq!(broker.committed(0), (3, "pgsluice/1/1/2".to_owned()));
    running.close();
}

#[test]
fn what_kafka_knows_of_a_partition_is_read_without_joining_the_group() {
    let broker = Broker::start("poll-positions");
    broker.produce_numbers(5);
    let config = broker.config().kafka;
    let ask = |start_from| {
        let config = KafkaConfig { start_from, ..config.clone() };
        let positions = Positions::connect(&config).unwrap();
        assert!(positions.cluster_id(PATIENCE).is_some());
        assert_eq!(positions.partition_count(&broker.topic, PATIENCE), Some(2));
        positions.fetch(&[broker.partition(0)], PATIENCE).unwrap().remove(&broker.partition(0))
    };
    let known = |committed, start| Some(KafkaPosition { committed, low: 0, high: 5, start });
    assert_eq!(ask(StartFrom::Earliest), known(None, Some(0)));
    assert_eq!(ask(StartFrom::Latest), known(None, Some(5)));
    assert_eq!(ask(StartFrom::Error), known(None, None));
    if broker.mock.is_none() {
        // The mock cluster knows no times. All records are older than this one.
        let later = jiff::Timestamp::from_millisecond(broker.now + 1).unwrap();
        assert_eq!(ask(StartFrom::At(later)), known(None, Some(5)));
        let earlier = jiff::Timestamp::from_millisecond(broker.now).unwrap();
        assert_eq!(ask(StartFrom::At(earlier)), known(None, Some(0)));
    }

    let running = Running::assigned(&broker, 1 << 20);
    let mirror = Mirror::start(&running.consumer, Telemetry::try_new("t").unwrap()).unwrap();
    mirror.commit(vec![position(broker.partition(0), 3)]);
    assert!(mirror.flush(PATIENCE));
    let ours = Committed { next: 3, metadata: "pgsluice/1/1/2".to_owned() };
    assert_eq!(ask(StartFrom::Earliest), known(Some(ours), Some(0)));
    running.close();
}

#[test]
fn a_transaction_marker_moves_the_position_beyond_the_last_record() {
    let broker = Broker::start("poll-marker");
    if broker.mock.is_some() {
        // The mock cluster writes no markers.
        return;
    }
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &broker.address)
        .set("transactional.id", &broker.topic)
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    for commit in [true, false] {
        producer.begin_transaction().unwrap();
        let record = BaseRecord::to(&broker.topic).partition(0).key("k").payload("v");
        producer.send(record).unwrap();
        producer.flush(PATIENCE).unwrap();
        if commit {
            producer.commit_transaction(PATIENCE).unwrap();
        } else {
            producer.abort_transaction(PATIENCE).unwrap();
        }
    }
    let mut running = Running::assigned(&broker, 1 << 20);
    running.seek(&broker, 1, 0, None);
    let behind_all = NextOffset(4);
    running.until(
        "a position",
        |event| matches!(event, PollEvent::Positioned { next, .. } if *next == behind_all),
    );
    assert_eq!(running.offsets(), [0]);
    running.close();
}

#[test]
fn a_dead_broker_is_reported_once_and_its_return_as_well() {
    let broker = Broker::start("poll-outage");
    let Some(mock) = &broker.mock else { return };
    broker.produce_numbers(1);
    let mut running = Running::assigned(&broker, 1 << 20);
    running.seek(&broker, 1, 0, None);
    running.until_events(1);
    mock.broker_down(-1).unwrap();
    running.until("outage", |event| matches!(event, PollEvent::Unreachable));
    mock.broker_up(-1).unwrap();
    running.until("return", |event| {
        assert!(!matches!(event, PollEvent::Unreachable), "reported twice");
        matches!(event, PollEvent::Reachable)
    });
    running.close();
}

#[test]
fn an_unreadable_batch_is_reported_and_fetched_again_without_a_gap() {
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    let broker = Broker::start("poll-corrupt");
    let Some(mock) = &broker.mock else { return };
    broker.produce_numbers(5);
    let mut running = Running::assigned(&broker, 1 << 20);
    let unreadable = RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_MSG;
    mock.request_errors(RDKafkaApiKey::Fetch, &[unreadable; 3]);
    running.seek(&broker, 1, 0, None);
    running.until("trouble", |event| {
        matches!(event, PollEvent::Trouble { fault: PollFault::Corrupt, .. })
    });
    running.until_events(5);
    assert_eq!(running.offsets(), [0, 1, 2, 3, 4]);
    running.close();
}

#[test]
fn a_fatal_error_ends_the_thread_without_closing_the_consumer() {
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    let broker = Broker::start("poll-fenced");
    let Some(mock) = &broker.mock else { return };
    let mut running = Running::assigned(&broker, 1 << 20);
    let fenced = RDKafkaRespErr::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID;
    mock.request_errors(RDKafkaApiKey::Heartbeat, &[fenced]);
    running.until("fencing", |event| matches!(event, PollEvent::Fenced(_)));
    assert!(running.consumer.join());
}
