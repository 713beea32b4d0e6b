//! What goes to which lane, and when to advance.

use std::time::Duration;

use crate::group::{Group, GroupKind};
use crate::record::SessionId;
use crate::verdict::GapPolicy;

use super::drain::Drain;
use super::{Advancing, State};
use crate::input::Action;
use crate::partition::Phase;

impl State {
    /// Runs after every input: starts whatever may start now.
    pub(super) fn schedule(&mut self) {
        self.halt_where_asked();
        self.wake_paused();
        if let Some(session) = self.open_session() {
            self.take_waiting(session);
            self.wake_retries();
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

    fn wake_retries(&mut self) {
        let now = self.now;
        let mut index = 0;
        while index < self.retries.len() {
            if self.retries[index].0 <= now {
                let (_, group) = self.retries.swap_remove(index);
                self.to_resolve.push_back(group);
            } else {
                index += 1;
            }
        }
    }

    fn fill_fast_lanes(&mut self, session: SessionId) {
        while self.fast_in_flight < self.config.fast_capacity {
            let Some(group) = self.queue.next_group(self.config.events_per_group) else { break };
            if !self.fast(&group) {
                self.to_resolve.push_back(group);
                continue;
            }
            let mut groups = vec![group];
            self.fill_chunk(&mut groups);
            for group in &groups {
                self.count_in_flight(group);
            }
            self.fast_in_flight += 1;
            self.out.push(Action::Apply { session, groups });
        }
    }

    /// Adds groups of the same route, up to `aggregates_per_transaction`.
    fn fill_chunk(&mut self, groups: &mut Vec<Group>) {
        let kind = groups[0].kind;
        while groups.len() < self.config.aggregates_per_transaction
            && matches!(kind, GroupKind::Write(_))
            && self.queue.next_kind() == Some(kind)
        {
            let Some(group) = self.queue.next_group(self.config.events_per_group) else { break };
            if self.fast(&group) {
                groups.push(group);
            } else {
                self.to_resolve.push_back(group);
            }
        }
    }

    /// A first attempt whose events can all apply as far as the group itself can tell. Whether
    /// the ledger agrees is the statement's guard to say (INV-13).
    fn fast(&self, group: &Group) -> bool {
        match group.kind {
            GroupKind::Poison => false,
            GroupKind::Skip => true,
            GroupKind::Write(_) => group.events.windows(2).all(|pair| {
                match (pair[0].envelope.version, pair[1].envelope.version) {
                    (None, None) => true,
                    (Some(a), Some(b)) if self.config.gaps == GapPolicy::Park => b.0 == a.0 + 1,
                    (Some(a), Some(b)) => b > a,
                    (None, Some(_)) | (Some(_), None) => false,
                }
            }),
        }
    }

    fn fill_slow_lane(&mut self, session: SessionId) {
        while self.slow_in_flight < self.config.slow_capacity {
            let read = match (self.to_read.is_empty(), self.to_resolve.is_empty()) {
                (true, true) => break,
                // In turn: a replay refuses groups without end, and would starve the others.
                (false, false) => !self.read_last,
                (read_empty, _) => !read_empty,
            };
            self.read_last = read;
            if read {
                let count = self.to_read.len().min(self.config.groups_per_read.max(1));
                let groups: Vec<Group> = self.to_read.drain(..count).collect();
                for group in &groups {
                    self.count_in_flight(group);
                }
                self.out.push(Action::Read { session, groups });
            } else if let Some(group) = self.to_resolve.pop_front() {
                self.count_in_flight(&group);
                self.out.push(Action::Resolve { session, group });
            }
            self.slow_in_flight += 1;
        }
    }

    fn count_in_flight(&mut self, group: &Group) {
        self.weight_in_flight += group.weight();
        if let Some(p) = self.current(&group.origin.partition, group.origin.generation) {
            p.in_flight += 1;
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
        let idle = self.advancing.is_some() || self.open_session().is_none();
        if idle || !self.partitions.values().any(|p| p.behind()) {
            return None;
        }
        let hurry = self.drain != Drain::No
            || self.partitions.values().any(|p| {
                matches!(p.phase, Phase::Revoking { .. }) && p.in_flight == 0 && p.behind()
            });
        match self.advanced_at {
            Some(last) if !hurry => Some(last + self.config.advance_interval),
            _ => Some(self.now),
        }
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
                sent.push((name.clone(), partition.generation, entry.stream, entry.next));
                progress.push(entry);
            }
        }
        self.advancing = Some(Advancing { sent });
        self.advanced_at = Some(self.now);
        self.out.push(Action::Advance { session, progress });
    }
}
