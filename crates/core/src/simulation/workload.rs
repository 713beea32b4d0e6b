//! What stands in Kafka: logs of records good and odd, generated from a seed or written by hand.

use std::sync::Arc;

use super::swarm::{Rng, Swarm};
use crate::event::{
    AggregateKey, AggregateVersion, Content, Envelope, Event, Json, LedgerEffect, Poison, RouteId,
    Write,
};
use crate::record::{
    Generation, Offset, Raw, Record, RecordId, StreamId, TimestampType, TopicPartition,
};
use crate::verdict::Reason;

/// Index of a record in [`Workload::records`].
pub(super) type Rec = usize;

/// What a record asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A write of its aggregate.
    Write,
    /// The end of its aggregate.
    Delete,
    /// Nothing.
    Skip,
    /// Its value cannot be decoded.
    Undecodable,
    /// No route matches it, until the operator adds one.
    Unmatched,
    /// The configuration says to stop at it, until the operator mends that.
    Halting,
}

/// How the target takes the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Well.
    Takes,
    /// A constraint refuses it, for good.
    Refuses,
    /// A constraint refuses it until the operator changes the constraint.
    RefusesUntilMended,
    /// The table is missing until the operator creates it.
    MissingUntilMended,
    /// Somebody holds a lock on the row until the operator ends that.
    LockedUntilMended,
}

/// One record.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    /// Its partition.
    pub(super) partition: usize,
    /// Its offset there.
    pub(super) offset: i64,
    /// Its aggregate, when that can be told.
    pub(super) aggregate: Option<usize>,
    /// Version and event id, when it has them.
    pub(super) version: Option<AggregateVersion>,
    /// Id of the event.
    pub(super) event_id: Box<str>,
    /// What it asks for.
    pub(super) meaning: Meaning,
    /// How the target takes it.
    pub(super) target: Target,
    /// The aggregate's record before it in the same partition, among those that are ordered.
    pub(super) previous: Option<Rec>,
    /// It is sent only once this record and all before it have their outcome for good.
    pub(super) after: Option<Rec>,
    /// The decoded record, generation 0.
    pub(super) event: Event,
}

impl Spec {
    /// Identity in the database.
    pub(super) fn id(&self) -> RecordId {
        RecordId { stream: stream_of(self.partition), offset: Offset(self.offset) }
    }
}

/// One aggregate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aggregate {
    /// Its events carry versions.
    pub(super) versioned: bool,
    /// The partitions its events are spread over; equal for all but a few.
    pub(super) homes: [usize; 2],
}

impl Aggregate {
    /// Its events stand in one partition only.
    pub(super) fn is_single(&self) -> bool {
        self.homes[0] == self.homes[1]
    }
}

/// Everything that will ever stand in the topic.
#[derive(Debug, Default)]
pub(super) struct Workload {
    /// The records in the order they were produced.
    pub(super) records: Vec<Spec>,
    /// One log a partition; `None` is the offset of a transaction marker.
    pub(super) logs: Vec<Vec<Option<Rec>>>,
    /// The aggregates.
    pub(super) aggregates: Vec<Aggregate>,
    partitions: Vec<TopicPartition>,
    keys: Vec<AggregateKey>,
}

/// The stream of a partition: logs are never recreated here.
pub(super) fn stream_of(partition: usize) -> StreamId {
    StreamId(100 + partition as i32)
}

/// The partition of a stream.
pub(super) fn partition_of(stream: StreamId) -> usize {
    (stream.0 - 100) as usize
}

/// Index of a partition.
pub(super) fn index_of(partition: &TopicPartition) -> usize {
    partition.partition as usize
}

impl Workload {
    /// Empty logs.
    pub(super) fn new(partitions: usize) -> Self {
        let topic: Arc<str> = Arc::from("orders");
        Self {
            logs: vec![Vec::new(); partitions],
            partitions: (0..partitions)
                .map(|p| TopicPartition { topic: Arc::clone(&topic), partition: p as i32 })
                .collect(),
            ..Self::default()
        }
    }

    /// The partition's name.
    pub(super) fn partition(&self, index: usize) -> TopicPartition {
        self.partitions[index].clone()
    }

    /// The record at a position; there must be one.
    pub(super) fn at(&self, partition: usize, offset: Offset) -> Rec {
        self.logs[partition][offset.0 as usize].expect("a record stands at every delivered offset")
    }

