//! The set-based look at refused groups: one query finds those of which every record is settled,
//! so that reading a topic again is no slower than applying it.

use crate::lanes::context::ApplyContext;
use crate::postgres::Session;
use crate::store::ledger::{self, Look};
use pgsluice_core::fault::{Fault, FaultKind};
use pgsluice_core::group::{Group, GroupReply};
use pgsluice_core::record::{Offset, StreamId};

use super::transaction::Transaction;
use pgsluice_core::course::Course;

/// Looks at the ledger rows and letters of many groups at once and writes nothing.
///
/// A group whose every record was decided before is [`GroupReply::Done`], all DUPLICATE; every
/// other one is [`GroupReply::Unsettled`] and needs [`super::resolve`].
pub async fn read(
    session: &Session,
    context: &ApplyContext,
    groups: Vec<Group>,
) -> Vec<(Group, GroupReply)> {
    let replies = match session.slow().await {
        Ok(connection) => {
            look(Transaction::new(connection, context.deadline), context, &groups).await
        }
        Err(fault) => Err(fault),
    };
    match replies {
        Ok(replies) => groups.into_iter().zip(replies).collect(),
        Err(fault) => {
            groups.into_iter().map(|group| (group, GroupReply::Failed(fault.clone()))).collect()
        }
    }
}

async fn look(
    transaction: Transaction,
    context: &ApplyContext,
    groups: &[Group],
) -> Result<Vec<GroupReply>, Fault> {
    let looks: Vec<Look<'_>> = groups
        .iter()
        .map(|group| Look {
            key: ledger::storable(group.aggregate()),
            stream: group.origin.stream,
            events: &group.events,
        })
        .collect();
    let query = ledger::look(context.statements.schema(), context.sink, &looks);
    let rows = transaction.alone(&query).await?;
    if rows.len() != groups.len() {
        return Err(Fault::new(FaultKind::Bug("a look that lost a group")));
    }
    let look = |(group, row): (&Group, &tokio_postgres::Row)| {
        Ok(course(context, group.origin.stream, row)?.look(group))
    };
    groups.iter().zip(&rows).map(look).collect()
}

/// The start of a course on what a look found.
pub(super) fn course(
    context: &ApplyContext,
    stream: StreamId,
    row: &tokio_postgres::Row,
) -> Result<Course, Fault> {
    let letters: Option<Vec<i64>> =
        row.try_get(7).map_err(|_| Fault::new(FaultKind::Bug("offsets of letters")))?;
    let letters = letters.unwrap_or_default().into_iter().map(Offset).collect();
    Ok(Course::new(stream, context.gaps, ledger::read(row)?, letters))
}
