//! Watches every step. Whatever a model is about to store is shown to the checker first; it keeps
//! the first violation of an invariant and what the process did to cause it.

use std::fmt;
use std::rc::Rc;

use super::model_postgres::Tables;
use super::oracle::{RunFacts, wrong};
use super::workload::{Meaning, Rec, Workload, index_of, stream_of};
use crate::course::Outcome;
use crate::input::MirrorPosition;
use crate::record::{NextOffset, OwnerEpoch};
use crate::verdict::{Disposition, Verdict};

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    /// The invariant's number in the design, or another name.
    pub(super) invariant: &'static str,
    /// What happened.
    pub(super) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Who writes something that only an owner may write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer {
    /// The partition written for.
    pub(super) partition: usize,
    /// The ownership the writer believes in.
    pub(super) epoch: OwnerEpoch,
}

/// The checker of one run.
#[derive(Debug)]
pub(super) struct Checker {
    work: Rc<Workload>,
    first: Option<Violation>,
    /// Per partition: every record below has an outcome that no crash can take back.
    durable: Vec<i64>,
    /// Per partition: the last epoch that advanced, and how far.
    advanced: Vec<(OwnerEpoch, i64)>,
}

impl Checker {
    /// Nothing happened yet.
    pub(super) fn new(work: &Rc<Workload>) -> Self {
        let partitions = work.logs.len();
        Self {
            work: Rc::clone(work),
            first: None,
            durable: vec![0; partitions],
            advanced: vec![(OwnerEpoch(0), 0); partitions],
        }
    }

    /// The first violation.
    pub(super) fn violation(&self) -> Option<&Violation> {
        self.first.as_ref()
    }

    /// Reports a violation unless `holds`.
    pub(super) fn require(
        &mut self,
        holds: bool,
        invariant: &'static str,
        what: impl FnOnce() -> String,
    ) {
        if !holds && self.first.is_none() {
            self.first = Some(Violation { invariant, what: what() });
        }
    }

    fn place(&self, rec: Rec) -> String {
        let spec = &self.work.records[rec];
        let (partition, offset, aggregate) = (spec.partition, spec.offset, spec.aggregate);
        format!("record {partition}/{offset} of aggregate {aggregate:?}")
    }

    /// A record is about to take effect, in one transaction with the records `with` before it.
    pub(super) fn takes_effect(&mut self, tables: &Tables, with: &[Rec], rec: Rec) {
        let place = self.place(rec);
        let letter = tables.letters[rec];
        let (effects, note) = (tables.effects[rec], tables.notes[rec]);
        let again = self.work.arrives_again(rec);
        self.require(effects == 0 || again, "INV-4", || format!("{place} takes effect twice"));
        self.require(letter.is_none(), "INV-4", || format!("{place} is applied over its letter"));
        self.require(note.is_none() || effects > 0 || letter.is_some(), "INV-5", || {
            format!("{place} is applied after it ended as {note:?}")
        });
        self.in_order(tables, with, rec, &place);
        let spec = &self.work.records[rec];
        let row = spec.aggregate.and_then(|a| tables.ledger[a].as_ref());
        let parked = row.is_some_and(|row| row.parked);
        self.require(!parked, "INV-8", || format!("{place} is applied behind a dead letter"));
        if !with.is_empty() {
            return;
        }
        let Some(row) = row.filter(|row| !row.deleted) else { return };
        let version = self.work.records[rec].version;
        let stored = row.version;
        let older = version.is_some() && stored.is_some() && version <= stored;
        self.require(!older, "INV-3", || {
            format!("{place} with version {version:?} overwrites {stored:?}")
        });
    }

    fn in_order(&mut self, tables: &Tables, with: &[Rec], rec: Rec, place: &str) {
        let Some(previous) = self.work.records[rec].previous else { return };
        let before = self.place(previous);
        let settled = tables.notes[previous].is_some() || with.contains(&previous);
        self.require(settled, "INV-3", || format!("{place} overtakes {before}"));
    }

    /// A letter is about to be written, in one transaction with the records `with` before it.
    pub(super) fn letter(&mut self, tables: &Tables, with: &[Rec], rec: Rec, writer: Writer) {
        let place = self.place(rec);
        self.owner(tables, writer, "writes a letter");
        let (note, letter) = (tables.notes[rec], tables.letters[rec]);
        let again = self.work.arrives_again(rec) && note == Some(Verdict::Applied);
        self.require(note.is_none() || letter.is_some() || again, "INV-4", || {
            format!("{place} is dead-lettered after it ended as {note:?}")
        });
        self.require(letter.is_none(), "INV-4", || format!("{place} is dead-lettered twice"));
        if self.work.records[rec].meaning != Meaning::Unmatched {
            self.in_order(tables, with, rec, &place);
        }
    }

    /// What a letter of the target's refusal rests on: a second failure, and a brake that was asked.
    pub(super) fn poison(&mut self, rec: Rec, outcome: &Outcome, refused: u32, braked: bool) {
        if outcome.verdict != Verdict::DeadLettered {
            return;
        }
        let place = self.place(rec);
        self.require(!braked, "brake", || format!("{place} is dead-lettered although it holds"));
        self.require(outcome.fault.is_none() || refused > 1, "INV-7", || {
            format!("{place} is dead-lettered at its first failure")
        });
    }

