//! One bad event in the middle: it alone is dead-lettered, what follows of its aggregate is parked,
//! everything else goes on (INV-6, INV-7, INV-8).

use serde_json::json;

use pgsluice_testkit::case::{
    CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, ENVELOPE, SETTLING, customer_event, renamed,
};
use pgsluice_testkit::daemon::Daemon;
use pgsluice_testkit::kafka::{self, Incoming, Outgoing, Place};

/// Event 3 of `sick` with a note that the tests' constraints refuse. The events after it leave the
/// note alone: a value that a later event of the same group overwrites would never be written.
fn refused_note() -> Outgoing {
    customer_event("sick", 3, "sick-3", &json!({"newName": "sick 3", "note": "bob"}))
}

const NO_BOB: &str = "alter table customer add constraint no_bob check (note <> 'bob')";

/// Five events of one aggregate with a bad third one, among those of two others.
fn with_poison_in_the_middle(poison: Outgoing) -> Vec<Outgoing> {
    let mut records = Vec::new();
    for version in 1..=5 {
        records.push(renamed("before", version));
        records.push(if version == 3 { poison.clone() } else { renamed("sick", version) });
        records.push(renamed("well", version));
    }
    records
}

/// The outcome each of those records must have.
fn assert_isolated(case: &Case, places: &[Place]) {
    let expected = places.iter().enumerate().map(|(n, place)| {
        let (version, aggregate) = (n / 3 + 1, n % 3);
        let status = match version {
            3 if aggregate == 1 => "DEAD_LETTERED",
            4.. if aggregate == 1 => "PARKED",
            _ => "APPLIED",
        };
        (*place, status)
    });
    case.assert_outcomes(expected);
    assert_eq!(case.version("sick"), Some(2));
    assert_eq!(case.version("before"), Some(5));
    assert_eq!(case.version("well"), Some(5));
    let parked = "select count(*) from pgsluice.aggregate_t where parked_at is not null";
    assert_eq!(case.database.count(parked), 1);
}

#[test]
fn the_log_tells_of_every_dead_letter_before_the_process_ends() {
    let case = Case::new("told", 1);
    case.expects(&["dead_letters"]);
    let daemon = case.daemon(ENVELOPE);
    for key in ["a", "b", "c"] {
        // One after the other: only the first has a line at once.
        case.producer().send(Outgoing::new(key, "{"));
        case.until_finished(&daemon);
    }
    daemon.stop();

    let told = daemon.log().into_iter().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(&line).ok()?;
        (line["event"] == "dead_letters").then(|| line["dead_lettered"].as_u64())?
    });
    assert_eq!(told.sum::<u64>(), 3, "{:?}", daemon.log());
}

/// Waits for the dead letter topic to hold that many records and reads them.
fn dead_letters(case: &Case, daemon: &Daemon, count: usize) -> Vec<Incoming> {
    let topic = format!("{}-dlq", case.topic);
    daemon.until("the dead letter topic holds everything", SETTLING, || {
        kafka::read_all(&topic).len() >= count
    });
    let found = kafka::read_all(&topic);
    assert_eq!(found.len(), count, "records in {topic}");
    found
}

/// Proves INV-8.
#[test]
fn a_row_that_violates_a_check_is_isolated_in_the_middle_of_its_aggregate() {
    let case = Case::new("check_violation", 1);
    case.expects(&["dead_letters"]);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute(NO_BOB);
    let places = case.producer().send_all(with_poison_in_the_middle(refused_note()));

    let daemon = case.daemon(CUSTOMER_ROUTE);
    case.until_finished(&daemon);

    assert_isolated(&case, &places);
    let letter = "select reason, sqlstate, constraint_name, disposition from pgsluice.dead_letter_t \
                  order by \"offset\"";
    let letters = case.database.rows(letter);
    let first: Vec<_> = letters[0].iter().flatten().map(String::as_str).collect();
    assert_eq!(first, ["constraint_violation", "23514", "no_bob", "poison"]);
    assert_eq!(letters[1][3].as_deref(), Some("parked"));
    let name = case.database.text("select name from customer where id = 'sick'");
    assert_eq!(name.as_deref(), Some("sick 2"));
}

