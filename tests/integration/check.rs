//! `pgsluice check --connect`: what it finds in front of real brokers and a real server, and that
//! it changes neither.

use std::path::Path;

use serde_json::Value;

use crate::secured::{self, PASSWORD};
use crate::topics::all_but;
use pgsluice_testkit::case::{CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, renamed};
use pgsluice_testkit::certificates::Authority;
use pgsluice_testkit::daemon::pgsluice;
use pgsluice_testkit::kafka::{self, Place};
use pgsluice_testkit::postgres::{Postgres, first_here_then_there};
use pgsluice_testkit::process::free_port;

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
    let daemon = case.daemon(pgsluice_testkit::case::ENVELOPE);
    case.until_finished(&daemon);
    let before = case.fingerprint();

    let (code, findings) = connect(&case.config(pgsluice_testkit::case::ENVELOPE), &[]);

    assert_nothing_failed(&findings);
    assert_eq!(code, Some(0));
    assert_finding(&findings, "ok", "group", "1 member now");
    assert_finding(&findings, "ok", "schema pgsluice", "version ");
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
    assert_finding(
        &findings,
        "fail",
        "route upsert public.customer",
        "unique index on exactly (id)",
    );
    assert_finding(&findings, "fail", "route upsert public.customer", "column name: type inet");
    assert_finding(&findings, "fail", "route upsert public.customer", "column b: no such column");
    assert_finding(
        &findings,
        "fail",
        "route upsert public.customer",
        "columns id, name: permission denied",
    );
    assert_finding(
        &findings,
        "fail",
        "route delete public.missing",
        "public.missing: no such table",
    );
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
    let (code, findings) = connect(&case.config(pgsluice_testkit::case::ENVELOPE), &variables);

    assert_eq!(code, Some(0), "warnings are no failures");
    assert_finding(&findings, "warn", &case.topic, "is compacted");
    assert_finding(&findings, "warn", &case.topic, "accepts records of 33554432 bytes");
    assert_finding(&findings, "warn", &letters, "1 partition,");
    assert_finding(&findings, "warn", &letters, "keeps letters for less time");
    assert_finding(&findings, "warn", &letters, "accepts records of");
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
    assert_finding(&findings, "fail", "postgres.url", "3D000 (no such database)");
}

