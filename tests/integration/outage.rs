//! Locks and outages are waited for; they never make a dead letter (INV-7) and hold up nobody else.

use std::time::{Duration, Instant};

use pgsluice_testkit::case::{
    CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, EFFECTS, ENVELOPE, SETTLING, renamed,
};
use pgsluice_testkit::kafka::Place;
use pgsluice_testkit::load::Load;
use pgsluice_testkit::postgres::Postgres;
use pgsluice_testkit::process::signal;
use pgsluice_testkit::wait;

/// Proves INV-1 and INV-7.
#[test]
fn one_locked_row_delays_its_own_aggregate_only() {
    let case = Case::new("locked_row", 1);
    // Whether the back-off lets it be tried eight times meanwhile.
    case.allows(&["retry"]);
    case.database.execute(CUSTOMER_TABLE);
    let producer = case.producer();
    producer.send(renamed("locked", 1));
    let daemon = case.daemon(CUSTOMER_ROUTE);
    case.until_finished(&daemon);
    let mut holder = case.database.connect();
    let mut lock = holder.transaction().unwrap();
    lock.query("select from customer where id = 'locked' for update", &[]).unwrap();
    let locked_at = Instant::now();

    // WHEN the locked row's event comes first, and others behind it on the same partition
    let held = producer.send(renamed("locked", 2));
    let others: Vec<Place> =
        producer.send_all((0..100).flat_map(|n| [1, 2, 3].map(|v| renamed(&format!("c{n}"), v))));
    let last = renamed("locked", 3);
    let held_too = producer.send(last);

    // THEN the others are applied while the lock is held, and progress waits below the held record
    daemon.until("the others are applied", Duration::from_secs(15), || {
        case.count("APPLIED") == others.len() + 1
    });
    assert!(locked_at.elapsed() < Duration::from_secs(18), "others had to wait");
    let rest = Duration::from_secs(20).saturating_sub(locked_at.elapsed());
    wait::stays("progress waits", rest, || case.progress(0) == Some(held.offset));
    assert_eq!(case.progress(0), Some(held.offset));
    lock.rollback().unwrap();

    case.until_finished(&daemon);
    assert_eq!(case.count("APPLIED"), others.len() + 3);
    assert_eq!(case.outcomes()[&held_too].0, "APPLIED");
    case.assert_no_letters();
    let version = "select version from customer where id = 'locked'";
    assert_eq!(case.database.count(version), 3);
}

#[test]
fn a_slow_table_costs_time_and_no_session() {
    let case = Case::new("slow_table", 1);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute(
        "create function dawdle() returns trigger language plpgsql as \
           $$ begin perform pg_catalog.pg_sleep(0.2); return new; end $$; \
         create trigger dawdle before insert on customer for each row execute function dawdle()",
    );
    // All wait on one connection, the last of them for longer than any answer may take.
    let slow = [
        ("PGSLUICE__POSTGRES__LANES", "1"),
        ("PGSLUICE__POSTGRES__SLOW_LOCK_TIMEOUT", "500ms"),
        ("PGSLUICE__POSTGRES__STATEMENT_TIMEOUT", "1s"),
        ("PGSLUICE__POSTGRES__DEADLINE", "2s"),
    ];
    case.producer().send_all((0..30).map(|n| renamed(&format!("c{n}"), 1)));
    let daemon = case.daemon_with(CUSTOMER_ROUTE, &slow);
    case.until_finished(&daemon);
    assert_eq!(case.count("APPLIED"), 30);
    assert!(daemon.metric("pgsluice_sessions_lost_total", &[]) < 0.5);
    daemon.stop();
}

#[test]
fn a_terminated_connection_costs_nothing_but_time() {
    let case = Case::new("terminated", 3);
    case.expects(&["session_lost"]);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute(EFFECTS);
    let load = Load::start(&case, 200);
    let daemon = case.daemon(CUSTOMER_ROUTE);

    for round in 1..=4 {
        daemon.until("records are applied", SETTLING, || case.count("APPLIED") > round * 400);
        // A lane in one round, the lead or a slow connection in another.
        case.database.rows(
            "select pg_terminate_backend(pid) from pg_stat_activity \
             where datname = current_database() and application_name like 'pgsluice%' \
             order by random() limit 1",
        );
    }
    let sent = load.finish();
    case.until_finished(&daemon);

    sent.assert_all_applied(&case);
    case.assert_effects_ascend();
    daemon.stop();
}

