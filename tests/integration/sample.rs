//! `pgsluice check --sample N`: what it shows of real records, and that nothing of it stays.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use pgsluice_testkit::case::{
    CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, EFFECTS, customer_event, renamed,
};
use pgsluice_testkit::daemon::pgsluice;
use pgsluice_testkit::kafka::{self, Outgoing, Place};

const NO_BOB: &str = "alter table customer add constraint no_bob check (note <> 'bob')";

/// Exit code and result of `check --sample`.
fn sample(config: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let arguments = [&["check", "--output", "json", "--sample"], arguments].concat();
    let (code, output, errors) = pgsluice(&arguments, Some(config), &[]);
    let result: Value = serde_json::from_str(&output)
        .unwrap_or_else(|error| panic!("{error} in the output: {output}\n{errors}"));
    (code, result)
}

fn records(result: &Value) -> &[Value] {
    result["sample"]["records"].as_array().unwrap_or_else(|| panic!("no sample in {result:#}"))
}

fn words<'a>(result: &'a Value, member: &str) -> Vec<&'a str> {
    records(result).iter().map(|record| record[member].as_str().unwrap_or("-")).collect()
}

fn offsets(result: &Value) -> Vec<(i64, i64)> {
    let number = |record: &Value, member| record[member].as_i64().expect("a number");
    records(result).iter().map(|r| (number(r, "partition"), number(r, "offset"))).collect()
}

#[track_caller]
fn assert_finding(result: &Value, level: &str, found: &str) {
    let findings = result["findings"].as_array().expect("findings");
    let says = |finding: &&Value| {
        finding["level"] == level
            && finding["found"].as_str().is_some_and(|text| text.contains(found))
    };
    assert!(findings.iter().any(|f| says(&f)), "no {level} that says {found:?} in {findings:#?}");
}

fn bob(version: i64) -> Outgoing {
    customer_event("sick", version, "e-bob", &json!({"newName": "Robert", "note": "bob"}))
}

#[test]
fn each_record_is_shown_with_its_route_verdict_and_effect_before_the_first_start() {
    let case = Case::unmigrated("sample_first", 1);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute(NO_BOB);
    let order = r#"{"eventId":"o1","eventType":"OrderPlaced","aggregateId":"o-1",
        "aggregateType":"Order","sequenceNumber":1,"timestamp":"2026-01-01T00:00:00Z"}"#;
    case.producer().send_all([
        renamed("well", 1),
        renamed("well", 2),
        renamed("sick", 1),
        bob(2),
        renamed("sick", 3),
        Outgoing::new("o-1", order),
        Outgoing::new("well", "{"),
        Outgoing::tombstone("well"),
    ]);

    let (code, result) = sample(&case.config(CUSTOMER_ROUTE), &["20"]);

    let verdicts = [
        "APPLIED",
        "APPLIED",
        "APPLIED",
        "DEAD_LETTERED",
        "PARKED",
        "DEAD_LETTERED",
        "DEAD_LETTERED",
        "SKIPPED",
    ];
    assert_eq!(words(&result, "verdict"), verdicts, "{result:#}");
    let reasons = [
        "-",
        "-",
        "-",
        "constraint_violation",
        "aggregate_parked",
        "unmatched",
        "json_syntax",
        "tombstone",
    ];
    assert_eq!(words(&result, "reason"), reasons);
    let first = &records(&result)[0];
    assert_eq!(first["event"]["aggregate_type"], "Customer");
    assert_eq!(first["event"]["event_type"], "CustomerRegistered");
    assert_eq!(first["event"]["version"], 1);
    assert_eq!(
        first["route"],
        json!({
            "index": 0, "name": "upsert public.customer", "kind": "upsert",
            "table": "public.customer",
        })
    );
    let columns = json!(["id", "name", "version"]);
    assert_eq!(first["write"]["columns"], columns, "the note is not in the event");
    let inserted = |table: &str| json!({"table": table, "inserted": 1, "updated": 0, "deleted": 0});
    assert!(first["rows"].as_array().unwrap().contains(&inserted("public.customer")), "{first:#}");
    // The second event of the aggregate finds what the first one did.
    let updated = json!({"table": "public.customer", "inserted": 0, "updated": 1, "deleted": 0});
    assert!(records(&result)[1]["rows"].as_array().unwrap().contains(&updated));
    let trouble = &records(&result)[3]["trouble"];
    assert_eq!(trouble["sqlstate"], "23514");
    assert_eq!(trouble["constraint"], "no_bob");
    assert_eq!(records(&result)[3]["letter_topic"], format!("{}-dlq", case.topic));
    assert_eq!(code, Some(0), "dead letters are a warning");
    assert_finding(&result, "warn", "4 of 8 would be dead letters");
    assert!(!result.to_string().contains("has a value for column"), "one event has a note");

    let schemas = "select count(*) from pg_namespace where nspname = 'pgsluice'";
    assert_eq!(case.database.count(schemas), 0, "a schema stayed");
    assert_eq!(case.database.count("select count(*) from customer"), 0, "rows stayed");
    assert_eq!(kafka::committed(&case.group, &case.topic, 0), None, "an offset was committed");
    assert_eq!(kafka::partition_count(&format!("{}-dlq", case.topic)), None);
}

