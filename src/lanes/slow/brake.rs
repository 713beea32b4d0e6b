//! What keeps too much from being dead-lettered, dropped as stale, or parked (design §6).
//!
//! Asked in the transaction that is about to write these outcomes, on what the database counted by
//! its own clock. A brake that trips is remembered in the same transaction: it holds until the
//! record that tripped it got through, so that it does not let a few more go in every window.
//! Transactions that run at the same moment do not see each other's letters: the limit may be
//! passed by as many as are being written, at most one a slow connection of each process.

use std::sync::Arc;

use crate::config::BrakeConfig;
use crate::lanes::context::ApplyContext;
use crate::sql::query::Query;
use crate::store::brake::{self, BrakeKind, Question, Trip};
use crate::store::ledger::storable;
use crate::store::stream::own;
use pgsluice_core::event::{AggregateKey, Content, Event};
use pgsluice_core::fault::{Fault, FaultKind};
use pgsluice_core::group::{Group, GroupReply, Part};
use pgsluice_core::record::{Offset, RecordId, StreamId};
use pgsluice_core::verdict::Reason;

use super::transaction::Transaction;
use pgsluice_core::course::{Allowance, Course, Limit, Tripped};

/// Why the outcomes of a group must not be written.
#[derive(Debug)]
pub(super) struct Stop {
    /// The reason of the halt.
    reason: Reason,
    /// What an operator has to know.
    fault: Fault,
    /// The record that must not be passed.
    at: Offset,
    /// The name of its route, where one was found.
    route: Option<Arc<str>>,
    /// Its aggregate, where the ledger can hold it.
    aggregate: Option<AggregateKey>,
    /// The brake that trips now, with what it counted; `None` for one that holds already.
    trips: Option<(BrakeKind, i64)>,
}

/// Asks everything that limits what the courses want written. `None`: nothing is against it.
pub(super) async fn ask(
    transaction: &Transaction,
    context: &ApplyContext,
    group: &Group,
    courses: &[Course],
) -> Result<Option<Stop>, Fault> {
    for (part, course) in group.parts.iter().zip(courses) {
        if let Some(stop) = ask_part(transaction, context, group.stream(), (part, course)).await? {
            let aggregate = storable(part.aggregate.as_ref()).cloned();
            return Ok(Some(Stop { aggregate, ..stop }));
        }
    }
    Ok(None)
}

async fn ask_part(
    transaction: &Transaction,
    context: &ApplyContext,
    stream: StreamId,
    (part, course): (&Part, &Course),
) -> Result<Option<Stop>, Fault> {
    let config = &context.dead_letter;
    for limit in course.limits(&part.events) {
        let stop = match limit {
            Limit::DeadLetters(_) => {
                brake(transaction, context, stream, (&limit, config.flood.as_ref())).await?
            }
            Limit::Stale { .. } => {
                brake(transaction, context, stream, (&limit, config.stale_flood.as_ref())).await?
            }
            Limit::Parked(_) if room(transaction, context).await? => None,
            Limit::Parked(_) => {
                let most = config.max_parked_events;
                let why = format!(
                    "{most} records are parked, the limit that dead_letter.max_parked_events sets"
                );
                Some(Stop::new(context, &limit, &why))
            }
        };
        if stop.is_some() {
            return Ok(stop);
        }
    }
    Ok(None)
}

/// The name of the route an event was meant for, where one was found.
pub(super) fn route_of<'a>(context: &'a ApplyContext, event: &Event) -> Option<&'a Arc<str>> {
    let id = match &event.content {
        Content::Write(write) => Some(write.route),
        Content::Poison(poison) => poison.route,
        Content::Skip(_) | Content::Halt(_) => None,
    };
    id.map(|id| &context.plan.route(id).name)
}

