//! A record after decoding: what it says about itself, and what it wants written.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

pub use crate::envelope::Envelope;
use crate::envelope::{EnvelopeField, FieldValue};
use crate::record::{Offset, Record};
use crate::text::{Buffer, Slice, Text};
use crate::verdict::Reason;

/// The aggregate an event belongs to: type and id together are its identity.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AggregateKey {
    /// Aggregate type, e.g. `Customer`; the topic name in the `plain` format.
    pub aggregate_type: Arc<str>,
    /// Aggregate id within its type.
    pub id: Arc<str>,
}

impl AggregateKey {
    /// How long type and id may be together, in bytes: an entry of a B-tree index holds 2,704, of
    /// which the index's other columns and the headers take some.
    pub const MAX_BYTES: usize = 2_600;

    /// Whether type and id can stand in the tables and their indexes.
    pub fn is_storable(&self) -> bool {
        let texts = [&self.aggregate_type, &self.id];
        texts.iter().all(|text| !text.contains('\0'))
            && texts.iter().map(|text| text.len()).sum::<usize>() <= Self::MAX_BYTES
    }
}

impl fmt::Debug for AggregateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // INV-9: an aggregate id is a key value and never reaches a log.
        write!(f, "AggregateKey({}/…)", self.aggregate_type)
    }
}

/// A producer's version of an aggregate; never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AggregateVersion(pub i64);

/// Position of a route in the configuration; one past the last stands for the default document
/// route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u16);

/// JSON that was checked: valid UTF-8, one value, nothing that `jsonb` refuses for its form.
/// Numbers stand digit for digit as the producer wrote them.
#[derive(Clone)]
pub enum Json {
    /// One value.
    Value(Text),
    /// The members of an object, without its braces: a payload that stands beside its envelope.
    Members(Text),
}

impl Json {
    /// The text of the value.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Value(text) => Cow::Borrowed(text.as_str()),
            Self::Members(members) => Cow::Owned(["{", members.as_str(), "}"].concat()),
        }
    }

    fn weight_beside(&self, shared: &Buffer) -> usize {
        match self {
            Self::Value(text) | Self::Members(text) => text.weight_beside(shared),
        }
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Json {}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Value(text) | Self::Members(text)) = self;
        write!(f, "Json({} bytes)", text.as_str().len())
    }
}

/// A value ready to be bound to a column: already checked against the column's type, so that
/// nothing is left for Postgres to interpret.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// `boolean`.
    Bool(bool),
    /// `smallint`, `integer`, `bigint`; the range was checked against the column.
    Int(i64),
    /// `real`, `double precision`.
    Float(f64),
    /// Text types, enum labels, and the digits of a `numeric`.
    Text(Text),
    /// `json`, `jsonb`: text that was checked as [`Json`] is.
    Json(Text),
    /// `bytea`.
    Bytes(Slice),
    /// `timestamp`, `timestamptz`: microseconds since 1970-01-01 UTC.
    Timestamp(i64),
    /// `date`: days since 1970-01-01.
    Date(i32),
    /// `time`: microseconds since midnight.
    Time(i64),
    /// `uuid`.
    Uuid([u8; 16]),
}

impl Value {
    /// What it holds in memory beside itself and `shared`.
    fn weight_beside(&self, shared: &Buffer) -> usize {
        match self {
            Self::Text(text) | Self::Json(text) => text.weight_beside(shared),
            Self::Bytes(bytes) => bytes.weight_beside(shared),
            Self::Null
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Float(_)
            | Self::Timestamp(_)
            | Self::Date(_)
            | Self::Time(_)
            | Self::Uuid(_) => 0,
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // INV-9: the kind only.
        f.write_str(match self {
            Self::Null => "Null",
            Self::Bool(_) => "Bool",
            Self::Int(_) => "Int",
            Self::Float(_) => "Float",
            Self::Text(_) => "Text",
            Self::Json(_) => "Json",
            Self::Bytes(_) => "Bytes",
            Self::Timestamp(_) => "Timestamp",
            Self::Date(_) => "Date",
            Self::Time(_) => "Time",
            Self::Uuid(_) => "Uuid",
        })
    }
}

/// What a write does to the aggregate's own row in the ledger, beside its position and version,
/// which every write moves. `S` is the state: JSON in an event, nothing where only the kind of
/// effect matters.
///
/// | effect | state afterwards | aggregate afterwards |
/// | --- | --- | --- |
/// | `Keep` | as it was | lives |
/// | `Set` | this one | lives |
/// | `Merge` | its top-level members set to these | lives |
/// | `Clear` | none | deleted |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LedgerEffect<S = Json> {
    /// Leaves the state alone.
    Keep,
    /// Replaces the state.
    Set(S),
    /// Merges into the state, as `jsonb` concatenation does for objects.
    Merge(S),
    /// Ends the aggregate.
    Clear,
}

impl<S> LedgerEffect<S> {
    /// Whether the aggregate is deleted afterwards.
    pub fn deletes(&self) -> bool {
        matches!(self, Self::Clear)
    }

