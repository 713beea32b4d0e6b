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

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, unbounded};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use tokio::sync::mpsc::UnboundedSender;

pub use self::budget::Budget;
use self::member::{Callbacks, Release};
pub(crate) use self::member::{Member, release};
pub(crate) use self::record::Copied;
use crate::config::Config;
use crate::kafka::settings;
use pgsluice_core::source::{Command, PollEvent};

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
            .map_err(|_| {
                KafkaError::ClientCreation("cannot start the consumer's thread".to_owned())
            })?;
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
