//! What must hold of the coordinator after each input, in tests and in the simulation: every record
//! is in exactly one place, and everything that is counted adds up.

use crate::event::Event;
use crate::group::{Group, OrderingKey};
use crate::record::{Generation, SessionId, TopicPartition};

use super::State;
use super::barrier;
use super::partition::{Partition, Phase};
use super::sessions::{Current, Sessions};
use crate::input::{Action, Input, Lane};

/// A group that a lane works on.
#[derive(Debug)]
struct Sent {
    order: OrderingKey,
    partition: TopicPartition,
    generation: Generation,
    events: usize,
    weight: usize,
}

impl Sent {
    fn new(group: &Group) -> Self {
        Self {
            order: group.order.clone(),
            partition: group.origin.partition.clone(),
            generation: group.origin.generation,
            events: group.events.len(),
            weight: group.weight(),
        }
    }

    fn is_of(&self, name: &TopicPartition, generation: Generation) -> bool {
        self.partition == *name && self.generation == generation
    }
}

/// What goes in and comes out: the other side of the coordinator's books.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The session in use before the input.
    session: Option<SessionId>,
    /// The groups that lanes of the session in use work on.
    in_flight: Vec<Sent>,
    /// Requests without an answer.
    fast: usize,
    slow: usize,
    /// Weight of records that were given and not freed; below 0 when too much was.
    held: i128,
    /// The process is to end: what was in hand is lost on purpose.
    stopped: bool,
}

fn weight<'e>(events: impl IntoIterator<Item = &'e Event>) -> usize {
    events.into_iter().map(|event| event.weight()).sum()
}

impl Watch {
    /// Before the coordinator takes an input.
    pub(super) fn takes(&mut self, input: &Input, sessions: &Sessions) {
        self.session = Some(sessions.id());
        match input {
            Input::Polled(events) => self.held += weight(events) as i128,
            Input::Replied { session, lane, groups }
                if sessions.current == Current::Open(*session) =>
            {
                match lane {
                    Lane::Fast => self.fast -= 1,
                    Lane::Slow => self.slow -= 1,
                }
                for (group, _) in groups {
                    self.in_flight.retain(|sent| sent.order != group.order);
                }
            }
            _ => {}
        }
    }

    /// After it.
    pub(super) fn gives(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Apply { groups, .. } => {
                    self.fast += 1;
                    self.in_flight.extend(groups.iter().map(Sent::new));
                }
                Action::Read { groups, .. } => {
                    self.slow += 1;
                    self.in_flight.extend(groups.iter().map(Sent::new));
                }
                Action::Resolve { group, .. } => {
                    self.slow += 1;
                    self.in_flight.push(Sent::new(group));
                }
                Action::CloseSession(closed, _) if Some(*closed) == self.session => {
                    (self.fast, self.slow) = (0, 0);
                    self.in_flight.clear();
                }
                Action::Freed(weight) => self.held -= *weight as i128,
                Action::Stop(_) => self.stopped = true,
                _ => {}
            }
        }
    }
}

