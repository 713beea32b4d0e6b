//! Routes as the decoder uses them: conditions, and for each column where its value comes from.
//!
//! A tombstone under `tombstone = "delete"` takes the first route whose conditions it meets, and
//! ends the aggregate there: a document or upsert route deletes the document or the row by its
//! key, a delete route does what it always does. It has no value, so a condition on `event_type`
//! never matches it (unless the type comes from a header or a constant), and key columns must
//! come from the record's key, its headers or the aggregate id.

use crate::config::{Config, DEFAULT_ROUTE, FieldSources, RouteAction, RouteConfig};
use crate::decode::{Draft, Found, Pointer, Source};
use crate::route::matching::{Conditions, Matching, Subject};
use crate::route::value::fit;
use crate::route::{Column, CompiledAction, CompiledRoute, Plan, Target};
use pgsluice_core::event::{
    Json, LedgerEffect, Poison, RouteId, RowAction, RowWrite, Value, Write,
};
use pgsluice_core::verdict::Reason;

/// All routes, in order.
#[derive(Debug)]
pub(crate) struct Rules(Vec<Rule>);

/// One route.
#[derive(Debug)]
pub(crate) struct Rule {
    conditions: Conditions,
    route: RouteId,
    effect: Effect,
}

/// What a route makes of an event.
#[derive(Debug)]
enum Effect {
    /// Nothing.
    Skip,
    /// Nothing may take it.
    Unusable,
    /// The payload becomes the state, or part of it.
    Document { merge: bool },
    /// The document is deleted.
    DocumentDelete,
    /// A row of a user's table is written.
    Upsert { key: Vec<Bound>, columns: Vec<Bound> },
    /// A row of a user's table is deleted, or marked by `columns`.
    Delete { key: Vec<Bound>, columns: Vec<Bound> },
}

/// A column and the sources of its value.
#[derive(Debug)]
struct Bound {
    column: Column,
    sources: Box<[Source]>,
}

/// What the routes say to an event.
#[derive(Debug)]
pub(crate) enum Choice<'a> {
    /// The first route that matches.
    Rule(&'a Rule),
    /// No route matches.
    Unmatched,
    /// A route before the first match asks for a field that could not be told.
    CannotTell,
}

impl Rules {
    /// The routes of a plan, with the conditions and sources of the configuration it was compiled
    /// from. Without any route there is one for everything: the plan's last.
    pub(crate) fn new(plan: &Plan, config: &Config) -> Self {
        if config.routes.is_empty() {
            let everything = RouteConfig {
                name: DEFAULT_ROUTE.to_owned(),
                named_by_order: false,
                topic: Vec::new(),
                aggregate_type: Vec::new(),
                event_type: Vec::new(),
                action: RouteAction::Skip,
            };
            let default = plan.routes.last().map(|compiled| Rule::new(&everything, compiled));
            return Self(default.into_iter().collect());
        }
        let routes = config.routes.iter().zip(&plan.routes);
        Self(routes.map(|(route, compiled)| Rule::new(route, compiled)).collect())
    }

    /// Finds the route of an event: the first match wins.
    pub(crate) fn choose(&self, subject: &Subject<'_>) -> Choice<'_> {
        for rule in &self.0 {
            match rule.conditions.matches(subject) {
                Matching::Yes => return Choice::Rule(rule),
                Matching::No => {}
                Matching::CannotTell => return Choice::CannotTell,
            }
        }
        Choice::Unmatched
    }
}

impl Rule {
    fn new(route: &RouteConfig, compiled: &CompiledRoute) -> Self {
        let effect = match &compiled.action {
            CompiledAction::Skip => Effect::Skip,
            CompiledAction::Unusable => Effect::Unusable,
            CompiledAction::Document { merge } => match route.action {
                RouteAction::Document { delete: true, .. } => Effect::DocumentDelete,
                _ => Effect::Document { merge: *merge },
            },
            CompiledAction::Upsert(target) => {
                let (key, columns) = bindings(target, &route.action);
                Effect::Upsert { key, columns }
            }
            CompiledAction::Delete(target) => {
                let (key, columns) = bindings(target, &route.action);
                Effect::Delete { key, columns }
            }
        };
        Self { conditions: Conditions::new(route), route: compiled.id, effect }
    }

    /// The route's place in the plan.
    pub(crate) fn id(&self) -> RouteId {
        self.route
    }

    /// Whether the route does nothing.
    pub(crate) fn skips(&self) -> bool {
        matches!(self.effect, Effect::Skip)
    }

    /// Whether no event may take the route: its table is not what it expects.
    pub(crate) fn unusable(&self) -> bool {
        matches!(self.effect, Effect::Unusable)
    }

