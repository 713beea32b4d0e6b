//! A long run under load with faults of every kind, one after the other, and the whole account at
//! its end. `make soak` runs it; `PGSLUICE_SOAK_MINUTES` says for how long, `PGSLUICE_SOAK_SEED`
//! repeats a choice of events and faults.

use std::collections::BTreeSet;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::traffic::{REFUSES_BOB, Traffic};
use pgsluice_testkit::broker::Broker;
use pgsluice_testkit::case::{CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, EFFECTS, SETTLING};
use pgsluice_testkit::daemon::Daemon;
use pgsluice_testkit::kafka::{self, Place};
use pgsluice_testkit::postgres::Postgres;
use pgsluice_testkit::wait;

const PARTITIONS: i32 = 6;
const DAEMONS: usize = 3;
/// Some hundred events a second: the account of all of them is read into memory.
const BURST: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);
/// Work goes on within this time after a fault, whatever came before it.
const RECOVERY: Duration = Duration::from_secs(120);
/// Nothing of this traffic is a flood, however much of it comes at once after a fault.
const NO_BRAKES: &str = "[dead_letter]\n\
     flood = { aggregates = 1000000, share = 1.0, window = \"1s\" }\n\
     stale_flood = { events = 1000000, share = 1.0, window = \"1s\" }\n";
/// What daemons say of such faults.
const COMPLAINTS: &[&str] = &[
    "consumer_late",
    "dead_letters",
    "drain_expired",
    "kafka_trouble",
    "kafka_unreachable",
    "brokers_silent",
    "letters_stuck",
    "letters_unclaimed",
    "letters_unmarked",
    "librdkafka",
    "membership_lost",
    "mirror_failing",
    "mirror_late",
    "partition_fenced",
    "partition_halted",
    "rebalance_trouble",
    "retry",
    "revoke_late",
    "session_lost",
    "topic_refused",
];

#[derive(Debug, Clone, Copy)]
enum Trouble {
    KillDaemon,
    StopDaemon,
    FreezeDaemon,
    CrashServer,
    RestartServer,
    FreezeServer,
    TerminateConnection,
    LockTable,
    MissTable,
    CrashBroker,
    RestartBroker,
    FreezeBroker,
}

const TROUBLES: [Trouble; 12] = [
    Trouble::KillDaemon,
    Trouble::StopDaemon,
    Trouble::FreezeDaemon,
    Trouble::CrashServer,
    Trouble::RestartServer,
    Trouble::FreezeServer,
    Trouble::TerminateConnection,
    Trouble::LockTable,
    Trouble::MissTable,
    Trouble::CrashBroker,
    Trouble::RestartBroker,
    Trouble::FreezeBroker,
];

/// Everything that trouble can come to.
struct World<'a> {
    case: &'a Case,
    server: &'a Postgres,
    broker: &'a mut Broker,
    daemons: Vec<Daemon>,
    random: StdRng,
}

impl World<'_> {
    fn make(&mut self, trouble: Trouble) {
        let chosen = self.random.random_range(0..self.daemons.len());
        let while_it_lasts = Duration::from_millis(self.random.random_range(500..4000));
        match trouble {
            Trouble::KillDaemon => {
                self.daemons[chosen].kill9();
                self.daemons[chosen] = self.case.daemon(&configuration());
            }
            Trouble::StopDaemon => {
                self.daemons[chosen].stop();
                self.daemons[chosen] = self.case.daemon(&configuration());
            }
            Trouble::FreezeDaemon => {
                self.daemons[chosen].signal("STOP");
                // Beyond its session timeout of 6 s, most of the time.
                self.let_pass(while_it_lasts * 2 + Duration::from_secs(3));
                self.daemons[chosen].signal("CONT");
            }
            Trouble::CrashServer => {
                self.server.kill9_all();
                self.server.start();
            }
            Trouble::RestartServer => {
                self.server.stop();
                self.let_pass(while_it_lasts);
                self.server.start();
            }
            Trouble::FreezeServer => {
                self.server.freeze();
                // Beyond the deadlines of statements, most of the time.
                self.let_pass(while_it_lasts * 4);
                self.server.thaw();
            }
            Trouble::TerminateConnection => {
                self.case.database.rows(
                    "select pg_terminate_backend(pid) from pg_stat_activity \
                     where datname = current_database() and application_name like 'pgsluice/%' \
                     order by random() limit 1",
                );
            }
            Trouble::LockTable => {
                let mut holder = self.case.database.connect();
                let mut lock = holder.transaction().unwrap();
                lock.batch_execute("lock table customer in exclusive mode").unwrap();
                self.let_pass(while_it_lasts);
                lock.rollback().unwrap();
            }
            Trouble::MissTable => {
                self.case.database.execute("alter table customer rename to client");
                self.let_pass(while_it_lasts);
                self.case.database.execute("alter table client rename to customer");
            }
            Trouble::CrashBroker => {
                self.broker.kill9();
                self.broker.start();
            }
            Trouble::RestartBroker => {
                self.broker.stop();
                self.let_pass(while_it_lasts);
                self.broker.start();
            }
            Trouble::FreezeBroker => {
                self.broker.signal("STOP");
                self.let_pass(while_it_lasts * 3);
                self.broker.signal("CONT");
            }
        }
    }

    /// A fault lasts: nothing is awaited but time, and that no daemon ends of it.
    fn let_pass(&self, time: Duration) {
        wait::stays("every daemon runs", time, || {
            self.daemons.iter().all(|daemon| daemon.exit_status().is_none())
        });
    }

    fn outcomes(&self) -> i64 {
        self.case.database.count("select count(*) from pgsluice.notification_t")
    }

    /// Waits until more records have an outcome.
    fn until_work_goes_on(&self) {
        let before = self.outcomes();
        self.daemons[0].until("work goes on", RECOVERY, || self.outcomes() > before + 100);
    }
}

