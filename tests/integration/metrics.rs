//! What `/metrics` says agrees with the tables, and its series come and go with partitions.

use std::collections::BTreeSet;
use std::time::Duration;

use pgsluice_testkit::case::{
    CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, ENVELOPE, SETTLING, counted, renamed,
};
use pgsluice_testkit::daemon::Daemon;
use pgsluice_testkit::kafka::{Outgoing, Producer, create_topic};
use pgsluice_testkit::wait::stays;

const VERDICTS: [&str; 8] = [
    "APPLIED",
    "REJECTED",
    "DUPLICATE",
    "STALE",
    "SKIPPED",
    "DEAD_LETTERED",
    "PARKED",
    "DISCARDED",
];

/// Names and labels of our series.
fn series(daemon: &Daemon) -> BTreeSet<String> {
    let text = daemon.get("/metrics").1;
    let ours = text.lines().filter(|line| line.starts_with("pgsluice_"));
    ours.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

/// Proves INV-11.
#[test]
fn records_counted_by_verdict_are_those_of_the_table_and_keys_make_no_series() {
    let case = Case::new("metrics_agree", 2);
    case.expects(&["dead_letters"]);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute("alter table customer add constraint short check (length(name) < 12)");
    let producer = case.producer();
    let daemon = case.daemon(CUSTOMER_ROUTE);
    let mut sent = 0;
    let mut send = |records: Vec<Outgoing>| {
        sent += producer.send_all(records).len();
        case.until_finished(&daemon);
        sent
    };

    send((1..=5).flat_map(|v| (0..20).map(move |n| renamed(&format!("c{n}"), v))).collect());
    // Again the newest and an older version; then poison and what follows it.
    send((0..20).map(|n| renamed(&format!("c{n}"), 5)).collect());
    send((0..20).map(|n| renamed(&format!("c{n}"), 2)).collect());
    send((1..=3).map(|version| renamed("a-name-of-its-own", version)).collect());
    send(vec![Outgoing::new("not-json", "{"), Outgoing::without_key("neither")]);
    let before = series(&daemon);
    let sent = send((0..300).map(|n| renamed(&format!("k{n}"), 1)).collect());

    for verdict in VERDICTS {
        assert_eq!(counted(&daemon, verdict), case.count(verdict), "{verdict}");
    }
    for verdict in ["APPLIED", "DUPLICATE", "DEAD_LETTERED", "PARKED"] {
        assert!(case.count(verdict) > 0, "the test makes {verdict}");
    }
    assert_eq!(case.outcomes().len(), sent);
    // A fault, a retry or the first commit to Kafka may add one meanwhile; keys would add hundreds.
    let new: Vec<_> = series(&daemon).difference(&before).cloned().collect();
    assert!(new.len() < 30, "300 new keys made series: {new:?}");
    assert_letters_agree(&case, &daemon);
    let count = |name: &str, labels: &[&str]| daemon.metric(name, labels);
    let fast = count("pgsluice_transactions_total", &["lane=\"fast\"", "\"committed\""]);
    assert!(fast >= 320.0, "each of 320 aggregates has a transaction of its own: {fast}");
    assert_eq!(fast, count("pgsluice_fast_lane_seconds_count", &[]) - failed(&daemon, "fast"));
    let slow = count("pgsluice_transactions_total", &["lane=\"slow\"", "\"committed\""]);
    let resolved = count("pgsluice_slow_lane_seconds_count", &["work=\"resolve\""]);
    assert!(slow >= 1.0 && slow == resolved - failed(&daemon, "slow"), "{slow} of {resolved}");
    let refused = count("pgsluice_faults_total", &["cause=\"23514\"", "decision=\"isolate\""]);
    assert!(refused >= 1.0, "the constraint is counted as a fault");
    assert_eq!(refused, count("pgsluice_retries_total", &["cause=\"23514\""]));
    for observed in ["queue", "barrier", "mirror", "freshness"] {
        let name = format!("pgsluice_{observed}_seconds_count");
        assert!(count(&name, &[]) >= 1.0, "{name}");
    }
    assert!(count("pgsluice_takes_total", &["outcome=\"claimed\""]) >= 2.0, "two partitions");
    assert!(count("pgsluice_rebalances_total", &["kind=\"assigned\""]) >= 1.0);
    daemon.until("the offsets are committed to Kafka", SETTLING, || {
        count("pgsluice_mirror_commits_total", &["outcome=\"ok\""]) >= 1.0
    });
    daemon.until("nothing is unfinished", SETTLING, || {
        count("pgsluice_oldest_unfinished_seconds", &[]) == 0.0
    });
    let open = "select count(*) from pg_stat_activity where application_name like 'pgsluice/%' \
                and datname = current_database()";
    daemon.until("the connections are those that the server has", SETTLING, || {
        count("pgsluice_connections_open", &[]) == float(case.database.count(open))
    });
}

#[test]
fn lag_is_what_is_not_durable_also_while_the_partition_stands_still() {
    let case = Case::new("lag", 1);
    case.expects(&["partition_halted"]);
    case.database.execute(CUSTOMER_TABLE);
    let producer = case.producer();
    producer.send_all((1..=5).map(|version| renamed("c", version)));
    let daemon = case.daemon(CUSTOMER_ROUTE);
    case.until_finished(&daemon);
    until_lag(&daemon, 0, 0);

    // Halted before it has read what is sent next.
    case.database.execute("alter table customer rename to client");
    producer.send(renamed("c", 6));
    daemon.until("the partition is halted", SETTLING, || {
        daemon.metric("pgsluice_partition_halted", &[]) == 1.0
    });
    producer.send_all((7..=20).map(|version| renamed("c", version)));
    until_lag(&daemon, 15, 15);
    assert_eq!(case.progress(0), Some(5));
    daemon.until("the record is known for a while", SETTLING, || {
        daemon.metric("pgsluice_oldest_unfinished_seconds", &[]) >= 2.0
    });

    case.database.execute("alter table client rename to customer");
    case.until_finished(&daemon);
    until_lag(&daemon, 0, 0);
    daemon.until("nothing is unfinished", SETTLING, || {
        daemon.metric("pgsluice_oldest_unfinished_seconds", &[]) == 0.0
    });
}

#[test]
fn what_an_open_transaction_holds_back_is_lag_to_the_end_but_not_to_what_can_be_read() {
    let case = Case::new("lag_open", 1);
    let producer = Producer::transactional(&case.topic);
    producer.begin();
    producer.send(renamed("c", 1));
    producer.commit();
    let daemon = case.daemon(ENVELOPE);
    case.until_finished(&daemon);

    producer.begin();
    producer.send_all((2..=4).map(|version| renamed("c", version)));
    until_lag(&daemon, 3, 0);
    assert_eq!(daemon.metric("pgsluice_log_unstable", &[]), 3.0);
    producer.abort();
    case.until_finished(&daemon);
    until_lag(&daemon, 0, 0);
    assert_eq!(daemon.metric("pgsluice_log_unstable", &[]), 0.0);
}

/// Waits until the only partition has that lag, in metrics and `/status` alike.
#[track_caller]
fn until_lag(daemon: &Daemon, end: i64, stable: i64) {
    daemon.until(&format!("the lag is {end}, {stable}"), SETTLING, || {
        let told = &daemon.status()["partitions"][0]["lag"];
        told["end"] == end
            && told["stable"] == stable
            && has_series(daemon, "pgsluice_lag")
            && daemon.metric("pgsluice_lag", &[]) == float(end)
            && daemon.metric("pgsluice_lag_stable", &[]) == float(stable)
    });
}

fn has_series(daemon: &Daemon, name: &str) -> bool {
    series(daemon).iter().any(|series| series.split('{').next() == Some(name))
}

#[test]
fn what_waits_in_the_tables_is_shown_as_long_as_it_waits() {
    let case = Case::new("metrics_waiting", 1);
    case.expects(&["dead_letters", "letters_stuck"]);
    case.producer().send_all([
        Outgoing::new("sick", "{"),
        Outgoing::new("sick", "{}"),
        Outgoing::new("ill", "{"),
        Outgoing::new("well", "{}"),
    ]);
    let daemon = case.daemon("[dead_letter]\ncreate_topic = false\n");
    case.until_finished(&daemon);
    let unpublished = "select count(*) from pgsluice.dead_letter_t where published_at is null";
    let parked = "select count(*) from pgsluice.aggregate_t where parked_at is not null";
    assert_eq!((case.database.count(unpublished), case.database.count(parked)), (3, 2));
    let shown = |letters: f64, aggregates: f64| {
        daemon.metric("pgsluice_letters_unpublished", &[]) == letters
            && daemon.metric("pgsluice_aggregates_parked", &[]) == aggregates
    };
    daemon.until("letters and aggregates are shown", SETTLING, || shown(3.0, 2.0));

    create_topic(&format!("{}-dlq", case.topic), 1);
    daemon.until("the letters are gone, the aggregates wait", SETTLING, || shown(0.0, 2.0));
    assert_eq!(case.database.count(unpublished), 0);
}

/// Transactions of a lane that failed.
fn failed(daemon: &Daemon, lane: &str) -> f64 {
    let lane = format!("lane=\"{lane}\"");
    daemon.metric("pgsluice_transactions_total", &[&lane, "outcome=\"failed\""])
}

#[expect(clippy::cast_precision_loss, reason = "a small number")]
fn float(number: i64) -> f64 {
    number as f64
}

/// Compares the letters counted by reason with the rows of the table.
#[track_caller]
fn assert_letters_agree(case: &Case, daemon: &Daemon) {
    let rows = case
        .database
        .rows("select disposition, reason, count(*) from pgsluice.dead_letter_t group by 1, 2");
    assert!(rows.len() >= 2, "the test makes letters of several kinds: {rows:?}");
    let mut all = 0.0;
    for row in rows {
        let row: Vec<String> = row.into_iter().flatten().collect();
        let [disposition, reason, count] = &row[..] else { panic!("{row:?}") };
        let labels = [format!("disposition=\"{disposition}\""), format!("reason=\"{reason}\"")];
        let counted = daemon.metric("pgsluice_letters_written_total", &[&labels[0], &labels[1]]);
        assert_eq!(counted.to_string(), *count, "{disposition}, {reason}");
        all += counted;
    }
    assert_eq!(daemon.metric("pgsluice_letters_written_total", &[]), all);
}

/// Proves INV-11.
#[test]
fn the_series_of_a_partition_go_with_it() {
    let case = Case::new("metrics_revoked", 2);
    let daemon = case.daemon("");
    case.producer().send_all([Outgoing::new("a", "{}").on(0), Outgoing::new("b", "{}").on(1)]);
    case.until_finished(&daemon);
    let of = |partition: u32| {
        let label = format!("partition=\"{partition}\"");
        series(&daemon).iter().filter(|name| name.contains(&label)).count()
    };
    assert!(of(0) > 0 && of(1) > 0, "{:?}", series(&daemon));
    daemon.until("its lag is shown", SETTLING, || has_series(&daemon, "pgsluice_lag"));

    let second = case.daemon("");
    daemon.until("the second has one", SETTLING, || {
        second.metric("pgsluice_partitions", &[]).to_string() == "1"
    });

    let one_is_gone = || (of(0) == 0) != (of(1) == 0);
    daemon.until("the first shows one, too", SETTLING, one_is_gone);
    // Longer than the brokers are not asked for the ends of the logs.
    stays("the other does not come back", Duration::from_secs(7), one_is_gone);
}
