//! Waiting with a deadline. No test sleeps and hopes.

use std::time::{Duration, Instant};

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Waits until `condition` holds; panics at the deadline, at the caller's line, naming what was
/// awaited. [`super::daemon::Daemon::until`] adds the daemon's last log lines.
#[track_caller]
pub fn until(what: &str, deadline: Duration, condition: impl FnMut() -> bool) {
    assert!(holds_within(deadline, condition), "not within {deadline:?}: {what}");
}

/// Whether `condition` came true before the deadline.
pub fn holds_within(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Waits until `attempt` gives a value; panics at the deadline, at the caller's line.
#[track_caller]
pub fn for_some<T>(what: &str, deadline: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    let came = holds_within(deadline, || {
        found = attempt();
        found.is_some()
    });
    assert!(came, "not within {deadline:?}: {what}");
    found.expect("just found")
}

/// Watches that `condition` keeps holding for the whole time.
#[track_caller]
pub fn stays(what: &str, time: Duration, mut condition: impl FnMut() -> bool) {
    let broke = holds_within(time, || !condition());
    assert!(!broke, "did not stay so for {time:?}: {what}");
}
