//! How the events of one group are decided, one after the other, on a ledger row that changes as
//! they are. Pure: the database is asked by whoever follows the course.

use std::collections::BTreeSet;

use crate::store::letter::Disposition;
use pgsluice_core::event::{Content, Event};
use pgsluice_core::fault::Fault;
use pgsluice_core::group::GroupReply;
use pgsluice_core::record::{Offset, RecordId, StreamId};
use pgsluice_core::verdict::{Candidate, GapPolicy, Judgement, LedgerRow, Reason, Verdict, judge};

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Decided for good by the rows as they were read.
    Decided,
    /// To be applied, while the ledger row stands at `seen`; then report [`Course::applied`] or
    /// [`Course::poisoned`].
    Apply {
        /// Versions missing before the event.
        gap: i64,
        /// Where the row stands; `None` where there is none.
        seen: Option<RecordId>,
    },
}

/// What became of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The verdict.
    pub(super) verdict: Verdict,
    /// The reason behind it.
    pub(super) reason: Option<Reason>,
    /// What the database said, for an event it refused.
    pub(super) fault: Option<Fault>,
    /// Whether anything is to be written for it beside what applying it wrote.
    pub(super) write: Write,
}

/// What is left to be written for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    /// Nothing: it was decided before, or applying it wrote everything.
    Nothing,
    /// A notification.
    Note,
    /// A dead letter.
    Letter(Disposition),
}

/// The row, and the outcomes so far.
#[derive(Debug)]
pub(super) struct Course {
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
    pub(super) fn new(
        stream: StreamId,
        gaps: GapPolicy,
        row: Option<LedgerRow>,
        letters: BTreeSet<Offset>,
    ) -> Self {
        let before_letters = row.as_ref().map(|row| row.position);
        Self { stream, gaps, row, letters, outcomes: Vec::new(), gap: 0, before_letters }
    }

    /// Decides the next event as far as that is possible without applying it.
    pub(super) fn next(&mut self, event: &Event) -> Step {
        if self.letters.contains(&event.offset()) {
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
    pub(super) fn settles(&mut self, event: &Event) -> bool {
        self.next(event) == Step::Decided
            && self.outcomes.last().is_some_and(|outcome| {
                outcome.verdict == Verdict::Duplicate && outcome.write == Write::Nothing
            })
    }

    /// The event of the last [`Step::Apply`] took effect.
    pub(super) fn applied(&mut self, event: &Event, gap: i64) {
        let row = LedgerRow::applied(self.row.as_ref(), &self.candidate(event), event.deletes());
        self.before_letters = Some(row.position);
        self.row = Some(row);
        self.gap = self.gap.saturating_add(gap);
        self.decided(Verdict::Applied, None, None, Write::Nothing);
    }

    /// The database refused the event of the last [`Step::Apply`], alone and not for the first
    /// time.
    pub(super) fn poisoned(&mut self, event: &Event, reason: Reason, fault: Fault) {
        self.letter(event, Disposition::Poison, reason, Some(fault));
    }

    /// The event of the last [`Step::Apply`] failed for too long, in a way that is not its own: it
    /// waits, and what follows behind it.
    pub(super) fn given_up(&mut self, event: &Event, fault: Fault) {
        self.letter(event, Disposition::Parked, Reason::RetryExhausted, Some(fault));
    }

    /// The outcomes, one an event.
    pub(super) fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// The ledger row after the last event that was decided.
    pub(super) fn row(&self) -> Option<&LedgerRow> {
        self.row.as_ref()
    }

    /// Starts from another row than the one that was read.
    pub(super) fn resume(&mut self, row: Option<LedgerRow>) {
        self.before_letters = row.as_ref().map(|row| row.position);
        self.row = row;
    }

    /// Where the ledger row has to stand for letters to be written: `None` where there is none.
    pub(super) fn before_letters(&self) -> Option<RecordId> {
        self.before_letters
    }

    /// The ledger row's position once the letters are written.
    pub(super) fn position(&self) -> Option<RecordId> {
        self.row.as_ref().map(|row| row.position)
    }

    /// The reason of the first letter, for which the aggregate is parked unless it was before.
    pub(super) fn parked_for(&self) -> Option<Reason> {
        let letter = |outcome: &&Outcome| matches!(outcome.write, Write::Letter(_));
        self.outcomes.iter().find(letter).and_then(|outcome| outcome.reason)
    }

    /// The answer once everything is committed.
    pub(super) fn done(&self) -> GroupReply {
        let verdicts = self.outcomes.iter().map(|outcome| outcome.verdict).collect();
        GroupReply::Done { verdicts, gap: self.gap }
    }

    fn candidate<'e>(&self, event: &'e Event) -> Candidate<'e> {
        Candidate {
            id: self.id(event),
            event_id: event.envelope.event_id.as_deref().unwrap_or_default(),
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

#[cfg(test)]
mod tests;
