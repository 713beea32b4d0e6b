//! The unit of work of the database, and what it is made of: a group has an ordering key, a source
//! and parts, each of one aggregate. These are three things, although today the key is the
//! aggregate's and there is one part.

use std::time::Duration;

use crate::event::{AggregateKey, AggregateVersion, Content, Event, RouteId};
use crate::fault::Fault;
use crate::record::{Generation, NextOffset, Offset, OwnerEpoch, StreamId, TopicPartition};
use crate::verdict::{Reason, Verdict};

/// The reading of a partition that a group comes from, and the proof that it is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The partition.
    pub partition: TopicPartition,
    /// Its stream in the database.
    pub stream: StreamId,
    /// The ownership under which it is read; writes that only an owner may do check it.
    pub epoch: OwnerEpoch,
    /// The reading.
    pub generation: Generation,
}

/// Where the records of a group come from. Only what a lane may write follows from it: a group that
/// nobody owns the stream of writes no letters and parks nothing (INV-10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Kafka delivered them, in a reading of a partition that this process owns.
    Delivered(Origin),
    /// They were read to see what would become of them. Their stream may be another process's.
    Sampled {
        /// The partition.
        partition: TopicPartition,
        /// Its stream in the database, or one that no stream is.
        stream: StreamId,
    },
}

/// What must be worked on one after the other: the key of the queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OrderingKey {
    /// Events of one aggregate.
    Aggregate(AggregateKey),
    /// Skipped records of one partition: they only leave notifications.
    Skips(TopicPartition),
    /// A poisoned record whose aggregate cannot be told, or that no route matches.
    Alone(TopicPartition, i64),
}

impl OrderingKey {
    /// What an event is ordered by.
    pub fn of(event: &Event) -> Self {
        let partition = || event.record.partition.clone();
        match (&event.content, Part::aggregate_of(event)) {
            (Content::Skip(_), _) => Self::Skips(partition()),
            (_, Some(aggregate)) => Self::Aggregate(aggregate.clone()),
            (_, None) => Self::Alone(partition(), event.offset().0),
        }
    }
}

/// What a part of a group asks of the database. All of its events ask for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupKind {
    /// Apply through this route.
    Write(RouteId),
    /// Write notifications only.
    Skip,
    /// Dead-letter one record.
    Poison,
}

/// How a group failed before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Failed attempts so far, at least 1.
    pub attempts: u32,
    /// When it failed first, on the coordinator's clock.
    pub since: Duration,
    /// When it failed last, on the same clock.
    pub last: Duration,
    /// It has failed for longer than `retry.give_up_after` while others of its route succeeded: the
    /// next failure parks its aggregate.
    pub exhausted: bool,
    /// The latest fault.
    pub fault: Fault,
}

/// The events of one aggregate and one route in a group. Never empty; offsets ascend.
#[derive(Debug)]
pub struct Part {
    /// The aggregate whose ledger row decides about them; `None` for skips and for poison without
    /// one.
    pub aggregate: Option<AggregateKey>,
    /// What they ask for.
    pub kind: GroupKind,
    /// The events.
    pub events: Vec<Event>,
}

impl Part {
    /// A part that begins with this event.
    pub fn new(kind: GroupKind, first: Event) -> Self {
        Self { aggregate: Self::aggregate_of(&first).cloned(), kind, events: vec![first] }
    }

    /// The aggregate that an event concerns. What no route matches concerns none, although its
    /// aggregate can be told: nobody said that the aggregate is ours.
    pub fn aggregate_of(event: &Event) -> Option<&AggregateKey> {
        match &event.content {
            Content::Poison(poison) if poison.reason == Reason::Unmatched => None,
            Content::Skip(_) | Content::Halt(_) => None,
            Content::Write(_) | Content::Poison(_) => event.envelope.aggregate.as_ref(),
        }
    }

    /// The first event.
    pub fn first(&self) -> &Event {
        &self.events[0]
    }

    /// The last event.
    pub fn last(&self) -> &Event {
        &self.events[self.events.len() - 1]
    }

    /// Versions missing between the events, before each of them that follows another one. What is
    /// missing before the first is not theirs to tell: it stands in the ledger. Before the event
    /// after a delete nothing is missing.
    pub fn gap_within(&self) -> i64 {
        let (mut gap, mut stored, mut deleted) = (0_i64, None::<AggregateVersion>, false);
        for event in &self.events {
            let version = event.envelope.version;
            if let (Some(version), Some(stored), false) = (version, stored, deleted) {
                gap = gap.saturating_add((version.0 - stored.0 - 1).max(0));
            }
            stored = version.or(stored);
            deleted = event.deletes();
        }
        gap
    }

