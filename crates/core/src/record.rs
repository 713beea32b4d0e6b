//! What Kafka delivered: positions, partitions and the record with its original bytes.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::text::{BUFFER_BYTES, Buffer, Slice, Text};

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

/// One header of a stored record. Names may repeat, order counts, and a value may be null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Header name.
    pub name: Box<str>,
    /// Header value; `None` is Kafka's null, which is not the empty value.
    pub value: Option<Box<[u8]>>,
}

/// A header as it is looked at: its name, and its value or null.
pub type HeaderRef<'a> = (&'a str, Option<&'a [u8]>);

/// Key, value and headers of a record, byte for byte (INV-6: null is not empty, headers keep their
/// order and repeat). All of it is one allocation, which the texts of the event are slices of.
#[derive(Clone, PartialEq, Eq)]
pub struct Raw {
    /// The key, the value, then for each header the lengths of its name and its value, its name and
    /// its value.
    buffer: Buffer,
    key: Length,
    value: Length,
}

/// How many bytes there are, or null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Length(u32);

impl Length {
    const NULL: Self = Self(u32::MAX);

    fn of(bytes: Option<&[u8]>) -> Self {
        let Some(bytes) = bytes else { return Self::NULL };
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // Kafka counts in 31 bits, so no record comes to this; cutting it short would lose data.
        assert!(length < u32::MAX, "a part of a record has 4 GiB or more");
        Self(length)
    }

    /// Splits as many bytes off, unless it is null.
    fn split(self, bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
        if self == Self::NULL {
            return Some((None, bytes));
        }
        let (part, rest) = bytes.split_at_checked(self.0 as usize)?;
        Some((Some(part), rest))
    }
}

impl Raw {
    /// Copies the parts of a record.
    pub fn new<'h>(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = HeaderRef<'h>, IntoIter: Clone>,
    ) -> Self {
        let headers = headers.into_iter();
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let of_headers = headers.clone().map(|(name, value)| 8 + name.len() + length(value));
        let total = length(key) + length(value) + of_headers.sum::<usize>();
        let mut buffer = Vec::with_capacity(total);
        for part in [key, value] {
            buffer.extend_from_slice(part.unwrap_or_default());
        }
        for (name, value) in headers {
            for length in [Length::of(Some(name.as_bytes())), Length::of(value)] {
                buffer.extend_from_slice(&length.0.to_ne_bytes());
            }
            buffer.extend_from_slice(name.as_bytes());
            buffer.extend_from_slice(value.unwrap_or_default());
        }
        let (key, value) = (Length::of(key), Length::of(value));
        Self { buffer: Buffer::new(buffer.into_boxed_slice()), key, value }
    }

    /// A record with this key and value and without headers.
    pub fn pair(key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        Self::new(key, value, [])
    }

    /// The key; `None` is null.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.split(&self.buffer)?.0
    }

    /// The value; `None` is null, a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        let (_, rest) = self.key.split(&self.buffer)?;
        self.value.split(rest)?.0
    }

    /// The headers in their order.
    pub fn headers(&self) -> Headers<'_> {
        let after = |bytes, length: Length| length.split(bytes).map(|(_, rest)| rest);
        let rest = after(&**self.buffer, self.key).and_then(|rest| after(rest, self.value));
        Headers { rest: rest.unwrap_or_default() }
    }

    /// The text as an event keeps it: a slice where it is a part of the record.
    pub fn text(&self, text: Cow<'_, str>) -> Text {
        match text {
            Cow::Borrowed(text) => Text::of(&self.buffer, text).unwrap_or_else(|| text.into()),
            Cow::Owned(text) => text.into(),
        }
    }

    /// The bytes as an event keeps them: a slice where they are a part of the record.
    pub fn slice(&self, bytes: &[u8]) -> Slice {
        Slice::of(&self.buffer, bytes).unwrap_or_else(|| bytes.into())
    }

    /// What slices of the record share.
    pub(crate) fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// What it holds in memory beside itself.
    pub(crate) fn weight(&self) -> usize {
        BUFFER_BYTES + self.buffer.len()
    }
}

impl Default for Raw {
    /// A record of nothing but nulls.
    fn default() -> Self {
        Self::pair(None, None)
    }
}