#[test]
fn settings_of_server_and_role_that_matter_are_found_beneath_our_own() {
    let case = Case::new("check_settings", 1);
    let config = case.config("");
    let name = &case.database.name;
    case.database.execute(&format!("alter database {name} set synchronous_commit = remote_apply"));
    let (code, findings) = connect(&config, &[]);
    assert_eq!(code, Some(0));
    assert_finding(&findings, "warn", "synchronous_commit", "remote_apply, but");

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

#[test]
fn short_retention_compacted_letters_and_a_topic_the_broker_would_not_make_are_found() {
    let case = Case::new("check_retention", 1);
    let letters = kafka::topic("compacted", 1);
    kafka::alter_topic(&case.topic, &[("retention.ms", "3600000")]);
    kafka::alter_topic(&letters, &[("cleanup.policy", "compact")]);

    let variables = [("PGSLUICE__DEAD_LETTER__TOPIC", letters.as_str())];
    let (code, findings) = connect(&case.config(""), &variables);
    assert_eq!(code, Some(0));
    assert_finding(&findings, "warn", &case.topic, "keeps records for 1h");
    assert_finding(&findings, "warn", &letters, "is compacted");

    // One broker cannot keep three copies.
    let variables = [("PGSLUICE__DEAD_LETTER__REPLICATION_FACTOR", "3")];
    let (code, findings) = connect(&case.config(""), &variables);
    assert_eq!(code, Some(2));
    let refused = "the broker would not create it: InvalidReplicationFactor";
    assert_finding(&findings, "fail", "dead letter topic", refused);
}

#[test]
fn a_group_that_another_application_uses_is_found() {
    let case = Case::new("check_group", 1);
    let _other = kafka::member(&case.group, &case.topic);

    let (code, findings) = connect(&case.config(""), &[]);

    assert_eq!(code, Some(2));
    assert_finding(&findings, "fail", &case.group, "members use another protocol");
}

#[test]
fn credentials_and_an_authority_that_the_brokers_refuse_are_mistakes_and_no_outage() {
    let case = Case::new("check_sasl", 1);
    let (address, authority) = kafka::secured();
    let check = |password: &str, authority: &Path| {
        connect(&case.config(""), &secured::variables(&address, password, authority))
    };

    assert_eq!(check(PASSWORD, &authority).0, Some(0));
    let (code, findings) = check("wrong", &authority);
    assert_eq!(code, Some(2));
    assert_finding(&findings, "fail", "kafka.brokers", "the credentials were rejected");
    let (code, findings) = check(PASSWORD, &Authority::create().certificate());
    assert_eq!(code, Some(2));
    assert_finding(&findings, "fail", "kafka.brokers", "no TLS connection");
}

#[test]
fn what_the_brokers_do_not_allow_the_user_is_found_topic_by_topic_and_for_the_group() {
    let case = Case::new("check_acl", 1);
    let unread = kafka::topic("check_unread", 1);
    let (address, authority) = kafka::secured();
    // The refused one first: what is said of it must not reach the next.
    let topics = format!("{unread},{}", case.topic);
    let mut variables = secured::variables(&address, PASSWORD, &authority).to_vec();
    variables.push(("PGSLUICE__KAFKA__TOPICS", topics.as_str()));
    all_but("DescribeConfigs", &case.topic);
    all_but("Read", &unread);

    let (code, findings) = connect(&case.config(""), &variables);

    assert_eq!(code, Some(2));
    assert_finding(&findings, "warn", &case.topic, "cannot read its settings");
    let refused = "cannot be read: TopicAuthorizationFailed";
    assert_finding(&findings, "fail", &unread, refused);
    assert_finding(&findings, "ok", "group", "does not exist yet");
    let failed = findings.iter().filter(|finding| finding["level"] == "fail").count();
    assert_eq!(failed, 1, "{findings:#?}");

    // Brokers do not show a group that the user may not see: it must not pass for a new one.
    let theirs = ["--group", &case.group, "--add", "--allow-principal", "User:other"];
    kafka::acls_tool(&[&theirs[..], &["--operation", "All"]].concat());
    let (code, findings) = connect(&case.config(""), &variables);
    assert_eq!(code, Some(2));
    assert_finding(&findings, "fail", &case.group, "GroupAuthorizationFailed");
}

#[test]
fn a_pattern_tells_how_many_topics_it_reads_without_our_own_dead_letters() {
    let case = Case::new("check_pattern", 1);
    kafka::create_topic(&format!("{}-dlq", case.topic), 1);
    let check = |pattern: &str| connect(&case.config(""), &[("PGSLUICE__KAFKA__TOPICS", pattern)]);

    let pattern = format!("^{}", case.topic);
    let (code, findings) = check(&pattern);
    assert_eq!(code, Some(0));
    assert_finding(&findings, "ok", &format!("topics {pattern}"), "matches 1");
    assert_finding(&findings, "ok", &format!("topic {}", case.topic), "1 partition");

    // Kafka's own are never meant: there are some once a group has committed.
    kafka::commit(&case.group, &case.topic, Place { partition: 0, offset: 0 });
    for nothing in ["^no_such_topic", "^__consumer_offsets"] {
        let (code, findings) = check(nothing);
        assert_eq!(code, Some(0));
        assert_finding(&findings, "warn", &format!("topics {nothing}"), "matches no topic yet");
    }
}

#[test]
fn tables_that_are_missing_or_newer_are_told_of_where_a_run_would_not_make_them() {
    let case = Case::unmigrated("check_tables", 1);
    let config = case.config("");
    let (code, findings) = connect(&config, &[("PGSLUICE__POSTGRES__MIGRATE", "verify")]);
    assert_eq!(code, Some(2));
    assert_finding(&findings, "fail", "schema pgsluice", "no tables yet");

    let case = Case::new("check_newer", 1);
    case.database.execute("update pgsluice.schema_t set version = 99, min_binary = 99");
    let (code, findings) = connect(&case.config(""), &[]);
    assert_eq!(code, Some(2));
    assert_finding(&findings, "fail", "schema pgsluice", "needs a pgsluice that knows at least");
}

#[test]
fn a_brokers_name_that_does_not_resolve_is_told_of() {
    let case = Case::new("check_name", 1);
    let brokers = [("PGSLUICE__KAFKA__BROKERS", "no-such-host.invalid:9092")];

    let (code, findings) = connect(&case.config(""), &brokers);

    assert_eq!(code, Some(3));
    assert_finding(&findings, "unavailable", "kafka.brokers", "host name not found");
}

#[test]
fn other_roles_connections_count_where_the_databases_room_is_asked_for() {
    let case = Case::new("check_room", 1);
    let role = format!("room_{}", case.database.name);
    case.database.execute(&format!(
        "create role {role} login; alter database {} connection limit 13",
        case.database.name
    ));
    let config = case.config("");
    let room = || {
        let (_, findings) =
            connect(&config, &[("PGSLUICE__POSTGRES__URL", &case.database.url_as(&role))]);
        findings.into_iter().find(|finding| finding["subject"] == "postgres connections")
    };

    assert_eq!(room(), None);
    let _others: Vec<_> = (0..6).map(|_| case.database.connect()).collect();
    assert_eq!(room().expect("a warning")["level"], "warn");
}

#[test]
fn a_server_without_the_tls_that_is_asked_for_is_a_mistake_and_no_outage() {
    let case = Case::new("check_tls", 1);
    let url = case.database.url_with("sslmode=require");
    let (code, findings) = connect(&case.config(""), &[("PGSLUICE__POSTGRES__URL", &url)]);
    assert_eq!(code, Some(2));
    assert_finding(&findings, "fail", "postgres.url", "the server does not support it");
}

#[test]
fn what_the_role_lacks_on_pgsluices_own_tables_is_named_table_by_table() {
    let case = Case::new("check_grants", 1);
    let role = format!("lacking_{}", case.database.name);
    let url = case.database.url_as(&role);
    let variables = [("PGSLUICE__POSTGRES__URL", url.as_str())];

    case.database.execute(&format!("create role {role} login connection limit 4"));
    let (code, findings) = connect(&case.config(""), &variables);
    assert_eq!(code, Some(2));
    assert_finding(&findings, "fail", "schema pgsluice", "sqlstate 42501");
    // Lanes, slow lane, lead and one more do not fit.
    assert_finding(&findings, "warn", "postgres connections", "4 are free");

    case.database.execute(&format!(
        "grant usage on schema pgsluice to {role}; \
         grant select, insert, update on all tables in schema pgsluice to {role}; \
         revoke insert on pgsluice.dead_letter_t from {role}"
    ));
    let (code, findings) = connect(&case.config(""), &variables);
    assert_eq!(code, Some(2));
    assert_finding(&findings, "fail", "pgsluice.dead_letter_t", "the role may not insert");
}

#[test]
fn a_database_that_is_not_utf8_and_a_standby_are_refused() {
    let case = Case::new("check_encoding", 1);
    let name = format!("{}_ascii", case.database.name);
    case.database.execute(&format!(
        "create database {name} encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C' template template0"
    ));
    let url =
        case.database.url().replace(&format!("/{}?", case.database.name), &format!("/{name}?"));
    let (code, findings) = connect(&case.config(""), &[("PGSLUICE__POSTGRES__URL", &url)]);
    assert_eq!(code, Some(2));
    assert_finding(&findings, "fail", "postgres encoding", "SQL_ASCII");

    let server = Postgres::own();
    let case = Case::on(&server, "check_standby", 1);
    let config = case.config("");
    server.stop();
    server.start_as_standby();
    let (code, findings) = connect(&config, &[]);
    assert_eq!(code, Some(2));
    assert_finding(&findings, "fail", "postgres server", "is a standby");
}

#[test]
fn an_address_that_leads_to_several_servers_is_found() {
    let case = Case::new("check_pooler", 1);
    let other = Postgres::own();
    let elsewhere = other.database("elsewhere");
    elsewhere.execute(&format!("create database {}", case.database.name));
    let port = first_here_then_there(&case.database, &elsewhere);
    let url = format!("postgres://postgres@127.0.0.1:{port}/{}", case.database.name);

    let (code, findings) = connect(&case.config(""), &[("PGSLUICE__POSTGRES__URL", &url)]);

    assert_eq!(code, Some(2));
    let found = "does not see the first one's session lock";
    assert_finding(&findings, "fail", "postgres session", found);
    assert_finding(&findings, "ok", "clock", "in step");
}
