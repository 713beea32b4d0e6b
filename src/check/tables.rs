//! pgsluice's own tables: whether they are there, usable, and those of these brokers.

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use crate::config::{Config, Migrate};
use crate::store::grants::own_privileges;
use crate::store::migrate::{self, MigrateError};
use crate::store::sink;

use super::database::trouble;
use super::finding::Report;

/// pgsluice's own tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tables {
    /// There, and the role may use them.
    Ready,
    /// None yet, and the role may create them.
    Creatable {
        /// The schema is there.
        schema_exists: bool,
    },
    /// Something has to be done first.
    Unusable,
}

/// Whether pgsluice's own tables are there, or could be made.
pub(super) async fn find(
    config: &Config,
    client: &Client,
    report: &mut Report,
) -> Result<Tables, Error> {
    let schema = &config.postgres.schema;
    let subject = format!("schema {schema}");
    match migrate::verify_on(client, schema).await {
        Ok(version) => {
            report.ok(subject, format!("version {version}"));
            return Ok(Tables::Ready);
        }
        Err(MigrateError::SchemaTooOld { version, known, .. }) => {
            let found = if version == 0 {
                "no tables yet".to_owned()
            } else {
                format!("version {version}, but this pgsluice needs {known}")
            };
            if config.postgres.migrate == Migrate::Verify {
                report.fail(
                    subject,
                    found,
                    "run `pgsluice migrate` with a role that owns the schema",
                );
            } else if may_create(client, schema).await? {
                report.ok(subject, format!("{found}; the first start migrates it"));
                if version == 0 {
                    let schema_exists = exists(client, schema).await?;
                    return Ok(Tables::Creatable { schema_exists });
                }
            } else {
                report.fail(
                    subject,
                    format!("{found}, and the role may not create them"),
                    "run `pgsluice migrate` with a role that may create the schema, or grant \
                     create on the database (or, if the schema exists, on the schema)",
                );
            }
        }
        Err(MigrateError::Database(fault)) => {
            let advice = "grant usage on the schema and select on its tables to the role";
            trouble(&fault, &subject, fault.to_string(), advice, report);
        }
        Err(error) => {
            let advice = "run a pgsluice that is not older than the one that migrated";
            report.fail(subject, error.to_string(), advice);
        }
    }
    Ok(Tables::Unusable)
}

async fn exists(client: &Client, schema: &str) -> Result<bool, Error> {
    client
        .query_typed_one(
            "select exists (select from pg_namespace where nspname = $1)",
            &[(&schema, Type::TEXT)],
        )
        .await?
        .try_get(0)
}

async fn may_create(client: &Client, schema: &str) -> Result<bool, Error> {
    client
        .query_typed_one(
            "select coalesce(
               (select has_schema_privilege(oid, 'create') from pg_namespace where nspname = $1),
               has_database_privilege(current_database(), 'create'))",
            &[(&schema, Type::TEXT)],
        )
        .await?
        .try_get(0)
}

/// Whether the role may work with pgsluice's own tables.
pub(super) async fn grants(
    config: &Config,
    client: &Client,
    report: &mut Report,
) -> Result<bool, Error> {
    let schema = &config.postgres.schema;
    let (tables, privileges): (Vec<&str>, Vec<&str>) = own_privileges().into_iter().unzip();
    let rows = client
        .query_typed(
            "select t.relname::text, p.privilege
             from unnest($2, $3) as p(name, privilege)
             join pg_namespace s on s.nspname = $1
             join pg_class t on t.relnamespace = s.oid and t.relname = p.name
             where not has_table_privilege(t.oid, p.privilege)
             order by 1, 2",
            &[(schema, Type::TEXT), (&tables, Type::TEXT_ARRAY), (&privileges, Type::TEXT_ARRAY)],
        )
        .await?;
    for row in &rows {
        let (table, privilege): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        report.fail(
            format!("table {schema}.{table}"),
            format!("the role may not {privilege}"),
            format!("grant {privilege} on {schema}.{table} to the role"),
        );
    }
    Ok(rows.is_empty())
}

/// Whether positions that the database holds are those of these brokers.
pub(super) async fn sink(
    config: &Config,
    cluster: Option<&str>,
    client: &Client,
    report: &mut Report,
) -> Result<(), Error> {
    let name = &config.kafka.group;
    let schema = escape_identifier(&config.postgres.schema);
    let row = sink::find(client, &schema, name).await?;
    let used = row.is_some();
    let known = row.and_then(|row| row.cluster_id);
    let subject = format!("sink {name}");
    match (known, cluster) {
        (Some(known), Some(found)) if known != found => report.fail(
            subject,
            format!("its positions belong to cluster {known}, but the brokers are cluster {found}"),
            "correct kafka.brokers, or give kafka.group another name to start over",
        ),
        _ if !used => report.ok(
            subject,
            "not used before; begins at the group's committed offsets, or else at kafka.start_from",
        ),
        _ => report.ok(subject, "known; resumes where it stopped"),
    }
    Ok(())
}
