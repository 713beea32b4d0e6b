//! Back-pressure: when records may flow (INV-11, INV-12).

use std::time::{Duration, Instant};

use super::flow::{pause, resume};
use super::thread::Poller;
use pgsluice_core::record::TopicPartition;

/// How long the loop stands still with a full budget before it pauses the partitions. Pausing
/// throws prefetched records away and costs about half a second of flow, so a short jam is sat
/// out; a long one must not keep rebalances waiting.
const STANDSTILL: Duration = Duration::from_secs(1);
/// How often the loop looks for room while it stands still.
const ROOM_CHECK: Duration = Duration::from_millis(2);
/// Whether records may flow, by the budget.
pub(super) enum Gate {
    /// There is room.
    Open,
    /// No room since then; nothing is polled.
    Standing(Instant),
    /// No room for long: partitions are paused, polling goes on for the group's sake.
    Paused,
}

impl Poller {
    /// Pauses or resumes one partition for the coordinator.
    pub(super) fn hold(&mut self, partition: &TopicPartition, held: bool) {
        let may_flow = self.may_flow();
        let Some(reading) = self.readings.get(&partition.topic, partition.partition) else {
            return;
        };
        reading.held = held;
        // A position that is still to be set resumes the partition by itself.
        if held {
            pause(&self.member, [partition]);
        } else if may_flow && reading.is_flowing() {
            resume(&self.member, [partition]);
        }
    }

    /// Records may be fetched at all.
    pub(super) fn may_flow(&self) -> bool {
        !self.stopped && !matches!(self.gate, Gate::Paused) && self.decoder.is_some()
    }

    /// Opens and closes the gate by the budget.
    pub(super) fn pace(&mut self) {
        match self.gate {
            Gate::Open if self.budget.is_full() => self.gate = Gate::Standing(Instant::now()),
            Gate::Open => {}
            Gate::Standing(_) if !self.budget.is_full() => self.gate = Gate::Open,
            Gate::Standing(since) if since.elapsed() >= STANDSTILL => {
                self.pause_all();
                self.gate = Gate::Paused;
            }
            Gate::Standing(_) => std::thread::sleep(ROOM_CHECK),
            Gate::Paused if self.budget.is_low() => {
                self.gate = Gate::Open;
                if self.may_flow() {
                    let flowing = self.readings.iter_mut().filter(|r| r.is_flowing() && !r.held);
                    resume(&self.member, flowing.map(|r| &r.partition));
                }
            }
            Gate::Paused => {}
        }
    }

    pub(super) fn pause_all(&mut self) {
        pause(&self.member, self.readings.iter_mut().map(|r| &r.partition));
    }
}
