//! Routes after compilation: what the decoder binds values by and the store builds statements
//! from. A plan is immutable; a session compiles a new one, so a changed table is noticed.

use std::sync::Arc;

use pgsluice_core::event::RouteId;

/// All routes, in the order of the configuration; the last one is the default document route.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The compiled routes; `routes[i].id == RouteId(i)`.
    pub routes: Vec<CompiledRoute>,
}

impl Plan {
    /// The route with that id. Ids are handed out by the plan itself, so it is always there.
    pub fn route(&self, id: RouteId) -> &CompiledRoute {
        &self.routes[usize::from(id.0)]
    }

    /// Some route does not fit its table.
    pub fn has_unusable(&self) -> bool {
        self.routes.iter().any(|route| route.action == CompiledAction::Unusable)
    }

    /// Whether routes are to be used otherwise than in this plan. One that broke since is not to be
    /// used at all: what it is meant for halts, and the rest goes on.
    pub fn changed_to(&self, now: &Self) -> bool {
        let differs = |(before, now): (&CompiledRoute, &CompiledRoute)| {
            now.action != CompiledAction::Unusable && now.action != before.action
        };
        self.routes.iter().zip(&now.routes).any(differs)
    }
}

/// One route.
#[derive(Debug, Clone, PartialEq)]
pub struct CompiledRoute {
    /// Its position, for as long as this process runs.
    pub id: RouteId,
    /// Its name, for everything that outlives the process or is read by people.
    pub name: Arc<str>,
    /// What it does.
    pub action: CompiledAction,
}

/// What a route does.
#[derive(Debug, Clone, PartialEq)]
pub enum CompiledAction {
    /// Nothing: SKIPPED.
    Skip,
    /// It does not fit its table. No event may take it: topics that it may be meant for are not
    /// read until it fits.
    Unusable,
    /// Writes the ledger row's `state`. Carries `Change::Document` and, for tombstones and
    /// deletes, `Change::Delete`.
    Document {
        /// `true`: merged into the stored state (top-level members, as jsonb `||`); `false`:
        /// replaces it.
        merge: bool,
    },
    /// Writes a row of a user's table. Carries `Change::Upsert` and, for tombstones,
    /// `Change::Delete` of the row by its key.
    Upsert(Target),
    /// Deletes a row of a user's table, or sets columns of it when `target.columns` is not empty.
    Delete(Target),
}

/// A user's table, with the columns a route writes.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Schema, as in the catalog (unquoted).
    pub schema: String,
    /// Table name, as in the catalog (unquoted).
    pub table: String,
    /// Key columns; a unique index on exactly these exists.
    pub key: Vec<Column>,
    /// Columns written beside the key.
    pub columns: Vec<Column>,
}

/// A column of a target.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Name, as in the catalog (unquoted).
    pub name: String,
    /// Type.
    pub ty: ColumnType,
}

/// The column types values can be bound to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// `boolean`
    Bool,
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `numeric`, with any precision; bound as checked digits.
    Numeric,
    /// `text`, `varchar`; at most so many characters.
    Text {
        /// Declared length, `None` without one.
        max_chars: Option<u32>,
    },
    /// `char(n)`, whose trailing blanks do not count when it is compared.
    Char {
        /// Declared length, `None` without one.
        max_chars: Option<u32>,
    },
    /// `citext`, which is compared without regard to case.
    Citext {
        /// Quoted schema of its extension, where its operators are, too.
        schema: String,
    },
    /// `json`
    Json,
    /// `jsonb`
    Jsonb,
    /// `bytea`
    Bytea,
    /// `timestamp without time zone`
    Timestamp,
    /// `timestamp with time zone`
    Timestamptz,
    /// `date`
    Date,
    /// `time without time zone`
    Time,
    /// `uuid`
    Uuid,
    /// An enum type.
    Enum {
        /// Quoted, schema-qualified type name.
        sql: String,
        /// Its labels.
        labels: Vec<String>,
    },
}

impl ColumnType {
    /// The operator by which two values of the type are the same to its unique indexes. Found by
    /// the search path, `citext`'s own would give way to that of `text`.
    pub fn same(&self) -> String {
        match self {
            Self::Citext { schema } => format!("operator({schema}.=)"),
            _ => "=".to_owned(),
        }
    }
}
