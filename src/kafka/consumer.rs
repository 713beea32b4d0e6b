//! The consumer thread: polls, decodes, hands on.
//!
//! It owns the consumer and nothing else blocks it (INV-12): the run loop tells it what to do
//! through [`Consumer::send`] and hears from it through [`PollEvent`]s. The one thing it waits
//! for is the answer to a revocation, at most `revoke_budget`.
//!
//! | it is told | it does |
//! | --- | --- |
//! | assigned (by Kafka) | assigns them paused, and says so |
//! | [`Command::Seek`] | reads on from there, stamping the generation on every record |
//! | revoked (by Kafka) | says so, waits for [`Command::Released`], commits, gives up |
//! | a record that cannot be decoded yet | says so, and holds its partition until [`Command::Learned`] |
//! | budget full | stops draining; after a second pauses, until half of it is free |
//! | an error | judges it by [`crate::kafka::faults`]; an error is never the end of the stream |

mod budget;
mod flow;
mod gate;
mod member;
mod position;
mod reading;
mod record;
mod refused;
mod thread;
mod trouble;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Sender, unbounded};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::mpsc::UnboundedSender;

pub use self::budget::Budget;
use self::member::{Callbacks, Release};
pub(crate) use self::member::{Member, release};
pub(crate) use self::record::Copied;
use crate::config::Config;
use crate::kafka::settings;
use pgsluice_core::decode::{Decode, Missing};
use pgsluice_core::event::Event;
use pgsluice_core::fault::PollFault;
use pgsluice_core::input::{MirrorPosition, RevokeTicket};
use pgsluice_core::record::{Anchor, Generation, NextOffset, TopicPartition};

/// What the run loop tells the consumer thread.
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
    /// Leave the group and end the thread.
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

/// What the run loop hears from the consumer thread.
#[derive(Debug)]
pub enum PollEvent {
    /// Partitions were assigned; they are paused until [`Command::Seek`].
    Assigned(Vec<TopicPartition>),
    /// Partitions are going; the thread waits for [`Command::Released`] unless `lost`.
    Revoked {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// What to answer.
        ticket: RevokeTicket,
        /// Ownership is gone already; nothing waits.
        lost: bool,
    },
    /// Records, in the order of each partition, and when the first of them was read. Their weight
    /// was taken from the budget.
    Polled(Vec<Event>, Instant),
    /// Everything before `next` was handed on; transaction markers take offsets.
    Positioned {
        /// The partition.
        partition: TopicPartition,
        /// The reading.
        generation: Generation,
        /// The consumer's position.
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
    /// The topics that cannot be read, each with the brokers' code: all of them each time one is
    /// added or taken away. `UnknownTopic` and the like mean that somebody else has to mend it.
    Refused(Vec<(Arc<str>, RDKafkaErrorCode)>),
    /// An error that librdkafka does not mend unseen, once a minute for each code. `Exit` and
    /// `Operator` mean that somebody else has to mend it, `Corrupt` that
    /// a batch cannot be read and is fetched again and again instead of being skipped.
    Trouble {
        /// librdkafka's code.
        code: RDKafkaErrorCode,
        /// Its class.
        fault: PollFault,
    },
    /// Another process took our static member id, or the client is otherwise spent. The thread
    /// has ended; the process must, too.
    Fenced(RDKafkaErrorCode),
    /// The loop turns; about once a second.
    Heartbeat,
    /// The thread has ended: after [`Command::Close`], or because nobody commands it any more.
    Closed,
}

/// The consumer thread.
#[derive(Debug)]
pub struct Consumer {
    commands: Sender<Command>,
    releases: Sender<Release>,
    member: Weak<Member>,
    thread: JoinHandle<()>,
}

impl Consumer {
    /// Joins the group and starts the thread.
    ///
    /// # Errors
    /// When librdkafka refuses a setting or a topic name, or the operating system the thread.
    /// Unreachable brokers are no error here: they are reported as [`PollEvent::Unreachable`].
    pub fn start(
        config: &Config,
        events: UnboundedSender<PollEvent>,
        budget: Arc<Budget>,
    ) -> Result<Self, KafkaError> {
        let (commands, inbox) = unbounded();
        let (releases, answers) = unbounded();
        let (changes, changed) = unbounded();
        let callbacks = Callbacks {
            events: events.clone(),
            changes,
            releases: answers,
            revoke_budget: config.kafka.revoke_budget,
            tickets: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        };
        let member: Member =
            settings::consumer(&config.kafka, config.dead_letter.topic_pattern().as_deref())
                .create_with_context(callbacks)?;
        let topics: Vec<&str> = config.kafka.topics.iter().map(String::as_str).collect();
        member.subscribe(&topics)?;
        let member = Arc::new(member);
        let shared = Arc::downgrade(&member);
        let poller = thread::Poller::new(member, inbox, changed, events, budget, config);
        let thread = std::thread::Builder::new()
            .name("consumer".to_owned())
            .spawn(move || poller.run())
            .map_err(|_| KafkaError::ClientCreation("no thread for the consumer".to_owned()))?;
        Ok(Self { commands, releases, member: shared, thread })
    }

    /// Tells the thread something. Once the thread has ended this does nothing.
    pub fn send(&self, command: Command) {
        if let Command::Released { ticket, commits } = command {
            // The thread is inside a callback then and reads no commands.
            self.releases.send(Release { ticket, commits }).ok();
        } else {
            self.commands.send(command).ok();
        }
    }

    /// Waits for the thread's end; [`Command::Close`] brings it about. `false` when it panicked.
    pub fn join(self) -> bool {
        let Self { commands, thread, .. } = self;
        drop(commands);
        thread.join().is_ok()
    }

    /// The client, for commits on its connection; gone once the thread has closed it.
    pub(crate) fn member(&self) -> Weak<Member> {
        Weak::clone(&self.member)
    }
}

#[cfg(test)]
mod tests;
