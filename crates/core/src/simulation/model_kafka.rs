//! Kafka: the group that hands out partitions, the committed offsets, and the consumer thread of
//! each process with its position, its commands and what it has told its coordinator.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::checker::Checker;
use super::model_sessions::ProcessId;
use super::swarm::{Rates, Rng};
use super::workload::{Workload, index_of, stream_of};
use crate::input::{Input, MirrorPosition, RevokeTicket};
use crate::position::mirror_tag;
use crate::position::{Committed, KafkaPosition};
use crate::record::{Anchor, Generation, NextOffset, OwnerEpoch, TopicPartition};

/// A committed offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CommittedOffset {
    /// The offset.
    pub(super) next: i64,
    /// It carries our tag; an operator's does not.
    pub(super) tagged: bool,
}

/// A revocation that the group waits for.
#[derive(Debug)]
pub(super) struct Revocation {
    /// Who must let go.
    pub(super) process: ProcessId,
    /// What it answers with.
    pub(super) ticket: RevokeTicket,
    /// What it must let go of.
    pub(super) partitions: Vec<usize>,
    /// When the group goes on without an answer.
    pub(super) deadline: Duration,
    /// The answer is lost: only the deadline ends it.
    pub(super) deaf: bool,
}

/// The broker's side.
#[derive(Debug)]
pub(super) struct Broker {
    work: Rc<Workload>,
    /// Records that were produced so far, by partition.
    pub(super) visible: Vec<usize>,
    /// Who reads each partition as far as the group knows.
    pub(super) owner: Vec<Option<ProcessId>>,
    /// Who shall read it next, once the owner let go.
    pub(super) wanted: Vec<Option<ProcessId>>,
    /// CommittedOffset offsets.
    pub(super) committed: Vec<Option<CommittedOffset>>,
    before: Vec<Option<CommittedOffset>>,
    /// Revocations under way.
    pub(super) revocations: Vec<Revocation>,
    /// Members that lost partitions and have not heard of it.
    pub(super) unaware: Vec<(ProcessId, Vec<usize>)>,
    tickets: u64,
    /// The operator added a route for what was unmatched.
    pub(super) new_route: bool,
    /// The operator mended the configuration where it says to stop.
    pub(super) mended: bool,
}

impl Broker {
    /// Logs without a visible record yet, nobody reading.
    pub(super) fn new(work: &Rc<Workload>) -> Self {
        let partitions = work.logs.len();
        Self {
            work: Rc::clone(work),
            visible: vec![0; partitions],
            owner: vec![None; partitions],
            wanted: vec![None; partitions],
            committed: vec![None; partitions],
            before: vec![None; partitions],
            revocations: Vec::new(),
            unaware: Vec::new(),
            tickets: 0,
            new_route: false,
            mended: false,
        }
    }

    /// Produces the next record or marker of a partition; `held_back` entries stay out of sight, and
    /// so does what is sent only after another record took effect.
    pub(super) fn produce(
        &mut self,
        partition: usize,
        held_back: usize,
        checker: &Checker,
    ) -> bool {
        let (next, log) = (self.visible[partition], &self.work.logs[partition]);
        let after = log.get(next).copied().flatten().and_then(|rec| self.work.records[rec].after);
        let sent = after.is_none_or(|after| checker.is_finished(after));
        let more = sent && next + held_back < log.len();
        self.visible[partition] += usize::from(more);
        more
    }

    /// What Kafka says of a partition to whoever takes it.
    pub(super) fn position(&self, partition: usize) -> KafkaPosition {
        let tag = || mirror_tag(stream_of(partition), OwnerEpoch(1));
        KafkaPosition {
            committed: self.committed[partition].map(|committed| Committed {
                next: committed.next,
                metadata: if committed.tagged { tag() } else { String::new() },
            }),
            low: 0,
            high: self.visible[partition] as i64,
            start: Some(0),
        }
    }

    /// A commit arrives. Only the group's member may commit.
    pub(super) fn commit(&mut self, from: ProcessId, position: &MirrorPosition) {
        let partition = index_of(&position.partition);
        if self.owner[partition] == Some(from) {
            self.before[partition] = self.committed[partition];
            self.committed[partition] =
                Some(CommittedOffset { next: position.next.0, tagged: true });
        }
    }

