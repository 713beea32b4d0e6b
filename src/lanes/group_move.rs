//! Binds groups to the parameters of a statement.

use std::borrow::Cow;

use crate::route::fold::Folded;
use crate::sql::binder::{Declared, Slot, Source};
use crate::sql::parameter::{Cell, Parameter};
use crate::sql::statement::Statement;
use crate::store::notification;
use crate::store::sink::SinkId;
use pgsluice_core::event::{AggregateKey, Event};
use pgsluice_core::record::{RecordId, StreamId};

/// One group as a statement writes it.
#[derive(Debug)]
pub struct GroupMove<'a> {
    /// The aggregate.
    pub aggregate: &'a AggregateKey,
    /// The stream the events stand in.
    pub stream: StreamId,
    /// The events; never empty.
    pub events: &'a [Event],
    /// What they change.
    pub folded: Folded<'a>,
    /// Where the ledger row stood when it was judged, for a statement guarded by it; `None` also
    /// where there was no row.
    pub seen: Option<RecordId>,
}

impl GroupMove<'_> {
    fn first(&self) -> &Event {
        &self.events[0]
    }

    fn last(&self) -> &Event {
        &self.events[self.events.len() - 1]
    }

    fn versions(&self) -> impl DoubleEndedIterator<Item = i64> {
        self.events.iter().filter_map(|event| event.envelope.version.map(|version| version.0))
    }

    fn cell(&self, slot: Slot) -> Cell<'_> {
        match slot {
            Slot::AggregateType => Cell::text(Some(&self.aggregate.aggregate_type)),
            Slot::AggregateId => Cell::text(Some(&self.aggregate.id)),
            Slot::Version => Cell::int(self.versions().next_back()),
            Slot::FirstVersion => Cell::int(self.versions().next()),
            Slot::LastEventId => Cell::Text(self.last().id()),
            Slot::Stream => Cell::Int(self.stream.0.into()),
            Slot::FirstOffset => Cell::Int(self.first().offset().0),
            Slot::LastOffset => Cell::Int(self.last().offset().0),
            Slot::State => {
                let state = self.folded.ledger.state();
                state.map_or(Cell::Null, |json| Cell::Json(Cow::Borrowed(json)))
            }
            Slot::SeenStream => Cell::int(self.seen.map(|id| id.stream.0.into())),
            Slot::SeenOffset => Cell::int(self.seen.map(|id| id.offset.0)),
            Slot::Key(index) => {
                let key = self.folded.row.as_ref().and_then(|row| row.key.get(index));
                key.map_or(Cell::Null, Cell::from)
            }
            Slot::Column(index) => {
                let column = self.folded.row.as_ref().and_then(|row| row.columns.get(index));
                column.copied().flatten().map_or(Cell::Null, Cell::from)
            }
            Slot::Sink
            | Slot::EventGroup
            | Slot::EventOffset
            | Slot::Field(_)
            | Slot::EventJson => event_cell(self.last(), slot),
        }
    }
}

/// A value of one event; NULL for slots that are not an event's.
fn event_cell(event: &Event, slot: Slot) -> Cell<'_> {
    match slot {
        Slot::EventOffset => Cell::Int(event.offset().0),
        Slot::Field(field) => event.field(field).map_or(Cell::Null, Cell::from),
        Slot::EventJson => notification::event_json(&event.record),
        _ => Cell::Null,
    }
}

/// The parameters of `statement` for these groups, in the order it declares them. A statement for
/// one event or one group takes exactly one.
pub fn bind<'a>(
    statement: &Statement,
    sink: SinkId,
    groups: &'a [GroupMove<'a>],
) -> Vec<Parameter<'a>> {
    statement.declared.iter().map(|declared| parameter(declared, sink, groups)).collect()
}

fn parameter<'a>(declared: &Declared, sink: SinkId, groups: &'a [GroupMove<'a>]) -> Parameter<'a> {
    let slot = declared.slot;
    let of_first = |cell: fn(&'a GroupMove<'a>, Slot) -> Cell<'a>| {
        Parameter::One(groups.first().map_or(Cell::Null, |group| cell(group, slot)))
    };
    match declared.source {
        Source::Shared => Parameter::One(Cell::Int(sink.0.into())),
        Source::Group => of_first(GroupMove::cell),
        Source::Event => of_first(|group, slot| event_cell(group.last(), slot)),
        Source::Groups => Parameter::Many(groups.iter().map(|group| group.cell(slot)).collect()),
        Source::Events => Parameter::Many(
            (1..)
                .zip(groups)
                .flat_map(|(n, group)| group.events.iter().map(move |event| (n, event)))
                .map(|(n, event)| match slot {
                    Slot::EventGroup => Cell::Int(n),
                    _ => event_cell(event, slot),
                })
                .collect(),
        ),
    }
}
