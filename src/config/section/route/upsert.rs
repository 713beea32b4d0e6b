//! `[route.upsert]`: a row of a user's table, inserted or updated.

use config::{Value, ValueKind};

use crate::config::load::reader::Section;

use super::table::{ColumnSources, TableName, read_columns, read_key, read_table};

/// A route that inserts or updates a row of a user's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpsertRoute {
    /// The table.
    pub table: TableName,
    /// Key columns; a unique index on exactly these must exist.
    pub key: ColumnSources,
    /// Columns beside the key; `None` for `"auto"`: every member of the payload that names a
    /// column.
    pub columns: Option<ColumnSources>,
}

impl UpsertRoute {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let table = read_table(&mut section);
        let key = read_key(&mut section);
        let columns = match section.raw("columns") {
            None => {
                let missing = "is missing; give columns = { name = \"source\" } or \"auto\"";
                section.problem("columns", missing);
                None
            }
            Some(Value { kind: ValueKind::String(text), .. }) if text == "auto" => None,
            Some(Value { kind: ValueKind::Table(_), .. }) => {
                Some(read_columns(section.table("columns")))
            }
            Some(_) => {
                section.problem("columns", "expected { column = \"source\" } or \"auto\"");
                None
            }
        };
        let twice = columns.iter().flatten().find(|(name, _)| key.iter().any(|(k, _)| k == name));
        if let Some((name, _)) = twice {
            section.problem("columns", format!("{name:?} is already a key column"));
        }
        section.finish();
        Self { table, key, columns }
    }
}
