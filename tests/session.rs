//! The database session against a real PostgreSQL: what makes progress durable, what refuses to,
//! and who owns a partition.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics where it cannot go on")]

mod support;

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::types::Type;

use pgsluice::config::{self, Config};
use pgsluice::fault::{Fault, FaultKind, SqlState};
use pgsluice::group::Progress;
use pgsluice::pipeline::advance::{
    Committed, KafkaPosition, TakeRequest, advance, mirror_tag, take,
};
use pgsluice::pipeline::input::{Claim, TakeReply};
use pgsluice::postgres::lane::prepared_on;
use pgsluice::postgres::migrate::{MigrateError, known_version, migrate, verify};
use pgsluice::postgres::{OpenError, Session, SessionEnd};
use pgsluice::record::{
    Anchor, Generation, NextOffset, Offset, OwnerEpoch, SessionId, TopicPartition,
};

use support::postgres::{Database, Postgres};

/// Long enough for a busy machine; nothing here should take more than a moment.
const PATIENCE: Duration = Duration::from_secs(20);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn config_with(url: &str, more: &[(&str, &str)]) -> Config {
    let given = [
        ("PGSLUICE__KAFKA__BROKERS", "127.0.0.1:1"),
        ("PGSLUICE__KAFKA__GROUP", "views"),
        ("PGSLUICE__KAFKA__TOPICS", "events"),
        ("PGSLUICE__POSTGRES__URL", url),
        ("PGSLUICE__POSTGRES__LANES", "2"),
    ];
    let env = given.iter().chain(more).map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    config::load(None, env).unwrap()
}

/// A database with our tables in it.
struct Place {
    runtime: Runtime,
    database: Database,
    config: Config,
}

impl Place {
    fn new(name: &str) -> Self {
        Self::on(Postgres::shared(), name, &[])
    }

    fn on(server: &Postgres, name: &str, more: &[(&str, &str)]) -> Self {
        let (runtime, database) = (runtime(), server.database(name));
        let config = config_with(&database.url(), more);
        runtime.block_on(migrate(&config.postgres)).unwrap();
        Self { runtime, database, config }
    }

    fn open(&self) -> (Session, SessionEnd) {
        self.runtime.block_on(Session::open(&self.config, SessionId(1), Some("cluster-a"))).unwrap()
    }

    /// Takes one partition; the log holds everything a test could ask for.
    fn take(&self, session: &Session, number: i32, committed: Option<Committed>) -> TakeReply {
        let kafka = KafkaPosition { committed, low: 0, high: 1_000_000, start: Some(0) };
        let request =
            TakeRequest { partition: partition(number), generation: Generation(1), kafka };
        let mut taken = self.runtime.block_on(take(session, "this test", vec![request])).unwrap();
        let (name, generation, reply) = taken.pop().unwrap();
        assert_eq!((name, generation), (partition(number), Generation(1)));
        reply
    }

    fn claim(&self, session: &Session, number: i32) -> Claim {
        match self.take(session, number, None) {
            TakeReply::Claimed(claim) => claim,
            other => panic!("not claimed: {other:?}"),
        }
    }

    fn next_offset(&self) -> Option<String> {
        self.database.text("select next_offset from pgsluice.stream_t")
    }

    fn lead_is_ended(&self, session: &Session) {
        self.database.execute(&format!("select pg_terminate_backend({})", session.lead_backend()));
    }

    fn end(&self, end: SessionEnd) -> Fault {
        let waited = async { tokio::time::timeout(PATIENCE, end.wait()).await };
        self.runtime.block_on(waited).expect("the session ends")
    }
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition { topic: Arc::from("events"), partition: number }
}

fn progress(claim: &Claim, next: i64) -> Progress {
    let anchor = Anchor { offset: Offset(next - 1), timestamp: Some(1_000), crc: u32::MAX };
    Progress {
        stream: claim.stream,
        epoch: claim.epoch,
        next: NextOffset(next),
        anchor: Some(anchor),
    }
}

fn server_fault(code: &[u8; 5]) -> FaultKind {
    FaultKind::Server(SqlState(*code))
}

