//! The snapshot behind `/status` and `/ready`: codes, names and numbers, never a value.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use pgsluice_core::fault::Fault;
use pgsluice_core::input::Claim;
use pgsluice_core::position::LogEnd;
use pgsluice_core::record::{NextOffset, TopicPartition};
use pgsluice_core::verdict::{Reason, Verdict};

/// Dead letters that wait for this long need somebody's attention; a broker's restart does not.
const LETTERS_STUCK_LONG: Duration = Duration::from_secs(5 * 60);

/// The loss of a session that lasted for this long is news, whatever became of those before it.
const SETTLED: Duration = Duration::from_secs(60);

/// How the sink is doing.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Version of the program.
    pub version: &'static str,
    /// The sink's name, its consumer group.
    pub sink: String,
    /// When the process started.
    #[serde(serialize_with = "as_text")]
    pub started_at: Timestamp,
    /// What the process as a whole is doing.
    pub stage: Stage,
    /// This member has joined its group.
    pub joined: bool,
    /// The database session.
    pub session: SessionStatus,
    /// The brokers.
    pub kafka: KafkaStatus,
    /// Dead letters on their way to their topic.
    pub letters: LetterStatus,
    /// Partitions assigned to this member.
    #[serde(serialize_with = "as_list")]
    pub partitions: BTreeMap<TopicPartition, PartitionStatus>,
    /// Records that reached their outcome in this process, by outcome.
    pub records: BTreeMap<&'static str, u64>,
}

/// What the process as a whole is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Not yet reading.
    Starting,
    /// At work.
    Running,
    /// Finishing what is in flight, then ending.
    Draining,
}

/// The database session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SessionStatus {
    /// Whether one is open.
    pub open: bool,
    /// How many were opened by this process.
    pub opened: u64,
    /// Why the last one ended or could not be opened: codes and names only.
    pub last_error: Option<String>,
    /// When the open one was opened.
    #[serde(skip)]
    since: Option<Instant>,
    /// Whether it has made progress durable.
    #[serde(skip)]
    proved: bool,
}

/// The brokers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KafkaStatus {
    /// Whether any can be reached, as far as is known.
    pub reachable: bool,
    /// The latest error that did not mend itself unseen: the name of its code.
    pub last_error: Option<String>,
    /// Topics that cannot be read, with the name of the brokers' code.
    pub refused: BTreeMap<String, String>,
}

/// Dead letters on their way to their topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LetterStatus {
    /// How many were published by this process.
    pub published: u64,
    /// For how long, in seconds, the others could not be.
    pub stuck_seconds: Option<u64>,
    /// The topic that does not take them, and the name of the error's code.
    pub last_error: Option<String>,
}

/// One assigned partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PartitionStatus {
    /// What is happening to it.
    pub phase: PartitionPhase,
    /// Why it stands still.
    pub reason: Option<&'static str>,
    /// The fault behind it or behind the latest retry: codes and names only.
    pub last_error: Option<String>,
    /// Its stream in the database, once it was taken.
    pub stream: Option<i32>,
    /// Durable progress.
    pub next_offset: Option<i64>,
    /// How far it is behind, once the end of the log is known.
    pub lag: Option<Lag>,
    /// The end of the log.
    #[serde(skip)]
    pub(super) log: Option<LogEnd>,
    /// Records that reached their outcome since it was assigned, by outcome.
    pub records: BTreeMap<&'static str, u64>,
}

/// How far durable progress is behind, in offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Lag {
    /// To the end of the log.
    pub end: i64,
    /// To the last stable offset.
    pub stable: i64,
    /// From the last stable offset to the end of the log.
    pub unstable: i64,
}

impl PartitionStatus {
    /// Progress or the end of the log moved.
    fn measure(&mut self) -> Option<Lag> {
        let (log, next) = (self.log?, self.next_offset?);
        // Progress is often newer than the end that was told, and proves that it has moved.
        let stable = log.stable.max(next);
        let end = log.end.max(stable);
        self.lag = Some(Lag { end: end - next, stable: stable - next, unstable: end - stable });
        self.lag
    }
}

