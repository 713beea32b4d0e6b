//! The eight outcomes (INV-5), the reasons behind them, and the pure rule that finds the outcome
//! of one event on its aggregate's ledger row.
//!
//! The rule is asked by the slow lane, on a row read by the current database session (INV-13).
//! The fast lane's SQL guard lets exactly those events pass for which [`judge`] says `Apply`
//! without needing more than the row itself; whatever it refuses is judged here.

use std::borrow::Cow;

use crate::event::AggregateVersion;
use crate::guard::guard;
use crate::record::RecordId;

/// The final outcome of a record. Only `DeadLettered` and `Parked` may later change, by re-drive
/// or discard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[must_use]
pub enum Verdict {
    /// Took effect.
    Applied,
    /// A business rule of a `sql` route said no.
    Rejected,
    /// Took effect before, or is a second copy of the newest event.
    Duplicate,
    /// Older than what the aggregate already holds.
    Stale,
    /// Not meant to be written: a `skip` route, or a tombstone with `tombstone = "skip"`.
    Skipped,
    /// Cannot be applied; kept in `dead_letter_t`.
    DeadLettered,
    /// Follows a dead letter of the same aggregate; kept in `dead_letter_t` until released.
    Parked,
    /// Given up by an operator.
    Discarded,
}

impl Verdict {
    /// All verdicts, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::Applied,
        Self::Rejected,
        Self::Duplicate,
        Self::Stale,
        Self::Skipped,
        Self::DeadLettered,
        Self::Parked,
        Self::Discarded,
    ];

    /// The word in `notification_t.status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "APPLIED",
            Self::Rejected => "REJECTED",
            Self::Duplicate => "DUPLICATE",
            Self::Stale => "STALE",
            Self::Skipped => "SKIPPED",
            Self::DeadLettered => "DEAD_LETTERED",
            Self::Parked => "PARKED",
            Self::Discarded => "DISCARDED",
        }
    }
}

/// Why a record is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It cannot be applied itself.
    Poison,
    /// It waits behind a dead letter of its aggregate.
    Parked,
}

impl Disposition {
    /// The word in `dead_letter_t.disposition`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Poison => "poison",
            Self::Parked => "parked",
        }
    }
}

/// Declares a closed enum whose variants have one text each: log field, metric label, table
/// column and DLQ header all use it.
macro_rules! reasons {
    ($(#[$enum_doc:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident => $text:literal,)* }) => {
        $(#[$enum_doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every reason, for metrics and documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The reason's one spelling, in snake case.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The reason with that spelling.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|r| r.as_str() == text)
            }
        }
    };
}

reasons! {
    /// Why a record or a partition is where it is.
    Reason {
        // Skips.
        /// A `skip` route matched.
        SkipRoute => "skip_route",
        /// A null value where `tombstone = "skip"`.
        Tombstone => "tombstone",
        /// No route matched.
        Unmatched => "unmatched",
        // Poison found while decoding.
        /// The value is not JSON.
        JsonSyntax => "json_syntax",
        /// JSON nested deeper than `decode.max_depth`.
        JsonDepth => "json_depth",
        /// JSON text holds the escape of U+0000 or a lone surrogate, which `jsonb` refuses.
        JsonText => "json_text",
        /// The value is JSON but not the object the format needs.
        JsonShape => "json_shape",
        /// The key is not UTF-8 text.
        KeyEncoding => "key_encoding",
        /// A header is not UTF-8 text.
        HeaderEncoding => "header_encoding",
        /// A required envelope field is missing.
        FieldMissing => "field_missing",
        /// An envelope field has the wrong type or form.
        FieldInvalid => "field_invalid",
        /// The route declares a version and the event has none.
        VersionMissing => "version_missing",
        /// The version is not a non-negative whole number within 64 bits.
        VersionInvalid => "version_invalid",
        /// A null value where `tombstone = "dead-letter"`.
        TombstoneRefused => "tombstone_refused",
        /// Key and value together are larger than `limits.record_bytes`.
        RecordTooLarge => "record_too_large",
        // Poison found while binding values to columns.
        /// A value does not fit its column's type.
        ColumnValue => "column_value",
        /// A key column's value is absent or null.
        ColumnKeyMissing => "column_key_missing",
        // Poison found on the ledger row.
        /// The same version as stored, but another event id.
        VersionConflict => "version_conflict",
        // Poison found by the database.
        /// A constraint of the target refused the row.
        ConstraintViolation => "constraint_violation",
        /// The database refused a value.
        DataException => "data_exception",
        /// A trigger or function raised.
        RaisedException => "raised_exception",
        /// It failed for longer than `retry.give_up_after` while others succeeded.
        RetryExhausted => "retry_exhausted",
        // Parking.
        /// The aggregate is parked behind a dead letter.
        AggregateParked => "aggregate_parked",
        /// Versions are missing before this one and `on_gap = "park"`.
        VersionGap => "version_gap",
        // Old and repeated.
        /// The stream's position already covers the record.
        PositionCovered => "position_covered",
        /// The newest event again, at another position.
        EventRepeated => "event_repeated",
        /// The version is lower than the one stored.
        VersionLower => "version_lower",
        /// The aggregate was deleted by a later event.
        AggregateDeleted => "aggregate_deleted",
        // Halts of a partition.
        /// A table, column, type or unique index that a route needs is missing or changed.
        SchemaMismatch => "schema_mismatch",
        /// The role lacks a privilege.
        PermissionDenied => "permission_denied",
        /// The server takes no writes.
        ReadOnlyServer => "read_only_server",
        /// Out of disk, memory or another resource of the server.
        ResourceExhausted => "resource_exhausted",
        /// The log is not the log that was read before, or no longer holds the position.
        LogChanged => "log_changed",
        /// No position is known and `start_from = "error"`.
        NoPosition => "no_position",
        /// No route matched and `on_unmatched = "halt"`.
        UnmatchedHalt => "unmatched_halt",
        /// More dead letters than `dead_letter.flood` allows.
        DeadLetterFlood => "dead_letter_flood",
        /// More stale events than `dead_letter.stale_flood` allows.
        StaleFlood => "stale_flood",
        /// More parked records than `dead_letter.max_parked_events` allows.
        ParkingFull => "parking_full",
        /// A fault that no rule knows, or a bug.
        Unexpected => "unexpected",
    }
}

