//! The one statement that applies a group: ledger first, then the target, then notifications, all
//! selecting from the ledger's move.
//!
//! Texts depend on a [`Shape`] only, never on a value; each is built once and kept.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::route::fold::{Folded, FoldedRow};
use crate::route::fragment::RowShape;
use crate::route::{Target, fragment};
use crate::sql::binder::{Binder, Extent};
use crate::sql::name::Schema;
use crate::sql::statement::Statement;
use crate::store::ledger::{self, Guard, Layout};
use crate::store::notification::{self, Notify};
use pgsluice_core::event::{LedgerEffect, RouteId};

/// Everything a statement's text depends on, beside the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The route.
    pub route: RouteId,
    /// The effect on the ledger's row.
    pub ledger: LedgerEffect<()>,
    /// The row of the target; `None` without a target.
    pub row: Option<RowShape>,
    /// How much is written.
    pub extent: Extent,
    /// What the ledger row has to fulfil.
    pub guard: Guard,
    /// Notifications.
    pub notify: Notify,
}

impl Shape {
    /// The shape of a folded write.
    pub(super) fn of(
        folded: &Folded<'_>,
        route: RouteId,
        extent: Extent,
        guard: Guard,
        notify: Notify,
    ) -> Self {
        let row = folded.row.as_ref().map(FoldedRow::shape);
        Self { route, ledger: folded.ledger.kind(), row, extent, guard, notify }
    }

    /// Writes the statement, for a route that writes `target`. Its rows are the groups that moved:
    /// `gap`, and for a chunk the group's number (from 1) before it.
    pub fn statement(&self, layout: &Layout<'_>, target: Option<&Target>) -> Statement {
        let mut b = Binder::new(self.extent);
        let mut parts = vec![ledger::moved(layout, self.ledger, self.guard, &mut b)];
        if let (Some(target), Some(row)) = (target, &self.row) {
            parts.extend(fragment::write(target, row, &mut b));
        }
        parts.extend(notification::applied(layout.schema, self.guard, self.notify, &mut b));
        parts.splice(0..0, b.input());
        let result = match self.extent {
            Extent::Event | Extent::Group => "select gap from moved".to_owned(),
            Extent::Chunk => format!("select i.n, moved.gap from {}", b.moved_groups()),
        };
        Statement::new(format!("with {}\n{result}", parts.join(",\n")), b)
    }
}

/// The statements that were written so far. Bounded: a route with many optional columns could
/// otherwise fill memory with their combinations.
pub struct Statements {
    schema: Schema,
    park_gaps: bool,
    known: Mutex<HashMap<Shape, Arc<Statement>>>,
}

impl Statements {
    /// How many texts are kept; when one more is needed, all are dropped.
    const CAPACITY: usize = 256;

    /// None written yet.
    pub fn new(schema: Schema, park_gaps: bool) -> Self {
        Self { schema, park_gaps, known: Mutex::new(HashMap::new()) }
    }

    /// Where pgsluice's own tables are.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The statement of a shape, for a route that writes `target`.
    pub fn of(&self, target: Option<&Target>, shape: Shape) -> Arc<Statement> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(statement) = known.get(&shape) {
            return Arc::clone(statement);
        }
        if known.len() >= Self::CAPACITY {
            known.clear();
        }
        let layout = Layout { schema: &self.schema, park_gaps: self.park_gaps };
        let statement = Arc::new(shape.statement(&layout, target));
        known.insert(shape, Arc::clone(&statement));
        statement
    }
}

impl fmt::Debug for Statements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statements").field("schema", &self.schema).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