    /// The answer of a fast statement that succeeded. `gap` is what was missing before the first
    /// event; `None` where the ledger did not move.
    pub fn moved(&self, gap: Option<i64>) -> GroupReply {
        match gap {
            Some(gap) => GroupReply::Done {
                verdicts: vec![Verdict::Applied; self.events.len()],
                gap: gap.saturating_add(self.gap_within()),
            },
            None => GroupReply::Refused,
        }
    }
}

/// The parts of a group: at least one, and each of another aggregate. One needs no memory of its own.
#[derive(Debug)]
pub struct Parts {
    /// The first one.
    pub first: Part,
    /// The others.
    pub rest: Vec<Part>,
}

impl Parts {
    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Part> + Clone {
        std::iter::once(&self.first).chain(&self.rest)
    }
}

impl From<Part> for Parts {
    fn from(first: Part) -> Self {
        Self { first, rest: Vec::new() }
    }
}

/// The unit of work of the database: consecutive events of one ordering key and one source. A group
/// exists in exactly one place: it is moved, never cloned.
#[derive(Debug)]
pub struct Group {
    /// What it is ordered by.
    pub order: OrderingKey,
    /// Where it comes from.
    pub source: Source,
    /// The events, by aggregate and route.
    pub parts: Parts,
    /// Set once an attempt failed; apart, because few groups ever fail.
    pub failure: Option<Box<Failure>>,
}

impl Group {
    /// The kind of part an event belongs to; `None` for content that halts the partition.
    pub fn kind_of(event: &Event) -> Option<GroupKind> {
        match &event.content {
            Content::Write(write) => Some(GroupKind::Write(write.route)),
            Content::Skip(_) => Some(GroupKind::Skip),
            Content::Poison(_) => Some(GroupKind::Poison),
            Content::Halt(_) => None,
        }
    }

    /// The reading that it was delivered in, and so the proof that its stream is ours; `None` for one
    /// that was not delivered.
    pub fn owner(&self) -> Option<&Origin> {
        match &self.source {
            Source::Delivered(origin) => Some(origin),
            Source::Sampled { .. } => None,
        }
    }

    /// The stream that its records stand in.
    pub fn stream(&self) -> StreamId {
        match &self.source {
            Source::Delivered(origin) => origin.stream,
            Source::Sampled { stream, .. } => *stream,
        }
    }

    /// The partition of its records.
    pub fn partition(&self) -> &TopicPartition {
        match &self.source {
            Source::Delivered(origin) => &origin.partition,
            Source::Sampled { partition, .. } => partition,
        }
    }

    /// The only part. The fast lane asks: one statement moves the rows of one route, and what it
    /// writes commits alone, so a group of several parts is the slow lane's. So does whoever groups
    /// for it.
    pub fn only(&self) -> Option<&Part> {
        Some(&self.parts.first).filter(|_| self.parts.rest.is_empty())
    }

    /// Whether it only leaves notifications.
    pub fn is_skip(&self) -> bool {
        self.parts.iter().all(|part| part.kind == GroupKind::Skip)
    }

    /// All events, part after part. Verdicts of a reply have this order.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.parts.iter().flat_map(|part| &part.events)
    }

    /// The aggregates whose ledger rows it moves.
    pub fn aggregates(&self) -> impl Iterator<Item = &AggregateKey> {
        self.parts.iter().filter_map(|part| part.aggregate.as_ref())
    }

    /// The routes it writes through, one for each part that writes.
    pub fn routes(&self) -> impl Iterator<Item = RouteId> {
        self.parts.iter().filter_map(|part| match part.kind {
            GroupKind::Write(route) => Some(route),
            GroupKind::Skip | GroupKind::Poison => None,
        })
    }

    /// The first of its records in the log.
    pub fn first(&self) -> &Event {
        let firsts = self.parts.rest.iter().map(Part::first);
        firsts.fold(self.parts.first.first(), |a, b| if b.offset() < a.offset() { b } else { a })
    }

    /// The last of its records in the log.
    pub fn last(&self) -> &Event {
        let lasts = self.parts.rest.iter().map(Part::last);
        lasts.fold(self.parts.first.last(), |a, b| if b.offset() > a.offset() { b } else { a })
    }

    /// What the group counts against `limits.in_flight_bytes`.
    pub fn weight(&self) -> usize {
        self.events().map(Event::weight).sum()
    }
}