#[test]
fn four_processes_migrate_an_empty_database_at_once_and_one_of_them_does_the_work() {
    let (runtime, database) = (runtime(), Postgres::shared().database("migrate"));
    let config = config_with(&database.url(), &[("PGSLUICE__POSTGRES__SCHEMA", "Odd \"name")]);
    let before = runtime.block_on(verify(&config.postgres));
    assert!(matches!(before, Err(MigrateError::SchemaTooOld { version: 0, .. })));

    let reports = runtime.block_on(join_all((0..4).map(|_| migrate(&config.postgres))));

    let reports: Vec<_> = reports.into_iter().map(Result::unwrap).collect();
    assert!(reports.iter().all(|report| report.version == known_version()));
    assert_eq!(reports.iter().filter(|report| !report.applied.is_empty()).count(), 1);
    assert_eq!(runtime.block_on(verify(&config.postgres)).unwrap(), known_version());
    for view in ["stream", "aggregate", "notification", "dead_letter"] {
        assert_eq!(database.count(&format!("select count(*) from \"Odd \"\"name\".{view}")), 0);
    }
}

#[test]
fn an_older_binary_runs_beside_a_newer_schema_until_the_schema_refuses_it() {
    let place = Place::new("expand");
    place.database.execute("update pgsluice.schema_t set version = 99");
    let report = place.runtime.block_on(migrate(&place.config.postgres)).unwrap();
    assert_eq!((report.applied, report.version), (vec![], 99));

    place.database.execute("update pgsluice.schema_t set min_binary = 99");
    for refused in [
        place.runtime.block_on(migrate(&place.config.postgres)).map(|_| ()),
        place.runtime.block_on(verify(&place.config.postgres)).map(|_| ()),
    ] {
        assert!(matches!(refused, Err(MigrateError::BinaryTooOld { min_binary: 99, .. })));
    }
}

#[test]
fn a_sink_keeps_its_number_and_refuses_another_kafka_cluster() {
    let place = Place::new("sink");
    let open =
        |cluster| place.runtime.block_on(Session::open(&place.config, SessionId(1), cluster));
    let (first, _) = open(None).unwrap();
    let (second, _) = open(Some("cluster-a")).unwrap();
    let (third, _) = open(None).unwrap();
    assert_eq!((first.sink, second.sink), (second.sink, third.sink));
    let refused = open(Some("cluster-b")).unwrap_err();
    assert!(matches!(refused, OpenError::ClusterMismatch { .. }), "{refused}");
}

#[test]
fn settings_of_role_and_database_do_not_reach_a_session() {
    let place = Place::new("settings");
    let name = &place.database.name;
    for setting in [
        "synchronous_commit = local",
        "client_min_messages = error",
        "default_transaction_isolation = serializable",
        "timezone = 'Asia/Kathmandu'",
        "idle_session_timeout = '10min'",
    ] {
        place.database.execute(&format!("alter database {name} set {setting}"));
    }
    let (session, _end) = place.open();
    let shown = "select string_agg(name || '=' || setting, ' ' order by name) from pg_settings
                 where name in ('synchronous_commit', 'client_min_messages', 'TimeZone',
                   'default_transaction_isolation', 'idle_session_timeout', 'lock_timeout')";
    let expected = |synchronous, lock| {
        format!(
            "TimeZone=UTC client_min_messages=warning \
             default_transaction_isolation=read committed idle_session_timeout=0 \
             lock_timeout={lock} synchronous_commit={synchronous}"
        )
    };
    place.runtime.block_on(async {
        let lane = session.lane().client().query_one(shown, &[]).await.unwrap();
        assert_eq!(lane.get::<_, String>(0), expected("off", 100));
        let slow = session.slow().await.unwrap().query_one(shown, &[]).await.unwrap();
        assert_eq!(slow.get::<_, String>(0), expected("on", 2000));
        let lead = format!("select $1::oid is not null and $2::oid is not null, ({shown})");
        let lead = session.durable(&lead, &[], &[]).await.unwrap();
        assert_eq!(lead[0].get::<_, String>(1), expected("on", 2000));
    });
}

#[test]
fn the_barrier_moves_progress_with_its_anchor_and_never_back() {
    let place = Place::new("barrier");
    let (session, _end) = place.open();
    let claim = place.claim(&session, 0);
    assert_eq!((claim.next, claim.anchor), (NextOffset(0), None));
    let run = |progress: Progress| place.runtime.block_on(advance(&session, &[progress])).unwrap();

    assert_eq!(run(progress(&claim, 10)), [claim.stream]);
    assert_eq!(run(progress(&claim, 9)), []);
    let without_anchor = Progress { anchor: None, ..progress(&claim, 12) };
    assert_eq!(run(without_anchor), [claim.stream]);

    let again = place.claim(&session, 0);
    assert_eq!(again.next, NextOffset(12));
    assert_eq!(again.anchor, progress(&claim, 10).anchor);
    assert_eq!(again.epoch, OwnerEpoch(claim.epoch.0 + 1));
}

