//! The set-based look at refused groups: one query finds those of which every record is settled,
//! so that reading a topic again is no slower than applying it.

use tokio_postgres::Row;

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
        .flat_map(|group| group.parts.iter().map(|part| (group.stream(), part)))
        .map(|(stream, part)| Look {
            key: ledger::storable(part.aggregate.as_ref()),
            stream,
            events: &part.events,
        })
        .collect();
    let query = ledger::look(context.statements.schema(), context.sink, &looks);
    let rows = transaction.alone(&query).await?;
    if rows.len() != looks.len() {
        return Err(Fault::new(FaultKind::Bug("a look that lost a part")));
    }
    let mut rows = rows.iter();
    groups.iter().map(|group| settled(context, group, &mut rows)).collect()
}

/// What the rows of a group's parts, which are the next ones, say of the group.
fn settled<'r>(
    context: &ApplyContext,
    group: &Group,
    rows: &mut impl Iterator<Item = &'r Row>,
) -> Result<GroupReply, Fault> {
    let looks = group
        .parts
        .iter()
        .zip(rows)
        .map(|(part, row)| Ok(course(context, group.stream(), row)?.look(part)));
    let replies: Vec<GroupReply> = looks.collect::<Result<_, Fault>>()?;
    Ok(replies.into_iter().reduce(GroupReply::and).unwrap_or(GroupReply::Unsettled))
}

/// The start of a course on what a look found.
pub(super) fn course(context: &ApplyContext, stream: StreamId, row: &Row) -> Result<Course, Fault> {
    let letters: Option<Vec<i64>> =
        row.try_get(7).map_err(|_| Fault::new(FaultKind::Bug("offsets of letters")))?;
    let letters = letters.unwrap_or_default().into_iter().map(Offset).collect();
    Ok(Course::new(stream, context.gaps, ledger::read(row)?, letters))
}