/// `Err` with what is told, unless it holds.
fn require(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

impl State {
    /// Says what is inconsistent, if something is.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.watch.stopped {
            return Ok(());
        }
        self.work.queue.check()?;
        self.check_keys()?;
        self.check_counts()?;
        for (name, partition) in &self.partitions {
            partition.frontier.check()?;
            self.check_partition(name, partition)?;
        }
        self.check_waiting()?;
        self.check_barrier()
    }

    /// A key is busy exactly while it has a group, and never has two (INV-3).
    fn check_keys(&self) -> Result<(), String> {
        let waiting = self.work.waiting().map(|group| &group.order);
        let mut groups: Vec<_> =
            waiting.chain(self.watch.in_flight.iter().map(|sent| &sent.order)).collect();
        let mut busy: Vec<_> = self.work.queue.busy().collect();
        groups.sort();
        busy.sort();
        require(groups == busy, || format!("groups of {groups:?}, busy are {busy:?}"))
    }

    /// Requests and weight add up (INV-11).
    fn check_counts(&self) -> Result<(), String> {
        let Watch { in_flight, fast, slow, held, .. } = &self.watch;
        require((self.work.fast_in_flight, self.work.slow_in_flight) == (*fast, *slow), || {
            let counted = (self.work.fast_in_flight, self.work.slow_in_flight);
            format!("{counted:?} requests are counted, {:?} are in flight", (fast, slow))
        })?;
        let sent: usize = in_flight.iter().map(|sent| sent.weight).sum();
        require(self.work.weight_in_flight == sent, || {
            format!("weight in flight {}, sent {sent}", self.work.weight_in_flight)
        })?;
        let queued = weight(self.work.queue.waiting().map(|(_, event)| event));
        let waiting: usize = self.work.waiting().map(Group::weight).sum();
        let all = queued + waiting + sent;
        require(*held == all as i128, || {
            format!("weight {held} is held, and {queued} queued, {waiting} waiting, {sent} sent")
        })
    }

    /// Every record of a reading that has no outcome is in exactly one place.
    fn check_partition(&self, name: &TopicPartition, partition: &Partition) -> Result<(), String> {
        let generation = partition.generation;
        let sent = || self.watch.in_flight.iter().filter(|sent| sent.is_of(name, generation));
        require(partition.in_flight == sent().count(), || {
            format!("{name} counts {} groups in flight of {}", partition.in_flight, sent().count())
        })?;
        require(partition.durable <= partition.frontier.next() || !partition.behind(), || {
            format!("{name} is durable beyond what is finished")
        })?;
        if partition.phase != Phase::Reading {
            return Ok(());
        }
        let origin = partition.origin.as_ref();
        require(origin.is_some_and(|origin| origin.generation == generation), || {
            format!("{name} is read under another generation than {generation:?}")
        })?;
        let queued =
            self.work.queue.waiting().filter(|(origin, _)| origin.partition == *name).count();
        let waiting: usize = self
            .work
            .waiting()
            .filter(|group| group.origin.partition == *name)
            .map(|group| group.events.len())
            .sum();
        let sent: usize = sent().map(|sent| sent.events).sum();
        let asked = usize::from(partition.halt_when_finished.is_some());
        let unfinished = partition.frontier.unfinished();
        require(unfinished == queued + waiting + sent + asked, || {
            format!(
                "{name} has {unfinished} unfinished records: {queued} queued, {waiting} waiting, \
                 {sent} sent"
            )
        })
    }

    /// What waits belongs to a reading in progress, and nothing is in progress without a session.
    fn check_waiting(&self) -> Result<(), String> {
        let groups = self.work.waiting().map(|group| &group.origin);
        for origin in groups.chain(self.work.queue.waiting().map(|(origin, _)| origin)) {
            let reading = self.partitions.get(&origin.partition).is_some_and(|partition| {
                partition.phase == Phase::Reading && partition.generation == origin.generation
            });
            require(reading, || format!("work of a reading that is over: {origin:?}"))?;
        }
        let idle = self.partitions.values().all(|partition| {
            !matches!(partition.phase, Phase::Reading | Phase::Taking | Phase::Revoking { .. })
        });
        require(
            self.sessions.open().is_some() || (idle && self.watch.in_flight.is_empty()),
            || "work without a session".to_owned(),
        )?;
        let known = |name: &TopicPartition| self.partitions.contains_key(name);
        require(self.patience.partitions().all(known), || {
            "a key that fails in a partition that was given up".to_owned()
        })?;
        let awaited = self.released.keys().all(|ticket| {
            let waits = |p: &Partition| matches!(p.phase, Phase::Revoking { ticket: t, .. } if t == *ticket);
            self.partitions.values().any(waits)
        });
        require(awaited, || "a revocation is complete and not answered".to_owned())
    }

    /// A barrier tells of nothing that is unfinished (INV-1).
    fn check_barrier(&self) -> Result<(), String> {
        let Some(sent) = self.barrier.entries() else { return Ok(()) };
        require(self.sessions.open().is_some(), || "a barrier without a session".to_owned())?;
        for barrier::Sent { partition: name, generation, next, .. } in sent {
            let partition = self.partitions.get(name).filter(|p| p.generation == *generation);
            require(partition.is_none_or(|p| *next <= p.frontier.next()), || {
                format!("the barrier tells {next:?} of {name}")
            })?;
        }
        Ok(())
    }
}
