//! Topics that are missing or may not be read or written: named in the log, in `/status` and by
//! `/ready`, nothing is lost, and work goes on by itself once that is mended.

use std::time::Duration;

use crate::secured::{PASSWORD, daemon as secured_daemon};
use pgsluice_testkit::case::{Case, ENVELOPE, SETTLING, renamed};
use pgsluice_testkit::daemon::Daemon;
use pgsluice_testkit::kafka::{self, Outgoing};
use pgsluice_testkit::wait;

/// Waits until the topic is refused with that code, in all places where an operator looks.
#[track_caller]
fn until_refused(daemon: &Daemon, topic: &str, code: &str) {
    daemon.until("/status names topic and code", SETTLING, || {
        daemon.status()["kafka"]["refused"][topic] == code
    });
    daemon.until("a line names them", SETTLING, || {
        let words = ["\"topic_refused\"", "\"ERROR\"", topic, code];
        daemon.log().iter().any(|line| words.iter().all(|word| line.contains(word)))
    });
    assert!(daemon.metric("pgsluice_topics_refused", &[]) > 0.5);
    daemon.until("it is not ready", SETTLING, || daemon.get("/ready").0 == 503);
    assert_eq!(daemon.get("/live").0, 200);
}

/// Waits until nothing is refused any more and everything is applied.
#[track_caller]
fn until_read_on(case: &Case, daemon: &Daemon, applied: usize) {
    case.until_finished(daemon);
    daemon.until("nothing is refused", SETTLING, || {
        daemon.status()["kafka"]["refused"] == serde_json::json!({})
            && daemon.metric("pgsluice_topics_refused", &[]) < 0.5
            && daemon.get("/ready").0 == 200
    });
    assert_eq!(case.count("APPLIED"), applied);
    case.assert_no_letters();
}

#[test]
fn a_topic_that_is_missing_at_start_is_named_and_read_once_it_is_there() {
    let case = Case::new("no_topic", 1);
    case.expects(&["topic_refused"]);
    kafka::delete_topic(&case.topic);
    let daemon = case.daemon(ENVELOPE);
    until_refused(&daemon, &case.topic, "UnknownTopicOrPartition");

    kafka::create_topic(&case.topic, 1);
    case.producer().send(renamed("c", 1));
    until_read_on(&case, &daemon, 1);
    daemon.stop();
}

#[test]
fn a_topic_that_is_deleted_under_way_is_named() {
    let case = Case::new("deleted_topic", 1);
    case.expects(&["topic_refused"]);
    case.producer().send(renamed("c", 1));
    // How long librdkafka takes a topic that vanished for a broker's slip: 30 s by default.
    let soon = [("PGSLUICE__KAFKA__PROPERTIES__TOPIC_METADATA_PROPAGATION_MAX_MS", "1000")];
    let daemon = case.daemon_with(ENVELOPE, &soon);
    case.until_finished(&daemon);

    kafka::delete_topic(&case.topic);

    until_refused(&daemon, &case.topic, "UnknownTopicOrPartition");
    assert_eq!(case.count("APPLIED"), 1);
    assert_eq!(case.progress(0), Some(1));
    daemon.stop();
}

/// ACLs of the daemon's user on a topic: everything, but for `operation`.
pub(crate) fn all_but(operation: &str, topic: &str) {
    let user = ["--topic", topic, "--add"];
    let allow = ["--allow-principal", "User:pgsluice", "--operation", "All"];
    kafka::acls_tool(&[&user[..], &allow[..]].concat());
    let deny = ["--deny-principal", "User:pgsluice", "--operation", operation];
    kafka::acls_tool(&[&user[..], &deny[..]].concat());
}

/// Everything again.
fn all(topic: &str) {
    kafka::acls_tool(&["--topic", topic, "--remove", "--force"]);
}

#[test]
fn a_topic_that_may_not_be_read_any_more_is_named_and_read_on_once_it_may() {
    let case = Case::new("acl_read", 1);
    case.expects(&["topic_refused"]);
    let producer = case.producer();
    producer.send(renamed("c", 1));
    let daemon = secured_daemon(&case, PASSWORD, &kafka::secured().1);
    case.until_finished(&daemon);

    all_but("Read", &case.topic);
    until_refused(&daemon, &case.topic, "TopicAuthorizationFailed");
    producer.send(renamed("c", 2));
    wait::stays("it is not read", Duration::from_secs(2), || case.count("APPLIED") == 1);

    all(&case.topic);
    until_read_on(&case, &daemon, 2);
    daemon.stop();
}

#[test]
fn a_topic_that_is_hidden_at_start_is_named_and_read_once_it_is_shown() {
    let case = Case::new("acl_describe", 1);
    case.expects(&["topic_refused"]);
    case.producer().send(renamed("c", 1));
    all_but("Describe", &case.topic);
    let daemon = secured_daemon(&case, PASSWORD, &kafka::secured().1);
    until_refused(&daemon, &case.topic, "TopicAuthorizationFailed");

    all(&case.topic);
    until_read_on(&case, &daemon, 1);
    daemon.stop();
}

#[test]
fn a_dead_letter_topic_that_may_not_be_written_is_named_and_gets_its_letters_once_it_may() {
    let case = Case::new("acl_write", 1);
    case.expects(&["dead_letters", "letters_stuck"]);
    let letters = format!("{}-dlq", case.topic);
    kafka::create_topic(&letters, 1);
    all_but("Write", &letters);
    let places = case.producer().send_all([Outgoing::new("sick", "{"), renamed("well", 1)]);
    let daemon = secured_daemon(&case, PASSWORD, &kafka::secured().1);
    case.until_finished(&daemon);

    let told = format!("{letters}: TopicAuthorizationFailed");
    daemon.until("/status names topic and code", SETTLING, || {
        daemon.status()["letters"]["last_error"] == told
    });
    daemon.until("a line names them", SETTLING, || {
        let words = ["\"letters_stuck\"", &letters, "TopicAuthorizationFailed"];
        daemon.log().iter().any(|line| words.iter().all(|word| line.contains(word)))
    });
    let unpublished = "select count(*) from pgsluice.dead_letter_t where published_at is null";
    assert_eq!(case.database.count(unpublished), 1);

    all(&letters);
    daemon.until("the letter is published", SETTLING, || kafka::read_all(&letters).len() == 1);
    daemon.until("the letter is marked", SETTLING, || case.database.count(unpublished) == 0);
    daemon
        .until("nothing is wrong", SETTLING, || daemon.status()["letters"]["last_error"].is_null());
    case.assert_outcomes(places.into_iter().zip(["DEAD_LETTERED", "APPLIED"]));
    daemon.stop();
}
