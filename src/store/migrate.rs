//! Creates pgsluice's own tables and keeps them up to date.
//!
//! The files in `migrations/` are embedded and run by refinery, each in a transaction. They name
//! no schema: the connection's `search_path` is set to the configured one first. An advisory lock
//! lets any number of processes start at once; whoever waits finds the work done.
//!
//! Migrations only expand. `schema_t` says which schema version is installed and which binaries
//! can work with it, so old and new processes run side by side during a rollout, and a binary
//! that is too old for the schema says so instead of failing somewhere in the middle.

use std::time::Duration;

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::config::{PostgresConfig, UrlError};
use pgsluice_core::fault::{Fault, FaultKind};

use crate::postgres::{Administration, OpenError};

/// Generated: reads `migrations/` when the crate is compiled.
mod embedded {
    refinery::embed_migrations!("migrations");
}

/// refinery's own list of what was run, in the same schema.
const HISTORY: &str = "migration_history_t";

/// First half of the advisory lock's key ("slui"); the second is the schema's CRC, so that
/// installations in two schemas of one database do not wait for each other.
const LOCK_CLASS: i32 = 0x736c_7569;

/// How long a migration may take, and how long it waits for another process that migrates.
const LIMIT: Duration = Duration::from_secs(600);

/// What a migration did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationReport {
    /// The migrations that were run now, oldest first; empty when nothing was to do.
    pub applied: Vec<i32>,
    /// The schema's version afterwards. May be newer than this binary.
    pub version: i32,
}

/// Why the tables are not usable.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The connection's configuration cannot be used.
    #[error("postgres.url {0}")]
    Config(UrlError),
    /// The database did not answer or refused.
    #[error("database: {0}")]
    Database(Fault),
    /// The schema was migrated by a newer pgsluice that old binaries cannot work with.
    #[error(
        "schema \"{schema}\" has version {version}, which needs a pgsluice that knows at least \
         version {min_binary}, but this one knows {known}; deploy the newer pgsluice"
    )]
    BinaryTooOld {
        /// The schema.
        schema: String,
        /// Its version.
        version: i32,
        /// What it asks of a binary.
        min_binary: i32,
        /// What this binary knows.
        known: i32,
    },
    /// The schema lacks migrations and `postgres.migrate = "verify"`.
    #[error(
        "schema \"{schema}\" has version {version}, but this pgsluice needs version {known}; run \
         `pgsluice migrate`"
    )]
    SchemaTooOld {
        /// The schema.
        schema: String,
        /// Its version, 0 where there are no tables.
        version: i32,
        /// What this binary needs.
        known: i32,
    },
    /// A migration that was run has another content in this binary.
    #[error("schema \"{schema}\" was migrated by a different build of pgsluice")]
    Divergent {
        /// The schema.
        schema: String,
    },
}

impl From<OpenError> for MigrateError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Config(error) => Self::Config(error),
            other => Self::Database(other.into_fault()),
        }
    }
}

impl From<tokio_postgres::Error> for MigrateError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(crate::postgres::fault_of(&error))
    }
}

/// The newest migration this binary knows.
pub fn known_version() -> i32 {
    embedded::migrations::runner().get_migrations().iter().map(|m| m.version()).max().unwrap_or(0)
}

/// Runs the migrations that are missing. Any number of processes may do so at once.
///
/// # Errors
/// See [`MigrateError`]. A migration that fails is rolled back; those before it stay.
pub async fn migrate(config: &PostgresConfig) -> Result<MigrationReport, MigrateError> {
    let mut connection = Administration::open(config, "migrate").await?;
    bounded(run(connection.client_mut(), &config.schema)).await
}

/// Looks whether this binary can work with the schema, and changes nothing. Returns the schema's
/// version.
///
/// # Errors
/// See [`MigrateError`].
pub async fn verify(config: &PostgresConfig) -> Result<i32, MigrateError> {
    let connection = Administration::open(config, "migrate").await?;
    verify_on(connection.client(), &config.schema).await
}

/// The same on a connection that is open already.
///
/// # Errors
/// See [`MigrateError`].
pub async fn verify_on(client: &Client, schema: &str) -> Result<i32, MigrateError> {
    let found = bounded(installed(client, schema)).await?;
    let known = known_version();
    match judge(schema, found, known)? {
        Pending::None => Ok(found.map_or(0, |installed| installed.version)),
        Pending::Some => Err(MigrateError::SchemaTooOld {
            schema: schema.to_owned(),
            version: found.map_or(0, |installed| installed.version),
            known,
        }),
    }
}

/// All migrations as statements for a transaction that will be rolled back; `exists` says whether
/// the schema is there. What comes after them finds the search path as it was before.
pub(crate) fn script(schema: &str, exists: bool) -> String {
    let quoted = escape_identifier(schema);
    let mut script = if exists { String::new() } else { format!("create schema {quoted};\n") };
    script += &format!("set local search_path = {quoted};\n");
    let mut migrations = embedded::migrations::runner().get_migrations().clone();
    migrations.sort_by_key(refinery::Migration::version);
    for migration in &migrations {
        script += migration.sql().unwrap_or_default();
        script += "\n;\n";
    }
    script + "set local search_path to default;\n"
}

async fn bounded<T>(
    work: impl Future<Output = Result<T, MigrateError>>,
) -> Result<T, MigrateError> {
    tokio::time::timeout(LIMIT, work)
        .await
        .unwrap_or_else(|_| Err(MigrateError::Database(Fault::new(FaultKind::Deadline))))
}

