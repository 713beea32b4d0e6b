//! A polled message as a [`Record`], byte for byte.

use rdkafka::message::{BorrowedMessage, Headers, Message, Timestamp};

use crate::telemetry::caught;
use pgsluice_core::decode::{Decode, Decoded};
use pgsluice_core::event::{Content, Event, Poison};
use pgsluice_core::record::{
    Generation, HeaderRef, Offset, Raw, Record, TimestampType, TopicPartition,
};
use pgsluice_core::verdict::Reason;

/// Stands in for a header whose name is not UTF-8.
///
/// rdkafka's safe accessor unwraps the name's conversion, so such a header can neither be read
/// nor copied; the record is poison (`header_encoding`), and its other headers are kept.
const UNREADABLE_HEADER: &str = "pgsluice.unreadable";

/// A copied message.
#[derive(Debug)]
pub(crate) struct Copied {
    /// The record.
    pub(crate) record: Record,
    /// All header names are UTF-8.
    headers_readable: bool,
}

impl Copied {
    /// Copies a message out of librdkafka's buffer.
    pub(crate) fn of(
        message: &BorrowedMessage<'_>,
        partition: TopicPartition,
        generation: Generation,
    ) -> Self {
        let (headers, headers_readable) = headers(message);
        let raw = Raw::new(message.key(), message.payload(), headers.iter().copied());
        let (timestamp, timestamp_type) = timestamp(message.timestamp());
        let record = Record {
            partition,
            offset: Offset(message.offset()),
            generation,
            timestamp,
            timestamp_type,
            raw,
        };
        Self { record, headers_readable }
    }

    /// Finds out what the record means.
    pub(crate) fn decode(self, decoder: &dyn Decode) -> Decoded {
        let mut decoded = decoder.decode(self.record);
        if let Decoded::Ready(event) = &mut decoded
            && !self.headers_readable
        {
            refuse_headers(event);
        }
        decoded
    }
}

/// Makes an event poison because a header could not be read, unless it is poison already or
/// stops the partition.
fn refuse_headers(event: &mut Event) {
    if matches!(event.content, Content::Write(_) | Content::Skip(_)) {
        event.content = Content::Poison(Poison::new(Reason::HeaderEncoding, None));
    }
}

/// Milliseconds and who set them; librdkafka's -1 is "none".
pub(super) fn timestamp(timestamp: Timestamp) -> (Option<i64>, TimestampType) {
    let kind = match timestamp {
        Timestamp::NotAvailable => TimestampType::NotAvailable,
        Timestamp::CreateTime(_) => TimestampType::CreateTime,
        Timestamp::LogAppendTime(_) => TimestampType::LogAppendTime,
    };
    (timestamp.to_millis(), kind)
}

/// All headers in order, and whether all could be read.
fn headers<'m>(message: &'m BorrowedMessage<'_>) -> (Vec<HeaderRef<'m>>, bool) {
    let Some(headers) = message.headers() else { return (Vec::new(), true) };
    let read = |index| {
        let header = headers.try_get(index)?;
        Some((header.key, header.value))
    };
    // One guard for all headers in the ordinary case; one a header once a name is bad. Nothing
    // is left half done by the panic: it comes before the closure has built anything.
    let all = || (0..headers.count()).filter_map(read).collect();
    if let Some(all) = caught(all) {
        return (all, true);
    }
    let each = (0..headers.count())
        .filter_map(|index| caught(|| read(index)).unwrap_or(Some((UNREADABLE_HEADER, None))));
    (each.collect(), false)
}
