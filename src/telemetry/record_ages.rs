//! Records on their way, for the metrics: when each poll read its records, until their outcome is
//! durable. Pure, and nothing decides by it.
//!
//! [`Telemetry`] holds the one [`RecordAges`] of the process: told of each poll, of each transaction that
//! is sent, and of what the coordinator reports.
//!
//! One mark for what one poll brought of a partition, not one for each record. Marks outlive the
//! session: what is read again after a recovery is as old as it was.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use pgsluice_core::event::Event;
use pgsluice_core::group::Group;
use pgsluice_core::input::Report;
use pgsluice_core::record::{NextOffset, Offset, TopicPartition};

use super::Telemetry;

/// How many marks a partition keeps; beyond it pairs of them become one (INV-11).
const MAX_MARKS: usize = 1024;

/// When records were read whose outcome is not durable.
#[derive(Debug, Default)]
pub(super) struct RecordAges {
    partitions: BTreeMap<TopicPartition, Marks>,
}

#[derive(Debug)]
struct Marks {
    /// Offsets and times ascend.
    marks: VecDeque<Mark>,
    /// Where durable progress stands, as far as was told.
    durable: NextOffset,
}

/// Records of one partition that were read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// The last of them.
    last: Offset,
    /// When the first of them was read.
    read: Instant,
    /// When the last one's event happened.
    happened: Option<Timestamp>,
}

impl Telemetry {
    /// Records were read, the first of them at `at`.
    pub fn read(&self, events: &[Event], at: Instant) {
        self.lock_ages().read(events, at);
    }

    /// Groups are about to be sent to a fast lane together.
    pub fn sent(&self, groups: &[Group]) {
        let read = groups.first().and_then(|group| self.lock_ages().read_at(group));
        if let Some(read) = read {
            self.metrics().work.queued(read.elapsed());
        }
    }

    /// Sets the age of the oldest unfinished record of each partition.
    pub fn oldest_unfinished(&self) {
        for (partition, read) in self.lock_ages().oldest() {
            let age = read.map_or(Duration::ZERO, |read| read.elapsed());
            self.metrics().partition.oldest_unfinished(partition, age);
        }
    }

    /// The coordinator reported something that records pass through.
    pub(super) fn follow(&self, report: &Report) {
        match report {
            Report::Taken(partition, claim) => self.lock_ages().taken(partition, claim.next),
            Report::GivenUp(partition) => self.lock_ages().forget(partition),
            Report::Advanced { partition, next } => {
                let passed = self.lock_ages().durable(partition, *next);
                if passed.is_empty() {
                    return;
                }
                let now = Timestamp::now();
                for happened in passed {
                    // A producer's clock may be ahead of ours: such an event is as fresh as can be.
                    let age = Duration::try_from(now.duration_since(happened)).unwrap_or_default();
                    self.metrics().work.fresh(age);
                }
            }
            _ => {}
        }
    }

    fn lock_ages(&self) -> MutexGuard<'_, RecordAges> {
        self.0.ages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecordAges {
    /// Records were read. Those that were read before keep their first time.
    pub(super) fn read(&mut self, events: &[Event], at: Instant) {
        for (index, event) in events.iter().enumerate() {
            let next = events.get(index + 1);
            if next.is_none_or(|next| next.record.partition != event.record.partition) {
                self.mark(event, at);
            }
        }
    }

    fn mark(&mut self, event: &Event, at: Instant) {
        let Some(partition) = self.partitions.get_mut(&event.record.partition) else { return };
        let mark = Mark { last: event.offset(), read: at, happened: happened(event) };
        match partition.marks.back_mut() {
            Some(last) if last.last >= mark.last => {}
            Some(last) if last.read == at => *last = mark,
            Some(_) | None => partition.marks.push_back(mark),
        }
        if partition.marks.len() > MAX_MARKS {
            partition.thin_out();
        }
    }

    /// When the poll began that read the group's first record.
    pub(super) fn read_at(&self, group: &Group) -> Option<Instant> {
        let marks = &self.partitions.get(group.partition())?.marks;
        let first = group.first().offset();
        let index = marks.partition_point(|mark| mark.last < first);
        marks.get(index).map(|mark| mark.read)
    }

    /// A partition is read from `next` on.
    pub(super) fn taken(&mut self, partition: &TopicPartition, next: NextOffset) {
        let fresh = || Marks { marks: VecDeque::new(), durable: next };
        let known = self.partitions.entry(partition.clone()).or_insert_with(fresh);
        // An operator moved it back, or it is another log: what was read before says nothing.
        if next < known.durable {
            *known = fresh();
        }
        drop(known.pass(next));
    }

    /// Progress became durable: the times of the events that are the last of their mark.
    pub(super) fn durable(
        &mut self,
        partition: &TopicPartition,
        next: NextOffset,
    ) -> Vec<Timestamp> {
        let known = self.partitions.get_mut(partition);
        known.map(|marks| marks.pass(next)).unwrap_or_default()
    }

    /// A partition was given up.
    pub(super) fn forget(&mut self, partition: &TopicPartition) {
        self.partitions.remove(partition);
    }

    /// For each partition, since when its oldest record without a durable outcome is known.
    pub(super) fn oldest(&self) -> impl Iterator<Item = (&TopicPartition, Option<Instant>)> {
        let oldest = |marks: &Marks| marks.marks.front().map(|mark| mark.read);
        self.partitions.iter().map(move |(name, marks)| (name, oldest(marks)))
    }
}

impl Marks {
    fn pass(&mut self, next: NextOffset) -> Vec<Timestamp> {
        self.durable = next;
        let passed = self.marks.partition_point(|mark| mark.last.next() <= next);
        self.marks.drain(..passed).filter_map(|mark| mark.happened).collect()
    }

