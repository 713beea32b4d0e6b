//! The tables of Postgres and the statements that change them, with exactly the conditions that
//! the real SQL carries. A commit without a flush can be taken back by a crash, in the order of
//! the log, until a synchronous commit comes after it.
//!
//! Each condition can be removed ([`Guards`]): the mutation tests prove that the checker notices.

use std::rc::Rc;

use super::checker::{Checker, Writer};
use super::swarm::Rng;
use super::workload::{Meaning, Rec, Target, Workload, partition_of};
use crate::fault::{Fault, FaultKind, SqlState};
use crate::group::{Group, GroupKind, GroupReply, Progress};
use crate::record::{Anchor, NextOffset, OwnerEpoch};
use crate::verdict::{GapPolicy, Judgement, LedgerRow, Verdict, judge};

/// Why a letter lies in `dead_letter_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disposition {
    /// The record itself cannot be applied.
    Poison,
    /// It waits behind one that cannot.
    Parked,
}

/// A row of `stream_t`.
#[derive(Debug, Clone, Default)]
pub(super) struct StreamRow {
    /// It has a position.
    pub(super) known: bool,
    /// Progress.
    pub(super) next: i64,
    /// How often it was taken.
    pub(super) epoch: i64,
    /// The last finished record.
    pub(super) anchor: Option<Anchor>,
}

/// What is stored, committed or not yet flushed.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// `aggregate_t`, by aggregate.
    pub(super) ledger: Vec<Option<LedgerRow>>,
    /// `dead_letter_t`, by record.
    pub(super) letters: Vec<Option<Disposition>>,
    /// `notification_t`, by record.
    pub(super) notes: Vec<Option<Verdict>>,
    /// How often each record took effect in the target, by record.
    pub(super) effects: Vec<u8>,
    /// `stream_t`, by partition; every write to it is synchronous.
    pub(super) streams: Vec<StreamRow>,
}

/// One written row.
#[derive(Debug)]
pub(super) enum Row {
    /// The ledger row of an aggregate.
    Ledger(usize, Option<LedgerRow>),
    /// A new letter.
    Letter(Rec, Option<Disposition>),
    /// A new notification.
    Note(Rec, Option<Verdict>),
    /// A change of the target; the count after it.
    Effect(Rec, u8),
}

/// The conditions in the SQL that the promise rests on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guards {
    /// The fast statement compares versions.
    pub(super) ledger_condition: bool,
    /// The fast statement compares the stored position with the group's first record.
    pub(super) position_compare: bool,
    /// The fast statement refuses a parked aggregate.
    pub(super) parked_check: bool,
    /// The fast statement refuses a group with a letter among its records.
    pub(super) fast_letter_check: bool,
    /// The slow lane settles a record that has a letter.
    pub(super) slow_letter_check: bool,
    /// Progress is a compare-and-set on the owner's epoch.
    pub(super) owner_advances: bool,
    /// Another position than the database's is a compare-and-set on the owner's epoch.
    pub(super) owner_repositions: bool,
    /// Letters are written by the owner only.
    pub(super) owner_dead_letters: bool,
    /// The barrier sees the session's own lock.
    pub(super) lock_check: bool,
    /// The slow lane writes on the very row that it judged.
    pub(super) judged_row: bool,
    /// A position beyond the log's end is compared once more with what Kafka says after the claim.
    pub(super) end_asked_again: bool,
}

impl Guards {
    /// All of them, as released.
    pub(super) const ALL: Self = Self {
        ledger_condition: true,
        position_compare: true,
        parked_check: true,
        fast_letter_check: true,
        slow_letter_check: true,
        owner_advances: true,
        owner_repositions: true,
        owner_dead_letters: true,
        lock_check: true,
        judged_row: true,
        end_asked_again: true,
    };
}

/// The database.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) work: Rc<Workload>,
    pub(super) tables: Tables,
    pub(super) guards: Guards,
    /// What happens when versions are missing.
    pub(super) gaps: GapPolicy,
    /// See [`super::swarm::Swarm::folding_hides`].
    pub(super) folding_hides: bool,
    /// The operator has mended the target.
    pub(super) mended: bool,
    /// The brake on dead letters holds.
    pub(super) braked: bool,
    /// See [`super::swarm::Swarm::synchronous`].
    pub(super) synchronous: bool,
    unflushed: Vec<Vec<Row>>,
}

/// A fault with this SQLSTATE.
pub(super) fn server_fault(code: &[u8; 5]) -> Fault {
    Fault::new(FaultKind::Server(SqlState(*code)))
}

/// A lock was not to be had in time.
pub(super) const LOCK_NOT_AVAILABLE: &[u8; 5] = b"55P03";
/// A conflict with another transaction.
pub(super) const SERIALIZATION: &[u8; 5] = b"40001";
/// A constraint of the target refused the row.
pub(super) const CHECK_VIOLATION: &[u8; 5] = b"23514";
const UNDEFINED_TABLE: &[u8; 5] = b"42P01";

