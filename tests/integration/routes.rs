//! Events into documents and into the user's own tables.

use serde_json::json;

use pgsluice_testkit::case::{
    CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, ENVELOPE, customer_event, renamed,
};
use pgsluice_testkit::kafka::Outgoing;

#[test]
fn envelope_events_are_merged_into_a_document() {
    let case = Case::new("documents", 1);
    let places = case.producer().send_all([
        customer_event("c1", 1, "e1", &json!({"name": "Jane", "address": "here"})),
        customer_event("c1", 2, "e2", &json!({"name": "Jane Doe"})),
    ]);

    let daemon = case.daemon(ENVELOPE);
    case.until_finished(&daemon);

    case.assert_outcomes(places.iter().map(|place| (*place, "APPLIED")));
    let expected = r#"{"name": "Jane Doe", "address": "here"}"#;
    assert_eq!(case.state("c1").as_deref(), Some(expected));
    assert_eq!(case.version("c1"), Some(2));
    let note = "select event_type, aggregate_type, event_id, aggregate_version \
                from pgsluice.notification_t where \"offset\" = 1";
    let row: Vec<_> = case.database.rows(note)[0].iter().flatten().cloned().collect();
    assert_eq!(row, ["CustomerNameChanged", "Customer", "e2", "2"]);
}

#[test]
fn events_become_rows_of_the_users_own_table() {
    let case = Case::new("own_table", 2);
    case.database.execute(
        "create table account (id text primary key, name text not null, note text, \
         balance numeric, opened timestamptz, reference uuid, active boolean default true, \
         version bigint)",
    );
    let route = "[decode]\nformat = \"envelope\"\n[[route]]\naggregate_type = \"Customer\"\n\
         [route.upsert]\ntable = \"public.account\"\nkey = { id = \"aggregate_id\" }\n\
         columns = { name = \"payload:/name\", note = \"payload:/note\", \
         balance = \"payload:/balance\", opened = \"payload:/opened\", \
         reference = \"payload:/reference\", version = \"version\" }\n";
    // Written by hand: serde_json's macro would put the numbers through a double.
    let first = r#"{"eventType":"CustomerRegistered","eventId":"e1","aggregateId":"a1",
        "aggregateType":"Customer","sequenceNumber":1,"timestamp":1772360130.123456789,
        "name":"Jane","note":"new","balance":-12345678901234567890.12345678901234567890,
        "opened":"2026-03-01T11:15:30.123456+01:00",
        "reference":"0B5F1F3E-8F5C-4D3B-9B0A-1C2D3E4F5A6B","eventType":"CustomerRegistered"}"#;

    let mut places = vec![case.producer().send(Outgoing::new("a1", first))];
    let daemon = case.daemon(route);
    case.until_finished(&daemon);
    // Lacks the NOT NULL column `name`, and sets `note` to NULL.
    let partly = json!({"note": null, "balance": 7});
    places.push(case.producer().send(customer_event("a1", 2, "e2", &partly)));
    case.until_finished(&daemon);

    case.assert_outcomes(places.iter().map(|place| (*place, "APPLIED")));
    let row = case.database.rows(
        "select name, note, balance::text, (opened at time zone 'UTC')::text, reference::text, \
         active::text, version::text from account",
    );
    let row: Vec<_> = row[0].iter().map(Option::as_deref).collect();
    assert_eq!(
        row,
        [
            Some("Jane"),
            None,
            Some("7"),
            Some("2026-03-01 10:15:30.123456"),
            Some("0b5f1f3e-8f5c-4d3b-9b0a-1c2d3e4f5a6b"),
            Some("true"),
            Some("2")
        ]
    );
}

#[test]
fn a_number_reaches_a_numeric_column_digit_for_digit() {
    let case = Case::new("numeric_digits", 1);
    case.database.execute("create table n (id text primary key, amount numeric)");
    let route = "[decode]\nformat = \"plain\"\n[[route]]\n[route.upsert]\n\
         table = \"public.n\"\nkey = { id = \"aggregate_id\" }\n\
         columns = { amount = \"payload:/amount\" }\n";
    let amount = "12345678901234567890.12345678901234567890";
    let place = case.producer().send(Outgoing::new("a", format!("{{\"amount\":{amount}}}")));

    let daemon = case.daemon(route);
    case.until_finished(&daemon);

    case.assert_outcomes([(place, "APPLIED")]);
    assert_eq!(case.database.text("select amount::text from n").as_deref(), Some(amount));
}