#[test]
fn a_deferred_constraint_is_isolated_although_it_speaks_at_commit() {
    let case = Case::new("deferred", 1);
    case.expects(&["dead_letters"]);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute(
        "create table allowed (note text primary key); \
         alter table customer add constraint known foreign key (note) references allowed (note) \
           deferrable initially deferred",
    );
    let places = case.producer().send_all(with_poison_in_the_middle(refused_note()));

    let daemon = case.daemon(CUSTOMER_ROUTE);
    case.until_finished(&daemon);

    assert_isolated(&case, &places);
    let constraint =
        "select constraint_name from pgsluice.dead_letter_t where disposition = 'poison'";
    assert_eq!(case.database.text(constraint).as_deref(), Some("known"));
}

/// Proves INV-8.
#[test]
fn poison_late_in_an_aggregates_life_parks_what_comes_later() {
    let case = Case::new("later_poison", 1);
    case.expects(&["dead_letters"]);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute(NO_BOB);
    let producer = case.producer();
    let daemon = case.daemon(CUSTOMER_ROUTE);

    // Each record is finished before the next one is sent.
    let places: Vec<Place> = with_poison_in_the_middle(refused_note())
        .into_iter()
        .map(|record| {
            let place = producer.send(record);
            daemon.until("the record is finished", SETTLING, || {
                case.progress(0) == Some(place.offset + 1)
            });
            place
        })
        .collect();

    assert_isolated(&case, &places);
    assert_eq!(case.reason(places[10]).as_deref(), Some("aggregate_parked"));
}

