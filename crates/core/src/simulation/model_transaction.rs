//! The slow lane's transactions: the product's own course ([`Course`]), followed on the tables of
//! the model. What is modelled is what a transaction is: rows read and locked first, written
//! together, rolled back together.

use super::checker::{Checker, Writer};
use super::model_postgres::{Database, Row};
use super::model_statement::{ModelGuard, parked};
use super::workload::{Rec, partition_of};
use crate::course::{
    Allowance, Attempt, Counted, Course, Gate, Limit, Step, Write, changed_meanwhile,
};
use crate::event::Event;
use crate::fault::{Fault, FaultKind};
use crate::group::{Group, GroupReply, Part};
use crate::record::{Offset, RecordId};
use crate::verdict::{LedgerRow, Verdict};

/// A transaction that has read what it decides on.
#[derive(Debug)]
pub(super) struct Begun {
    course: Course,
    /// The row existed when it was read, so it is locked until the transaction ends.
    pub(super) holds_lock: bool,
}

/// What a transaction has written and not committed.
#[derive(Debug, Default)]
struct Written {
    rows: Vec<Row>,
    ledger: Option<LedgerRow>,
    moved: bool,
}

impl Database {
    /// The set-based look at the rows of refused groups.
    pub(super) fn read(&self, groups: &[Group]) -> Vec<GroupReply> {
        groups.iter().map(|group| self.begin(group).course.look(part(group))).collect()
    }

    /// The beginning of a transaction: the ledger row and the letters of the group's records.
    pub(super) fn begin(&self, group: &Group) -> Begun {
        let row = self.aggregate_of(group).and_then(|a| self.tables.ledger[a].clone());
        let lettered = |event: &&Event| self.tables.letters[self.work.of(event)].is_some();
        let letters = group.events().filter(lettered).map(Event::offset).collect();
        let holds_lock = row.is_some();
        Begun { course: Course::new(group.stream(), self.gaps, row, letters), holds_lock }
    }

    /// A group of skips: one statement.
    pub(super) fn note_skips(&mut self, group: &Group) -> GroupReply {
        let mut rows = Vec::new();
        self.note_all(&mut rows, &self.records(group), Verdict::Skipped);
        self.commit(rows, true);
        GroupReply::Done { verdicts: vec![Verdict::Skipped; group.events().count()], gap: 0 }
    }

    /// The rest of the transaction: every event in its turn, the brakes, the letters, the commit.
    pub(super) fn follow(
        &mut self,
        group: &Group,
        begun: Begun,
        checker: &mut Checker,
    ) -> GroupReply {
        let mut course = begun.course;
        let aggregate = self.aggregate_of(group);
        let stored = aggregate.and_then(|a| self.tables.ledger[a].clone());
        let mut written = Written { ledger: stored.clone(), ..Written::default() };
        for event in group.events() {
            let Step::Apply { gap, seen } = course.next(event) else { continue };
            let Err(fault) = self.apply_alone(group, event, seen, &mut written) else {
                course.applied(event, gap);
                continue;
            };
            let decide = |fault: &Fault| self.policy.decide(fault);
            match course.failed(event, fault, group.failure.as_deref(), decide) {
                Attempt::TakenBack if self.keeps(ModelGuard::EventSavepoint) => {}
                Attempt::TakenBack => {
                    written = Written { ledger: stored.clone(), ..Written::default() };
                }
                Attempt::GivenUp(fault) => return GroupReply::Failed(fault),
            }
        }
        self.show_effects(group, &course, checker);
        let stop = self.stopped_by(group, &course);
        // The real transaction leaves these notes out where a brake stops it.
        self.note_outcomes(group, &course, stop.map(|limit| limit.at()), &mut written);
        if let Some(limit) = stop {
            let fault = Fault::new(FaultKind::Brake);
            let halted = GroupReply::Halted { reason: limit.reason(), fault, at: limit.at() };
            self.commit_all(aggregate, written, checker);
            return halted;
        }
        let gate =
            course.has_letters().then(|| self.letters(group, &course, &mut written, checker));
        self.commit_all(aggregate, written, checker);
        course.answer(gate).unwrap_or_else(GroupReply::Failed)
    }