    /// The same effect on another form of the state.
    pub fn map<'s, T>(&'s self, state: impl FnOnce(&'s S) -> T) -> LedgerEffect<T> {
        match self {
            Self::Keep => LedgerEffect::Keep,
            Self::Set(s) => LedgerEffect::Set(state(s)),
            Self::Merge(s) => LedgerEffect::Merge(state(s)),
            Self::Clear => LedgerEffect::Clear,
        }
    }

    /// The kind of effect, which is all that the text of a statement depends on.
    pub fn kind(&self) -> LedgerEffect<()> {
        self.map(|_| ())
    }

    /// The state that it brings.
    pub fn state(&self) -> Option<&S> {
        match self {
            Self::Set(state) | Self::Merge(state) => Some(state),
            Self::Keep | Self::Clear => None,
        }
    }
}

/// What happens to a row of a user's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowAction {
    /// It is inserted or updated.
    Upsert,
    /// It is deleted.
    Remove,
    /// Columns of it are set where it exists: a soft delete.
    Mark,
}

/// A row of a user's table as one event writes it; the route names table, key and columns.
#[derive(Debug, Clone, PartialEq)]
pub struct RowWrite {
    /// What happens to it.
    pub action: RowAction,
    /// Values of the key columns, in the route's order.
    pub key: Box<[Value]>,
    /// Values of the other columns, in the route's order. A column that is absent from the event
    /// (`None`) is left alone; `Some(Value::Null)` sets NULL. Empty for [`RowAction::Remove`].
    pub columns: Box<[Option<Value>]>,
}

/// What an event wants written: the ledger's row, which is moved first, and rows beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The route that matched.
    pub route: RouteId,
    /// The effect on the aggregate's own row.
    pub ledger: LedgerEffect,
    /// Rows of users' tables.
    pub rows: Vec<RowWrite>,
}

impl Write {
    /// What it holds in memory beside itself and `shared`.
    fn weight_beside(&self, shared: &Buffer) -> usize {
        let own = |value: &Value| value.weight_beside(shared);
        let row = |row: &RowWrite| {
            size_of::<RowWrite>()
                + size_of_val(&*row.key)
                + size_of_val(&*row.columns)
                + row.key.iter().chain(row.columns.iter().flatten()).map(own).sum::<usize>()
        };
        self.ledger.state().map_or(0, |state| state.weight_beside(shared))
            + self.rows.iter().map(row).sum::<usize>()
    }
}

/// Why a record cannot become a write, found before the database was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poison {
    /// Reason code, the same word in logs, metrics, tables and headers.
    pub reason: Reason,
    /// The configured field, column or pointer that is at fault, never its value.
    pub field: Option<Box<str>>,
    /// The route it was meant for, where one was found.
    pub route: Option<RouteId>,
}

impl Poison {
    /// Poison of an event whose route is not known.
    pub fn new(reason: Reason, field: Option<Box<str>>) -> Self {
        Self { reason, field, route: None }
    }
}

/// What a record turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// To be applied by a route.
    Write(Write),
    /// Nothing to do, on purpose: ends as SKIPPED. Never moves the ledger.
    Skip(Reason),
    /// Cannot be applied: ends as DEAD_LETTERED, and parks its aggregate if that can be told.
    Poison(Poison),
    /// The configuration says to stop here (`on_unmatched = "halt"`).
    Halt(Reason),
}

/// A record with its meaning: the unit the pipeline moves.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The original.
    pub record: Record,
    /// What it says about itself.
    pub envelope: Envelope,
    /// What follows from it.
    pub content: Content,
}

impl Event {
    /// Position of the record in its partition.
    pub fn offset(&self) -> Offset {
        self.record.offset
    }

    /// What identifies it: the producer's id, else the position of its record.
    pub fn id(&self) -> Cow<'_, str> {
        self.envelope.id(&self.record)
    }

    /// The value of a field of its envelope, where there is one.
    pub fn field(&self, field: EnvelopeField) -> Option<FieldValue<'_>> {
        self.envelope.get(field, &self.record)
    }

    /// What it takes in memory, which is what it counts against `limits.in_flight_bytes`: itself,
    /// the bytes of its record once, and whatever had to be converted. Types are shared by events
    /// and not counted, unless they are longer than types are. It stays the same for as long as the
    /// event does.
    ///
    /// An event of 400 bytes weighs about 740, with a row of six values about 990.
    pub fn weight(&self) -> usize {
        let content = match &self.content {
            Content::Write(write) => write.weight_beside(self.record.raw.buffer()),
            Content::Poison(poison) => poison.field.as_ref().map_or(0, |field| field.len()),
            Content::Skip(_) | Content::Halt(_) => 0,
        };
        size_of::<Self>()
            + self.record.raw.weight()
            + self.envelope.weight_beside(&self.record)
            + content
    }

    /// What it wants written; `None` for one that is skipped, poison, or halts its partition.
    pub fn write(&self) -> Option<&Write> {
        match &self.content {
            Content::Write(write) => Some(write),
            Content::Skip(_) | Content::Poison(_) | Content::Halt(_) => None,
        }
    }

    /// Whether its aggregate is deleted once it took effect.
    pub fn deletes(&self) -> bool {
        self.write().is_some_and(|write| write.ledger.deletes())
    }
}