#[test]
fn a_backend_killed_by_the_system_takes_the_server_through_recovery_and_loses_nothing() {
    let server = Postgres::own();
    let case = Case::on(&server, "backend_killed", 2);
    case.expects(&["session_lost"]);
    let load = Load::start(&case, 200);
    let daemon = case.daemon(ENVELOPE);

    for round in 1..=3 {
        daemon.until("records are applied", SETTLING, || case.count("APPLIED") > round * 400);
        let pid = wait::for_some("the daemon is connected", SETTLING, || {
            let sql = "select max(pid) from pg_stat_activity \
                       where datname = current_database() and application_name like 'pgsluice/%/lane'";
            case.database.try_rows(sql).ok()?.first()?.first()?.as_deref()?.parse().ok()
        });
        signal(pid, "KILL");
    }
    let sent = load.finish();
    case.until_finished(&daemon);

    sent.assert_all_applied(&case);
    case.assert_no_letters();
}

/// Proves INV-1.
#[test]
fn a_crash_of_the_whole_server_loses_nothing_that_progress_covers() {
    let server = Postgres::own();
    let case = Case::on(&server, "server_crash", 2);
    case.expects(&["session_lost"]);
    let load = Load::start(&case, 200);
    let daemon = case.daemon(ENVELOPE);

    for round in 1..=3 {
        daemon.until("records are applied", SETTLING, || case.count("APPLIED") > round * 400);
        server.kill9_all();
        server.start();
    }
    let sent = load.finish();
    case.until_finished(&daemon);

    sent.assert_all_applied(&case);
}

/// Proves INV-7 and INV-12.
#[test]
fn a_server_that_stands_still_costs_a_session_and_no_partition() {
    let server = Postgres::own();
    let case = Case::on(&server, "frozen_server", 2);
    case.expects(&["session_lost"]);
    let load = Load::start(&case, 200);
    let daemon = case.daemon(ENVELOPE);
    daemon.until("records are applied", SETTLING, || case.count("APPLIED") > 500);
    let takes = "select sum(owner_epoch) from pgsluice.stream_t";
    assert_eq!(case.database.count(takes), 2);

    // Connections stay open and nobody answers: beyond every deadline, and the session timeout of
    // the group (6 s).
    server.freeze();
    wait::stays("it is alive", Duration::from_secs(20), || daemon.get("/live").0 == 200);
    assert_eq!(daemon.get("/ready").0, 503);
    server.thaw();

    daemon.until_ready();
    let sent = load.finish();
    case.until_finished(&daemon);
    sent.assert_all_applied(&case);
    let assigned = daemon.metric("pgsluice_rebalances_total", &["kind=\"assigned\""]);
    assert_eq!(assigned.to_string(), "1", "no rebalance came of it");
    case.assert_no_letters();
    daemon.stop();
}

/// Proves INV-7.
#[test]
fn ten_seconds_without_a_database_are_waited_out() {
    let server = Postgres::own();
    let case = Case::on(&server, "outage", 2);
    case.expects(&["session_lost"]);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute(EFFECTS);
    let load = Load::start(&case, 200);
    let daemon = case.daemon(CUSTOMER_ROUTE);
    daemon.until("records are applied", SETTLING, || case.count("APPLIED") > 500);

    server.stop();
    let stopped = Instant::now();
    // A dead database must not make an orchestrator restart the process, but takes it out of duty.
    daemon.until("not ready", Duration::from_secs(9), || daemon.get("/ready").0 == 503);
    let rest = Duration::from_secs(10).saturating_sub(stopped.elapsed());
    wait::stays("it is alive", rest, || daemon.get("/live").0 == 200);
    let sent = load.finish();
    server.start();

    daemon.until_ready();
    case.until_finished(&daemon);
    sent.assert_all_applied(&case);
    case.assert_effects_ascend();
    case.assert_no_letters();
    daemon.stop();
}