    /// The record an event was decoded from.
    pub(super) fn of(&self, event: &Event) -> Rec {
        self.at(index_of(&event.record.partition), event.record.offset)
    }

    /// Its aggregate comes from several partitions without versions: the last arrival wins, and
    /// what is delivered again arrives again.
    pub(super) fn arrives_again(&self, rec: Rec) -> bool {
        let aggregate = self.records[rec].aggregate.map(|a| self.aggregates[a]);
        aggregate.is_some_and(|aggregate| !aggregate.versioned && !aggregate.is_single())
    }

    /// Declares an aggregate.
    pub(super) fn aggregate(&mut self, versioned: bool, homes: [usize; 2]) -> usize {
        let index = self.aggregates.len();
        self.aggregates.push(Aggregate { versioned, homes });
        self.keys.push(AggregateKey {
            aggregate_type: Arc::from(if versioned { "Versioned" } else { "Plain" }),
            id: Arc::from(format!("a{index}")),
        });
        index
    }

    /// Appends a transaction marker.
    pub(super) fn marker(&mut self, partition: usize) {
        self.logs[partition].push(None);
    }

    /// Appends a record.
    pub(super) fn append(&mut self, partition: usize, draft: Draft) -> Rec {
        let rec = self.records.len();
        let offset = self.logs[partition].len() as i64;
        let event_id: Box<str> =
            draft.event_id.unwrap_or_else(|| format!("e{rec}").into_boxed_str());
        let ordered = !matches!(draft.meaning, Meaning::Skip | Meaning::Unmatched);
        let previous = draft.aggregate.filter(|_| ordered).and_then(|aggregate| {
            (0..rec).rev().find(|&r| {
                let other = &self.records[r];
                other.partition == partition
                    && other.aggregate == Some(aggregate)
                    && !matches!(other.meaning, Meaning::Skip | Meaning::Unmatched)
            })
        });
        let version = draft.version.map(AggregateVersion);
        let mut spec = Spec {
            partition,
            offset,
            aggregate: draft.aggregate,
            version,
            event_id,
            meaning: draft.meaning,
            target: draft.target,
            previous,
            after: draft.after,
            event: self.blank(partition, offset, rec),
        };
        self.decode(&mut spec);
        self.records.push(spec);
        self.logs[partition].push(Some(rec));
        rec
    }

    fn blank(&self, partition: usize, offset: i64, rec: Rec) -> Event {
        Event {
            record: Record {
                partition: self.partitions[partition].clone(),
                offset: Offset(offset),
                generation: Generation(0),
                timestamp: Some(1_000 + offset),
                timestamp_type: TimestampType::CreateTime,
                raw: Raw::pair(None, Some(&rec.to_le_bytes())),
            },
            envelope: Envelope::default(),
            content: Content::Skip(Reason::SkipRoute),
        }
    }

    fn decode(&self, spec: &mut Spec) {
        let envelope = &mut spec.event.envelope;
        envelope.aggregate = spec.aggregate.map(|a| self.keys[a].clone());
        if spec.meaning != Meaning::Undecodable {
            envelope.event_id = Some((*spec.event_id).into());
            envelope.version = spec.version;
        }
        let route = self.route(spec);
        spec.event.content = match spec.meaning {
            Meaning::Write => written(route, LedgerEffect::Set(Json::Value("1".into()))),
            Meaning::Delete => written(route, LedgerEffect::Clear),
            Meaning::Skip => Content::Skip(Reason::SkipRoute),
            Meaning::Undecodable => Content::Poison(Poison::new(Reason::JsonSyntax, None)),
            Meaning::Unmatched => Content::Poison(Poison::new(Reason::Unmatched, None)),
            Meaning::Halting => Content::Halt(Reason::UnmatchedHalt),
        };
    }

    fn route(&self, spec: &Spec) -> RouteId {
        RouteId(u16::from(spec.aggregate.is_some_and(|a| self.aggregates[a].versioned)))
    }

    /// The record as the decoder sees it, after what the operator did.
    pub(super) fn decoded(&self, rec: Rec, new_route: bool, mended: bool) -> Event {
        let spec = &self.records[rec];
        let mut event = spec.event.clone();
        let routed = match spec.meaning {
            Meaning::Unmatched => new_route && spec.aggregate.is_some(),
            Meaning::Halting => mended,
            Meaning::Write | Meaning::Delete | Meaning::Skip | Meaning::Undecodable => false,
        };
        if routed {
            event.content = written(self.route(spec), LedgerEffect::Set(Json::Value("1".into())));
        }
        event
    }
}

