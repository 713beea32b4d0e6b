//! The tables of Postgres and the statements that change them, with exactly the conditions that
//! the real SQL carries (`model_statement.rs`). A commit without a flush can be taken back by a
//! crash, in the order of the log, until a synchronous commit comes after it.
//!
//! Each condition can be removed ([`ModelGuard`]): the mutation tests prove that the checker notices.
//! What the answers mean is the product's own to say: faults have the server's codes, and the
//! product's table decides on them.

use std::rc::Rc;

use super::checker::{Checker, Writer};
use super::model_statement::{self, Last, ModelGuard, Proposed};
use super::model_transaction::part;
use super::swarm::Rng;
use super::workload::{Meaning, Rec, Target, Workload, partition_of};
use crate::fault::FaultPolicy;
use crate::fault::{Decision, Fault, FaultKind, SqlState};
use crate::group::{Group, GroupReply, Progress};
use crate::record::{Anchor, NextOffset, OwnerEpoch};
use crate::verdict::{Disposition, GapPolicy, LedgerRow, Verdict};

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

/// The database.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) work: Rc<Workload>,
    pub(super) tables: Tables,
    /// The guard that is taken away.
    pub(super) removed: Option<ModelGuard>,
    /// The product's table from fault to decision.
    pub(super) policy: FaultPolicy,
    /// How often a transaction with this record was refused for its data, by record.
    pub(super) refused: Vec<u32>,
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
/// What rolls a transaction back for nothing of its own: a conflict, a deadlock, a lock.
pub(super) const TRANSIENT: [&[u8; 5]; 3] = [b"40001", b"40P01", LOCK_NOT_AVAILABLE];
/// What a target refuses a row with: constraints, a value, a trigger that raises.
const REFUSALS: [&[u8; 5]; 5] = [b"23514", b"23505", b"22003", b"P0001", b"23502"];
const UNDEFINED_TABLE: &[u8; 5] = b"42P01";

/// What the server answers where the target refuses this record's data.
fn refusal_of(rec: Rec) -> Fault {
    let code = REFUSALS[rec % REFUSALS.len()];
    let constraint = code.starts_with(b"23").then(|| "orders_check".into());
    Fault { constraint, raised: code.starts_with(b"P0"), ..server_fault(code) }
}

