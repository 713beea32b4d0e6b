//! The server, what pgsluice keeps on it, and the tables that routes write.

use std::time::SystemTime;

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::{Client, Error};

use crate::config::{Config, Durability};
use crate::postgres::{OLDEST_SERVER, OpenError, Probe};
use crate::route::{Catalog, Plan, RouteCause, RouteProblem, RouteProblems};
use crate::store::sink::{self, Stored};
use pgsluice_core::fault::FaultPolicy;
use pgsluice_core::fault::{Decision, Fault, FaultKind};

use super::finding::Report;
use super::tables::{self, Tables};

/// Clocks that differ by more make times in the tables misleading.
const CLOCK_TOLERANCE: f64 = 2.0;

/// What a sample can be tried on.
pub(super) struct Ground {
    /// The connections.
    pub(super) probe: Probe,
    /// The routes, where all fit their tables.
    pub(super) plan: Option<Plan>,
    /// pgsluice's own tables.
    pub(super) tables: Tables,
    /// What they hold of this sink.
    pub(super) stored: Stored,
}

/// Looks at everything a run asks of the database; `None` when there is nothing to go on with.
pub(super) async fn check(
    config: &Config,
    cluster: Option<&str>,
    report: &mut Report,
) -> Option<Ground> {
    let probe = match Probe::open(config).await {
        Ok(probe) => probe,
        Err(error) => {
            refused(error, report);
            return None;
        }
    };
    if !probe.same_server() {
        report.fail(
            "postgres session",
            "a second connection does not see the first one's session lock",
            "the address reaches several servers, or a pooler in transaction mode; connect to \
             PostgreSQL directly or through a pooler in session mode",
        );
    }
    match look(config, cluster, probe.client(), report).await {
        Ok((tables, stored, plan)) if probe.same_server() => {
            Some(Ground { probe, plan, tables, stored })
        }
        Ok(_) => None,
        Err(error) => {
            let fault = crate::postgres::fault_of(&error);
            let advice = "the server refused the check's queries; its log says why";
            trouble(&fault, "postgres", fault.to_string(), advice, report);
            None
        }
    }
}

/// What the server said when it did not do what it was asked: an outage, or something to mend.
pub(super) fn trouble(
    fault: &Fault,
    subject: &str,
    found: String,
    advice: &str,
    report: &mut Report,
) {
    let decision = FaultPolicy::default().decide(fault);
    if fault.sqlstate().is_none() || decision == Decision::WaitForDatabase {
        report.unavailable(subject, found, "try again once the server is stable");
    } else {
        report.fail(subject, found, advice);
    }
}

async fn look(
    config: &Config,
    cluster: Option<&str>,
    client: &Client,
    report: &mut Report,
) -> Result<(Tables, Stored, Option<Plan>), Error> {
    server(client, report).await?;
    settings(config, client, report).await?;
    clock(client, report).await?;
    let mut tables = tables::find(config, client, report).await?;
    let mut stored = Stored::default();
    if tables == Tables::Ready {
        if tables::grants(config, client, report).await? {
            tables::sink(config, cluster, client, report).await?;
            let schema = escape_identifier(&config.postgres.schema);
            stored = sink::stored(client, &schema, &config.kafka.group).await?;
        } else {
            tables = Tables::Unusable;
        }
    }
    Ok((tables, stored, routes(config, client, report).await?))
}

fn refused(error: OpenError, report: &mut Report) {
    let subject = "postgres.url";
    let fault = match error {
        OpenError::Config(error) => {
            return report.fail(subject, error.to_string(), "correct postgres.url");
        }
        other => other.into_fault(),
    };
    let found = fault.to_string();
    let state = fault.sqlstate();
    match (&fault.kind, state.as_ref().map(|state| state.as_str())) {
        (_, Some("28P01" | "28000")) => report.fail(
            subject,
            found,
            "check user and password (in postgres.url, with special characters percent-encoded, % \
             as %25; or in postgres.password_file), and the server's pg_hba.conf",
        ),
        (_, Some("3D000")) => report.fail(subject, found, "create it, or correct its name"),
        (_, Some("42501")) => report.fail(
            subject,
            format!("{found}: the role may not connect"),
            "grant connect on the database to the role",
        ),
        (FaultKind::Tls(_), _) => report.fail(
            subject,
            found,
            "correct sslmode, sslrootcert or the host's name in postgres.url, or the server's \
             certificate; see docs/operations.md, TLS",
        ),
        (FaultKind::Server(_), _) => report.unavailable(
            subject,
            found,
            "the server accepts no connections now: it is starting, stopping or full",
        ),
        _ => report.unavailable(
            subject,
            found,
            "check host and port, and that the server is running and listening on them",
        ),
    }
}