/// Asks one of the two brakes.
async fn brake(
    transaction: &Transaction,
    context: &ApplyContext,
    stream: StreamId,
    (limit, config): (&Limit<'_>, Option<&BrakeConfig>),
) -> Result<Option<Stop>, Fault> {
    let Some(config) = config else { return Ok(None) };
    let schema = context.statements.schema();
    let question = question(context, stream, limit.event(), config);
    let stale = matches!(limit, Limit::Stale { .. });
    let query =
        if stale { brake::stale(schema, question) } else { brake::dead_letters(schema, question) };
    let counted = brake::counted(&transaction.query(&query).await?)?;
    let BrakeConfig { limit: most, share, window } = *config;
    let Some(tripped) = limit.trips(&Allowance { limit: most, share, window }, counted) else {
        return Ok(None);
    };
    let (kind, why) = if stale {
        (BrakeKind::Stale, told("events were stale", config, "stale_flood", "accept-stale"))
    } else {
        let what = "aggregates were dead-lettered";
        (BrakeKind::DeadLetters, told(what, config, "flood", "accept-dead-letters"))
    };
    Ok(Some(Stop::new(context, limit, &why).tripping(kind, tripped)))
}

fn question<'a>(
    context: &'a ApplyContext,
    stream: StreamId,
    event: &Event,
    limits: &BrakeConfig,
) -> Question<'a> {
    let id = RecordId { stream, offset: event.offset() };
    let route = route_of(context, event).map(|name| &**name);
    Question { sink: context.sink, id, route, window: limits.window }
}

/// What an operator reads; made of settings only, so that it stays the same while a brake holds.
fn told(what: &str, limits: &BrakeConfig, key: &str, accept: &str) -> String {
    let BrakeConfig { limit, share, window } = limits;
    let window = window.as_secs_f64();
    format!(
        "more than {limit} {what} within {window} s, or more than a share of {share} of all \
         records (dead_letter.{key}); fix the cause, or run `pgsluice resume --{accept}` if they \
         are as they should be"
    )
}

impl Stop {
    fn new(context: &ApplyContext, limit: &Limit<'_>, why: &str) -> Self {
        let route = route_of(context, limit.event()).cloned();
        let text = match &route {
            Some(route) => format!("route {route}: {why}"),
            None => why.to_owned(),
        };
        let fault = Fault { route: Some(text.into()), ..Fault::new(FaultKind::Brake) };
        let (reason, at) = (limit.reason(), limit.at());
        Self { reason, fault, at, route, aggregate: None, trips: None }
    }

    fn tripping(mut self, kind: BrakeKind, tripped: Tripped) -> Self {
        self.trips = match tripped {
            Tripped::Holds => None,
            Tripped::Count(count) | Tripped::Share(count) => Some((kind, count)),
        };
        self
    }

    /// Commits what took effect before, remembers a brake that trips now, and tells the coordinator
    /// to halt.
    pub(super) async fn carry_out(
        self,
        transaction: Transaction,
        context: &ApplyContext,
        group: &Group,
    ) -> Result<GroupReply, Fault> {
        let halted = GroupReply::Halted { reason: self.reason, fault: self.fault, at: self.at };
        let Some((kind, count)) = self.trips else {
            transaction.commit(Vec::new()).await?;
            return Ok(halted);
        };
        let Some(owner) = group.owner() else {
            transaction.commit(Vec::new()).await?;
            return Ok(GroupReply::NotOwner);
        };
        let route = self.route.as_deref();
        let id = RecordId { stream: owner.stream, offset: self.at };
        let trip = Trip { kind, id, route, aggregate: self.aggregate.as_ref(), count };
        let schema = context.statements.schema();
        let mut query = Query::default();
        let own = own(schema, owner.stream, owner.epoch, &mut query);
        let tripped = brake::trip(schema, trip, "own", &mut query);
        query.text = format!(
            "with {own},\ntripped as (\n  {tripped}\n)\nselect (select pg_catalog.count(*) from own)"
        );
        let rows = transaction.commit(vec![query]).await?;
        let owned = rows.iter().flatten().next().and_then(|row| row.try_get::<_, i64>(0).ok());
        Ok(if owned == Some(0) { GroupReply::NotOwner } else { halted })
    }
}

/// Whether more records may be parked: while there are fewer than the limit, a whole group may, or a
/// group larger than the limit would never be. A count of a moment ago is enough to say yes; only the
/// table says no.
async fn room(transaction: &Transaction, context: &ApplyContext) -> Result<bool, Fault> {
    let limit = context.dead_letter.max_parked_events;
    if context.parked.known().is_some_and(|count| count < limit) {
        return Ok(true);
    }
    let query = brake::parked(context.statements.schema(), context.sink, limit);
    let rows = transaction.query(&query).await?;
    let count = rows.first().and_then(|row| row.try_get::<_, i64>(0).ok());
    let count = count.and_then(|count| usize::try_from(count).ok());
    let count = count.ok_or(Fault::new(FaultKind::Bug("count of parked records")))?;
    context.parked.counted(count);
    Ok(count < limit)
}