/// The headers of a record.
#[derive(Clone)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = HeaderRef<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = self.rest.split_first_chunk()?;
        let (value, rest) = rest.split_first_chunk()?;
        let [name, value] = [name, value].map(|length| Length(u32::from_ne_bytes(*length)));
        let (name, rest) = name.split(rest)?;
        let (value, rest) = value.split(rest)?;
        self.rest = rest;
        Some((std::str::from_utf8(name?).ok()?, value))
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Headers").finish_non_exhaustive()
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Raw({} bytes)", self.buffer.len())
    }
}

/// A record as it was read, byte for byte.
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
    /// Key, value and headers.
    pub raw: Raw,
}

impl Record {
    /// The key; `None` is null.
    pub fn key(&self) -> Option<&[u8]> {
        self.raw.key()
    }

    /// The value; `None` is null, a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        self.raw.value()
    }

    /// The value of the last header of that name, which is the one readers take: `None` without such
    /// a header, `Some(None)` where its value is null.
    pub fn header(&self, name: &str) -> Option<Option<&[u8]>> {
        self.raw.headers().filter(|(of, _)| *of == name).last().map(|(_, value)| value)
    }

    /// The record's position in words, `topic/partition/offset`.
    pub fn position(&self) -> String {
        format!("{}/{}", self.partition, self.offset.0)
    }

    /// [`crc`] of the record.
    pub fn crc(&self) -> u32 {
        crc(self.key(), self.value())
    }
}

/// CRC-32 of a key and a value, kept in the anchor that proves a log is still the same log.
pub fn crc(key: Option<&[u8]>, value: Option<&[u8]>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in [key, value] {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Parts = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

    fn parts() -> impl Strategy<Value = Parts> {
        let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20));
        (bytes(), bytes(), proptest::collection::vec(("[a-c]{0,2}", bytes()), 0..5))
    }

    proptest! {
        #[test]
        fn a_record_is_kept_byte_for_byte(parts in parts()) {
            let (key, value, headers) = parts;
            let of = |(name, value): &(String, Option<Vec<u8>>)| (name.clone(), value.clone());
            let refs = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
            let raw = Raw::new(key.as_deref(), value.as_deref(), refs);
            prop_assert_eq!(raw.key(), key.as_deref());
            prop_assert_eq!(raw.value(), value.as_deref());
            let read: Vec<_> = raw
                .headers()
                .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
                .collect();
            prop_assert_eq!(read, headers.iter().map(of).collect::<Vec<_>>());
        }
    }

    fn record(headers: &[HeaderRef<'_>]) -> Record {
        Record {
            partition: TopicPartition { topic: "t".into(), partition: 1 },
            offset: Offset(2),
            generation: Generation(1),
            timestamp: None,
            timestamp_type: TimestampType::NotAvailable,
            raw: Raw::new(Some(b"k"), Some(b"v"), headers.iter().copied()),
        }
    }

    #[test]
    fn the_last_header_of_a_name_counts_and_null_is_not_empty() {
        let record = record(&[("a", Some(b"1")), ("b", Some(b"")), ("a", None)]);
        assert_eq!(record.header("a"), Some(None));
        assert_eq!(record.header("b"), Some(Some(&b""[..])));
        assert_eq!(record.header("c"), None);
        assert_eq!(record.position(), "t/1/2");
    }

    #[test]
    fn what_is_a_part_of_the_record_is_kept_as_a_slice() {
        let raw = Raw::new(Some(b"key"), Some(b"value"), [("h", Some(&b"header"[..]))]);
        let value = std::str::from_utf8(raw.value().unwrap()).unwrap();
        let slice = raw.text(Cow::Borrowed(&value[1..3]));
        assert_eq!((slice.as_str(), slice.weight_beside(raw.buffer())), ("al", 0));
        let (_, header) = raw.headers().next().unwrap();
        assert_eq!(raw.slice(header.unwrap()).weight_beside(raw.buffer()), 0);
        for text in [Cow::Borrowed("al"), Cow::Owned("al".to_owned())] {
            let own = raw.text(text);
            assert_eq!((own.as_str(), own.weight_beside(raw.buffer())), ("al", BUFFER_BYTES + 2));
        }
    }
}
