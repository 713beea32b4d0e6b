//! The right end of a run, written anew from the contract: a table of its own from an aggregate's
//! row and a record to the outcomes that are allowed. It shares nothing with the rule under test.
//!
//! The records of one partition take their outcomes in the order of their log. Where an aggregate's
//! records stand in two partitions, any interleaving of the two logs is right that explains every
//! outcome and the row that is left. A second reading of a record changes nothing (INV-4), so that
//! only the first counts.
//!
//! | the row | the record | outcome |
//! | --- | --- | --- |
//! | any | of a `skip` route | SKIPPED |
//! | any | matches no route | DEAD_LETTERED alone: the row stays |
//! | parked | of another partition, with an older version | STALE |
//! | parked | of another partition, the newest event again | DUPLICATE |
//! | parked | any other | PARKED |
//! | any | cannot be decoded | DEAD_LETTERED |
//! | deleted | later in the partition of the delete | goes to the target |
//! | deleted | the newest event again | DUPLICATE |
//! | deleted | any other, unless its version is higher | STALE |
//! | with a version | has a lower one | STALE |
//! | with a version | has the same, and the same event id | DUPLICATE |
//! | with a version | has the same under another event id | DEAD_LETTERED |
//! | with a version | has a higher one, some are missing and `on_gap = "park"` | PARKED |
//! | any | any other | goes to the target |
//!
//! What goes to the target is APPLIED, or what the target makes of it. DEAD_LETTERED and PARKED
//! park the row and move its position (ADR 0007); STALE and DUPLICATE leave it as it is. The two
//! rows about another partition are ADR 0008.

use std::collections::HashSet;

use super::model_postgres::Tables;
use super::workload::{Meaning, Rec, Spec, Target, Workload, stream_of};
use crate::verdict::{GapPolicy, Verdict};

/// What the oracle must know of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunFacts {
    /// The gap policy.
    pub(super) gaps: GapPolicy,
    /// Folding may have hidden a value that the target refuses.
    pub(super) folding_hides: bool,
    /// The operator added a route in the middle of the run.
    pub(super) new_route: bool,
    /// What keeps failing is given up.
    pub(super) give_up: bool,
}

/// What the contract says of an aggregate, record by record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Known<'w> {
    /// The highest version that took effect.
    version: Option<i64>,
    /// The event that took effect last.
    event_id: Option<&'w str>,
    /// Partition and offset of the last record that was applied, dead-lettered or parked.
    at: (usize, i64),
    deleted: bool,
    parked: bool,
}

/// Where the records of an aggregate may stand at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Moment<'w> {
    /// How many records of each home have their outcome.
    done: [usize; 2],
    row: Option<Known<'w>>,
    /// The record before was refused by the target and is said to be applied: that is right only if
    /// the next one of this partition took effect with it and overwrote it.
    owes: Option<usize>,
}

/// Says why what is stored about an aggregate cannot be, if it cannot.
pub(super) fn wrong(
    work: &Workload,
    tables: &Tables,
    aggregate: usize,
    run: &RunFacts,
) -> Option<String> {
    let shape = work.aggregates[aggregate];
    if !shape.is_single() && !shape.versioned {
        return wrong_in_any_order(work, tables, aggregate, run);
    }
    let of = |home: usize| -> Vec<Rec> {
        let records = work.logs[home].iter().flatten().copied();
        records.filter(|&rec| work.records[rec].aggregate == Some(aggregate)).collect()
    };
    let [first, second] = shape.homes;
    let logs = [of(first), if shape.is_single() { Vec::new() } else { of(second) }];
    let mut moments = HashSet::from([Moment { done: [0, 0], row: None, owes: None }]);
    let mut last = moments.clone();
    for _ in 0..logs[0].len() + logs[1].len() {
        let mut next = HashSet::new();
        for moment in &moments {
            for (side, log) in logs.iter().enumerate() {
                let Some(&rec) = log.get(moment.done[side]) else { continue };
                let note = tables.notes[rec];
                let allowed = outcomes(moment, &work.records[rec], run);
                next.extend(allowed.into_iter().filter(|(v, _)| Some(*v) == note).map(
                    |(_, mut moment)| {
                        moment.done[side] += 1;
                        moment
                    },
                ));
            }
        }
        if next.is_empty() {
            return Some(unexplained(work, tables, &moments, &logs, run));
        }
        last = next.clone();
        moments = next;
    }
    let stored = tables.ledger[aggregate].as_ref();
    let ends = |moment: &Moment<'_>| {
        let same = match (stored, moment.row) {
            (None, None) => true,
            (Some(stored), Some(row)) => {
                stored.version.map(|version| version.0) == row.version
                    && stored.event_id.as_deref() == row.event_id
                    && stored.position.stream == stream_of(row.at.0)
                    && stored.position.offset.0 == row.at.1
                    && (stored.deleted, stored.parked) == (row.deleted, row.parked)
            }
            (Some(_), None) | (None, Some(_)) => false,
        };
        same && moment.owes.is_none()
    };
    let explained = last.iter().any(ends);
    (!explained).then(|| {
        let rows: Vec<_> = last.iter().map(|moment| moment.row).collect();
        format!("the row of aggregate {aggregate} is {stored:?}, allowed are {rows:?}")
    })
}

