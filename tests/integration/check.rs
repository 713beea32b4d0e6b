//! `pgsluice check --connect`: what it finds in front of real brokers and a real server, and that
//! it changes neither.

use serde_json::Value;

use crate::case::{CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, renamed};
use crate::support::daemon::pgsluice;
use crate::support::kafka;
use crate::support::process::free_port;

/// Exit code and findings of `check --connect`.
fn connect(config: &str, variables: &[(&str, &str)]) -> (Option<i32>, Vec<Value>) {
    let arguments = ["check", "--connect", "--output", "json"];
    let (code, output, errors) = pgsluice(&arguments, Some(config), variables);
    let result: Value = serde_json::from_str(&output)
        .unwrap_or_else(|error| panic!("{error} in the output: {output}\n{errors}"));
    (code, result["findings"].as_array().expect("findings").clone())
}

/// Whether there is a finding of that level about that subject that says so.
#[track_caller]
fn assert_finding(findings: &[Value], level: &str, subject: &str, found: &str) {
    let is = |finding: &Value, key: &str, text: &str| {
        finding[key].as_str().is_some_and(|value| value.contains(text))
    };
    let matches = |finding: &&Value| {
        finding["level"] == level && is(finding, "subject", subject) && is(finding, "found", found)
    };
    assert!(
        findings.iter().any(|finding| matches(&finding)),
        "no {level} about {subject:?} that says {found:?} in {findings:#?}"
    );
}

