//! A user's table as a route writes it, and the values that an event has for its columns.

use crate::config::FieldSources;
use crate::decode::{Draft, Found, Pointer, Source};
use crate::route::value::fit;
use crate::sql::column_type::ColumnType;
use pgsluice_core::event::{Poison, RowAction, RowWrite, Value};
use pgsluice_core::verdict::Reason;

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

/// A column of a target. Two are the same when the catalog says the same of them: plans are compared
/// that were compiled from one configuration, and only that says where values come from.
#[derive(Debug, Clone)]
pub struct Column {
    /// Name, as in the catalog (unquoted).
    pub name: String,
    /// Type.
    pub ty: ColumnType,
    /// Where an event's value comes from; the first that it has.
    sources: Box<[Source]>,
}

impl PartialEq for Column {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.ty) == (&other.name, &other.ty)
    }
}

impl Target {
    /// The row that an event writes: its key and, unless it is removed, its columns.
    ///
    /// # Errors
    /// The column at fault: a key without a value, or a value that does not fit.
    pub(super) fn row(&self, action: RowAction, draft: &Draft<'_>) -> Result<RowWrite, Poison> {
        let key = |column: &Column| match column.value(draft)? {
            None | Some(Value::Null) => Err(column.poison(Reason::ColumnKeyMissing)),
            Some(value) => Ok(value),
        };
        let columns = match action {
            RowAction::Upsert | RowAction::Mark => self.columns.as_slice(),
            RowAction::Remove => &[],
        };
        Ok(RowWrite {
            action,
            key: self.key.iter().map(key).collect::<Result<_, _>>()?,
            columns: columns.iter().map(|column| column.value(draft)).collect::<Result<_, _>>()?,
        })
    }
}

impl Column {
    /// A column that no event has a value for.
    pub fn new(name: &str, ty: ColumnType) -> Self {
        Self { name: name.to_owned(), ty, sources: Box::default() }
    }

    /// The same column, with the values that these sources find.
    pub(super) fn from_sources(self, sources: &FieldSources) -> Self {
        Self { sources: Source::all(sources), ..self }
    }

    /// The same column, with the payload's member of its name.
    pub(super) fn from_member(self) -> Self {
        let member = Source::PayloadPointer(Pointer::member(&self.name));
        Self { sources: Box::new([member]), ..self }
    }

    /// The value of an event; `None` where it has none.
    fn value(&self, draft: &Draft<'_>) -> Result<Option<Value>, Poison> {
        let found: Option<Found<'_>> =
            draft.first(&self.sources).map_err(|reason| self.poison(reason))?;
        let Some(found) = found else { return Ok(None) };
        let value = fit(found, &self.ty, &draft.record().raw);
        value.map(Some).ok_or_else(|| self.poison(Reason::ColumnValue))
    }

    fn poison(&self, reason: Reason) -> Poison {
        Poison::new(reason, Some(self.name.as_str().into()))
    }
}
