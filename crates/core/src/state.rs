//! The coordinator: one synchronous state machine that makes every decision of the pipeline.
//!
//! [`State::on`] takes what happened and returns what to do. It performs no I/O, takes no lock,
//! awaits nothing and has no clock: time comes with each input and never goes back. The caller
//! performs the actions in their order, and calls again with [`Input::Tick`] when
//! [`State::next_deadline`] is reached. So everything that can interleave can be driven by a
//! simulator, and every guard can be proved by removing it.
//!
//! A record's way: `Polled` → queue → `Apply` (fast lane) → done, or refused or failed → slow
//! lane (`Read`, `Resolve`) → done → frontier → `Advance` → `Mirror`.
//!
//! | file | what it decides |
//! | --- | --- |
//! | `state.rs` | what records, replies and the barrier's answer mean |
//! | `state/work.rs` | what waits for its turn, a lane or its time, and what is in flight |
//! | `state/sessions.rs`, `state/barrier.rs` | the session in use; the barrier under way |
//! | `state/partition.rs` | one assigned partition and its phases |
//! | `state/patience.rs` | for how long an aggregate may fail |
//! | `state/schedule.rs` | what goes to which lane, and when to advance |
//! | `state/failure.rs` | what follows from a group that failed |
//! | `state/drain.rs` | when a drain has ended |
//! | `state/nothing_to_write.rs` | what becomes of records that never enter the queue |
//! | `state/take.rs` | how reading of a partition begins |
//! | `state/recovery.rs` | the one recovery: session loss, halt, fencing, revocation |
//!
//! In tests `state/check.rs` looks after each input whether everything adds up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::event::Event;
use crate::fault::{Fault, FaultKind};
use crate::group::{Group, GroupKind, GroupReply, OrderingKey, Origin};
use crate::guard::guard;
use crate::random::Random;
use crate::record::{Generation, NextOffset, Offset, SessionId, StreamId, TopicPartition};
use crate::verdict::{Reason, Verdict};

use crate::input::{Action, Input, Lane, MirrorPosition, Report, RevokeTicket};

mod barrier;
#[cfg(test)]
mod check;
mod config;
mod drain;
mod failure;
mod nothing_to_write;
mod partition;
mod patience;
mod recovery;
mod schedule;
mod sessions;
mod take;
#[cfg(test)]
mod tests;
mod work;

use barrier::{Barrier, Sent};
pub use config::{Decide, StateConfig};
use drain::Drain;
use partition::{Partition, Phase};
use patience::Patience;
use sessions::Sessions;
use work::Work;

/// The coordinator. See the module's documentation.
#[derive(Debug)]
pub struct State {
    config: StateConfig,
    random: Random,
    now: Duration,
    sessions: Sessions,
    partitions: BTreeMap<TopicPartition, Partition>,
    generations: u64,
    work: Work,
    patience: Patience,
    barrier: Barrier,
    drain: Drain,
    /// Durable positions of partitions given up, until their ticket is answered.
    released: BTreeMap<RevokeTicket, Vec<MirrorPosition>>,
    out: Vec<Action>,
    #[cfg(test)]
    watch: check::Watch,
}

impl State {
    /// A coordinator that has not begun. Its first action is to open a session: call
    /// [`Self::on`] with [`Input::Tick`] to get it. `seed` feeds the jitter of back-offs.
    pub fn new(config: StateConfig, seed: u64) -> Self {
        let first = SessionId(1);
        Self {
            config,
            random: Random::seeded(seed),
            now: Duration::ZERO,
            sessions: Sessions::new(first),
            partitions: BTreeMap::new(),
            generations: 0,
            work: Work::default(),
            patience: Patience::default(),
            barrier: Barrier::default(),
            drain: Drain::No,
            released: BTreeMap::new(),
            out: vec![Action::OpenSession { session: first, after: Duration::ZERO }],
            #[cfg(test)]
            watch: check::Watch::default(),
        }
    }

