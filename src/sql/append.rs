//! The part of a statement that appends one row to a table for each event of the groups that moved.

use crate::sql::binder::{Bind, Binder, Slot};

/// Where the value of a column comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// The group; the same for all of its events.
    Group(Slot, Bind),
    /// The event.
    Event(Slot, Bind),
    /// This expression, which names no parameter.
    Expression(&'static str),
}

/// Rows for a table, one per event.
#[derive(Debug)]
pub(crate) struct Append<'a> {
    /// The name of the common table expression.
    pub(crate) name: &'a str,
    /// The table, quoted.
    pub(crate) table: String,
    /// The columns, quoted where their names need it.
    pub(crate) columns: Vec<(&'static str, Of)>,
    /// What happens where the row exists: the text from `on conflict` on. The row that exists is `t`.
    pub(crate) conflict: String,
}

impl Append<'_> {
    /// Writes the common table expression. It selects from the ledger's move, so that no row is
    /// written for a group that was refused.
    pub(crate) fn write(self, b: &mut Binder) -> String {
        let value = |of: &Of, b: &mut Binder| match of {
            Of::Group(slot, bind) => b.group(*slot, *bind),
            Of::Event(slot, bind) => b.event(*slot, *bind),
            Of::Expression(text) => (*text).to_owned(),
        };
        let values: Vec<String> = self.columns.iter().map(|(_, of)| value(of, b)).collect();
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        format!(
            "{} as (\n  insert into {} as t ({})\n  select {} from {}\n  {}\n)",
            self.name,
            self.table,
            names.join(", "),
            values.join(", "),
            b.moved_events(),
            self.conflict,
        )
    }
}
