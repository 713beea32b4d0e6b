//! The support code itself: a test that stands on it may trust it.

use std::time::Duration;

use pgsluice_testkit::kafka::{self, Outgoing, Producer};
use pgsluice_testkit::postgres::Postgres;
use pgsluice_testkit::wait;

#[test]
fn records_are_read_back_as_they_were_produced() {
    let topic = kafka::topic("parts", 2);
    let producer = Producer::new(&topic);

    let places = producer.send_all([
        Outgoing::new("k", "v").header("h", None).header("h", Some(b"")).on(1).at(1_000),
        Outgoing::tombstone("k").on(1),
        Outgoing::without_key("v").on(0),
    ]);

    let read = kafka::read_all(&topic);
    assert_eq!(
        places.iter().map(|p| (p.partition, p.offset)).collect::<Vec<_>>(),
        [(1, 0), (1, 1), (0, 0)]
    );
    assert_eq!(read.len(), 3);
    assert_eq!((read[0].key.as_deref(), read[0].value.as_deref()), (None, Some(&b"v"[..])));
    assert_eq!(read[1].timestamp, Some(1_000));
    assert_eq!(read[1].headers, [("h".to_owned(), None), ("h".to_owned(), Some(Vec::new()))]);
    assert_eq!(read[2].value, None);
}

#[test]
fn aborted_records_take_offsets_and_are_not_read() {
    let topic = kafka::topic("parts", 1);
    let producer = Producer::transactional(&topic);

    producer.begin();
    producer.send(Outgoing::new("k", "aborted"));
    producer.abort();
    producer.begin();
    producer.send(Outgoing::new("k", "kept"));
    producer.commit();

    let read = kafka::read_all(&topic);
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].offset, 2);
    assert_eq!(kafka::end_offset(&topic, 0), 4);
}

#[test]
fn a_killed_database_server_comes_back_with_what_it_had() {
    let server = Postgres::own();
    let database = server.database("parts");
    database.execute("create table t (a int); insert into t values (1)");

    server.kill9_all();
    assert!(database.try_rows("select 1").is_err());
    server.start();
    assert_eq!(database.count("select count(*) from t"), 1);

    server.stop();
    server.start();
    wait::until("rows are there", Duration::from_secs(5), || {
        database.count("select a from t") == 1
    });
}