/// The part of an `aggregate_t` row that decides: read under the row lock by the slow lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRow {
    /// Version after the last applied event, `None` while only unversioned events were applied.
    pub version: Option<AggregateVersion>,
    /// Id of the last applied event; `None` for an aggregate that was parked before any event of
    /// it took effect.
    pub event_id: Option<Box<str>>,
    /// The last record of the aggregate that was applied, dead-lettered or parked.
    pub position: RecordId,
    /// The last applied event deleted the aggregate.
    pub deleted: bool,
    /// The aggregate waits behind a dead letter.
    pub parked: bool,
    /// `position` stands in an earlier log of the very partition the candidate comes from
    /// (its topic was recreated and an operator accepted the new log).
    pub earlier_log: bool,
}

/// What [`judge`] needs to know of an event.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// Where the event stands.
    pub id: RecordId,
    /// Its id.
    pub event_id: Cow<'a, str>,
    /// Its version, `None` where the route declares none.
    pub version: Option<AggregateVersion>,
    /// It is applied from `dead_letter_t`, not from Kafka: the letter itself is the proof that
    /// the record did not take effect, and positions do not count.
    pub redrive: bool,
}

/// What to do when versions are missing before an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapPolicy {
    /// Apply and count the gap.
    Apply,
    /// Park the aggregate.
    Park,
}

/// What follows for one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Judgement {
    /// Apply it; `gap` versions are missing before it.
    Apply {
        /// Number of versions missing between the stored one and this one.
        gap: i64,
    },
    /// The record itself was decided before: nothing is written (INV-4).
    Settled,
    /// Final without an effect; a notification says so.
    Note(Verdict, Reason),
    /// Cannot be applied: dead-letter it and park the aggregate.
    Poison(Reason),
    /// Keep it behind the aggregate's dead letter.
    Park(Reason),
}

