//! What the consumer thread knows of each assigned partition: which records to hand on, which to
//! drop, and whether the log is the one the database knows. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use pgsluice_core::decode::Missing;
use pgsluice_core::record::{Anchor, Generation, Offset, TopicPartition};

/// What becomes of a record that was polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Hand it on under this generation.
    Deliver(Generation),
    /// Not wanted: it stands below the wanted position, or nobody asked for this partition.
    Drop,
    /// The record at the anchor's position is not the anchor: this is another log.
    LogChanged(Generation),
}

/// A position that librdkafka has not taken yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seeking {
    /// When the position was asked for.
    pub(super) since: Instant,
    /// Not to be tried before.
    pub(super) due: Instant,
}

/// One assigned partition.
#[derive(Debug)]
pub(super) struct Reading {
    /// The partition.
    pub(super) partition: TopicPartition,
    /// The reading the coordinator asked for; `None` until the first seek and after the log was
    /// found changed. Nothing is delivered without it.
    pub(super) generation: Option<Generation>,
    /// The first offset still wanted; records below are dropped.
    pub(super) next: i64,
    /// To be compared with the first record, when that stands at the anchor's offset.
    pub(super) anchor: Option<Anchor>,
    /// The position still has to be set.
    pub(super) seeking: Option<Seeking>,
    /// What has to be known before the record at `next` can be decoded. Until then the partition is
    /// paused, and what was fetched of it already is dropped.
    missing: Option<Missing>,
    /// librdkafka gave up fetching it (its position was out of range): only assigning it anew
    /// starts it again.
    pub(super) stopped: bool,
    /// It was assigned anew: no seek before this time, because it could be undone.
    not_before: Option<Instant>,
    /// Paused by the coordinator.
    pub(super) held: bool,
}

impl Reading {
    /// A partition just assigned: paused.
    pub(super) fn assigned(partition: TopicPartition) -> Self {
        Self {
            partition,
            generation: None,
            next: 0,
            anchor: None,
            seeking: None,
            missing: None,
            stopped: false,
            not_before: None,
            held: true,
        }
    }

    /// Starts a new reading at `next`. With an anchor the record at its offset is fetched first
    /// and compared.
    pub(super) fn start(
        &mut self,
        generation: Generation,
        next: i64,
        anchor: Option<Anchor>,
        now: Instant,
    ) {
        self.generation = Some(generation);
        self.next = next;
        self.anchor = anchor.filter(|anchor| anchor.offset.0 < next);
        self.missing = None;
        self.held = false;
        self.seek_from(now);
    }

    /// Asks for the position to be set, at once or when it can be.
    fn seek_from(&mut self, now: Instant) {
        let due = self.not_before.map_or(now, |time| time.max(now));
        self.seeking = Some(Seeking { since: due, due });
    }

    /// The record at this offset, which was to be delivered, cannot be decoded yet: reading stays
    /// before it.
    pub(super) fn wait(&mut self, missing: Missing, offset: Offset) {
        self.next = offset.0;
        self.missing = Some(missing);
    }

    /// Reads on if this was what it waited for.
    pub(super) fn learn(&mut self, learned: Missing, now: Instant) {
        if self.missing.take_if(|missing| *missing == learned).is_some() {
            self.seek_from(now);
        }
    }

    /// Notes that the partition was assigned anew, which is done by `ready`.
    pub(super) fn restarting(&mut self, ready: Instant) {
        self.stopped = false;
        self.not_before = Some(ready);
        if self.seeking.is_some() {
            self.seeking = Some(Seeking { since: ready, due: ready });
        }
    }

    /// Ends the reading until the next seek.
    pub(super) fn end(&mut self) {
        self.generation = None;
        self.anchor = None;
        self.seeking = None;
        self.held = true;
    }

    /// Where fetching has to start.
    pub(super) fn fetch_from(&self) -> i64 {
        self.anchor.map_or(self.next, |anchor| anchor.offset.0)
    }

    /// Records of it are wanted, and librdkafka is at the right position.
    pub(super) fn is_flowing(&self) -> bool {
        self.flowing().is_some()
    }

    /// The reading that records are delivered under, if they are.
    fn flowing(&self) -> Option<Generation> {
        self.generation.filter(|_| self.seeking.is_none() && self.missing.is_none())
    }