/// The records that no allowed moment explains.
fn unexplained(
    work: &Workload,
    tables: &Tables,
    moments: &HashSet<Moment<'_>>,
    logs: &[Vec<Rec>; 2],
    run: &RunFacts,
) -> String {
    let mut places = Vec::new();
    for moment in moments {
        for (side, log) in logs.iter().enumerate() {
            let Some(&rec) = log.get(moment.done[side]) else { continue };
            let spec = &work.records[rec];
            let allowed: Vec<_> =
                outcomes(moment, spec, run).into_iter().map(|(verdict, _)| verdict).collect();
            let (partition, offset, note) = (spec.partition, spec.offset, tables.notes[rec]);
            places.push(format!("record {partition}/{offset} ended as {note:?} of {allowed:?}"));
        }
    }
    places.sort();
    places.dedup();
    places.truncate(4);
    format!("{}; row {:?}", places.join(", or "), moments.iter().next().map(|m| m.row))
}

/// The outcomes that the contract allows for the next record of a log, each with what follows.
fn outcomes<'w>(moment: &Moment<'w>, spec: &'w Spec, run: &RunFacts) -> Vec<(Verdict, Moment<'w>)> {
    let stays = |verdict| (verdict, *moment);
    match spec.meaning {
        Meaning::Skip => vec![stays(Verdict::Skipped)],
        Meaning::Unmatched if run.new_route => {
            let mut all = vec![stays(Verdict::DeadLettered)];
            all.extend(decided(moment, spec, run));
            all
        }
        Meaning::Unmatched => vec![stays(Verdict::DeadLettered)],
        Meaning::Write | Meaning::Delete | Meaning::Undecodable | Meaning::Halting => {
            decided(moment, spec, run)
        }
    }
}

fn decided<'w>(moment: &Moment<'w>, spec: &'w Spec, run: &RunFacts) -> Vec<(Verdict, Moment<'w>)> {
    let mut all: Vec<_> = by_table(moment.row.as_ref(), spec, run)
        .into_iter()
        .map(|outcome| (outcome.verdict(), outcome.follows(moment, spec)))
        .collect();
    if let Some(partition) = moment.owes {
        all.retain(|(verdict, _)| *verdict == Verdict::Applied && spec.partition == partition);
    }
    all
}

/// An allowed outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    Stale,
    Duplicate,
    Parked,
    DeadLettered,
    Applied,
    /// Applied, because folding overwrites it before it is written.
    Hidden,
}

/// The table at the top of this file, below the rows of skips and of what no route matches.
fn by_table(row: Option<&Known<'_>>, spec: &Spec, run: &RunFacts) -> Vec<Allowed> {
    let version = spec.version.map(|version| version.0);
    let undecodable = spec.meaning == Meaning::Undecodable;
    let Some(row) = row else {
        return if undecodable { vec![Allowed::DeadLettered] } else { target(spec, run) };
    };
    let elsewhere = row.at.0 != spec.partition;
    let both = version.zip(row.version).filter(|_| !undecodable);
    let older = both.is_some_and(|(new, stored)| new < stored);
    let equal = both.is_some_and(|(new, stored)| new == stored);
    let again = equal && row.event_id == Some(&*spec.event_id);
    let one = if row.parked {
        match () {
            () if elsewhere && older => Allowed::Stale,
            () if elsewhere && again => Allowed::Duplicate,
            () => Allowed::Parked,
        }
    } else if undecodable {
        Allowed::DeadLettered
    } else if row.deleted && !elsewhere {
        return target(spec, run);
    } else if again {
        Allowed::Duplicate
    } else if older || (row.deleted && (equal || version.is_none())) {
        Allowed::Stale
    } else if equal {
        Allowed::DeadLettered
    } else if both.is_some_and(|(new, stored)| new > stored + 1) && run.gaps == GapPolicy::Park {
        Allowed::Parked
    } else {
        return target(spec, run);
    };
    vec![one]
}