/// Proves INV-9.
#[test]
fn a_sample_shows_no_value_of_a_record() {
    let case = Case::new("sample_values", 1);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute(NO_BOB);
    let payload = |note: &str| json!({"newName": "c4n4ry", "note": note});
    case.producer().send_all([
        customer_event("c4n4ry-1", 1, "c4n4ry-e1", &payload("c4n4ry")),
        customer_event("c4n4ry-1", 2, "c4n4ry-e2", &payload("bob")),
        customer_event("c4n4ry-1", 3, "c4n4ry-e3", &payload("c4n4ry")),
        Outgoing::new("c4n4ry", "c4n4ry"),
    ]);
    let config = case.config(CUSTOMER_ROUTE);
    for form in ["table", "json"] {
        let arguments = ["check", "--output", form, "--sample", "10"];
        let (code, output, errors) = pgsluice(&arguments, Some(&config), &[]);
        assert_eq!(code, Some(0), "{output}{errors}");
        assert!(output.contains("constraint_violation"), "{output}");
        assert!(!format!("{output}{errors}").contains("c4n4ry"), "{output}{errors}");
    }
}

#[test]
fn beside_a_running_daemon_a_sample_changes_nothing_and_says_what_is_done_already() {
    let case = Case::new("sample_running", 1);
    case.database.execute(CUSTOMER_TABLE);
    case.producer().send_all([renamed("a", 1), renamed("a", 2)]);
    let daemon = case.daemon(CUSTOMER_ROUTE);
    case.until_finished(&daemon);
    case.until_mirrored(&daemon);
    let before = case.fingerprint();
    let rebalances = || daemon.log().iter().filter(|l| l.contains("partitions_assigned")).count();
    let joined = rebalances();
    let config = case.config(CUSTOMER_ROUTE);

    let (code, done) = sample(&config, &["5", "--from", "earliest"]);
    let (_, next) = sample(&config, &["5"]);

    assert_eq!(code, Some(0));
    assert_eq!(words(&done, "verdict"), ["DUPLICATE", "DUPLICATE"], "{done:#}");
    assert_finding(&done, "ok", "1 member now");
    assert!(records(&next).is_empty());
    assert_finding(&next, "warn", "no record at or after the position");
    assert_eq!(case.fingerprint(), before);
    assert_eq!(rebalances(), joined, "the sample joined the group");
    daemon.stop();

    case.producer().send_all([renamed("a", 3), renamed("a", 2)]);
    let (_, next) = sample(&config, &["5"]);
    assert_eq!(words(&next, "verdict"), ["APPLIED", "STALE"], "{next:#}");
    assert_finding(&next, "warn", "none of 2 records has a value for column note");
    assert_eq!(case.fingerprint(), before);
    assert_eq!(kafka::committed(&case.group, &case.topic, 0), Some(2));
}

#[test]
fn what_triggers_write_is_shown_and_rolled_back_with_the_rest() {
    let case = Case::unmigrated("sample_trigger", 1);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute(EFFECTS);
    // A name without a schema means the role's search path, although our own tables are made first.
    case.database.execute("alter function remember() reset all");
    let remember = "create or replace function remember() returns trigger language plpgsql \
         security definer as $$ begin \
         insert into effect (id, version) values (new.id, new.version); return new; end $$";
    case.database.execute(remember);
    case.producer().send(renamed("a", 1));

    let (code, result) = sample(&case.config(CUSTOMER_ROUTE), &["1"]);

    assert_eq!(code, Some(0));
    assert_eq!(words(&result, "verdict"), ["APPLIED"], "{result:#}");
    let effect = json!({"table": "public.effect", "inserted": 1, "updated": 0, "deleted": 0});
    let rows = records(&result)[0]["rows"].as_array().unwrap();
    assert!(rows.contains(&effect), "{rows:#?}");
    assert_eq!(case.database.count("select count(*) from effect"), 0);
}