    /// Makes one mark of each two.
    fn thin_out(&mut self) {
        let marks = self.marks.make_contiguous();
        let pairs = marks.chunks(2).filter_map(|pair| {
            let (first, last) = (pair.first()?, pair.last()?);
            Some(Mark { read: first.read, ..*last })
        });
        self.marks = pairs.collect();
    }
}

/// The event's own time, or else its record's.
fn happened(event: &Event) -> Option<Timestamp> {
    let stamped = || Timestamp::from_millisecond(event.record.timestamp?).ok();
    event.envelope.time.or_else(stamped)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use pgsluice_core::event::{Content, Envelope};
    use pgsluice_core::group::{GroupKind, OrderingKey, Part, Source};
    use pgsluice_core::record::{Generation, Raw, Record, StreamId, TimestampType};
    use pgsluice_core::verdict::Reason;

    fn partition(number: i32) -> TopicPartition {
        TopicPartition { topic: Arc::from("t"), partition: number }
    }

    /// A record whose timestamp is its offset.
    fn event(number: i32, offset: i64) -> Event {
        let record = Record {
            partition: partition(number),
            offset: Offset(offset),
            generation: Generation(1),
            timestamp: Some(offset),
            timestamp_type: TimestampType::CreateTime,
            raw: Raw::default(),
        };
        let content = Content::Skip(Reason::SkipRoute);
        Event { record, envelope: Envelope::default(), content }
    }

    fn group(number: i32, offset: i64) -> Group {
        let event = event(number, offset);
        let source = Source::Sampled { partition: partition(number), stream: StreamId(1) };
        let order = OrderingKey::of(&event);
        Group { order, source, parts: Part::new(GroupKind::Skip, event).into(), failure: None }
    }

    fn ages(numbers: &[i32]) -> RecordAges {
        let mut ages = RecordAges::default();
        for number in numbers {
            ages.taken(&partition(*number), NextOffset(0));
        }
        ages
    }

    fn oldest(ages: &RecordAges) -> Vec<Option<Instant>> {
        ages.oldest().map(|(_, read)| read).collect()
    }

    #[test]
    fn the_oldest_record_is_the_first_that_progress_has_not_passed() {
        let (mut ages, start) = (ages(&[0, 1]), Instant::now());
        let later = start + Duration::from_secs(1);
        ages.read(&[event(0, 3), event(0, 4), event(1, 7)], start);
        ages.read(&[event(0, 5)], later);
        assert_eq!(oldest(&ages), [Some(start), Some(start)]);
        assert_eq!(ages.read_at(&group(0, 4)), Some(start));
        assert_eq!(ages.read_at(&group(0, 5)), Some(later));

        assert_eq!(ages.durable(&partition(0), NextOffset(4)), []);
        assert_eq!(oldest(&ages), [Some(start), Some(start)]);
        let passed = ages.durable(&partition(0), NextOffset(5));
        assert_eq!(passed, [Timestamp::from_millisecond(4).unwrap()]);
        assert_eq!(oldest(&ages), [Some(later), Some(start)]);
        ages.durable(&partition(0), NextOffset(9));
        assert_eq!(oldest(&ages), [None, Some(start)]);
    }

    #[test]
    fn the_time_of_the_event_goes_before_that_of_its_record() {
        let mut ages = ages(&[0]);
        let mut own = event(0, 1);
        let time = Timestamp::from_second(77).unwrap();
        own.envelope.time = Some(time);
        ages.read(&[own], Instant::now());
        assert_eq!(ages.durable(&partition(0), NextOffset(2)), [time]);
    }

    #[test]
    fn what_is_read_again_after_a_recovery_keeps_its_first_time() {
        let (mut ages, start) = (ages(&[0]), Instant::now());
        ages.read(&[event(0, 3), event(0, 4)], start);
        ages.taken(&partition(0), NextOffset(0));
        ages.read(&[event(0, 3), event(0, 4)], start + Duration::from_secs(9));
        assert_eq!(oldest(&ages), [Some(start)]);
        assert_eq!(ages.durable(&partition(0), NextOffset(5)).len(), 1, "told once");
    }

    #[test]
    fn a_position_that_was_moved_back_begins_anew_and_a_partition_given_up_is_forgotten() {
        let (mut ages, start) = (ages(&[0]), Instant::now());
        ages.read(&[event(0, 3), event(0, 9)], start);
        ages.durable(&partition(0), NextOffset(5));
        ages.taken(&partition(0), NextOffset(1));
        assert_eq!(oldest(&ages), [None]);
        ages.forget(&partition(0));
        ages.read(&[event(0, 10)], start);
        assert_eq!(oldest(&ages), []);
    }

    /// Proves INV-11.
    #[test]
    fn a_partition_that_stands_still_keeps_a_bounded_number_of_marks() {
        let (mut ages, start) = (ages(&[0]), Instant::now());
        for offset in 0..20_000 {
            let later = Duration::from_millis(u64::try_from(offset).unwrap());
            ages.read(&[event(0, offset)], start + later);
        }
        assert!(ages.partitions[&partition(0)].marks.len() <= MAX_MARKS);
        assert_eq!(oldest(&ages), [Some(start)]);
        ages.durable(&partition(0), NextOffset(20_000));
        assert_eq!(oldest(&ages), [None]);
    }
}
