//! Keeps a statement's text and its parameters together: a fragment names what it needs as a
//! [`Slot`] and gets back the expression to write, so the two cannot drift apart.
//!
//! The same fragment serves one event, one group and a chunk of groups. What is a plain `$n` for
//! one becomes a column of an array parameter for many:
//!
//! | extent | what belongs to the group | what belongs to an event |
//! | --- | --- | --- |
//! | [`Extent::Event`] | `$n` | `$n`, shared with the group's where they are the same |
//! | [`Extent::Group`] | `$n` | `e.name`, from `unnest($n, …) as e` |
//! | [`Extent::Chunk`] | `i.name`, from `input as i` | `e.name` |

use tokio_postgres::types::Type;

use crate::sql::column_type::ColumnType;
use crate::sql::name::quoted;
use pgsluice_core::envelope::{EnvelopeField, FieldKind};

/// How much one statement writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extent {
    /// One event of one aggregate: scalar parameters only. The path that must be fast.
    Event,
    /// Several events of one aggregate.
    Group,
    /// Several aggregates, each with one event or more.
    Chunk,
}

/// What is bound to a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The sink; the same for all groups.
    Sink,
    /// The group's aggregate type.
    AggregateType,
    /// The group's aggregate id.
    AggregateId,
    /// Version after the group.
    Version,
    /// Version of the group's first event.
    FirstVersion,
    /// Id of the group's last event.
    LastEventId,
    /// The group's stream.
    Stream,
    /// Offset of the group's first record.
    FirstOffset,
    /// Offset of the group's last record.
    LastOffset,
    /// The folded document.
    State,
    /// Stream of the ledger row as it was judged.
    SeenStream,
    /// Offset of the ledger row as it was judged.
    SeenOffset,
    /// Value of the target's key column with that index.
    Key(usize),
    /// Value of the target's column with that index.
    Column(usize),
    /// Which group of the chunk an event belongs to, from 1.
    EventGroup,
    /// An event's offset.
    EventOffset,
    /// A field of an event's envelope.
    Field(EnvelopeField),
    /// The event as JSON.
    EventJson,
}

impl Slot {
    /// The slot that carries the same value when there is one event only.
    fn in_single_event(self) -> Self {
        match self {
            Self::FirstVersion | Self::Field(EnvelopeField::Version) => Self::Version,
            Self::FirstOffset | Self::EventOffset => Self::LastOffset,
            Self::Field(EnvelopeField::EventId) => Self::LastEventId,
            other => other,
        }
    }

    /// The slot's name as a column of an array parameter.
    fn name(self) -> String {
        let name = match self {
            Self::Key(index) => return format!("k{index}"),
            Self::Column(index) => return format!("c{index}"),
            Self::Sink => "sink",
            Self::AggregateType => "aggregate_type",
            Self::AggregateId => "aggregate_id",
            Self::Version => "version",
            Self::FirstVersion => "first_version",
            Self::LastEventId => "event_id",
            Self::Stream => "stream",
            Self::FirstOffset => "first_offset",
            Self::LastOffset => "last_offset",
            Self::State => "state",
            Self::SeenStream => "seen_stream",
            Self::SeenOffset => "seen_offset",
            Self::EventGroup => "n",
            Self::EventOffset => "record_offset",
            Self::Field(field) => field.spec().column,
            Self::EventJson => "event_json",
        };
        name.to_owned()
    }
}

/// The types parameters are declared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the Postgres type of that name")]
pub enum Bind {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Text,
    Json,
    Jsonb,
    Bytea,
    Timestamp,
    Timestamptz,
    Date,
    Time,
    Uuid,
}