    /// Takes one input and returns what to do, in order.
    pub fn on(&mut self, now: Duration, input: Input) -> Vec<Action> {
        debug_assert!(now >= self.now, "time never goes back");
        #[cfg(test)]
        self.watch.takes(&input, &self.sessions);
        self.now = self.now.max(now);
        match input {
            Input::Assigned(partitions) => self.on_assigned(partitions),
            Input::Revoked { partitions, ticket, lost } => {
                self.on_revoked(&partitions, ticket, lost);
            }
            Input::Polled(events) => events.into_iter().for_each(|event| self.on_event(event)),
            Input::Positioned { partition, generation, next } => {
                self.on_positioned(&partition, generation, next);
            }
            Input::LogChanged { partition, generation } => {
                if let Some(reading) = self.reading(&partition, generation) {
                    let at = Offset(reading.durable.0);
                    self.halt(&partition, Reason::LogChanged, None, Some(at));
                }
            }
            Input::SessionOpened(session) => self.on_session_opened(session),
            Input::SessionLost(session, fault) => self.lose_session(session, fault),
            Input::Taken(session, replies) => self.on_taken(session, replies),
            Input::Replied { session, lane, groups } => self.on_replied(session, lane, groups),
            Input::Advanced(session, streams) => self.on_advanced(session, &streams),
            Input::Drain => self.drain = self.drain.begun(),
            Input::Tick => {}
        }
        self.schedule();
        #[cfg(test)]
        self.watch.gives(&self.out);
        std::mem::take(&mut self.out)
    }

