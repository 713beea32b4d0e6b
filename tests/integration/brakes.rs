//! What limits dead letters, stale events, parked records and retries on real servers: the partition
//! halts, says why, and goes on once the cause is mended or an operator said that it may.

use std::time::Duration;

use serde_json::{Value, json};

use crate::halts::until_halted;
use pgsluice_testkit::case::{CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, ENVELOPE, SETTLING, renamed};
use pgsluice_testkit::daemon::{Daemon, pgsluice};
use pgsluice_testkit::kafka::Outgoing;
use pgsluice_testkit::wait::stays;

/// Three aggregates within the window; even a busy machine writes more letters in that time.
const FLOOD: &str = "[dead_letter]\nflood = { aggregates = 3, share = 1.0, window = \"5s\" }\n";
const BEYOND_THE_WINDOW: Duration = Duration::from_secs(6);
const LETTERS: &str = "select count(*) from pgsluice.dead_letter_t";
const SENT: i64 = 30;

/// A table that refuses every event, and so many of them, each of another aggregate.
fn flooded(name: &str) -> (Case, Daemon) {
    let case = Case::new(name, 1);
    case.expects(&["dead_letters", "partition_halted"]);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute("alter table customer add constraint strict check (length(name) > 99)");
    case.producer().send_all((0..SENT).map(|n| renamed(&format!("c{n}"), 1)));
    let daemon = case.daemon(&format!("{CUSTOMER_ROUTE}{FLOOD}"));
    until_halted(
        &daemon,
        "dead_letter_flood",
        &["route upsert public.customer", "dead_letter.flood"],
    );
    (case, daemon)
}

/// Runs `pgsluice resume` and reads its JSON.
#[track_caller]
fn resume(case: &Case, arguments: &[&str]) -> Value {
    resume_as(case, "", arguments)
}

/// The same with a configuration.
#[track_caller]
fn resume_as(case: &Case, config: &str, arguments: &[&str]) -> Value {
    let arguments = [&["resume", "--output", "json"], arguments].concat();
    let (code, output, errors) = pgsluice(&arguments, Some(&case.config(config)), &[]);
    assert_eq!(code, Some(0), "{output}{errors}");
    serde_json::from_str(&output).expect("JSON")
}

/// How often the partition was taken.
fn takes(case: &Case) -> i64 {
    case.database.count("select owner_epoch from pgsluice.stream_t")
}

#[test]
fn a_flood_of_dead_letters_is_stopped_until_the_table_is_mended() {
    let (case, daemon) = flooded("flood");
    let letters = case.database.count(LETTERS);
    assert!((3..10).contains(&letters), "{letters} letters");
    let brakes = resume(&case, &[]);
    assert_eq!(brakes["brakes"][0]["kind"], "dead_letters");
    assert_eq!(brakes["brakes"][0]["route"], "upsert public.customer");
    assert_eq!(brakes["accepted"], json!([]));

    // The brake holds longer than its window, and through every new attempt.
    let before = takes(&case);
    stays("no letter more", BEYOND_THE_WINDOW, || case.database.count(LETTERS) == letters);
    daemon.until("it was tried again and again", SETTLING, || takes(&case) >= before + 2);
    assert_eq!(case.database.count(LETTERS), letters);

    case.database.execute("alter table customer drop constraint strict");
    case.until_finished(&daemon);
    assert_eq!(case.count("APPLIED"), usize::try_from(SENT - letters).unwrap());
    assert_eq!(case.database.count(LETTERS), letters);
    daemon.until("the halt is over", SETTLING, || {
        daemon.metric("pgsluice_partition_halted", &[]) < 0.5
    });
    assert_eq!(resume(&case, &[])["brakes"], json!([]));
    let told = daemon.log().iter().filter(|line| line.contains("\"partition_halted\"")).count();
    assert_eq!(told, 1, "a halt is told once");
    daemon.stop();
}

#[test]
fn dead_letters_that_an_operator_accepts_are_written() {
    let (case, daemon) = flooded("flood_accepted");
    let only = ["--accept-dead-letters", "--for", "5m", "--route", "upsert public.customer"];
    let accepted = resume_as(&case, CUSTOMER_ROUTE, &only);
    assert_eq!(accepted["accepted"][0]["kind"], "dead_letters");
    assert_eq!(accepted["accepted"][0]["route"], "upsert public.customer");

    case.until_finished(&daemon);
    assert_eq!(case.count("DEAD_LETTERED"), usize::try_from(SENT).unwrap());
    assert_eq!(case.database.count(LETTERS), SENT);
    daemon.stop();
}