async fn server(client: &Client, report: &mut Report) -> Result<(), Error> {
    let row = client
        .query_typed_one(
            "select current_setting('server_version_num')::integer,
                    current_setting('server_version'), current_setting('server_encoding'),
                    current_setting('transaction_read_only')::boolean, pg_is_in_recovery(),
                    current_database()::text, current_user::text",
            &[],
        )
        .await?;
    let number: i32 = row.try_get(0)?;
    let (version, encoding): (&str, &str) = (row.try_get(1)?, row.try_get(2)?);
    let (read_only, standby): (bool, bool) = (row.try_get(3)?, row.try_get(4)?);
    let (database, role): (&str, &str) = (row.try_get(5)?, row.try_get(6)?);
    judge_version(number, format!("version {version}, {database}, role {role}"), report);
    if encoding != "UTF8" {
        report.fail(
            "postgres encoding",
            format!("the database stores text as {encoding}"),
            "create a database with encoding UTF8",
        );
    }
    if standby {
        let advice = "name the primary, or all hosts: pgsluice chooses the one that accepts writes";
        report.fail("postgres server", "is a standby and accepts no writes", advice);
    } else if read_only {
        report.fail(
            "postgres server",
            "transactions are read-only",
            "reset default_transaction_read_only for the role and the database",
        );
    }
    Ok(())
}

/// Whether a server that counts its version so is new enough.
fn judge_version(number: i32, found: String, report: &mut Report) {
    if number < OLDEST_SERVER {
        let oldest = OLDEST_SERVER / 10_000;
        let advice = format!("upgrade: {oldest} is the oldest supported version");
        report.fail("postgres server", found, advice);
    } else {
        report.ok("postgres server", found);
    }
}

/// Settings of server, database and role; what pgsluice sets itself is looked at beneath that.
async fn settings(config: &Config, client: &Client, report: &mut Report) -> Result<(), Error> {
    let rows = client
        .query_typed(
            "select name::text, coalesce(reset_val, setting)::text from pg_settings
             where name in ('fsync', 'full_page_writes', 'synchronous_commit')",
            &[],
        )
        .await?;
    for row in &rows {
        let (name, value): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        match (name, value) {
            ("fsync" | "full_page_writes", "off") => report.warn(
                format!("postgres {name}"),
                "off",
                "a crash of the machine can lose or damage committed data; switch it on",
            ),
            ("synchronous_commit", "off" | "local" | "remote_write") => report.ok(
                "postgres synchronous_commit",
                format!("{value} for others; pgsluice sets it to on where durability needs it"),
            ),
            ("synchronous_commit", "remote_apply") => report.warn(
                "postgres synchronous_commit",
                "is remote_apply, but pgsluice commits with on",
                "standbys may show its writes a moment later",
            ),
            _ => {}
        }
    }
    let needed = config.postgres.lanes + config.postgres.slow_connections + 2;
    let free: i64 = client
        .query_typed_one(
            // Not from pg_stat_activity: what others' connections are is hidden there.
            "select least(
               (select setting::bigint from pg_settings where name = 'max_connections')
                 - (select sum(setting::bigint)::bigint from pg_settings
                    where name in ('superuser_reserved_connections', 'reserved_connections'))
                 - (select sum(numbackends)::bigint from pg_stat_database),
               (select nullif(datconnlimit, -1) - pg_stat_get_db_numbackends(oid)
                from pg_database where datname = current_database()),
               (select nullif(rolconnlimit, -1) - (select count(*) from pg_stat_activity
                  where usename = rolname) from pg_roles where rolname = current_user)) + 2",
            &[],
        )
        .await?
        .try_get(0)?;
    // The two connections of this look are free again afterwards.
    if i64::try_from(needed).unwrap_or(i64::MAX) > free {
        report.warn(
            "postgres connections",
            format!("{free} are free, but a process opens up to {needed}"),
            "raise max_connections or the limit of the role or database, or lower \
             postgres.lanes and postgres.slow_connections",
        );
    }
    if config.postgres.durability == Durability::Batch {
        report.ok("durability", "batch: one durable barrier for many commits");
    }
    Ok(())
}

async fn clock(client: &Client, report: &mut Report) -> Result<(), Error> {
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let before = now();
    let row = client
        .query_typed_one("select extract(epoch from clock_timestamp())::double precision", &[])
        .await?;
    let middle = (before + now()) / 2;
    judge_clock(row.try_get::<_, f64>(0)? - middle.as_secs_f64(), report);
    Ok(())
}

/// By how many seconds the server's clock is ahead of ours.
fn judge_clock(skew: f64, report: &mut Report) {
    if skew.abs() > CLOCK_TOLERANCE {
        report.warn(
            "clock",
            format!("the server's clock differs by {skew:.1} s"),
            "synchronize both machines' clocks: ages and lags compare them",
        );
    } else {
        report.ok("clock", "in step with the server's");
    }
}

