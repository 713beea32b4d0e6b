//! Stale, duplicate, conflicting, repeated and unversioned events (INV-3, INV-4, INV-5).

use serde_json::json;

use pgsluice_testkit::case::{Case, ENVELOPE, customer_event, renamed};
use pgsluice_testkit::kafka::Outgoing;

/// Proves INV-3.
#[test]
fn an_older_version_is_stale_and_changes_nothing() {
    let case = Case::new("stale", 1);
    let places = case.producer().send_all([renamed("c", 1), renamed("c", 3), renamed("c", 2)]);

    let daemon = case.daemon(ENVELOPE);
    case.until_finished(&daemon);

    case.assert_outcomes([(places[0], "APPLIED"), (places[1], "APPLIED"), (places[2], "STALE")]);
    assert_eq!(case.version("c"), Some(3));
    assert_eq!(case.state("c").as_deref(), Some(r#"{"newName": "c 3"}"#));
}

#[test]
fn the_newest_event_sent_twice_is_a_duplicate() {
    let case = Case::new("sent_twice", 1);
    let places = case.producer().send_all([renamed("c", 1), renamed("c", 2), renamed("c", 2)]);

    let daemon = case.daemon(ENVELOPE);
    case.until_finished(&daemon);

    case.assert_outcomes([
        (places[0], "APPLIED"),
        (places[1], "APPLIED"),
        (places[2], "DUPLICATE"),
    ]);
    assert_eq!(case.reason(places[2]).as_deref(), Some("event_repeated"));
}

#[test]
fn another_event_of_the_same_version_is_poison_and_parks_what_follows() {
    let case = Case::new("conflict", 1);
    case.expects(&["dead_letters"]);
    let places = case.producer().send_all([
        renamed("c", 1),
        customer_event("c", 1, "somebody-else", &json!({"newName": "intruder"})),
        renamed("c", 2),
        renamed("other", 1),
    ]);

    let daemon = case.daemon(ENVELOPE);
    case.until_finished(&daemon);

    case.assert_outcomes([
        (places[0], "APPLIED"),
        (places[1], "DEAD_LETTERED"),
        (places[2], "PARKED"),
        (places[3], "APPLIED"),
    ]);
    assert_eq!(case.reason(places[1]).as_deref(), Some("version_conflict"));
    assert_eq!(case.state("c").as_deref(), Some(r#"{"newName": "c 1"}"#));
}

/// Proves INV-3 and INV-5.
#[test]
fn versions_of_many_aggregates_out_of_order_end_at_the_highest() {
    let case = Case::new("shuffled", 4);
    // Each aggregate's versions come as 2 1 4 3 6 5 …: the odd ones are stale.
    let records = (0..50i64).flat_map(|pair| {
        (0..20).flat_map(move |aggregate| {
            let id = format!("c{aggregate}");
            [renamed(&id, 2 * pair + 2), renamed(&id, 2 * pair + 1)]
        })
    });
    let places = case.producer().send_all(records);

    let daemon = case.daemon(ENVELOPE);
    case.until_finished(&daemon);

    let status = |n: usize| if n.is_multiple_of(2) { "APPLIED" } else { "STALE" };
    case.assert_outcomes(places.iter().enumerate().map(|(n, place)| (*place, status(n))));
    for aggregate in 0..20 {
        assert_eq!(case.version(&format!("c{aggregate}")), Some(100));
    }
}

#[test]
fn an_event_after_a_deletion_elsewhere_does_not_resurrect() {
    let case = Case::new("resurrection", 2);
    let producer = case.producer();
    let mut places = vec![producer.send(Outgoing::new("a", r#"{"n":1}"#).on(0))];
    let daemon = case.daemon("");
    case.until_finished(&daemon);
    places.push(producer.send(Outgoing::tombstone("a").on(0)));
    case.until_finished(&daemon);
    // The same aggregate from another partition: it has no place after the deletion.
    places.push(producer.send(Outgoing::new("a", r#"{"n":2}"#).on(1)));
    case.until_finished(&daemon);

    case.assert_outcomes([(places[0], "APPLIED"), (places[1], "APPLIED"), (places[2], "STALE")]);
    assert_eq!(case.state("a"), None);
}

/// Proves INV-4.
#[test]
fn unversioned_records_delivered_again_change_nothing() {
    let case = Case::new("unversioned_again", 2);
    let records =
        (0..200).map(|n| Outgoing::new(&format!("k{}", n % 17), format!("{{\"n\":{n}}}")));
    let places = case.producer().send_all(records);
    let daemon = case.daemon("");
    case.until_finished(&daemon);
    daemon.stop();
    let before = case.fingerprint();

    // WHEN everything is delivered again, as after a crash before the barrier
    rewind_progress(&case);
    let daemon = case.daemon("");
    case.until_finished(&daemon);

    assert_eq!(case.fingerprint(), before);
    case.assert_outcomes(places.iter().map(|place| (*place, "APPLIED")));
}

/// Takes progress back to the beginning, as if no barrier had ever come after the commits.
pub(crate) fn rewind_progress(case: &Case) {
    case.database.execute(
        "update pgsluice.stream_t set next_offset = 0, anchor_offset = null, \
         anchor_time = null, anchor_crc = null",
    );
}