#[test]
fn a_resume_that_cannot_be_meant_is_refused() {
    let case = Case::unmigrated("resume_refused", 1);
    let run = |arguments: &[&str]| {
        let (code, output, errors) = pgsluice(arguments, Some(&case.config("")), &[]);
        (code, format!("{output}{errors}"))
    };
    let (code, text) = run(&["resume"]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("pgsluice migrate"), "{text}");

    assert_eq!(run(&["migrate"]).0, Some(0));
    let (code, text) = run(&["resume"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("kafka.group"), "{text}");

    let (code, text) = run(&["resume", "--accept-stale", "--route", "customers"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("no route \"customers\""), "{text}");
    assert!(text.contains("has \"document\""), "{text}");
    let (code, text) = run(&["resume", "--accept-stale", "--for", "90d"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("1s to 30d"), "{text}");
}

#[test]
fn a_wrong_version_pointer_does_not_drop_events_in_silence() {
    let case = Case::new("stale_flood", 1);
    case.expects(&["partition_halted"]);
    let brake = "[dead_letter]\nstale_flood = { events = 5, share = 1.0, window = \"10m\" }\n";
    let producer = case.producer();
    producer.send(renamed("c", 100));
    producer.send_all((1..=20).map(|version| renamed("c", version)));
    let daemon = case.daemon(&format!("{ENVELOPE}{brake}"));
    until_halted(&daemon, "stale_flood", &["route document", "dead_letter.stale_flood"]);
    assert!(case.count("STALE") <= 5, "{} stale", case.count("STALE"));

    let accepted = resume(&case, &["--accept-stale"]);
    assert_eq!(accepted["brakes"][0]["kind"], "stale");
    case.until_finished(&daemon);
    assert_eq!(case.count("STALE"), 20);
    assert_eq!(case.database.count(LETTERS), 0);
    daemon.stop();
}

#[test]
fn parked_records_are_limited() {
    let case = Case::new("parking_full", 1);
    case.expects(&["dead_letters", "partition_halted"]);
    let producer = case.producer();
    producer.send(Outgoing::new("c", "no JSON"));
    producer.send_all((0..6).map(|n| Outgoing::new("c", format!("{{\"n\":{n}}}"))));
    producer.send(Outgoing::new("other", "{}"));
    let daemon =
        case.daemon("[dead_letter]\nmax_parked_events = 4\n[limits]\nevents_per_group = 1\n");
    until_halted(&daemon, "parking_full", &["route document", "4 records", "max_parked_events"]);
    assert_eq!(case.count("PARKED"), 4);

    // What was parked is resolved, as an operator would: there is room again.
    case.database.execute(
        "update pgsluice.dead_letter_t set resolved_at = now(), resolution = 'discarded' \
         where disposition = 'parked'",
    );
    case.until_finished(&daemon);
    assert_eq!(case.count("PARKED"), 6);
    assert_eq!(case.count("APPLIED"), 1);
    daemon.stop();
}

#[test]
fn an_aggregate_that_fails_for_long_is_parked_only_while_others_succeed() {
    let case = Case::new("give_up", 1);
    // Whether the back-off lets it be tried eight times meanwhile.
    case.allows(&["retry"]);
    case.expects(&["dead_letters"]);
    case.database.execute(CUSTOMER_TABLE);
    let producer = case.producer();
    producer.send(renamed("held", 1));
    let daemon =
        case.daemon(&format!("{CUSTOMER_ROUTE}[retry]\nmax = \"200ms\"\ngive_up_after = \"2s\"\n"));
    case.until_finished(&daemon);
    let mut holder = case.database.connect();
    let mut lock = holder.transaction().unwrap();
    lock.query("select from customer where id = 'held' for update", &[]).unwrap();

    // WHEN nothing else happens, it is tried for as long as it takes
    let held = producer.send_all([renamed("held", 2), renamed("held", 3)]);
    let retries = || daemon.metric("pgsluice_retries_total", &["cause=\"55P03\""]);
    daemon.until("it failed for longer than the limit", SETTLING, || retries() > 3.5);
    assert_eq!(case.database.count(LETTERS), 0);

    // WHEN others of its route succeed, it is parked, and progress goes on
    let sent = std::cell::Cell::new(0);
    daemon.until("it is parked", SETTLING, || {
        let n = sent.get();
        producer.send(renamed(&format!("other{n}"), 1));
        sent.set(n + 1);
        case.database.count(LETTERS) > 0
    });
    case.until_finished(&daemon);
    let reasons: Vec<_> = held.iter().map(|place| case.reason(*place)).collect();
    assert_eq!(reasons, [Some("retry_exhausted".into()), Some("aggregate_parked".into())]);
    assert_eq!(case.count("PARKED"), 2);
    let sqlstate = "select sqlstate from pgsluice.dead_letter where reason = 'retry_exhausted'";
    assert_eq!(case.database.text(sqlstate).as_deref(), Some("55P03"));
    lock.rollback().unwrap();
    daemon.stop();
}
