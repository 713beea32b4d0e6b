//! What can happen to the coordinator, and what it may ask for.
//!
//! Everything that can interleave is an [`Input`]; everything with an effect is an [`Action`].
//! Shells perform actions and turn their results into inputs; only [`crate::state::State`] decides.

use std::time::Duration;

use crate::event::Event;
use crate::fault::{Decision, Fault};
use crate::group::{Group, GroupReply, Progress};
use crate::record::{
    Anchor, Generation, NextOffset, Offset, OwnerEpoch, SessionId, StreamId, TopicPartition,
};
use crate::verdict::{Reason, Verdict};

/// Names one revocation that the consumer thread waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RevokeTicket(pub u64);

/// Ownership of a partition as the database granted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The stream of the partition's current log.
    pub stream: StreamId,
    /// Our ownership of it.
    pub epoch: OwnerEpoch,
    /// Where to read on.
    pub next: NextOffset,
    /// What must read back unchanged.
    pub anchor: Option<Anchor>,
}

/// The answer to one requested take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakeReply {
    /// Ours.
    Claimed(Claim),
    /// Could not be had now (a lock held, a broker that did not answer): ask again.
    Busy,
    /// Must not be read until an operator acts; the fault says on what, where it is known.
    Halted(Reason, Option<Fault>),
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// Partitions were assigned to this member; they are paused.
    Assigned(Vec<TopicPartition>),
    /// Partitions are being taken away. The consumer thread waits for [`Action::Released`] of the
    /// ticket, at most `revoke_budget`.
    Revoked {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// What to answer.
        ticket: RevokeTicket,
        /// Ownership is gone already: nothing of theirs may be advanced any more.
        lost: bool,
    },
    /// Records were read and decoded.
    Polled(Vec<Event>),
    /// The consumer has delivered everything before `next`, which may lie beyond the last record:
    /// transaction markers take offsets.
    Positioned {
        /// The partition.
        partition: TopicPartition,
        /// The reading.
        generation: Generation,
        /// The consumer's position.
        next: NextOffset,
    },
    /// The log does not hold what it held before, or not the wanted position.
    LogChanged {
        /// The partition.
        partition: TopicPartition,
        /// The reading.
        generation: Generation,
    },
    /// A database session is ready.
    SessionOpened(SessionId),
    /// A session ended, for whatever reason; all its connections are closed.
    SessionLost(SessionId, Fault),
    /// Answers to [`Action::Take`].
    Taken(SessionId, Vec<(TopicPartition, Generation, TakeReply)>),
    /// Groups came back from [`Action::Apply`], [`Action::Read`] or [`Action::Resolve`].
    Replied {
        /// The session that worked on them.
        session: SessionId,
        /// Which lane they came from.
        lane: Lane,
        /// The groups, each with its answer.
        groups: Vec<(Group, GroupReply)>,
    },
    /// The barrier's answer: the streams that were advanced. One that was sent and is missing
    /// here has a newer owner.
    Advanced(SessionId, Vec<StreamId>),
    /// Stop polling, finish what is in flight, advance, then [`Action::Drained`].
    Drain,
    /// Time passed: [`crate::state::State::next_deadline`] was reached.
    Tick,
}

/// Which lane did the work; each has its own capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Pipelined, asynchronous commit, first attempts only.
    Fast,
    /// Synchronous, one group at a time.
    Slow,
}