    /// What the event writes through this route; `None` for a route that does nothing.
    ///
    /// # Errors
    /// The column or field at fault when a value is missing or does not fit.
    pub(crate) fn write(&self, draft: &Draft<'_>) -> Result<Option<Write>, Poison> {
        let written = self.written(draft).map_err(|poison| self.meant(poison))?;
        Ok(written.map(|(ledger, rows)| Write { route: self.route, ledger, rows }))
    }

    /// Poison of an event that was meant for this route.
    pub(crate) fn meant(&self, poison: Poison) -> Poison {
        Poison { route: Some(self.route), ..poison }
    }

    fn written(&self, draft: &Draft<'_>) -> Result<Option<(LedgerEffect, Vec<RowWrite>)>, Poison> {
        let row = |action, key: &[Bound], columns: &[Bound]| {
            let key = key_values(draft, key)?;
            Ok(vec![RowWrite { action, key, columns: column_values(draft, columns)? }])
        };
        Ok(Some(match &self.effect {
            Effect::Skip | Effect::Unusable => return Ok(None),
            Effect::DocumentDelete => (LedgerEffect::Clear, Vec::new()),
            Effect::Document { .. } if draft.tombstone => (LedgerEffect::Clear, Vec::new()),
            Effect::Document { merge: true } => {
                (LedgerEffect::Merge(document(draft, true)?), Vec::new())
            }
            Effect::Document { merge: false } => {
                (LedgerEffect::Set(document(draft, false)?), Vec::new())
            }
            Effect::Upsert { key, .. } if draft.tombstone => {
                (LedgerEffect::Clear, row(RowAction::Remove, key, &[])?)
            }
            Effect::Upsert { key, columns } => {
                (LedgerEffect::Keep, row(RowAction::Upsert, key, columns)?)
            }
            Effect::Delete { key, columns } if columns.is_empty() => {
                (LedgerEffect::Clear, row(RowAction::Remove, key, &[])?)
            }
            Effect::Delete { key, columns } => {
                (LedgerEffect::Clear, row(RowAction::Mark, key, columns)?)
            }
        }))
    }
}

/// Sources by column name. A column without any has nothing to find, which for a key is poison
/// and for another column leaves it alone; compiling refuses both before it comes to that.
fn bindings(target: &Target, action: &RouteAction) -> (Vec<Bound>, Vec<Bound>) {
    let (key, columns) = match action {
        RouteAction::Upsert { key, columns, .. } => (key.as_slice(), columns.as_deref()),
        RouteAction::Delete { key, soft, .. } => (key.as_slice(), Some(soft.as_slice())),
        RouteAction::Skip | RouteAction::Document { .. } => (&[][..], Some(&[][..])),
    };
    let bound = |column: &Column, sources: Box<[Source]>| Bound { column: column.clone(), sources };
    let listed = |pairs: &[(String, FieldSources)], column: &Column| {
        let pair = pairs.iter().find(|(name, _)| *name == column.name);
        bound(column, pair.map(|(_, sources)| Source::all(sources)).unwrap_or_default())
    };
    let member = |column: &Column| {
        bound(column, Box::new([Source::PayloadPointer(Pointer::member(&column.name))]))
    };
    (
        target.key.iter().map(|column| listed(key, column)).collect(),
        match columns {
            Some(columns) => target.columns.iter().map(|c| listed(columns, c)).collect(),
            None => target.columns.iter().map(member).collect(),
        },
    )
}

/// Merging is defined for objects only: of anything else `jsonb ||` would make an array.
fn document(draft: &Draft<'_>, merge: bool) -> Result<Json, Poison> {
    let poison = |reason| Poison::new(reason, Some("payload".into()));
    let payload = draft.payload().ok_or_else(|| poison(Reason::FieldMissing))?;
    if merge && !draft.payload_is_object() {
        return Err(poison(Reason::JsonShape));
    }
    Ok(Json(payload.into()))
}

fn key_values(draft: &Draft<'_>, key: &[Bound]) -> Result<Box<[Value]>, Poison> {
    key.iter()
        .map(|bound| match bound.value(draft)? {
            None | Some(Value::Null) => Err(bound.poison(Reason::ColumnKeyMissing)),
            Some(value) => Ok(value),
        })
        .collect()
}

fn column_values(draft: &Draft<'_>, columns: &[Bound]) -> Result<Box<[Option<Value>]>, Poison> {
    columns.iter().map(|bound| bound.value(draft)).collect()
}

impl Bound {
    fn value(&self, draft: &Draft<'_>) -> Result<Option<Value>, Poison> {
        let found: Option<Found<'_>> =
            draft.first(&self.sources).map_err(|reason| self.poison(reason))?;
        let Some(found) = found else { return Ok(None) };
        let value = fit(found, &self.column.ty);
        value.map(Some).ok_or_else(|| self.poison(Reason::ColumnValue))
    }

    fn poison(&self, reason: Reason) -> Poison {
        Poison::new(reason, Some(self.column.name.as_str().into()))
    }
}
