//! `pgsluice migrate`: creates or updates pgsluice's own tables, and nothing else.

use std::collections::HashSet;

use clap::Args;

use crate::config::Config;
use crate::exit::ExitReason;
use crate::route::grants::of_routes;
use crate::store::grants::own;
use crate::store::migrate::{self, MigrateError, MigrationReport};

use super::{Source, complain, say, with_config};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Prints the SQL that grants a role what `run` needs with these routes, and changes nothing
    ///
    /// The role needs nothing else if another role, the owner, runs `pgsluice migrate`.
    #[arg(long, value_name = "ROLE")]
    grants: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> ExitReason {
    with_config(&arguments.source, |config| match &arguments.grants {
        Some(role) => {
            say(&grants(&config, role).join("\n"));
            ExitReason::Clean
        }
        None => migrate(&config),
    })
}

/// The statements that let `role` run with this configuration, each named once.
fn grants(config: &Config, role: &str) -> Vec<String> {
    let mut grants = own(&config.postgres.schema, role);
    grants.extend(of_routes(config, role));
    let mut seen = HashSet::new();
    grants.retain(|grant| seen.insert(grant.clone()));
    grants
}

/// Migrates whatever `postgres.migrate` says: that setting is about `run`.
fn migrate(config: &Config) -> ExitReason {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start a runtime: {}", error.kind()));
            return ExitReason::Bug;
        }
    };
    match runtime.block_on(migrate::migrate(&config.postgres)) {
        Ok(report) => {
            say(&describe(&config.postgres.schema, &report));
            ExitReason::Clean
        }
        Err(error) => {
            complain(&error.to_string());
            exit(&error)
        }
    }
}

/// As `run` would end for it: waiting mends only what the database says.
fn exit(error: &MigrateError) -> ExitReason {
    match error {
        MigrateError::Database(_) => ExitReason::DependencyUnavailable,
        MigrateError::Config(_)
        | MigrateError::BinaryTooOld { .. }
        | MigrateError::SchemaTooOld { .. }
        | MigrateError::Divergent { .. } => ExitReason::Configuration,
    }
}

fn describe(schema: &str, report: &MigrationReport) -> String {
    let version = report.version;
    if report.applied.is_empty() {
        return format!("schema {schema:?} is up to date at version {version}");
    }
    let applied: Vec<String> = report.applied.iter().map(ToString::to_string).collect();
    format!("schema {schema:?} is at version {version}; ran {}", applied.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AnyProperty, load};
    use pgsluice_core::fault::{Fault, FaultKind};

    /// What is granted beside pgsluice's own tables.
    fn printed(routes: &str) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let required = "[kafka]\nbrokers = \"b\"\ngroup = \"g\"\ntopics = [\"t\"]\n\
                        [postgres]\nurl = \"postgres://u@localhost/d\"\n";
        std::fs::write(file.path(), format!("{required}{routes}")).unwrap();
        let config = load(Some(file.path()), std::iter::empty(), &AnyProperty).unwrap();
        let grants = grants(&config, "runner");
        assert_eq!(grants[0], r#"grant usage on schema "pgsluice" to "runner";"#);
        grants[own("pgsluice", "runner").len()..].to_vec()
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
        let soft = format!("{envelope}{DELETE}soft = {{ gone = \"const:true\" }}\n");
        let update = r#"grant select, update on "App"."customer" to "runner";"#;
        assert_eq!(printed(&soft), [USAGE, update]);
        let own = format!("{envelope}{}", DELETE.replace("App.", "pgsluice."));
        assert_eq!(
            printed(&own),
            [r#"grant select, delete on "pgsluice"."customer" to "runner";"#]
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

    #[test]
    fn tables_of_another_pgsluice_end_it_as_they_end_a_run() {
        let schema = || "pgsluice".to_owned();
        let newer =
            MigrateError::BinaryTooOld { schema: schema(), version: 9, min_binary: 9, known: 2 };
        assert_eq!(exit(&newer), ExitReason::Configuration);
        let other = MigrateError::Divergent { schema: schema() };
        assert_eq!(exit(&other), ExitReason::Configuration);
        let lost = MigrateError::Database(Fault::new(FaultKind::Connection));
        assert_eq!(exit(&lost), ExitReason::DependencyUnavailable);
    }

    #[test]
    fn the_result_names_what_was_run() {
        let done = MigrationReport { applied: vec![1, 2], version: 2 };
        assert_eq!(describe("pgsluice", &done), "schema \"pgsluice\" is at version 2; ran 1, 2");
        let nothing = MigrationReport { applied: Vec::new(), version: 2 };
        assert!(describe("pgsluice", &nothing).contains("up to date"));
    }
}
