//! Everything that is being worked on: what waits for its turn, for a lane or for its time, and what
//! lanes have in flight. It is dropped by partition, and lost as a whole with the session.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::StateConfig;
use crate::event::{AggregateKey, Event};
use crate::group::{Group, GroupKind, OrderingKey, Origin};
use crate::input::Lane;
use crate::queue::Queue;
use crate::record::TopicPartition;
use crate::verdict::GapPolicy;

/// What the slow lane is asked next.
#[derive(Debug)]
pub(super) enum SlowRequest {
    /// Look at refused groups.
    Read(Vec<Group>),
    /// Decide one group.
    Resolve(Box<Group>),
}

/// The work of all partitions.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) queue: Queue,
    /// Refused groups that wait for a look.
    pub(super) to_read: VecDeque<Group>,
    /// Groups that wait for a transaction of their own.
    pub(super) to_resolve: VecDeque<Group>,
    /// Groups that wait for their next attempt, each with its time.
    pub(super) retries: Vec<(Duration, Group)>,
    /// Requests in flight.
    pub(super) fast_in_flight: usize,
    pub(super) slow_in_flight: usize,
    /// Weight of the groups in flight. They are lost with their session: whether a lane still
    /// gives them back is not to be relied on.
    pub(super) weight_in_flight: usize,
    /// The slow lane took a look at refused groups last, not a group of its own.
    read_last: bool,
}

impl Work {
    /// An event waits for its turn.
    pub(super) fn push(
        &mut self,
        order: OrderingKey,
        origin: Arc<Origin>,
        kind: GroupKind,
        event: Event,
    ) {
        self.queue.push(order, origin, kind, event);
    }

    /// A refused group waits for a look.
    pub(super) fn read(&mut self, group: Group) {
        self.to_read.push_back(group);
    }

    /// A group waits for a transaction of its own.
    pub(super) fn resolve(&mut self, group: Group) {
        self.to_resolve.push_back(group);
    }

    /// A group waits for its next attempt.
    pub(super) fn retry(&mut self, due: Duration, group: Group) {
        self.retries.push((due, group));
    }

    /// A group leaves memory, and its key may give the next one. Returns the weight it had.
    pub(super) fn discard(&mut self, group: Group) -> usize {
        self.queue.release(&group.order);
        group.weight()
    }

    /// A request was answered.
    pub(super) fn answered(&mut self, lane: Lane) {
        let in_flight = match lane {
            Lane::Fast => &mut self.fast_in_flight,
            Lane::Slow => &mut self.slow_in_flight,
        };
        *in_flight = in_flight.saturating_sub(1);
    }

    /// A group came back from a lane.
    pub(super) fn came_back(&mut self, group: &Group) {
        self.weight_in_flight = self.weight_in_flight.saturating_sub(group.weight());
    }

    /// Lanes work on something.
    pub(super) fn is_in_flight(&self) -> bool {
        self.fast_in_flight > 0 || self.slow_in_flight > 0
    }

    /// Groups whose time has come wait for the slow lane now.
    pub(super) fn wake(&mut self, now: Duration) {
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

    /// When the next group's time comes.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.retries.iter().map(|(due, _)| *due).min()
    }

    /// Groups for one transaction on a fast lane, which has them from now on; `None` while all are
    /// busy or nothing may go.
    pub(super) fn next_fast(&mut self, config: &StateConfig) -> Option<Vec<Group>> {
        if self.fast_in_flight >= config.fast_capacity {
            return None;
        }
        let mut groups = vec![self.next_first_attempt(config)?];
        while groups.len() < config.aggregates_per_transaction
            && self.queue.next().is_some_and(|next| may_share(&groups, next))
        {
            let Some(group) = self.queue.next_group(config.events_per_group) else { break };
            if is_first_attempt(&group, config.gaps) {
                groups.push(group);
            } else {
                self.to_resolve.push_back(group);
            }
        }
        self.fast_in_flight += 1;
        self.weight_in_flight += groups.iter().map(Group::weight).sum::<usize>();
        Some(groups)
    }

