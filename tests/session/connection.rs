//! Connections of a session: what is set on them, how they fail, and what a fault tells.

use futures_util::future::join_all;
use tokio_postgres::types::Type;

use pgsluice::config::Config;
use pgsluice::lanes::barrier::advance;
use pgsluice::postgres::{OpenError, Session};
use pgsluice::store::migrate::migrate;
use pgsluice::store::sink::{SinkError, find_or_create};
use pgsluice_core::fault::{FaultKind, SqlState};
use pgsluice_core::record::SessionId;

use crate::place::{PATIENCE, Place, config_with, progress, runtime};
use pgsluice_testkit::postgres::{Postgres, first_here_then_there};

fn server_fault(code: &[u8; 5]) -> FaultKind {
    FaultKind::Server(SqlState(*code))
}

#[test]
fn a_sink_keeps_its_number_and_refuses_another_kafka_cluster() {
    let place = Place::new("sink");
    let open = |cluster| {
        let found = async {
            let (session, _end) = Session::open(&place.config, SessionId(1)).await.unwrap();
            find_or_create(&session, "views", cluster).await
        };
        place.runtime.block_on(found)
    };
    let first = open(None).unwrap();
    let second = open(Some("cluster-a")).unwrap();
    let third = open(None).unwrap();
    assert_eq!((first, second), (second, third));
    let refused = open(Some("cluster-b")).unwrap_err();
    assert!(matches!(refused, SinkError::ClusterMismatch { .. }), "{refused}");
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
    place.runtime.block_on(assert_settings(&session, shown, expected));
}

