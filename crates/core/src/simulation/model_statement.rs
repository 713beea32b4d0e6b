//! What the SQL of a write means: when the ledger lets a group pass, and what its row becomes.
//!
//! The text of that SQL is in `store/aggregate.rs`, and runs on a real Postgres in `tests/ledger/`.
//! The rule it must not contradict is [`crate::verdict::judge`].

use crate::event::AggregateVersion;
use crate::guard::guards;
use crate::record::RecordId;
use crate::verdict::{GapPolicy, LedgerRow};

guards! {
    /// A guard that does not stand in the core: a condition of SQL, or of a shell, as the models have it.
    pub(super) enum ModelGuard {
        /// `condition`, first attempts: versions are compared, a deleted row waits for its own stream.
        VersionCompare,
        /// `condition`, first attempts: the group stands behind the stored position.
        PositionCompare,
        /// `condition`, first attempts: the row is not parked.
        ParkedCheck,
        /// `letters`: no record of the group has a letter.
        LetterCheck,
        /// `moved`: `coalesce(excluded.version, t.version)`.
        VersionKept,
        /// `condition`, second attempts, and `ledger::park`: the row stands where it was judged.
        SeenCompare,
        /// `rollback to savepoint event` takes back one event, not all that the transaction did.
        EventSavepoint,
        /// `progress::own` in the barrier: only the owner's progress is written.
        OwnerAdvances,
        /// `progress::own` in a take: only the owner moves the position.
        OwnerRepositions,
        /// `progress::own` before letters: only the owner writes them.
        OwnerDeadLetters,
        /// The barrier sees the lock of its own session.
        LockCheck,
        /// `perform::take`: a position beyond the log's end is compared once more with what Kafka says
        /// after the claim.
        EndAskedAgain,
    }
}

/// What the condition of the fast statement looks at in a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proposed {
    /// Stream and offset of the group's first event.
    pub(super) first: RecordId,
    /// Its version.
    pub(super) version: Option<AggregateVersion>,
    /// One of the group's records has a letter.
    pub(super) lettered: bool,
}

/// Whether the fast statement moves the ledger row: the meaning of `condition` in
/// `store/aggregate.rs` for first attempts, and of `letters` before it. `kept` says which of its
/// guards are in place.
///
/// `true` only where [`crate::verdict::judge`] says `Apply` for the group's first event; `false` may
/// be said more often, the slow lane looks again.
pub(super) fn moves(
    row: Option<&LedgerRow>,
    proposed: Proposed,
    gaps: GapPolicy,
    kept: impl Fn(ModelGuard) -> bool,
) -> bool {
    let Proposed { first, version, lettered } = proposed;
    if lettered && kept(ModelGuard::LetterCheck) {
        return false;
    }
    let Some(row) = row else { return true };
    let other_stream = row.position.stream != first.stream;
    let behind = other_stream || row.position.offset < first.offset;
    let higher = match (row.deleted, version, row.version) {
        (true, ..) => !other_stream,
        (false, Some(new), Some(stored)) if gaps == GapPolicy::Park => new.0 == stored.0 + 1,
        (false, Some(new), Some(stored)) => new > stored,
        (false, None, _) | (false, _, None) => true,
    };
    (!row.parked || !kept(ModelGuard::ParkedCheck))
        && (behind || !kept(ModelGuard::PositionCompare))
        && (higher || !kept(ModelGuard::VersionCompare))
}

/// `gap` of the moved row: what was missing before the group's first event.
pub(super) fn gap(row: Option<&LedgerRow>, version: Option<AggregateVersion>) -> i64 {
    let stored = row.filter(|row| !row.deleted).and_then(|row| row.version);
    version.zip(stored).map_or(0, |(version, stored)| version.0 - stored.0 - 1)
}

/// The last event of a group that moved, as the statement proposes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last<'a> {
    /// Where it stands.
    pub(super) position: RecordId,
    /// Its id.
    pub(super) event_id: &'a str,
    /// The last version in the group.
    pub(super) version: Option<AggregateVersion>,
    /// It deletes the aggregate.
    pub(super) deletes: bool,
}

/// The row after the statement: `moved` in `store/aggregate.rs`.
pub(super) fn moved(
    row: Option<&LedgerRow>,
    last: Last<'_>,
    kept: impl Fn(ModelGuard) -> bool,
) -> LedgerRow {
    let stored = row.filter(|_| kept(ModelGuard::VersionKept)).and_then(|row| row.version);
    LedgerRow {
        version: last.version.or(stored),
        event_id: Some(last.event_id.into()),
        position: last.position,
        deleted: last.deletes,
        parked: row.is_some_and(|row| row.parked),
        earlier_log: false,
    }
}

/// The row after letters were written: `ledger::park`.
pub(super) fn parked(row: Option<LedgerRow>, position: RecordId) -> LedgerRow {
    match row {
        Some(row) => LedgerRow { position, parked: true, ..row },
        None => LedgerRow {
            version: None,
            event_id: None,
            position,
            deleted: false,
            parked: true,
            earlier_log: false,
        },
    }
}