    /// A broker failed over and forgot the latest commit.
    pub(super) fn take_back(&mut self, partition: usize) {
        self.committed[partition] = self.before[partition];
    }

    /// An operator moves the offset of a group without members.
    pub(super) fn reset(&mut self, partition: usize, next: i64) {
        self.before[partition] = self.committed[partition];
        self.committed[partition] = Some(CommittedOffset { next, tagged: false });
    }

    /// Begins to take partitions from a process.
    pub(super) fn revoke(
        &mut self,
        process: ProcessId,
        partitions: Vec<usize>,
        deadline: Duration,
        deaf: bool,
    ) -> Input {
        self.tickets += 1;
        let ticket = RevokeTicket(self.tickets);
        let names = partitions.iter().map(|&p| self.work.partition(p)).collect();
        self.revocations.push(Revocation { process, ticket, partitions, deadline, deaf });
        Input::Revoked { partitions: names, ticket, lost: false }
    }

    /// What a process hears that lost partitions without being asked.
    pub(super) fn lost(&mut self, partitions: &[usize]) -> Input {
        self.tickets += 1;
        Input::Revoked {
            partitions: partitions.iter().map(|&p| self.work.partition(p)).collect(),
            ticket: RevokeTicket(self.tickets),
            lost: true,
        }
    }
}

/// What the coordinator tells its consumer thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Read from here.
    Seek(TopicPartition, Generation, NextOffset, Option<Anchor>),
    /// Deliver nothing more.
    Pause(TopicPartition),
    /// Deliver again.
    Resume(TopicPartition),
    /// Commit.
    Mirror(Vec<MirrorPosition>),
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    generation: Generation,
    position: i64,
    /// The position that the coordinator can tell from what it was given.
    told: i64,
    paused: bool,
}

/// The consumer thread of one process.
#[derive(Debug)]
pub(super) struct Consumer {
    /// Partitions this thread believes to be assigned, and how it reads them.
    assigned: Vec<Option<Option<Reading>>>,
    commands: VecDeque<Command>,
    /// Partitions of which no commit may leave this process.
    unmirrored: Vec<bool>,
    /// What it has told its coordinator, in order.
    pub(super) told: VecDeque<Input>,
}

/// What a step of a consumer thread needs of the world around it.
pub(super) struct Surroundings<'a> {
    /// The logs.
    pub(super) work: &'a Workload,
    /// The broker.
    pub(super) broker: &'a mut Broker,
    /// The checker.
    pub(super) checker: &'a mut Checker,
    /// The dice.
    pub(super) rng: &'a mut Rng,
    /// The rates.
    pub(super) rates: &'a Rates,
}

impl Consumer {
    /// Nothing assigned.
    pub(super) fn new(partitions: usize) -> Self {
        Self {
            assigned: vec![None; partitions],
            commands: VecDeque::new(),
            unmirrored: vec![false; partitions],
            told: VecDeque::new(),
        }
    }

    /// The group gave it partitions.
    pub(super) fn assign(&mut self, work: &Workload, partitions: &[usize]) {
        for &p in partitions {
            self.assigned[p] = Some(None);
        }
        let names = partitions.iter().map(|&p| work.partition(p)).collect();
        self.told.push_back(Input::Assigned(names));
    }

    /// The group took partitions from it.
    pub(super) fn forget(&mut self, partitions: &[usize]) {
        for &p in partitions {
            self.assigned[p] = None;
        }
    }

    /// The process owns a partition: its positions may be committed.
    pub(super) fn may_mirror(&mut self, partition: &TopicPartition) {
        self.unmirrored[index_of(partition)] = false;
    }

    /// The process gave a partition up: a commit of it would be a mistake.
    pub(super) fn must_not_mirror(&mut self, partition: &TopicPartition) {
        self.unmirrored[index_of(partition)] = true;
    }

