//! How the events of one group are decided, one after the other, on a ledger row that changes as
//! they are, and what the answers of the database mean for them. Pure: the database is asked by
//! whoever follows the course.
//!
//! Whoever does asks [`Course::next`] for each event, tries what is to be applied and tells
//! [`Course::applied`] or [`Course::failed`], asks the [`Course::limits`], writes what the
//! [`Course::outcomes`] leave to be written, and gives [`Course::answer`].

use std::collections::BTreeSet;

use crate::event::{Content, Event};
use crate::fault::{Decision, Fault, FaultKind, SqlState};
use crate::group::{Failure, Group, GroupKind, GroupReply};
use crate::guard::guard;
use crate::record::{Offset, RecordId, StreamId};
use crate::verdict::{
    Candidate, Disposition, GapPolicy, Judgement, LedgerRow, Reason, Verdict, judge,
};

mod brake;

pub use brake::{Allowance, Counted, Limit, Tripped};

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Decided for good by the rows as they were read.
    Decided,
    /// To be applied, while the ledger row stands at `seen`; then report [`Course::applied`] or
    /// [`Course::failed`].
    Apply {
        /// Versions missing before the event.
        gap: i64,
        /// Where the row stands; `None` where there is none.
        seen: Option<RecordId>,
    },
}

/// What became of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// The reason behind it.
    pub reason: Option<Reason>,
    /// What the database said, for an event it refused.
    pub fault: Option<Fault>,
    /// Whether anything is to be written for it beside what applying it wrote.
    pub write: Write,
}

/// What is left to be written for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Nothing: it was decided before, or applying it wrote everything.
    Nothing,
    /// A notification.
    Note,
    /// A dead letter.
    Letter(Disposition),
}

/// What follows for the transaction when an event could not be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Attempt {
    /// What this event did is taken back, and nothing else: what came before it commits together
    /// with its letter.
    TakenBack,
    /// Everything is rolled back, and the coordinator decides on the fault.
    GivenUp(Fault),
}

/// What the statement that writes the letters found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    /// We own the stream.
    pub owned: bool,
    /// The ledger row stood at [`Course::before_letters`], or there is none to stand anywhere.
    pub stood: bool,
}

/// The row, and the outcomes so far.
#[derive(Debug)]
pub struct Course {
    stream: StreamId,
    gaps: GapPolicy,
    row: Option<LedgerRow>,
    letters: BTreeSet<Offset>,
    outcomes: Vec<Outcome>,
    gap: i64,
    /// Where the row stood before the first letter; `None` where there was none.
    before_letters: Option<RecordId>,
}

impl Course {
    /// The start: `row` as read under its lock, `letters` those of the group's records.
    pub fn new(
        stream: StreamId,
        gaps: GapPolicy,
        row: Option<LedgerRow>,
        letters: BTreeSet<Offset>,
    ) -> Self {
        let before_letters = row.as_ref().map(|row| row.position);
        Self { stream, gaps, row, letters, outcomes: Vec::new(), gap: 0, before_letters }
    }

    /// Decides the next event as far as that is possible without applying it.
    pub fn next(&mut self, event: &Event) -> Step {
        if guard!(LetterIsTerminal, self.letters.contains(&event.offset())) {
            // A dead letter is terminal: only a re-drive changes it (INV-4).
            return self.settled();
        }
        let judgement = judge(self.row.as_ref(), &self.candidate(event), self.gaps);
        match (judgement, &event.content) {
            (Judgement::Settled, _) => self.settled(),
            (Judgement::Park(Reason::AggregateParked), _) => {
                self.letter(event, Disposition::Parked, Reason::AggregateParked, None)
            }
            (_, Content::Poison(poison)) => {
                self.letter(event, Disposition::Poison, poison.reason, None)
            }
            (Judgement::Park(reason), _) => self.letter(event, Disposition::Parked, reason, None),
            (Judgement::Poison(reason), _) => self.letter(event, Disposition::Poison, reason, None),
            (Judgement::Note(verdict, reason), _) => {
                self.decided(verdict, Some(reason), None, Write::Note)
            }
            (Judgement::Apply { gap }, _) => {
                Step::Apply { gap, seen: self.row.as_ref().map(|row| row.position) }
            }
        }
    }

    /// Whether the next event was decided before; nothing else is asked.
    pub fn settles(&mut self, event: &Event) -> bool {
        self.next(event) == Step::Decided
            && self.outcomes.last().is_some_and(|outcome| {
                outcome.verdict == Verdict::Duplicate && outcome.write == Write::Nothing
            })
    }

    /// The event of the last [`Step::Apply`] took effect.
    pub fn applied(&mut self, event: &Event, gap: i64) {
        let row = LedgerRow::applied(self.row.as_ref(), &self.candidate(event), event.deletes());
        self.before_letters = Some(row.position);
        self.row = Some(row);
        self.gap = self.gap.saturating_add(gap);
        self.decided(Verdict::Applied, None, None, Write::Nothing);
    }

    /// The event of the last [`Step::Apply`] failed. `earlier` is how its group failed before, and
    /// `decide` the table from fault to decision.
    ///
    /// A fault of data is the event's own only at the second failure, and only here, where it is
    /// alone (INV-7). One that is nobody's is tried until the group is exhausted.
    pub fn failed(
        &mut self,
        event: &Event,
        fault: Fault,
        earlier: Option<&Failure>,
        decide: impl Fn(&Fault) -> Decision,
    ) -> Attempt {
        match decide(&fault) {
            Decision::Isolate(_) if guard!(SecondFailure, !failed_alike(earlier, decide)) => {
                Attempt::GivenUp(fault)
            }
            Decision::Isolate(reason) => {
                self.poisoned(event, reason, fault);
                Attempt::TakenBack
            }
            Decision::RetryAfter if guard!(TriedLongEnough, !exhausted(earlier)) => {
                Attempt::GivenUp(fault)
            }
            Decision::RetryAfter => {
                // It waits, and what follows behind it.
                self.letter(event, Disposition::Parked, Reason::RetryExhausted, Some(fault));
                Attempt::TakenBack
            }
            Decision::WaitForDatabase | Decision::Halt(_) | Decision::Stop => {
                Attempt::GivenUp(fault)
            }
        }
    }

