//! Ledger rows and groups at random. The numbers are small, so that they meet often; a few are at
//! the far end of a `bigint`.

use pgsluice_core::event::{AggregateKey, Event, Json, LedgerEffect, RowAction, Value};
use pgsluice_core::record::{Offset, RecordId, StreamId};
use pgsluice_core::verdict::{GapPolicy, LedgerRow};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;

use crate::fixture::{row, writes};

/// What the group writes beside the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Document,
    Table,
}

/// A stream, as the stream that the group comes from sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Here,
    /// The log of another partition.
    Elsewhere,
    /// An earlier log of the same partition.
    EarlierLog,
}

/// The ledger row before the group.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) version: Option<i64>,
    pub(super) event_id: Option<u8>,
    pub(super) place: Place,
    pub(super) offset: i64,
    pub(super) deleted: bool,
    pub(super) parked: bool,
}

/// One event of the group.
#[derive(Debug, Clone)]
pub(super) struct Incoming {
    pub(super) offset: i64,
    pub(super) version: Option<i64>,
    pub(super) id: u8,
}

/// A ledger row and the group that meets it. Every case has an aggregate, streams and a row of the
/// target table of its own, all named after its number.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) row: Option<Stored>,
    /// Offsets with a dead letter, in the group's stream or in another one.
    pub(super) letters: Vec<(Place, i64)>,
    pub(super) events: Vec<Incoming>,
    /// The last event deletes the aggregate. The queue ends a group with a delete.
    pub(super) deletes: bool,
    pub(super) route: Route,
    /// The target table has the aggregate's row already.
    pub(super) written_before: bool,
}

impl Case {
    /// Type and id only together are an aggregate: two cases share each id.
    pub(super) fn aggregate(number: i64) -> AggregateKey {
        let aggregate_type = if number % 2 == 0 { "Customer" } else { "Order" };
        AggregateKey { aggregate_type: aggregate_type.into(), id: (number / 2).to_string().into() }
    }

    pub(super) fn stream(number: i64, place: Place) -> StreamId {
        let streams = i32::try_from(number).unwrap() * 3;
        StreamId(match place {
            Place::Here => streams,
            Place::Elsewhere => streams + 1,
            Place::EarlierLog => streams + 2,
        })
    }

    pub(super) fn ledger_row(&self, number: i64) -> Option<LedgerRow> {
        self.row.as_ref().map(|row| LedgerRow {
            version: row.version.map(pgsluice_core::event::AggregateVersion),
            event_id: row.event_id.map(|id| format!("e{id}").into()),
            position: RecordId {
                stream: Self::stream(number, row.place),
                offset: Offset(row.offset),
            },
            deleted: row.deleted,
            parked: row.parked,
            earlier_log: row.place == Place::EarlierLog,
        })
    }

    /// The group's events. A document and a row of the table hold the offset that wrote them.
    pub(super) fn events(&self, number: i64) -> Vec<Event> {
        let last = self.events.len() - 1;
        let events = self.events.iter().enumerate().map(|(at, incoming)| {
            let (offset, version) = (incoming.offset, incoming.version);
            let columns = [Some(Value::Int(offset))];
            let mut event = match (self.route, self.deletes && at == last) {
                (Route::Document, true) => writes(offset, version, LedgerEffect::Clear),
                (Route::Document, false) => writes(
                    offset,
                    version,
                    LedgerEffect::Set(Json::Value(offset.to_string().into())),
                ),
                (Route::Table, true) => row(offset, version, RowAction::Remove, number, &[]),
                (Route::Table, false) => row(offset, version, RowAction::Upsert, number, &columns),
            };
            event.envelope.event_id = Some(format!("e{}", incoming.id).into());
            event.envelope.aggregate = Some(Self::aggregate(number));
            event
        });
        events.collect()
    }

    /// The same case with the group's first event only.
    pub(super) fn first_only(&self) -> Self {
        Self { events: self.events[..1].to_vec(), ..self.clone() }
    }

