//! A broker that crashes, restarts or is away for long: nothing is lost, nothing is done twice,
//! nothing is dead-lettered, and work goes on by itself.

use std::time::Duration;

use pgsluice_testkit::case::{
    CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, EFFECTS, ENVELOPE, SETTLING, renamed,
};
use pgsluice_testkit::daemon::Daemon;
use pgsluice_testkit::kafka::{self, Outgoing};
use pgsluice_testkit::load::Load;
use pgsluice_testkit::wait;

/// What a daemon says of a broker that is away.
const AWAY: &[&str] = &["kafka_unreachable"];
/// What it may say besides, by what was under way at that moment.
const INTERRUPTED: &[&str] = &[
    "consumer_late",
    "kafka_trouble",
    "letters_stuck",
    "librdkafka",
    "membership_lost",
    "mirror_failing",
    "mirror_late",
    "rebalance_trouble",
];

/// Broker and controller are one process here, and lose each other while it stands still.
const THAWING: Duration = Duration::from_secs(180);

fn until_noticed(daemon: &Daemon) {
    daemon.until("the broker is missed", SETTLING, || {
        daemon.metric("pgsluice_kafka_reachable", &[]) < 0.5
    });
}

#[test]
fn a_broker_that_crashes_under_load_costs_nothing_but_time() {
    let mut broker = kafka::alone();
    let case = Case::new("broker_crash", 4);
    case.expects(AWAY);
    case.allows(INTERRUPTED);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute(EFFECTS);
    let load = Load::start(&case, 300);
    let daemon = case.daemon(CUSTOMER_ROUTE);

    for round in 1..=3 {
        daemon.until("records are applied", SETTLING, || case.count("APPLIED") > round * 500);
        broker.kill9();
        until_noticed(&daemon);
        broker.start();
    }
    let sent = load.finish();
    case.until_finished(&daemon);
    case.until_mirrored(&daemon);

    sent.assert_all_applied(&case);
    case.assert_effects_ascend();
    case.assert_no_letters();
    assert!(daemon.metric("pgsluice_kafka_reachable", &[]) > 0.5);
    daemon.stop();
}

#[test]
fn a_broker_that_is_away_beyond_the_session_timeout_restarts_no_process() {
    let mut broker = kafka::alone();
    let case = Case::new("broker_away", 2);
    case.expects(AWAY);
    case.allows(INTERRUPTED);
    let places = case.producer().send_all((1..=20).map(|version| renamed("c", version)));
    let daemon = case.daemon(ENVELOPE);
    case.until_finished(&daemon);

    broker.stop();
    until_noticed(&daemon);
    // The daemon's session timeout is 6 s.
    wait::stays("it is alive", Duration::from_secs(10), || daemon.get("/live").0 == 200);
    broker.start();

    let more = case.producer().send_all((21..=40).map(|version| renamed("c", version)));
    case.until_finished(&daemon);
    case.until_mirrored(&daemon);
    daemon.until_ready();
    case.assert_outcomes(places.iter().chain(&more).map(|place| (*place, "APPLIED")));
    daemon.stop();
}

#[test]
fn a_broker_that_stands_still_is_waited_for() {
    let broker = kafka::alone();
    let case = Case::new("broker_frozen", 2);
    case.allows(AWAY);
    case.allows(INTERRUPTED);
    let load = Load::start(&case, 200);
    // The client joins again once it stops waiting for a commit in flight: a minute by default.
    let soon = [("PGSLUICE__KAFKA__PROPERTIES__SOCKET_TIMEOUT_MS", "10000")];
    let daemon = case.daemon_with(ENVELOPE, &soon);
    daemon.until("records are applied", SETTLING, || case.count("APPLIED") > 500);

    broker.signal("STOP");
    // Beyond the daemon's session timeout of 6 s: its connections stay open and nobody answers.
    wait::stays("it is alive", Duration::from_secs(10), || daemon.get("/live").0 == 200);
    broker.signal("CONT");

    let applied = case.count("APPLIED");
    daemon.until("work goes on", THAWING, || case.count("APPLIED") > applied + 500);
    let sent = load.finish();
    case.until_finished(&daemon);
    sent.assert_all_applied(&case);
    daemon.stop();
}