#[test]
fn a_value_that_is_not_json_parks_the_aggregate_its_key_names() {
    let case = Case::new("bad_json", 1);
    case.expects(&["dead_letters"]);
    let places = case.producer().send_all([
        Outgoing::new("sick", r#"{"n":1}"#),
        Outgoing::new("sick", r#"{"n":2"#),
        Outgoing::new("well", r#"{"n":1}"#),
        Outgoing::new("sick", r#"{"n":3}"#),
    ]);

    let daemon = case.daemon("");
    case.until_finished(&daemon);

    case.assert_outcomes([
        (places[0], "APPLIED"),
        (places[1], "DEAD_LETTERED"),
        (places[2], "APPLIED"),
        (places[3], "PARKED"),
    ]);
    assert_eq!(case.reason(places[1]).as_deref(), Some("json_syntax"));
    assert_eq!(case.state("sick").as_deref(), Some(r#"{"n": 1}"#));
}

#[test]
fn an_event_that_lacks_a_field_is_isolated() {
    let case = Case::new("missing_field", 1);
    case.expects(&["dead_letters"]);
    let untyped = r#"{"eventId":"x","aggregateId":"sick","aggregateType":"Customer",
        "sequenceNumber":3,"timestamp":"2026-01-01T00:00:00Z"}"#;
    let places =
        case.producer().send_all(with_poison_in_the_middle(Outgoing::new("sick", untyped)));

    let daemon = case.daemon(ENVELOPE);
    case.until_finished(&daemon);

    assert_isolated(&case, &places);
    assert_eq!(case.reason(places[7]).as_deref(), Some("field_missing"));
}

#[test]
fn an_event_whose_aggregate_cannot_be_told_is_dead_lettered_alone() {
    let case = Case::new("no_aggregate", 1);
    case.expects(&["dead_letters"]);
    let places = case.producer().send_all([
        Outgoing::without_key("not json"),
        renamed("well", 1),
        Outgoing::without_key("not json either"),
    ]);

    let daemon = case.daemon(ENVELOPE);
    case.until_finished(&daemon);

    case.assert_outcomes([
        (places[0], "DEAD_LETTERED"),
        (places[1], "APPLIED"),
        (places[2], "DEAD_LETTERED"),
    ]);
    assert_eq!(case.database.count("select count(*) from pgsluice.aggregate_t"), 1);
}

/// Proves INV-6.
#[test]
fn the_dead_letter_topic_holds_the_originals_byte_for_byte_and_in_order() {
    let case = Case::new("letters", 3);
    case.expects(&["dead_letters"]);
    let originals = [
        Outgoing::new("k", vec![0xff, 0x00, b'{'])
            .header("trace", Some(b"1"))
            .header("trace", None)
            .header("empty", Some(b""))
            .on(2)
            .at(1_700_000_000_123),
        Outgoing::new("k", "{}").on(2).at(1_700_000_000_124),
        Outgoing::tombstone("k").header("last", Some(&[0xfe])).on(2).at(1_700_000_000_125),
    ];
    case.producer().send_all(originals);
    let sent = kafka::read_all(&case.topic);

    let daemon = case.daemon("");
    case.until_finished(&daemon);
    let letters = dead_letters(&case, &daemon, 3);

    // The topic was created with as many partitions as the source has.
    assert_eq!(kafka::partition_count(&format!("{}-dlq", case.topic)), Some(3));
    for (letter, original) in letters.iter().zip(&sent) {
        assert_eq!(letter.partition, original.partition);
        assert_eq!((&letter.key, &letter.value), (&original.key, &original.value));
        assert_eq!(letter.timestamp, original.timestamp);
        assert_eq!(letter.headers[..original.headers.len()], original.headers[..]);
        let context = |name: &str| letter.header(name);
        assert_eq!(context("__connect.errors.topic").as_deref(), Some(case.topic.as_str()));
        assert_eq!(context("__connect.errors.partition").as_deref(), Some("2"));
        assert_eq!(context("__connect.errors.offset"), Some(original.offset.to_string()));
        assert_eq!(context("pgsluice.group").as_deref(), Some(case.group.as_str()));
        assert_eq!(context("pgsluice.aggregate.id").as_deref(), Some("k"));
    }
    let header = |n: usize, name: &str| letters[n].header(name);
    assert_eq!(header(0, "pgsluice.disposition").as_deref(), Some("poison"));
    assert_eq!(header(0, "pgsluice.reason").as_deref(), Some("json_syntax"));
    assert_eq!(header(1, "pgsluice.disposition").as_deref(), Some("parked"));
    assert_eq!(header(2, "pgsluice.disposition").as_deref(), Some("parked"));
}

/// Proves INV-4.
#[test]
fn dead_letters_and_parked_records_delivered_again_stay_what_they_are() {
    let case = Case::new("letters_again", 1);
    case.expects(&["dead_letters"]);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute(NO_BOB);
    let places = case.producer().send_all(with_poison_in_the_middle(refused_note()));
    let daemon = case.daemon(CUSTOMER_ROUTE);
    case.until_finished(&daemon);
    dead_letters(&case, &daemon, 3);
    daemon.stop();
    let before = case.fingerprint();

    // WHEN the cause is gone and everything is delivered again
    case.database.execute("alter table customer drop constraint no_bob");
    crate::order::rewind_progress(&case);
    let daemon = case.daemon(CUSTOMER_ROUTE);
    case.until_finished(&daemon);

    // THEN nothing is applied behind the operator's back, and nothing is published twice
    assert_eq!(case.fingerprint(), before);
    assert_isolated(&case, &places);
    dead_letters(&case, &daemon, 3);
}

/// Proves INV-9.
#[test]
fn no_value_of_an_event_reaches_log_notification_or_dead_letter_headers() {
    let case = Case::new("secrecy", 1);
    case.expects(&["dead_letters"]);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute("alter table customer add constraint short check (length(name) < 20)");
    let canary = "canary-4711-and-much-longer-than-20";
    let places = case.producer().send_all([
        customer_event("c1", 1, "e1", &json!({"newName": canary})),
        Outgoing::new("c2", format!("{{\"{canary}\"")),
        customer_event("c3", 1, "e3", &json!({"newName": {"nested": canary}})),
    ]);

    let daemon = case.daemon_with(CUSTOMER_ROUTE, &[("PGSLUICE__LOG__LEVEL", "debug")]);
    case.until_finished(&daemon);
    let letters = dead_letters(&case, &daemon, 3);

    case.assert_outcomes(places.iter().map(|place| (*place, "DEAD_LETTERED")));
    assert!(!daemon.log().iter().any(|line| line.contains(canary)), "in the log");
    assert!(!daemon.get("/metrics").1.contains(canary), "in the metrics");
    assert!(!daemon.get("/status").1.contains(canary), "in the status");
    let rows = case.database.rows("select n::text from pgsluice.notification_t n");
    assert!(!format!("{rows:?}").contains(canary), "in a notification");
    for letter in letters {
        assert!(
            !letter.headers.iter().any(|(name, _)| {
                letter.header(name).is_some_and(|value| value.contains(canary))
            })
        );
    }
}
