//! What this session has written so far, table by table, as the server itself counts it: what
//! triggers wrote and which partition a row went to is part of it.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio_postgres::Row;

use crate::sql::query::Query;
use pgsluice_core::fault::{Fault, FaultKind};

/// Rows by the table they stand in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<String, [i64; 3]>);

/// What was written to one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableRows {
    /// The table with its schema.
    pub table: String,
    /// Rows inserted.
    pub inserted: i64,
    /// Rows updated.
    pub updated: i64,
    /// Rows deleted.
    pub deleted: i64,
}

/// Reads the counters. They need `track_counts`, which is on unless a superuser switched it off;
/// then there is nothing to read and [`read`] says so.
pub fn query() -> Query<'static> {
    let mut query = Query::default();
    query.text = "\
select null, pg_catalog.current_setting('track_counts')::boolean, 0::bigint, 0::bigint, 0::bigint
union all
select pg_catalog.format('%s.%s', schemaname, relname), true, n_tup_ins, n_tup_upd, n_tup_del
from pg_catalog.pg_stat_xact_user_tables
where n_tup_ins <> 0 or n_tup_upd <> 0 or n_tup_del <> 0"
        .to_owned();
    query
}

/// The rows of [`query`]; `None` where the server does not count.
///
/// # Errors
/// [`FaultKind::Bug`] when the result does not have the columns asked for.
pub fn read(rows: &[Row]) -> Result<Option<Counts>, Fault> {
    let parse = || -> Result<Option<Counts>, tokio_postgres::Error> {
        let mut counts = Counts::default();
        for row in rows {
            match row.try_get::<_, Option<String>>(0)? {
                Some(table) => {
                    let numbers = [row.try_get(2)?, row.try_get(3)?, row.try_get(4)?];
                    counts.0.insert(table, numbers);
                }
                None if row.try_get(1)? => {}
                None => return Ok(None),
            }
        }
        Ok(Some(counts))
    };
    parse().map_err(|_| Fault::new(FaultKind::Bug("counters of tables")))
}

impl Counts {
    /// What was written since `earlier`, by table.
    pub fn since(&self, earlier: &Self) -> Vec<TableRows> {
        let none = [0; 3];
        let rows = self.0.iter().map(|(table, now)| {
            let before = earlier.0.get(table).unwrap_or(&none);
            TableRows {
                table: table.clone(),
                inserted: now[0] - before[0],
                updated: now[1] - before[1],
                deleted: now[2] - before[2],
            }
        });
        rows.filter(|rows| rows.inserted != 0 || rows.updated != 0 || rows.deleted != 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rows: &[(&str, [i64; 3])]) -> Counts {
        Counts(rows.iter().map(|(table, numbers)| ((*table).to_owned(), *numbers)).collect())
    }

    #[test]
    fn only_what_was_added_since_is_told() {
        let earlier = counts(&[("a.t", [1, 0, 0]), ("a.u", [5, 1, 0])]);
        let later = counts(&[("a.t", [1, 2, 0]), ("a.u", [5, 1, 0]), ("a.v", [0, 0, 3])]);
        let rows = |table: &str, inserted, updated, deleted| TableRows {
            table: table.to_owned(),
            inserted,
            updated,
            deleted,
        };
        assert_eq!(later.since(&earlier), [rows("a.t", 0, 2, 0), rows("a.v", 0, 0, 3)]);
    }
}
