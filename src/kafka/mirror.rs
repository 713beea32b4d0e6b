//! Lets Kafka's committed offsets follow the database, for lag tools and adoption.
//!
//! Correctness never depends on it. One commit is in flight at a time, because an earlier commit
//! that is retried inside librdkafka would land after a later one; while it is, newer positions
//! replace older ones.

use std::collections::HashMap;
use std::sync::Weak;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::kafka::consumer::{Member, release};
use crate::kafka::faults::{CommitFault, describe, on_commit};
use crate::telemetry::Telemetry;
use pgsluice_core::input::MirrorPosition;
use pgsluice_core::position::mirror_tag;
use pgsluice_core::record::TopicPartition;

/// How long a commit that failed waits for newer positions before it is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Commits that fail for less than this are routine: a rebalance, a new coordinator.
const ROUTINE: Duration = Duration::from_secs(10);

/// What the mirror thread is told.
enum Order {
    /// Positions became durable.
    Commit(Vec<MirrorPosition>),
    /// Partitions were given up: what is not committed yet must not be.
    Forget(Vec<TopicPartition>),
    /// Answer once everything told before is committed.
    Flush(Sender<()>),
}

/// The mirror thread. Dropping this ends it, after the commit that is under way.
#[derive(Debug)]
pub struct Mirror {
    orders: Sender<Order>,
}

impl Mirror {
    /// Starts the thread on the member's own connection.
    ///
    /// # Errors
    /// When the operating system refuses the thread.
    pub fn start(
        consumer: &crate::kafka::consumer::Consumer,
        telemetry: Telemetry,
    ) -> std::io::Result<Self> {
        let (orders, inbox) = unbounded();
        let member = consumer.member();
        std::thread::Builder::new()
            .name("mirror".to_owned())
            .spawn(move || follow(&member, &inbox, &telemetry))?;
        Ok(Self { orders })
    }

    /// Commits durable positions soon; positions of the same partition told later replace these.
    pub fn commit(&self, positions: Vec<MirrorPosition>) {
        self.orders.send(Order::Commit(positions)).ok();
    }

    /// Drops positions of partitions that were given up.
    pub fn forget(&self, partitions: Vec<TopicPartition>) {
        self.orders.send(Order::Forget(partitions)).ok();
    }

    /// Waits until everything told so far is committed, or failed, at most `timeout`. Blocks; a
    /// synchronous commit cannot be cancelled, so after the deadline its outcome is unknown,
    /// which costs nothing but lag.
    pub fn flush(&self, timeout: Duration) -> bool {
        let (done, answer) = bounded(1);
        self.orders.send(Order::Flush(done)).is_ok() && answer.recv_timeout(timeout).is_ok()
    }
}

/// The thread: gathers what there is, commits it, and so on until the other end is gone.
fn follow(member: &Weak<Member>, inbox: &Receiver<Order>, telemetry: &Telemetry) {
    let mut wanted = Wanted::default();
    let mut trouble = None::<Trouble>;
    loop {
        let order = if wanted.0.is_empty() {
            inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            inbox.recv_timeout(AGAIN)
        };
        let mut flushes = Vec::new();
        match order {
            Ok(order) => wanted.take(order, &mut flushes),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Ok(order) = inbox.try_recv() {
            wanted.take(order, &mut flushes);
        }
        let positions = wanted.drain();
        if !positions.is_empty() {
            let Some(member) = member.upgrade() else { return };
            let start = Instant::now();
            let done =
                commit_list(&positions).and_then(|list| member.commit(&list, CommitMode::Sync));
            let time = start.elapsed();
            release(member);
            let done = outcome(done);
            telemetry.metrics().work.mirrored(time, done.is_ok());
            match done {
                Ok(()) => resumed(&mut trouble),
                Err(error) => {
                    failed(&error, &mut trouble);
                    wanted.put_back(positions);
                }
            }
        }
        for flush in flushes {
            flush.send(()).ok();
        }
    }
}

/// Positions not committed yet, the newest of each partition.
#[derive(Debug, Default)]
struct Wanted(HashMap<TopicPartition, MirrorPosition>);

impl Wanted {
    fn take(&mut self, order: Order, flushes: &mut Vec<Sender<()>>) {
        match order {
            Order::Commit(positions) => {
                for position in positions {
                    self.0.insert(position.partition.clone(), position);
                }
            }
            Order::Forget(partitions) => {
                for partition in partitions {
                    self.0.remove(&partition);
                }
            }
            Order::Flush(done) => flushes.push(done),
        }
    }

    /// Positions that could not be committed; newer ones stay.
    fn put_back(&mut self, positions: Vec<MirrorPosition>) {
        for position in positions {
            self.0.entry(position.partition.clone()).or_insert(position);
        }
    }

    fn drain(&mut self) -> Vec<MirrorPosition> {
        self.0.drain().map(|(_, position)| position).collect()
    }
}

/// Since when commits fail.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    since: Instant,
    /// Whether a line has told of it.
    told: bool,
}

