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
use pgsluice_core::group::{Group, GroupReply};
use pgsluice_core::record::RecordId;
use pgsluice_core::verdict::Disposition;

use super::brake;
use super::transaction::Transaction;
use pgsluice_core::course::{Course, Gate, Outcome, Write};

/// Writes what is left of a group and commits.
pub(super) async fn finish(
    transaction: Transaction,
    context: &ApplyContext,
    group: &Group,
    course: &Course,
) -> Result<GroupReply, Fault> {
    match brake::ask(&transaction, context, group, course).await {
        Ok(None) => {}
        Ok(Some(stop)) => return stop.carry_out(transaction, context, group).await,
        Err(fault) => return Err(transaction.give_up(fault).await),
    }
    let (letters, letter_notes, notes) = rows(context, group, course);
    let plain = plain(context, group, course, &notes);
    let mut guarded = Query::default();
    if !letters.is_empty() {
        guarded.text = owned(context, group, course, (&letters, &letter_notes), &mut guarded);
    }
    let guarded = Some(guarded).filter(|_| !letters.is_empty());
    let rows = transaction.commit(plain, guarded).await?;
    let gate = match course.has_letters() {
        false => None,
        true => Some(gate(&rows)?),
    };
    let reply = course.answer(gate)?;
    if matches!(reply, GroupReply::Done { .. }) {
        context.count_letters(&letters);
        let parked = |letter: &&Letter<'_>| letter.disposition == Disposition::Parked;
        context.parked.add(letters.iter().filter(parked).count());
    }
    Ok(reply)
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
fn plain<'a>(
    context: &'a ApplyContext,
    group: &'a Group,
    course: &'a Course,
    notes: &'a [Note<'a>],
) -> Option<Query<'a>> {
    let schema = context.statements.schema();
    let mut query = Query::default();
    let noted = (!notes.is_empty()).then(|| notification::insert(schema, notes, None, &mut query));
    let outcomes = group.events.iter().zip(course.outcomes());
    let stale: Vec<_> = outcomes.filter(|(_, o)| o.is_stale()).map(|(event, _)| event).collect();
    let (Some(first), Some(last)) = (stale.first(), stale.last()) else {
        query.text = noted?;
        return Some(query);
    };
    let count = StaleCount {
        first: RecordId { stream: group.origin.stream, offset: first.offset() },
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

/// The letters and their notifications, and the notifications that anyone may write.
fn rows<'a>(
    context: &'a ApplyContext,
    group: &'a Group,
    course: &'a Course,
) -> (Vec<Letter<'a>>, Vec<Note<'a>>, Vec<Note<'a>>) {
    let (mut letters, mut letter_notes, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    let keep_aggregate = storable(group.aggregate()).is_some();
    for (event, outcome) in group.events.iter().zip(course.outcomes()) {
        let Outcome { verdict, reason, fault, write } = outcome;
        let trouble = Trouble { fault: fault.as_ref(), field: field(&event.content, outcome) };
        let note = Note {
            stream: group.origin.stream,
            event,
            verdict: *verdict,
            reason: *reason,
            trouble,
            json: context.shows_event(*verdict),
        };
        let noted = context.notes(*verdict);
        match (write, reason) {
            (Write::Letter(disposition), Some(reason)) => {
                letters.push(Letter {
                    sink: context.sink,
                    stream: group.origin.stream,
                    event,
                    disposition: *disposition,
                    reason: *reason,
                    trouble,
                    attempts: group.failure.as_ref().map_or(1, |f| f.attempts.saturating_add(1)),
                    failing_for: failing_for(context, group),
                    route: brake::route_of(context, event).map(|name| &**name),
                    aggregate: keep_aggregate,
                });
                letter_notes.extend(noted.then_some(note));
            }
            (Write::Note, _) => notes.extend(noted.then_some(note)),
            (Write::Nothing | Write::Letter(_), _) => {}
        }
    }
    (letters, letter_notes, notes)
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

/// What only the owner of the stream may write. One row comes back: whether we own the stream, and
/// whether the ledger row stood where it was judged (1 where there is no aggregate to park).
fn owned<'a>(
    context: &ApplyContext,
    group: &'a Group,
    course: &Course,
    (letters, notes): (&'a [Letter<'a>], &'a [Note<'a>]),
    query: &mut Query<'a>,
) -> String {
    let schema = context.statements.schema();
    let mut parts = vec![own(schema, group.origin.stream, group.origin.epoch, query)];
    let parking = storable(group.aggregate()).zip(course.position()).zip(course.parked_for());
    let gate = match parking {
        Some(((key, position), reason)) => {
            let address = Address { sink: context.sink, key, stream: group.origin.stream };
            let seen = course.before_letters();
            let parking = Parking { address, seen, position, reason };
            parts.push(format!("gate as (\n  {}\n)", ledger::park(schema, parking, "own", query)));
            "gate"
        }
        None => "own",
    };
    parts.push(format!("lettered as (\n  {}\n)", letter::insert(schema, letters, gate, query)));
    if !notes.is_empty() {
        let insert = notification::insert(schema, notes, Some(gate), query);
        parts.push(format!("noted as (\n  {insert}\n)"));
    }
    format!(
        "with {}\nselect (select pg_catalog.count(*) from own), (select pg_catalog.count(*) from {gate})",
        parts.join(",\n"),
    )
}