impl Bind {
    pub(crate) fn scalar(self) -> Type {
        match self {
            Self::Bool => Type::BOOL,
            Self::Int2 => Type::INT2,
            Self::Int4 => Type::INT4,
            Self::Int8 => Type::INT8,
            Self::Float4 => Type::FLOAT4,
            Self::Float8 => Type::FLOAT8,
            Self::Text => Type::TEXT,
            Self::Json => Type::JSON,
            Self::Jsonb => Type::JSONB,
            Self::Bytea => Type::BYTEA,
            Self::Timestamp => Type::TIMESTAMP,
            Self::Timestamptz => Type::TIMESTAMPTZ,
            Self::Date => Type::DATE,
            Self::Time => Type::TIME,
            Self::Uuid => Type::UUID,
        }
    }

    pub(crate) fn array(self) -> Type {
        match self {
            Self::Bool => Type::BOOL_ARRAY,
            Self::Int2 => Type::INT2_ARRAY,
            Self::Int4 => Type::INT4_ARRAY,
            Self::Int8 => Type::INT8_ARRAY,
            Self::Float4 => Type::FLOAT4_ARRAY,
            Self::Float8 => Type::FLOAT8_ARRAY,
            Self::Text => Type::TEXT_ARRAY,
            Self::Json => Type::JSON_ARRAY,
            Self::Jsonb => Type::JSONB_ARRAY,
            Self::Bytea => Type::BYTEA_ARRAY,
            Self::Timestamp => Type::TIMESTAMP_ARRAY,
            Self::Timestamptz => Type::TIMESTAMPTZ_ARRAY,
            Self::Date => Type::DATE_ARRAY,
            Self::Time => Type::TIME_ARRAY,
            Self::Uuid => Type::UUID_ARRAY,
        }
    }

    /// How the values of a field of the envelope are bound.
    pub fn of_field(kind: FieldKind) -> Self {
        match kind {
            FieldKind::Text | FieldKind::Identity => Self::Text,
            FieldKind::WholeNumber | FieldKind::Version => Self::Int8,
            FieldKind::Time => Self::Timestamptz,
        }
    }

    /// How a column's values are bound, and the cast that the statement adds where they travel as
    /// text but are no `text`.
    fn of(column: &ColumnType) -> (Self, Option<String>) {
        let bind = match column {
            ColumnType::Numeric => return (Self::Text, Some("pg_catalog.numeric".to_owned())),
            ColumnType::Enum { sql, .. } => return (Self::Text, Some(sql.clone())),
            // Compared as text, they would not find the rows that their unique indexes find.
            ColumnType::Char { .. } => return (Self::Text, Some("pg_catalog.bpchar".to_owned())),
            ColumnType::Citext { schema } => {
                return (Self::Text, Some(format!("{schema}.citext")));
            }
            ColumnType::Bool => Self::Bool,
            ColumnType::Int2 => Self::Int2,
            ColumnType::Int4 => Self::Int4,
            ColumnType::Int8 => Self::Int8,
            ColumnType::Float4 => Self::Float4,
            ColumnType::Float8 => Self::Float8,
            ColumnType::Text { .. } => Self::Text,
            ColumnType::Json => Self::Json,
            ColumnType::Jsonb => Self::Jsonb,
            ColumnType::Bytea => Self::Bytea,
            ColumnType::Timestamp => Self::Timestamp,
            ColumnType::Timestamptz => Self::Timestamptz,
            ColumnType::Date => Self::Date,
            ColumnType::Time => Self::Time,
            ColumnType::Uuid => Self::Uuid,
        };
        (bind, None)
    }
}

/// Where a parameter's values come from when it is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// One value for the statement.
    Shared,
    /// One value of the only group.
    Group,
    /// An array with one element a group.
    Groups,
    /// One value of the only event.
    Event,
    /// An array with one element an event, all groups one after the other.
    Events,
}

/// One parameter of a statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// What is bound.
    pub slot: Slot,
    /// Where it comes from.
    pub source: Source,
    /// Its declared type.
    pub ty: Type,
}

/// Collects the parameters while a statement's text is written.
#[derive(Debug)]
pub struct Binder {
    extent: Extent,
    declared: Vec<Declared>,
}

impl Binder {
    /// A binder without parameters.
    pub fn new(extent: Extent) -> Self {
        Self { extent, declared: Vec::new() }
    }

