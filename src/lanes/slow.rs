//! The slow lane: what the fast lane refused or could not do is decided here, on rows read by the
//! current session (INV-13), one group and one synchronous transaction at a time.
//!
//! The transaction of a group: read and lock the ledger rows of its parts; decide part after part and
//! in each event after event (`Course`), applying each under a savepoint with all constraints immediate, so that the one at fault is known
//! (INV-7); then, in one flight, write what is left: notifications, and (only as the owner of the
//! stream, INV-10) dead letters and the parking of the aggregate (INV-8), and commit. The good
//! beginning of a group commits together with the dead letter of the event that ended it.

mod brake;
mod look;
pub(crate) mod rehearse;
mod transaction;
mod write;

pub use look::read;

use std::collections::BTreeSet;

use crate::lanes::context::ApplyContext;
use crate::lanes::part_move::{PartMove, bind};
use crate::lanes::skip::{skip_reply, skipped};
use crate::lanes::statement::Shape;
use crate::postgres::Session;
use crate::sql::binder::Extent;
use crate::sql::query::Query;
use crate::store::ledger::{self, Guard};
use crate::store::{letter, notification};
use pgsluice_core::event::Event;
use pgsluice_core::fault::{Fault, FaultKind};
use pgsluice_core::group::{Group, GroupKind, GroupReply, Part};
use pgsluice_core::record::{Offset, RecordId, StreamId};
use pgsluice_core::verdict::LedgerRow;

use pgsluice_core::course::{Attempt, Course, Step, changed_meanwhile};
use transaction::Transaction;

/// Decides one group in a transaction of its own.
///
/// The answer is [`GroupReply::Done`] with a verdict for every event, [`GroupReply::Failed`] when
/// the group has to be tried again (nothing was written, or only a beginning that is settled next
/// time), [`GroupReply::Halted`] when a limit of the sink stands against an outcome, or
/// [`GroupReply::NotOwner`] when dead letters were due and the stream has a newer owner.
pub async fn resolve(
    session: &Session,
    context: &ApplyContext,
    group: Group,
) -> (Group, GroupReply) {
    let reply = match session.slow().await {
        Ok(connection) => {
            let transaction = Transaction::new(connection, context.deadline);
            decide(transaction, context, &group).await
        }
        Err(fault) => Err(fault),
    };
    (group, reply.unwrap_or_else(GroupReply::Failed))
}

async fn decide(
    transaction: Transaction,
    context: &ApplyContext,
    group: &Group,
) -> Result<GroupReply, Fault> {
    if group.is_skip() {
        let written = note_skips(transaction, context, group).await;
        return Ok(skip_reply(group, &written));
    }
    let mut courses = match begin(&transaction, context, group).await {
        Ok(courses) => courses,
        Err(fault) => return Err(transaction.give_up(fault).await),
    };
    for (part, course) in group.parts.iter().zip(&mut courses) {
        if let Err(fault) = follow(&transaction, context, group, part, course).await {
            return Err(transaction.give_up(fault).await);
        }
    }
    write::finish(transaction, context, group, &courses).await
}

/// Takes a part along its course. An error gives the whole transaction up.
async fn follow(
    transaction: &Transaction,
    context: &ApplyContext,
    group: &Group,
    part: &Part,
    course: &mut Course,
) -> Result<(), Fault> {
    for event in &part.events {
        let Step::Apply { gap, seen } = course.next(event) else { continue };
        match apply_alone(transaction, context, group.stream(), part, event, seen).await {
            Ok(()) => course.applied(event, gap),
            Err(fault) => {
                let decide = |fault: &Fault| context.faults.decide(fault);
                match course.failed(event, fault, group.failure.as_deref(), decide) {
                    Attempt::TakenBack => transaction.undo_event().await?,
                    Attempt::GivenUp(fault) => return Err(fault),
                }
            }
        }
    }
    Ok(())
}

/// Opens the transaction, locks the ledger row of each part and reads the letters of the group's
/// records. One course for each part, in their order.
async fn begin(
    transaction: &Transaction,
    context: &ApplyContext,
    group: &Group,
) -> Result<Vec<Course>, Fault> {
    let schema = context.statements.schema();
    let stream = group.stream();
    let keys = group.parts.iter().map(|part| ledger::storable(part.aggregate.as_ref()));
    let mut keys: Vec<_> =
        keys.enumerate().filter_map(|(index, key)| key.map(|key| (key, index))).collect();
    // In one order everywhere, so that two sessions cannot wait for each other's rows crosswise.
    keys.sort_unstable();
    let lock = |key| ledger::lock(schema, ledger::Address { sink: context.sink, key, stream });
    let locks = keys.iter().map(|(key, _)| lock(key)).collect();
    let letters = letter::known(schema, stream, group.events());
    let (found, letters) = transaction.begin(locks, letters).await?;
    let mut rows: Vec<Option<LedgerRow>> = group.parts.iter().map(|_| None).collect();
    for ((_, index), found) in keys.into_iter().zip(&found) {
        if let Some(row) = found.first() {
            rows[index] = ledger::read(row)?;
        }
    }
    let letters: BTreeSet<Offset> = letters.iter().map(letter::offset).collect::<Result<_, _>>()?;
    let course = |row| Course::new(stream, context.gaps, row, letters.clone());
    Ok(rows.into_iter().map(course).collect())
}

/// Applies one event under a savepoint, with every deferred constraint checked.
async fn apply_alone(
    transaction: &Transaction,
    context: &ApplyContext,
    stream: StreamId,
    part: &Part,
    event: &Event,
    seen: Option<RecordId>,
) -> Result<(), Fault> {
    let GroupKind::Write(route) = part.kind else {
        return Err(Fault::new(FaultKind::Bug("only a write is applied")));
    };
    let target = context.plan.route(route).action.target();
    let events = std::slice::from_ref(event);
    let Some(mut single) = PartMove::of(target, stream, part, events) else {
        return Err(Fault::new(FaultKind::Bug("a change that its route cannot write")));
    };
    single.seen = seen;
    let notify = context.notify(events);
    let shape = Shape::of(&single.folded, route, Extent::Event, Guard::Seen, notify);
    let statement = context.statements.of(target, shape);
    let singles = [single];
    let parameters = bind(&statement, context.sink, &singles);
    if transaction.apply(&statement, &parameters).await? {
        Ok(())
    } else {
        Err(changed_meanwhile())
    }
}

async fn note_skips(
    transaction: Transaction,
    context: &ApplyContext,
    group: &Group,
) -> Result<(), Fault> {
    let notes = skipped(context, group);
    if notes.is_empty() {
        return transaction.release();
    }
    let mut query = Query::default();
    query.text = notification::insert(context.statements.schema(), &notes, None, &mut query);
    transaction.alone(&query).await.map(|_| ())
}