/// An error is one that the same positions should be committed after once more. That goes for a
/// commit of an older generation, too: partitions that are gone are forgotten, and of those that
/// stayed nobody else tells Kafka.
fn outcome(done: KafkaResult<()>) -> KafkaResult<()> {
    let Err(error) = done else { return Ok(()) };
    match error.rdkafka_error_code().map(on_commit) {
        Some(CommitFault::Notice) => Ok(()),
        Some(CommitFault::LostOwnership | CommitFault::Retry) | None => Err(error),
    }
}

/// One line a state change.
fn failed(error: &KafkaError, trouble: &mut Option<Trouble>) {
    let trouble = trouble.get_or_insert(Trouble { since: Instant::now(), told: false });
    let error = describe(error);
    if trouble.told || trouble.since.elapsed() < ROUTINE {
        tracing::debug!(event = "mirror_failing", error, "cannot commit offsets to Kafka yet");
    } else {
        trouble.told = true;
        tracing::warn!(event = "mirror_failing", error, "cannot commit offsets to Kafka");
    }
}

fn resumed(trouble: &mut Option<Trouble>) {
    if let Some(Trouble { since, told: true }) = trouble.take() {
        let seconds = since.elapsed().as_secs();
        tracing::info!(event = "mirror_resumed", seconds, "committing offsets to Kafka again");
    }
}

/// Positions as librdkafka takes them, each with our tag as its metadata: a committed offset
/// without the tag was moved by somebody else.
pub(super) fn commit_list(positions: &[MirrorPosition]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for position in positions {
        let topic = &position.partition.topic;
        let mut entry = list.add_partition(topic, position.partition.partition);
        entry.set_offset(Offset::Offset(position.next.0))?;
        entry.set_metadata(mirror_tag(position.stream, position.epoch));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgsluice_core::record::{NextOffset, OwnerEpoch, StreamId};

    fn position(partition: i32, next: i64) -> MirrorPosition {
        MirrorPosition {
            partition: TopicPartition { topic: "t".into(), partition },
            stream: StreamId(3),
            epoch: OwnerEpoch(4),
            next: NextOffset(next),
        }
    }

    #[test]
    fn the_newest_position_of_a_partition_wins() {
        let mut wanted = Wanted::default();
        wanted.take(Order::Commit(vec![position(0, 5), position(1, 9)]), &mut Vec::new());
        wanted.take(Order::Commit(vec![position(0, 8)]), &mut Vec::new());
        let mut next: Vec<_> = wanted.drain().iter().map(|p| p.next.0).collect();
        next.sort_unstable();
        assert_eq!(next, [8, 9]);
    }

    #[test]
    fn a_position_of_a_partition_that_was_given_up_is_not_committed() {
        let mut wanted = Wanted::default();
        wanted.take(Order::Commit(vec![position(0, 5), position(1, 9)]), &mut Vec::new());
        wanted.take(Order::Forget(vec![position(0, 0).partition]), &mut Vec::new());
        assert_eq!(wanted.drain(), vec![position(1, 9)]);
    }

    #[test]
    fn positions_that_were_not_committed_come_again_unless_newer_ones_are_there() {
        let mut wanted = Wanted::default();
        wanted.take(Order::Commit(vec![position(0, 8)]), &mut Vec::new());
        wanted.put_back(vec![position(0, 5), position(1, 9)]);
        let mut next: Vec<_> = wanted.drain().iter().map(|p| p.next.0).collect();
        next.sort_unstable();
        assert_eq!(next, [8, 9]);
    }

    #[test]
    fn every_committed_offset_carries_the_tag() {
        let list = commit_list(&[position(2, 8)]).unwrap();
        let entry = list.find_partition("t", 2).unwrap();
        assert_eq!(entry.offset(), Offset::Offset(8));
        assert_eq!(entry.metadata(), mirror_tag(StreamId(3), OwnerEpoch(4)));
    }
}