    /// The next group for a fast lane; those before it that are not are left to the slow lane.
    fn next_first_attempt(&mut self, config: &StateConfig) -> Option<Group> {
        loop {
            let group = self.queue.next_group(config.events_per_group)?;
            if is_first_attempt(&group, config.gaps) {
                return Some(group);
            }
            self.to_resolve.push_back(group);
        }
    }

    /// The next request to the slow lane, which has it from now on; `None` while all its
    /// connections are busy or nothing waits.
    pub(super) fn next_slow(&mut self, config: &StateConfig) -> Option<SlowRequest> {
        if self.slow_in_flight >= config.slow_capacity {
            return None;
        }
        let read = match (self.to_read.is_empty(), self.to_resolve.is_empty()) {
            (true, true) => return None,
            // In turn: a replay refuses groups without end, and would starve the others.
            (false, false) => !self.read_last,
            (read_empty, _) => !read_empty,
        };
        self.read_last = read;
        let request = if read {
            let count = self.to_read.len().min(config.groups_per_read.max(1));
            SlowRequest::Read(self.to_read.drain(..count).collect())
        } else {
            SlowRequest::Resolve(Box::new(self.to_resolve.pop_front()?))
        };
        self.slow_in_flight += 1;
        self.weight_in_flight += request.groups().iter().map(Group::weight).sum::<usize>();
        Some(request)
    }

    /// Drops what waits of a partition and returns its weight. What is in flight comes back and is
    /// judged by its reading.
    pub(super) fn drop_partition(&mut self, name: &TopicPartition) -> usize {
        let mut freed = self.queue.drop_partition(name);
        let is_of = |group: &Group| *group.partition() == *name;
        let mut dropped: Vec<Group> = Vec::new();
        for waiting in [&mut self.to_read, &mut self.to_resolve] {
            let (gone, kept): (Vec<_>, Vec<_>) = waiting.drain(..).partition(is_of);
            waiting.extend(kept);
            dropped.extend(gone);
        }
        dropped.extend(self.retries.extract_if(.., |(_, g)| is_of(g)).map(|(_, g)| g));
        for group in dropped {
            freed += self.discard(group);
        }
        freed
    }

    /// Forgets everything, what is in flight too, and returns its weight.
    pub(super) fn clear(&mut self) -> usize {
        let mut freed = self.queue.clear();
        freed += self.waiting().map(Group::weight).sum::<usize>();
        freed += self.weight_in_flight;
        *self = Self { queue: std::mem::take(&mut self.queue), ..Self::default() };
        freed
    }

    /// Groups that wait for a lane, or for their time.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Group> {
        let retries = self.retries.iter().map(|(_, group)| group);
        self.to_read.iter().chain(&self.to_resolve).chain(retries)
    }
}

impl SlowRequest {
    /// What the request works on.
    pub(super) fn groups(&self) -> &[Group] {
        match self {
            Self::Read(groups) => groups,
            Self::Resolve(group) => std::slice::from_ref(group),
        }
    }
}

/// Whether a group of this kind and aggregate may share a statement with these: the same route, and
/// another aggregate, because a statement moves each row once.
fn may_share(groups: &[Group], (kind, aggregate): (GroupKind, Option<&AggregateKey>)) -> bool {
    let mut taken = groups.iter().flat_map(Group::aggregates);
    matches!(kind, GroupKind::Write(_))
        && groups.first().and_then(Group::only).is_some_and(|part| part.kind == kind)
        && !taken.any(|taken| Some(taken) == aggregate)
}