    /// A transaction applies these records of one aggregate, and its answer tells how many versions
    /// were missing: before each of them, all together. Before what begins a deleted aggregate
    /// anew nothing is missing.
    pub(super) fn gap(&mut self, tables: &Tables, applied: &[Rec], told: i64) {
        let Some(&first) = applied.first() else { return };
        let work = Rc::clone(&self.work);
        let row = work.records[first].aggregate.and_then(|a| tables.ledger[a].as_ref());
        let own = stream_of(work.records[first].partition);
        let mut anew = row.is_some_and(|row| row.deleted && row.position.stream == own);
        let mut stored = row.and_then(|row| row.version);
        let mut missing = 0;
        for spec in applied.iter().map(|&rec| &work.records[rec]) {
            if let (Some(version), Some(stored), false) = (spec.version, stored, anew) {
                missing += version.0 - stored.0 - 1;
            }
            stored = spec.version.or(stored);
            anew = spec.meaning == Meaning::Delete;
        }
        let place = self.place(first);
        self.require(told == missing, "gap", || {
            format!("{missing} versions are missing from {place} on, {told} are told")
        });
    }

    fn owner(&mut self, tables: &Tables, writer: Writer, act: &str) {
        let (partition, epoch) = (writer.partition, writer.epoch);
        let current = tables.streams[partition].epoch;
        self.require(epoch.0 == current, "INV-10", || {
            format!("epoch {epoch:?} of partition {partition} {act}, the owner is {current}")
        });
    }

    /// Progress is about to be written by the barrier, after everything else was flushed.
    pub(super) fn advance(&mut self, tables: &Tables, writer: Writer, next: NextOffset) {
        self.owner(tables, writer, "advances");
        let partition = writer.partition;
        let finished = self.durable[partition];
        self.require(next.0 <= finished, "INV-1", || {
            format!("partition {partition} advances to {next:?}, record {finished} is unfinished")
        });
        let (epoch, before) = self.advanced[partition];
        self.require(epoch != writer.epoch || next.0 >= before, "INV-1", || {
            format!("partition {partition} goes back from {before} to {next:?} in one epoch")
        });
        self.advanced[partition] = (writer.epoch, next.0);
    }

    /// A take is about to write another position than the database's.
    pub(super) fn reposition(&mut self, tables: &Tables, writer: Writer) {
        self.owner(tables, writer, "writes a position");
    }

    /// Kafka's committed offset is about to follow.
    pub(super) fn mirror(&mut self, position: &MirrorPosition) {
        let (partition, next) = (index_of(&position.partition), position.next);
        let finished = self.durable[partition];
        self.require(next.0 <= finished, "INV-1", || {
            format!("partition {partition} mirrors {next:?}, record {finished} is unfinished")
        });
    }

    /// Everything committed so far became durable.
    pub(super) fn flushed(&mut self, tables: &Tables) {
        for (log, durable) in self.work.logs.iter().zip(&mut self.durable) {
            while let Some(entry) = log.get(*durable as usize) {
                if entry.is_some_and(|rec| tables.notes[rec].is_none()) {
                    break;
                }
                *durable += 1;
            }
        }
    }

    /// The record has an outcome that no crash can take back, and so has everything before it.
    pub(super) fn is_finished(&self, rec: Rec) -> bool {
        let spec = &self.work.records[rec];
        self.durable[spec.partition] > spec.offset
    }

    /// How far a partition is finished for good.
    pub(super) fn finished(&self, partition: usize) -> i64 {
        self.durable[partition]
    }

    /// The end of a run: one outcome a record, and where only one outcome is possible, that one.
    pub(super) fn conclude(&mut self, tables: &Tables, run: &RunFacts) {
        for rec in 0..self.work.records.len() {
            let place = self.place(rec);
            let (note, letter, effects) =
                (tables.notes[rec], tables.letters[rec], tables.effects[rec]);
            let consistent = match note {
                Some(Verdict::Applied) if self.work.arrives_again(rec) => effects > 0,
                Some(Verdict::Applied) => letter.is_none() && effects == 1,
                Some(Verdict::DeadLettered) => letter == Some(Disposition::Poison) && effects == 0,
                Some(Verdict::Parked) => letter == Some(Disposition::Parked) && effects == 0,
                Some(Verdict::Duplicate | Verdict::Stale | Verdict::Skipped) => {
                    letter.is_none() && effects == 0
                }
                Some(Verdict::Rejected | Verdict::Discarded) | None => false,
            };
            self.require(consistent, "INV-5", || {
                format!("{place} ends as {note:?} with letter {letter:?} and {effects} effects")
            });
        }
        self.poison_parks(tables);
        for aggregate in 0..self.work.aggregates.len() {
            self.against_oracle(tables, aggregate, run);
        }
    }

    /// INV-8: behind a poison record everything of its aggregate is parked.
    fn poison_parks(&mut self, tables: &Tables) {
        for rec in 0..self.work.records.len() {
            let Some(previous) = self.work.records[rec].previous else { continue };
            let unmatched = self.work.records[rec].meaning == Meaning::Unmatched;
            let again = self.work.arrives_again(rec);
            if tables.letters[previous].is_some() && !unmatched && !again {
                let place = self.place(rec);
                let note = tables.notes[rec];
                // A copy of an older event that comes through another partition is known as such.
                let spread = self.work.records[rec]
                    .aggregate
                    .is_some_and(|a| !self.work.aggregates[a].is_single());
                let late = spread && matches!(note, Some(Verdict::Stale | Verdict::Duplicate));
                self.require(late || note == Some(Verdict::Parked), "INV-8", || {
                    format!("{place} ended as {note:?} behind a dead letter")
                });
            }
        }
    }

    fn against_oracle(&mut self, tables: &Tables, aggregate: usize, run: &RunFacts) {
        let work = Rc::clone(&self.work);
        let wrong = wrong(&work, tables, aggregate, run);
        self.require(wrong.is_none(), "oracle", || wrong.unwrap_or_default());
    }
}
