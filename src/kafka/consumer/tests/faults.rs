//! Codes that nothing but the mock cluster can produce, and the decisions of `kafka::faults` acted
//! upon.

use std::time::Instant;

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use tokio::sync::mpsc::error::TryRecvError;

use super::*;
use crate::kafka::faults::name;
use pgsluice_core::decode::{Decode, Decoded};
use pgsluice_core::fault::PollFault;
use pgsluice_core::record::Record;
use rdkafka::error::RDKafkaErrorCode;

/// A mock broker, also where a real one is at hand.
pub(super) fn mocked(name: &str) -> Broker {
    let topic = format!("{name}-{}", std::process::id());
    let now = jiff::Timestamp::now().as_millisecond();
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic(&topic, 2, 1).unwrap();
    Broker { address: mock.bootstrap_servers(), topic, now, mock: Some(mock) }
}

impl Broker {
    /// The next answers to such a request.
    fn answers(&self, request: RDKafkaApiKey, errors: &[RDKafkaRespErr]) {
        self.mock.as_ref().unwrap().request_errors(request, errors);
    }
}

/// Reads ten records through a broker that first answers fetches with that error; returns what was
/// heard beside the records.
fn read_through(name: &str, error: RDKafkaRespErr) -> Vec<PollEvent> {
    let broker = mocked(name);
    broker.produce_numbers(10);
    let mut running = Running::assigned(&broker, 1 << 20);
    broker.answers(RDKafkaApiKey::Fetch, &[error; 2]);
    running.seek(&broker, 1, 0, None);
    let deadline = Instant::now() + PATIENCE;
    let mut heard = Vec::new();
    while running.events.len() < 10 {
        assert!(Instant::now() < deadline, "{} of 10 events", running.events.len());
        heard.extend(running.hear());
    }
    running.listen(Duration::from_millis(200));
    assert_eq!(running.offsets(), (0..10).collect::<Vec<_>>(), "{error:?}");
    running.close();
    heard.retain(|event| !matches!(event, PollEvent::Polled(..) | PollEvent::Heartbeat));
    heard
}

#[test]
fn fetches_that_mend_themselves_lose_and_repeat_nothing_and_tell_nothing() {
    for error in [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN,
    ] {
        let heard = read_through("mock-mends", error);
        let positions = |event: &PollEvent| matches!(event, PollEvent::Positioned { .. });
        assert!(heard.iter().all(positions), "{error:?}: {heard:?}");
    }
}

#[test]
fn records_that_come_while_a_slow_broker_still_answers_the_assignment_are_not_skipped() {
    let broker = mocked("mock-slow");
    let producer = broker.producer();
    broker.produce_with(&producer, (0..10).map(|n| n.to_string()));
    let mock = broker.mock.as_ref().unwrap();
    mock.broker_round_trip_time(1, Duration::from_millis(100)).unwrap();
    // Read as soon as it is assigned: whatever librdkafka asks because of that is answered later.
    let mut running = Running::assigned(&broker, 1 << 20);
    running.seek(&broker, 1, 0, None);
    running.until_events(10);
    for more in 11..=20 {
        broker.produce_with(&producer, [more.to_string()]);
    }
    running.until_events(20);
    assert_eq!(running.offsets(), (0..20).collect::<Vec<_>>());
    running.close();
}

#[test]
fn an_offset_that_a_broker_denies_for_a_moment_is_no_changed_log() {
    let heard = read_through("mock-range", RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE);
    let changed = |event: &PollEvent| matches!(event, PollEvent::LogChanged { .. });
    assert!(!heard.iter().any(changed), "{heard:?}");
}

#[test]
fn a_refused_fetch_names_the_topic_until_a_record_of_it_comes() {
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    let heard = read_through("mock-refused", refused);
    let told: Vec<Vec<_>> = heard
        .into_iter()
        .filter_map(|event| match event {
            PollEvent::Refused(topics) => Some(topics.into_iter().map(|(_, code)| code).collect()),
            _ => None,
        })
        .collect();
    assert_eq!(told, [vec![name(RDKafkaErrorCode::TopicAuthorizationFailed)], vec![]]);
}

#[test]
fn a_group_that_may_not_be_joined_is_told_of_and_joined_once_it_may() {
    let broker = mocked("mock-group");
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
    broker.answers(RDKafkaApiKey::FindCoordinator, &[refused; 2]);
    let mut running = Running::start(&broker, 1 << 20);
    running.until("trouble", |event| {
        let refused = name(RDKafkaErrorCode::GroupAuthorizationFailed);
        matches!(event, PollEvent::Trouble { code, fault: PollFault::Operator, .. }
            if *code == refused)
    });
    running.until("an assignment", |event| matches!(event, PollEvent::Assigned(_)));
    running.close();
}

#[test]
fn a_member_that_the_broker_forgot_gives_up_and_joins_again() {
    let broker = mocked("mock-forgotten");
    let mut running = Running::assigned(&broker, 1 << 20);
    let forgotten = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID;
    broker.answers(RDKafkaApiKey::Heartbeat, &[forgotten]);
    running.until("a loss", |event| matches!(event, PollEvent::Revoked { lost: true, .. }));
    running.until("an assignment", |event| matches!(event, PollEvent::Assigned(_)));
    running.close();
}

#[test]
fn a_commit_that_failed_is_tried_again_without_a_newer_position() {
    let errors = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
    ];
    let broker = mocked("mock-commit");
    broker.produce_numbers(3);
    let running = Running::assigned(&broker, 1 << 20);
    broker.answers(RDKafkaApiKey::OffsetCommit, &errors);
    let mirror = Mirror::start(&running.consumer, Telemetry::try_new("t").unwrap()).unwrap();
    mirror.commit(vec![position(broker.partition(0), 3)]);
    let end = Instant::now() + PATIENCE;
    while broker.committed(0).0 != 3 {
        assert!(Instant::now() < end, "never committed");
    }
    assert!(mirror.flush(PATIENCE));
    running.close();
}

#[test]
fn a_position_that_could_not_be_committed_is_forgotten_with_its_partition() {
    let broker = mocked("mock-former");
    let running = Running::assigned(&broker, 1 << 20);
    // While the answers last nothing is committed; each attempt takes a second.
    let former = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION; 2];
    broker.answers(RDKafkaApiKey::OffsetCommit, &former);
    let mirror = Mirror::start(&running.consumer, Telemetry::try_new("t").unwrap()).unwrap();
    mirror.commit(vec![position(broker.partition(0), 3)]);
    mirror.commit(vec![position(broker.partition(1), 5)]);
    mirror.forget(vec![broker.partition(0)]);
    let end = Instant::now() + PATIENCE;
    while broker.committed(1).0 != 5 {
        assert!(Instant::now() < end, "never committed");
    }
    assert!(mirror.flush(PATIENCE));
    assert_eq!(broker.committed(0).0, -1001);
    running.close();
}

struct AsPanic;

impl Decode for AsPanic {
    fn decode(&self, _: Record) -> Decoded {
        panic!("on purpose")
    }
}

#[test]
fn the_end_of_a_thread_that_panics_is_heard() {
    let broker = mocked("mock-panic");
    broker.produce_numbers(1);
    let mut running = Running::assigned(&broker, 1 << 20);
    running.consumer.send(Command::Decode(Arc::new(AsPanic)));
    running.seek(&broker, 1, 0, None);
    let deadline = Instant::now() + PATIENCE;
    while !matches!(running.heard.try_recv(), Err(TryRecvError::Disconnected)) {
        assert!(Instant::now() < deadline, "nobody would notice");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!running.consumer.join(), "it panicked");
}
