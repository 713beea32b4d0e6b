//! What goes to which lane, and when to advance.

use std::time::Duration;

use crate::group::Group;
use crate::record::SessionId;

use super::State;
use super::barrier::Sent;
use super::drain::Drain;
use super::partition::{Partition, Phase};
use super::work::SlowRequest;
use crate::input::Action;

impl State {
    /// Runs after every input: starts whatever may start now.
    pub(super) fn schedule(&mut self) {
        self.halt_where_asked();
        self.wake_paused();
        if let Some(session) = self.sessions.open() {
            self.take_waiting(session);
            self.work.wake(self.now);
            self.fill_fast_lanes(session);
            self.fill_slow_lane(session);
            self.throttle();
            self.advance(session);
        }
        self.release_revoked();
        self.finish_drain();
    }

    fn halt_where_asked(&mut self) {
        let asked: Vec<_> = self
            .partitions
            .iter()
            // The record that asks for it is delivered and stays unfinished.
            .filter(|(_, p)| p.phase == Phase::Reading && p.frontier.unfinished() <= 1)
            .filter_map(|(name, p)| p.halt_when_finished.map(|asked| (name.clone(), asked)))
            .collect();
        for (name, (reason, at)) in asked {
            self.halt(&name, reason, None, Some(at));
        }
    }

    /// Paused partitions whose time has come are taken again, once nothing of theirs is in
    /// flight and what they finished is durable.
    fn wake_paused(&mut self) {
        let now = self.now;
        let generations = &mut self.generations;
        for partition in self.partitions.values_mut() {
            let Phase::Paused { until } = partition.phase else { continue };
            if now >= until && partition.in_flight == 0 && !partition.behind() {
                *generations += 1;
                let generation = crate::record::Generation(*generations);
                partition.begin(generation, Phase::Waiting);
            }
        }
    }

    fn take_waiting(&mut self, session: SessionId) {
        if self.drain != Drain::No {
            return;
        }
        let mut partitions = Vec::new();
        for (name, partition) in &mut self.partitions {
            if partition.phase == Phase::Waiting {
                partition.phase = Phase::Taking;
                partitions.push((name.clone(), partition.generation));
            }
        }
        if !partitions.is_empty() {
            self.out.push(Action::Take { session, partitions });
        }
    }

    fn fill_fast_lanes(&mut self, session: SessionId) {
        while let Some(groups) = self.work.next_fast(&self.config) {
            self.count_in_flight(&groups);
            self.out.push(Action::Apply { session, groups });
        }
    }

    fn fill_slow_lane(&mut self, session: SessionId) {
        while let Some(request) = self.work.next_slow(&self.config) {
            self.count_in_flight(request.groups());
            self.out.push(match request {
                SlowRequest::Read(groups) => Action::Read { session, groups },
                SlowRequest::Resolve(group) => Action::Resolve { session, group: *group },
            });
        }
    }

    fn count_in_flight(&mut self, groups: &[Group]) {
        for group in groups {
            if let Some(p) = self.reading_of(group) {
                p.in_flight += 1;
            }
        }
    }

    /// Pauses partitions that run too far ahead of their oldest unfinished record.
    fn throttle(&mut self) {
        let limit = self.config.unfinished_per_partition;
        for (name, partition) in &mut self.partitions {
            if partition.phase != Phase::Reading {
                continue;
            }
            let unfinished = partition.frontier.unfinished();
            if !partition.throttled && unfinished > limit {
                partition.throttled = true;
                self.out.push(Action::Pause(name.clone()));
            } else if partition.throttled && unfinished <= limit / 2 {
                partition.throttled = false;
                self.out.push(Action::Resume(name.clone()));
            }
        }
    }

    /// When the next barrier may be sent; `None` while there is nothing to write.
    pub(super) fn advance_due(&self) -> Option<Duration> {
        self.sessions.open()?;
        if !self.partitions.values().any(Partition::behind) {
            return None;
        }
        let hurry = self.drain != Drain::No
            || self.partitions.values().any(|p| {
                matches!(p.phase, Phase::Revoking { .. }) && p.in_flight == 0 && p.behind()
            });
        self.barrier.due(self.now, self.config.advance_interval, hurry)
    }

    /// Sends the barrier: computed before it is sent, one at a time.
    fn advance(&mut self, session: SessionId) {
        if self.advance_due().is_none_or(|due| due > self.now) {
            return;
        }
        let mut sent = Vec::new();
        let mut progress = Vec::new();
        for (name, partition) in &self.partitions {
            if let Some(entry) = partition.progress() {
                sent.push(Sent {
                    partition: name.clone(),
                    generation: partition.generation,
                    stream: entry.stream,
                    next: entry.next,
                });
                progress.push(entry);
            }
        }
        self.barrier.send(self.now, sent);
        self.out.push(Action::Advance { session, progress });
    }
}
