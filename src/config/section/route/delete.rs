//! `[route.delete]`: a row of a user's table, deleted or marked.

use crate::config::load::reader::Section;

use super::table::{ColumnSources, TableName, read_columns, read_key, read_table};

/// A route that deletes a row of a user's table, or marks it as deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteRoute {
    /// The table.
    pub table: TableName,
    /// Key columns; a unique index on exactly these must exist.
    pub key: ColumnSources,
    /// Columns to set instead of deleting; empty to delete.
    pub soft: ColumnSources,
}

impl DeleteRoute {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let table = read_table(&mut section);
        let key = read_key(&mut section);
        let soft = if section.has("soft") {
            let soft = read_columns(section.table("soft"));
            if soft.is_empty() {
                let none = "needs at least one column; remove it to delete the row";
                section.problem("soft", none);
            }
            soft
        } else {
            Vec::new()
        };
        section.finish();
        Self { table, key, soft }
    }
}
