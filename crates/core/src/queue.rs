//! One FIFO per ordering key, one group in flight each (INV-3).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::event::Event;
use crate::group::{Group, GroupKind, OrderingKey, Origin};
use crate::guard::guard;
use crate::record::TopicPartition;

/// Events that wait for their turn. Bounded by the poll budget (`limits.in_flight_bytes`).
#[derive(Debug, Default)]
pub struct Queue {
    lines: HashMap<OrderingKey, Line>,
    /// Keys with waiting events and no group in flight, oldest first.
    ready: VecDeque<OrderingKey>,
}

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    /// A group of this key is in flight, waits for a retry, or waits for the slow lane.
    busy: bool,
    /// The key stands in the ready list.
    listed: bool,
}

#[derive(Debug)]
struct Waiting {
    origin: Arc<Origin>,
    kind: GroupKind,
    event: Event,
}

impl Queue {
    /// Appends an event to its key's line.
    pub fn push(&mut self, order: OrderingKey, origin: Arc<Origin>, kind: GroupKind, event: Event) {
        let line = self.lines.entry(order.clone()).or_default();
        if line.waiting.is_empty() {
            // Most lines have one event; room for four of them would be as much memory again.
            line.waiting.reserve_exact(1);
        }
        line.waiting.push_back(Waiting { origin, kind, event });
        line.list(order, &mut self.ready);
    }

    /// The kind of the group that [`Self::next_group`] would return.
    pub fn next_kind(&self) -> Option<GroupKind> {
        let line = self.lines.get(self.ready.front()?)?;
        line.waiting.front().map(|w| w.kind)
    }

    /// Takes the next group: consecutive events of one key with the same origin and kind, at most
    /// `max_events`. A delete ends its group, so that what follows starts from nothing. The key
    /// is busy until [`Self::release`].
    pub fn next_group(&mut self, max_events: usize) -> Option<Group> {
        let order = self.ready.pop_front()?;
        let line = self.lines.get_mut(&order)?;
        line.listed = false;
        let first = line.waiting.pop_front()?;
        let mut events = vec![first.event];
        while events.len() < max_events.max(1)
            && first.kind != GroupKind::Poison
            && !events.last().is_some_and(Event::deletes)
            && line
                .waiting
                .front()
                .is_some_and(|w| w.kind == first.kind && same_reading(&w.origin, &first.origin))
        {
            if let Some(next) = line.waiting.pop_front() {
                events.push(next.event);
            }
        }
        line.busy = true;
        let origin = Arc::unwrap_or_clone(first.origin);
        Some(Group { origin, order, kind: first.kind, events, failure: None })
    }

    /// The group of this key is finished or given up: the next one may go.
    pub fn release(&mut self, order: &OrderingKey) {
        let Some(line) = self.lines.get_mut(order) else { return };
        line.busy = false;
        if line.waiting.is_empty() {
            self.lines.remove(order);
        } else {
            line.list(order.clone(), &mut self.ready);
        }
    }

    /// Drops the waiting events of a partition and returns their weight. Groups in flight keep
    /// their keys busy.
    pub fn drop_partition(&mut self, partition: &TopicPartition) -> usize {
        let mut freed = 0;
        self.lines.retain(|_, line| {
            line.waiting.retain(|w| {
                let keep = w.origin.partition != *partition;
                if !keep {
                    freed += w.event.weight();
                }
                keep
            });
            line.busy || !line.waiting.is_empty()
        });
        let lines = &mut self.lines;
        self.ready.retain(|key| match lines.get_mut(key) {
            Some(line) => {
                line.listed = !line.waiting.is_empty();
                line.listed
            }
            None => false,
        });
        freed
    }

    /// Forgets everything, busy keys too, and returns the weight of what waited.
    pub fn clear(&mut self) -> usize {
        let freed = self
            .lines
            .values()
            .flat_map(|line| line.waiting.iter())
            .map(|w| w.event.weight())
            .sum();
        self.lines.clear();
        self.ready.clear();
        freed
    }
}

#[cfg(test)]
impl Queue {
    /// Keys with a group on its way.
    pub(crate) fn busy(&self) -> impl Iterator<Item = &OrderingKey> {
        self.lines.iter().filter(|(_, line)| line.busy).map(|(order, _)| order)
    }

    /// Events that wait, each with the reading it belongs to.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (&Origin, &Event)> {
        let waiting = self.lines.values().flat_map(|line| &line.waiting);
        waiting.map(|waiting| (&*waiting.origin, &waiting.event))
    }

    /// Says what is inconsistent in itself, if something is.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (order, line) in &self.lines {
            let listed = self.ready.iter().filter(|ready| *ready == order).count();
            let may_go = !line.busy && !line.waiting.is_empty();
            if (listed, line.listed) != (usize::from(may_go), may_go) {
                return Err(format!("{order:?} stands {listed} times in the ready list: {line:?}"));
            }
            if !line.busy && line.waiting.is_empty() {
                return Err(format!("{order:?} has a line and nothing in it"));
            }
        }
        match self.ready.iter().find(|order| !self.lines.contains_key(order)) {
            Some(order) => Err(format!("{order:?} is ready and has no line")),
            None => Ok(()),
        }
    }
}

