//! kill -9, re-delivery and a clean stop: whatever took effect stays, once, and nothing is missing
//! (INV-1, INV-4, INV-5).

use std::collections::HashSet;
use std::time::Duration;

use crate::order::rewind_progress;
use pgsluice_testkit::case::{
    CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, EFFECTS, ENVELOPE, SETTLING, counted, renamed,
};
use pgsluice_testkit::kafka;
use pgsluice_testkit::load::Load;
use pgsluice_testkit::wait;

/// Proves INV-1, INV-3 and INV-4.
#[test]
fn killed_again_and_again_under_load_nothing_is_lost_and_nothing_happens_twice() {
    let case = Case::new("kill9", 4);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute(EFFECTS);
    let load = Load::start(&case, 300);

    let mut rounds_with_progress = 0;
    for _ in 0..5 {
        let finished_before = case.count("APPLIED");
        let daemon = case.daemon(CUSTOMER_ROUTE);
        daemon.until("some records of this round are applied", SETTLING, || {
            case.count("APPLIED") > finished_before + 500
        });
        daemon.kill9();
        wait_for_its_backends(&case);
        rounds_with_progress += 1;
    }
    let sent = load.finish();
    let written: HashSet<_> = notification_rows(&case);
    let daemon = case.daemon(CUSTOMER_ROUTE);
    case.until_finished(&daemon);

    assert_eq!(rounds_with_progress, 5);
    sent.assert_all_applied(&case);
    case.assert_effects_ascend();
    // What stood before the last start was not touched by it.
    assert!(written.is_subset(&notification_rows(&case)), "an outcome was written again");
    daemon.stop();
}

/// Proves INV-4 and INV-5.
#[test]
fn killed_after_the_database_commit_and_before_the_offset_commit_a_restart_changes_nothing() {
    let case = Case::new("kill9_between", 2);
    let records = (0..400).map(|n| renamed(&format!("c{}", n % 40), n / 40 + 1));
    let places = case.producer().send_all(records);
    let daemon = case.daemon(ENVELOPE);
    case.until_finished(&daemon);
    daemon.kill9();
    wait_for_its_backends(&case);
    let before = case.fingerprint();

    // Everything is committed; now neither the database's progress nor Kafka's offsets say so.
    rewind_progress(&case);
    kafka::consumer_groups_tool(&["--delete", "--group", &case.group]);
    let daemon = case.daemon(ENVELOPE);
    case.until_finished(&daemon);
    case.until_mirrored(&daemon);

    assert_eq!(case.fingerprint(), before);
    case.assert_outcomes(places.iter().map(|place| (*place, "APPLIED")));
    assert_eq!(counted(&daemon, "DUPLICATE"), places.len());
    assert_eq!(counted(&daemon, "APPLIED"), 0);
}

/// Proves INV-1.
#[test]
fn a_stop_under_load_is_clean_and_the_next_start_reads_nothing_twice() {
    let case = Case::new("sigterm", 3);
    let load = Load::start(&case, 200);
    let daemon = case.daemon(ENVELOPE);
    daemon.until("it is busy", SETTLING, || case.count("APPLIED") > 1_000);

    daemon.stop();

    // Nothing is finished beyond progress, and Kafka knows the same position.
    let progress: i64 = (0..3).filter_map(|partition| case.progress(partition)).sum();
    assert_eq!(i64::try_from(case.outcomes().len()).ok(), Some(progress));
    for partition in 0..3 {
        let committed = kafka::committed(&case.group, &case.topic, partition);
        assert_eq!(committed, case.progress(partition), "partition {partition}");
    }

    let sent = load.finish();
    let daemon = case.daemon(ENVELOPE);
    case.until_finished(&daemon);
    sent.assert_all_applied(&case);
    assert_eq!(counted(&daemon, "DUPLICATE"), 0);
    assert_eq!(counted(&daemon, "APPLIED"), sent.places.len() - usize::try_from(progress).unwrap());
    daemon.stop();
}

#[test]
fn a_second_sigterm_or_an_idle_one_ends_the_daemon_quickly() {
    let case = Case::new("idle_stop", 1);
    let daemon = case.daemon("");
    daemon.until_ready();
    daemon.signal("TERM");
    assert_eq!(daemon.wait_exit(Duration::from_secs(10)), Some(0));
}

/// Waits until the killed daemon's connections are gone: a statement that was on its way when the
/// process died still takes effect.
fn wait_for_its_backends(case: &Case) {
    wait::until("the killed daemon's connections end", Duration::from_secs(30), || {
        let sql = "select count(*) from pg_stat_activity where datname = current_database() \
                   and application_name like 'pgsluice%'";
        case.database.text(sql).as_deref() == Some("0")
    });
}

/// Every notification with its writing transaction.
fn notification_rows(case: &Case) -> HashSet<Vec<Option<String>>> {
    let rows = case.fingerprint().into_iter();
    rows.filter(|row| row[0].as_deref() == Some("notification")).collect()
}