#[test]
fn neither_a_statement_nor_the_whole_sample_takes_long() {
    let case = Case::new("sample_slow", 1);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute(
        "create function dawdle() returns trigger language plpgsql as $$ begin \
           perform pg_sleep(case when new.id = 'stuck' then 9 else 1.2 end); return new; end $$; \
         create trigger dawdle before insert on customer for each row execute function dawdle()",
    );
    let ids = ["stuck", "a", "b", "c", "d", "e", "f", "g"];
    case.producer().send_all(ids.map(|id| renamed(id, 1)));

    let (code, result) = sample(&case.config(CUSTOMER_ROUTE), &["8"]);

    let verdicts = words(&result, "verdict");
    assert_eq!(code, Some(0));
    assert_eq!(verdicts[..2], ["would_retry", "APPLIED"], "{result:#}");
    assert_eq!(records(&result)[0]["trouble"]["sqlstate"], "57014");
    assert_eq!(verdicts[6..], ["not_tried", "not_tried"], "{verdicts:?}");
}

#[test]
fn a_row_that_somebody_holds_is_told_and_not_waited_for() {
    let case = Case::new("sample_locked", 1);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute("insert into customer values ('held', 'x', null, 0)");
    case.producer().send_all([renamed("held", 1), renamed("held", 2), renamed("free", 1)]);
    let mut holder = case.database.connect();
    holder.batch_execute("begin; select from customer where id = 'held' for update").unwrap();

    // The daemon's slow lane would wait.
    let patient = "[postgres]\nslow_lock_timeout = \"25s\"\n";
    let config = case.config(CUSTOMER_ROUTE).replace("[postgres]\n", patient);
    let began = Instant::now();
    let (code, result) = sample(&config, &["5"]);

    assert!(began.elapsed() < Duration::from_secs(20), "it waited");
    assert_eq!(words(&result, "verdict"), ["locked_now", "waits", "APPLIED"], "{result:#}");
    assert_eq!(code, Some(0));
    assert_finding(&result, "warn", "2 of 3 could not be decided now");
}

#[test]
fn a_sample_is_spread_over_the_partitions_and_begins_where_it_is_told() {
    let case = Case::new("sample_spread", 3);
    let producer = case.producer();
    for partition in 0..3_i64 {
        // The first partition has one record, the others ten.
        let count = if partition == 0 { 1 } else { 10 };
        let record = |n: i64| {
            Outgoing::new(&format!("k{n}"), "{}").on(i32::try_from(partition).unwrap()).at(1000 + n)
        };
        producer.send_all((0..count).map(record));
    }
    let config = case.config("");

    let (_, earliest) = sample(&config, &["5", "--from", "earliest"]);
    let (_, latest) = sample(&config, &["5", "--from", "latest"]);

    // In the order of their times, each partition in its own.
    assert_eq!(offsets(&earliest), [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1)]);
    assert_eq!(offsets(&latest), [(0, 0), (1, 8), (2, 8), (1, 9), (2, 9)]);
    assert_eq!(words(&latest, "verdict"), ["APPLIED"; 5]);
    assert_eq!(
        records(&latest)[0]["route"],
        json!({"index": null, "name": "document", "kind": "document", "table": null})
    );
}

#[test]
fn a_producers_clock_that_goes_back_does_not_reorder_a_partition() {
    let case = Case::new("sample_clock", 1);
    let record = |time| Outgoing::new("k", "{}").at(time);
    case.producer().send_all([2000, 1000, 1500].map(record));

    let (_, result) = sample(&case.config(""), &["5"]);

    assert_eq!(offsets(&result), [(0, 0), (0, 1), (0, 2)]);
    assert_eq!(words(&result, "verdict"), ["APPLIED"; 3]);
}

#[test]
fn a_sample_that_memory_cuts_short_says_so() {
    let case = Case::new("sample_large", 1);
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(20 * 1024));
    case.producer().send_all((0..10).map(|n| Outgoing::new(&format!("k{n}"), large.as_bytes())));
    let config = case.config(
        "[batch]\nmax_bytes = \"64KiB\"\n\
         [limits]\nin_flight_bytes = \"64KiB\"\nrecord_bytes = \"64KiB\"\n",
    );

    let (code, result) = sample(&config, &["10"]);

    assert_eq!(code, Some(0));
    assert!((1..10).contains(&records(&result).len()), "{result:#}");
    assert_finding(&result, "warn", "fit into limits.in_flight_bytes");
}

