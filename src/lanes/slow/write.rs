//! The end of a group's transaction: notifications, dead letters, parking, COMMIT.

use tokio_postgres::Row;

use crate::lanes::context::ApplyContext;
use crate::sql::query::Query;
use crate::store::brake::{StaleCount, count_stale};
use crate::store::ledger::{self, Address, Parking, storable};
use crate::store::letter::{self, Letter};
use crate::store::notification::{self, Note, Trouble};
use crate::store::stream::own;
use pgsluice_core::event::Content;
use pgsluice_core::fault::{Fault, FaultKind};
use pgsluice_core::group::{Group, GroupReply, Origin, Part};
use pgsluice_core::record::{RecordId, StreamId};
use pgsluice_core::verdict::Disposition;

use super::brake;
use super::transaction::Transaction;
use pgsluice_core::course::{Course, Gate, Outcome, Write};

/// What is left to be written of a part.
struct Rest<'a> {
    part: &'a Part,
    course: &'a Course,
    letters: Vec<Letter<'a>>,
    /// The notifications of the letters.
    letter_notes: Vec<Note<'a>>,
    /// The notifications that anyone may write.
    notes: Vec<Note<'a>>,
}

/// Writes what is left of a group and commits. `courses` are those of its parts.
pub(super) async fn finish(
    transaction: Transaction,
    context: &ApplyContext,
    group: &Group,
    courses: &[Course],
) -> Result<GroupReply, Fault> {
    match brake::ask(&transaction, context, group, courses).await {
        Ok(None) => {}
        Ok(Some(stop)) => return stop.carry_out(transaction, context, group).await,
        Err(fault) => return Err(transaction.give_up(fault).await),
    }
    let parts = group.parts.iter().zip(courses);
    let rest: Vec<Rest<'_>> =
        parts.map(|(part, course)| rest(context, group, part, course)).collect();
    let mut last: Vec<Query<'_>> =
        rest.iter().filter_map(|rest| plain(context, group.stream(), rest)).collect();
    let gates = last.len();
    if let Some(owner) = group.owner() {
        let lettered = rest.iter().filter(|rest| !rest.letters.is_empty());
        last.extend(lettered.map(|rest| owned(context, owner, rest)));
    }
    let rows = transaction.commit(last).await?;
    let reply = answer(&rest, rows.get(gates..).unwrap_or_default())?;
    if matches!(reply, GroupReply::Done { .. }) {
        for Rest { letters, .. } in &rest {
            context.count_letters(letters);
            let parked = |letter: &&Letter<'_>| letter.disposition == Disposition::Parked;
            context.parked.add(letters.iter().filter(parked).count());
        }
    }
    Ok(reply)
}

/// The answer after the commit. `gates` are the rows of [`owned`], one statement for each part with
/// letters; none at all where nobody owns the stream.
fn answer(rest: &[Rest<'_>], gates: &[Vec<Row>]) -> Result<GroupReply, Fault> {
    let mut gates = gates.iter();
    let mut replies = Vec::with_capacity(rest.len());
    for Rest { course, .. } in rest {
        let gate = match (course.has_letters(), gates.len()) {
            (false, _) => None,
            (true, 0) => Some(Gate { owned: false, stood: false }),
            (true, _) => gates.next().map(|rows| gate(rows)).transpose()?,
        };
        replies.push(course.answer(gate)?);
    }
    let bug = || Fault::new(FaultKind::Bug("a group without parts"));
    replies.into_iter().reduce(GroupReply::and).ok_or_else(bug)
}

/// The one row of [`owned`].
fn gate(rows: &[Row]) -> Result<Gate, Fault> {
    let count = |index: usize| rows.first().and_then(|row| row.try_get::<_, i64>(index).ok());
    match (count(0), count(1)) {
        (Some(owned), Some(stood)) => Ok(Gate { owned: owned > 0, stood: stood > 0 }),
        _ => Err(Fault::new(FaultKind::Bug("row of the letters' statement"))),
    }
}

/// What anyone may write: notifications, and the count of stale events for their brake.
fn plain<'a>(context: &'a ApplyContext, stream: StreamId, rest: &'a Rest<'a>) -> Option<Query<'a>> {
    let Rest { part, course, notes, .. } = rest;
    let schema = context.statements.schema();
    let mut query = Query::default();
    let noted = (!notes.is_empty()).then(|| notification::insert(schema, notes, None, &mut query));
    let outcomes = part.events.iter().zip(course.outcomes());
    let stale: Vec<_> = outcomes.filter(|(_, o)| o.is_stale()).map(|(event, _)| event).collect();
    let (Some(first), Some(last)) = (stale.first(), stale.last()) else {
        query.text = noted?;
        return Some(query);
    };
    let count = StaleCount {
        first: RecordId { stream, offset: first.offset() },
        last: last.offset(),
        route: brake::route_of(context, first).map(|name| &**name),
        events: stale.len(),
    };
    let counted = count_stale(schema, count, &mut query);
    query.text = match noted {
        Some(noted) => format!("with {counted}\n{noted}"),
        None => format!("with {counted}\nselect 1"),
    };
    Some(query)
}