impl Line {
    /// Puts the key into the ready list if its next group may go and it is not there yet.
    fn list(&mut self, order: OrderingKey, ready: &mut VecDeque<OrderingKey>) {
        let held = guard!(OneGroupPerKey, self.busy);
        if !held && !self.listed && !self.waiting.is_empty() {
            self.listed = true;
            ready.push_back(order);
        }
    }
}

fn same_reading(a: &Origin, b: &Origin) -> bool {
    a.stream == b.stream && a.generation == b.generation
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{AggregateKey, Content, Envelope, Json, LedgerEffect, RouteId, Write};
    use crate::record::{Generation, Offset, OwnerEpoch, Raw, Record, StreamId, TimestampType};

    fn partition(number: i32) -> TopicPartition {
        TopicPartition { topic: Arc::from("t"), partition: number }
    }

    fn origin(number: i32) -> Arc<Origin> {
        Arc::new(Origin {
            partition: partition(number),
            stream: StreamId(number),
            epoch: OwnerEpoch(1),
            generation: Generation(1),
        })
    }

    fn key(id: &str) -> OrderingKey {
        OrderingKey::Aggregate(AggregateKey { aggregate_type: Arc::from("A"), id: Arc::from(id) })
    }

    fn event(offset: i64, ledger: LedgerEffect) -> Event {
        Event {
            record: Record {
                partition: partition(0),
                offset: Offset(offset),
                generation: Generation(1),
                timestamp: None,
                timestamp_type: TimestampType::NotAvailable,
                raw: Raw::default(),
            },
            envelope: Envelope::default(),
            content: Content::Write(Write { route: RouteId(0), ledger, rows: Vec::new() }),
        }
    }

    fn document(offset: i64) -> Event {
        event(offset, LedgerEffect::Set(Json::Value("{}".into())))
    }

    const WRITE: GroupKind = GroupKind::Write(RouteId(0));

    fn offsets(group: &Group) -> Vec<i64> {
        group.events.iter().map(|e| e.offset().0).collect()
    }

    #[test]
    fn consecutive_events_of_one_aggregate_fold_into_one_group() {
        let mut queue = Queue::default();
        for offset in [1, 2, 3] {
            queue.push(key("a"), origin(0), WRITE, document(offset));
        }
        queue.push(key("b"), origin(0), WRITE, document(4));
        assert_eq!(offsets(&queue.next_group(2).unwrap()), [1, 2]);
        assert_eq!(offsets(&queue.next_group(2).unwrap()), [4]);
        assert!(queue.next_group(2).is_none(), "the third waits behind the first two");
    }

    /// Proves INV-3.
    #[test]
    fn a_key_in_flight_gives_no_second_group_until_it_is_released() {
        let mut queue = Queue::default();
        queue.push(key("a"), origin(0), WRITE, document(1));
        let first = queue.next_group(10).unwrap();
        queue.push(key("a"), origin(0), WRITE, document(2));
        assert!(queue.next_group(10).is_none());
        queue.release(&first.order);
        assert_eq!(offsets(&queue.next_group(10).unwrap()), [2]);
    }

    #[test]
    fn a_delete_ends_its_group() {
        let mut queue = Queue::default();
        queue.push(key("a"), origin(0), WRITE, document(1));
        queue.push(key("a"), origin(0), WRITE, event(2, LedgerEffect::Clear));
        queue.push(key("a"), origin(0), WRITE, document(3));
        assert_eq!(offsets(&queue.next_group(10).unwrap()), [1, 2]);
    }

    #[test]
    fn events_of_different_partitions_or_kinds_do_not_share_a_group() {
        let mut queue = Queue::default();
        queue.push(key("a"), origin(0), WRITE, document(1));
        queue.push(key("a"), origin(1), WRITE, document(2));
        queue.push(key("a"), origin(1), GroupKind::Poison, document(3));
        for expected in [1, 2, 3] {
            let group = queue.next_group(10).unwrap();
            assert_eq!(offsets(&group), [expected]);
            queue.release(&group.order);
        }
    }

    #[test]
    fn dropping_a_partition_leaves_other_partitions_and_busy_keys() {
        let mut queue = Queue::default();
        queue.push(key("a"), origin(0), WRITE, document(1));
        let in_flight = queue.next_group(10).unwrap();
        queue.push(key("a"), origin(1), WRITE, document(2));
        queue.push(key("b"), origin(0), WRITE, document(3));
        let freed = queue.drop_partition(&partition(0));
        assert_eq!(freed, document(3).weight());
        assert!(queue.next_group(10).is_none(), "a is busy, b is gone");
        queue.release(&in_flight.order);
        assert_eq!(offsets(&queue.next_group(10).unwrap()), [2]);
        assert!(queue.next_group(10).is_none());
    }
}
