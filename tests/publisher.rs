//! Letters of a real table: whose they are, in which order they come, and when they are done.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics where it cannot go on")]

use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};

use pgsluice::config::{self, Config};
use pgsluice::kafka::Librdkafka;
use pgsluice::lanes::take::{TakeRequest, take};
use pgsluice::postgres::{Session, SessionEnd};
use pgsluice::store::letter::publication::{OwnedStream, Portion, claim, mark};
use pgsluice::store::migrate::migrate;
use pgsluice::store::sink::{SinkId, find_or_create};
use pgsluice_core::input::TakeReply;
use pgsluice_core::position::KafkaPosition;
use pgsluice_core::record::{Generation, Header, Offset, RecordId, SessionId, TopicPartition};

use pgsluice_testkit::postgres::{Database, Postgres};

const PORTION: Portion = Portion { letters_per_stream: 100, bytes: 1_000_000 };

struct Place {
    runtime: Runtime,
    database: Database,
    config: Config,
}

impl Place {
    fn new(name: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let database = Postgres::shared().database(name);
        let url = database.url();
        let given = [
            ("PGSLUICE__KAFKA__BROKERS", "127.0.0.1:1"),
            ("PGSLUICE__KAFKA__GROUP", "views"),
            ("PGSLUICE__KAFKA__TOPICS", "events"),
            ("PGSLUICE__POSTGRES__URL", &url),
        ];
        let env = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let config = config::load(None, env, &Librdkafka).unwrap();
        runtime.block_on(migrate(&config.postgres)).unwrap();
        Self { runtime, database, config }
    }

    fn open(&self) -> (Session, SessionEnd) {
        self.runtime.block_on(Session::open(&self.config, SessionId(1))).unwrap()
    }

    fn sink(&self, session: &Session) -> SinkId {
        self.runtime.block_on(find_or_create(session, "views", Some("cluster-a"))).unwrap()
    }

    fn own(&self, session: &Session, number: i32) -> OwnedStream {
        let kafka = KafkaPosition { committed: None, low: 0, high: 1_000_000, start: Some(0) };
        let partition = TopicPartition { topic: Arc::from("events"), partition: number };
        let request = TakeRequest { partition, generation: Generation(1), kafka };
        let mut taken = self
            .runtime
            .block_on(take(session, self.sink(session), "this test", vec![request]))
            .unwrap();
        match taken.pop().unwrap().2 {
            TakeReply::Claimed(claim) => OwnedStream { stream: claim.stream, epoch: claim.epoch },
            other => panic!("not claimed: {other:?}"),
        }
    }

    fn write(&self, session: &Session, owned: OwnedStream, offset: i64, value: &str) {
        self.database.execute(&format!(
            r#"insert into pgsluice.dead_letter_t
                 (sink, stream, "offset", timestamp_type, record_ts, key, value, headers,
                  aggregate_type, aggregate_id, disposition, reason, sqlstate)
               values ({}, {}, {offset}, 'CreateTime', 17, 'k', {value},
                  '[["h","AQI="],["h",null]]', 'Customer', 'k', 'poison', 'data_exception', '22003')"#,
            self.sink(session).0, owned.stream.0
        ));
    }

    fn claim(&self, session: &Session, streams: &[OwnedStream], portion: Portion) -> Vec<i64> {
        let letters = self.runtime.block_on(claim(session, streams, portion)).unwrap();
        letters.iter().map(|letter| letter.id.offset.0).collect()
    }
}

/// Proves INV-6 and INV-14.
#[test]
fn letters_come_whole_and_in_the_order_of_their_stream_until_they_are_marked() {
    let place = Place::new("letters");
    let (session, _end) = place.open();
    let (first, second) = (place.own(&session, 0), place.own(&session, 1));
    for (owned, offset, value) in [(second, 1, "'b'"), (first, 9, "null"), (first, 7, "''")] {
        place.write(&session, owned, offset, value);
    }
    let both = [second, first];
    let letters = place.runtime.block_on(claim(&session, &both, PORTION)).unwrap();

    let offsets: Vec<_> = letters.iter().map(|letter| letter.id.offset.0).collect();
    assert_eq!(offsets, [7, 9, 1]);
    let letter = &letters[0];
    assert_eq!((letter.topic.as_str(), letter.partition, letter.log_epoch), ("events", 0, 0));
    assert_eq!((letter.group.as_str(), letter.cluster_id.as_deref()), ("views", Some("cluster-a")));
    assert_eq!((letter.key.as_deref(), letter.value.as_deref()), (Some(&b"k"[..]), Some(&b""[..])));
    assert_eq!((letters[1].value.as_deref(), letter.timestamp), (None, Some(17)));
    let header = |value: Option<&[u8]>| Header { name: "h".into(), value: value.map(Box::from) };
    assert_eq!(letter.headers, [header(Some(&[1, 2])), header(None)]);
    assert_eq!(letter.sqlstate.as_deref(), Some("22003"));
    let count = "select count(*) from pgsluice.dead_letter_t where claimed_at is not null";
    assert_eq!(place.database.count(count), 3);

    // A portion is bounded by letters of each stream, and by bytes.
    assert_eq!(place.claim(&session, &both, Portion { letters_per_stream: 1, ..PORTION }), [7, 1]);
    assert_eq!(place.claim(&session, &both, Portion { bytes: 1, ..PORTION }), [7]);
    // Key and value of the first two have 2 bytes; their headers count, too.
    assert_eq!(place.claim(&session, &both, Portion { bytes: 10, ..PORTION }), [7]);

    let done = [RecordId { stream: first.stream, offset: Offset(7) }];
    place.runtime.block_on(mark(&session, &done)).unwrap();
    assert_eq!(place.claim(&session, &both, PORTION), [9, 1]);
}

/// Proves INV-10.
#[test]
fn a_process_that_lost_a_stream_publishes_none_of_its_letters() {
    let place = Place::new("letters_lost");
    let (session, _end) = place.open();
    let stale = place.own(&session, 0);
    place.write(&session, stale, 1, "'v'");
    let newer = place.own(&session, 0);
    assert_eq!(place.claim(&session, &[stale], PORTION), Vec::<i64>::new());
    assert_eq!(place.claim(&session, &[newer], PORTION), [1]);
}