/// What the database said of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupReply {
    /// Every event has its outcome, in one committed transaction; one verdict per event, in order.
    Done {
        /// The verdicts.
        verdicts: Vec<Verdict>,
        /// Versions missing before the events that were applied (`on_gap = "apply"`), all together;
        /// 0 for none.
        gap: i64,
    },
    /// The ledger did not move: nothing was written, nothing raised. Decide on the row.
    Refused,
    /// The set-based look found something to write: needs a transaction of its own.
    Unsettled,
    /// Rolled back.
    Failed(Fault),
    /// A limit of the sink keeps an event from its outcome: the partition halts. What came before
    /// it in the group took effect.
    Halted {
        /// Which limit.
        reason: Reason,
        /// What an operator has to know.
        fault: Fault,
        /// The event.
        at: Offset,
    },
    /// The database knows a newer owner of the stream: nothing that only an owner may write was
    /// written.
    NotOwner,
}

impl GroupReply {
    /// The answer of a group of which this is the answer of some parts and `next` that of the part
    /// behind them: the first that is not done decides.
    #[must_use]
    pub fn and(self, next: Self) -> Self {
        match (self, next) {
            (Self::Done { mut verdicts, gap }, Self::Done { verdicts: more, gap: next }) => {
                verdicts.extend(more);
                Self::Done { verdicts, gap: gap.saturating_add(next) }
            }
            (Self::Done { .. }, undone) | (undone, _) => undone,
        }
    }

    /// The answer of a fast statement that failed: nothing of it was written. Several `groups` that
    /// shared it are tried alone, because alone each of them may fare differently; a session that
    /// ended has no more to try.
    pub fn unwritten(fault: &Fault, groups: usize, ends_session: bool) -> Self {
        if groups > 1 && !ends_session { Self::Unsettled } else { Self::Failed(fault.clone()) }
    }
}

