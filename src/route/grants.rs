//! What a role needs on the tables that routes write.

use crate::config::{Config, TableName};
use crate::route::kind::access;
use crate::sql::name::quoted;

/// The statements that let `role` write what the routes write, each with its semicolon.
///
/// A table that a route names without its schema is named so here: run the statements with the
/// role's `search_path`.
pub(crate) fn of_routes(config: &Config, role: &str) -> Vec<String> {
    let to = quoted(role);
    let mut grants = Vec::new();
    for access in config.routes.iter().filter_map(|route| access(route, config.decode.tombstone)) {
        if let Some(schema) = &access.table.schema {
            grants.push(format!("grant usage on schema {} to {to};", quoted(schema)));
        }
        let privileges: Vec<&str> = access.privileges().map(|p| p.as_str()).collect();
        let table = full_name(access.table);
        grants.push(format!("grant {} on {table} to {to};", privileges.join(", ")));
    }
    grants
}

fn full_name(table: &TableName) -> String {
    let name = quoted(&table.name);
    match &table.schema {
        Some(schema) => format!("{}.{name}", quoted(schema)),
        None => name,
    }
}
