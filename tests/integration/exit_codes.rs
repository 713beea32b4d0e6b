//! How the process ends, and the exit code that says so.

use std::process::Stdio;
use std::time::Duration;

use pgsluice_testkit::case::{Case, ENVELOPE, SETTLING, renamed};
use pgsluice_testkit::daemon::Daemon;
use pgsluice_testkit::kafka;
use pgsluice_testkit::process::{dies_with_us, free_port};

fn says(daemon: &Daemon, event: &str) -> bool {
    daemon.log().iter().any(|line| line.contains(&format!("\"event\":\"{event}\"")))
}

#[test]
fn a_reader_of_the_output_that_has_seen_enough_is_no_failure() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = dies_with_us("KILL", env!("CARGO_BIN_EXE_pgsluice"));
    command.args(["check", "--defaults"]).stdout(writer).stderr(Stdio::piped());
    let ended = command.output().expect("run pgsluice");
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn brokers_that_are_never_there_end_the_start_with_code_3() {
    let case = Case::new("no_broker", 1);
    case.expects(&["librdkafka", "kafka_unreachable", "startup_timeout"]);
    let brokers = format!("127.0.0.1:{}", free_port());
    let daemon = case.daemon_with(
        "",
        &[
            ("PGSLUICE__KAFKA__BROKERS", brokers.as_str()),
            ("PGSLUICE__POSTGRES__STARTUP_TIMEOUT", "2s"),
        ],
    );
    assert_eq!(daemon.wait_exit(Duration::from_secs(30)), Some(3));
    assert!(says(&daemon, "startup_timeout"), "{:?}", daemon.log());
}

#[test]
fn a_cluster_other_than_the_sinks_own_ends_the_start_with_code_4() {
    let case = Case::new("other_cluster", 1);
    case.expects(&["cluster_mismatch"]);
    case.database.execute(&format!(
        "insert into pgsluice.sink_t (name, cluster_id) values ('{}', 'another')",
        case.group
    ));
    let daemon = case.daemon("");
    assert_eq!(daemon.wait_exit(SETTLING), Some(4));
    assert!(says(&daemon, "cluster_mismatch"), "{:?}", daemon.log());
}

#[test]
fn a_static_member_whose_name_is_taken_ends_with_code_4() {
    let case = Case::new("fenced_member", 1);
    case.expects(&["librdkafka", "member_fenced"]);
    let name = [("PGSLUICE__KAFKA__INSTANCE_ID", "the-one")];
    let first = case.daemon_with(ENVELOPE, &name);
    first.until_ready();
    case.producer().send(renamed("c", 1));
    case.until_finished(&first);

    let second = case.daemon_with(ENVELOPE, &name);

    assert_eq!(first.wait_exit(SETTLING), Some(4));
    case.producer().send(renamed("c", 2));
    case.until_finished(&second);
    second.stop();
}

#[test]
fn a_group_that_speaks_another_protocol_ends_the_start_with_code_2() {
    let case = Case::new("other_protocol", 1);
    case.expects(&["kafka_trouble"]);
    let _other = kafka::member(&case.group, &case.topic);

    let daemon = case.daemon(ENVELOPE);

    assert_eq!(daemon.wait_exit(SETTLING), Some(2));
    let named = |line: &String| line.contains("\"error\":\"InconsistentGroupProtocol\"");
    assert!(daemon.log().iter().any(named), "{:?}", daemon.log());
}

/// A daemon with a record that it cannot finish while `lock` is held.
fn busy(case: &Case, variables: &[(&str, &str)], holder: &mut postgres::Client) -> Daemon {
    let daemon = case.daemon_with(ENVELOPE, variables);
    daemon.until_ready();
    holder
        .batch_execute("begin; lock table pgsluice.aggregate_t in access exclusive mode")
        .unwrap();
    case.producer().send(renamed("c", 1));
    let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' \
                   and datname = current_database()";
    daemon.until("a statement waits", SETTLING, || case.database.count(waiting) > 0);
    daemon
}

#[test]
fn a_drain_that_cannot_be_finished_in_time_ends_with_code_1() {
    let case = Case::new("drain_expires", 1);
    case.expects(&["drain_expired"]);
    let mut holder = case.database.connect();
    let daemon = busy(&case, &[("PGSLUICE__SHUTDOWN__DRAIN_TIMEOUT", "1s")], &mut holder);

    daemon.signal("TERM");

    assert_eq!(daemon.wait_exit(SETTLING), Some(1));
    assert!(says(&daemon, "drain_expired"), "{:?}", daemon.log());
}

#[test]
fn a_second_sigterm_ends_the_drain_at_once_with_code_1() {
    let case = Case::new("second_signal", 1);
    case.expects(&["signal"]);
    let mut holder = case.database.connect();
    let daemon = busy(&case, &[("PGSLUICE__SHUTDOWN__DRAIN_TIMEOUT", "10m")], &mut holder);

    daemon.signal("TERM");
    daemon.until("the first is heard", SETTLING, || says(&daemon, "signal"));
    daemon.signal("TERM");

    assert_eq!(daemon.wait_exit(Duration::from_secs(20)), Some(1));
}