#[test]
fn two_takers_fence_each_other_and_the_old_epoch_moves_nothing_inv_10() {
    let place = Place::new("fence");
    let ((first, _), (second, _)) = (place.open(), place.open());
    let old = place.claim(&first, 0);
    let new = place.claim(&second, 0);
    assert_eq!(old.stream, new.stream);

    let by_old = place.runtime.block_on(advance(&first, &[progress(&old, 10)])).unwrap();
    assert_eq!(by_old, [], "fenced, but its session lives on for its other partitions");
    assert!(!first.is_closed());
    assert_eq!(place.next_offset().as_deref(), Some("0"));

    let by_new = place.runtime.block_on(advance(&second, &[progress(&new, 5)])).unwrap();
    assert_eq!(by_new, [new.stream]);
    let taken_back = place.claim(&first, 0);
    assert_eq!(taken_back.next, NextOffset(5));
    let late = place.runtime.block_on(advance(&second, &[progress(&new, 6)])).unwrap();
    assert_eq!(late, []);
}

#[test]
fn a_partition_whose_row_is_held_is_busy_and_does_not_hold_up_the_others() {
    let place = Place::new("busy");
    let (session, _end) = place.open();
    place.claim(&session, 0);
    let mut holder = place.database.connect();
    let mut transaction = holder.transaction().unwrap();
    transaction.execute("select 1 from pgsluice.stream_t for share", &[]).unwrap();

    assert_eq!(place.take(&session, 0, None), TakeReply::Busy);
    assert!(matches!(place.take(&session, 1, None), TakeReply::Claimed(_)));

    transaction.rollback().unwrap();
    assert!(matches!(place.take(&session, 0, None), TakeReply::Claimed(_)));
}

#[test]
fn an_offset_that_an_operator_moved_becomes_the_position_and_clears_the_anchor() {
    let place = Place::new("operator");
    let (session, _end) = place.open();
    let claim = place.claim(&session, 0);
    place.runtime.block_on(advance(&session, &[progress(&claim, 50)])).unwrap();

    let mirrored = Committed { next: 40, metadata: mirror_tag(claim.stream, claim.epoch) };
    let TakeReply::Claimed(resumed) = place.take(&session, 0, Some(mirrored)) else { panic!() };
    assert_eq!(resumed.next, NextOffset(50));

    let moved = Committed { next: 20, metadata: String::new() };
    let TakeReply::Claimed(moved) = place.take(&session, 0, Some(moved)) else { panic!() };
    assert_eq!((moved.next, moved.anchor), (NextOffset(20), None));
    assert_eq!(place.next_offset().as_deref(), Some("20"));
}

#[test]
fn the_barrier_is_refused_after_the_leads_backend_was_ended() {
    let place = Place::new("lead_ended");
    let (session, end) = place.open();
    let claim = place.claim(&session, 0);
    place.lead_is_ended(&session);

    let refused = place.runtime.block_on(advance(&session, &[progress(&claim, 10)]));
    assert!(refused.is_err());
    assert_eq!(place.next_offset().as_deref(), Some("0"));
    place.end(end);
    let lane = place.runtime.block_on(session.lanes[1].prepared("select 1", &[]));
    assert_eq!(lane.unwrap_err().kind, FaultKind::Connection, "every lane ends with it");
    let slow = place.runtime.block_on(session.slow());
    assert_eq!(slow.unwrap_err().kind, FaultKind::Connection);
}

#[test]
fn the_end_of_any_connection_ends_the_session_with_the_servers_reason() {
    let place = Place::new("ended");
    for role in ["lead", "lane", "slow"] {
        let (session, end) = place.open();
        drop(place.runtime.block_on(session.slow()).unwrap());
        place.database.execute(&format!(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and application_name = 'pgsluice/views/{role}'
             limit 1"
        ));
        assert_eq!(place.end(end).kind, server_fault(b"57P01"), "{role}");
        assert!(session.is_closed());
    }
}

