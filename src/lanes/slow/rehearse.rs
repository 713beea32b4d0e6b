//! What the slow lane would do with records, tried out in one transaction that is always rolled
//! back: for `pgsluice check --sample`.
//!
//! The same reading of the ledger, the same course and the same statements as [`super::resolve`],
//! event after event under a savepoint, so that an event sees what those before it did. Two things
//! differ: the ledger row is not locked before it is judged (the daemon may be at work), and what a
//! dead letter changes for its aggregate is remembered here instead of written, because only the
//! owner of a stream may write it (INV-10).

use std::collections::{HashMap, HashSet};

use crate::lanes::context::ApplyContext;
use crate::postgres::SlowConnection;
use crate::store::counts::{self, Counts, TableRows};
use crate::store::ledger::{self, Look};
use pgsluice_core::event::{AggregateKey, Content, Event};
use pgsluice_core::fault::{Decision, Fault, FaultKind};
use pgsluice_core::group::{Group, GroupKind, OrderingKey, Part, Source};
use pgsluice_core::record::StreamId;
use pgsluice_core::verdict::{LedgerRow, Reason, Verdict};

use super::apply_alone;
use super::look::course;
use super::transaction::Transaction;
use pgsluice_core::course::{Course, Outcome, Step};

/// The transaction, and what it changed beside the database.
pub(crate) struct Rehearsal<'a> {
    transaction: Transaction,
    context: &'a ApplyContext,
    /// Ledger rows of the aggregates that were decided about.
    rows: HashMap<AggregateKey, Option<LedgerRow>>,
    /// Aggregates with an event that could not be decided now.
    waiting: HashSet<AggregateKey>,
    /// `None` where the server does not count.
    counts: Option<Counts>,
}

/// What would become of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It has its outcome.
    Decided(Verdict),
    /// It would be tried again after a while, and nobody can say what comes of it.
    Retried,
    /// Its partition would stop until an operator mends something.
    Halted,
    /// It comes after one of its aggregate that would be tried again or that halts.
    Waits,
}

/// An event with what would become of it.
#[derive(Debug)]
pub(crate) struct Rehearsed {
    /// What would become of it.
    pub(crate) ending: Ending,
    /// Why.
    pub(crate) reason: Option<Reason>,
    /// What the database said.
    pub(crate) fault: Option<Fault>,
    /// What it wrote; `None` where the server does not count.
    pub(crate) rows: Option<Vec<TableRows>>,
}

impl Rehearsed {
    fn new(ending: Ending, reason: Option<Reason>, fault: Option<Fault>) -> Self {
        Self { ending, reason, fault, rows: Some(Vec::new()) }
    }
}

impl<'a> Rehearsal<'a> {
    /// Opens the transaction. `settings` are statements that come first in it.
    pub(crate) async fn begin(
        connection: SlowConnection,
        context: &'a ApplyContext,
        settings: &str,
    ) -> Result<Self, Fault> {
        let transaction = Transaction::new(connection, context.deadline);
        let (rows, waiting) = (HashMap::new(), HashSet::new());
        let mut rehearsal = Self { transaction, context, rows, waiting, counts: None };
        let begun = async {
            rehearsal.transaction.execute("begin").await?;
            rehearsal.transaction.execute(settings).await?;
            rehearsal.count().await
        };
        match begun.await {
            Ok(counts) => rehearsal.counts = counts,
            Err(fault) => return Err(rehearsal.transaction.give_up(fault).await),
        }
        Ok(rehearsal)
    }

    /// Tries an event.
    ///
    /// # Errors
    /// The transaction cannot be used any more.
    pub(crate) async fn event(
        &mut self,
        stream: StreamId,
        event: Event,
    ) -> Result<(Event, Rehearsed), Fault> {
        let Some(kind) = Group::kind_of(&event).filter(|kind| *kind != GroupKind::Skip) else {
            let rehearsed = match &event.content {
                Content::Halt(reason) => Rehearsed::new(Ending::Halted, Some(*reason), None),
                Content::Skip(reason) => decided(Verdict::Skipped, Some(*reason)),
                Content::Write(_) | Content::Poison(_) => decided(Verdict::Skipped, None),
            };
            return Ok((event, rehearsed));
        };
        let source = Source::Sampled { partition: event.record.partition.clone(), stream };
        let order = OrderingKey::of(&event);
        let parts = Part::new(kind, event).into();
        let mut group = Group { order, source, parts, failure: None };
        let rehearsed = self.group(&group).await?;
        let event = group.parts.first.events.pop();
        let event = event.ok_or(Fault::new(FaultKind::Bug("a group lost its event")))?;
        Ok((event, rehearsed))
    }

