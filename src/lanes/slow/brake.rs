//! What keeps too much from being dead-lettered, dropped as stale, or parked (design §6).
//!
//! Asked in the transaction that is about to write these outcomes, on what the database counted by
//! its own clock. A brake that trips is remembered in the same transaction: it holds until the
//! record that tripped it got through, so that it does not let a few more go in every window.
//! Transactions that run at the same moment do not see each other's letters: the limit may be
//! passed by as many as are being written, at most one a slow connection of each process.

use crate::config::BrakeConfig;
use crate::lanes::context::ApplyContext;
use crate::sql::query::Query;
use crate::store::brake::{self, BrakeKind, Counted, Question, Trip};
use crate::store::ledger::storable;
use crate::store::stream::own;
use pgsluice_core::event::{Content, Event, RouteId};
use pgsluice_core::fault::{Fault, FaultKind};
use pgsluice_core::group::{Group, GroupReply};
use pgsluice_core::letter::Disposition;
use pgsluice_core::record::{Offset, RecordId};
use pgsluice_core::verdict::{Reason, Verdict};

use super::course::{Course, Outcome, Write};
use super::transaction::Transaction;

/// A share of fewer records says nothing.
const SMALLEST_STRETCH: i64 = 200;

/// Why the outcomes of a group must not be written.
#[derive(Debug)]
pub(super) struct Stop {
    /// The reason of the halt.
    reason: Reason,
    /// What an operator has to know.
    fault: Fault,
    /// The record that must not be passed.
    at: Offset,
    /// Its route, where one was found.
    route: Option<RouteId>,
    /// The brake that trips now, with what it counted; `None` for one that holds already.
    trips: Option<(BrakeKind, i64)>,
}

/// Asks everything that limits what the course wants written. `None`: nothing is against it.
pub(super) async fn ask(
    transaction: &Transaction,
    context: &ApplyContext,
    group: &Group,
    course: &Course,
) -> Result<Option<Stop>, Fault> {
    let outcomes = || group.events.iter().zip(course.outcomes());
    let letters = |wanted| outcomes().filter(move |(_, o)| o.write == Write::Letter(wanted));
    if let Some((event, _)) = letters(Disposition::Poison).next()
        && let Some(limits) = &context.dead_letter.flood
    {
        let stop = flood(transaction, context, group, (event, limits)).await?;
        if stop.is_some() {
            return Ok(stop);
        }
    }
    let stale: Vec<&Event> = outcomes().filter(|(_, o)| is_stale(o)).map(|(e, _)| e).collect();
    if let [first, ..] = stale[..]
        && let Some(limits) = &context.dead_letter.stale_flood
    {
        let stop = stale_flood(transaction, context, group, (first, stale.len(), limits)).await?;
        if stop.is_some() {
            return Ok(stop);
        }
    }
    match letters(Disposition::Parked).next() {
        Some((event, _)) if !room(transaction, context).await? => {
            let limit = context.dead_letter.max_parked_events;
            let why = format!("{limit} records are parked, dead_letter.max_parked_events");
            Ok(Some(Stop::new(Reason::ParkingFull, event, &why)))
        }
        Some(_) | None => Ok(None),
    }
}

/// An event that ends as stale now, and not only again.
pub(super) fn is_stale(outcome: &Outcome) -> bool {
    outcome.verdict == Verdict::Stale && outcome.write == Write::Note
}

/// The route an event was meant for, where one was found.
pub(super) fn route_of(event: &Event) -> Option<RouteId> {
    match &event.content {
        Content::Write(write) => Some(write.route),
        Content::Poison(poison) => poison.route,
        Content::Skip(_) | Content::Halt(_) => None,
    }
}

async fn flood(
    transaction: &Transaction,
    context: &ApplyContext,
    group: &Group,
    (event, limits): (&Event, &BrakeConfig),
) -> Result<Option<Stop>, Fault> {
    let question = question(context, group, event, limits);
    let query = brake::dead_letters(context.statements.schema(), question);
    let counted = brake::counted(&transaction.query(&query).await?)?;
    let with = Counted { count: counted.count + 1, records: counted.records + 1, ..counted };
    Ok(trips(limits, with, Sustained::NoMatter).map(|tripped| {
        let why = told("aggregates were dead-lettered", limits, "flood", "accept-dead-letters");
        Stop::new(Reason::DeadLetterFlood, event, &why).tripping(BrakeKind::DeadLetters, tripped)
    }))
}

async fn stale_flood(
    transaction: &Transaction,
    context: &ApplyContext,
    group: &Group,
    (first, events, limits): (&Event, usize, &BrakeConfig),
) -> Result<Option<Stop>, Fault> {
    let question = question(context, group, first, limits);
    let query = brake::stale(context.statements.schema(), question);
    let counted = brake::counted(&transaction.query(&query).await?)?;
    let events = i64::try_from(events).unwrap_or(i64::MAX);
    let with =
        Counted { count: counted.count + events, records: counted.records + events, ..counted };
    Ok(trips(limits, with, Sustained::HalfTheWindow).map(|tripped| {
        let why = told("events were stale", limits, "stale_flood", "accept-stale");
        Stop::new(Reason::StaleFlood, first, &why).tripping(BrakeKind::Stale, tripped)
    }))
}