    /// Drops the positions of a partition that are not committed yet.
    pub(super) fn forget_mirror(&mut self, partition: &TopicPartition) {
        for command in &mut self.commands {
            if let Command::Mirror(positions) = command {
                positions.retain(|position| position.partition != *partition);
            }
        }
    }

    /// Queues a command.
    pub(super) fn command(&mut self, command: Command) {
        self.commands.push_back(command);
    }

    /// Carries out a command, or reads. Returns whether there was anything to do.
    pub(super) fn step(
        &mut self,
        me: ProcessId,
        around: &mut Surroundings<'_>,
        may_poll: bool,
    ) -> bool {
        if let Some(command) = self.commands.pop_front() {
            self.obey(me, command, around);
            return true;
        }
        may_poll && (self.poll(around) || self.tell_position(around))
    }

    fn obey(&mut self, me: ProcessId, command: Command, around: &mut Surroundings<'_>) {
        match command {
            Command::Seek(partition, generation, next, anchor) => {
                let index = index_of(&partition);
                if let Some(reading) = &mut self.assigned[index] {
                    if let Some(anchor) = anchor {
                        check_anchor(index, anchor, next, around);
                    }
                    *reading =
                        Some(Reading { generation, position: next.0, told: next.0, paused: false });
                }
            }
            Command::Pause(partition) => self.set_paused(&partition, true),
            Command::Resume(partition) => self.set_paused(&partition, false),
            Command::Mirror(positions) => {
                for position in &positions {
                    let forbidden = self.unmirrored[index_of(&position.partition)];
                    around.checker.require(!forbidden, "mirror", || {
                        format!("{me:?} commits {position:?} of a partition that it gave up")
                    });
                    if !around.rng.chance(around.rates.mirror_lost) {
                        around.broker.commit(me, position);
                    }
                }
            }
        }
    }

    fn set_paused(&mut self, partition: &TopicPartition, paused: bool) {
        if let Some(Some(reading)) = &mut self.assigned[index_of(partition)] {
            reading.paused = paused;
        }
    }

    fn poll(&mut self, around: &mut Surroundings<'_>) -> bool {
        let mut events = Vec::new();
        let most = around.rng.between(1, 8);
        let partitions = self.assigned.len();
        let start = around.rng.below(partitions);
        for partition in (0..partitions).map(|i| (start + i) % partitions) {
            let Some(Some(reading)) = &mut self.assigned[partition] else { continue };
            let log = &around.work.logs[partition][..around.broker.visible[partition]];
            while !reading.paused && events.len() < most {
                let Some(entry) = log.get(reading.position as usize) else { break };
                reading.position += 1;
                let Some(rec) = *entry else { continue };
                let Broker { new_route, mended, .. } = *around.broker;
                let mut event = around.work.decoded(rec, new_route, mended);
                event.record.generation = reading.generation;
                reading.told = reading.position;
                events.push(event);
            }
        }
        let any = !events.is_empty();
        if any {
            self.told.push_back(Input::Polled(events));
        }
        any
    }

    /// Transaction markers take offsets: the position may lie beyond the last record.
    fn tell_position(&mut self, around: &mut Surroundings<'_>) -> bool {
        for (index, reading) in self.assigned.iter_mut().enumerate() {
            let Some(Some(reading)) = reading else { continue };
            if reading.position > reading.told {
                reading.told = reading.position;
                self.told.push_back(Input::Positioned {
                    partition: around.work.partition(index),
                    generation: reading.generation,
                    next: NextOffset(reading.position),
                });
                return true;
            }
        }
        false
    }
}

/// The log never changes here, so an anchor that does not read back was written wrongly.
fn check_anchor(partition: usize, anchor: Anchor, next: NextOffset, around: &mut Surroundings<'_>) {
    let entry = around.work.logs[partition].get(anchor.offset.0 as usize).copied().flatten();
    let same = entry.is_some_and(|rec| {
        let record = &around.work.records[rec].event.record;
        record.timestamp == anchor.timestamp && record.crc() == anchor.crc
    });
    around.checker.require(same && anchor.offset.0 < next.0, "anchor", || {
        format!("anchor {anchor:?} of partition {partition} does not read back before {next:?}")
    });
}