/// What each kind of connection shows of its settings: `expected` of `synchronous_commit` and
/// `lock_timeout`.
async fn assert_settings(
    session: &Session,
    shown: &str,
    expected: impl Fn(&'static str, i32) -> String,
) {
    let lane = session.lane().client().query_one(shown, &[]).await.unwrap();
    assert_eq!(lane.get::<_, String>(0), expected("off", 100));
    let slow = session.slow().await.unwrap().query_one(shown, &[]).await.unwrap();
    assert_eq!(slow.get::<_, String>(0), expected("on", 2000));
    let lead = format!("select $1::oid is not null and $2::oid is not null, ({shown})");
    let lead = session.durable(&lead, &[], &[]).await.unwrap();
    assert_eq!(lead[0].get::<_, String>(1), expected("on", 2000));
}

/// Each of these has been seen in the wild, put there for people and meant well.
const HOSTILE: [&str; 19] = [
    "synchronous_commit = off",
    "default_transaction_isolation = serializable",
    "default_transaction_deferrable = on",
    "statement_timeout = '1ms'",
    "lock_timeout = '1ms'",
    "idle_in_transaction_session_timeout = '1ms'",
    "search_path = ''",
    "DateStyle = 'German'",
    "IntervalStyle = 'sql_standard'",
    "TimeZone = 'Asia/Kathmandu'",
    "standard_conforming_strings = off",
    "bytea_output = escape",
    "extra_float_digits = -15",
    "row_security = off",
    "client_encoding = 'LATIN1'",
    "client_min_messages = error",
    "application_name = 'somebody else'",
    "jit = on",
    "enable_indexscan = off",
];

#[test]
fn a_role_with_hostile_settings_migrates_and_opens_sessions_whose_settings_are_ours_k11() {
    let database = Postgres::shared().database("hostile");
    let role = format!("hostile_{}", database.name);
    database.execute(&format!(
        "create role {role} superuser login; create schema pgsluice authorization {role}"
    ));
    for setting in HOSTILE {
        database.execute(&format!("alter role {role} set {setting}"));
    }
    let config = config_with(&database.url().replace("postgres@", &format!("{role}@")), &[]);
    let runtime = runtime();
    runtime.block_on(migrate(&config.postgres)).unwrap();
    let (session, _end) = runtime.block_on(Session::open(&config, SessionId(1))).unwrap();
    // As the server itself sees them, each in the unit it prints.
    let shown = "select string_agg(name || '=' || setting, ' ' order by name) from pg_settings
                 where name in ('synchronous_commit', 'default_transaction_isolation',
                   'statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout',
                   'DateStyle', 'TimeZone', 'standard_conforming_strings', 'bytea_output',
                   'row_security', 'client_encoding')";
    let expected = |synchronous, lock| {
        format!(
            "DateStyle=ISO, YMD TimeZone=UTC bytea_output=hex client_encoding=UTF8 \
             default_transaction_isolation=read committed \
             idle_in_transaction_session_timeout=10000 lock_timeout={lock} row_security=on \
             standard_conforming_strings=on statement_timeout=30000 \
             synchronous_commit={synchronous}"
        )
    };
    runtime.block_on(assert_settings(&session, shown, expected));
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
fn a_lane_that_reaches_another_server_is_refused() {
    let (home, other) = (Postgres::shared(), Postgres::own());
    let place = Place::on(home, "two_servers", &[]);
    let name = &place.database.name;
    let elsewhere = other.database("elsewhere");
    elsewhere.execute(&format!("create database {name}"));
    let port = first_here_then_there(&place.database, &elsewhere);
    let config = config_with(&format!("postgres://postgres@127.0.0.1:{port}/{name}"), &[]);

    let refused = place.runtime.block_on(Session::open(&config, SessionId(1)));
    let OpenError::Database(fault) = refused.unwrap_err() else { panic!() };
    assert_eq!(fault.kind, FaultKind::LockNotSeen);
}

#[test]
fn an_answer_that_does_not_come_in_time_ends_the_session() {
    let limits = [
        ("PGSLUICE__POSTGRES__SLOW_LOCK_TIMEOUT", "500ms"),
        ("PGSLUICE__POSTGRES__STATEMENT_TIMEOUT", "1s"),
        ("PGSLUICE__POSTGRES__DEADLINE", "1500ms"),
    ];
    let place = Place::on(Postgres::shared(), "deadline", &limits);
    let (session, end) = place.open();
    let claim = place.claim(&session, 0);
    let lead = u32::try_from(session.lead_backend()).unwrap();

    pgsluice_testkit::process::signal(lead, "STOP");
    let refused = place.runtime.block_on(advance(&session, &[progress(&claim, 10)]));
    pgsluice_testkit::process::signal(lead, "CONT");

    assert_eq!(refused.unwrap_err().kind, FaultKind::Deadline);
    assert_eq!(place.end(end).kind, FaultKind::Deadline);
}

#[test]
fn a_session_that_is_closed_fails_what_is_in_flight_at_once() {
    let place = Place::new("close");
    let (session, end) = place.open();
    place.runtime.block_on(async {
        let sleeping = session.lanes[0].client().execute("select pg_sleep(60)", &[]);
        let seen = "select exists (select from pg_catalog.pg_stat_activity \
                    where query = 'select pg_sleep(60)' and state = 'active')";
        let closing = async {
            let other = session.lanes[1].client();
            while !other.query_one(seen, &[]).await.unwrap().get::<_, bool>(0) {}
            session.close();
        };
        let (answer, ()) = tokio::join!(tokio::time::timeout(PATIENCE, sleeping), closing);
        let error = answer.expect("fails at once").unwrap_err();
        assert_eq!(pgsluice::postgres::fault_of(&error).kind, FaultKind::Connection);
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
        assert!(slow.prepared("select $1", &[Type::INT8]).await.is_ok());
    });
}

/// Proves INV-9.
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
        let fault = pgsluice::postgres::fault_of(&refused);
        assert_eq!(fault.kind, server_fault(b"23514"));
        assert_eq!(fault.constraint.as_deref(), Some("customer_id"));
        assert_eq!(fault.table.as_deref(), Some("public.customer"));
        let printed = format!("{fault} {fault:?}");
        assert!(!printed.contains("s3cret") && !printed.contains("77"), "{printed}");

        let wrong_type = client.execute(insert, &[&77_i64, &"x"]).await.unwrap_err();
        assert_eq!(pgsluice::postgres::fault_of(&wrong_type).kind, FaultKind::DriverType);
        let unreadable = client.query_one("select 'x'::text", &[]).await.unwrap();
        let unreadable = unreadable.try_get::<_, i32>(0).unwrap_err();
        assert_eq!(pgsluice::postgres::fault_of(&unreadable).kind, FaultKind::DriverType);
        let not_encoded = client.prepare("select '\0'").await.unwrap_err();
        assert_eq!(pgsluice::postgres::fault_of(&not_encoded).kind, FaultKind::Encode);
        let too_many =
            client.query_one("select from generate_series(1, 2)", &[]).await.unwrap_err();
        assert!(matches!(pgsluice::postgres::fault_of(&too_many).kind, FaultKind::Bug(_)));
    });
}

#[test]
fn a_server_that_cannot_be_used_is_told_apart_from_one_that_is_down() {
    let place = Place::new("unusable");
    let open = |config: &Config| {
        let found = async {
            let (session, _end) =
                Session::open(config, SessionId(1)).await.map_err(OpenError::into_fault)?;
            let sink = find_or_create(&session, &config.kafka.group, None).await;
            sink.map_err(SinkError::into_fault)
        };
        place.runtime.block_on(found).unwrap_err().kind
    };
    assert_eq!(open(&config_with("postgres://a@127.0.0.1:1/b", &[])), FaultKind::Connection);
    let missing = place.database.url().replace(&place.database.name, "no_such_database");
    let missing = config_with(&missing, &[]);
    assert_eq!(open(&missing), server_fault(b"3D000"));
    let empty = config_with(&place.database.url(), &[("PGSLUICE__POSTGRES__SCHEMA", "empty")]);
    assert_eq!(open(&empty), server_fault(b"42P01"));
    let name = &place.database.name;
    place
        .database
        .execute(&format!("alter database {name} set default_transaction_read_only = on"));
    assert_eq!(open(&place.config), server_fault(b"25006"));
}
