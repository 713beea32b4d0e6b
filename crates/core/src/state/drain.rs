//! How the process ends: what was accepted is finished first.

use super::State;
use crate::input::Action;

/// How far a drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drain {
    No,
    Draining,
    Done,
}

impl Drain {
    pub(super) fn begun(self) -> Self {
        match self {
            Self::No | Self::Draining => Self::Draining,
            Self::Done => Self::Done,
        }
    }
}

impl State {
    /// Draining ends when everything that was accepted is finished and durable. Groups that wait
    /// for a retry, what is queued behind them, and partitions that halted are left for the next
    /// start.
    pub(super) fn finish_drain(&mut self) {
        if self.drain != Drain::Draining {
            return;
        }
        // Lanes are filled before this: where none is busy nothing can go.
        let working = self.work.is_in_flight();
        let undurable = self.barrier.is_under_way() || self.partitions.values().any(|p| p.behind());
        if self.sessions.open().is_none() || !(working || undurable) {
            self.drain = Drain::Done;
            self.out.push(Action::Drained);
        }
    }
}