/// Something to do.
#[derive(Debug)]
pub enum Action {
    /// Open a session after the delay; answer with `SessionOpened` or `SessionLost`.
    OpenSession {
        /// The session's name.
        session: SessionId,
        /// How long to wait before the attempt.
        after: Duration,
    },
    /// Close every connection of the session at once; the fault says why.
    CloseSession(SessionId, Fault),
    /// Take ownership of partitions and find their positions; answer with `Taken`.
    Take {
        /// The session to use.
        session: SessionId,
        /// The partitions and the reading that follows.
        partitions: Vec<(TopicPartition, Generation)>,
    },
    /// Read a partition from here on (seek and resume); records carry the generation.
    Seek {
        /// The partition.
        partition: TopicPartition,
        /// Stamped on every record from now on.
        generation: Generation,
        /// The first record wanted.
        next: NextOffset,
        /// What must read back unchanged just before it.
        anchor: Option<Anchor>,
    },
    /// Deliver nothing more of the partition until `Resume` or `Seek`.
    Pause(TopicPartition),
    /// Deliver again.
    Resume(TopicPartition),
    /// Apply groups of one kind in one transaction, on a fast lane.
    Apply {
        /// The session to use.
        session: SessionId,
        /// One group, or up to `aggregates_per_transaction` with the same route.
        groups: Vec<Group>,
    },
    /// Look at the ledger rows of refused groups, in one query, on the slow lane.
    Read {
        /// The session to use.
        session: SessionId,
        /// The groups.
        groups: Vec<Group>,
    },
    /// Decide one group in a transaction of its own, on the slow lane.
    Resolve {
        /// The session to use.
        session: SessionId,
        /// The group.
        group: Group,
    },
    /// Write progress durably: the barrier. Answer with `Advanced` or `SessionLost`.
    Advance {
        /// The session to use.
        session: SessionId,
        /// One entry a stream.
        progress: Vec<Progress>,
    },
    /// A partition is ours under this claim: letters of its stream may be published.
    Own(TopicPartition, Claim),
    /// A partition is not ours any more. Until it is again, no letter of it is published and no
    /// position of it mirrored: a newer owner's must not be overwritten by an older one of ours.
    Disown(TopicPartition),
    /// Letters were written: the publisher has work.
    PublishLetters,
    /// A route may not fit its table any more: every take of this session looks at the catalog
    /// first.
    DoubtPlan,
    /// Let Kafka's committed offsets follow.
    Mirror(Vec<MirrorPosition>),
    /// The revocation may go on, after committing these durable positions.
    Released(RevokeTicket, Vec<MirrorPosition>),
    /// Everything that can be finished is, and is durable; nothing follows.
    Drained,
    /// Continuing would do harm: end the process. With exit code 70 where the fault is a bug of ours
    /// ([`FaultKind::Bug`](crate::fault::FaultKind::Bug)), else with 5 (corruption).
    Stop(Fault),
    /// Records left memory: give their weight back to the poll budget.
    Freed(usize),
    /// Something an operator may want to see. Nothing follows from it.
    Report(Report),
}

/// A durable position for Kafka's committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorPosition {
    /// The partition.
    pub partition: TopicPartition,
    /// Its stream and owner, for the tag in the commit metadata.
    pub stream: StreamId,
    /// Ownership under which it was reached.
    pub epoch: OwnerEpoch,
    /// The next offset to read.
    pub next: NextOffset,
}

/// State changes and counts, for logs and metrics. Values of records never appear (INV-9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Records of a partition reached their outcome.
    Finished {
        /// The partition.
        partition: TopicPartition,
        /// The outcome.
        verdict: Verdict,
        /// How many.
        count: u64,
    },
    /// Versions were missing and the event was applied all the same.
    VersionGap(TopicPartition),
    /// A partition was taken.
    Taken(TopicPartition, Claim),
    /// A partition was given up, by rebalance.
    GivenUp(TopicPartition),
    /// The database knows a newer owner of the partition.
    Fenced(TopicPartition),
    /// A partition stands still.
    Halted {
        /// The partition.
        partition: TopicPartition,
        /// Why.
        reason: Reason,
        /// The fault behind it, when it was one.
        fault: Option<Fault>,
        /// The record that it stands before, when it was one.
        at: Option<Offset>,
    },
    /// A halted partition was taken up again.
    HaltEnded(TopicPartition),
    /// An attempt failed, and this was decided.
    Failed(Decision, Fault),
    /// A group will be tried again.
    Retry {
        /// Its partition.
        partition: TopicPartition,
        /// Failed attempts so far.
        attempts: u32,
        /// The latest fault.
        fault: Fault,
    },
    /// Progress became durable.
    Advanced {
        /// The partition.
        partition: TopicPartition,
        /// Its new position.
        next: NextOffset,
    },
    /// Letters were written; their number is that of the outcomes.
    LettersWritten,
}
