//! The unit of work of the database: consecutive events of one aggregate.

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
    /// What an event is ordered by. What no route matches is dead-lettered alone, although its
    /// aggregate can be told: nobody said that the aggregate concerns us.
    pub fn of(event: &Event, kind: GroupKind) -> Self {
        let partition = &event.record.partition;
        let unmatched =
            matches!(&event.content, Content::Poison(poison) if poison.reason == Reason::Unmatched);
        match (&event.envelope.aggregate, kind) {
            (_, GroupKind::Skip) => Self::Skips(partition.clone()),
            (Some(aggregate), GroupKind::Write(_) | GroupKind::Poison) if !unmatched => {
                Self::Aggregate(aggregate.clone())
            }
            (Some(_) | None, GroupKind::Write(_) | GroupKind::Poison) => {
                Self::Alone(partition.clone(), event.offset().0)
            }
        }
    }
}

/// What a group asks of the database. All events of a group ask for the same.
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

/// Consecutive events of one ordering key and one origin. Never empty; offsets ascend. A group
/// exists in exactly one place: it is moved, never cloned.
#[derive(Debug)]
pub struct Group {
    /// Where it comes from.
    pub origin: Origin,
    /// What it is ordered by.
    pub order: OrderingKey,
    /// What it asks for.
    pub kind: GroupKind,
    /// The events.
    pub events: Vec<Event>,
    /// Set once an attempt failed.
    pub failure: Option<Failure>,
}

impl Group {
    /// The kind of group an event belongs to; `None` for content that halts the partition.
    pub fn kind_of(event: &Event) -> Option<GroupKind> {
        match &event.content {
            Content::Write(write) => Some(GroupKind::Write(write.route)),
            Content::Skip(_) => Some(GroupKind::Skip),
            Content::Poison(_) => Some(GroupKind::Poison),
            Content::Halt(_) => None,
        }
    }

    /// The aggregate all events belong to; `None` for skips and for poison without one.
    pub fn aggregate(&self) -> Option<&AggregateKey> {
        match &self.order {
            OrderingKey::Aggregate(key) => Some(key),
            OrderingKey::Skips(_) | OrderingKey::Alone(..) => None,
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

    /// Versions missing between the events of the group, before each of them that follows another
    /// one. What is missing before the first is not the group's to tell: it stands in the ledger.
    /// Before the event after a delete nothing is missing.
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

    /// What the group counts against `limits.in_flight_bytes`.
    pub fn weight(&self) -> usize {
        self.events.iter().map(|e| e.weight()).sum()
    }
}

/// What the database said of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupReply {
    /// Every event has its outcome, in one committed transaction; one verdict an event, in order.
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

    fn group(versions: &[Option<i64>]) -> Group {
        let document = || LedgerEffect::Set(Json::Value("{}".into()));
        Group {
            origin: Origin {
                partition: partition(),
                stream: StreamId(1),
                epoch: OwnerEpoch(1),
                generation: Generation(1),
            },
            order: OrderingKey::Alone(partition(), 0),
            kind: GroupKind::Write(RouteId(0)),
            events: (0..).zip(versions).map(|(n, v)| event(n, *v, document())).collect(),
            failure: None,
        }
    }

    fn applied(gap: i64, events: usize) -> GroupReply {
        GroupReply::Done { verdicts: vec![Verdict::Applied; events], gap }
    }

    #[test]
    fn the_gap_of_a_group_is_what_is_missing_before_each_of_its_events() {
        assert_eq!(group(&[Some(5)]).moved(Some(0)), applied(0, 1));
        assert_eq!(group(&[Some(5)]).moved(Some(3)), applied(3, 1), "before the first");
        assert_eq!(group(&[Some(5), Some(6)]).moved(Some(0)), applied(0, 2));
        assert_eq!(group(&[Some(5), Some(7), Some(10)]).moved(Some(1)), applied(4, 3));
        assert_eq!(group(&[None, None]).moved(Some(0)), applied(0, 2));
        assert_eq!(group(&[Some(5), None, Some(7)]).moved(Some(0)), applied(1, 3));
    }

    #[test]
    fn nothing_is_missing_before_what_begins_a_deleted_aggregate_anew() {
        let mut group = group(&[Some(5), Some(6), Some(9), Some(11)]);
        let delete = LedgerEffect::Clear;
        group.events[1] = event(1, Some(6), delete);
        assert_eq!(group.moved(Some(0)), applied(1, 4));
    }

    #[test]
    fn a_group_whose_ledger_row_did_not_move_is_refused() {
        assert_eq!(group(&[Some(5), Some(7)]).moved(None), GroupReply::Refused);
    }

    #[test]
    fn groups_that_failed_together_are_tried_alone_while_there_is_a_session() {
        let fault = Fault::new(crate::fault::FaultKind::Connection);
        assert_eq!(GroupReply::unwritten(&fault, 3, false), GroupReply::Unsettled);
        assert_eq!(GroupReply::unwritten(&fault, 3, true), GroupReply::Failed(fault.clone()));
        assert_eq!(GroupReply::unwritten(&fault, 1, false), GroupReply::Failed(fault));
    }
}
