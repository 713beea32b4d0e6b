//! How much may be in memory between poll and progress (INV-11).

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of records in memory, counted by [`pgsluice_core::event::Event::weight`]. The consumer thread
/// takes, the run loop gives back; both only add and subtract, so relaxed order suffices.
#[derive(Debug)]
pub struct Budget {
    in_flight: AtomicUsize,
    limit: usize,
}

impl Budget {
    /// A budget of `limit` bytes (`limits.in_flight_bytes`).
    pub fn new(limit: usize) -> Self {
        Self { in_flight: AtomicUsize::new(0), limit }
    }

    /// Counts an event that was read. The limit is soft by one record: a record larger than the
    /// whole budget must still get through.
    pub fn take(&self, weight: usize) {
        self.in_flight.fetch_add(weight, Ordering::Relaxed);
    }

    /// Gives back the weight of records that left memory. More than was taken counts as all.
    pub fn free(&self, weight: usize) {
        let subtract = |now: usize| Some(now.saturating_sub(weight));
        // The closure always returns a value, so the update cannot fail.
        self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract).ok();
    }

    /// Bytes in memory now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Nothing more may be read.
    pub fn is_full(&self) -> bool {
        self.in_flight() >= self.limit
    }

    /// Below the low water mark, half of the limit: reading may go on after a pause.
    pub fn is_low(&self) -> bool {
        self.in_flight() <= self.limit / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves INV-11.
    #[test]
    fn one_record_larger_than_the_budget_still_fits_and_fills_it() {
        let budget = Budget::new(10);
        assert!(!budget.is_full());
        budget.take(25);
        assert!(budget.is_full());
        budget.free(20);
        assert!(!budget.is_full() && budget.is_low());
    }

    #[test]
    fn giving_back_too_much_never_wraps_around() {
        let budget = Budget::new(10);
        budget.take(3);
        budget.free(5);
        assert_eq!(budget.in_flight(), 0);
    }
}
