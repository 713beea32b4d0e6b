//! The port to where records come from: what the run loop tells a source, what it hears from it,
//! and what it asks of it. Kafka is one; tests have another, and a replay from a table would be a
//! third. Nouns only: no decision is made here.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::decode::{Decode, Missing};
use crate::event::Event;
use crate::fault::PollFault;
use crate::input::{MirrorPosition, RevokeTicket};
use crate::position::{KafkaPosition, LogEnd};
use crate::record::{Anchor, Generation, NextOffset, TopicPartition};

/// A source of records, driven by one run loop. What happens in it comes back as [`PollEvent`]s,
/// through a channel that whoever starts the source gets.
pub trait Source: fmt::Debug + Send + Sync {
    /// Tells the source something; never waits. Once the source has ended this does nothing.
    fn send(&self, command: Command);

    /// Gives back the weight of records that left memory, so that others may be read.
    fn free(&self, weight: usize);

    /// The weight of records in memory, in bytes.
    fn in_flight(&self) -> usize;

    /// Lets the position that the source keeps for others follow durable progress, soon and as far
    /// as possible; never waits. A later position of a partition replaces an earlier one.
    fn mirror(&self, positions: Vec<MirrorPosition>);

    /// A partition is not ours any more: a position of it that is still to be mirrored must not be.
    fn forget(&self, partition: TopicPartition);

    /// Waits until everything that was to be mirrored is, or has failed, at most for `timeout`.
    /// Blocks. `false` when that is not known by then.
    fn flush(&self, timeout: Duration) -> bool;

    /// Where partitions stand in the source. Blocks, at most for `timeout`. One that is missing in
    /// the answer could not be told.
    fn positions(
        &self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> HashMap<TopicPartition, KafkaPosition>;

    /// Which cluster this is; `None` when nobody says so in time. Blocks, at most for `timeout`.
    fn cluster_id(&self, timeout: Duration) -> Option<String>;

    /// Where the logs of partitions end. Blocks, for seconds where brokers are silent. One that is
    /// missing in the answer could not be told.
    fn ends(&self, partitions: &[TopicPartition]) -> HashMap<TopicPartition, LogEnd>;
}

/// What the run loop tells a source.
pub enum Command {
    /// Decode with this from now on. Nothing is read before the first one.
    Decode(Arc<dyn Decode>),
    /// Read a partition from `next` on; ignored when it is not assigned any more.
    Seek {
        /// The partition.
        partition: TopicPartition,
        /// Stamped on every record from now on.
        generation: Generation,
        /// The first record wanted.
        next: NextOffset,
        /// What must read back unchanged before it.
        anchor: Option<Anchor>,
    },
    /// Deliver nothing more of the partition until `Resume` or `Seek`.
    Pause(TopicPartition),
    /// Deliver again.
    Resume(TopicPartition),
    /// Decoding knows this now: partitions that wait for it are read on, from the record that waited.
    Learned(Missing),
    /// A revocation may go on; the positions are committed first.
    Released {
        /// The revocation.
        ticket: RevokeTicket,
        /// Durable positions of its partitions.
        commits: Vec<MirrorPosition>,
    },
    /// Read nothing more, but stay in the group.
    StopPolling,
    /// Leave the group and end; the answer is [`PollEvent::Closed`].
    Close,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Decode(_) => "Decode",
            Self::Seek { .. } => "Seek",
            Self::Pause(_) => "Pause",
            Self::Resume(_) => "Resume",
            Self::Learned(_) => "Learned",
            Self::Released { .. } => "Released",
            Self::StopPolling => "StopPolling",
            Self::Close => "Close",
        })
    }
}

/// What the run loop hears from a source.
#[derive(Debug)]
pub enum PollEvent {
    /// Partitions were assigned; they are paused until [`Command::Seek`].
    Assigned(Vec<TopicPartition>),
    /// Partitions are going; the source waits for [`Command::Released`] unless `lost`.
    Revoked {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// What to answer.
        ticket: RevokeTicket,
        /// Ownership is gone already; nothing waits.
        lost: bool,
    },
    /// Records, in the order of each partition, and when the first of them was read. Their weight
    /// counts as in flight until it is given back.
    Polled(Vec<Event>, Instant),
    /// Everything before `next` was handed on; transaction markers take offsets.
    Positioned {
        /// The partition.
        partition: TopicPartition,
        /// The reading.
        generation: Generation,
        /// The source's position.
        next: NextOffset,
    },
    /// A record cannot be decoded before this is known. The partition delivers nothing more until
    /// [`Command::Learned`] or [`Command::Seek`]; the record has not been handed on.
    Missing {
        /// The partition.
        partition: TopicPartition,
        /// The reading.
        generation: Generation,
        /// What has to be known.
        missing: Missing,
    },
    /// The log is another one, or does not hold the wanted position. The reading has ended.
    LogChanged {
        /// The partition.
        partition: TopicPartition,
        /// The reading.
        generation: Generation,
    },
    /// No broker can be reached. Sent once, until [`PollEvent::Reachable`].
    Unreachable,
    /// A broker answers again.
    Reachable,
    /// The topics that cannot be read, each with the name of the brokers' code: all of them each
    /// time one is added or taken away.
    Refused(Vec<(Arc<str>, Box<str>)>),
    /// An error from which the client does not recover silently, once a minute per code. `Exit`
    /// and `Operator` mean that somebody else has to fix the cause, `Corrupt` that
    /// a batch cannot be read and is fetched again and again instead of being skipped.
    Trouble {
        /// The name of the client's code, one of a closed list.
        code: Box<str>,
        /// Its class.
        fault: PollFault,
        /// A process that was never a member ends with it: the group or the brokers refuse what is
        /// configured.
        ends_a_start: bool,
    },
    /// Another process took our static member id, or the client is otherwise spent; the code's name
    /// says which. The source has ended; the process must, too.
    Fenced(Box<str>),
    /// The source is alive; about once a second.
    Heartbeat,
    /// The source has ended: after [`Command::Close`], or because nobody commands it any more.
    Closed,
}
