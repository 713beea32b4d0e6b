//! `sslmode`, against servers with right and wrong certificates and one without any.

use std::path::Path;

use pgsluice::postgres::{OpenError, Session};
use pgsluice::store::migrate::{MigrateError, migrate};
use pgsluice_core::fault::{FaultKind, TlsFault};
use pgsluice_core::record::SessionId;

use crate::place::{PATIENCE, config_with, runtime};
use pgsluice_testkit::certificates::{Authority, Identity};
use pgsluice_testkit::postgres::{Database, Postgres};
use pgsluice_testkit::wait;

const MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];

/// What the modes that look at certificates are refused with; the others pass.
type Refusals = [Option<TlsFault>; 5];

const ALL_PASS: Refusals = [None; 5];

/// Tries every mode on a real session and on the migration's own connection.
fn outcomes(database: &Database, root: Option<&Path>) -> Refusals {
    MODES.map(|mode| {
        let mut more = format!("sslmode={mode}");
        if let Some(root) = root {
            more.push_str(&format!("&sslrootcert={}", root.display()));
        }
        let (migrated, opened) = attempt(&database.url_with(&more));
        assert_eq!(migrated, opened, "{mode}");
        opened
    })
}

fn attempt(url: &str) -> (Option<TlsFault>, Option<TlsFault>) {
    let (runtime, config) = (runtime(), config_with(url, &[]));
    runtime.block_on(async {
        let migrated = match migrate(&config.postgres).await {
            Ok(_) => None,
            Err(MigrateError::Database(fault)) => Some(fault.kind),
            Err(other) => panic!("{other}"),
        };
        let opened = match Session::open(&config, SessionId(1)).await {
            Ok(_) => None,
            Err(OpenError::Database(fault)) => Some(fault.kind),
            Err(other) => panic!("{other}"),
        };
        let tls = |kind: FaultKind| match kind {
            FaultKind::Tls(fault) => fault,
            other => panic!("{other:?}"),
        };
        (migrated.map(tls), opened.map(tls))
    })
}

fn server(identity: &Identity) -> Postgres {
    Postgres::with_tls(&identity.certificate, &identity.key, None)
}

#[test]
fn the_right_certificate_passes_every_mode_and_the_connection_is_encrypted() {
    let authority = Authority::create();
    let server = server(&authority.sign("DNS:localhost,IP:127.0.0.1"));
    let database = server.database("tls");
    let root = authority.certificate();
    assert_eq!(outcomes(&database, Some(&root)), ALL_PASS);
    // Another name than the address it resolves to.
    let by_name = database.url_with(&format!("sslmode=verify-full&sslrootcert={}", root.display()));
    let by_name = by_name.replace("127.0.0.1", "localhost");
    assert_eq!(attempt(&by_name), (None, None));

    let encrypted = "select count(*) from pg_stat_ssl join pg_stat_activity using (pid)
                     where application_name like 'pgsluice/views/%' and ssl";
    // Plain where nothing is asked for on the loopback interface; else the lead and two lanes.
    for (parameters, expected) in [("", 0), ("sslmode=prefer", 3), ("sslmode=require", 3)] {
        let config = config_with(&database.url_with(parameters), &[]);
        let runtime = runtime();
        let opened = runtime.block_on(Session::open(&config, SessionId(1))).unwrap();
        assert_eq!(database.count(encrypted), expected, "{parameters}");
        // Its sockets go with the runtime.
        drop((opened, runtime));
        wait::until("the session is gone", PATIENCE, || database.count(encrypted) == 0);
    }
}

#[test]
fn a_wrong_authority_or_name_and_an_expired_certificate_are_each_refused_as_libpq_documents() {
    let (authority, other) = (Authority::create(), Authority::create());
    let root = authority.certificate();
    let name = "IP:127.0.0.1";
    let unknown = Some(TlsFault::UnknownCa);
    let expired = Some(TlsFault::Expired);
    let wrong = Some(TlsFault::WrongName);
    for (what, identity, expected) in [
        // With sslrootcert, `require` looks at the chain: libpq's own backward compatibility.
        ("wrong authority", other.sign(name), [None, None, unknown, unknown, unknown]),
        ("expired", authority.sign_expired(name), [None, None, expired, expired, expired]),
        ("wrong name", authority.sign("DNS:elsewhere"), [None, None, None, None, wrong]),
    ] {
        let server = server(&identity);
        let database = server.database("tls");
        assert_eq!(outcomes(&database, Some(&root)), expected, "{what}");
    }
    let server = server(&other.sign(name));
    let database = server.database("tls");
    let without_roots = [None, None, None, unknown, unknown];
    assert_eq!(outcomes(&database, None), without_roots, "the system knows no such authority");
}

#[test]
fn a_server_without_tls_is_refused_by_every_mode_that_demands_it() {
    let database = Postgres::shared().database("plain");
    let refused = Some(TlsFault::ServerWithoutTls);
    assert_eq!(outcomes(&database, None), [None, None, refused, refused, refused]);
}

#[test]
fn a_server_that_asks_for_our_certificate_gets_it() {
    let authority = Authority::create();
    let identity = authority.sign("IP:127.0.0.1");
    let root = authority.certificate();
    let server = Postgres::with_tls(&identity.certificate, &identity.key, Some(&root));
    let database = server.database("client");
    let ours = authority.sign("DNS:pgsluice");
    let parameters = format!(
        "sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}",
        root.display(),
        ours.certificate.display(),
        ours.key.display()
    );
    let config = config_with(&database.url_with(&parameters), &[]);
    let runtime = runtime();
    runtime.block_on(migrate(&config.postgres)).unwrap();
    let (session, _end) = runtime.block_on(Session::open(&config, SessionId(1))).unwrap();
    let shown = "select count(*) from pg_stat_ssl where client_dn = '/CN=leaf'";
    wait::until("the migration's connection is gone", PATIENCE, || database.count(shown) == 3);
    session.close();
}
