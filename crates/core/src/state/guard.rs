//! Takes guards away on purpose, so that the simulation can show that it would notice.

use super::State;

/// A guard that the simulation removes to show that it would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Progress covers only the contiguous finished prefix.
    ContiguousPrefix,
    /// Replies of an older session are ignored.
    SessionTag,
    /// Records and replies of an older reading are ignored.
    GenerationTag,
    /// One group of an aggregate in flight.
    OneGroupInFlight,
}

impl State {
    /// Removes a guard; see [`Guard`].
    pub(crate) fn remove_guard(&mut self, guard: Guard) {
        self.removed = Some(guard);
        if guard == Guard::OneGroupInFlight {
            self.queue.ignore_busy();
        }
    }

    pub(super) fn guarded_by(&self, guard: Guard) -> bool {
        self.removed != Some(guard)
    }
}