async fn run(client: &mut Client, schema: &str) -> Result<MigrationReport, MigrateError> {
    prepare(client, schema).await?;
    let known = known_version();
    let found = installed(client, schema).await?;
    let applied = match judge(schema, found, known)? {
        Pending::None => Vec::new(),
        Pending::Some => {
            let mut runner = embedded::migrations::runner()
                // The history of a newer binary holds migrations this one does not know.
                .set_abort_missing(false);
            runner.set_migration_table_name(HISTORY);
            let report = runner.run_async(client).await.map_err(|error| failed(schema, &error))?;
            report.applied_migrations().iter().map(|migration| migration.version()).collect()
        }
    };
    let version = installed(client, schema).await?.map_or(0, |installed| installed.version);
    // The lock lives as long as the connection, which is dropped now.
    Ok(MigrationReport { applied, version })
}

/// Takes the migration lock, makes the schema, and lets unqualified names mean it.
async fn prepare(client: &Client, schema: &str) -> Result<(), MigrateError> {
    // Whatever role and database say; the text of a migration means what it says.
    let settings = "set synchronous_commit = on; set lock_timeout = 0;
                    set idle_in_transaction_session_timeout = 0;
                    set default_transaction_isolation = 'read committed';
                    set standard_conforming_strings = on; set client_min_messages = warning";
    client.batch_execute(settings).await?;
    // The same 32 bits; the key is only a name.
    let object = i32::from_be_bytes(crc32fast::hash(schema.as_bytes()).to_be_bytes());
    client
        .query_typed(
            "select pg_catalog.pg_advisory_lock($1, $2)",
            &[(&LOCK_CLASS, Type::INT4), (&object, Type::INT4)],
        )
        .await?;
    // `create schema if not exists` asks for the privilege even where the schema exists.
    let exists: bool = client
        .query_typed_one(
            "select exists (select from pg_catalog.pg_namespace where nspname = $1)",
            &[(&schema, Type::TEXT)],
        )
        .await?
        .try_get(0)?;
    let quoted = escape_identifier(schema);
    if !exists {
        client.batch_execute(&format!("create schema {quoted}")).await?;
    }
    client.batch_execute(&format!("set search_path = {quoted}")).await?;
    Ok(())
}

/// The row of `schema_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Installed {
    version: i32,
    min_binary: i32,
}

async fn installed(client: &Client, schema: &str) -> Result<Option<Installed>, MigrateError> {
    let quoted = escape_identifier(schema);
    let table = format!("{quoted}.schema_t");
    let exists: bool = client
        .query_typed_one("select pg_catalog.to_regclass($1) is not null", &[(&table, Type::TEXT)])
        .await?
        .try_get(0)?;
    if !exists {
        return Ok(None);
    }
    let row =
        client.query_typed_opt(&format!("select version, min_binary from {table}"), &[]).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Installed { version: row.try_get(0)?, min_binary: row.try_get(1)? }))
}

#[derive(Debug, PartialEq, Eq)]
enum Pending {
    /// The schema has all that this binary needs.
    None,
    /// Migrations have to run.
    Some,
}

/// Whether a binary that knows migration `known` can work with what is installed.
fn judge(schema: &str, found: Option<Installed>, known: i32) -> Result<Pending, MigrateError> {
    match found {
        Some(installed) if installed.min_binary > known => Err(MigrateError::BinaryTooOld {
            schema: schema.to_owned(),
            version: installed.version,
            min_binary: installed.min_binary,
            known,
        }),
        Some(installed) if installed.version >= known => Ok(Pending::None),
        Some(_) | None => Ok(Pending::Some),
    }
}

/// refinery's error without its text, which holds the server's.
fn failed(schema: &str, error: &refinery::Error) -> MigrateError {
    let cause = std::error::Error::source(error)
        .and_then(|cause| cause.downcast_ref::<tokio_postgres::Error>());
    match (cause, error.kind()) {
        (Some(cause), _) => cause_of(cause),
        (None, refinery::error::Kind::DivergentVersion(..)) => {
            MigrateError::Divergent { schema: schema.to_owned() }
        }
        (None, _) => MigrateError::Database(Fault::new(FaultKind::Bug("migrations do not fit"))),
    }
}

fn cause_of(error: &tokio_postgres::Error) -> MigrateError {
    MigrateError::Database(crate::postgres::fault_of(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(version: i32, min_binary: i32) -> Option<Installed> {
        Some(Installed { version, min_binary })
    }

    #[test]
    fn an_old_binary_works_on_a_newer_schema_until_the_schema_refuses_it() {
        assert_eq!(judge("s", installed(3, 2), 2).unwrap(), Pending::None);
        let refused = judge("s", installed(3, 3), 2).unwrap_err();
        assert!(refused.to_string().contains("deploy the newer pgsluice"), "{refused}");
    }

    #[test]
    fn a_new_binary_migrates_an_older_or_missing_schema() {
        assert_eq!(judge("s", installed(1, 1), 2).unwrap(), Pending::Some);
        assert_eq!(judge("s", None, 2).unwrap(), Pending::Some);
        assert_eq!(judge("s", installed(2, 1), 2).unwrap(), Pending::None);
    }

    #[test]
    fn every_migration_records_its_own_version_at_its_end() {
        for migration in embedded::migrations::runner().get_migrations() {
            let last = migration.sql().unwrap().trim_end().lines().last().unwrap().to_owned();
            assert!(last.contains("schema_t"), "{migration}: {last}");
            assert!(last.contains(&migration.version().to_string()), "{migration}: {last}");
        }
    }
}
