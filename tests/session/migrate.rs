//! Our own tables: made once, and shared by old and new binaries.

use futures_util::future::join_all;

use pgsluice::store::migrate::{MigrateError, known_version, migrate, verify};

use crate::place::{Place, config_with, runtime};
use pgsluice_testkit::postgres::Postgres;

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