    /// Decides about a polled record and moves the position behind it when it is delivered.
    pub(super) fn admit(
        &mut self,
        offset: i64,
        timestamp: Option<i64>,
        crc: impl FnOnce() -> u32,
    ) -> Admission {
        let Some(generation) = self.flowing() else { return Admission::Drop };
        // Only the first record is compared: one above the anchor means that compaction removed
        // the anchor itself, which proves nothing.
        if let Some(anchor) = self.anchor.take()
            && offset == anchor.offset.0
            && (timestamp != anchor.timestamp || crc() != anchor.crc)
        {
            self.end();
            return Admission::LogChanged(generation);
        }
        if offset < self.next {
            return Admission::Drop;
        }
        self.next = Offset(offset).next().0;
        Admission::Deliver(generation)
    }

    /// Takes over the consumer's position when it lies beyond the last record: transaction
    /// markers take offsets. Returns the generation to announce it under.
    pub(super) fn reach(&mut self, position: i64) -> Option<Generation> {
        let generation = self.flowing()?;
        (position > self.next).then(|| {
            self.next = position;
            generation
        })
    }

    /// Finds out what a log that spans `low..=high` means for this reading.
    pub(super) fn compare(&mut self, low: i64, high: i64) -> Span {
        let from = self.fetch_from();
        if (low..=high).contains(&from) {
            return Span::Holds;
        }
        if from < low && low <= self.next && self.next <= high {
            // Retention took the anchor but not the position: nothing left to compare with.
            self.anchor = None;
            return Span::Holds;
        }
        Span::Lacks
    }
}

/// Whether a log holds a reading's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    /// The position is in the log or at its end.
    Holds,
    /// The position was never written there, or is gone.
    Lacks,
}

/// All assigned partitions. Looked up by name and number without allocating, once a record.
#[derive(Debug, Default)]
pub(super) struct Readings {
    topics: HashMap<Arc<str>, HashMap<i32, Reading>>,
}

impl Readings {
    /// The reading of a partition, `None` when it is not assigned.
    pub(super) fn get(&mut self, topic: &str, partition: i32) -> Option<&mut Reading> {
        self.topics.get_mut(topic)?.get_mut(&partition)
    }

    /// Adds a partition; what was known of it is forgotten.
    pub(super) fn assign(&mut self, partition: TopicPartition) {
        self.topics
            .entry(Arc::clone(&partition.topic))
            .or_default()
            .insert(partition.partition, Reading::assigned(partition));
    }

    /// Forgets a partition.
    pub(super) fn revoke(&mut self, partition: &TopicPartition) {
        if let Some(partitions) = self.topics.get_mut(&partition.topic) {
            partitions.remove(&partition.partition);
            if partitions.is_empty() {
                self.topics.remove(&partition.topic);
            }
        }
    }

    /// The topics held.
    pub(super) fn topics(&self) -> Vec<Arc<str>> {
        self.topics.keys().cloned().collect()
    }