/// What is happening to a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionPhase {
    /// Assigned; its position is not known yet.
    #[default]
    Waiting,
    /// Being read.
    Reading,
    /// Stands still until an operator acts.
    Halted,
    /// The database knows a newer owner.
    Fenced,
}

/// Why `/ready` says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// The pipeline has not started.
    #[error("starting")]
    Starting,
    /// The process is about to end.
    #[error("draining")]
    Draining,
    /// The database cannot be reached.
    #[error("no database session")]
    NoSession,
    /// Kafka has not assigned anything yet.
    #[error("the consumer has not joined its group yet")]
    NotJoined,
    /// Dead letters wait for their topic for too long.
    #[error("cannot publish dead letters")]
    LettersStuck,
    /// Nothing can be read.
    #[error("no topic can be read; see /status")]
    TopicsRefused,
    /// Nothing moves.
    #[error("every assigned partition is halted; see /status")]
    AllHalted,
}

impl Status {
    pub(super) fn new(sink: &str) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            sink: sink.to_owned(),
            started_at: Timestamp::now(),
            stage: Stage::Starting,
            joined: false,
            session: SessionStatus::default(),
            kafka: KafkaStatus { reachable: true, last_error: None, refused: BTreeMap::new() },
            letters: LetterStatus::default(),
            partitions: BTreeMap::new(),
            records: BTreeMap::new(),
        }
    }

    /// Whether records are being moved. Some halted partitions do not count: they must not block
    /// the rollout of what mends them.
    ///
    /// # Errors
    /// Why not.
    pub fn readiness(&self) -> Result<(), NotReady> {
        match self.stage {
            Stage::Starting => return Err(NotReady::Starting),
            Stage::Draining => return Err(NotReady::Draining),
            Stage::Running => {}
        }
        if !self.session.open {
            return Err(NotReady::NoSession);
        }
        if !self.joined {
            return Err(NotReady::NotJoined);
        }
        let stuck = self.letters.stuck_seconds.map(Duration::from_secs);
        if stuck.is_some_and(|stuck| stuck >= LETTERS_STUCK_LONG) {
            return Err(NotReady::LettersStuck);
        }
        let refused = &self.kafka.refused;
        let mut readable = self
            .partitions
            .iter()
            .filter(|(name, _)| !refused.contains_key(&*name.topic))
            .peekable();
        if readable.peek().is_none() {
            // A spare member holds nothing, and all is well.
            return if refused.is_empty() { Ok(()) } else { Err(NotReady::TopicsRefused) };
        }
        if readable.any(|(_, partition)| partition.phase != PartitionPhase::Halted) {
            Ok(())
        } else {
            Err(NotReady::AllHalted)
        }
    }

    pub(super) fn assigned(&mut self, partitions: &[TopicPartition]) {
        self.joined = true;
        for partition in partitions {
            self.partitions.insert(partition.clone(), PartitionStatus::default());
        }
    }

    pub(super) fn publishing(
        &mut self,
        published: u64,
        stuck: Option<Duration>,
        error: Option<&str>,
    ) {
        let stuck_seconds = stuck.map(|stuck| stuck.as_secs());
        let last_error = error.map(str::to_owned);
        self.letters = LetterStatus { published, stuck_seconds, last_error };
    }

    pub(super) fn session_opened(&mut self) {
        self.session.open = true;
        self.session.opened += 1;
        self.session.since = Some(Instant::now());
    }

    /// Whether this is news: a session had worked for a while, or the last one failed otherwise.
    pub(super) fn session_lost(&mut self, fault: &Fault) -> bool {
        let error = Some(fault.to_string());
        let lasted = self.session.since.take().is_some_and(|since| since.elapsed() > SETTLED);
        let worked = std::mem::take(&mut self.session.proved) || lasted;
        let news = worked || self.session.last_error != error;
        self.session.open = false;
        self.session.last_error = error;
        news
    }

    /// Whether the partition is still held: what comes late for another one is not counted.
    pub(super) fn finished(
        &mut self,
        partition: &TopicPartition,
        verdict: Verdict,
        count: u64,
    ) -> bool {
        *self.records.entry(verdict.as_str()).or_default() += count;
        let Some(partition) = self.partitions.get_mut(partition) else { return false };
        *partition.records.entry(verdict.as_str()).or_default() += count;
        true
    }

    /// The lag, where the end of the log is known.
    pub(super) fn taken(&mut self, name: &TopicPartition, claim: &Claim) -> Option<Lag> {
        let partition = self.partitions.entry(name.clone()).or_default();
        partition.stream = Some(claim.stream.0);
        partition.next_offset = Some(claim.next.0);
        // A halt ends with a report of its own.
        if partition.phase != PartitionPhase::Halted {
            partition.phase = PartitionPhase::Reading;
        }
        partition.measure()
    }

    /// Whether this is news: it was not halted, or for something else.
    pub(super) fn halted(
        &mut self,
        name: &TopicPartition,
        reason: Reason,
        fault: Option<&Fault>,
    ) -> bool {
        let partition = self.partitions.entry(name.clone()).or_default();
        let (reason, error) = (Some(reason.as_str()), fault.map(ToString::to_string));
        let news = partition.phase != PartitionPhase::Halted
            || partition.reason != reason
            || partition.last_error != error;
        partition.phase = PartitionPhase::Halted;
        partition.reason = reason;
        partition.last_error = error;
        news
    }

    pub(super) fn halt_ended(&mut self, name: &TopicPartition) {
        if let Some(partition) = self.partitions.get_mut(name) {
            partition.phase = PartitionPhase::Reading;
            partition.reason = None;
            partition.last_error = None;
        }
    }

    pub(super) fn fenced(&mut self, name: &TopicPartition) {
        if let Some(partition) = self.partitions.get_mut(name) {
            partition.phase = PartitionPhase::Fenced;
        }
    }

    pub(super) fn retried(&mut self, name: &TopicPartition, fault: &Fault) {
        if let Some(partition) = self.partitions.get_mut(name) {
            partition.last_error = Some(fault.to_string());
        }
    }

    /// Whether the partition is still held, and its lag where that is known.
    pub(super) fn advanced(
        &mut self,
        name: &TopicPartition,
        next: NextOffset,
    ) -> Option<Option<Lag>> {
        self.session.proved = true;
        let partition = self.partitions.get_mut(name)?;
        partition.next_offset = Some(next.0);
        Some(partition.measure())
    }

    /// The end of a partition's log was told: its lag, where progress is known and the partition
    /// still held.
    pub(super) fn log_end(&mut self, name: &TopicPartition, log: LogEnd) -> Option<Lag> {
        let partition = self.partitions.get_mut(name)?;
        partition.log = Some(log);
        partition.measure()
    }
}