    /// Whether the versions of the group's events are all there or all absent.
    pub(super) fn is_mixed(&self) -> bool {
        let versioned = self.events.iter().filter(|event| event.version.is_some()).count();
        versioned != 0 && versioned != self.events.len()
    }

    /// Offsets in the group's own stream that have a dead letter.
    pub(super) fn own_letters(&self) -> impl Iterator<Item = i64> {
        self.letters.iter().filter(|(place, _)| *place == Place::Here).map(|(_, offset)| *offset)
    }
}

fn version() -> impl Strategy<Value = i64> {
    prop_oneof![20 => 0..7_i64, 1 => Just(i64::MAX - 1), 1 => Just(i64::MAX)]
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![6 => Just(Place::Here), 3 => Just(Place::Elsewhere), 1 => Just(Place::EarlierLog)]
}

fn stored() -> impl Strategy<Value = Stored> {
    let identity = (weighted(0.75, version()), weighted(0.9, 0..3_u8));
    let state = (prop::bool::weighted(0.3), prop::bool::weighted(0.15));
    (identity, place(), 0..10_i64, state).prop_map(
        |((version, event_id), place, offset, (deleted, parked))| Stored {
            version,
            event_id,
            place,
            offset,
            deleted,
            parked,
        },
    )
}

/// Which events of a group carry a version.
#[derive(Debug, Clone, Copy)]
enum Versions {
    All,
    None,
    Some,
}

/// What the fast lane is given: offsets ascend, and so do versions, one by one where a gap parks.
/// `State::fast` keeps everything else away from it. Mixed groups, too: the statement judges them
/// well all the same, except on a deleted row (see [`judged_by_its_first_version`]).
fn incoming(gaps: GapPolicy) -> impl Strategy<Value = Vec<Incoming>> {
    let versions = prop_oneof![
        6 => Just(Versions::All),
        2 => Just(Versions::None),
        2 => Just(Versions::Some),
    ];
    let step = match gaps {
        GapPolicy::Park => 1..2_i64,
        GapPolicy::Apply => 1..4_i64,
    };
    let link = (1..5_i64, step, any::<bool>(), 0..3_u8);
    (0..10_i64, version(), versions, vec(link, 1..5)).prop_map(|(start, first, versions, links)| {
        let mut next = Some(first);
        let mut offset = start;
        let mut events = Vec::new();
        for (distance, step, marked, id) in links {
            let versioned = match versions {
                Versions::All => true,
                Versions::None => false,
                Versions::Some => marked,
            };
            // Nothing comes after the greatest version.
            let Some(version) = next else { break };
            events.push(Incoming { offset, version: versioned.then_some(version), id });
            offset += distance;
            if versioned {
                next = version.checked_add(step);
            }
        }
        events
    })
}

/// The statement compares the group's first version with the stored one, and on a deleted row it
/// compares none. A group that begins without a version and goes on with one could be STALE in its
/// middle there: only `State::fast` prevents that.
fn judged_by_its_first_version(case: &Case) -> bool {
    let deleted_here = case.row.as_ref().is_some_and(|row| row.deleted && row.place == Place::Here);
    !(deleted_here && case.is_mixed() && case.events[0].version.is_none())
}

pub(super) fn case(gaps: GapPolicy) -> impl Strategy<Value = Case> {
    let letters = prop_oneof![
        1 => Just(Vec::new()),
        1 => vec((place(), 0..16_i64), 1..4),
    ];
    let route = prop_oneof![Just(Route::Document), Just(Route::Table)];
    let beside = (route, any::<bool>(), prop::bool::weighted(0.25));
    (weighted(0.85, stored()), letters, incoming(gaps), beside)
        .prop_map(|(row, letters, events, (route, written_before, deletes))| Case {
            row,
            letters,
            events,
            deletes,
            route,
            written_before,
        })
        .prop_filter("begins without a version on a deleted row", judged_by_its_first_version)
}
