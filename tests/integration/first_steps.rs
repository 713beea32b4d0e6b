//! The shortest ways to a running daemon, and what its admin port says.

use std::time::Duration;

use pgsluice_testkit::case::{Case, counted};
use pgsluice_testkit::daemon::pgsluice;
use pgsluice_testkit::kafka::{self, Outgoing};

#[test]
fn four_environment_variables_are_enough() {
    let case = Case::unmigrated("four_variables", 2);
    let producer = case.producer();
    let places = producer.send_all([
        Outgoing::new("a", r#"{"name":"first","amount":12345678901234567890.10}"#),
        Outgoing::new("a", r#"{"name":"second"}"#),
        Outgoing::new("b", r#"[1,2]"#),
    ]);

    let daemon = case.daemon_of(
        None,
        &[
            ("PGSLUICE__KAFKA__BROKERS", kafka::brokers()),
            ("PGSLUICE__KAFKA__GROUP", &case.group),
            ("PGSLUICE__KAFKA__TOPICS", &case.topic),
            ("PGSLUICE__POSTGRES__URL", &case.url()),
        ],
    );
    case.until_finished(&daemon);

    case.assert_outcomes(places.iter().map(|place| (*place, "APPLIED")));
    assert_eq!(case.state("a").as_deref(), Some(r#"{"name": "second"}"#));
    assert_eq!(case.state("b").as_deref(), Some("[1, 2]"));
    let sql = "select distinct aggregate_type from pgsluice.aggregate_t";
    assert_eq!(case.database.text(sql).as_deref(), Some(case.topic.as_str()));
    daemon.stop();
}

#[test]
fn the_shortest_file_is_enough() {
    let case = Case::new("shortest_file", 1);
    case.producer().send(Outgoing::new("a", r#"{"amount":0.10000000000000000001}"#));

    let daemon = case.daemon("");
    case.until_finished(&daemon);

    // Digit for digit: no number went through a double.
    assert_eq!(case.state("a").as_deref(), Some(r#"{"amount": 0.10000000000000000001}"#));
}

#[test]
fn a_tombstone_deletes_and_a_later_record_creates_again() {
    let case = Case::new("tombstones", 1);
    let producer = case.producer();
    let mut places =
        producer.send_all([Outgoing::new("a", r#"{"n":1}"#), Outgoing::tombstone("a")]);

    let daemon = case.daemon("");
    case.until_finished(&daemon);
    assert_eq!(case.state("a"), None);
    assert_eq!(case.database.count("select count(*) from pgsluice.aggregate_t where deleted"), 1);

    places.push(producer.send(Outgoing::new("a", r#"{"n":2}"#)));
    case.until_finished(&daemon);
    assert_eq!(case.state("a").as_deref(), Some(r#"{"n": 2}"#));
    case.assert_outcomes(places.iter().map(|place| (*place, "APPLIED")));
}

#[test]
fn records_without_key_are_aggregates_of_their_own() {
    let case = Case::new("null_keys", 1);
    let places = case
        .producer()
        .send_all([Outgoing::without_key(r#"{"n":1}"#), Outgoing::without_key(r#"{"n":2}"#)]);

    let daemon = case.daemon("");
    case.until_finished(&daemon);

    case.assert_outcomes(places.iter().map(|place| (*place, "APPLIED")));
    assert_eq!(case.state("0/0").as_deref(), Some(r#"{"n": 1}"#));
    assert_eq!(case.state("0/1").as_deref(), Some(r#"{"n": 2}"#));
}

#[test]
fn the_admin_port_tells_how_it_goes() {
    let case = Case::new("admin_port", 2);
    case.producer().send_all((0..20).map(|n| Outgoing::new(&format!("k{n}"), "{}")));

    let daemon = case.daemon("");
    daemon.until_ready();
    case.until_finished(&daemon);

    assert_eq!(daemon.get("/live").0, 200);
    assert_eq!(daemon.get("/nowhere").0, 404);
    let status = daemon.status().to_string();
    assert!(status.contains(&case.topic), "/status names the topic: {status}");
    daemon.until("the metrics count what was applied", Duration::from_secs(10), || {
        counted(&daemon, "APPLIED") == 20
    });
}

#[test]
fn a_configuration_with_mistakes_ends_with_code_2_and_names_them_all() {
    let config = "[kafka]\nbroker = \"x\"\n[postgres]\nlanes = \"many\"\n";
    let (code, output, errors) = pgsluice(&["check"], Some(config), &[]);
    assert_eq!(code, Some(2), "{errors}");
    let printed = output + &errors;
    for part in ["broker", "lanes"] {
        assert!(printed.contains(part), "{part} is missing in: {printed}");
    }
}

#[test]
fn a_database_that_is_never_there_ends_the_start_with_code_3() {
    let case = Case::new("no_database", 1);
    case.expects(&["session_lost", "startup_timeout"]);
    let url = "postgres://postgres@127.0.0.1:9/nowhere";
    let daemon = case.daemon_with(
        "",
        &[("PGSLUICE__POSTGRES__URL", url), ("PGSLUICE__POSTGRES__STARTUP_TIMEOUT", "2s")],
    );
    assert_eq!(daemon.wait_exit(Duration::from_secs(30)), Some(3));
}