fn written(route: RouteId, ledger: LedgerEffect) -> Content {
    Content::Write(Write { route, ledger, rows: Vec::new() })
}

/// A record to be appended.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    /// Its aggregate.
    pub(super) aggregate: Option<usize>,
    /// Its version.
    pub(super) version: Option<i64>,
    /// Its id; a fresh one when `None`.
    pub(super) event_id: Option<Box<str>>,
    /// What it asks for.
    pub(super) meaning: Meaning,
    /// How the target takes it.
    pub(super) target: Target,
    /// See [`Spec::after`].
    pub(super) after: Option<Rec>,
}

impl Draft {
    /// A plain write of an aggregate.
    pub(super) fn write(aggregate: usize, version: Option<i64>) -> Self {
        Self {
            aggregate: Some(aggregate),
            version,
            event_id: None,
            meaning: Meaning::Write,
            target: Target::Takes,
            after: None,
        }
    }

    /// The same with another meaning.
    pub(super) fn meaning(mut self, meaning: Meaning) -> Self {
        self.meaning = meaning;
        self
    }

    /// The same, taken differently by the target.
    pub(super) fn target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }
}

/// What the producer of one aggregate remembers.
#[derive(Debug, Clone, Default)]
struct Producer {
    version: i64,
    sent: Vec<Draft>,
    /// The record that ended a spread aggregate.
    ended: Option<Rec>,
}

/// Fills the logs as the swarm says.
pub(super) fn generate(swarm: &Swarm, rng: &mut Rng) -> Workload {
    let mut work = Workload::new(swarm.partitions);
    let mut producers = Vec::new();
    for _ in 0..swarm.aggregates {
        let home = rng.below(swarm.partitions);
        let versioned = rng.chance(600);
        let spread = rng.chance(if versioned { swarm.spread } else { 100 });
        let other = if spread { rng.below(swarm.partitions) } else { home };
        work.aggregate(versioned, [home, other]);
        producers.push(Producer::default());
    }
    while work.records.len() < swarm.records {
        if rng.chance(60) {
            work.marker(rng.below(swarm.partitions));
        }
        if rng.chance(swarm.odd / 6) {
            let nameless = [Meaning::Skip, Meaning::Undecodable, Meaning::Unmatched][rng.below(3)];
            let draft = Draft { aggregate: None, ..Draft::write(0, None) }.meaning(nameless);
            work.append(rng.below(swarm.partitions), draft);
            continue;
        }
        let aggregate = rng.below(swarm.aggregates);
        let shape = work.aggregates[aggregate];
        let home = shape.homes[rng.below(2)];
        let producer = &mut producers[aggregate];
        if let Some(end) = producer.ended {
            // Nothing new follows the end of a spread aggregate. What comes late for it, from the
            // other partition, changes nothing; else the place goes to a skip.
            let other = shape.homes[usize::from(work.records[end].partition == shape.homes[0])];
            if rng.chance(500) {
                let draft = producer.late(aggregate, shape, end, rng);
                work.append(other, draft);
            } else {
                let draft = Draft { aggregate: None, ..Draft::write(0, None) };
                work.append(home, draft.meaning(Meaning::Skip));
            }
            continue;
        }
        let mut draft = producer.next(aggregate, shape, swarm, rng);
        let ends = draft.meaning == Meaning::Delete && !shape.is_single();
        if ends && draft.version.is_none() {
            // Without a version of its own it counts where it stands: after everything before it.
            let other = |rec: &Rec| {
                let spec = &work.records[*rec];
                spec.aggregate == Some(aggregate) && spec.partition != home
            };
            draft.after = (0..work.records.len()).rev().find(other);
        }
        let rec = work.append(home, draft);
        producer.ended = ends.then_some(rec);
    }
    for partition in 0..swarm.partitions {
        // What others wait for must not be held back.
        let last = work.logs[partition].iter().rev().flatten().next().copied();
        if last.is_some_and(|last| work.records.iter().any(|spec| spec.after == Some(last))) {
            let draft = Draft { aggregate: None, ..Draft::write(0, None) };
            work.append(partition, draft.meaning(Meaning::Skip));
        }
    }
    for partition in 0..swarm.partitions {
        if rng.chance(300) {
            work.marker(partition);
        }
    }
    work
}