#[test]
fn aborted_records_are_no_part_of_a_sample_and_nobody_waits_for_more() {
    let case = Case::new("sample_aborted", 1);
    let producer = kafka::Producer::transactional(&case.topic);
    for (id, committed) in [("kept", true), ("dropped", false), ("also", true), ("gone", false)] {
        producer.begin();
        producer.send(Outgoing::new(id, "{}"));
        if committed { producer.commit() } else { producer.abort() }
    }

    let began = Instant::now();
    let (_, result) = sample(&case.config(""), &["10"]);

    assert_eq!(offsets(&result), [(0, 0), (0, 4)], "markers take offsets, too");
    // Less than reading may take where the end of the log is not noticed.
    assert!(began.elapsed() < Duration::from_secs(12), "it waited for records");
}

#[test]
fn a_record_that_would_halt_its_partition_is_a_failure() {
    let case = Case::new("sample_halt", 1);
    case.database.execute(CUSTOMER_TABLE);
    case.producer().send(Outgoing::new(
        "o-1",
        r#"{"eventId":"o1","eventType":"OrderPlaced",
        "aggregateId":"o-1","aggregateType":"Order","sequenceNumber":1}"#,
    ));
    let config = format!("on_unmatched = \"halt\"\n{}", case.config(CUSTOMER_ROUTE));

    let (code, result) = sample(&config, &["5"]);

    assert_eq!(code, Some(2));
    assert_eq!(words(&result, "verdict"), ["would_halt"]);
    assert_finding(&result, "fail", "1 of 1 would halt their partition: unmatched_halt 1");
}

#[test]
fn a_row_that_no_partition_takes_would_halt_and_one_that_is_taken_shows_its_partition() {
    let case = Case::new("sample_partitions", 1);
    case.database.execute(
        "create table customer (id text primary key, name text not null, note text, \
           version bigint not null) partition by list (id); \
         create table customer_a partition of customer for values in ('a')",
    );
    case.producer().send_all([renamed("a", 1), renamed("z", 1), renamed("z", 2)]);

    let (code, result) = sample(&case.config(CUSTOMER_ROUTE), &["5"]);

    assert_eq!(code, Some(2));
    assert_eq!(words(&result, "verdict"), ["APPLIED", "would_halt", "waits"], "{result:#}");
    assert_eq!(words(&result, "reason")[1], "schema_mismatch");
    let taken = json!({"table": "public.customer_a", "inserted": 1, "updated": 0, "deleted": 0});
    assert!(records(&result)[0]["rows"].as_array().unwrap().contains(&taken), "{result:#}");
}

#[test]
fn a_server_that_does_not_count_rows_is_believed_and_not_guessed_for() {
    let case = Case::new("sample_uncounted", 1);
    let name = &case.database.name;
    case.database.execute(&format!("alter database {name} set track_counts = off"));
    case.producer().send(Outgoing::new("a", "{}"));

    let (code, result) = sample(&case.config(""), &["5"]);

    assert_eq!((code, words(&result, "verdict")), (Some(0), vec!["APPLIED"]));
    assert_eq!(records(&result)[0]["rows"], Value::Null, "{result:#}");
}

#[test]
fn a_position_that_cannot_be_used_is_found_before_the_daemon_halts_on_it() {
    let case = Case::new("sample_position", 1);
    case.producer().send(renamed("a", 1));
    let nowhere = case.config("").replace("topics =", "start_from = \"error\"\ntopics =");
    let (code, result) = sample(&nowhere, &["5"]);
    assert_eq!(code, Some(2));
    assert_finding(&result, "fail", "no position is known");

    kafka::commit(&case.group, &case.topic, Place { partition: 0, offset: 99 });
    let (code, result) = sample(&case.config(""), &["5"]);
    assert_eq!(code, Some(2));
    assert_finding(&result, "fail", "log_changed");
    let (code, result) = sample(&case.config(""), &["5", "--from", "earliest"]);
    assert_eq!((code, records(&result).len()), (Some(0), 1));
}

#[test]
fn a_sample_that_cannot_be_tried_says_what_it_needs() {
    let case = Case::unmigrated("sample_needs", 1);
    case.producer().send(renamed("a", 1));
    let verify = case.config("").replace("\"auto\"", "\"verify\"");
    let (code, result) = sample(&verify, &["5"]);
    assert_eq!((code, &result["sample"]), (Some(2), &Value::Null));
    assert_finding(&result, "warn", "not taken: pgsluice's own tables");

    let (code, result) = sample(&case.config(CUSTOMER_ROUTE), &["5"]);
    assert_eq!((code, &result["sample"]), (Some(2), &Value::Null));
    assert_finding(&result, "warn", "not taken: the routes");
}