/// Whether the events of a group can all apply as far as the group itself can tell. Whether the
/// ledger agrees is the statement's guard to say (INV-13).
fn is_first_attempt(group: &Group, gaps: GapPolicy) -> bool {
    let Some(part) = group.only() else { return false };
    match part.kind {
        GroupKind::Poison => false,
        GroupKind::Skip => true,
        GroupKind::Write(_) => part.events.windows(2).all(|pair| {
            match (pair[0].envelope.version, pair[1].envelope.version) {
                (None, None) => true,
                (Some(a), Some(b)) if gaps == GapPolicy::Park => b.0 == a.0 + 1,
                (Some(a), Some(b)) => b > a,
                (None, Some(_)) | (Some(_), None) => false,
            }
        }),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::event::{Content, Envelope, Json, LedgerEffect, RouteId, Write};
    use crate::record::{Generation, Offset, OwnerEpoch, Raw, Record, StreamId, TimestampType};

    fn partition() -> TopicPartition {
        TopicPartition { topic: "t".into(), partition: 0 }
    }

    fn origin() -> Arc<Origin> {
        Arc::new(Origin {
            partition: partition(),
            stream: StreamId(1),
            epoch: OwnerEpoch(1),
            generation: Generation(1),
        })
    }

    /// A write of an aggregate through a route.
    pub(in crate::state) fn event(id: &str, route: u16, offset: i64) -> Event {
        let aggregate = AggregateKey { aggregate_type: "A".into(), id: id.into() };
        let ledger = LedgerEffect::Set(Json::Value("{}".into()));
        Event {
            record: Record {
                partition: partition(),
                offset: Offset(offset),
                generation: Generation(1),
                timestamp: None,
                timestamp_type: TimestampType::NotAvailable,
                raw: Raw::default(),
            },
            envelope: Envelope { aggregate: Some(aggregate), ..Envelope::default() },
            content: Content::Write(Write { route: RouteId(route), ledger, rows: Vec::new() }),
        }
    }

    /// A group of one event, taken from a queue.
    pub(in crate::state) fn group(id: &str, route: u16, offset: i64) -> Group {
        let mut queue = Queue::default();
        let (event, kind) = (event(id, route, offset), GroupKind::Write(RouteId(route)));
        queue.push(OrderingKey::of(&event), origin(), kind, event);
        queue.next_group(1).expect("the event")
    }

    /// The offsets of the groups that go together, of events with these orders, aggregates and
    /// routes.
    fn chunks(events: &[(i64, &str, u16)]) -> Vec<Vec<i64>> {
        let config =
            StateConfig { aggregates_per_transaction: 10, ..crate::state::tests::config() };
        let mut work = Work::default();
        for (offset, (order, id, route)) in (0..).zip(events) {
            let order = OrderingKey::Alone(partition(), *order);
            let kind = GroupKind::Write(RouteId(*route));
            work.push(order, origin(), kind, event(id, *route, offset));
        }
        let groups = std::iter::from_fn(|| work.next_fast(&config));
        let offsets = |groups: Vec<Group>| {
            groups.iter().flat_map(Group::events).map(|event| event.offset().0).collect()
        };
        groups.map(offsets).collect()
    }

    #[test]
    fn a_chunk_has_each_aggregate_once_whatever_orders_it() {
        assert_eq!(chunks(&[(1, "a", 0), (2, "b", 0), (3, "c", 0)]), [[0, 1, 2]]);
        let twice = chunks(&[(1, "a", 0), (2, "b", 0), (3, "a", 0), (4, "c", 0)]);
        assert_eq!(twice, [[0, 1], [2, 3]]);
    }

    #[test]
    fn a_chunk_is_of_one_route() {
        assert_eq!(chunks(&[(1, "a", 0), (2, "b", 1), (3, "c", 1)]), [vec![0], vec![1, 2]]);
    }

    #[test]
    fn events_of_one_order_and_several_aggregates_are_groups_of_their_own() {
        let mut queue = Queue::default();
        for (offset, id) in (0..).zip(["a", "a", "b", "a"]) {
            let order = OrderingKey::Skips(partition());
            queue.push(order, origin(), GroupKind::Write(RouteId(0)), event(id, 0, offset));
        }
        let mut sizes = Vec::new();
        while let Some(group) = queue.next_group(10) {
            let aggregates: Vec<&AggregateKey> = group.aggregates().collect();
            assert_eq!(aggregates, [group.first().envelope.aggregate.as_ref().unwrap()]);
            sizes.push(group.events().count());
            queue.release(&group.order.clone());
        }
        assert_eq!(sizes, [2, 1, 1]);
    }

    #[test]
    fn a_group_of_several_parts_is_not_the_fast_lanes() {
        let mut group = group("a", 0, 0);
        assert!(is_first_attempt(&group, GapPolicy::Apply));
        group.parts.rest.push(crate::group::Part::new(GroupKind::Skip, event("b", 0, 1)));
        assert!(!is_first_attempt(&group, GapPolicy::Apply));
    }
}