    async fn group(&mut self, group: &Group) -> Result<Rehearsed, Fault> {
        let (stream, part) = (group.stream(), &group.parts.first);
        let key = ledger::storable(part.aggregate.as_ref());
        if key.is_some_and(|key| self.waiting.contains(key)) {
            return Ok(Rehearsed::new(Ending::Waits, None, None));
        }
        let event = part.first();
        let mut course = self.course(stream, part).await?;
        if let Step::Apply { gap, seen } = course.next(event) {
            match apply_alone(&self.transaction, self.context, stream, part, event, seen).await {
                Ok(()) => course.applied(event, gap),
                Err(fault) => {
                    self.transaction.undo_event().await?;
                    // What was taken back stays counted.
                    self.counts = self.count().await?;
                    match self.context.faults.decide(&fault) {
                        Decision::Isolate(reason) => course.poisoned(event, reason, fault),
                        decision => return Ok(self.undecided(key, decision, fault)),
                    }
                }
            }
        }
        if let Some(key) = key {
            self.rows.insert(key.clone(), course.row().cloned());
        }
        let outcome = course.outcomes().last().cloned();
        let Some(Outcome { verdict, reason, fault, .. }) = outcome else {
            return Err(Fault::new(FaultKind::Bug("an event without an outcome")));
        };
        let rows = self.written().await?;
        Ok(Rehearsed { ending: Ending::Decided(verdict), reason, fault, rows })
    }

    /// An event that nobody can decide now: its aggregate waits.
    fn undecided(
        &mut self,
        key: Option<&AggregateKey>,
        decision: Decision,
        fault: Fault,
    ) -> Rehearsed {
        self.waiting.extend(key.cloned());
        let (ending, reason) = match decision {
            Decision::Halt(reason) => (Ending::Halted, Some(reason)),
            Decision::Stop => (Ending::Halted, Some(Reason::Unexpected)),
            Decision::RetryAfter | Decision::WaitForDatabase | Decision::Isolate(_) => {
                (Ending::Retried, None)
            }
        };
        Rehearsed::new(ending, reason, Some(fault))
    }

    /// The start of a course: on the row as this transaction left it, else as it is in the table.
    async fn course(&self, stream: StreamId, part: &Part) -> Result<Course, Fault> {
        let key = ledger::storable(part.aggregate.as_ref());
        let looks = [Look { key, stream, events: &part.events }];
        let query = ledger::look(self.context.statements.schema(), self.context.sink, &looks);
        let rows = self.transaction.query(&query).await?;
        let row = rows.first().ok_or(Fault::new(FaultKind::Bug("a read without an answer")))?;
        let mut course = course(self.context, stream, row)?;
        if let Some(known) = key.and_then(|key| self.rows.get(key)) {
            course.resume(known.clone());
        }
        Ok(course)
    }

    async fn count(&self) -> Result<Option<Counts>, Fault> {
        counts::read(&self.transaction.query(&counts::query()).await?)
    }

    /// What was written since it was asked last.
    async fn written(&mut self) -> Result<Option<Vec<TableRows>>, Fault> {
        let now = self.count().await?;
        let written = now.as_ref().zip(self.counts.as_ref()).map(|(now, then)| now.since(then));
        self.counts = now;
        Ok(written)
    }

    /// Rolls back. Where even that fails the connection is closed, which does the same.
    pub(crate) async fn end(self) {
        if self.transaction.execute("rollback").await.is_ok() {
            self.transaction.release().ok();
        }
    }
}

fn decided(verdict: Verdict, reason: Option<Reason>) -> Rehearsed {
    Rehearsed::new(Ending::Decided(verdict), reason, None)
}

impl std::fmt::Debug for Rehearsal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rehearsal").field("aggregates", &self.rows.len()).finish_non_exhaustive()
    }
}
