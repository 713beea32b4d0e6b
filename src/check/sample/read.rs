//! The records of a sample: a share of each partition, merged by their timestamps.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::config::Config;
use crate::kafka::consumer::Copied;
use crate::kafka::faults::on_poll;
use crate::kafka::log::LogOnly;
use crate::kafka::settings;
use crate::route::decoder::Decoder;
use pgsluice_core::decode::Decoded;
use pgsluice_core::event::{Event, RouteId};
use pgsluice_core::fault::PollFault;
use pgsluice_core::record::{Generation, StreamId};

use super::{From, Stretch, Wanted};

/// The brokers were slow.
const LATE: (&str, &str) =
    ("the brokers did not deliver all records in time", "try again, or use a smaller sample");
/// The records are large.
const FULL: (&str, &str) = (
    "not all requested records fit into limits.in_flight_bytes",
    "raise it for the sample, or make do with these",
);

/// How long reading may take. Brokers that hang must not hang the check.
const LIMIT: Duration = Duration::from_secs(15);

/// A record with the route it takes.
pub(super) struct Taken {
    pub(super) event: Event,
    pub(super) route: Option<RouteId>,
    pub(super) stream: StreamId,
}

/// What was read.
pub(super) struct Found {
    /// The records in the order in which they are to be tried.
    pub(super) records: Vec<Taken>,
    /// Why they are fewer than there are, where they are, and what to do.
    pub(super) cut: Option<(&'static str, &'static str)>,
}

/// Reads up to so many records, about as many of each partition. Those with few records come
/// first, so that what they do not have falls to the others.
///
/// # Errors
/// What Kafka said when it gave none.
pub(super) fn read(
    config: &Config,
    decoder: &Decoder,
    wanted: Wanted,
    stretches: &[Stretch],
) -> Result<Found, KafkaError> {
    let client: BaseConsumer<LogOnly> =
        settings::sample(&config.kafka).create_with_context(LogOnly)?;
    let mut reader = Reader {
        client,
        decoder,
        deadline: Instant::now() + LIMIT,
        weight: usize::try_from(config.limits.in_flight_bytes.0).unwrap_or(usize::MAX),
        records: Vec::new(),
    };
    let mut stretches: Vec<&Stretch> =
        stretches.iter().filter(|stretch| stretch.start < stretch.high).collect();
    stretches.sort_by_key(|stretch| stretch.high - stretch.start);
    let mut trouble = None;
    for (done, stretch) in stretches.iter().enumerate() {
        let left = wanted.records - reader.records.len();
        let share = left.div_ceil(stretches.len() - done);
        if share == 0 {
            break;
        }
        if let Err(error) = reader.stretch(stretch, share, wanted.from) {
            trouble = Some(error);
        }
    }
    match trouble {
        Some(error) if reader.records.is_empty() => Err(error),
        _ => {
            let cut = reader.cut(wanted.records);
            Ok(Found { records: merged(reader.records), cut })
        }
    }
}

struct Reader<'a> {
    client: BaseConsumer<LogOnly>,
    decoder: &'a Decoder,
    deadline: Instant,
    /// What may still be held in memory (INV-11).
    weight: usize,
    records: Vec<Taken>,
}

impl Reader<'_> {
    /// Why there may be more records than were read.
    fn cut(&self, wanted: usize) -> Option<(&'static str, &'static str)> {
        if self.weight == 0 && self.records.len() < wanted {
            Some(FULL)
        } else {
            (Instant::now() >= self.deadline).then_some(LATE)
        }
    }

    fn stretch(&mut self, stretch: &Stretch, share: usize, from: From) -> Result<(), KafkaError> {
        let Stretch { partition, stream, low, start, high } = stretch;
        let start = match from {
            From::Latest => (*high - i64::try_from(share).unwrap_or(i64::MAX)).max(*low),
            From::Next | From::Earliest => *start,
        };
        let mut list = TopicPartitionList::new();
        let begin = Offset::Offset(start);
        list.add_partition_offset(&partition.topic, partition.partition, begin)?;
        self.client.assign(&list)?;
        let enough = self.records.len() + share;
        while self.records.len() < enough && self.weight > 0 {
            let left = self.deadline.saturating_duration_since(Instant::now());
            match self.client.poll(left) {
                None if Instant::now() < self.deadline => {}
                None | Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(error)) => match error.rdkafka_error_code().map(on_poll) {
                    // librdkafka recovers, within our own limit.
                    Some(PollFault::Notice | PollFault::Transient) => {}
                    _ => return Err(error),
                },
                Some(Ok(message)) => {
                    if message.topic() != &*partition.topic
                        || message.partition() != partition.partition
                        || message.offset() >= *high
                    {
                        continue;
                    }
                    let copied = Copied::of(&message, partition.clone(), Generation(0));
                    let route = self.decoder.route_of(&copied.record);
                    // What would have to be fetched first is not part of a sample.
                    if let Decoded::Ready(event) = copied.decode(self.decoder) {
                        self.weight = self.weight.saturating_sub(event.weight());
                        self.records.push(Taken { event, route, stream: *stream });
                    }
                }
            }
        }
        Ok(())
    }
}

/// All records by time, without leaving any partition's own order: a record counts as not older
/// than those before it in its partition. So an order stands behind the customer it refers to
/// where their producers' clocks say so, as it mostly would in the daemon.
fn merged(records: Vec<Taken>) -> Vec<Taken> {
    let mut newest: Option<(StreamId, i64)> = None;
    let mut keyed: Vec<(i64, Taken)> = Vec::with_capacity(records.len());
    // They come partition after partition.
    for taken in records {
        let before = newest.filter(|(stream, _)| *stream == taken.stream).map(|(_, time)| time);
        let time = taken.event.record.timestamp.unwrap_or(0).max(before.unwrap_or(i64::MIN));
        newest = Some((taken.stream, time));
        keyed.push((time, taken));
    }
    keyed.sort_by_key(|(time, _)| *time);
    keyed.into_iter().map(|(_, taken)| taken).collect()
}