#[test]
fn the_barrier_is_refused_when_the_lock_is_lost() {
    let place = Place::new("lock_lost");
    let (session, end) = place.open();
    let claim = place.claim(&session, 0);
    let unlock = "select $1::oid is not null and $2::oid is not null,
                         pg_advisory_unlock_all()::text";
    place.runtime.block_on(session.durable(unlock, &[], &[])).unwrap();

    let refused = place.runtime.block_on(advance(&session, &[progress(&claim, 10)]));
    assert_eq!(refused.unwrap_err().kind, FaultKind::LockNotSeen);
    assert_eq!(place.next_offset().as_deref(), Some("0"));
    assert_eq!(place.end(end).kind, FaultKind::LockNotSeen);
}

#[test]
fn a_lane_that_reaches_another_server_is_refused() {
    let (home, other) = (Postgres::shared(), Postgres::own());
    let place = Place::on(home, "two_servers", &[]);
    let name = &place.database.name;
    other.database("elsewhere").execute(&format!("create database {name}"));
    let (home, other) = (address(&place.database.url()), address(&other.database("x").url()));
    let port = first_here_then_there(home, other);
    let config = config_with(&format!("postgres://postgres@127.0.0.1:{port}/{name}"), &[]);

    let refused = place.runtime.block_on(Session::open(&config, SessionId(1), None));
    let OpenError::Database(fault) = refused.unwrap_err() else { panic!() };
    assert_eq!(fault.kind, FaultKind::LockNotSeen);
}

fn address(url: &str) -> String {
    url.split('@').nth(1).unwrap().split('/').next().unwrap().to_owned()
}

/// Listens on a loopback port; the first connection leads to one server, all others to another.
fn first_here_then_there(first: String, others: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (at, client) in listener.incoming().enumerate() {
            let (client, target) = (client.unwrap(), if at == 0 { &first } else { &others });
            let server = TcpStream::connect(target).unwrap();
            for (mut from, mut to) in
                [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
            {
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
    });
    port
}

/// A cancelled wait for a synchronous standby is answered with success and a WARNING: the write
/// is there, but a failover would lose it.
#[test]
fn a_warning_while_the_barrier_runs_means_it_is_not_durable() {
    let server = Postgres::own();
    let place = Place::on(&server, "standby", &[]);
    let name = &place.database.name;
    place.database.execute(&format!("alter database {name} set client_min_messages = error"));
    let (session, end) = place.open();
    let claim = place.claim(&session, 0);
    let mut other = place.database.connect();
    other.batch_execute("set synchronous_commit = local").unwrap();
    other.batch_execute("alter system set synchronous_standby_names = 'nobody'").unwrap();
    other.batch_execute("select pg_reload_conf()").unwrap();
    let lead = session.lead_backend();
    let cancel = std::thread::spawn(move || {
        support::wait::until("the barrier waits for the standby", PATIENCE, || {
            let waiting =
                "select 1 from pg_stat_activity where pid = $1 and wait_event = 'SyncRep'";
            !other.query(waiting, &[&lead]).unwrap().is_empty()
        });
        other.execute("select pg_cancel_backend($1)", &[&lead]).unwrap();
    });

    let refused = place.runtime.block_on(advance(&session, &[progress(&claim, 10)]));
    cancel.join().unwrap();
    assert!(refused.is_err(), "{refused:?}");
    assert!(session.is_closed());
    place.end(end);
}

#[test]
fn an_answer_that_does_not_come_in_time_ends_the_session() {
    let limits = [
        ("PGSLUICE__POSTGRES__STATEMENT_TIMEOUT", "1s"),
        ("PGSLUICE__POSTGRES__DEADLINE", "1500ms"),
    ];
    let place = Place::on(Postgres::shared(), "deadline", &limits);
    let (session, end) = place.open();
    let claim = place.claim(&session, 0);
    let lead = u32::try_from(session.lead_backend()).unwrap();

    support::process::signal(lead, "STOP");
    let refused = place.runtime.block_on(advance(&session, &[progress(&claim, 10)]));
    support::process::signal(lead, "CONT");

    assert_eq!(refused.unwrap_err().kind, FaultKind::Deadline);
    assert_eq!(place.end(end).kind, FaultKind::Deadline);
}

#[test]
fn a_session_that_is_closed_fails_what_is_in_flight_at_once() {
    let place = Place::new("close");
    let (session, end) = place.open();
    place.runtime.block_on(async {
        let sleeping = session.lanes[0].client().execute("select pg_sleep(60)", &[]);
        let closing = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            session.close();
        };
        let (answer, ()) = tokio::join!(tokio::time::timeout(PATIENCE, sleeping), closing);
        let error = answer.expect("fails at once").unwrap_err();
        assert_eq!(Fault::from_postgres(&error).kind, FaultKind::Connection);
    });
    assert_eq!(place.end(end).kind, FaultKind::Connection);
}