#[track_caller]
fn assert_nothing_failed(findings: &[Value]) {
    let failed = |finding: &&Value| finding["level"] == "fail" || finding["level"] == "unavailable";
    let failed: Vec<&Value> = findings.iter().filter(failed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_sound_configuration_is_proved_before_the_first_start_and_nothing_is_created() {
    let case = Case::unmigrated("check_sound", 3);
    case.database.execute(CUSTOMER_TABLE);

    let (code, findings) = connect(&case.config(CUSTOMER_ROUTE), &[]);

    assert_nothing_failed(&findings);
    assert_eq!(code, Some(0));
    assert_finding(&findings, "ok", "kafka.brokers", "1 answering");
    assert_finding(&findings, "ok", &case.topic, "3 partitions");
    assert_finding(&findings, "ok", "dead letter topic", "the first letter creates it");
    assert_finding(&findings, "ok", "schema pgsluice", "the first start migrates it");
    assert_finding(&findings, "ok", "routes", "1, all fit");
    let schemas = "select count(*) from pg_namespace where nspname = 'pgsluice'";
    assert_eq!(case.database.count(schemas), 0, "a schema was created");
    assert_eq!(kafka::partition_count(&format!("{}-dlq", case.topic)), None);
}

#[test]
fn what_a_running_daemon_uses_is_found_in_order_and_left_alone() {
    let case = Case::new("check_running", 1);
    case.producer().send(renamed("c1", 1));
    let daemon = case.daemon(crate::case::ENVELOPE);
    case.until_finished(&daemon);
    let before = case.fingerprint();

    let (code, findings) = connect(&case.config(crate::case::ENVELOPE), &[]);

    assert_nothing_failed(&findings);
    assert_eq!(code, Some(0));
    assert_finding(&findings, "ok", "group", "1 members now");
    assert_finding(&findings, "ok", "schema pgsluice", "version 2");
    assert_finding(&findings, "ok", "sink", "known");
    assert_eq!(case.fingerprint(), before);
    daemon.stop();
}

#[test]
fn everything_that_is_wrong_is_found_at_once_and_ends_with_code_2() {
    let case = Case::unmigrated("check_wrong", 2);
    case.database.execute(
        "create table customer (id text, name inet); create role reader login; \
         grant select on customer to reader",
    );
    let config = case.config(
        "[decode]\nformat = \"envelope\"\n[dead_letter]\ntopic = \"letters-nowhere\"\n\
         create_topic = false\n\
         [[route]]\naggregate_type = \"Customer\"\n[route.upsert]\ntable = \"public.customer\"\n\
         key = { id = \"aggregate_id\" }\ncolumns = { name = \"payload:/a\", b = \"payload:/b\" }\n\
         [[route]]\n[route.delete]\ntable = \"public.missing\"\nkey = { id = \"aggregate_id\" }\n",
    );
    let topics = format!("{},not-there", case.topic);
    let url = case.database.url_as("reader");

    let variables =
        [("PGSLUICE__KAFKA__TOPICS", topics.as_str()), ("PGSLUICE__POSTGRES__URL", url.as_str())];
    let (code, findings) = connect(&config, &variables);

    assert_eq!(code, Some(2));
    assert_finding(&findings, "fail", "topic not-there", "does not exist");
    assert_finding(&findings, "fail", "letters-nowhere", "create_topic is false");
    assert_finding(&findings, "fail", "schema pgsluice", "may not create them");
    assert_finding(&findings, "fail", "route[0]", "unique index on exactly (id)");
    assert_finding(&findings, "fail", "route[0]", "column name: type inet");
    assert_finding(&findings, "fail", "route[0]", "column b: no such column");
    assert_finding(&findings, "fail", "route[0]", "column id: permission denied");
    assert_finding(&findings, "fail", "route[1]", "public.missing: no such table");
}

#[test]
fn topics_that_lose_records_or_letters_are_warned_of() {
    let case = Case::new("check_topics", 3);
    let letters = kafka::topic("letters", 1);
    kafka::alter_topic(
        &case.topic,
        &[("cleanup.policy", "compact"), ("max.message.bytes", "33554432")],
    );
    kafka::alter_topic(&letters, &[("retention.ms", "3600000")]);

    let variables = [("PGSLUICE__DEAD_LETTER__TOPIC", letters.as_str())];
    let (code, findings) = connect(&case.config(crate::case::ENVELOPE), &variables);

    assert_eq!(code, Some(0), "warnings are no failures");
    assert_finding(&findings, "warn", &case.topic, "is compacted");
    assert_finding(&findings, "warn", &case.topic, "takes records of 33554432 bytes");
    assert_finding(&findings, "warn", &letters, "1 partitions");
    assert_finding(&findings, "warn", &letters, "keeps letters shorter");
    assert_finding(&findings, "warn", &letters, "takes records of");
}

#[test]
fn brokers_and_a_server_that_do_not_answer_are_both_named_with_code_3() {
    let case = Case::new("check_silent", 1);
    let brokers = format!("127.0.0.1:{}", free_port());
    let url = format!("postgres://postgres@127.0.0.1:{}/nowhere", free_port());

    let variables =
        [("PGSLUICE__KAFKA__BROKERS", brokers.as_str()), ("PGSLUICE__POSTGRES__URL", url.as_str())];
    let (code, findings) = connect(&case.config(""), &variables);

    assert_eq!(code, Some(3));
    assert_finding(&findings, "unavailable", "kafka.brokers", "no answer");
    assert_finding(&findings, "unavailable", "postgres.url", "connection lost");
}

#[test]
fn a_wrong_database_name_is_a_mistake_and_not_an_outage() {
    let case = Case::new("check_database", 1);
    let url = case.url().replace(&format!("/{}?", case.database.name), "/no_such_database?");

    let (code, findings) = connect(&case.config(""), &[("PGSLUICE__POSTGRES__URL", &url)]);

    assert_eq!(code, Some(2));
    assert_finding(&findings, "fail", "postgres.url", "there is no such database");
}

#[test]
fn settings_of_server_and_role_that_matter_are_found_beneath_our_own() {
    let case = Case::new("check_settings", 1);
    let config = case.config("");
    case.database.execute(&format!(
        "alter database {} set synchronous_commit = off; \
         alter database {0} set default_transaction_read_only = on",
        case.database.name
    ));

    let (code, findings) = connect(&config, &[]);

    assert_eq!(code, Some(2));
    assert_finding(&findings, "ok", "synchronous_commit", "off for others");
    assert_finding(&findings, "fail", "postgres server", "read-only");
    // The tests' server runs without it.
    assert_finding(&findings, "warn", "postgres fsync", "off");
}

#[test]
fn positions_that_belong_to_another_cluster_are_found() {
    let case = Case::new("check_cluster", 1);
    case.database.execute(&format!(
        "insert into pgsluice.sink_t (name, cluster_id) values ('{}', 'another')",
        case.group
    ));

    let (code, findings) = connect(&case.config(""), &[]);

    assert_eq!(code, Some(2));
    assert_finding(&findings, "fail", "sink", "belong to cluster another");
}