    /// The database refused the event of the last [`Step::Apply`], alone and not for the first
    /// time.
    pub fn poisoned(&mut self, event: &Event, reason: Reason, fault: Fault) {
        self.letter(event, Disposition::Poison, reason, Some(fault));
    }

    /// The outcomes, one an event.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// The ledger row after the last event that was decided.
    pub fn row(&self) -> Option<&LedgerRow> {
        self.row.as_ref()
    }

    /// Starts from another row than the one that was read.
    pub fn resume(&mut self, row: Option<LedgerRow>) {
        self.before_letters = row.as_ref().map(|row| row.position);
        self.row = row;
    }

    /// Where the ledger row has to stand for letters to be written: `None` where there is none.
    pub fn before_letters(&self) -> Option<RecordId> {
        self.before_letters
    }

    /// The ledger row's position once the letters are written.
    pub fn position(&self) -> Option<RecordId> {
        self.row.as_ref().map(|row| row.position)
    }

    /// The reason of the first letter, for which the aggregate is parked unless it was before.
    pub fn parked_for(&self) -> Option<Reason> {
        let letter = |outcome: &&Outcome| matches!(outcome.write, Write::Letter(_));
        self.outcomes.iter().find(letter).and_then(|outcome| outcome.reason)
    }

    /// There are letters to be written.
    pub fn has_letters(&self) -> bool {
        self.outcomes.iter().any(|outcome| matches!(outcome.write, Write::Letter(_)))
    }

    /// The answer after the commit. `gate` is what the statement of the letters found; `None` where
    /// there are none.
    ///
    /// # Errors
    /// [`changed_meanwhile`] where the letters were judged on another row than the one that stood
    /// there: nothing of them was written.
    pub fn answer(&self, gate: Option<Gate>) -> Result<GroupReply, Fault> {
        match gate {
            Some(gate) if guard!(NotOwner, !gate.owned) => Ok(GroupReply::NotOwner),
            Some(gate) if guard!(JudgedAgain, !gate.stood) => Err(changed_meanwhile()),
            Some(_) | None => Ok(self.done()),
        }
    }

    /// The answer of a set-based look at a group's row and letters, which writes nothing: settled
    /// where every event was decided before, else to be decided in a transaction of its own.
    pub fn look(mut self, group: &Group) -> GroupReply {
        if group.kind == GroupKind::Skip || !group.events.iter().all(|event| self.settles(event)) {
            return GroupReply::Unsettled;
        }
        self.done()
    }

    /// The answer once everything is committed.
    pub fn done(&self) -> GroupReply {
        let verdicts = self.outcomes.iter().map(|outcome| outcome.verdict).collect();
        GroupReply::Done { verdicts, gap: self.gap }
    }

    fn candidate<'e>(&self, event: &'e Event) -> Candidate<'e> {
        Candidate {
            id: self.id(event),
            event_id: event.id(),
            version: event.envelope.version,
            redrive: false,
        }
    }

    fn id(&self, event: &Event) -> RecordId {
        RecordId { stream: self.stream, offset: event.offset() }
    }

    fn settled(&mut self) -> Step {
        self.decided(Verdict::Duplicate, Some(Reason::PositionCovered), None, Write::Nothing)
    }

    fn letter(
        &mut self,
        event: &Event,
        disposition: Disposition,
        reason: Reason,
        fault: Option<Fault>,
    ) -> Step {
        let position = self.id(event);
        // The position is the last record that was decided; everything else stays as it was after
        // the last event that took effect.
        let row = self.row.take();
        self.row = Some(match row {
            Some(row) => LedgerRow { position, parked: true, earlier_log: false, ..row },
            None => LedgerRow {
                version: None,
                event_id: None,
                position,
                deleted: false,
                parked: true,
                earlier_log: false,
            },
        });
        let verdict = match disposition {
            Disposition::Poison => Verdict::DeadLettered,
            Disposition::Parked => Verdict::Parked,
        };
        self.decided(verdict, Some(reason), fault, Write::Letter(disposition))
    }

    fn decided(
        &mut self,
        verdict: Verdict,
        reason: Option<Reason>,
        fault: Option<Fault>,
        write: Write,
    ) -> Step {
        self.outcomes.push(Outcome { verdict, reason, fault, write });
        Step::Decided
    }
}

/// Whether the group's data was found at fault before.
fn failed_alike(earlier: Option<&Failure>, decide: impl Fn(&Fault) -> Decision) -> bool {
    earlier.is_some_and(|failure| matches!(decide(&failure.fault), Decision::Isolate(_)))
}

/// Whether the group has been tried for long enough.
fn exhausted(earlier: Option<&Failure>) -> bool {
    earlier.is_some_and(|failure| failure.exhausted)
}

/// The ledger row is not what it was when it was judged: judge again.
pub fn changed_meanwhile() -> Fault {
    const SERIALIZATION_FAILURE: SqlState = SqlState(*b"40001");
    Fault::new(FaultKind::Server(SERIALIZATION_FAILURE))
}

#[cfg(test)]
mod tests;
