//! What a role needs to run, and no more: it owns nothing, creates nothing and drops nothing.

use crate::config::{RouteAction, RouteConfig, TableName};

use super::name::{Schema, quoted};

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

/// The statements that let `role` run with these routes, one a line, each with its semicolon.
///
/// A table that a route names without its schema is named so here: run the statements with the
/// role's `search_path`.
pub fn grants(schema: &str, routes: &[RouteConfig], role: &str) -> Vec<String> {
    let to = quoted(role);
    let own = Schema::new(schema);
    let mut grants = vec![format!("grant usage on schema {} to {to};", quoted(schema))];
    grants.extend(
        OWN_TABLES.map(|(table, privileges)| {
            format!("grant {privileges} on {} to {to};", own.table(table))
        }),
    );
    for route in routes {
        let (table, privileges) = match &route.action {
            RouteAction::Upsert { table, .. } => (table, "select, insert, update"),
            RouteAction::Delete { table, soft, .. } if soft.is_empty() => (table, "select, delete"),
            RouteAction::Delete { table, .. } => (table, "select, update"),
            RouteAction::Skip | RouteAction::Document { .. } => continue,
        };
        if let Some(schema) = &table.schema {
            grants.push(format!("grant usage on schema {} to {to};", quoted(schema)));
        }
        grants.push(format!("grant {privileges} on {} to {to};", full_name(table)));
    }
    let mut seen = std::collections::HashSet::new();
    grants.retain(|grant| seen.insert(grant.clone()));
    grants
}

fn full_name(table: &TableName) -> String {
    let name = quoted(&table.name);
    table
        .schema
        .as_ref()
        .map_or_else(|| name.clone(), |schema| format!("{}.{name}", quoted(schema)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(action: RouteAction) -> RouteConfig {
        RouteConfig { topic: vec![], aggregate_type: vec![], event_type: vec![], action }
    }

    #[test]
    fn a_route_needs_what_its_statement_does_and_each_grant_is_named_once() {
        let table = TableName { schema: Some("App".into()), name: "cus\"tomer".into() };
        let upsert =
            || route(RouteAction::Upsert { table: table.clone(), key: vec![], columns: None });
        let delete = route(RouteAction::Delete { table: table.clone(), key: vec![], soft: vec![] });
        let grants = grants("pgsluice", &[upsert(), upsert(), delete], "runner");
        assert_eq!(grants[0], r#"grant usage on schema "pgsluice" to "runner";"#);
        assert_eq!(
            grants[1 + OWN_TABLES.len()..],
            [
                r#"grant usage on schema "App" to "runner";"#,
                r#"grant select, insert, update on "App"."cus""tomer" to "runner";"#,
                r#"grant select, delete on "App"."cus""tomer" to "runner";"#,
            ]
        );
    }
}