    /// When [`Input::Tick`] is due, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Duration> {
        let phases = self.partitions.values().filter_map(|p| match p.phase {
            // One whose time has come waits for a reply, not for time.
            Phase::Paused { until } => Some(until).filter(|until| *until > self.now),
            Phase::Revoking { deadline, .. } => Some(deadline),
            Phase::Waiting | Phase::Taking | Phase::Reading => None,
        });
        phases.chain(self.work.next_deadline()).chain(self.advance_due()).min()
    }

    /// Groups and events that have no outcome yet, for the drain's log line.
    pub fn unfinished(&self) -> usize {
        self.partitions.values().map(|p| p.frontier.unfinished()).sum()
    }

    /// Gives weight back to the poll budget.
    fn free(&mut self, weight: usize) {
        if weight > 0 {
            self.out.push(Action::Freed(weight));
        }
    }

    fn next_generation(&mut self) -> Generation {
        self.generations += 1;
        Generation(self.generations)
    }

    /// The partition, if it still has the reading that `generation` names.
    fn current(
        &mut self,
        partition: &TopicPartition,
        generation: Generation,
    ) -> Option<&mut Partition> {
        let partition = self.partitions.get_mut(partition)?;
        (!guard!(GenerationTag, partition.generation != generation)).then_some(partition)
    }

    /// The partition, if it is being read under that generation.
    fn reading(
        &mut self,
        partition: &TopicPartition,
        generation: Generation,
    ) -> Option<&mut Partition> {
        self.current(partition, generation).filter(|p| p.phase == Phase::Reading)
    }

    /// The partition whose current reading delivered the group.
    fn reading_of(&mut self, group: &Group) -> Option<&mut Partition> {
        let origin = group.owner()?;
        self.current(&origin.partition, origin.generation)
    }

    fn on_event(&mut self, event: Event) {
        let weight = event.weight();
        let Some(origin) = self.accept(&event) else {
            self.free(weight);
            return;
        };
        match Group::kind_of(&event) {
            None => self.stop_at(event),
            Some(GroupKind::Skip) if !self.config.note_skips => self.finish_skip(&event),
            Some(kind) => self.work.push(OrderingKey::of(&event), origin, kind, event),
        }
    }

    /// The reading a record belongs to, if it is in progress and the record is new to it.
    fn accept(&mut self, event: &Event) -> Option<Arc<Origin>> {
        if self.drain != Drain::No {
            return None;
        }
        let partition = self.reading(&event.record.partition, event.record.generation)?;
        let wanted =
            partition.halt_when_finished.is_none() && partition.frontier.deliver(event.offset());
        partition.origin.clone().filter(|_| wanted)
    }

    /// The consumer's position covers records, too, that [`Self::accept`] turned away because of a
    /// drain, and those have no outcome. What stands behind a record to stop at is never passed:
    /// that record stays unfinished.
    fn on_positioned(
        &mut self,
        partition: &TopicPartition,
        generation: Generation,
        next: NextOffset,
    ) {
        if self.drain != Drain::No {
            return;
        }
        if let Some(reading) = self.reading(partition, generation) {
            reading.frontier.skip_to(next);
        }
    }

    fn on_replied(&mut self, session: SessionId, lane: Lane, groups: Vec<(Group, GroupReply)>) {
        if !self.sessions.is_current(session) {
            // The session is gone, and with it the keys, counts and weight of its groups.
            return;
        }
        self.work.answered(lane);
        for (group, reply) in groups {
            self.work.came_back(&group);
            self.settle(session, lane, group, reply);
        }
    }

    fn settle(&mut self, session: SessionId, lane: Lane, group: Group, reply: GroupReply) {
        let name = group.partition().clone();
        let Some(partition) = self.reading_of(&group) else {
            self.discard(group);
            return;
        };
        partition.in_flight = partition.in_flight.saturating_sub(1);
        // A partition that halts or is being taken away starts nothing new.
        let reading = partition.phase == Phase::Reading;
        match reply {
            GroupReply::Done { verdicts, gap } => self.finish(group, &verdicts, gap),
            GroupReply::NotOwner => {
                self.discard(group);
                self.fence(&name);
            }
            GroupReply::Failed(fault) => self.on_failed(session, lane, group, fault),
            GroupReply::Halted { reason, fault, at } => {
                self.discard(group);
                self.halt(&name, reason, Some(fault), Some(at));
            }
            GroupReply::Refused if reading => self.work.read(group),
            GroupReply::Unsettled if reading => self.work.resolve(group),
            GroupReply::Refused | GroupReply::Unsettled => self.discard(group),
        }
    }

    /// Every event has its outcome. A lane that does not give one for each would let records pass
    /// without an outcome: the process ends instead (INV-5).
    fn finish(&mut self, group: Group, verdicts: &[Verdict], gap: i64) {
        if verdicts.len() != group.events().count() {
            self.discard(group);
            let fault = Fault::new(FaultKind::Bug("a lane did not give one verdict per event"));
            self.out.push(Action::Stop(fault));
            return;
        }
        self.patience.finished(&group, verdicts, self.now);
        if let Some(partition) = self.partitions.get_mut(group.partition()) {
            for event in group.events() {
                partition.frontier.finish(&event.record);
            }
        }
        for verdict in Verdict::ALL {
            let count = verdicts.iter().filter(|v| **v == verdict).count() as u64;
            if count > 0 {
                self.out.push(Action::Report(Report::Finished {
                    partition: group.partition().clone(),
                    verdict,
                    count,
                }));
            }
        }
        if gap > 0 {
            self.out.push(Action::Report(Report::VersionGap(group.partition().clone())));
        }
        let letter = |v: &Verdict| matches!(v, Verdict::DeadLettered | Verdict::Parked);
        if verdicts.iter().any(letter) {
            self.out.push(Action::PublishLetters);
            self.out.push(Action::Report(Report::LettersWritten));
        }
        self.discard(group);
    }

    /// The group leaves memory; its key may give the next one.
    fn discard(&mut self, group: Group) {
        let weight = self.work.discard(group);
        self.free(weight);
    }

    fn on_advanced(&mut self, session: SessionId, streams: &[StreamId]) {
        if !self.sessions.is_current(session) {
            return;
        }
        let Some(sent) = self.barrier.answered() else { return };
        let mut mirrored = Vec::new();
        for Sent { partition: name, generation, stream, next } in sent {
            let Some(partition) = self.current(&name, generation) else { continue };
            if !streams.contains(&stream) {
                self.fence(&name);
                continue;
            }
            partition.durable = next;
            if partition.passed_halt() {
                self.out.push(Action::Report(Report::HaltEnded(name.clone())));
            }
            mirrored.extend(self.partitions.get(&name).and_then(Partition::mirror_position));
            self.out.push(Action::Report(Report::Advanced { partition: name, next }));
        }
        if !mirrored.is_empty() {
            self.sessions.advanced();
            self.out.push(Action::Mirror(mirrored));
        }
    }
}
