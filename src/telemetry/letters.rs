//! Says that dead letters are being written without a line for each of them.

use std::time::{Duration, Instant};

/// At most one line in this time.
const QUIET: Duration = Duration::from_secs(10);

/// Dead letters that no line has told of yet.
#[derive(Debug, Default)]
pub(super) struct LetterCount {
    dead_lettered: u64,
    parked: u64,
    last_line: Option<Instant>,
}

impl LetterCount {
    pub(super) fn add(&mut self, dead_lettered: u64, parked: u64) {
        self.dead_lettered += dead_lettered;
        self.parked += parked;
    }

    /// What the next line tells (dead-lettered, parked), if there is something to tell and the
    /// last line is old enough.
    pub(super) fn take(&mut self, now: Instant) -> Option<(u64, u64)> {
        let quiet = self.last_line.is_some_and(|last| now.duration_since(last) < QUIET);
        if quiet || (self.dead_lettered == 0 && self.parked == 0) {
            return None;
        }
        self.last_line = Some(now);
        Some((std::mem::take(&mut self.dead_lettered), std::mem::take(&mut self.parked)))
    }

    /// The same however young the last line is: for the end of the process.
    pub(super) fn rest(&mut self, now: Instant) -> Option<(u64, u64)> {
        self.last_line = None;
        self.take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_letter_is_told_at_once_and_the_next_ones_together() {
        let mut letters = LetterCount::default();
        let start = Instant::now();
        assert_eq!(letters.take(start), None);
        letters.add(1, 2);
        assert_eq!(letters.take(start), Some((1, 2)));
        letters.add(1, 0);
        letters.add(0, 5);
        assert_eq!(letters.take(start + QUIET / 2), None);
        assert_eq!(letters.take(start + QUIET), Some((1, 5)));
        assert_eq!(letters.take(start + 3 * QUIET), None);
        letters.add(3, 0);
        assert_eq!(letters.take(start + 3 * QUIET), Some((3, 0)));
        letters.add(2, 0);
        assert_eq!(letters.rest(start + 3 * QUIET), Some((2, 0)));
        assert_eq!(letters.rest(start + 3 * QUIET), None);
    }
}
