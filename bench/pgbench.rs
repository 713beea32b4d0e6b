//! The yardstick: pgbench's own prepared, asynchronously committed one-row guarded upsert.

use std::process::Command;

use crate::usage::Usage;
use crate::{Sizes, VALUE_BYTES};
use pgsluice_testkit::postgres::{Postgres, binary};
use pgsluice_testkit::process::scratch;

const CLIENTS: u32 = 16;
const SECONDS: u32 = 8;

/// What pgbench reached.
pub(crate) struct Round {
    pub(crate) transactions_per_second: f64,
    pub(crate) postgres_micros: f64,
}

impl std::fmt::Display for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { transactions_per_second, postgres_micros } = self;
        write!(
            f,
            "{transactions_per_second:>8.0} transactions/s   PostgreSQL {postgres_micros:.1} µs"
        )
    }
}

/// Fills a table with every aggregate, so that upserts are updates, and runs pgbench on it.
pub(crate) fn run(server: &Postgres, sizes: &Sizes) -> Round {
    let database = server.database("pgbench");
    let document = format!("{{\"newName\": \"{}\"}}", "x".repeat(VALUE_BYTES - 15));
    database.execute(&format!(
        "create table state (aggregate_type text collate \"C\", aggregate_id text collate \"C\", \
           version bigint not null, state jsonb, updated_at timestamptz not null, \
           primary key (aggregate_type, aggregate_id)) with (fillfactor = 80); \
         insert into state select 'Customer', 'customer-' || lpad(n::text, 6, '0'), 0, \
           '{document}', now() from generate_series(0, {} - 1) n",
        sizes.aggregates
    ));
    database.execute("vacuum analyze state");
    let script = scratch().join("upsert.sql");
    // The clock in microseconds is the ever-growing version that lets the guard pass.
    let text = format!(
        "\\set n random(0, {} - 1)\n\
         insert into state as t values ('Customer', 'customer-' || lpad(:n::text, 6, '0'), \
         (extract(epoch from clock_timestamp()) * 1000000)::bigint, '{document}', now()) \
         on conflict (aggregate_type, aggregate_id) do update set version = excluded.version, \
         state = excluded.state, updated_at = excluded.updated_at where t.version < excluded.version;\n",
        sizes.aggregates
    );
    std::fs::write(&script, text).expect("write pgbench's script");

    let before = Usage::of_tree(server.pid());
    let output = Command::new(binary("pgbench"))
        .args(["-n", "-M", "prepared", "-j", "2"])
        .args(["-c", &CLIENTS.to_string(), "-T", &SECONDS.to_string(), "-f"])
        .arg(&script)
        .arg(database.url())
        .env("PGOPTIONS", "-c synchronous_commit=off")
        .output()
        .expect("run pgbench");
    let used = Usage::of_tree(server.pid()).micros_since(before);
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pgbench failed: {errors}");
    server.drop_database(&database);

    let number = |prefix: &str| -> f64 {
        let line = printed.lines().find_map(|line| line.strip_prefix(prefix));
        let word = line.and_then(|rest| rest.split_whitespace().next());
        let word = word.unwrap_or_else(|| panic!("no {prefix} in: {printed}"));
        word.split('/').next().and_then(|n| n.parse().ok()).expect("a number")
    };
    Round {
        transactions_per_second: number("tps = "),
        postgres_micros: used / number("number of transactions actually processed: "),
    }
}
