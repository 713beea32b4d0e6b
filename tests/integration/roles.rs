//! A role that owns nothing, with the grants that `pgsluice migrate --grants` prints. Nearly every
//! test of this suite runs under such a role; this one looks at the role itself.

use serde_json::json;

use pgsluice_testkit::case::{CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, customer_event, renamed};
use pgsluice_testkit::daemon::pgsluice;

const DELETE_ROUTE: &str = "[[route]]\naggregate_type = \"Order\"\n[route.delete]\n\
     table = \"public.order\"\nkey = { id = \"aggregate_id\" }\n";

#[test]
fn the_printed_grants_are_enough_to_run() {
    let case = Case::new("least_privilege", 1);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute("alter table customer add constraint no_bob check (note <> 'bob')");
    case.database.execute("create table public.order (id text primary key)");
    case.expects(&["dead_letters"]);
    let places = case.producer().send_all([
        renamed("a", 1),
        renamed("a", 2),
        // Poison, and what follows is parked.
        customer_event("b", 1, "b1", &json!({"newName": "b", "note": "bob"})),
        renamed("b", 2),
    ]);

    let routes = format!("{CUSTOMER_ROUTE}{DELETE_ROUTE}");
    // A sample needs no more than a run.
    let arguments = ["check", "--sample", "9", "--output", "json"];
    let (code, output, errors) = pgsluice(&arguments, Some(&case.config(&routes)), &[]);
    assert_eq!(code, Some(0), "{output}{errors}");
    for verdict in ["APPLIED", "DEAD_LETTERED", "PARKED"] {
        assert!(output.contains(verdict), "{verdict} in {output}");
    }
    // `auto` finds nothing to do, and `verify` has nothing to say: neither needs to own anything.
    for migrate in ["auto", "verify"] {
        let daemon = case.daemon_with(&routes, &[("PGSLUICE__POSTGRES__MIGRATE", migrate)]);
        case.until_finished(&daemon);
        daemon.until_ready();
        daemon.stop();
    }

    let expected = ["APPLIED", "APPLIED", "DEAD_LETTERED", "PARKED"];
    case.assert_outcomes(places.iter().copied().zip(expected));
    assert_eq!(case.database.count("select count(*) from customer"), 1);
    let role = &case.role;
    let owned = format!("select count(*) from pg_class where relowner = '{role}'::regrole");
    assert_eq!(case.database.count(&owned), 0);
    let powers = format!(
        "select concat_ws(' ', rolsuper, rolcreatedb, rolcreaterole, rolbypassrls, \
           has_database_privilege(oid, current_database(), 'create'), \
           has_schema_privilege(oid, 'pgsluice', 'create'), \
           has_table_privilege(oid, 'pgsluice.aggregate_t', 'delete, truncate')) \
         from pg_roles where rolname = '{role}'"
    );
    assert_eq!(case.database.text(&powers).as_deref(), Some("f f f f f f f"));
}
