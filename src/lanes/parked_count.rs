//! A count of the parked records that is kept for a while, so that parking one more does not count
//! all of them again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For how long a count is believed.
const COUNT_AGE: Duration = Duration::from_secs(10);

/// How many records are parked, as of a moment ago.
#[derive(Debug, Default)]
pub struct ParkedCount(Mutex<Option<(Instant, usize)>>);

impl ParkedCount {
    /// The latest count, with what was added since; `None` when it is too old.
    pub(super) fn known(&self) -> Option<usize> {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.filter(|(at, _)| at.elapsed() < COUNT_AGE).map(|(_, count)| count)
    }

    /// The table was counted.
    pub(super) fn counted(&self, count: usize) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), count));
    }

    /// Adds what this process parked since.
    pub(super) fn add(&self, parked: usize) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = known.as_mut() {
            *count += parked;
        }
    }
}
