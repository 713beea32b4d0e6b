//! The slow lane's statements: look, decide on the row with the very rule the product uses, and
//! write everything that follows in one synchronous transaction.

use super::checker::{Checker, Writer};
use super::model_postgres::{
    CHECK_VIOLATION, Database, Disposition, LOCK_NOT_AVAILABLE, Row, SERIALIZATION, done,
    server_fault,
};
use super::workload::{Rec, partition_of};
use crate::fault::{Fault, FaultKind, SqlState};
use crate::group::{Group, GroupKind, GroupReply};
use crate::record::{Offset, RecordId};
use crate::verdict::{Judgement, LedgerRow, Reason, Verdict, judge};

/// What the slow lane decided about each event of a group, on the row it read.
#[derive(Debug)]
pub(super) struct Ruling {
    seen: Option<RecordId>,
    verdicts: Vec<(Verdict, Outcome)>,
    gap: i64,
}

impl Ruling {
    /// The row existed when it was read, so it is locked until the transaction ends.
    pub(super) fn holds_lock(&self) -> bool {
        self.seen.is_some()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Settled,
    Apply,
    Note,
    Letter(Disposition),
}

impl Outcome {
    /// It moves the ledger row.
    fn moves(&self) -> bool {
        matches!(self, Self::Apply | Self::Letter(_))
    }
}

/// The target refused the data.
fn refused(fault: &Fault) -> bool {
    fault.sqlstate() == Some(SqlState(*CHECK_VIOLATION))
}

/// Somebody else holds the row.
fn locked(fault: &Fault) -> bool {
    fault.sqlstate() == Some(SqlState(*LOCK_NOT_AVAILABLE))
}

/// It has been tried for long enough.
fn exhausted(group: &Group) -> bool {
    group.failure.as_ref().is_some_and(|failure| failure.exhausted)
}

/// A verdict of poison needs a second failure, of data and alone.
fn failed_alike(group: &Group) -> bool {
    group.failure.as_ref().is_some_and(|failure| refused(&failure.fault))
}

impl Database {
    /// The set-based look at the rows of refused groups: what is settled needs nothing more.
    pub(super) fn read(&self, groups: &[Group]) -> Vec<GroupReply> {
        let settled = |rec: &Rec| {
            let spec = &self.work.records[*rec];
            let row = spec.aggregate.and_then(|a| self.tables.ledger[a].as_ref());
            self.tables.letters[*rec].is_some()
                || row.is_some_and(|row| {
                    judge(Some(row), &spec.candidate(), self.gaps) == Judgement::Settled
                })
        };
        groups
            .iter()
            .map(|group| {
                let records = self.records(group);
                if group.aggregate().is_some() && records.iter().all(settled) {
                    done(vec![Verdict::Duplicate; records.len()], 0)
                } else {
                    GroupReply::Unsettled
                }
            })
            .collect()
    }

    /// The first part of the slow lane's transaction: read the row and decide every event on it.
    pub(super) fn rule(&self, group: &Group) -> Result<Ruling, Fault> {
        let aggregate =
            group.aggregate().and(self.work.records[self.work.of(group.first())].aggregate);
        let mut row = aggregate.and_then(|a| self.tables.ledger[a].clone());
        let mut ruling =
            Ruling { seen: row.as_ref().map(|r| r.position), verdicts: Vec::new(), gap: 0 };
        for event in &group.events {
            let rec = self.work.of(event);
            let (outcome, verdict) = self.rule_one(group, rec, row.as_ref(), &mut ruling.gap)?;
            match outcome {
                Outcome::Apply => row = Some(self.applied(row.as_ref(), rec)),
                Outcome::Letter(_) if aggregate.is_some() => {
                    row = Some(parked(row, self.work.records[rec].id()));
                }
                Outcome::Letter(_) | Outcome::Note | Outcome::Settled => {}
            }
            ruling.verdicts.push((verdict, outcome));
        }
        Ok(ruling)
    }

