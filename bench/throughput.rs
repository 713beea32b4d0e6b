//! Events per second and CPU per event of the daemon with its default settings, end to end from a
//! real Kafka into a real PostgreSQL, beside what pgbench reaches on the same server with a bare
//! one-row guarded upsert. Both run in turns, several rounds, so that a machine that is slow for a
//! minute is slow for both; medians and their ratio are printed. Nothing is asserted about time.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark prints its result and panics where it cannot go on"
)]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "statistics"
)]

mod pgbench;
mod usage;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pgsluice_testkit::complaints::Expected;
use pgsluice_testkit::daemon::Daemon;
use pgsluice_testkit::kafka::{self, Outgoing, Producer};
use pgsluice_testkit::postgres::{Database, Postgres};

use crate::usage::Usage;

const PARTITIONS: i32 = 8;
/// Size of an event's value in bytes.
const VALUE_BYTES: usize = 400;
/// As much as a small dedicated server would have; everything else is PostgreSQL's default.
const SERVER_SETTINGS: [&str; 2] = ["shared_buffers=512MB", "max_wal_size=4GB"];
const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);
const ROUND_DEADLINE: Duration = Duration::from_secs(900);

/// Sizes, from `BENCH_EVENTS`, `BENCH_AGGREGATES`, `BENCH_ROUNDS`.
struct Sizes {
    events: usize,
    aggregates: usize,
    rounds: usize,
}

/// One run of the daemon over the whole topic.
struct Round {
    events_per_second: f64,
    daemon_micros: f64,
    postgres_micros: f64,
    peak_rss_mib: f64,
}

fn main() {
    let sizes = Sizes {
        events: from_environment("BENCH_EVENTS", 300_000),
        aggregates: from_environment("BENCH_AGGREGATES", 20_000),
        rounds: from_environment("BENCH_ROUNDS", 3),
    };
    let Sizes { events, aggregates, rounds } = sizes;
    println!(
        "{events} events of {VALUE_BYTES} bytes, {PARTITIONS} partitions, {aggregates} aggregates, {rounds} rounds"
    );
    let server = Postgres::with(&SERVER_SETTINGS);
    let topic = kafka::topic("bench", PARTITIONS);
    produce(&topic, &sizes);

    let subjects = subjects();
    let mut daemon_rounds: Vec<Vec<Round>> = subjects.iter().map(|_| Vec::new()).collect();
    let mut pgbench_rounds = Vec::new();
    for number in 1..=rounds {
        println!("round {number}");
        let pgbench = pgbench::run(&server, &sizes);
        println!("  {:<17} {pgbench}", "pgbench");
        pgbench_rounds.push(pgbench);
        for (subject, results) in subjects.iter().zip(&mut daemon_rounds) {
            let round = run_daemon(&server, &topic, subject, &sizes);
            println!("  {:<17} {round}", subject.name);
            results.push(round);
        }
    }
    report(&subjects, &daemon_rounds, &pgbench_rounds);
}

/// A build of the daemon with a format to read.
struct Subject {
    name: String,
    binary: PathBuf,
    format: &'static str,
}

/// Both formats of this build and, where `BENCH_AGAINST` names another binary, of that one beside
/// it in every round.
fn subjects() -> Vec<Subject> {
    let other = std::env::var_os("BENCH_AGAINST").map(PathBuf::from);
    let mut subjects = Vec::new();
    for format in ["plain", "envelope"] {
        let subject = |name, binary| Subject { name, binary, format };
        subjects.push(subject(format.to_owned(), pgsluice_testkit::process::daemon()));
        if let Some(other) = &other {
            subjects.push(subject(format!("{format}, other"), other.clone()));
        }
    }
    subjects
}

impl std::fmt::Display for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>8.0} events/s   daemon {:>6.1} µs/event   PostgreSQL {:>6.1} µs/event   peak {:.1} MiB",
            self.events_per_second, self.daemon_micros, self.postgres_micros, self.peak_rss_mib
        )
    }
}

fn from_environment(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a whole number"))
}

/// Fills the topic: the versions of all aggregates interleaved, each value of the same size.
fn produce(topic: &str, sizes: &Sizes) {
    let started = Instant::now();
    let producer = Producer::new(topic);
    for first in (0..sizes.events).step_by(10_000) {
        let last = sizes.events.min(first + 10_000);
        producer.send_all((first..last).map(|number| event(number, sizes.aggregates)));
    }
    println!("produced in {:.1} s", started.elapsed().as_secs_f64());
}

