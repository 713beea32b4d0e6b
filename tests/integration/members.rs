//! Several instances in one group: rebalances, a frozen member, starting together (INV-10, INV-12).

use std::time::Duration;

use pgsluice_testkit::case::{CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, EFFECTS, ENVELOPE, SETTLING};
use pgsluice_testkit::daemon::Daemon;
use pgsluice_testkit::kafka::Outgoing;
use pgsluice_testkit::load::Load;
use pgsluice_testkit::wait;

/// How many partitions each owner holds, by `stream_t.owner_epoch` having moved beyond its first.
fn takes(case: &Case) -> i64 {
    case.database.count("select coalesce(sum(owner_epoch), 0) from pgsluice.stream_t")
}

/// Proves INV-3.
#[test]
fn a_second_instance_that_comes_and_goes_under_load_changes_no_outcome() {
    let case = Case::new("rebalance", 6);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute(EFFECTS);
    let load = Load::start(&case, 300);
    let first = case.daemon(CUSTOMER_ROUTE);
    first.until("the first works", SETTLING, || case.count("APPLIED") > 500);
    let takes_alone = takes(&case);

    let second = case.daemon(CUSTOMER_ROUTE);
    second.until("the second took partitions over", SETTLING, || takes(&case) > takes_alone);
    let applied = case.count("APPLIED");
    second.until("both work", SETTLING, || case.count("APPLIED") > applied + 500);
    let takes_together = takes(&case);
    first.stop();
    second.until("the second took the rest", SETTLING, || takes(&case) > takes_together);

    let sent = load.finish();
    case.until_finished(&second);
    sent.assert_all_applied(&case);
    case.assert_effects_ascend();
    second.stop();
}

#[test]
fn instances_that_come_and_go_faster_than_the_group_settles_change_no_outcome() {
    let case = Case::new("storm", 12);
    // Which of them a rebalance hits at what moment, and whether a killed one still writes.
    case.allows(&["partition_fenced", "membership_lost", "revoke_late", "rebalance_trouble"]);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute(EFFECTS);
    let load = Load::start(&case, 200);
    let steady = case.daemon(CUSTOMER_ROUTE);
    steady.until("it works", SETTLING, || case.count("APPLIED") > 200);

    for round in 0..6 {
        let guest = case.daemon(CUSTOMER_ROUTE);
        let told = |event: &str| guest.log().iter().any(|line| line.contains(event));
        match round % 3 {
            // Gone before it has joined, with partitions just given, or with some just taken.
            0 => guest.until("it starts", SETTLING, || told("\"started\"")),
            1 => guest.until("it is given some", SETTLING, || told("\"partitions_assigned\"")),
            _ => guest.until("it took some", SETTLING, || told("\"partition_taken\"")),
        }
        if round % 2 == 0 {
            guest.stop();
        } else {
            guest.kill9();
        }
    }
    let applied = case.count("APPLIED");
    steady.until("work goes on", SETTLING, || case.count("APPLIED") > applied + 200);

    let sent = load.finish();
    case.until_finished(&steady);
    sent.assert_all_applied(&case);
    case.assert_effects_ascend();
    case.assert_no_letters();
    steady.stop();
}

/// Proves INV-3 and INV-10.
#[test]
fn a_frozen_instance_wakes_up_into_a_world_that_went_on_without_it() {
    let case = Case::new("frozen", 4);
    // Whether it hears of its successor from the database or from the broker first.
    case.allows(&["partition_fenced", "membership_lost"]);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute(EFFECTS);
    let load = Load::start(&case, 300);
    let frozen = case.daemon(CUSTOMER_ROUTE);
    frozen.until("it works", SETTLING, || case.count("APPLIED") > 500);

    // WHEN it stands still beyond its session timeout (6 s), under load, and another takes over
    frozen.signal("STOP");
    let epochs = takes(&case);
    let successor = case.daemon(CUSTOMER_ROUTE);
    successor.until("the other took every partition", SETTLING, || takes(&case) >= epochs + 4);
    let applied = case.count("APPLIED");
    successor.until("the other works", SETTLING, || case.count("APPLIED") > applied + 500);
    frozen.signal("CONT");

    // THEN both go on, and nothing was done twice or backwards
    let applied = case.count("APPLIED");
    successor.until("work goes on", SETTLING, || case.count("APPLIED") > applied + 500);
    let sent = load.finish();
    case.until_finished(&successor);
    frozen.until_ready();
    sent.assert_all_applied(&case);
    case.assert_effects_ascend();
    case.assert_no_letters();
    frozen.stop();
    successor.stop();
}

#[test]
fn instances_that_start_together_on_an_empty_database_migrate_it_once() {
    let case = Case::unmigrated("migrate_together", 4);
    let places = case.producer().send_all((0..40).map(|n| Outgoing::new(&format!("k{n}"), "{}")));

    // Made once: it grants what there is, which is not to be done beside a migration.
    let config = case.config("");
    let daemons: Vec<Daemon> = (0..3).map(|_| case.daemon_of(Some(&config), &[])).collect();
    for daemon in &daemons {
        daemon.until_ready();
    }
    case.until_finished(&daemons[0]);

    case.assert_outcomes(places.iter().map(|place| (*place, "APPLIED")));
    assert_eq!(case.database.count("select count(*) from pgsluice.schema_t"), 1);
    assert_eq!(case.database.count("select count(*) from pgsluice.sink_t"), 1);
    for daemon in &daemons {
        daemon.stop();
    }
}

/// Proves INV-12.
#[test]
fn a_database_that_hangs_causes_lag_but_no_rebalance() {
    let case = Case::new("slow_database", 2);
    // Whether the back-off lets one aggregate be tried eight times meanwhile.
    case.allows(&["retry"]);
    case.producer().send_all((0..20).map(|n| Outgoing::new(&format!("k{n}"), "{}")));
    let daemon =
        case.daemon_with("", &[("PGSLUICE__KAFKA__PROPERTIES__MAX_POLL_INTERVAL_MS", "7000")]);
    case.until_finished(&daemon);
    let takes_before = takes(&case);
    let mut holder = case.database.connect();
    let mut lock = holder.transaction().unwrap();
    lock.batch_execute("lock table pgsluice.aggregate_t in access exclusive mode").unwrap();

    case.producer().send_all((0..20).map(|n| Outgoing::new(&format!("k{n}"), r#"{"n":2}"#)));
    // Longer than both the session timeout and the poll interval allow a stalled member.
    let time = Duration::from_secs(12);
    wait::stays("no partition changes hands", time, || takes(&case) == takes_before);
    lock.rollback().unwrap();

    case.until_finished(&daemon);
    assert_eq!(takes(&case), takes_before, "a partition changed hands");
    assert_eq!(case.count("APPLIED"), 40);
}

#[test]
fn a_member_without_partitions_is_ready_and_takes_over_when_the_other_leaves() {
    let case = Case::new("spare", 1);
    let first = case.daemon(ENVELOPE);
    first.until_ready();
    let spare = case.daemon(ENVELOPE);
    spare.until_ready();

    first.stop();
    let place = case.producer().send(pgsluice_testkit::case::renamed("c", 1));
    case.until_finished(&spare);
    case.assert_outcomes([(place, "APPLIED")]);
}
