//! The group member: the consumer with the callbacks that librdkafka makes while it is polled.
//!
//! Callbacks run on the consumer thread, inside a poll. They only send and wait: what happened to
//! the run loop and to the consumer thread's own book-keeping, and one bounded wait for the
//! answer to a revocation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::mpsc::UnboundedSender;

use crate::kafka::faults::describe;
use crate::kafka::mirror::commit_list;
use pgsluice_core::input::{MirrorPosition, RevokeTicket};
use pgsluice_core::record::TopicPartition;
use pgsluice_core::source::PollEvent;
use rdkafka::consumer::CommitMode;

/// Where a partition stands until its position is set. If it were read from there after all, then
/// everything below the wanted position would be dropped and nothing skipped.
const UNREAD: Offset = Offset::Offset(0);

/// The consumer as the poll and mirror threads share it.
pub(crate) type Member = BaseConsumer<Callbacks>;

/// A change of the assignment, for the consumer thread's book-keeping.
#[derive(Debug)]
pub(super) enum AssignmentChange {
    /// Partitions were added, paused.
    Added(Vec<TopicPartition>),
    /// Partitions were taken away.
    Removed(Vec<TopicPartition>),
}

/// The answer to a revocation.
#[derive(Debug)]
pub(super) struct Release {
    /// The revocation.
    pub(super) ticket: RevokeTicket,
    /// Durable positions of the partitions, committed before they go.
    pub(super) commits: Vec<MirrorPosition>,
}

/// What the callbacks need: channels, and how long a revocation may wait.
#[derive(Debug)]
pub(crate) struct Callbacks {
    pub(super) events: UnboundedSender<PollEvent>,
    pub(super) changes: Sender<AssignmentChange>,
    pub(super) releases: Receiver<Release>,
    pub(super) revoke_budget: Duration,
    pub(super) tickets: AtomicU64,
    /// Set before the consumer is closed: nobody answers revocations any more.
    pub(super) closing: AtomicBool,
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        crate::kafka::log::line(level, facility, message);
    }

    fn stats_raw(&self, _statistics: &[u8]) {}

    fn error(&self, error: KafkaError, _reason: &str) {
        // The same error comes out of the poll, where it is judged.
        tracing::debug!(event = "kafka_client", error = describe(&error), "librdkafka error");
    }
}

impl ConsumerContext for Callbacks {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assign(consumer, partitions);
        } else {
            self.revoke(consumer, partitions);
        }
    }
}

impl Callbacks {
    /// Takes partitions on without reading them: positions come from the database.
    ///
    /// They are assigned at offset 0, which is never fetched, because they are paused before. A
    /// logical offset would make librdkafka ask the broker for it, and an answer that comes after
    /// our seek makes it ask again and go there: records would be skipped (ADR 0012).
    fn assign(&self, consumer: &BaseConsumer<Self>, partitions: &mut TopicPartitionList) {
        let added = names(partitions);
        for TopicPartition { topic, partition } in &added {
            // librdkafka pauses only partitions of topics that it knows, and asking for a seek
            // makes it know one. That the seek itself is refused is expected.
            consumer.seek(topic, *partition, UNREAD, Duration::ZERO).ok();
        }
        warn_unless(consumer.pause(partitions), "cannot pause new partitions");
        let done =
            partitions.set_all_offsets(UNREAD).and_then(|()| match consumer.rebalance_protocol() {
                RebalanceProtocol::Eager => consumer.assign(partitions),
                RebalanceProtocol::Cooperative | RebalanceProtocol::None => {
                    consumer.incremental_assign(partitions)
                }
            });
        warn_unless(done, "assignment refused");
        if !added.is_empty() {
            self.changes.send(AssignmentChange::Added(added.clone())).ok();
        }
        // One that brings nothing is told, too: a member without partitions has joined.
        self.events.send(PollEvent::Assigned(added)).ok();
    }

    /// Gives partitions up: the run loop has `revoke_budget` to make their progress durable.
    fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: &mut TopicPartitionList) {
        let lost = consumer.assignment_lost();
        let removed = names(partitions);
        if !removed.is_empty() {
            let ticket = RevokeTicket(self.tickets.fetch_add(1, Ordering::Relaxed));
            let told = PollEvent::Revoked { partitions: removed.clone(), ticket, lost };
            let heard = self.events.send(told).is_ok();
            // Once lost, nothing may be advanced or committed: there is nothing to wait for.
            if heard && !lost && !self.closing.load(Ordering::Relaxed) {
                self.commit(consumer, self.await_release(ticket));
            }
            self.changes.send(AssignmentChange::Removed(removed)).ok();
        }
        let done = match consumer.rebalance_protocol() {
            RebalanceProtocol::Eager => consumer.unassign(),
            RebalanceProtocol::Cooperative | RebalanceProtocol::None => {
                consumer.incremental_unassign(partitions)
            }
        };
        warn_unless(done, "revocation refused");
    }

    /// Waits for the answer to one revocation; answers to older ones are dropped.
    fn await_release(&self, ticket: RevokeTicket) -> Vec<MirrorPosition> {
        let deadline = Instant::now() + self.revoke_budget;
        while let Ok(release) = self.releases.recv_deadline(deadline) {
            if release.ticket == ticket {
                return release.commits;
            }
        }
        tracing::warn!(
            event = "revoke_late",
            budget_ms = self.revoke_budget.as_millis(),
            "partitions were revoked before their work was finished; the next owner repeats it"
        );
        Vec::new()
    }

    /// Commits positions without waiting for the broker. librdkafka holds the revocation back
    /// until the commit was answered; a synchronous one could block this thread for seconds.
    fn commit(&self, consumer: &BaseConsumer<Self>, positions: Vec<MirrorPosition>) {
        if positions.is_empty() {
            return;
        }
        let done =
            commit_list(&positions).and_then(|list| consumer.commit(&list, CommitMode::Async));
        warn_unless(done, "commit on revocation failed");
    }
}

/// Logs a failure that the protocol recovers from.
fn warn_unless(done: KafkaResult<()>, what: &'static str) {
    if let Err(error) = done {
        tracing::warn!(event = "rebalance_trouble", error = describe(&error), "{what}");
    }
}

/// The partitions of a list.
pub(super) fn names(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let name = |topic: &str, partition| TopicPartition { topic: topic.into(), partition };
    list.elements().iter().map(|e| name(e.topic(), e.partition())).collect()
}

/// Lets go of a shared consumer. The last holder closes it, which leaves the group (about 0.1 s,
/// at most 5 s when brokers hang). After a fatal error closing never returns, so the consumer is
/// leaked instead; the process is about to end.
pub(crate) fn release(consumer: Arc<Member>) {
    if let Some(consumer) = Arc::into_inner(consumer)
        && consumer.client().fatal_error().is_some()
    {
        std::mem::forget(consumer);
    }
}