fn as_text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// A partition's status with its name beside it.
#[derive(Serialize)]
struct Named<'a> {
    topic: &'a str,
    partition: i32,
    #[serde(flatten)]
    status: &'a PartitionStatus,
}

fn as_list<S: Serializer>(
    partitions: &BTreeMap<TopicPartition, PartitionStatus>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(partitions.iter().map(|(name, status)| Named {
        topic: &name.topic,
        partition: name.partition,
        status,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgsluice_core::fault::FaultKind;

    fn partition(number: i32) -> TopicPartition {
        TopicPartition { topic: "orders".into(), partition: number }
    }

    fn running() -> Status {
        let mut status = Status::new("sink");
        status.stage = Stage::Running;
        status.session_opened();
        status
    }

    #[test]
    fn it_is_ready_with_a_session_and_one_partition_that_is_not_halted() {
        let mut status = running();
        assert_eq!(status.readiness(), Err(NotReady::NotJoined));
        status.assigned(&[partition(0), partition(1)]);
        status.halted(&partition(0), Reason::LogChanged, None);
        assert_eq!(status.readiness(), Ok(()));
        status.halted(&partition(1), Reason::LogChanged, None);
        assert_eq!(status.readiness(), Err(NotReady::AllHalted));
        status.halt_ended(&partition(1));
        assert_eq!(status.readiness(), Ok(()));
    }

    #[test]
    fn a_member_without_partitions_is_ready_once_it_has_joined() {
        let mut status = running();
        status.assigned(&[]);
        assert_eq!(status.readiness(), Ok(()));
    }

    #[test]
    fn it_is_not_ready_without_a_session_or_while_draining() {
        let mut status = running();
        status.assigned(&[]);
        let lost = Fault::new(FaultKind::Connection);
        assert!(status.session_lost(&lost), "an open session was lost");
        assert!(!status.session_lost(&lost), "the same failure again");
        assert!(status.session_lost(&Fault::new(FaultKind::Deadline)), "another failure");
        assert_eq!(status.readiness(), Err(NotReady::NoSession));
        status.session_opened();
        assert!(!status.session_lost(&Fault::new(FaultKind::Deadline)), "it achieved nothing");
        status.session_opened();
        let partition = TopicPartition { topic: "orders".into(), partition: 0 };
        status.advanced(&partition, NextOffset(1));
        assert!(status.session_lost(&Fault::new(FaultKind::Deadline)), "it had worked");
        status.session_opened();
        status.stage = Stage::Draining;
        assert_eq!(status.readiness(), Err(NotReady::Draining));
    }

    #[test]
    fn letters_that_are_stuck_for_long_make_it_not_ready() {
        let mut status = running();
        status.assigned(&[]);
        status.publishing(3, Some(LETTERS_STUCK_LONG / 2), Some("t: Fail"));
        assert_eq!(status.readiness(), Ok(()));
        status.publishing(3, Some(LETTERS_STUCK_LONG), Some("t: Fail"));
        assert_eq!(status.readiness(), Err(NotReady::LettersStuck));
        status.publishing(4, None, None);
        assert_eq!(status.readiness(), Ok(()));
    }

    #[test]
    fn lag_is_told_from_durable_progress_which_may_be_ahead_of_the_known_end() {
        let mut status = running();
        status.assigned(&[partition(0)]);
        let log = LogEnd { end: 12, stable: 10 };
        assert_eq!(status.log_end(&partition(0), log), None, "progress is not known yet");
        let lag = |end, stable, unstable| Some(Lag { end, stable, unstable });
        assert_eq!(status.advanced(&partition(0), NextOffset(7)), Some(lag(5, 3, 2)));
        assert_eq!(status.advanced(&partition(0), NextOffset(11)), Some(lag(1, 0, 1)));
        assert_eq!(status.advanced(&partition(0), NextOffset(20)), Some(lag(0, 0, 0)));
        let later = LogEnd { end: 25, stable: 21 };
        assert_eq!(status.log_end(&partition(0), later), lag(5, 1, 4));
        assert_eq!(status.log_end(&partition(1), later), None, "not held");
    }

    #[test]
    fn the_json_lists_partitions_with_their_reason() {
        let mut status = running();
        status.assigned(&[partition(3)]);
        status.halted(&partition(3), Reason::ParkingFull, None);
        let _held = status.finished(&partition(3), Verdict::Applied, 2);
        let json = serde_json::to_value(&status).expect("json");
        assert_eq!(json["partitions"][0]["topic"], "orders");
        assert_eq!(json["partitions"][0]["phase"], "halted");
        assert_eq!(json["partitions"][0]["reason"], "parking_full");
        assert_eq!(json["records"]["APPLIED"], 2);
    }
}
