//! Where reading of a partition starts: the database's position over Kafka's (INV-10), and the tag by
//! which offsets that pgsluice committed are told from those that an operator moved.

use crate::record::{NextOffset, OwnerEpoch, StreamId};
use crate::verdict::Reason;

/// An offset committed to Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read.
    pub next: i64,
    /// What was committed with it.
    pub metadata: String,
}

/// What Kafka says of one partition, asked after the partition was assigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaPosition {
    /// The group's committed offset, `None` where there is none.
    pub committed: Option<Committed>,
    /// The oldest offset that can be read.
    pub low: i64,
    /// The offset after the newest record.
    pub high: i64,
    /// `kafka.start_from` as an offset of this partition; `None` for `error`.
    pub start: Option<i64>,
}

/// Where one log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// The offset that the next record will get.
    pub end: i64,
    /// The last stable offset: what lies behind it belongs to transactions that are open, or
    /// follows one, and cannot be read yet.
    pub stable: i64,
}

/// Why a position other than the database's counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PositionSource {
    /// Nobody knew a position: `kafka.start_from`.
    StartFrom,
    /// The group had a committed offset before the database knew the partition.
    Adopted,
    /// An operator moved the group's offset away from the database's, on purpose.
    Operator,
}

/// Where reading starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the database's position.
    Resume(NextOffset),
    /// At another position, which is written to the database first.
    Move(NextOffset, PositionSource),
    /// Nowhere, until an operator acts.
    Halt(Reason),
}

/// Finds where reading starts. `database` is the stream's own position.
///
/// | database | committed offset | start |
/// | --- | --- | --- |
/// | `n` | none | `n` |
/// | `n` | `n`, with or without our tag | `n` |
/// | `n` | another, with our tag | `n`: the mirror is behind, or the database was restored |
/// | `n` | another, without our tag | that one: an operator moved it |
/// | none | any | that one, adopted |
/// | none | none | `start_from` |
/// | none | none, and `start_from = "error"` | halt `no_position` |
///
/// Whatever was found must lie in the log (`low <= start <= high`), else the log is not the one
/// the position belongs to, or has lost records that were never read: halt `log_changed`.
pub fn start_position(database: Option<NextOffset>, kafka: &KafkaPosition) -> Start {
    let start = match (database, &kafka.committed) {
        (Some(next), Some(committed))
            if committed.next != next.0 && !is_ours(&committed.metadata) =>
        {
            Start::Move(NextOffset(committed.next), PositionSource::Operator)
        }
        (Some(next), _) => Start::Resume(next),
        (None, Some(committed)) => Start::Move(NextOffset(committed.next), PositionSource::Adopted),
        (None, None) => match kafka.start {
            Some(start) => Start::Move(NextOffset(start), PositionSource::StartFrom),
            None => Start::Halt(Reason::NoPosition),
        },
    };
    match start {
        Start::Resume(next) | Start::Move(next, _) if next.0 < kafka.low || next.0 > kafka.high => {
            Start::Halt(Reason::LogChanged)
        }
        start => start,
    }
}

/// First part of the metadata of every offset that the mirror commits.
const TAG: &str = "pgsluice/";

/// Layout of what follows [`TAG`]; any layout is ours.
const TAG_LAYOUT: &str = "1";

/// The metadata of an offset that the mirror commits, `pgsluice/1/<stream>/<owner epoch>`.
pub fn mirror_tag(stream: StreamId, epoch: OwnerEpoch) -> String {
    format!("{TAG}{TAG_LAYOUT}/{}/{}", stream.0, epoch.0)
}

/// Whether the mirror wrote a committed offset, of whatever stream, owner or version of pgsluice.
pub fn is_ours(metadata: &str) -> bool {
    metadata.starts_with(TAG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::OwnerEpoch;

    fn kafka(committed: Option<(i64, &str)>) -> KafkaPosition {
        KafkaPosition {
            committed: committed
                .map(|(next, metadata)| Committed { next, metadata: metadata.into() }),
            low: 10,
            high: 100,
            start: Some(10),
        }
    }

    fn next(offset: i64) -> Option<NextOffset> {
        Some(NextOffset(offset))
    }

    const OURS: &str = "pgsluice/1/7/3";

    #[test]
    fn the_database_position_counts_whatever_the_mirror_says() {
        let resumed = Start::Resume(NextOffset(50));
        assert_eq!(start_position(next(50), &kafka(None)), resumed);
        assert_eq!(start_position(next(50), &kafka(Some((50, OURS)))), resumed);
        assert_eq!(start_position(next(50), &kafka(Some((40, OURS)))), resumed);
        assert_eq!(start_position(next(50), &kafka(Some((60, OURS)))), resumed);
        assert_eq!(start_position(next(50), &kafka(Some((50, "")))), resumed);
    }

    #[test]
    fn an_offset_that_an_operator_moved_is_obeyed_in_both_directions() {
        for committed in [20, 80] {
            assert_eq!(
                start_position(next(50), &kafka(Some((committed, "")))),
                Start::Move(NextOffset(committed), PositionSource::Operator)
            );
        }
    }

    #[test]
    fn without_a_database_position_the_committed_offset_is_adopted() {
        for metadata in ["", OURS] {
            assert_eq!(
                start_position(None, &kafka(Some((30, metadata)))),
                Start::Move(NextOffset(30), PositionSource::Adopted)
            );
        }
    }

    #[test]
    fn without_any_position_start_from_decides() {
        assert_eq!(
            start_position(None, &kafka(None)),
            Start::Move(NextOffset(10), PositionSource::StartFrom)
        );
        let error = KafkaPosition { start: None, ..kafka(None) };
        assert_eq!(start_position(None, &error), Start::Halt(Reason::NoPosition));
    }

    #[test]
    fn a_position_outside_the_log_halts_and_its_edges_do_not() {
        let halted = Start::Halt(Reason::LogChanged);
        assert_eq!(start_position(next(9), &kafka(None)), halted);
        assert_eq!(start_position(next(101), &kafka(None)), halted);
        assert_eq!(start_position(next(50), &kafka(Some((101, "")))), halted);
        assert_eq!(start_position(None, &kafka(Some((9, "")))), halted);
        assert_eq!(start_position(next(10), &kafka(None)), Start::Resume(NextOffset(10)));
        assert_eq!(start_position(next(100), &kafka(None)), Start::Resume(NextOffset(100)));
    }

    #[test]
    fn the_mirror_recognises_its_own_tag_and_nobody_elses() {
        let tag = mirror_tag(StreamId(7), OwnerEpoch(3));
        assert_eq!(tag, OURS);
        assert!(is_ours(&tag));
        assert!(is_ours("pgsluice/2/anything"));
        for other in ["", "NO_METADATA", "pgsluice-lag-tool"] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
