//! What the log of a topic may hold and do: aborted transactions, markers, an operator who moves
//! the group, and where reading begins.

use pgsluice_testkit::case::{Case, ENVELOPE, counted, renamed};
use pgsluice_testkit::kafka::{self, Outgoing, Producer};

#[test]
fn aborted_transactions_leave_no_trace_and_markers_leave_no_lag() {
    let case = Case::new("transactions", 1);
    let producer = Producer::transactional(&case.topic);
    let mut kept = Vec::new();
    for round in 1..=5 {
        producer.begin();
        producer.send(renamed("c", 100 + round));
        producer.abort();
        producer.begin();
        kept.push(producer.send(renamed("c", round)));
        producer.commit();
    }
    // The tail: an aborted record and its marker.
    producer.begin();
    producer.send(renamed("c", 200));
    producer.abort();

    let daemon = case.daemon(ENVELOPE);
    case.until_finished(&daemon);
    case.until_mirrored(&daemon);

    let found = case.outcomes();
    assert_eq!(found.len(), kept.len());
    assert!(kept.iter().all(|place| found[place].0 == "APPLIED"));
    assert_eq!(case.version("c"), Some(5));
    let end = kafka::end_offset(&case.topic, 0);
    assert_eq!(kafka::committed(&case.group, &case.topic, 0), Some(end));
}

#[test]
fn an_open_transaction_is_not_read_before_it_commits() {
    let case = Case::new("open_transaction", 1);
    let producer = Producer::transactional(&case.topic);
    let daemon = case.daemon(ENVELOPE);
    daemon.until_ready();

    producer.begin();
    producer.send(renamed("c", 1));
    pgsluice_testkit::wait::stays("nothing is read", std::time::Duration::from_secs(2), || {
        case.outcomes().is_empty()
    });
    producer.commit();
    case.until_finished(&daemon);
    assert_eq!(case.version("c"), Some(1));
}

/// Proves INV-4.
#[test]
fn an_operator_who_resets_the_group_is_obeyed_and_changes_no_row() {
    let case = Case::new("reset_offsets", 2);
    case.expects(&["position_moved"]);
    let records = (0..200).map(|n| renamed(&format!("c{}", n % 20), n / 20 + 1));
    let places = case.producer().send_all(records);
    let daemon = case.daemon(ENVELOPE);
    case.until_finished(&daemon);
    case.until_mirrored(&daemon);
    daemon.stop();
    let before = case.fingerprint();

    let arguments = ["--group", &case.group, "--topic", &case.topic];
    let reset = ["--reset-offsets", "--to-earliest", "--execute"];
    kafka::consumer_groups_tool(&[&arguments[..], &reset[..]].concat());
    let daemon = case.daemon(ENVELOPE);
    daemon.until("everything is read again", pgsluice_testkit::case::SETTLING, || {
        counted(&daemon, "DUPLICATE") == places.len()
    });
    case.until_finished(&daemon);
    case.until_mirrored(&daemon);

    assert_eq!(counted(&daemon, "APPLIED"), 0);
    assert_eq!(case.fingerprint(), before);
    case.assert_outcomes(places.iter().map(|place| (*place, "APPLIED")));
}

#[test]
fn positions_of_a_group_that_was_used_before_are_adopted_once() {
    let case = Case::new("adopted", 1);
    let places = case.producer().send_all((0..10).map(|n| Outgoing::new(&format!("k{n}"), "{}")));
    let arguments = ["--group", &case.group, "--topic", &case.topic];
    let reset = ["--reset-offsets", "--to-offset", "4", "--execute"];
    kafka::consumer_groups_tool(&[&arguments[..], &reset[..]].concat());

    let daemon = case.daemon("");
    case.until_finished(&daemon);

    assert_eq!(case.progress(0), Some(10));
    let expected: Vec<_> = places[4..].to_vec();
    assert_eq!(case.outcomes().into_keys().collect::<Vec<_>>(), expected);
}

#[test]
fn a_partition_with_nothing_new_shows_its_position_in_kafka_at_once() {
    let case = Case::new("idle_position", 1);
    case.producer().send_all((0..5).map(|n| Outgoing::new(&format!("k{n}"), "{}")));
    let daemon = case.daemon_with("", &[("PGSLUICE__KAFKA__START_FROM", "latest")]);
    daemon.until_ready();
    case.until_mirrored(&daemon);
    daemon.stop();

    // An operator's offset is ours once it was obeyed: nobody obeys it again.
    let arguments = ["--group", &case.group, "--topic", &case.topic];
    let reset = ["--reset-offsets", "--to-offset", "5", "--execute"];
    kafka::consumer_groups_tool(&[&arguments[..], &reset[..]].concat());
    let tagged = || kafka::committed_metadata(&case.group, &case.topic, 0).starts_with("pgsluice/");
    assert!(!tagged());
    let daemon = case.daemon("");
    daemon.until("the offset is ours", pgsluice_testkit::case::SETTLING, tagged);
    assert!(case.outcomes().is_empty());
    daemon.stop();
}

#[test]
fn a_recreated_topic_halts_its_partition_and_nothing_is_written() {
    let case = Case::new("recreated", 1);
    case.expects(&["partition_halted"]);
    case.producer().send_all((0..10).map(|n| Outgoing::new(&format!("k{n}"), r#"{"old":true}"#)));
    let daemon = case.daemon("");
    case.until_finished(&daemon);
    daemon.stop();
    let before = case.fingerprint();

    kafka::delete_topic(&case.topic);
    kafka::create_topic(&case.topic, 1);
    case.producer().send_all((0..20).map(|n| Outgoing::new(&format!("k{n}"), r#"{"old":false}"#)));
    let daemon = case.daemon("");
    daemon.until("the partition is halted", pgsluice_testkit::case::SETTLING, || {
        daemon.metric("pgsluice_partition_halted", &["reason=\"log_changed\""]) > 0.5
    });

    assert_eq!(case.fingerprint(), before);
}