/// Progress of one stream as the barrier writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The stream.
    pub stream: StreamId,
    /// The ownership it is written under; a compare-and-set.
    pub epoch: OwnerEpoch,
    /// Everything below is finished.
    pub next: NextOffset,
    /// The last finished record.
    pub anchor: Option<crate::record::Anchor>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Envelope, Json, LedgerEffect, Write};
    use crate::record::{Raw, Record, TimestampType};

    fn event(offset: i64, version: Option<i64>, ledger: LedgerEffect) -> Event {
        Event {
            record: Record {
                partition: partition(),
                offset: Offset(offset),
                generation: Generation(1),
                timestamp: None,
                timestamp_type: TimestampType::NotAvailable,
                raw: Raw::default(),
            },
            envelope: Envelope { version: version.map(AggregateVersion), ..Envelope::default() },
            content: Content::Write(Write { route: RouteId(0), ledger, rows: Vec::new() }),
        }
    }

    fn partition() -> TopicPartition {
        TopicPartition { topic: "t".into(), partition: 0 }
    }

    fn part(versions: &[Option<i64>]) -> Part {
        let document = || LedgerEffect::Set(Json::Value("{}".into()));
        let events = (0..).zip(versions).map(|(n, v)| event(n, *v, document())).collect();
        Part { aggregate: None, kind: GroupKind::Write(RouteId(0)), events }
    }

    fn applied(gap: i64, events: usize) -> GroupReply {
        GroupReply::Done { verdicts: vec![Verdict::Applied; events], gap }
    }

    #[test]
    fn the_gap_of_a_group_is_what_is_missing_before_each_of_its_events() {
        assert_eq!(part(&[Some(5)]).moved(Some(0)), applied(0, 1));
        assert_eq!(part(&[Some(5)]).moved(Some(3)), applied(3, 1), "before the first");
        assert_eq!(part(&[Some(5), Some(6)]).moved(Some(0)), applied(0, 2));
        assert_eq!(part(&[Some(5), Some(7), Some(10)]).moved(Some(1)), applied(4, 3));
        assert_eq!(part(&[None, None]).moved(Some(0)), applied(0, 2));
        assert_eq!(part(&[Some(5), None, Some(7)]).moved(Some(0)), applied(1, 3));
    }

    #[test]
    fn nothing_is_missing_before_what_begins_a_deleted_aggregate_anew() {
        let mut part = part(&[Some(5), Some(6), Some(9), Some(11)]);
        part.events[1] = event(1, Some(6), LedgerEffect::Clear);
        assert_eq!(part.moved(Some(0)), applied(1, 4));
    }

    #[test]
    fn a_group_whose_ledger_row_did_not_move_is_refused() {
        assert_eq!(part(&[Some(5), Some(7)]).moved(None), GroupReply::Refused);
    }

    #[test]
    fn groups_that_failed_together_are_tried_alone_while_there_is_a_session() {
        let fault = Fault::new(crate::fault::FaultKind::Connection);
        assert_eq!(GroupReply::unwritten(&fault, 3, false), GroupReply::Unsettled);
        assert_eq!(GroupReply::unwritten(&fault, 3, true), GroupReply::Failed(fault.clone()));
        assert_eq!(GroupReply::unwritten(&fault, 1, false), GroupReply::Failed(fault));
    }

    fn group(source: Source, first: Part, rest: Vec<Part>) -> Group {
        let order = OrderingKey::Alone(partition(), 0);
        Group { order, source, parts: Parts { first, rest }, failure: None }
    }

    fn sampled() -> Source {
        Source::Sampled { partition: partition(), stream: StreamId(7) }
    }

    fn of(id: &str, route: u16, offsets: &[i64]) -> Part {
        let aggregate = Some(AggregateKey { aggregate_type: "A".into(), id: id.into() });
        let events = offsets.iter().map(|offset| event(*offset, None, LedgerEffect::Keep));
        Part { aggregate, kind: GroupKind::Write(RouteId(route)), events: events.collect() }
    }

    #[test]
    fn only_what_was_delivered_has_an_owner_and_everything_has_a_stream() {
        let origin = Origin {
            partition: partition(),
            stream: StreamId(3),
            epoch: OwnerEpoch(1),
            generation: Generation(1),
        };
        let delivered = group(Source::Delivered(origin.clone()), part(&[None]), Vec::new());
        assert_eq!((delivered.owner(), delivered.stream()), (Some(&origin), StreamId(3)));
        let sampled = group(sampled(), part(&[None]), Vec::new());
        assert_eq!((sampled.owner(), sampled.stream()), (None, StreamId(7)));
        assert_eq!((sampled.partition(), delivered.partition()), (&partition(), &partition()));
    }

    #[test]
    fn events_of_several_parts_come_part_after_part_and_first_and_last_are_the_logs() {
        let group = group(sampled(), of("b", 0, &[4, 9]), vec![of("a", 1, &[3, 5])]);
        let offsets: Vec<i64> = group.events().map(|event| event.offset().0).collect();
        assert_eq!(offsets, [4, 9, 3, 5]);
        assert_eq!((group.first().offset(), group.last().offset()), (Offset(3), Offset(9)));
        let ids: Vec<&str> = group.aggregates().map(|key| &*key.id).collect();
        assert_eq!(ids, ["b", "a"]);
        assert!(group.routes().eq([RouteId(0), RouteId(1)]));
        assert!(group.only().is_none());
        let weight = group.events().next().unwrap().weight();
        assert_eq!(group.weight(), 4 * weight);
    }

    #[test]
    fn a_group_is_done_when_all_of_its_parts_are() {
        let joined = applied(2, 1).and(applied(3, 2));
        assert_eq!(joined, applied(5, 3));
        assert_eq!(applied(0, 1).and(GroupReply::Unsettled), GroupReply::Unsettled);
        assert_eq!(GroupReply::NotOwner.and(applied(0, 1)), GroupReply::NotOwner);
    }

    #[test]
    fn the_aggregate_of_a_part_is_not_that_of_its_order() {
        let mut poison = event(1, None, LedgerEffect::Keep);
        let key = AggregateKey { aggregate_type: "A".into(), id: "1".into() };
        poison.envelope.aggregate = Some(key.clone());
        let part = |event: Event| Part::new(Group::kind_of(&event).unwrap(), event);
        let aggregate = |content| {
            let event = Event { content, ..poison.clone() };
            (part(event.clone()).aggregate, OrderingKey::of(&event))
        };
        let broken = crate::event::Poison::new(Reason::JsonSyntax, None);
        let ordered = OrderingKey::Aggregate(key.clone());
        assert_eq!(aggregate(Content::Poison(broken)), (Some(key), ordered));
        let unmatched = crate::event::Poison::new(Reason::Unmatched, None);
        let alone = OrderingKey::Alone(partition(), 1);
        assert_eq!(aggregate(Content::Poison(unmatched)), (None, alone));
        let skips = OrderingKey::Skips(partition());
        assert_eq!(aggregate(Content::Skip(Reason::SkipRoute)), (None, skips));
    }
}