impl Database {
    /// Empty tables.
    pub(super) fn new(work: &Rc<Workload>, guards: Guards) -> Self {
        let records = work.records.len();
        Self {
            work: Rc::clone(work),
            tables: Tables {
                ledger: vec![None; work.aggregates.len()],
                letters: vec![None; records],
                notes: vec![None; records],
                effects: vec![0; records],
                streams: vec![StreamRow::default(); work.logs.len()],
            },
            guards,
            gaps: GapPolicy::Apply,
            folding_hides: false,
            mended: false,
            braked: false,
            synchronous: false,
            unflushed: Vec::new(),
        }
    }

    /// Commits; `flushed` makes this and every earlier commit durable.
    pub(super) fn commit(&mut self, rows: Vec<Row>, flushed: bool) {
        let undo = rows.into_iter().rev().map(|row| self.put(row)).collect::<Vec<_>>();
        if flushed || self.synchronous {
            self.unflushed.clear();
        } else if !undo.is_empty() {
            self.unflushed.push(undo);
        }
    }

    /// Writes a row and returns the one it replaced. Rows of one commit are distinct.
    fn put(&mut self, row: Row) -> Row {
        let t = &mut self.tables;
        match row {
            Row::Ledger(a, new) => Row::Ledger(a, std::mem::replace(&mut t.ledger[a], new)),
            Row::Letter(r, new) => Row::Letter(r, std::mem::replace(&mut t.letters[r], new)),
            Row::Note(r, new) => Row::Note(r, std::mem::replace(&mut t.notes[r], new)),
            Row::Effect(r, new) => Row::Effect(r, std::mem::replace(&mut t.effects[r], new)),
        }
    }

    /// The server crashes: some of the newest commits that were not flushed are gone. Returns how
    /// many.
    pub(super) fn crash(&mut self, rng: &mut Rng) -> usize {
        let kept = rng.below(self.unflushed.len() + 1);
        let lost = self.unflushed.split_off(kept);
        let count = lost.len();
        for commit in lost.into_iter().rev() {
            for row in commit {
                self.put(row);
            }
        }
        self.unflushed.clear();
        count
    }

    /// The fast statement for the groups of one transaction.
    pub(super) fn apply(&mut self, groups: &[Group], checker: &mut Checker) -> Vec<GroupReply> {
        let all = |reply: GroupReply| vec![reply; groups.len()];
        let moves: Vec<bool> = groups.iter().map(|g| self.may_move(g)).collect();
        for (group, moves) in groups.iter().zip(&moves) {
            if *moves && let Some(fault) = self.refusal(&self.records(group), true) {
                return all(GroupReply::Failed(fault));
            }
        }
        let mut rows = Vec::new();
        let mut replies = Vec::with_capacity(groups.len());
        for (group, moves) in groups.iter().zip(&moves) {
            let records = self.records(group);
            if group.kind == GroupKind::Skip {
                self.note_all(&mut rows, &records, Verdict::Skipped);
                replies.push(done(vec![Verdict::Skipped; records.len()], 0));
            } else if *moves {
                let gap = self.gap_before(records[0]);
                self.effects(&mut rows, &records, checker);
                self.note_all(&mut rows, &records, Verdict::Applied);
                self.move_ledger(&mut rows, &records);
                replies.push(done(vec![Verdict::Applied; records.len()], gap));
            } else {
                replies.push(GroupReply::Refused);
            }
        }
        self.commit(rows, false);
        replies
    }

    pub(super) fn records(&self, group: &Group) -> Vec<Rec> {
        group.events.iter().map(|e| self.work.of(e)).collect()
    }

    /// The condition of the fast statement: no row back means refused.
    fn may_move(&self, group: &Group) -> bool {
        if group.kind == GroupKind::Skip {
            return false;
        }
        let (first, last) = (group.first().offset().0, group.last().offset().0);
        let rec = self.work.of(group.first());
        let spec = &self.work.records[rec];
        let letters = self.work.logs[spec.partition][first as usize..=last as usize]
            .iter()
            .flatten()
            .any(|&r| self.tables.letters[r].is_some());
        if letters && self.guards.fast_letter_check {
            return false;
        }
        let Some(aggregate) = spec.aggregate else { return false };
        let Some(row) = &self.tables.ledger[aggregate] else { return true };
        let same_stream = row.position.stream == spec.id().stream;
        let later = !same_stream || row.position.offset.0 < first;
        let version = if row.deleted {
            same_stream
        } else {
            match (spec.version, row.version) {
                (Some(new), Some(stored)) => {
                    new > stored && (self.gaps == GapPolicy::Apply || new.0 == stored.0 + 1)
                }
                _ => true,
            }
        };
        (!row.parked || !self.guards.parked_check)
            && (later || !self.guards.position_compare)
            && (version || !self.guards.ledger_condition)
    }