fn event(number: usize, aggregates: usize) -> Outgoing {
    // A prime step spreads neighbours over the whole range of aggregates.
    let aggregate = format!("customer-{:06}", number.wrapping_mul(7919) % aggregates);
    let version = number / aggregates + 1;
    let mut value = format!(
        "{{\"eventType\":\"CustomerNameChanged\",\"eventId\":\"{number:032x}\",\
         \"timestamp\":\"2026-11-21T10:15:30.123456789Z\",\"aggregateId\":\"{aggregate}\",\
         \"aggregateType\":\"Customer\",\"sequenceNumber\":{version},\"amount\":{number}.10,\
         \"newName\":\""
    );
    let padding = VALUE_BYTES.saturating_sub(value.len() + 2);
    write!(value, "{number:0>padding$}\"}}").expect("write to a string");
    Outgoing::new(&aggregate, value)
}

/// Lets a fresh daemon with a fresh database finish the whole topic.
fn run_daemon(server: &Postgres, topic: &str, subject: &Subject, sizes: &Sizes) -> Round {
    let database = server.database("bench");
    let config = format!(
        "[kafka]\nbrokers = \"{}\"\ngroup = \"{}\"\ntopics = [\"{topic}\"]\n\
         [decode]\nformat = \"{}\"\n[postgres]\nurl = \"{}\"\n",
        kafka::brokers(),
        database.name,
        subject.format,
        database.url()
    );
    let daemon = Daemon::start_binary(&subject.binary, Some(&config), &[], &Expected::default());
    // The clock starts with the first durable progress, so that neither the start of the process
    // nor joining the group counts.
    let mut progress = Progress::new(&database);
    let finished_first = wait_for(&daemon, || progress.read(), 1);
    let (started, before) =
        (Instant::now(), (Usage::of_process(daemon.pid()), Usage::of_tree(server.pid())));
    let total = wait_for(&daemon, || progress.read(), sizes.events as i64);
    let seconds = started.elapsed().as_secs_f64();
    let (daemon_usage, postgres_usage) =
        (Usage::of_process(daemon.pid()), Usage::of_tree(server.pid()));
    let peak_rss_mib = usage::peak_rss_mib(daemon.pid());
    daemon.stop();
    let applied = "select count(*) from pgsluice.notification_t where status = 'APPLIED'";
    assert_eq!(database.count(applied), sizes.events as i64, "every event is applied");
    drop(progress);
    server.drop_database(&database);

    let events = (total - finished_first) as f64;
    Round {
        events_per_second: events / seconds,
        daemon_micros: daemon_usage.micros_since(before.0) / events,
        postgres_micros: postgres_usage.micros_since(before.1) / events,
        peak_rss_mib,
    }
}

/// The sum of all partitions' progress, read on a connection of its own.
struct Progress {
    client: postgres::Client,
}

impl Progress {
    fn new(database: &Database) -> Self {
        Self { client: database.connect() }
    }

    /// 0 while the tables are not there yet.
    fn read(&mut self) -> i64 {
        let sql = "select coalesce(sum(next_offset), 0)::bigint from pgsluice.stream_t";
        self.client.query_one(sql, &[]).map_or(0, |row| row.get(0))
    }
}

fn wait_for(daemon: &Daemon, mut progress: impl FnMut() -> i64, goal: i64) -> i64 {
    let deadline = Instant::now() + ROUND_DEADLINE;
    loop {
        let reached = progress();
        if reached >= goal {
            return reached;
        }
        let ended = daemon.exit_status().is_some();
        if ended || Instant::now() > deadline {
            let log = daemon.log();
            panic!("{reached} of {goal}\n{}", log[log.len().saturating_sub(20)..].join("\n"));
        }
        std::thread::sleep(SAMPLE_INTERVAL);
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}

fn report(subjects: &[Subject], daemons: &[Vec<Round>], pgbench: &[pgbench::Round]) {
    let base = median(pgbench.iter().map(|round| round.transactions_per_second));
    println!("\nmedians");
    println!(
        "  pgbench           {base:>8.0} transactions/s                            PostgreSQL {:>6.1} µs/transaction",
        median(pgbench.iter().map(|round| round.postgres_micros))
    );
    for (subject, rounds) in subjects.iter().zip(daemons) {
        let of = |field: fn(&Round) -> f64| median(rounds.iter().map(field));
        let middle = Round {
            events_per_second: of(|round| round.events_per_second),
            daemon_micros: of(|round| round.daemon_micros),
            postgres_micros: of(|round| round.postgres_micros),
            peak_rss_mib: rounds.iter().map(|round| round.peak_rss_mib).fold(0.0, f64::max),
        };
        println!(
            "  {:<17} {middle}   ratio to pgbench {:.2}",
            subject.name,
            middle.events_per_second / base
        );
    }
}
