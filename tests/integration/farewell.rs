//! SIGTERM at awkward moments: the daemon ends within seconds, says that all is well, and the next
//! start finishes what is left.

use std::time::Duration;

use crate::halts::until_halted;
use pgsluice_testkit::case::{CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, ENVELOPE, SETTLING, renamed};
use pgsluice_testkit::daemon::Daemon;
use pgsluice_testkit::kafka;
use pgsluice_testkit::postgres::Postgres;
use pgsluice_testkit::process::free_port;

/// Well below `shutdown.drain_timeout`, and below every wait for brokers and database.
const SOON: Duration = Duration::from_secs(7);

#[track_caller]
fn ends_soon(daemon: &Daemon) {
    daemon.signal("TERM");
    assert_eq!(daemon.wait_exit(SOON), Some(0), "{:?}", daemon.log());
}

#[test]
fn while_an_aggregate_is_locked_and_its_later_events_wait_behind_it() {
    let case = Case::new("stop_locked", 1);
    // Whether the back-off lets it be tried eight times meanwhile.
    case.allows(&["retry"]);
    case.database.execute(CUSTOMER_TABLE);
    let producer = case.producer();
    producer.send(renamed("locked", 1));
    let short = [
        ("PGSLUICE__POSTGRES__SLOW_LOCK_TIMEOUT", "200ms"),
        ("PGSLUICE__RETRY__INITIAL", "10m"),
        ("PGSLUICE__RETRY__MAX", "10m"),
    ];
    let daemon = case.daemon_with(CUSTOMER_ROUTE, &short);
    case.until_finished(&daemon);
    let mut holder = case.database.connect();
    let mut lock = holder.transaction().unwrap();
    lock.query("select from customer where id = 'locked' for update", &[]).unwrap();
    let held = producer.send(renamed("locked", 2));
    daemon.until("it waits for its next attempt", SETTLING, || {
        daemon.metric("pgsluice_retries_total", &[]) > 1.5
    });
    producer.send(renamed("locked", 3));
    producer.send(renamed("other", 1));
    daemon.until("what stands behind was read", SETTLING, || case.count("APPLIED") == 2);

    ends_soon(&daemon);
    assert_eq!(case.progress(0), Some(held.offset), "nothing is passed over");

    lock.rollback().unwrap();
    let daemon = case.daemon(CUSTOMER_ROUTE);
    case.until_finished(&daemon);
    assert_eq!(case.count("APPLIED"), 4);
    daemon.stop();
}

#[test]
fn while_its_only_partition_is_halted() {
    let case = Case::new("stop_halted", 1);
    case.expects(&["partition_halted"]);
    let place = case.producer().send(renamed("c", 1));
    let daemon = case.daemon(CUSTOMER_ROUTE);
    until_halted(&daemon, "schema_mismatch", &["public.customer"]);

    ends_soon(&daemon);

    case.database.execute(CUSTOMER_TABLE);
    let daemon = case.daemon(CUSTOMER_ROUTE);
    case.until_finished(&daemon);
    case.assert_outcomes([(place, "APPLIED")]);
    daemon.stop();
}

#[test]
fn while_the_database_is_away() {
    let server = Postgres::own();
    let case = Case::on(&server, "stop_outage", 1);
    case.expects(&["session_lost"]);
    let producer = case.producer();
    producer.send(renamed("c", 1));
    let daemon = case.daemon(ENVELOPE);
    case.until_finished(&daemon);
    server.stop();
    daemon.until("it knows", SETTLING, || daemon.metric("pgsluice_session_open", &[]) < 0.5);
    producer.send(renamed("c", 2));

    ends_soon(&daemon);

    server.start();
    let daemon = case.daemon(ENVELOPE);
    case.until_finished(&daemon);
    assert_eq!(case.version("c"), Some(2));
    daemon.stop();
}

#[test]
fn while_it_starts_and_neither_broker_nor_database_has_ever_answered() {
    let case = Case::new("stop_start", 1);
    case.expects(&["librdkafka", "kafka_unreachable"]);
    // Where there is a database, no broker has answered; where there is none, none was asked.
    case.allows(&["session_lost"]);
    let brokers = format!("127.0.0.1:{}", free_port());
    let nowhere = format!("postgres://nobody@127.0.0.1:{}/none", free_port());
    for url in [case.url(), nowhere] {
        let variables = [
            ("PGSLUICE__KAFKA__BROKERS", brokers.as_str()),
            ("PGSLUICE__POSTGRES__URL", url.as_str()),
        ];
        let daemon = case.daemon_with("", &variables);
        daemon.until("it looks for brokers", SETTLING, || {
            daemon.log().iter().any(|line| line.contains("\"kafka_unreachable\""))
        });
        ends_soon(&daemon);
    }
}

/// Starts a daemon that waits for a table that somebody has locked, stops it then, and lets another
/// one finish.
fn stopped_while_it_waits_for(name: &str, table: &str) {
    let case = Case::new(name, 1);
    let place = case.producer().send(renamed("c", 1));
    let mut holder = case.database.connect();
    let lock = format!("begin; lock table pgsluice.{table} in access exclusive mode");
    holder.batch_execute(&lock).unwrap();
    let daemon = case.daemon(ENVELOPE);
    let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' \
                   and datname = current_database()";
    daemon.until("it waits for the lock", SETTLING, || case.database.count(waiting) > 0);

    ends_soon(&daemon);

    holder.batch_execute("rollback").unwrap();
    let daemon = case.daemon(ENVELOPE);
    case.until_finished(&daemon);
    case.assert_outcomes([(place, "APPLIED")]);
    daemon.stop();
}

#[test]
fn while_it_opens_its_first_session() {
    stopped_while_it_waits_for("stop_opening", "schema_t");
}

#[test]
fn while_it_takes_its_partition() {
    stopped_while_it_waits_for("stop_taking", "stream_t");
}

#[test]
fn while_another_instance_joins_and_partitions_change_hands() {
    let case = Case::new("stop_rebalance", 6);
    let producer = case.producer();
    let first = case.daemon(ENVELOPE);
    first.until_ready();
    producer.send_all((0..600).map(|n| renamed(&format!("c{}", n % 60), n / 60 + 1)));
    let second = case.daemon(ENVELOPE);
    second.until("it hears of the group", SETTLING, || {
        second.log().iter().any(|line| line.contains("\"partitions_assigned\""))
    });

    ends_soon(&first);

    case.until_finished(&second);
    assert_eq!(case.count("APPLIED"), 600);
    case.until_mirrored(&second);
    second.stop();
    for partition in 0..6 {
        let committed = kafka::committed(&case.group, &case.topic, partition);
        assert_eq!(committed, case.progress(partition), "partition {partition}");
    }
}