/// What the target makes of a record.
fn target(spec: &Spec, run: &RunFacts) -> Vec<Allowed> {
    match spec.target {
        Target::Takes | Target::MissingUntilMended => vec![Allowed::Applied],
        Target::Refuses if run.folding_hides => vec![Allowed::DeadLettered, Allowed::Hidden],
        Target::Refuses => vec![Allowed::DeadLettered],
        Target::RefusesUntilMended => vec![Allowed::Applied, Allowed::DeadLettered],
        Target::LockedUntilMended if run.give_up => vec![Allowed::Applied, Allowed::Parked],
        Target::LockedUntilMended => vec![Allowed::Applied],
    }
}

impl Allowed {
    fn verdict(self) -> Verdict {
        match self {
            Self::Stale => Verdict::Stale,
            Self::Duplicate => Verdict::Duplicate,
            Self::Parked => Verdict::Parked,
            Self::DeadLettered => Verdict::DeadLettered,
            Self::Applied | Self::Hidden => Verdict::Applied,
        }
    }

    fn follows<'w>(self, before: &Moment<'w>, spec: &'w Spec) -> Moment<'w> {
        let (row, at) = (before.row, (spec.partition, spec.offset));
        let row = match self {
            Self::Stale | Self::Duplicate => row,
            Self::Parked | Self::DeadLettered => Some(Known {
                version: row.and_then(|row| row.version),
                event_id: row.and_then(|row| row.event_id),
                at,
                deleted: row.is_some_and(|row| row.deleted),
                parked: true,
            }),
            Self::Applied | Self::Hidden => Some(Known {
                version: spec.version.map(|version| version.0).or(row.and_then(|row| row.version)),
                event_id: Some(&spec.event_id),
                at,
                deleted: spec.meaning == Meaning::Delete,
                parked: false,
            }),
        };
        let owes = (self == Self::Hidden).then_some(spec.partition);
        Moment { row, owes, ..*before }
    }
}

/// Unversioned events of several partitions: the last arrival wins, and what is read again arrives
/// again. What each record may end as is known all the same.
fn wrong_in_any_order(
    work: &Workload,
    tables: &Tables,
    aggregate: usize,
    run: &RunFacts,
) -> Option<String> {
    let of: Vec<Rec> = (0..work.records.len())
        .filter(|&rec| work.records[rec].aggregate == Some(aggregate))
        .collect();
    let may_park = |spec: &Spec| match (spec.meaning, spec.target) {
        (Meaning::Undecodable, _) => true,
        (Meaning::Skip, _) => false,
        (Meaning::Unmatched, _) if !run.new_route => false,
        (_, Target::LockedUntilMended) => run.give_up,
        (_, Target::Refuses | Target::RefusesUntilMended) => true,
        (_, Target::Takes | Target::MissingUntilMended) => false,
    };
    of.iter().find_map(|&rec| {
        let spec = &work.records[rec];
        let others = || of.iter().filter(|&&other| other != rec).map(|&other| &work.records[other]);
        let mut allowed = match spec.meaning {
            Meaning::Skip => vec![Verdict::Skipped],
            Meaning::Unmatched if !run.new_route => vec![Verdict::DeadLettered],
            Meaning::Undecodable => vec![Verdict::DeadLettered],
            // It was sent after the aggregate had ended.
            Meaning::Write if spec.after.is_some() => Vec::new(),
            Meaning::Unmatched | Meaning::Write | Meaning::Delete | Meaning::Halting => {
                target(spec, run).into_iter().map(Allowed::verdict).collect()
            }
        };
        let ordered = !matches!(spec.meaning, Meaning::Skip)
            && (spec.meaning != Meaning::Unmatched || run.new_route);
        if spec.meaning == Meaning::Unmatched && run.new_route {
            allowed.push(Verdict::DeadLettered);
        }
        if ordered && others().any(may_park) {
            allowed.push(Verdict::Parked);
        }
        let ends =
            |other: &Spec| other.meaning == Meaning::Delete && other.partition != spec.partition;
        if ordered && spec.meaning != Meaning::Undecodable && others().any(ends) {
            allowed.push(Verdict::Stale);
        }
        let note = tables.notes[rec];
        (!allowed.iter().any(|verdict| Some(*verdict) == note)).then(|| {
            let (partition, offset) = (spec.partition, spec.offset);
            format!("record {partition}/{offset} ended as {note:?}, allowed are {allowed:?}")
        })
    })
}
