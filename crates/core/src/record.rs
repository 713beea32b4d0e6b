//! What Kafka delivered: positions, partitions and the record with its original bytes.

use std::fmt;
use std::sync::Arc;

/// A record's own position in its partition. The next position to read is [`Offset::next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

impl Offset {
    /// The position after this record: what a consumer would commit once the record is finished.
    pub fn next(self) -> NextOffset {
        NextOffset(self.0 + 1)
    }
}

/// The next position to read in a partition; everything below it is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextOffset(pub i64);

/// One log of one partition as one sink reads it: the surrogate key of `stream_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub i32);

/// How often ownership of a stream was taken; whoever holds the newest value owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerEpoch(pub i64);

/// Counts how often reading of a partition was started anew in this process.
///
/// Records and replies of an older generation are ignored: after a recovery the same records are
/// read again from the position the database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// Counts database sessions of this process; replies of an older session are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Topic name as the broker knows it.
    pub topic: Arc<str>,
    /// Partition number, from 0.
    pub partition: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Identity of a record in the database: the stream and the offset in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// The log the record stands in.
    pub stream: StreamId,
    /// Its position in that log.
    pub offset: Offset,
}

/// Who set a record's timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// The topic carries no timestamps.
    NotAvailable,
    /// The producer's clock.
    CreateTime,
    /// The broker's clock on append.
    LogAppendTime,
}

impl TimestampType {
    /// Kafka's own name of the type, as stored in `dead_letter_t.timestamp_type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAvailable => "NoTimestampType",
            Self::CreateTime => "CreateTime",
            Self::LogAppendTime => "LogAppendTime",
        }
    }
}

/// One record header. Names may repeat, order counts, and a value may be null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Header name.
    pub name: Box<str>,
    /// Header value; `None` is Kafka's null, which is not the empty value.
    pub value: Option<Box<[u8]>>,
}

/// A record as it was read, byte for byte (INV-6: null is not empty).
///
/// `Debug` is written by hand: key, value and headers never reach a log (INV-9).
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Where the record was read.
    pub partition: TopicPartition,
    /// Its position there.
    pub offset: Offset,
    /// The reading that delivered it.
    pub generation: Generation,
    /// Milliseconds since 1970, `None` where the topic carries no timestamps.
    pub timestamp: Option<i64>,
    /// Who set `timestamp`.
    pub timestamp_type: TimestampType,
    /// The key; `None` is null.
    pub key: Option<Box<[u8]>>,
    /// The value; `None` is null, a tombstone.
    pub value: Option<Box<[u8]>>,
    /// The headers in their order.
    pub headers: Vec<Header>,
}

impl Record {
    /// A fixed allowance for what the parsed form of a record takes beside its bytes.
    const OVERHEAD_BYTES: usize = 512;

    /// What this record counts against `limits.in_flight_bytes`: its bytes twice (raw and parsed)
    /// and a fixed allowance.
    pub fn weight(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|h| h.name.len() + h.value.as_ref().map_or(0, |v| v.len()) + 48)
            .sum();
        let key = self.key.as_ref().map_or(0, |k| k.len());
        let value = self.value.as_ref().map_or(0, |v| v.len());
        2 * (key + value) + headers + Self::OVERHEAD_BYTES
    }

    /// CRC-32 of key and value, kept in the anchor that proves a log is still the same log.
    pub fn crc(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for part in [&self.key, &self.value] {
            match part {
                None => hasher.update(&[0]),
                Some(bytes) => {
                    hasher.update(&[1]);
                    hasher.update(bytes);
                }
            }
        }
        hasher.finalize()
    }

    /// The last header of that name, which is the one readers take.
    pub fn header(&self, name: &str) -> Option<&Header> {
        self.headers.iter().rev().find(|h| &*h.name == name)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// The last finished record of a stream, kept so that a later start can tell whether the log it
/// reads is still the log it knew (design: a recreated topic reuses the same offsets).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The record's position.
    pub offset: Offset,
    /// Its timestamp in milliseconds, `None` where the topic has none.
    pub timestamp: Option<i64>,
    /// [`Record::crc`] of it.
    pub crc: u32,
}