    fn rule_one(
        &self,
        group: &Group,
        rec: Rec,
        row: Option<&LedgerRow>,
        gap: &mut i64,
    ) -> Result<(Outcome, Verdict), Fault> {
        const POISON: (Outcome, Verdict) =
            (Outcome::Letter(Disposition::Poison), Verdict::DeadLettered);
        if self.tables.letters[rec].is_some() && self.guards.slow_letter_check {
            return Ok((Outcome::Settled, Verdict::Duplicate));
        }
        if group.kind == GroupKind::Skip {
            return Ok((Outcome::Note, Verdict::Skipped));
        }
        Ok(match judge(row, &self.work.records[rec].candidate(), self.gaps) {
            Judgement::Settled => (Outcome::Settled, Verdict::Duplicate),
            Judgement::Park(Reason::AggregateParked) => {
                (Outcome::Letter(Disposition::Parked), Verdict::Parked)
            }
            _ if group.kind == GroupKind::Poison => POISON,
            Judgement::Park(_) => (Outcome::Letter(Disposition::Parked), Verdict::Parked),
            Judgement::Note(verdict, _) => (Outcome::Note, verdict),
            Judgement::Poison(_) => POISON,
            Judgement::Apply { gap: missing } => match self.refusal(&[rec], false) {
                None => {
                    *gap = (*gap).max(missing);
                    (Outcome::Apply, Verdict::Applied)
                }
                Some(fault) if refused(&fault) && failed_alike(group) => POISON,
                Some(fault) if locked(&fault) && exhausted(group) => {
                    (Outcome::Letter(Disposition::Parked), Verdict::Parked)
                }
                Some(fault) => return Err(fault),
            },
        })
    }

    /// The second part: everything that follows from the ruling, and the commit, in one flight.
    pub(super) fn carry_out(
        &mut self,
        group: &Group,
        ruling: &Ruling,
        checker: &mut Checker,
    ) -> GroupReply {
        let records = self.records(group);
        let aggregate = group.aggregate().and(self.work.records[records[0]].aggregate);
        let stored = aggregate.and_then(|a| self.tables.ledger[a].clone());
        let changed = stored.as_ref().map(|r| r.position) != ruling.seen && self.guards.judged_row;
        let first_write = ruling.verdicts.iter().map(|(_, outcome)| *outcome).find(Outcome::moves);
        if changed && first_write == Some(Outcome::Apply) {
            return GroupReply::Failed(server_fault(SERIALIZATION));
        }
        let overtaken = changed && aggregate.is_some();
        let partition = partition_of(group.origin.stream);
        let owned = self.tables.streams[partition].epoch == group.origin.epoch.0;
        let has_letters = ruling.verdicts.iter().any(|(_, o)| matches!(o, Outcome::Letter(_)));
        let fenced = has_letters && !owned && self.guards.owner_dead_letters;
        let braked = self.braked_at(group, ruling);
        let mut rows = Vec::new();
        let mut row = stored;
        for (i, (&rec, &(verdict, outcome))) in records.iter().zip(&ruling.verdicts).enumerate() {
            match outcome {
                Outcome::Settled => continue,
                Outcome::Note => {}
                Outcome::Letter(_) if fenced || overtaken || braked.is_some() => break,
                Outcome::Apply => {
                    checker.takes_effect(&self.tables, &records[..i], rec);
                    rows.push(Row::Effect(rec, self.tables.effects[rec].saturating_add(1)));
                    row = Some(self.applied(row.as_ref(), rec));
                }
                Outcome::Letter(disposition) => {
                    let writer = Writer { partition, epoch: group.origin.epoch };
                    checker.letter(&self.tables, &records[..i], rec, writer);
                    if self.tables.letters[rec].is_none() {
                        rows.push(Row::Letter(rec, Some(disposition)));
                    }
                    row = aggregate.map(|_| parked(row, self.work.records[rec].id()));
                }
            }
            self.note_all(&mut rows, &[rec], verdict);
        }
        if let Some(aggregate) = aggregate
            && first_write.is_some()
            && !overtaken
        {
            rows.push(Row::Ledger(aggregate, row));
        }
        self.commit(rows, true);
        checker.flushed(&self.tables);
        if let Some(at) = braked {
            let (reason, fault) = (Reason::DeadLetterFlood, Fault::new(FaultKind::Brake));
            return GroupReply::Halted { reason, fault, at };
        }
        if fenced {
            return GroupReply::NotOwner;
        }
        if overtaken && first_write.is_some() {
            return GroupReply::Failed(server_fault(SERIALIZATION));
        }
        done(ruling.verdicts.iter().map(|(v, _)| *v).collect(), ruling.gap)
    }
}

impl Database {
    /// The event that the brake keeps from becoming a dead letter.
    fn braked_at(&self, group: &Group, ruling: &Ruling) -> Option<Offset> {
        const POISON: Outcome = Outcome::Letter(Disposition::Poison);
        let poison = ruling.verdicts.iter().position(|(_, outcome)| *outcome == POISON);
        poison.filter(|_| self.braked).map(|index| group.events[index].offset())
    }
}

/// The row after a record of its aggregate was dead-lettered or parked.
pub(super) fn parked(row: Option<LedgerRow>, position: RecordId) -> LedgerRow {
    let row = row.unwrap_or(LedgerRow {
        version: None,
        event_id: None,
        position,
        deleted: false,
        parked: true,
        earlier_log: false,
    });
    LedgerRow { position, parked: true, ..row }
}