#[test]
fn what_was_read_before_the_broker_went_is_written_without_it() {
    let mut broker = kafka::alone();
    let case = Case::new("broker_gone", 1);
    case.expects(AWAY);
    case.allows(INTERRUPTED);
    case.database.execute(CUSTOMER_TABLE);
    let producer = case.producer();
    producer.send(renamed("held", 1));
    let daemon = case.daemon(CUSTOMER_ROUTE);
    case.until_finished(&daemon);
    let mut holder = case.database.connect();
    let mut lock = holder.transaction().unwrap();
    lock.batch_execute("lock table customer in exclusive mode").unwrap();
    let places = producer.send_all((2..=9).map(|version| renamed("held", version)));
    daemon.until("it has read them", SETTLING, || {
        daemon.metric("pgsluice_in_flight_bytes", &[]) > 0.0
            && daemon.metric("pgsluice_retries_total", &[]) > 0.0
    });

    broker.kill9();
    until_noticed(&daemon);
    lock.rollback().unwrap();
    let end = places[7].offset + 1;
    daemon.until("progress passes them", SETTLING, || case.progress(0) == Some(end));

    broker.start();
    case.until_mirrored(&daemon);
    daemon.stop();
}

#[test]
fn dead_letters_wait_in_the_table_while_the_broker_is_away() {
    let mut broker = kafka::alone();
    let case = Case::new("broker_letters", 1);
    case.expects(AWAY);
    case.expects(&["dead_letters"]);
    case.allows(INTERRUPTED);
    let producer = case.producer();
    producer.send(Outgoing::new("k", "{"));
    let daemon = case.daemon("");
    let topic = format!("{}-dlq", case.topic);
    daemon.until("the first is published", SETTLING, || kafka::read_all(&topic).len() == 1);
    let mut holder = case.database.connect();
    let mut lock = holder.transaction().unwrap();
    lock.batch_execute("lock table pgsluice.dead_letter_t in exclusive mode").unwrap();
    let more = producer.send_all((0..50).map(|n| Outgoing::new("k", format!("{{\"n\":{n}"))));
    daemon.until("it has read them", SETTLING, || {
        daemon.metric("pgsluice_in_flight_bytes", &[]) > 0.0
    });

    broker.kill9();
    until_noticed(&daemon);
    lock.rollback().unwrap();
    daemon.until("they are in the table", SETTLING, || {
        case.database.count("select count(*) from pgsluice.dead_letter_t") == 51
    });
    broker.start();

    daemon.until("all are published", SETTLING, || {
        let waiting = "select count(*) from pgsluice.dead_letter_t where published_at is null";
        case.database.text(waiting).as_deref() == Some("0")
    });
    let published = kafka::read_all(&topic);
    let mut values: Vec<_> = published.into_iter().map(|letter| letter.value).collect();
    values.dedup();
    assert_eq!(values.len(), more.len() + 1, "in order, and none is missing");
    daemon.stop();
}

#[test]
fn a_stop_while_the_broker_is_away_ends_in_time_and_loses_nothing() {
    let mut broker = kafka::alone();
    let case = Case::new("broker_stop", 2);
    case.expects(AWAY);
    case.allows(INTERRUPTED);
    let load = Load::start(&case, 100);
    let daemon = case.daemon(ENVELOPE);
    daemon.until("records are applied", SETTLING, || case.count("APPLIED") > 500);
    broker.kill9();
    until_noticed(&daemon);

    daemon.signal("TERM");
    let code = daemon.wait_exit(Duration::from_secs(30));
    broker.start();

    assert_eq!(code, Some(0), "{:#?}", daemon.log());
    let sent = load.finish();
    let daemon = case.daemon(ENVELOPE);
    case.until_finished(&daemon);
    sent.assert_all_applied(&case);
    daemon.stop();
}

#[test]
fn a_broker_that_comes_late_is_waited_for() {
    let mut broker = kafka::alone();
    let case = Case::new("broker_late", 1);
    case.expects(&["brokers_silent"]);
    case.allows(INTERRUPTED);
    case.allows(AWAY);
    let place = case.producer().send(renamed("c", 1));
    let config = case.config(ENVELOPE);
    broker.stop();
    let daemon = case.daemon_of(Some(&config), &[]);
    daemon.until("it says what it waits for", SETTLING, || {
        daemon.log().iter().any(|line| line.contains("\"brokers_silent\""))
    });
    assert_eq!(daemon.get("/live").0, 200);

    broker.start();
    case.until_finished(&daemon);
    case.assert_outcomes([(place, "APPLIED")]);
    daemon.stop();
}
