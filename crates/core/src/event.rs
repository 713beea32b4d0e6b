//! A record after decoding: what it says about itself, and what it wants written.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::record::{Offset, Record};
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

/// What an event says about itself. Everything is optional because a poisoned record may tell
/// only part of it; an event that is to be written has an aggregate and an event id.
#[derive(Clone, Default, PartialEq)]
pub struct Envelope {
    /// Identity of the event across re-sends by its producer.
    pub event_id: Option<Box<str>>,
    /// Type of the event, e.g. `CustomerRegistered`.
    pub event_type: Option<Arc<str>>,
    /// The aggregate, when it can be told.
    pub aggregate: Option<AggregateKey>,
    /// Version of the aggregate after the event; `None` for unversioned producers.
    pub version: Option<AggregateVersion>,
    /// When the event happened, by its producer's clock.
    pub time: Option<Timestamp>,
    /// Tenant (`notification_t.host_id`).
    pub tenant: Option<Box<str>>,
    /// User who caused the event.
    pub user: Option<Box<str>>,
    /// The producer's nonce.
    pub nonce: Option<i64>,
    /// The command or transaction that produced the event.
    pub transaction_id: Option<Box<str>>,
    /// Correlation id.
    pub correlation_id: Option<Box<str>>,
    /// Causation id.
    pub causation_id: Option<Box<str>>,
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("aggregate", &self.aggregate)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// Position of a route in the configuration; one past the last stands for the default document
/// route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u16);

/// JSON text that was checked: valid UTF-8, one value, nothing that `jsonb` refuses for its form.
/// Numbers stand digit for digit as the producer wrote them.
#[derive(Clone, PartialEq, Eq)]
pub struct Json(pub Box<str>);

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({} bytes)", self.0.len())
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
    Text(Box<str>),
    /// `json`, `jsonb`.
    Json(Json),
    /// `bytea`.
    Bytes(Box<[u8]>),
    /// `timestamp`, `timestamptz`: microseconds since 1970-01-01 UTC.
    Timestamp(i64),
    /// `date`: days since 1970-01-01.
    Date(i32),
    /// `time`: microseconds since midnight.
    Time(i64),
    /// `uuid`.
    Uuid([u8; 16]),
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
