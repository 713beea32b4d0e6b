//! A standard error that nobody reads costs log lines and nothing else.

use pgsluice_testkit::case::{CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, SETTLING, renamed};
use pgsluice_testkit::daemon::{Daemon, Unread};

/// Work, more lines than a pipe and the writer's queue hold, and a clean end.
fn works_and_ends_cleanly(name: &str, unread: Unread) {
    let case = Case::new(name, 2);
    case.database.execute(CUSTOMER_TABLE);
    // librdkafka's own lines make plenty of them.
    let variables =
        [("PGSLUICE__LOG__LEVEL", "trace"), ("PGSLUICE__KAFKA__PROPERTIES__DEBUG", "all")];
    let daemon = Daemon::start_unread(&case.config(CUSTOMER_ROUTE), &variables, unread);
    let producer = case.producer();
    producer.send_all((0..200).map(|n| renamed(&format!("c{n}"), 1)));
    case.until_finished(&daemon);

    daemon.until("lines are dropped", SETTLING, || {
        daemon.metric("pgsluice_log_lines_dropped_total", &[]) > 0.0
    });
    let places = producer.send_all((0..200).map(|n| renamed(&format!("c{n}"), 2)));
    case.until_finished(&daemon);

    assert_eq!(case.count("APPLIED"), 2 * places.len());
    assert_eq!(daemon.get("/live").0, 200);
    assert_eq!(daemon.get("/ready").0, 200);
    daemon.stop();
}

#[test]
fn a_reader_of_stderr_that_stands_still_stalls_nothing() {
    works_and_ends_cleanly("stderr_blocked", Unread::Blocked);
}

#[test]
fn a_reader_of_stderr_that_has_gone_ends_nothing() {
    works_and_ends_cleanly("stderr_closed", Unread::Closed);
}