    /// All readings, in no particular order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Reading> {
        self.topics.values_mut().flat_map(HashMap::values_mut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERATION: Generation = Generation(7);

    fn reading(next: i64, anchor: Option<Anchor>) -> Reading {
        let partition = TopicPartition { topic: "t".into(), partition: 0 };
        let mut reading = Reading::assigned(partition);
        reading.start(GENERATION, next, anchor, Instant::now());
        reading.seeking = None;
        reading
    }

    fn anchor(offset: i64) -> Anchor {
        Anchor { offset: Offset(offset), timestamp: Some(1), crc: 5 }
    }

    #[test]
    fn a_record_of_a_partition_that_was_never_sought_is_dropped() {
        let partition = TopicPartition { topic: "t".into(), partition: 0 };
        let mut reading = Reading::assigned(partition);
        assert_eq!(reading.admit(0, None, || 0), Admission::Drop);
    }

    #[test]
    fn a_record_is_delivered_once_and_gaps_are_normal() {
        let mut reading = reading(10, None);
        assert_eq!(reading.admit(9, None, || 0), Admission::Drop);
        assert_eq!(reading.admit(12, None, || 0), Admission::Deliver(GENERATION));
        assert_eq!(reading.admit(12, None, || 0), Admission::Drop);
        assert_eq!(reading.next, 13);
    }

    #[test]
    fn a_matching_anchor_is_compared_and_not_delivered() {
        let mut reading = reading(10, Some(anchor(9)));
        assert_eq!(reading.fetch_from(), 9);
        assert_eq!(reading.admit(9, Some(1), || 5), Admission::Drop);
        assert_eq!(reading.admit(10, Some(2), || 8), Admission::Deliver(GENERATION));
    }

    #[test]
    fn another_record_at_the_anchors_offset_ends_the_reading() {
        for (timestamp, crc) in [(Some(2), 5), (Some(1), 6), (None, 5)] {
            let mut reading = reading(10, Some(anchor(9)));
            assert_eq!(reading.admit(9, timestamp, || crc), Admission::LogChanged(GENERATION));
            assert_eq!(reading.admit(10, timestamp, || crc), Admission::Drop);
        }
    }

    #[test]
    fn an_anchor_that_compaction_removed_proves_nothing() {
        let mut reading = reading(10, Some(anchor(7)));
        assert_eq!(reading.admit(11, Some(9), || 9), Admission::Deliver(GENERATION));
    }

    /// Proves INV-1.
    #[test]
    fn the_position_is_announced_only_beyond_the_last_record() {
        let mut reading = reading(10, None);
        assert_eq!(reading.reach(10), None);
        assert_eq!(reading.reach(12), Some(GENERATION));
        assert_eq!(reading.reach(12), None);
    }

    const SCHEMA: Missing = Missing { kind: "schema", id: 1 };

    #[test]
    fn a_record_that_waits_is_the_next_one_and_nothing_passes_it() {
        let mut reading = reading(10, None);
        assert_eq!(reading.admit(12, None, || 0), Admission::Deliver(GENERATION));
        reading.wait(SCHEMA, Offset(12));
        assert!(!reading.is_flowing());
        assert_eq!(reading.fetch_from(), 12);
        assert_eq!(reading.admit(13, None, || 0), Admission::Drop);
        assert_eq!(reading.reach(14), None);
        // Something else was learned: nothing follows.
        reading.learn(Missing { id: 2, ..SCHEMA }, Instant::now());
        assert_eq!(reading.seeking, None);
        assert_eq!(reading.admit(12, None, || 0), Admission::Drop);
        reading.learn(SCHEMA, Instant::now());
        // What was fetched before the position is set again is dropped as well.
        assert_eq!(reading.admit(13, None, || 0), Admission::Drop);
        reading.seeking = None;
        assert_eq!(reading.admit(12, None, || 0), Admission::Deliver(GENERATION));
    }

    #[test]
    fn a_seek_ends_the_waiting_and_what_is_learned_later_changes_nothing() {
        let mut reading = reading(10, None);
        reading.wait(SCHEMA, Offset(12));
        reading.start(Generation(8), 5, None, Instant::now());
        reading.seeking = None;
        reading.learn(SCHEMA, Instant::now());
        assert_eq!(reading.seeking, None);
        assert_eq!(reading.admit(5, None, || 0), Admission::Deliver(Generation(8)));
    }

    #[test]
    fn a_seek_waits_until_a_new_assignment_has_come_into_effect() {
        let now = Instant::now();
        let ready = now + std::time::Duration::from_secs(1);
        let mut reading = reading(10, None);
        reading.stopped = true;
        reading.restarting(ready);
        reading.start(GENERATION, 4, None, now);
        assert_eq!(reading.seeking.map(|seeking| seeking.due), Some(ready));
        assert_eq!(reading.admit(20, None, || 0), Admission::Drop);
    }

    #[test]
    fn a_position_outside_the_log_is_told_from_an_anchor_lost_to_retention() {
        assert_eq!(reading(10, None).compare(0, 10), Span::Holds);
        assert_eq!(reading(10, None).compare(0, 9), Span::Lacks);
        assert_eq!(reading(10, None).compare(11, 20), Span::Lacks);
        let mut retained = reading(10, Some(anchor(4)));
        assert_eq!(retained.compare(6, 20), Span::Holds);
        assert_eq!(retained.fetch_from(), 10);
    }
}
