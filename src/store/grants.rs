//! What a role needs to run, and no more: it owns nothing, creates nothing and drops nothing.

use crate::config::{Config, RouteAction, RouteConfig, TableName, Tombstone};

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

/// The statements that let `role` run with this configuration, one a line, each with its semicolon.
///
/// A table that a route names without its schema is named so here: run the statements with the
/// role's `search_path`.
pub fn grants(config: &Config, role: &str) -> Vec<String> {
    let schema = &config.postgres.schema;
    let to = quoted(role);
    let own = Schema::new(schema);
    let mut grants = vec![format!("grant usage on schema {} to {to};", quoted(schema))];
    grants.extend(
        OWN_TABLES.map(|(table, privileges)| {
            format!("grant {privileges} on {} to {to};", own.table(table))
        }),
    );
    for route in &config.routes {
        let (table, privileges) = match &route.action {
            RouteAction::Upsert { table, .. } if deletes(config, route) => {
                (table, "select, insert, update, delete")
            }
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

/// Whether a tombstone can reach this upsert route, see `route/rule.rs`.
fn deletes(config: &Config, route: &RouteConfig) -> bool {
    config.decode.tombstone == Tombstone::Delete && route.event_type.is_empty()
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

    fn printed(routes: &str) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let required = "[kafka]\nbrokers = \"b\"\ngroup = \"g\"\ntopics = [\"t\"]\n\
                        [postgres]\nurl = \"postgres://u@localhost/d\"\n";
        std::fs::write(file.path(), format!("{required}{routes}")).unwrap();
        let config =
            crate::config::load(Some(file.path()), std::iter::empty(), &crate::config::AnyProperty)
                .unwrap();
        let grants = grants(&config, "runner");
        assert_eq!(grants[0], r#"grant usage on schema "pgsluice" to "runner";"#);
        grants[1 + OWN_TABLES.len()..].to_vec()
    }

    const UPSERT: &str = "[[route]]\n[route.upsert]\ntable = \"App.customer\"\nkey = { id = \"key\" }\n\
         columns = \"auto\"\n";
    const DELETE: &str =
        "[[route]]\n[route.delete]\ntable = \"App.customer\"\nkey = { id = \"key\" }\n";
    const USAGE: &str = r#"grant usage on schema "App" to "runner";"#;

    #[test]
    fn a_route_needs_what_its_statement_does_and_each_grant_is_named_once() {
        let envelope = "[decode]\nformat = \"envelope\"\n";
        assert_eq!(
            printed(&format!("{envelope}{UPSERT}{UPSERT}{DELETE}")),
            [
                USAGE,
                r#"grant select, insert, update on "App"."customer" to "runner";"#,
                r#"grant select, delete on "App"."customer" to "runner";"#,
            ]
        );
    }

    #[test]
    fn an_upsert_route_that_tombstones_reach_needs_to_delete() {
        let all = r#"grant select, insert, update, delete on "App"."customer" to "runner";"#;
        assert_eq!(printed(UPSERT), [USAGE, all]);
        let typed = UPSERT.replace("[[route]]\n", "[[route]]\nevent_type = \"E\"\n");
        let some = all.replace(", delete", "");
        assert_eq!(printed(&typed), [USAGE, &some]);
    }
}