fn configuration() -> String {
    format!("{CUSTOMER_ROUTE}{NO_BRAKES}[retry]\nmax = \"2s\"\n")
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a whole number"))
}

/// Proves INV-5.
#[test]
#[ignore = "takes minutes: make soak"]
fn whatever_happens_every_record_has_its_outcome() {
    let minutes = number("PGSLUICE_SOAK_MINUTES").unwrap_or(5);
    let seed = number("PGSLUICE_SOAK_SEED").unwrap_or_else(rand::random);
    eprintln!("soak: {minutes} minutes, PGSLUICE_SOAK_SEED={seed}");
    let mut broker = kafka::alone();
    let server = Postgres::own();
    let case = Case::on(&server, "soak", PARTITIONS);
    case.allows(COMPLAINTS);
    for sql in [CUSTOMER_TABLE, EFFECTS, REFUSES_BOB] {
        case.database.execute(sql);
    }
    let mut traffic = Traffic::new(&case, seed);
    let (stop, stopped) = channel::<()>();
    let source = std::thread::spawn(move || {
        loop {
            traffic.send(BURST);
            if stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
                return traffic;
            }
        }
    });
    let daemons = (0..DAEMONS).map(|_| case.daemon(&configuration())).collect();
    let random = StdRng::seed_from_u64(seed);
    let mut world = World { case: &case, server: &server, broker: &mut broker, daemons, random };
    world.until_work_goes_on();

    let end = Instant::now() + Duration::from_secs(60 * minutes);
    while Instant::now() < end {
        let trouble = TROUBLES[world.random.random_range(0..TROUBLES.len())];
        eprintln!("soak: {trouble:?}, {} outcomes", world.outcomes());
        world.make(trouble);
        world.until_work_goes_on();
    }

    stop.send(()).expect("the source runs");
    let traffic = source.join().expect("the source");
    eprintln!("soak: {} records sent", traffic.sent());
    world.daemons[0].until("everything is finished", RECOVERY, || case.finished());
    traffic.assert_accounted(&case);
    case.assert_effects_ascend();
    assert_letters_published(&case, &world.daemons[0], &traffic);
    case.until_mirrored(&world.daemons[0]);
    for daemon in &world.daemons {
        daemon.stop();
    }
}

/// Asserts that every dead letter is in its topic, at least once, and that the first copies of an
/// aggregate's letters are in order.
fn assert_letters_published(case: &Case, daemon: &Daemon, traffic: &Traffic) {
    let waiting = "select count(*) from pgsluice.dead_letter_t where published_at is null";
    daemon.until("all letters are published", SETTLING, || {
        case.database.text(waiting).as_deref() == Some("0")
    });
    let mut published: BTreeSet<Place> = BTreeSet::new();
    let mut newest = std::collections::HashMap::new();
    for letter in kafka::read_all(&format!("{}-dlq", case.topic)) {
        let told = |name| letter.header(name).and_then(|text| text.parse::<i64>().ok());
        let partition = told("__connect.errors.partition").and_then(|n| i32::try_from(n).ok());
        let place = Place {
            partition: partition.expect("its partition"),
            offset: told("__connect.errors.offset").expect("its offset"),
        };
        let is_new = published.insert(place);
        if let Some(aggregate) = letter.header("pgsluice.aggregate.id").filter(|_| is_new) {
            let before = newest.insert(aggregate, place.offset);
            assert!(before < Some(place.offset), "{place:?} came before an older letter");
        }
    }
    assert!(published.into_iter().eq(traffic.letters()), "other letters than were expected");
}
