//! A record after decoding: what it says about itself, and what it wants written.

use std::fmt;
use std::sync::Arc;

pub use crate::envelope::Envelope;
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

/// What one event changes, by kind of route.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The ledger row's own `state` column; whether it replaces or merges is the route's.
    Document(Json),
    /// A row of a user's table, in the order of the route's key and columns. A column that is
    /// absent from the event (`None`) is left alone; `Some(Value::Null)` sets NULL.
    Upsert {
        /// Key column values.
        key: Box<[Value]>,
        /// Column values.
        columns: Box<[Option<Value>]>,
    },
    /// The aggregate ends: its document or row is deleted (or marked, for a soft delete).
    Delete {
        /// Key column values; empty for the document route.
        key: Box<[Value]>,
        /// Column values of a soft delete; empty otherwise.
        columns: Box<[Option<Value>]>,
    },
}

/// What an event wants written.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The route that matched.
    pub route: RouteId,
    /// The change.
    pub change: Change,
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
}
