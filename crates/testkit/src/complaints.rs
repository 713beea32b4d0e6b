//! ERROR and WARN lines of the daemon: a test fails on each that it did not say it would provoke.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// The event codes at ERROR and WARN that one test provokes; all its daemons share them.
///
/// A panic cannot be expected, and neither can a line that is not one of the log's.
#[derive(Debug, Clone, Default)]
pub struct Expected(Arc<Mutex<Seen>>);

/// Each code, and whether a line has had it or none need have it.
type Seen = BTreeMap<&'static str, bool>;

impl Expected {
    /// A line with that code must come, as often as it likes.
    pub fn require(&self, code: &'static str) {
        assert_ne!(code, "panic", "a panic is never expected");
        self.codes().insert(code, false);
    }

    /// A line with that code may come: whether it does depends on how things interleave.
    pub fn allow(&self, code: &'static str) {
        self.codes().entry(code).or_insert(true);
    }

    /// The lines that nobody expected. Takes note of those that somebody did.
    pub fn unexpected<'a>(&self, log: &'a [String]) -> Vec<&'a str> {
        let mut codes = self.codes();
        let mut is_expected = |line: &str| match complaint(line) {
            Complaint::None => true,
            Complaint::Foreign => false,
            Complaint::Event(event) => match codes.get_mut(event.as_str()) {
                Some(seen) => {
                    *seen = true;
                    true
                }
                None => false,
            },
        };
        log.iter().map(String::as_str).filter(|line| !is_expected(line)).collect()
    }

    /// Whether every required code has come, here or in an earlier log.
    pub fn all_in(&self, log: &[String]) -> bool {
        self.unexpected(log);
        self.missing().is_empty()
    }

    /// The required codes that no line has had.
    pub fn missing(&self) -> Vec<&'static str> {
        self.codes().iter().filter(|(_, seen)| !**seen).map(|(code, _)| *code).collect()
    }

    fn codes(&self) -> MutexGuard<'_, Seen> {
        // Nothing is half changed by a test that fails.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Complaint {
    None,
    Event(String),
    /// Not a line of the log, or one without a code.
    Foreign,
}

fn complaint(line: &str) -> Complaint {
    // Spelled as the daemon does; thousands of lines at TRACE need not be parsed.
    if line.contains("\"level\":\"INFO\"")
        || line.contains("\"level\":\"DEBUG\"")
        || line.contains("\"level\":\"TRACE\"")
    {
        return Complaint::None;
    }
    let parsed: Option<Value> = serde_json::from_str(line).ok();
    match parsed.and_then(|line| line["event"].as_str().map(str::to_owned)) {
        Some(event) if event != "panic" => Complaint::Event(event),
        _ => Complaint::Foreign,
    }
}