fn question(
    context: &ApplyContext,
    group: &Group,
    event: &Event,
    limits: &BrakeConfig,
) -> Question {
    let id = RecordId { stream: group.origin.stream, offset: event.offset() };
    Question { sink: context.sink, id, route: route_of(event), window: limits.window }
}

/// Whether the share is asked at once, or only of what has kept coming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sustained {
    NoMatter,
    HalfTheWindow,
}

/// Why a brake stops.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tripped {
    /// It tripped before and holds.
    Holds,
    /// More than the limit.
    Count(i64),
    /// A larger share of the records than allowed: so many.
    Share(i64),
}

/// The rule of both brakes, on what was counted with the events asked for.
fn trips(limits: &BrakeConfig, counted: Counted, sustained: Sustained) -> Option<Tripped> {
    if counted.accepted {
        return None;
    }
    if counted.holds {
        return Some(Tripped::Holds);
    }
    if counted.count > i64::from(limits.limit) {
        return Some(Tripped::Count(counted.count));
    }
    let lasts = match sustained {
        Sustained::NoMatter => true,
        Sustained::HalfTheWindow => counted.lasting >= limits.window.as_secs_f64() / 2.0,
    };
    let beyond = f64_of(counted.records) > limits.share * f64_of(counted.stretch);
    (lasts && counted.stretch >= SMALLEST_STRETCH && beyond)
        .then_some(Tripped::Share(counted.records))
}

#[expect(clippy::cast_precision_loss, reason = "counts of records, far below 2^53")]
fn f64_of(count: i64) -> f64 {
    count as f64
}

/// What an operator reads; made of settings only, so that it stays the same while a brake holds.
fn told(what: &str, limits: &BrakeConfig, key: &str, accept: &str) -> String {
    let BrakeConfig { limit, share, window } = limits;
    let window = window.as_secs_f64();
    format!(
        "more than {limit} {what} within {window} s, or more than a share of {share} of all records \
         (dead_letter.{key}); mend the cause, or `pgsluice resume --{accept}` if they are as they \
         should be"
    )
}

impl Stop {
    fn new(reason: Reason, event: &Event, why: &str) -> Self {
        let route = route_of(event);
        let text = match route {
            Some(route) => format!("{}: {why}", brake::route_name(route)),
            None => why.to_owned(),
        };
        let fault = Fault { route: Some(text.into()), ..Fault::new(FaultKind::Brake) };
        Self { reason, fault, at: event.offset(), route, trips: None }
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
            transaction.commit(None, None).await?;
            return Ok(halted);
        };
        let route = self.route;
        let id = RecordId { stream: group.origin.stream, offset: self.at };
        let trip = Trip { kind, id, route, aggregate: storable(group.aggregate()), count };
        let schema = context.statements.schema();
        let mut query = Query::default();
        let own = own(schema, group.origin.stream, group.origin.epoch, &mut query);
        let tripped = brake::trip(schema, trip, "own", &mut query);
        query.text = format!(
            "with {own},\ntripped as (\n  {tripped}\n)\nselect (select pg_catalog.count(*) from own)"
        );
        let rows = transaction.commit(None, Some(query)).await?;
        let owned = rows.first().and_then(|row| row.try_get::<_, i64>(0).ok());
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: BrakeConfig =
        BrakeConfig { limit: 20, share: 0.05, window: Duration::from_secs(60) };

    fn counted(count: i64, records: i64, stretch: i64) -> Counted {
        Counted { accepted: false, holds: false, count, records, stretch, lasting: 0.0 }
    }

    fn tripped(counted: Counted) -> Option<Tripped> {
        trips(&LIMITS, counted, Sustained::NoMatter)
    }

    #[test]
    fn one_more_than_the_limit_trips() {
        assert_eq!(tripped(counted(20, 20, 1_000_000)), None);
        assert_eq!(tripped(counted(21, 21, 1_000_000)), Some(Tripped::Count(21)));
    }

    #[test]
    fn a_larger_share_trips_once_enough_records_were_read() {
        assert_eq!(tripped(counted(10, 10, 200)), None, "just the share");
        assert_eq!(tripped(counted(11, 11, 200)), Some(Tripped::Share(11)));
        assert_eq!(tripped(counted(11, 11, 199)), None, "too few records to tell");
        assert_eq!(tripped(counted(1, 11, 200)), Some(Tripped::Share(11)));
    }

    #[test]
    fn what_comes_in_one_burst_is_no_share() {
        let limits = BrakeConfig { limit: 10_000, share: 0.2, window: Duration::from_secs(600) };
        let burst = counted(2_000, 2_000, 2_000);
        assert_eq!(trips(&limits, burst, Sustained::HalfTheWindow), None);
        let lasting = Counted { lasting: 300.0, ..burst };
        let share = Some(Tripped::Share(2_000));
        assert_eq!(trips(&limits, lasting, Sustained::HalfTheWindow), share);
    }

    #[test]
    fn a_brake_that_tripped_holds_and_acceptance_lifts_it() {
        let holds = Counted { holds: true, ..counted(1, 1, 1) };
        assert_eq!(tripped(holds), Some(Tripped::Holds));
        assert_eq!(tripped(Counted { accepted: true, ..holds }), None);
        assert_eq!(tripped(Counted { accepted: true, ..counted(99, 99, 99) }), None);
    }
}