impl Producer {
    fn next(&mut self, aggregate: usize, shape: Aggregate, swarm: &Swarm, rng: &mut Rng) -> Draft {
        if rng.chance(swarm.odd) {
            return self.odd(rng.below(16), aggregate, shape, rng);
        }
        self.fresh(aggregate, shape, 1)
    }

    /// A new event of the aggregate, `step` versions after the one before.
    fn fresh(&mut self, aggregate: usize, shape: Aggregate, step: i64) -> Draft {
        self.fresh_as(aggregate, shape, step, (Meaning::Write, Target::Takes))
    }

    fn fresh_as(
        &mut self,
        aggregate: usize,
        shape: Aggregate,
        step: i64,
        (meaning, target): (Meaning, Target),
    ) -> Draft {
        self.version += step;
        let draft = Draft {
            aggregate: Some(aggregate),
            version: shape.versioned.then_some(self.version),
            event_id: Some(format!("a{aggregate}-{}", self.sent.len()).into()),
            meaning,
            target,
            after: None,
        };
        self.sent.push(draft.clone());
        draft
    }

    /// The newest event has no version.
    fn unversioned(&mut self) -> Option<i64> {
        self.sent.last_mut().and_then(|newest| newest.version.take()).and(None)
    }

    /// What comes late for an aggregate that has ended: nothing is resurrected.
    fn late(&mut self, aggregate: usize, shape: Aggregate, end: Rec, rng: &mut Rng) -> Draft {
        let versions: Vec<&Draft> = self.sent.iter().filter(|d| d.version.is_some()).collect();
        let writes = |draft: &Draft| Draft { meaning: Meaning::Write, ..draft.clone() };
        let draft = match (rng.below(3), versions.last()) {
            // An older event, or the end, once more.
            (0, Some(_)) if shape.versioned => writes(versions[rng.below(versions.len())]),
            // The newest version under another id.
            (1, Some(newest)) if shape.versioned => Draft { event_id: None, ..writes(newest) },
            _ => Draft::write(aggregate, None),
        };
        Draft { target: Target::Takes, after: Some(end), ..draft }
    }

    /// One record off the straight path.
    fn odd(&mut self, kind: usize, aggregate: usize, shape: Aggregate, rng: &mut Rng) -> Draft {
        let mut refused = |target| self.fresh_as(aggregate, shape, 1, (Meaning::Write, target));
        match kind {
            6 => return refused(Target::Refuses),
            7 => return refused(Target::RefusesUntilMended),
            8 => return refused(Target::MissingUntilMended),
            9 => {
                return self.fresh_as(aggregate, shape, 1, (Meaning::Unmatched, Target::Takes));
            }
            13 => return refused(Target::LockedUntilMended),
            11 => return self.fresh_as(aggregate, shape, 1, (Meaning::Halting, Target::Takes)),
            _ => {}
        }
        match (kind, self.sent.last()) {
            (0, Some(newest)) => newest.clone(),
            (1, Some(_)) => self.sent[rng.below(self.sent.len())].clone(),
            (2 | 14, Some(_)) => {
                let mut draft =
                    self.fresh_as(aggregate, shape, 1, (Meaning::Delete, Target::Takes));
                if kind == 14 {
                    // A tombstone: it has no room for a version.
                    draft.version = self.unversioned();
                    self.version -= 1;
                }
                if shape.is_single() && rng.chance(500) {
                    self.version = 0;
                }
                draft
            }
            // Of a spread aggregate nobody could tell when it comes again.
            (15, _) if shape.is_single() => {
                let mut draft = self.fresh(aggregate, shape, 0);
                draft.version = self.unversioned();
                draft
            }
            (3, _) => self.fresh(aggregate, shape, 1 + rng.between(1, 3) as i64),
            // The same version under another id: a conflict for the newest, late for others.
            (4, Some(newest)) => Draft { event_id: None, ..newest.clone() },
            (5, _) => Draft::write(aggregate, None).meaning(Meaning::Undecodable),
            (10, _) => Draft::write(aggregate, None).meaning(Meaning::Skip),
            _ => self.fresh(aggregate, shape, 1),
        }
    }
}