#[test]
fn a_value_that_does_not_fit_its_column_is_that_events_poison() {
    let case = Case::new("misfit", 1);
    case.expects(&["dead_letters"]);
    case.database.execute("create table n (id text primary key, small smallint, at timestamptz)");
    let route = "[[route]]\n[route.upsert]\ntable = \"public.n\"\n\
         key = { id = \"aggregate_id\" }\n\
         columns = { small = \"payload:/small\", at = \"payload:/at\" }\n";
    let places = case.producer().send_all([
        Outgoing::new("large", r#"{"small":40000}"#),
        Outgoing::new("word", r#"{"at":"now"}"#),
        Outgoing::new("good", r#"{"small":4}"#),
    ]);

    let daemon = case.daemon(route);
    case.until_finished(&daemon);

    case.assert_outcomes([
        (places[0], "DEAD_LETTERED"),
        (places[1], "DEAD_LETTERED"),
        (places[2], "APPLIED"),
    ]);
    assert_eq!(case.reason(places[0]).as_deref(), Some("column_value"));
    assert_eq!(case.database.count("select count(*) from n"), 1);
}

#[test]
fn the_first_matching_route_decides() {
    let case = Case::new("route_choice", 1);
    case.expects(&["dead_letters"]);
    case.database.execute(CUSTOMER_TABLE);
    let routes = format!(
        "[[route]]\nevent_type = \"Heartbeat\"\nskip = true\n\
         [[route]]\naggregate_type = \"Customer\"\nevent_type = \"CustomerDeleted\"\n\
         [route.delete]\ntable = \"public.customer\"\nkey = {{ id = \"aggregate_id\" }}\n\
         {CUSTOMER_ROUTE}"
    );
    let event = |kind: &str, aggregate: &str, version: i64| {
        let [aggregate_type, id] = aggregate.split('/').collect::<Vec<_>>()[..] else { panic!() };
        Outgoing::new(
            id,
            format!(
                "{{\"eventType\":\"{kind}\",\"eventId\":\"{kind}\",\"aggregateId\":\"{id}\",\
                 \"aggregateType\":\"{aggregate_type}\",\"sequenceNumber\":{version},\
                 \"timestamp\":\"2026-01-01T00:00:00Z\"}}"
            ),
        )
    };
    let places = case.producer().send_all([
        renamed("c1", 1),
        renamed("c2", 1),
        event("Heartbeat", "Machine/m", 1),
        event("Unheard", "Of/o", 1),
        event("CustomerDeleted", "Customer/c1", 2),
        event("Unheard", "Of/o", 2),
    ]);

    let daemon = case.daemon(&routes);
    case.until_finished(&daemon);

    case.assert_outcomes([
        (places[0], "APPLIED"),
        (places[1], "APPLIED"),
        (places[2], "SKIPPED"),
        (places[3], "DEAD_LETTERED"),
        (places[4], "APPLIED"),
        // Alone, too: what no route matches parks nothing.
        (places[5], "DEAD_LETTERED"),
    ]);
    assert_eq!(case.reason(places[3]).as_deref(), Some("unmatched"));
    let told =
        "select distinct aggregate_type from pgsluice.notification_t where reason = 'unmatched'";
    assert_eq!(case.database.text(told).as_deref(), Some("Of"), "what a route is missing for");
    // An unreleased letter of an aggregate holds back its release: these belong to none.
    let owned = "select count(*) from pgsluice.dead_letter_t where aggregate_id is not null";
    assert_eq!(case.database.count(owned), 0);
    let ledger = "select count(*) from pgsluice.aggregate_t where aggregate_type = 'Of'";
    assert_eq!(case.database.count(ledger), 0);
    assert_eq!(case.database.text("select string_agg(id, ' ') from customer").unwrap(), "c2");
}
