//! The barrier: one at a time, computed before it is sent.

use std::time::Duration;

use crate::record::{Generation, NextOffset, StreamId, TopicPartition};

/// What a barrier will have made durable of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) partition: TopicPartition,
    pub(super) generation: Generation,
    pub(super) stream: StreamId,
    pub(super) next: NextOffset,
}

/// The barrier under way, if there is one, and when the last one was sent.
#[derive(Debug, Default)]
pub(super) struct Barrier {
    under_way: Option<Vec<Sent>>,
    sent_at: Option<Duration>,
}

impl Barrier {
    /// A barrier was sent and is not answered.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// When the next one may be sent, `interval` after the last one; `None` while one is under way.
    /// In a `hurry` it need not wait.
    pub(super) fn due(&self, now: Duration, interval: Duration, hurry: bool) -> Option<Duration> {
        if self.is_under_way() {
            return None;
        }
        Some(match self.sent_at {
            Some(last) if !hurry => last + interval,
            Some(_) | None => now,
        })
    }

    /// One is sent.
    pub(super) fn send(&mut self, now: Duration, entries: Vec<Sent>) {
        self.under_way = Some(entries);
        self.sent_at = Some(now);
    }

    /// The barrier was answered: what it had sent. `None`: nobody waited for an answer.
    pub(super) fn answered(&mut self) -> Option<Vec<Sent>> {
        self.under_way.take()
    }

    /// Its session is over.
    pub(super) fn clear(&mut self) {
        self.under_way = None;
    }

    /// What is under way, for [`super::State::check`].
    #[cfg(test)]
    pub(super) fn entries(&self) -> Option<&[Sent]> {
        self.under_way.as_deref()
    }
}
