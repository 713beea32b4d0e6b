//! The fast lanes: first attempts, one statement and so one transaction each, many in flight on a
//! connection.
//!
//! Nothing is decided here. The statement moves the ledger first and writes only for the groups
//! that moved; a group it refuses comes back untouched, for the slow lane to look at.

use futures_util::future::join_all;
use tokio_postgres::types::ToSql;

use crate::lanes::part_move::{PartMove, bind};
use crate::lanes::statement::Shape;
use crate::postgres::Lane;
use crate::route::Target;
use crate::sql::binder::Extent;
use crate::store::ledger::Guard;
use pgsluice_core::event::RouteId;
use pgsluice_core::fault::{Fault, FaultKind};
use pgsluice_core::group::{Group, GroupKind, GroupReply, Part};

use crate::lanes::context::ApplyContext;
use crate::lanes::skip::skip;

/// Applies groups of one part each, all of one kind (and, for writes, one route), and gives every
/// group back with its answer.
///
/// Each statement is one transaction: normally there is one for all groups; groups that fold to
/// different statements, e.g. upserts of different columns, go in one each, pipelined. When a
/// statement fails nothing of it was written: its group is answered [`GroupReply::Failed`], several
/// groups [`GroupReply::Unsettled`], because alone each of them may fare differently.
pub async fn apply(
    lane: &Lane,
    context: &ApplyContext,
    mut groups: Vec<Group>,
) -> Vec<(Group, GroupReply)> {
    // In one order everywhere, so that two sessions cannot wait for each other's rows crosswise.
    groups.sort_by(|a, b| a.aggregates().cmp(b.aggregates()));
    let replies = match groups.first().and_then(Group::only).map(|part| part.kind) {
        Some(GroupKind::Write(route)) => write(lane, context, route, &groups).await,
        Some(GroupKind::Skip) => skip(lane, context, &groups).await,
        // Only an owner may write a dead letter, and only a transaction several parts: both are the
        // slow lane's.
        Some(GroupKind::Poison) | None => groups.iter().map(|_| GroupReply::Unsettled).collect(),
    };
    groups.into_iter().zip(replies).collect()
}

/// Groups that one statement writes, by their index.
struct Batch<'a> {
    shape: Shape,
    members: Vec<usize>,
    parts: Vec<&'a Part>,
    moves: Vec<PartMove<'a>>,
}

async fn write(
    lane: &Lane,
    context: &ApplyContext,
    route: RouteId,
    groups: &[Group],
) -> Vec<GroupReply> {
    let target = context.plan.route(route).action.target();
    let mut replies: Vec<GroupReply> = groups.iter().map(|_| GroupReply::Refused).collect();
    let batches = batches(context, route, target, groups);
    let runs = batches.iter().map(|batch| run(lane, context, target, batch));
    for (batch, answer) in batches.iter().zip(join_all(runs).await) {
        for (position, index) in batch.members.iter().enumerate() {
            replies[*index] = match &answer {
                Ok(gaps) => batch.parts[position].moved(gaps[position]),
                Err(fault) => {
                    let ends_session = context.faults.ends_session(fault);
                    GroupReply::unwritten(fault, batch.members.len(), ends_session)
                }
            };
        }
    }
    replies
}

/// Sorts groups by the statement they fold to. One that does not fold is left out, and so refused:
/// the slow lane applies its events one by one.
fn batches<'a>(
    context: &ApplyContext,
    route: RouteId,
    target: Option<&Target>,
    groups: &'a [Group],
) -> Vec<Batch<'a>> {
    let mut batches: Vec<Batch<'a>> = Vec::with_capacity(1);
    for (index, group) in groups.iter().enumerate() {
        let Some(part) = group.only() else { continue };
        let Some(next) = PartMove::of(target, group.stream(), part, &part.events) else { continue };
        let extent = if part.events.len() == 1 { Extent::Event } else { Extent::Group };
        let notify = context.notify(&part.events);
        let shape = Shape::of(&next.folded, route, extent, Guard::First, notify);
        match batches.iter_mut().find(|batch| same_chunk(&batch.shape, &shape)) {
            Some(batch) => {
                batch.shape.extent = Extent::Chunk;
                batch.members.push(index);
                batch.parts.push(part);
                batch.moves.push(next);
            }
            None => batches.push(Batch {
                shape,
                members: vec![index],
                parts: vec![part],
                moves: vec![next],
            }),
        }
    }
    batches
}

fn same_chunk(a: &Shape, b: &Shape) -> bool {
    a.ledger == b.ledger && a.row == b.row && a.notify == b.notify
}

/// Runs one statement; the gap of each group that moved, in the order of the batch.
async fn run(
    lane: &Lane,
    context: &ApplyContext,
    target: Option<&Target>,
    batch: &Batch<'_>,
) -> Result<Vec<Option<i64>>, Fault> {
    let statement = context.statements.of(target, batch.shape.clone());
    let parameters = bind(&statement, context.sink, &batch.moves);
    let parameters: Vec<&(dyn ToSql + Sync)> =
        parameters.iter().map(|parameter| parameter as &(dyn ToSql + Sync)).collect();
    let rows = context
        .timed(lane.within(context.deadline, async {
            let prepared = lane.prepared(&statement.text, &statement.types).await?;
            let rows = lane.client().query(&prepared, &parameters).await;
            rows.map_err(|error| crate::postgres::fault_of(&error))
        }))
        .await?;
    let mut gaps = vec![None; batch.members.len()];
    for row in rows {
        let (position, gap) = match batch.shape.extent {
            Extent::Event | Extent::Group => (1, row.try_get(0)),
            Extent::Chunk => (row.try_get::<_, i64>(0).unwrap_or(0), row.try_get(1)),
        };
        let slot = usize::try_from(position - 1).ok().and_then(|index| gaps.get_mut(index));
        match (slot, gap) {
            (Some(slot), Ok(gap)) => *slot = Some(gap),
            _ => return Err(Fault::new(FaultKind::Bug("row of an applying statement"))),
        }
    }
    Ok(gaps)
}
