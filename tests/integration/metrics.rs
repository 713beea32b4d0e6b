//! What `/metrics` says agrees with the tables, and its series come and go with partitions.

use std::collections::BTreeSet;

use crate::case::{CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, SETTLING, counted, renamed};
use crate::support::daemon::Daemon;
use crate::support::kafka::Outgoing;

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

#[test]
fn records_counted_by_verdict_are_those_of_the_table_and_keys_make_no_series() {
    let case = Case::new("metrics_agree", 2);
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
    let before = series(&daemon);
    let sent = send((0..300).map(|n| renamed(&format!("k{n}"), 1)).collect());

    for verdict in VERDICTS {
        assert_eq!(counted(&daemon, verdict), case.count(verdict), "{verdict}");
    }
    for verdict in ["APPLIED", "DUPLICATE", "DEAD_LETTERED", "PARKED"] {
        assert!(case.count(verdict) > 0, "the test makes {verdict}");
    }
    assert_eq!(case.outcomes().len(), sent);
    assert_eq!(series(&daemon), before, "300 new keys");
}

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

    let second = case.daemon("");
    daemon.until("the second has one", SETTLING, || {
        second.metric("pgsluice_partitions", &[]).to_string() == "1"
    });

    daemon.until("the first shows one, too", SETTLING, || (of(0) == 0) != (of(1) == 0));
}
