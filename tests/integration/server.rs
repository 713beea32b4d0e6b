//! A server that takes no writes or lets nobody in for a while: it is waited for, nothing is
//! dead-lettered (INV-7), and work goes on by itself.

use serde_json::json;

use crate::canary::{PASSWORD, guarded_case, guarded_server};
use pgsluice_testkit::case::{
    CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, ENVELOPE, SETTLING, customer_event, renamed,
};
use pgsluice_testkit::daemon::Daemon;
use pgsluice_testkit::postgres::Postgres;
use pgsluice_testkit::process::{next_number, scratch};

/// Waits until the log and `/status` name the server's code.
#[track_caller]
fn until_told(daemon: &Daemon, sqlstate: &str) {
    let code = format!("sqlstate {sqlstate}");
    daemon.until("/status tells the code", SETTLING, || {
        let error = daemon.status()["session"]["last_error"].clone();
        error.as_str().is_some_and(|error| error.contains(&code))
    });
    daemon.until("a line tells the code", SETTLING, || {
        let line = |line: &String| line.contains("\"session_lost\"") && line.contains(&code);
        daemon.log().iter().any(line)
    });
}

/// Proves INV-7.
#[test]
fn a_standby_is_waited_for_until_it_is_promoted() {
    let server = Postgres::own();
    let case = Case::on(&server, "standby", 1);
    case.expects(&["session_lost"]);
    let producer = case.producer();
    producer.send(renamed("c", 1));
    let daemon = case.daemon(ENVELOPE);
    case.until_finished(&daemon);

    // WHEN the server comes back as a standby, as after a failover to the wrong address
    server.stop();
    server.demote();
    server.start();
    producer.send(renamed("c", 2));
    until_told(&daemon, "25006");
    assert_eq!(daemon.get("/ready").0, 503);
    assert_eq!(daemon.get("/live").0, 200);
    assert_eq!(case.version("c"), Some(1));

    server.promote();
    case.until_finished(&daemon);
    daemon.until_ready();
    assert_eq!(case.version("c"), Some(2));
    case.assert_no_letters();
    daemon.stop();
}

/// Proves INV-7.
#[test]
fn a_full_disk_is_waited_for_until_there_is_room() {
    let server = Postgres::with_small_disk();
    let case = Case::on(&server, "full_disk", 1);
    case.expects(&["session_lost"]);
    let place = server.small_disk();
    case.database.execute(&format!("create tablespace small location '{}'", place.display()));
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute("alter table customer set tablespace small");
    case.database.execute("create table filler (t text) tablespace small");
    let fill = "insert into filler select repeat('x', 1000) from generate_series(1, 10000)";
    let error = case.database.connect().batch_execute(fill).unwrap_err();
    assert_eq!(error.code().map(postgres::error::SqlState::code), Some("53100"));

    // WHEN a row needs a page more than there is
    let daemon = case.daemon(CUSTOMER_ROUTE);
    let note = json!({"newName": "c", "note": "long".repeat(500)});
    let places = case.producer().send_all([customer_event("c", 1, "e1", &note)]);
    until_told(&daemon, "53100");
    // Sessions open, and end at the first row: at growing distances, and told of once.
    daemon.until("a few sessions were tried", SETTLING, || {
        daemon.metric("pgsluice_sessions_opened_total", &[]) > 2.5
    });
    let told = |line: &&String| line.contains("\"session_lost\"");
    assert_eq!(daemon.log().iter().filter(told).count(), 1);
    assert!(case.outcomes().is_empty(), "{:?}", case.outcomes());

    case.database.execute("drop table filler");
    case.until_finished(&daemon);
    daemon.until_ready();
    case.assert_outcomes([(places[0], "APPLIED")]);
    case.assert_no_letters();
    daemon.stop();
}

#[test]
fn a_server_that_comes_late_is_waited_for_at_start() {
    let server = Postgres::own();
    let case = Case::on(&server, "late_server", 1);
    case.expects(&["session_lost"]);
    case.producer().send(renamed("c", 1));
    let config = case.config(ENVELOPE);
    server.stop();
    let daemon = case.daemon_of(Some(&config), &[("PGSLUICE__POSTGRES__STARTUP_TIMEOUT", "50s")]);
    daemon.until("it was tried in vain", SETTLING, || {
        daemon.metric("pgsluice_sessions_lost_total", &[]) > 1.5
    });
    assert_eq!(daemon.get("/live").0, 200);

    server.start();
    case.until_finished(&daemon);
    daemon.until_ready();
    daemon.stop();
}

#[test]
fn a_password_that_was_changed_is_read_from_its_file_on_the_next_connect() {
    let server = guarded_server();
    let case = guarded_case(&server, "new_password");
    case.expects(&["session_lost"]);
    let file = scratch().join(format!("password-{}", next_number()));
    std::fs::write(&file, PASSWORD).unwrap();
    let variables = [("PGSLUICE__POSTGRES__PASSWORD_FILE", file.to_str().unwrap())];
    let producer = case.producer();
    producer.send(renamed("c", 1));
    let daemon = case.daemon_with(ENVELOPE, &variables);
    case.until_finished(&daemon);

    // WHEN the password is another one after an outage, and the file still holds the old one
    case.database.execute(&format!("alter role {} password 'another-one'", case.role));
    server.stop();
    server.start();
    producer.send(renamed("c", 2));
    until_told(&daemon, "28P01");
    assert_eq!(case.version("c"), Some(1));

    std::fs::write(&file, "another-one").unwrap();
    case.until_finished(&daemon);
    daemon.until_ready();
    assert_eq!(case.version("c"), Some(2));
    daemon.stop();
}