/// The letters and notifications of a part.
fn rest<'a>(
    context: &'a ApplyContext,
    group: &'a Group,
    part: &'a Part,
    course: &'a Course,
) -> Rest<'a> {
    let (letters, letter_notes, notes) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = Rest { part, course, letters, letter_notes, notes };
    let keep_aggregate = storable(part.aggregate.as_ref()).is_some();
    for (event, outcome) in part.events.iter().zip(course.outcomes()) {
        let Outcome { verdict, reason, fault, write } = outcome;
        let trouble = Trouble { fault: fault.as_ref(), field: field(&event.content, outcome) };
        let note = Note {
            stream: group.stream(),
            event,
            verdict: *verdict,
            reason: *reason,
            trouble,
            json: context.shows_event(*verdict),
        };
        let noted = context.notes(*verdict);
        match (write, reason) {
            (Write::Letter(disposition), Some(reason)) => {
                rest.letters.push(Letter {
                    sink: context.sink,
                    stream: group.stream(),
                    event,
                    disposition: *disposition,
                    reason: *reason,
                    trouble,
                    attempts: group.failure.as_ref().map_or(1, |f| f.attempts.saturating_add(1)),
                    failing_for: failing_for(context, group),
                    route: brake::route_of(context, event).map(|name| &**name),
                    aggregate: keep_aggregate,
                });
                rest.letter_notes.extend(noted.then_some(note));
            }
            (Write::Note, _) => rest.notes.extend(noted.then_some(note)),
            (Write::Nothing | Write::Letter(_), _) => {}
        }
    }
    rest
}

/// The field that is at fault, for poison found before the database was asked.
fn field<'a>(content: &'a Content, outcome: &Outcome) -> Option<&'a str> {
    match content {
        Content::Poison(poison) if outcome.reason == Some(poison.reason) => poison.field.as_deref(),
        Content::Poison(_) | Content::Write(_) | Content::Skip(_) | Content::Halt(_) => None,
    }
}

/// Seconds since the group failed first.
fn failing_for(context: &ApplyContext, group: &Group) -> f64 {
    let since = group.failure.as_ref().map(|failure| failure.since);
    since.map_or(0.0, |since| context.clock.elapsed().saturating_sub(since).as_secs_f64())
}

/// What only the owner of the stream may write of a part. One row comes back: whether we own the
/// stream, and whether the ledger row stood where it was judged (1 where there is no aggregate to
/// park).
fn owned<'a>(context: &ApplyContext, owner: &Origin, rest: &'a Rest<'a>) -> Query<'a> {
    let Rest { part, course, letters, letter_notes, .. } = rest;
    let schema = context.statements.schema();
    let mut query = Query::default();
    let mut ctes = vec![own(schema, owner.stream, owner.epoch, &mut query)];
    let key = storable(part.aggregate.as_ref());
    let gate = match key.zip(course.position()).zip(course.parked_for()) {
        Some(((key, position), reason)) => {
            let address = Address { sink: context.sink, key, stream: owner.stream };
            let seen = course.before_letters();
            let parking = Parking { address, seen, position, reason };
            let park = ledger::park(schema, parking, "own", &mut query);
            ctes.push(format!("gate as (\n  {park}\n)"));
            "gate"
        }
        None => "own",
    };
    let lettered = letter::insert(schema, letters, gate, &mut query);
    ctes.push(format!("lettered as (\n  {lettered}\n)"));
    if !letter_notes.is_empty() {
        let insert = notification::insert(schema, letter_notes, Some(gate), &mut query);
        ctes.push(format!("noted as (\n  {insert}\n)"));
    }
    query.text = format!(
        "with {}\nselect (select pg_catalog.count(*) from own), (select pg_catalog.count(*) from {gate})",
        ctes.join(",\n"),
    );
    query
}
