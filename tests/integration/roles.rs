//! A role that owns nothing, with the grants that `pgsluice migrate --grants` prints.

use serde_json::json;

use crate::case::{CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, customer_event, renamed};
use crate::support::daemon::{Daemon, pgsluice};

const DELETE_ROUTE: &str = "[[route]]\naggregate_type = \"Order\"\n[route.delete]\n\
     table = \"public.order\"\nkey = { id = \"aggregate_id\" }\n";

#[test]
fn the_printed_grants_are_enough_to_run() {
    let case = Case::new("least_privilege", 1);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute("alter table customer add constraint no_bob check (note <> 'bob')");
    case.database.execute("create table public.order (id text primary key)");
    let role = format!("runner_{}", case.database.name);
    case.database.execute(&format!("create role {role} login"));
    let config = case.config(&format!("{CUSTOMER_ROUTE}{DELETE_ROUTE}"));
    let (code, _, errors) = pgsluice(&["migrate"], Some(&config), &[]);
    assert_eq!(code, Some(0), "{errors}");
    let (code, grants, errors) = pgsluice(&["migrate", "--grants", &role], Some(&config), &[]);
    assert_eq!(code, Some(0), "{errors}");
    case.database.execute(&grants);
    let places = case.producer().send_all([
        renamed("a", 1),
        renamed("a", 2),
        // Poison, and what follows is parked.
        customer_event("b", 1, "b1", &json!({"newName": "b", "note": "bob"})),
        renamed("b", 2),
    ]);

    let url = case.database.url().replace("postgres@", &format!("{role}@"));
    // `auto` finds nothing to do, and `verify` has nothing to say: neither needs to own anything.
    for migrate in ["auto", "verify"] {
        let variables =
            [("PGSLUICE__POSTGRES__URL", url.as_str()), ("PGSLUICE__POSTGRES__MIGRATE", migrate)];
        let daemon = Daemon::start_with(Some(&config), &variables);
        case.until_finished(&daemon);
        daemon.until_ready();
        daemon.stop();
    }

    let expected = ["APPLIED", "APPLIED", "DEAD_LETTERED", "PARKED"];
    case.assert_outcomes(places.iter().copied().zip(expected));
    assert_eq!(case.database.count("select count(*) from customer"), 1);
    let owned = format!("select count(*) from pg_class where relowner = '{role}'::regrole");
    assert_eq!(case.database.count(&owned), 0);
}
