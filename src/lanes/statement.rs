//! The one statement that applies a group: ledger first, then the target, then notifications, all
//! selecting from the ledger's move.
//!
//! Texts depend on a [`Shape`] only, never on a value; each is built once and kept.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_postgres::types::Type;

use crate::route::{CompiledAction, Target, fragment};
use crate::sql::binder::{Binder, Declared, Extent};
use crate::sql::name::Schema;
use crate::store::ledger::move_row;
use crate::store::notification;
use pgsluice_core::event::RouteId;

/// What a group does, after folding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The document becomes another one.
    Replace,
    /// The document's top-level members are set.
    Merge,
    /// The document is deleted.
    Erase,
    /// A row of the target is inserted or updated.
    Upsert,
    /// A row of the target is deleted.
    Remove,
    /// A row of the target is marked as deleted: columns are set where the row exists.
    Mark,
}

impl Effect {
    /// Whether the aggregate is deleted afterwards.
    pub fn deletes(self) -> bool {
        match self {
            Self::Erase | Self::Remove | Self::Mark => true,
            Self::Replace | Self::Merge | Self::Upsert => false,
        }
    }
}

/// What an existing ledger row has to fulfil.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guard {
    /// First attempt: position and version decide, in SQL.
    First,
    /// Slow lane: the row stands where it stood when it was judged.
    Seen,
}

/// What a notification of an applied event carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Notify {
    /// No notification is written.
    Nothing,
    /// One row an event.
    Row {
        /// With tenant, user, nonce, transaction, correlation and causation.
        context: bool,
        /// With the event as JSON.
        json: bool,
    },
}

/// Everything a statement's text depends on, beside the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The route.
    pub route: RouteId,
    /// What is done.
    pub effect: Effect,
    /// Which of the target's columns are set; empty without a target.
    pub present: Box<[bool]>,
    /// How much is written.
    pub extent: Extent,
    /// What the ledger row has to fulfil.
    pub guard: Guard,
    /// Notifications.
    pub notify: Notify,
}

/// The part of the configuration that texts depend on.
#[derive(Debug, Clone, Copy)]
pub struct Layout<'a> {
    /// Where pgsluice's own tables are.
    pub schema: &'a Schema,
    /// `on_gap = "park"`: a group after missing versions is refused.
    pub park_gaps: bool,
}

/// A statement ready to be prepared.
#[derive(Debug, PartialEq)]
pub struct Statement {
    /// The text.
    pub text: String,
    /// Types of its parameters.
    pub types: Vec<Type>,
    /// What is bound to them.
    pub declared: Vec<Declared>,
}

impl Statement {
    fn new(text: String, b: Binder) -> Self {
        let declared = b.into_declared();
        Self { text, types: declared.iter().map(|d| d.ty.clone()).collect(), declared }
    }

    /// Writes the statement of a shape. Its rows are the groups that moved: `gap`, and for a chunk
    /// the group's number (from 1) before it.
    pub fn apply(layout: &Layout<'_>, action: &CompiledAction, shape: &Shape) -> Self {
        let mut b = Binder::new(shape.extent);
        let moved = move_row::moved(layout, shape.effect, shape.guard, &mut b);
        let mut parts = vec![moved];
        if let Some(target) = target(action) {
            parts.extend(fragment::write(target, shape.effect, &shape.present, &mut b));
        }
        parts.extend(notification::applied(layout.schema, shape.guard, shape.notify, &mut b));
        parts.splice(0..0, b.input());
        let result = match shape.extent {
            Extent::Event | Extent::Group => "select gap from moved".to_owned(),
            Extent::Chunk => format!("select i.n, moved.gap from {}", b.moved_groups()),
        };
        Self::new(format!("with {}\n{result}", parts.join(",\n")), b)
    }
}

/// The table an action writes beside the ledger.
fn target(action: &CompiledAction) -> Option<&Target> {
    match action {
        CompiledAction::Upsert(target) | CompiledAction::Delete(target) => Some(target),
        CompiledAction::Document { .. } | CompiledAction::Skip | CompiledAction::Unusable => None,
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

    /// The statement of a shape.
    pub fn of(&self, action: &CompiledAction, shape: Shape) -> Arc<Statement> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(statement) = known.get(&shape) {
            return Arc::clone(statement);
        }
        if known.len() >= Self::CAPACITY {
            known.clear();
        }
        let layout = Layout { schema: &self.schema, park_gaps: self.park_gaps };
        let statement = Arc::new(Statement::apply(&layout, action, &shape));
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
