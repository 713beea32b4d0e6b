//! The contiguous finished prefix of one partition (INV-1).
//!
//! Groups finish in any order; progress may only cover what has no unfinished record below it.
//! The frontier keeps one small entry for every delivered record at or above that prefix.

use std::collections::VecDeque;

use crate::guard::guard;
use crate::record::{Anchor, NextOffset, Offset, Record};

/// Tracks which delivered records of one reading of a partition are finished.
#[derive(Debug)]
pub struct Frontier {
    next: NextOffset,
    anchor: Option<Anchor>,
    /// The consumer has delivered everything before this position.
    delivered: NextOffset,
    entries: VecDeque<Entry>,
    unfinished: usize,
}

#[derive(Debug)]
struct Entry {
    offset: Offset,
    /// Set when the record is finished.
    finished: Option<Anchor>,
}

impl Frontier {
    /// Starts at `next`; `anchor` is the last finished record below it, as stored.
    pub fn new(next: NextOffset, anchor: Option<Anchor>) -> Self {
        Self { next, anchor, delivered: next, entries: VecDeque::new(), unfinished: 0 }
    }

    /// Everything below is finished.
    pub fn next(&self) -> NextOffset {
        self.next
    }

    /// The last record of the finished prefix.
    pub fn anchor(&self) -> Option<Anchor> {
        self.anchor
    }

    /// Delivered records without an outcome.
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Takes note of a record that was read. Offsets ascend but may have gaps (compaction,
    /// aborted transactions, markers). `false`: below the prefix or read before; ignore it.
    pub fn deliver(&mut self, offset: Offset) -> bool {
        let fresh = match self.entries.back() {
            Some(last) => offset > last.offset,
            None => offset.0 >= self.next.0,
        };
        if fresh {
            self.entries.push_back(Entry { offset, finished: None });
            self.unfinished += 1;
        }
        fresh
    }

    /// Takes note of a record's outcome and moves the prefix as far as it now reaches.
    pub fn finish(&mut self, record: &Record) {
        let Ok(index) = self.entries.binary_search_by_key(&record.offset, |e| e.offset) else {
            debug_assert!(record.offset.0 < self.next.0, "a finished record was delivered");
            return;
        };
        let entry = &mut self.entries[index];
        if entry.finished.is_some() {
            debug_assert!(false, "a record finishes once");
            return;
        }
        let anchor =
            Anchor { offset: record.offset, timestamp: record.timestamp, crc: record.crc() };
        entry.finished = Some(anchor);
        self.unfinished -= 1;
        // The first entry is never finished: progress moves when that one is.
        if guard!(ContiguousPrefix, index > 0) {
            return;
        }
        self.reach(anchor);
        while let Some(anchor) = self.entries.front().and_then(|e| e.finished) {
            self.entries.pop_front();
            self.reach(anchor);
        }
        self.follow_consumer();
    }

    /// Moves progress behind a finished record.
    fn reach(&mut self, anchor: Anchor) {
        if anchor.offset.next() > self.next {
            self.next = anchor.offset.next();
            self.anchor = Some(anchor);
        }
    }

    /// Takes note of the consumer's position, which may lie beyond the last record because
    /// transaction markers take offsets. Counts as soon as nothing is unfinished: the consumer
    /// tells a position once.
    pub fn skip_to(&mut self, position: NextOffset) {
        self.delivered = self.delivered.max(position);
        self.follow_consumer();
    }

    fn follow_consumer(&mut self) {
        if self.unfinished == 0 {
            self.next = self.next.max(self.delivered);
        }
    }
}

#[cfg(test)]
impl Frontier {
    /// Says what is inconsistent in itself, if something is.
    pub(crate) fn check(&self) -> Result<(), String> {
        let unfinished = self.entries.iter().filter(|entry| entry.finished.is_none()).count();
        let ascending = self.entries.iter().is_sorted_by(|a, b| a.offset < b.offset);
        let first = self.entries.front();
        let stops =
            first.is_none_or(|entry| entry.finished.is_none() && entry.offset.0 >= self.next.0);
        let anchored = self.anchor.is_none_or(|anchor| anchor.offset.next() <= self.next);
        if unfinished == self.unfinished && ascending && stops && anchored {
            return Ok(());
        }
        Err(format!("a frontier at {:?} that counts {}: {self:?}", self.next, self.unfinished))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::record::{Generation, Raw, TimestampType, TopicPartition};

    fn record(offset: i64) -> Record {
        Record {
            partition: TopicPartition { topic: Arc::from("t"), partition: 0 },
            offset: Offset(offset),
            generation: Generation(1),
            timestamp: Some(offset * 10),
            timestamp_type: TimestampType::CreateTime,
            raw: Raw::pair(None, Some(&offset.to_be_bytes())),
        }
    }

    /// Proves INV-1.
    #[test]
    fn progress_waits_for_the_oldest_unfinished_record() {
        let mut frontier = Frontier::new(NextOffset(5), None);
        for offset in [5, 6, 9] {
            assert!(frontier.deliver(Offset(offset)));
        }
        frontier.finish(&record(9));
        frontier.finish(&record(6));
        assert_eq!(frontier.next(), NextOffset(5));
        assert_eq!(frontier.unfinished(), 1);
        frontier.finish(&record(5));
        assert_eq!(frontier.next(), NextOffset(10));
        assert_eq!(frontier.anchor().map(|a| a.offset), Some(Offset(9)));
    }

    #[test]
    fn a_record_read_twice_is_delivered_once() {
        let mut frontier = Frontier::new(NextOffset(5), None);
        assert!(!frontier.deliver(Offset(4)));
        assert!(frontier.deliver(Offset(5)));
        assert!(!frontier.deliver(Offset(5)));
        assert_eq!(frontier.unfinished(), 1);
    }

    /// Proves INV-1.
    #[test]
    fn the_consumers_position_counts_only_when_nothing_is_unfinished() {
        let mut frontier = Frontier::new(NextOffset(0), None);
        frontier.deliver(Offset(0));
        frontier.skip_to(NextOffset(2));
        assert_eq!(frontier.next(), NextOffset(0));
        frontier.finish(&record(0));
        assert_eq!(frontier.next(), NextOffset(2), "told once, remembered");
        assert_eq!(frontier.anchor().map(|a| a.offset), Some(Offset(0)));
        frontier.skip_to(NextOffset(1));
        assert_eq!(frontier.next(), NextOffset(2), "never moves back");
    }

    proptest! {
        /// Proves INV-1.
        #[test]
        fn any_order_of_outcomes_never_passes_an_unfinished_record(
            steps in proptest::collection::vec(1_i64..4, 1..60),
            order in proptest::collection::vec(any::<u32>(), 60),
        ) {
            let mut offset = 0;
            let offsets: Vec<i64> = steps.iter().map(|s| { offset += s; offset }).collect();
            let mut frontier = Frontier::new(NextOffset(0), None);
            for o in &offsets {
                frontier.deliver(Offset(*o));
            }
            let mut open = offsets.clone();
            for pick in order.iter().take(offsets.len()) {
                let index = *pick as usize % open.len();
                let done = open.remove(index);
                frontier.finish(&record(done));
                match open.first() {
                    Some(first) => prop_assert!(frontier.next().0 <= *first),
                    None => prop_assert_eq!(frontier.next().0, offset + 1),
                }
            }
        }
    }
}