    /// The statement of one event, which moves the row that was judged and no other.
    fn apply_alone(
        &mut self,
        group: &Group,
        event: &Event,
        seen: Option<RecordId>,
        written: &mut Written,
    ) -> Result<(), Fault> {
        let position = written.ledger.as_ref().map(|row| row.position);
        if position != seen && self.keeps(ModelGuard::SeenCompare) {
            return Err(changed_meanwhile());
        }
        let rec = self.work.of(event);
        if let Some(fault) = self.refusal(&[rec], false) {
            self.count_refusal(group, &fault);
            return Err(fault);
        }
        written.ledger = Some(self.moved(written.ledger.as_ref(), &[rec]));
        written.moved = true;
        written.rows.push(Row::Effect(rec, self.tables.effects[rec].saturating_add(1)));
        self.note_all(&mut written.rows, &[rec], Verdict::Applied);
        Ok(())
    }

    /// Shows the checker what is about to take effect.
    fn show_effects(&self, group: &Group, course: &Course, checker: &mut Checker) {
        let records = self.records(group);
        for (i, outcome) in course.outcomes().iter().enumerate() {
            if outcome.verdict == Verdict::Applied {
                checker.takes_effect(&self.tables, &records[..i], records[i]);
            }
        }
        if let GroupReply::Done { gap, .. } = course.done() {
            let applied = records.iter().zip(course.outcomes());
            let applied = applied.filter(|(_, o)| o.verdict == Verdict::Applied);
            let applied: Vec<Rec> = applied.map(|(rec, _)| *rec).collect();
            checker.gap(&self.tables, &applied, gap);
        }
    }

    /// The limit that says no, if one does. The counts are the model's, the rule is the product's.
    fn stopped_by<'g>(&self, group: &'g Group, course: &Course) -> Option<Limit<'g>> {
        const ALLOWED: Allowance =
            Allowance { limit: u32::MAX, share: 1.0, window: std::time::Duration::from_secs(60) };
        course.limits(&part(group).events).into_iter().find(|limit| {
            let holds = self.braked && matches!(limit, Limit::DeadLetters(_));
            let counted =
                Counted { accepted: false, holds, count: 0, records: 0, stretch: 0, lasting: 0.0 };
            limit.trips(&ALLOWED, counted).is_some()
        })
    }

    /// Notifications that anyone may write, of what stands before `end`.
    fn note_outcomes(
        &self,
        group: &Group,
        course: &Course,
        end: Option<Offset>,
        written: &mut Written,
    ) {
        for (event, outcome) in group.events().zip(course.outcomes()) {
            let before = end.is_none_or(|end| event.offset() < end);
            if outcome.write == Write::Note && before {
                self.note_all(&mut written.rows, &[self.work.of(event)], outcome.verdict);
            }
        }
    }

    /// What only the owner of the stream may write, on the row that was judged.
    fn letters(
        &self,
        group: &Group,
        course: &Course,
        written: &mut Written,
        checker: &mut Checker,
    ) -> Gate {
        let partition = partition_of(group.stream());
        let epoch = self.tables.streams[partition].epoch;
        let owner = group.owner().expect("it was delivered");
        let owned = epoch == owner.epoch.0 || !self.keeps(ModelGuard::OwnerDeadLetters);
        let parking = self.aggregate_of(group).is_some();
        let position = written.ledger.as_ref().map(|row| row.position);
        let judged = position.is_none() || position == course.before_letters();
        let stood = !parking || judged || !self.keeps(ModelGuard::SeenCompare);
        let gate = Gate { owned, stood: owned && stood };
        if !gate.stood {
            return gate;
        }
        let records = self.records(group);
        let writer = Writer { partition, epoch: owner.epoch };
        for (i, outcome) in course.outcomes().iter().enumerate() {
            let Write::Letter(disposition) = outcome.write else { continue };
            let rec = records[i];
            checker.letter(&self.tables, &records[..i], rec, writer);
            checker.poison(rec, outcome, self.refused[rec], self.braked);
            if self.tables.letters[rec].is_none() {
                written.rows.push(Row::Letter(rec, Some(disposition)));
            }
            self.note_all(&mut written.rows, &[rec], outcome.verdict);
            if parking {
                written.ledger = Some(parked(written.ledger.take(), self.work.records[rec].id()));
                written.moved = true;
            }
        }
        gate
    }

    fn commit_all(&mut self, aggregate: Option<usize>, written: Written, checker: &mut Checker) {
        let Written { mut rows, ledger, moved } = written;
        rows.extend(aggregate.filter(|_| moved).map(|a| Row::Ledger(a, ledger)));
        self.commit(rows, true);
        checker.flushed(&self.tables);
    }

    /// The aggregate whose row a group moves.
    pub(super) fn aggregate_of(&self, group: &Group) -> Option<usize> {
        part(group).aggregate.as_ref()?;
        self.work.records[self.work.of(group.first())].aggregate
    }
}

/// The coordinator makes groups of one part.
pub(super) fn part(group: &Group) -> &Part {
    group.only().expect("one part")
}
