//! One assigned partition, as the coordinator sees it.

use std::sync::Arc;
use std::time::Duration;

use crate::fault::Fault;
use crate::group::{Origin, Progress};
use crate::record::{Generation, NextOffset, Offset};
use crate::verdict::Reason;

use crate::frontier::Frontier;
use crate::input::{MirrorPosition, RevokeTicket};

/// Where a partition stands. All phases live in memory only: a restart begins with `Waiting`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Assigned; waits for a session.
    Waiting,
    /// A take is under way.
    Taking,
    /// Records are read and worked on.
    Reading,
    /// Not read until the moment given; then it is taken again. Entered when a take could not be
    /// had, when the partition halted, and when the database named a newer owner.
    Paused {
        /// When to take it again.
        until: Duration,
    },
    /// Being taken away: groups in flight finish, nothing new starts.
    Revoking {
        /// Who waits for it.
        ticket: RevokeTicket,
        /// When it is given up unfinished.
        deadline: Duration,
    },
}

/// Why a partition stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Halt {
    pub(super) reason: Reason,
    /// The fault behind it, if it was one.
    pub(super) fault: Option<Fault>,
    /// The record that stopped it, if it was one.
    pub(super) at: Option<Offset>,
}

/// An assigned partition.
#[derive(Debug)]
pub(super) struct Partition {
    /// The current reading; replies and records of others are ignored.
    pub(super) generation: Generation,
    /// Where it stands.
    pub(super) phase: Phase,
    /// Stream and ownership; `None` until the first take, and after ownership was lost.
    pub(super) origin: Option<Arc<Origin>>,
    /// What is finished.
    pub(super) frontier: Frontier,
    /// What the database holds durably.
    pub(super) durable: NextOffset,
    /// Groups in flight on a lane, of the current reading.
    pub(super) in_flight: usize,
    /// Paused because too many records run ahead of the oldest unfinished one.
    pub(super) throttled: bool,
    /// Why it stands still, until it has been read past the fault again.
    pub(super) halted: Option<Halt>,
    /// How often in a row it halted, for the back-off.
    pub(super) halts: u32,
    /// The configuration says to stop at a record: halt once everything before it is finished.
    pub(super) halt_when_finished: Option<(Reason, Offset)>,
}

impl Partition {
    pub(super) fn new(generation: Generation) -> Self {
        Self {
            generation,
            phase: Phase::Waiting,
            origin: None,
            frontier: Frontier::new(NextOffset(0), None),
            durable: NextOffset(0),
            in_flight: 0,
            throttled: false,
            halted: None,
            halts: 0,
            halt_when_finished: None,
        }
    }

    /// Starts a new reading: whatever belongs to the old one is ignored from now on.
    pub(super) fn begin(&mut self, generation: Generation, phase: Phase) {
        self.generation = generation;
        self.phase = phase;
        self.origin = None;
        self.in_flight = 0;
        self.throttled = false;
        self.halt_when_finished = None;
    }

    /// The current reading may move progress.
    pub(super) fn owned(&self) -> Option<&Arc<Origin>> {
        self.origin.as_ref()
    }

    /// The halt has ended: progress passed the record that caused it, or it was no record.
    pub(super) fn passed_halt(&mut self) -> bool {
        let passed =
            self.halted.as_ref().is_some_and(|h| h.at.is_none_or(|at| self.durable.0 > at.0));
        if passed {
            self.halted = None;
            self.halts = 0;
        }
        passed
    }

    /// Finished records that the database does not know of.
    pub(super) fn behind(&self) -> bool {
        self.origin.is_some() && self.frontier.next() > self.durable
    }

    /// What the barrier should write for it.
    pub(super) fn progress(&self) -> Option<Progress> {
        let origin = self.origin.as_ref().filter(|_| self.behind())?;
        Some(Progress {
            stream: origin.stream,
            epoch: origin.epoch,
            next: self.frontier.next(),
            anchor: self.frontier.anchor(),
        })
    }

    /// What Kafka may be told.
    pub(super) fn mirror_position(&self) -> Option<MirrorPosition> {
        self.origin.as_ref().map(|origin| MirrorPosition {
            partition: origin.partition.clone(),
            stream: origin.stream,
            epoch: origin.epoch,
            next: self.durable,
        })
    }
}