#[test]
fn a_statement_that_many_ask_for_is_prepared_once() {
    let place = Place::new("prepare");
    let (session, _end) = place.open();
    let lane = session.lane();
    let _busy = lane.enter();
    assert!(!std::ptr::eq(lane, session.lane()), "the other lane has less in flight");
    place.runtime.block_on(async {
        let asked = (0..20).map(|_| lane.prepared("select $1", &[Type::INT8]));
        assert!(join_all(asked).await.iter().all(Result::is_ok));
        let count = "select count(*) from pg_prepared_statements where statement = 'select $1'";
        let row = lane.client().query_one(count, &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 1);
        // A text that fails is not kept as a failure.
        assert!(lane.prepared("select from nowhere", &[]).await.is_err());
        lane.client().batch_execute("create temp table nowhere ()").await.unwrap();
        assert!(lane.prepared("select from nowhere", &[]).await.is_ok());
        let slow = session.slow().await.unwrap();
        assert!(prepared_on(&slow, "select $1", &[Type::INT8]).await.is_ok());
    });
}

#[test]
fn a_fault_carries_codes_and_names_and_never_a_value_inv_9() {
    let place = Place::new("faults");
    place.database.execute(
        "create table customer (id int constraint customer_id check (id > 0), name text not null)",
    );
    let (session, _end) = place.open();
    let client = session.lane().client();
    let insert = "insert into customer values ($1, $2)";
    place.runtime.block_on(async {
        let refused = client.execute(insert, &[&-77, &"s3cret"]).await.unwrap_err();
        let fault = Fault::from_postgres(&refused);
        assert_eq!(fault.kind, server_fault(b"23514"));
        assert_eq!(fault.constraint.as_deref(), Some("customer_id"));
        assert_eq!(fault.table.as_deref(), Some("public.customer"));
        let printed = format!("{fault} {fault:?}");
        assert!(!printed.contains("s3cret") && !printed.contains("77"), "{printed}");

        let wrong_type = client.execute(insert, &[&77_i64, &"x"]).await.unwrap_err();
        assert_eq!(Fault::from_postgres(&wrong_type).kind, FaultKind::DriverType);
        let unreadable = client.query_one("select 'x'::text", &[]).await.unwrap();
        let unreadable = unreadable.try_get::<_, i32>(0).unwrap_err();
        assert_eq!(Fault::from_postgres(&unreadable).kind, FaultKind::DriverType);
        let not_encoded = client.prepare("select '\0'").await.unwrap_err();
        assert_eq!(Fault::from_postgres(&not_encoded).kind, FaultKind::Encode);
        let too_many =
            client.query_one("select from generate_series(1, 2)", &[]).await.unwrap_err();
        assert!(matches!(Fault::from_postgres(&too_many).kind, FaultKind::Bug(_)));
    });
}

#[test]
fn a_server_that_cannot_be_used_is_told_apart_from_one_that_is_down() {
    let place = Place::new("unusable");
    let open = |config: &Config| {
        let opened = place.runtime.block_on(Session::open(config, SessionId(1), None));
        opened.unwrap_err().into_fault().kind
    };
    assert_eq!(open(&config_with("postgres://a@127.0.0.1:1/b", &[])), FaultKind::Connection);
    let address = address(&place.database.url());
    let missing = config_with(&format!("postgres://postgres@{address}/no_such_database"), &[]);
    assert_eq!(open(&missing), server_fault(b"3D000"));
    let empty = config_with(&place.database.url(), &[("PGSLUICE__POSTGRES__SCHEMA", "empty")]);
    assert_eq!(open(&empty), server_fault(b"42P01"));
    let name = &place.database.name;
    place
        .database
        .execute(&format!("alter database {name} set default_transaction_read_only = on"));
    assert_eq!(open(&place.config), server_fault(b"25006"));
}