    fn gap_before(&self, rec: Rec) -> i64 {
        let spec = &self.work.records[rec];
        let row = spec.aggregate.and_then(|a| self.tables.ledger[a].as_ref());
        match judge(row, &spec.candidate(), GapPolicy::Apply) {
            Judgement::Apply { gap } => gap,
            _ => 0,
        }
    }

    /// The fault the target answers a write of these records with, if it refuses it.
    pub(super) fn refusal(&self, records: &[Rec], folded: bool) -> Option<Fault> {
        if self.mended && records.iter().all(|&r| self.target(r) != Target::Refuses) {
            return None;
        }
        if !self.mended && records.iter().any(|&r| self.target(r) == Target::MissingUntilMended) {
            return Some(server_fault(UNDEFINED_TABLE));
        }
        if !self.mended && records.iter().any(|&r| self.target(r) == Target::LockedUntilMended) {
            return Some(server_fault(LOCK_NOT_AVAILABLE));
        }
        let written =
            if folded && self.folding_hides { &records[records.len() - 1..] } else { records };
        let refuses = |&r: &Rec| match self.target(r) {
            Target::Refuses => true,
            Target::RefusesUntilMended => !self.mended,
            Target::Takes | Target::MissingUntilMended | Target::LockedUntilMended => false,
        };
        written.iter().any(refuses).then(|| server_fault(CHECK_VIOLATION))
    }

    fn target(&self, rec: Rec) -> Target {
        self.work.records[rec].target
    }

    pub(super) fn effects(&self, rows: &mut Vec<Row>, records: &[Rec], checker: &mut Checker) {
        for (i, &rec) in records.iter().enumerate() {
            checker.takes_effect(&self.tables, &records[..i], rec);
            rows.push(Row::Effect(rec, self.tables.effects[rec].saturating_add(1)));
        }
    }

    pub(super) fn note_all(&self, rows: &mut Vec<Row>, records: &[Rec], verdict: Verdict) {
        // On conflict do nothing: the first outcome stays.
        let missing = records.iter().filter(|&&r| self.tables.notes[r].is_none());
        rows.extend(missing.map(|&r| Row::Note(r, Some(verdict))));
    }

    fn move_ledger(&self, rows: &mut Vec<Row>, records: &[Rec]) {
        let Some(aggregate) = self.work.records[records[0]].aggregate else { return };
        let mut row = self.tables.ledger[aggregate].clone();
        for &rec in records {
            row = Some(self.applied(row.as_ref(), rec));
        }
        rows.push(Row::Ledger(aggregate, row));
    }

    pub(super) fn applied(&self, row: Option<&LedgerRow>, rec: Rec) -> LedgerRow {
        let spec = &self.work.records[rec];
        LedgerRow::applied(row, &spec.candidate(), spec.meaning == Meaning::Delete)
    }

    /// The barrier. Returns the partitions that were advanced.
    pub(super) fn advance(&mut self, progress: &[Progress], checker: &mut Checker) -> Vec<usize> {
        self.commit(Vec::new(), true);
        checker.flushed(&self.tables);
        let mut advanced = Vec::new();
        for entry in progress {
            let partition = partition_of(entry.stream);
            let owned = self.tables.streams[partition].epoch == entry.epoch.0;
            if owned || !self.guards.owner_advances {
                let writer = Writer { partition, epoch: entry.epoch };
                checker.advance(&self.tables, writer, entry.next);
                let row = &mut self.tables.streams[partition];
                row.next = entry.next.0;
                row.anchor = entry.anchor;
                advanced.push(partition);
            }
        }
        advanced
    }

    /// Takes ownership: the epoch rises. Returns the position, if the row has one.
    pub(super) fn claim(
        &mut self,
        partition: usize,
        checker: &mut Checker,
    ) -> (OwnerEpoch, Option<NextOffset>, Option<Anchor>) {
        self.commit(Vec::new(), true);
        checker.flushed(&self.tables);
        let row = &mut self.tables.streams[partition];
        row.epoch += 1;
        (OwnerEpoch(row.epoch), row.known.then_some(NextOffset(row.next)), row.anchor)
    }

    /// Writes another position than the row had. Returns whether we still own the stream.
    pub(super) fn reposition(
        &mut self,
        writer: Writer,
        next: NextOffset,
        checker: &mut Checker,
    ) -> bool {
        self.commit(Vec::new(), true);
        checker.flushed(&self.tables);
        let owned = self.tables.streams[writer.partition].epoch == writer.epoch.0;
        if owned || !self.guards.owner_repositions {
            checker.reposition(&self.tables, writer);
            let row = &mut self.tables.streams[writer.partition];
            row.known = true;
            row.next = next.0;
            row.anchor = None;
        }
        owned || !self.guards.owner_repositions
    }
}

pub(super) fn done(verdicts: Vec<Verdict>, gap: i64) -> GroupReply {
    GroupReply::Done { verdicts, gap }
}