    /// How much the statement writes.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// A value of the whole statement.
    pub fn shared(&mut self, slot: Slot, bind: Bind) -> String {
        self.declare(slot, Source::Shared, bind)
    }

    /// A value of the group.
    pub fn group(&mut self, slot: Slot, bind: Bind) -> String {
        match self.extent {
            Extent::Event => self.declare(slot.in_single_event(), Source::Group, bind),
            Extent::Group => self.declare(slot, Source::Group, bind),
            Extent::Chunk => {
                self.declare(slot, Source::Groups, bind);
                format!("i.{}", slot.name())
            }
        }
    }

    /// A value of the target's row, with its cast.
    pub fn target(&mut self, slot: Slot, column: &ColumnType) -> String {
        let (bind, cast) = Bind::of(column);
        let expression = self.group(slot, bind);
        match cast {
            Some(cast) => format!("{expression}::{cast}"),
            None => expression,
        }
    }

    /// A value of an event.
    pub fn event(&mut self, slot: Slot, bind: Bind) -> String {
        if self.extent == Extent::Event {
            let shared = slot.in_single_event();
            let source = if shared == slot { Source::Event } else { Source::Group };
            return self.declare(shared, source, bind);
        }
        self.declare(slot, Source::Events, bind);
        format!("e.{}", slot.name())
    }

    /// `$n` of a parameter, which is declared when it is asked for first.
    fn declare(&mut self, slot: Slot, source: Source, bind: Bind) -> String {
        let known = self.declared.iter().position(|d| d.slot == slot && d.source == source);
        let index = known.unwrap_or_else(|| {
            let ty = match source {
                Source::Shared | Source::Group | Source::Event => bind.scalar(),
                Source::Groups | Source::Events => bind.array(),
            };
            self.declared.push(Declared { slot, source, ty });
            self.declared.len() - 1
        });
        format!("${}", index + 1)
    }

    /// The chunk's rows, one a group, numbered from 1 in `n`; `None` where there is one group.
    pub fn input(&self) -> Option<String> {
        (self.extent == Extent::Chunk).then(|| {
            let (parameters, names) = self.arrays(Source::Groups);
            format!(
                "input as (\n  select * from unnest({parameters}) with ordinality as i({names}, n)\n)"
            )
        })
    }

    /// What follows `from` where one row is written for every group that moved.
    pub fn moved_groups(&self) -> &'static str {
        match self.extent {
            Extent::Event | Extent::Group => "moved",
            Extent::Chunk => {
                "moved join input as i on i.aggregate_type = moved.aggregate_type \
                 and i.aggregate_id = moved.aggregate_id"
            }
        }
    }

    /// What follows `from` where one row is written for every event of the groups that moved. To be
    /// asked for after the last event slot.
    pub fn moved_events(&mut self) -> String {
        match self.extent {
            Extent::Event => "moved".to_owned(),
            Extent::Group => {
                let (parameters, names) = self.arrays(Source::Events);
                format!("moved cross join unnest({parameters}) as e({names})")
            }
            Extent::Chunk => {
                self.event(Slot::EventGroup, Bind::Int8);
                let (parameters, names) = self.arrays(Source::Events);
                let moved = self.moved_groups();
                format!("{moved} join unnest({parameters}) as e({names}) on e.n = i.n")
            }
        }
    }

    fn arrays(&self, source: Source) -> (String, String) {
        let chosen = || self.declared.iter().enumerate().filter(|(_, d)| d.source == source);
        let parameters: Vec<String> = chosen().map(|(i, _)| format!("${}", i + 1)).collect();
        let names: Vec<String> = chosen().map(|(_, d)| d.slot.name()).collect();
        (parameters.join(", "), names.join(", "))
    }

    /// The parameters in the order of their numbers.
    pub fn into_declared(self) -> Vec<Declared> {
        self.declared
    }
}

/// A list of quoted column names.
pub fn column_list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(quoted).collect::<Vec<_>>().join(", ")
}