impl Database {
    /// Empty tables.
    pub(super) fn new(work: &Rc<Workload>, removed: Option<ModelGuard>) -> Self {
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
            removed,
            policy: FaultPolicy::default(),
            refused: vec![0; records],
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

    /// Whether a guard of the models is in place.
    pub(super) fn keeps(&self, guard: ModelGuard) -> bool {
        self.removed != Some(guard)
    }

    /// The fast statement for the groups of one transaction.
    pub(super) fn apply(&mut self, groups: &[Group], checker: &mut Checker) -> Vec<GroupReply> {
        if groups.iter().all(Group::is_skip) {
            let mut rows = Vec::new();
            for group in groups {
                self.note_all(&mut rows, &self.records(group), Verdict::Skipped);
            }
            self.commit(rows, false);
            let skipped = |n| GroupReply::Done { verdicts: vec![Verdict::Skipped; n], gap: 0 };
            return groups.iter().map(|group| skipped(group.events().count())).collect();
        }
        let moves: Vec<bool> = groups.iter().map(|g| self.may_move(g)).collect();
        for (group, moves) in groups.iter().zip(&moves) {
            if *moves && let Some(fault) = self.refusal(&self.records(group), true) {
                self.count_refusal(group, &fault);
                return self.unwritten(&fault, groups);
            }
        }
        let mut rows = Vec::new();
        let mut replies = Vec::with_capacity(groups.len());
        for (group, moves) in groups.iter().zip(&moves) {
            let gap = moves.then(|| self.write(group, &mut rows, checker));
            let reply = part(group).moved(gap);
            if let GroupReply::Done { gap, .. } = reply {
                checker.gap(&self.tables, &self.records(group), gap);
            }
            replies.push(reply);
        }
        self.commit(rows, false);
        replies
    }

    /// The answers of a fast statement that failed.
    pub(super) fn unwritten(&self, fault: &Fault, groups: &[Group]) -> Vec<GroupReply> {
        let ends = self.policy.ends_session(fault);
        groups.iter().map(|_| GroupReply::unwritten(fault, groups.len(), ends)).collect()
    }

    /// What the fast statement writes for a group that moves. Returns the gap of the moved row.
    fn write(&self, group: &Group, rows: &mut Vec<Row>, checker: &mut Checker) -> i64 {
        let records = self.records(group);
        let Some(aggregate) = self.aggregate_of(group) else { return 0 };
        for (i, &rec) in records.iter().enumerate() {
            checker.takes_effect(&self.tables, &records[..i], rec);
            rows.push(Row::Effect(rec, self.tables.effects[rec].saturating_add(1)));
        }
        self.note_all(rows, &records, Verdict::Applied);
        let row = self.tables.ledger[aggregate].as_ref();
        rows.push(Row::Ledger(aggregate, Some(self.moved(row, &records))));
        model_statement::gap(row, records.iter().find_map(|&rec| self.work.records[rec].version))
    }

    /// The ledger row after a statement wrote these records.
    pub(super) fn moved(&self, row: Option<&LedgerRow>, records: &[Rec]) -> LedgerRow {
        let spec = &self.work.records[records[records.len() - 1]];
        let last = Last {
            position: spec.id(),
            event_id: &spec.event_id,
            version: records.iter().rev().find_map(|&rec| self.work.records[rec].version),
            deletes: spec.meaning == Meaning::Delete,
        };
        model_statement::moved(row, last, |guard| self.keeps(guard))
    }

    pub(super) fn records(&self, group: &Group) -> Vec<Rec> {
        group.events().map(|e| self.work.of(e)).collect()
    }

    /// The condition of the fast statement: no row back means refused.
    fn may_move(&self, group: &Group) -> bool {
        let Some(aggregate) = self.aggregate_of(group) else { return false };
        let first = &self.work.records[self.work.of(group.first())];
        let range = group.first().offset().0 as usize..=group.last().offset().0 as usize;
        let mut between = self.work.logs[first.partition][range].iter().flatten();
        let proposed = Proposed {
            first: first.id(),
            version: self.records(group).into_iter().find_map(|r| self.work.records[r].version),
            lettered: between.any(|&rec| self.tables.letters[rec].is_some()),
        };
        let row = self.tables.ledger[aggregate].as_ref();
        model_statement::moves(row, proposed, self.gaps, |guard| self.keeps(guard))
    }

    /// A transaction of the group was refused for what one of its events wanted written.
    pub(super) fn count_refusal(&mut self, group: &Group, fault: &Fault) {
        if matches!(self.policy.decide(fault), Decision::Isolate(_)) {
            for event in group.events() {
                self.refused[self.work.of(event)] += 1;
            }
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
        written.iter().copied().find(|r| refuses(r)).map(refusal_of)
    }

    fn target(&self, rec: Rec) -> Target {
        self.work.records[rec].target
    }

    pub(super) fn note_all(&self, rows: &mut Vec<Row>, records: &[Rec], verdict: Verdict) {
        // On conflict do nothing: the first outcome stays.
        let missing = records.iter().filter(|&&r| self.tables.notes[r].is_none());
        rows.extend(missing.map(|&r| Row::Note(r, Some(verdict))));
    }

    /// The barrier. Returns the partitions that were advanced.
    pub(super) fn advance(&mut self, progress: &[Progress], checker: &mut Checker) -> Vec<usize> {
        self.commit(Vec::new(), true);
        checker.flushed(&self.tables);
        let mut advanced = Vec::new();
        for entry in progress {
            let partition = partition_of(entry.stream);
            let owned = self.tables.streams[partition].epoch == entry.epoch.0;
            if owned || !self.keeps(ModelGuard::OwnerAdvances) {
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
        if owned || !self.keeps(ModelGuard::OwnerRepositions) {
            checker.reposition(&self.tables, writer);
            let row = &mut self.tables.streams[writer.partition];
            row.known = true;
            row.next = next.0;
            row.anchor = None;
        }
        owned || !self.keeps(ModelGuard::OwnerRepositions)
    }
}
