//! Routes after compilation: what the decoder binds values by and the store builds statements
//! from. A plan is immutable; a session compiles a new one, so a changed table is noticed.

use std::sync::Arc;

use crate::sql::column_type::ColumnType;
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
    /// Writes the ledger row's `state`, or deletes it.
    Document {
        /// `true`: merged into the stored state (top-level members, as jsonb `||`); `false`:
        /// replaces it.
        merge: bool,
    },
    /// Writes a row of a user's table, or deletes it by its key for a tombstone.
    Upsert(Target),
    /// Deletes a row of a user's table, or sets columns of it when `target.columns` is not empty.
    Delete(Target),
}

impl CompiledAction {
    /// The user's table that it writes.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Upsert(target) | Self::Delete(target) => Some(target),
            Self::Skip | Self::Unusable | Self::Document { .. } => None,
        }
    }
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