/// Compiles the routes against their tables; the plan where they fit.
async fn routes(
    config: &Config,
    client: &Client,
    report: &mut Report,
) -> Result<Option<Plan>, Error> {
    let catalog = Catalog::load(client, config).await?;
    match Plan::compile(config, &catalog) {
        Ok(plan) => {
            let routes = config.routes.len();
            report.ok(
                "routes",
                match routes {
                    0 => "none: every event goes to the document of its aggregate".to_owned(),
                    _ => format!("{routes}, all fit their tables"),
                },
            );
            Ok(Some(plan))
        }
        Err(problems) => {
            unfit(problems, report);
            Ok(None)
        }
    }
}

/// One finding for each problem; columns that lack the same privilege are one problem.
fn unfit(RouteProblems(problems): RouteProblems, report: &mut Report) {
    for (position, problem) in problems.iter().enumerate() {
        let subject = format!("route {}", problem.name);
        let same = |other: &&RouteProblem| {
            (other.route, &other.table, &other.cause)
                == (problem.route, &problem.table, &problem.cause)
        };
        if let RouteCause::Denied(privilege) = problem.cause
            && problem.column.is_some()
        {
            if problems.iter().take(position).any(|earlier| same(&earlier)) {
                continue;
            }
            let columns: Vec<&str> =
                problems.iter().filter(same).filter_map(|p| p.column.as_deref()).collect();
            let (word, table) = (privilege.as_str(), &problem.table);
            let plural = if columns.len() > 1 { "s" } else { "" };
            report.fail(
                subject,
                format!("table {table}, column{plural} {}: permission denied", columns.join(", ")),
                format!(
                    "grant {word} on {table} to the role; `pgsluice migrate --grants ROLE` prints \
                     everything it needs"
                ),
            );
            continue;
        }
        let text = problem.to_string();
        let text = text.strip_prefix(&format!("{subject}, ")).unwrap_or(&text);
        let (found, advice) =
            text.split_once("; ").unwrap_or((text, "create it, or correct the route"));
        report.fail(subject, found, advice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Finding, Level};
    use pgsluice_core::fault::SqlState;

    fn only(look: impl FnOnce(&mut Report)) -> Finding {
        let mut report = Report::default();
        look(&mut report);
        let [finding] = report.findings() else { panic!("{report}") };
        finding.clone()
    }

    #[test]
    fn clocks_that_differ_by_seconds_are_warned_of_in_both_directions() {
        assert_eq!(only(|report| judge_clock(1.9, report)).level, Level::Ok);
        for skew in [2.5, -2.5] {
            let finding = only(|report| judge_clock(skew, report));
            assert_eq!(finding.level, Level::Warn);
            assert_eq!(finding.found, format!("the server's clock differs by {skew} s"));
        }
    }

    #[test]
    fn a_refused_connection_is_a_mistake_or_an_outage_by_what_the_server_says() {
        let level =
            |kind| only(|report| refused(OpenError::Database(Fault::new(kind)), report)).level;
        for mistake in [*b"28P01", *b"28000", *b"3D000", *b"42501"] {
            let mistake = SqlState(mistake);
            assert_eq!(level(FaultKind::Server(mistake)), Level::Fail, "{mistake}");
        }
        for outage in [*b"53300", *b"57P03"] {
            let outage = SqlState(outage);
            assert_eq!(level(FaultKind::Server(outage)), Level::Unavailable, "{outage}");
        }
        for lost in [FaultKind::Connection, FaultKind::Deadline] {
            assert_eq!(level(lost), Level::Unavailable, "{lost:?}");
        }
    }

    #[test]
    fn a_server_older_than_14_is_to_be_upgraded() {
        let level = |number| only(|report| judge_version(number, String::new(), report)).level;
        assert_eq!(level(130_022), Level::Fail);
        assert_eq!((level(140_000), level(180_001)), (Level::Ok, Level::Ok));
    }

    #[test]
    fn a_connection_that_is_lost_is_an_outage_and_a_privilege_is_to_be_mended() {
        let level = |kind| {
            let fault = Fault::new(kind);
            only(|report| trouble(&fault, "schema", fault.to_string(), "grant it", report)).level
        };
        for lost in [
            FaultKind::Connection,
            FaultKind::Deadline,
            FaultKind::Server(SqlState(*b"57P01")),
            FaultKind::Server(SqlState(*b"53300")),
        ] {
            assert_eq!(level(lost), Level::Unavailable, "{lost:?}");
        }
        for mendable in [*b"42501", *b"42P01"] {
            assert_eq!(level(FaultKind::Server(SqlState(mendable))), Level::Fail);
        }
    }
}