/// Finds the outcome of one event on its aggregate's row; `None` means there is no row.
///
/// The order of the rules is the contract:
///
/// | # | condition | outcome |
/// | --- | --- | --- |
/// | 1 | same stream, offset not above the stored one | settled: DUPLICATE |
/// | – | aggregate parked, unless the record stands in another partition than the stored one and its version is not newer: then rule 2 | PARKED |
/// | – | deleted, and the event stands later in the same partition | apply, whatever the version |
/// | 2 | version lower | STALE |
/// | 2 | version equal, same event id | DUPLICATE |
/// | 2 | version equal, other event id | poison `version_conflict` (STALE after a delete) |
/// | 2 | version higher | apply, or park when versions are missing and the policy says so |
/// | – | deleted, unversioned, other partition | STALE: nothing is resurrected |
/// | 3 | no version | apply |
///
/// A re-drive skips rule 1 and the parked check: its letter proves that the record is unapplied.
pub fn judge(row: Option<&LedgerRow>, event: &Candidate<'_>, gaps: GapPolicy) -> Judgement {
    let Some(row) = row else { return Judgement::Apply { gap: 0 } };
    let same_stream = row.position.stream == event.id.stream;
    if !event.redrive {
        if guard!(PositionCovered, same_stream && event.id.offset <= row.position.offset) {
            return Judgement::Settled;
        }
        let before = guard!(TookEffectBefore, took_effect_before(row, event, same_stream));
        if guard!(AggregateParked, row.parked && !before) {
            return Judgement::Park(Reason::AggregateParked);
        }
    }
    if guard!(DeletedBeginsAnew, row.deleted && (same_stream || row.earlier_log)) {
        return Judgement::Apply { gap: 0 };
    }
    let Some(version) = event.version else {
        return if guard!(DeletedStays, row.deleted) {
            Judgement::Note(Verdict::Stale, Reason::AggregateDeleted)
        } else {
            Judgement::Apply { gap: 0 }
        };
    };
    let Some(stored) = row.version else { return Judgement::Apply { gap: 0 } };
    if guard!(VersionLower, version < stored) {
        return Judgement::Note(Verdict::Stale, Reason::VersionLower);
    }
    if version == stored {
        return if guard!(EventRepeated, row.event_id.as_deref() == Some(&*event.event_id)) {
            Judgement::Note(Verdict::Duplicate, Reason::EventRepeated)
        } else if guard!(VersionConflict, !row.deleted) {
            Judgement::Poison(Reason::VersionConflict)
        } else {
            Judgement::Note(Verdict::Stale, Reason::AggregateDeleted)
        };
    }
    let gap = version.0 - stored.0 - 1;
    if guard!(VersionGap, gap > 0 && gaps == GapPolicy::Park) {
        return Judgement::Park(Reason::VersionGap);
    }
    Judgement::Apply { gap }
}

/// The record stands in another partition than the row's position, and the aggregate holds its
/// version or a newer one. Rule 1 recognises re-deliveries of the row's own stream only: parking
/// this record could park one that took effect already (INV-4).
fn took_effect_before(row: &LedgerRow, event: &Candidate<'_>, same_stream: bool) -> bool {
    let elsewhere = !same_stream && !row.earlier_log;
    match (event.version, row.version) {
        (Some(version), Some(stored)) if elsewhere => {
            version < stored
                || (version == stored && row.event_id.as_deref() == Some(&*event.event_id))
        }
        _ => false,
    }
}

impl LedgerRow {
    /// The row after `event` was applied on it.
    pub fn applied(row: Option<&Self>, event: &Candidate<'_>, deletes: bool) -> Self {
        let kept = row.filter(|_| guard!(VersionKept, true)).and_then(|row| row.version);
        let position = match row {
            // A re-drive never moves the position back: records after it are decided already.
            Some(row) if event.redrive && row.position.stream == event.id.stream => {
                row.position.max(event.id)
            }
            _ => event.id,
        };
        Self {
            version: event.version.or(kept),
            event_id: Some((*event.event_id).into()),
            position,
            deleted: deletes,
            parked: false,
            earlier_log: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Offset, StreamId};

    fn at(stream: i32, offset: i64) -> RecordId {
        RecordId { stream: StreamId(stream), offset: Offset(offset) }
    }

    fn parked_at_version_2() -> LedgerRow {
        LedgerRow {
            version: Some(AggregateVersion(2)),
            event_id: Some("e2".into()),
            position: at(1, 7),
            deleted: false,
            parked: true,
            earlier_log: false,
        }
    }

    fn judged(id: RecordId, event_id: &str, version: Option<i64>) -> Judgement {
        let version = version.map(AggregateVersion);
        let event = Candidate { id, event_id: event_id.into(), version, redrive: false };
        judge(Some(&parked_at_version_2()), &event, GapPolicy::Apply)
    }

    /// Proves INV-8.
    #[test]
    fn a_parked_aggregate_parks_what_is_later_or_cannot_be_told() {
        let park = Judgement::Park(Reason::AggregateParked);
        assert_eq!(judged(at(1, 8), "e3", Some(3)), park);
        assert_eq!(judged(at(1, 8), "e1", Some(1)), park, "after the poison, in its own log");
        assert_eq!(judged(at(2, 1), "e3", Some(3)), park);
        assert_eq!(judged(at(2, 1), "other", Some(2)), park, "in conflict, to be seen on release");
        assert_eq!(judged(at(2, 1), "e", None), park);
    }

    /// Proves INV-4.
    #[test]
    fn what_took_effect_from_another_partition_is_not_parked_when_it_comes_again() {
        let stale = Judgement::Note(Verdict::Stale, Reason::VersionLower);
        assert_eq!(judged(at(2, 1), "e1", Some(1)), stale);
        let repeated = Judgement::Note(Verdict::Duplicate, Reason::EventRepeated);
        assert_eq!(judged(at(2, 2), "e2", Some(2)), repeated);
    }
}
