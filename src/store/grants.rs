//! What a role needs on pgsluice's own tables, and no more: it owns nothing, creates nothing and
//! drops nothing.

use crate::sql::name::{Schema, quoted};

/// pgsluice's own tables, with what its statements do to each. Nothing but old counts is ever deleted
/// there.
const OWN_TABLES: [(&str, &str); 9] = [
    ("schema_t", "select"),
    ("sink_t", "select, insert, update"),
    ("stream_t", "select, insert, update"),
    ("aggregate_t", "select, insert, update"),
    ("notification_t", "select, insert, update"),
    ("dead_letter_t", "select, insert, update"),
    ("brake_t", "select, insert, update"),
    ("stale_t", "select, insert, update, delete"),
    ("acceptance_t", "select, insert, update"),
];

/// Each privilege that a role needs on each of pgsluice's own tables.
pub(crate) fn own_privileges() -> Vec<(&'static str, &'static str)> {
    let each = |(table, privileges): (&'static str, &'static str)| {
        privileges.split(", ").map(move |privilege| (table, privilege))
    };
    OWN_TABLES.into_iter().flat_map(each).collect()
}

/// The statements that let `role` work with the tables in `schema`, each with its semicolon.
pub(crate) fn own(schema: &str, role: &str) -> Vec<String> {
    let to = quoted(role);
    let tables = Schema::new(schema);
    let mut grants = vec![format!("grant usage on schema {} to {to};", quoted(schema))];
    grants.extend(OWN_TABLES.map(|(table, privileges)| {
        format!("grant {privileges} on {} to {to};", tables.table(table))
    }));
    grants
}
