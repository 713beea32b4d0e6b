//! Numbers that leave the process through the admin port.

use pgsluice::postgres::Session;
use pgsluice::store::backlog::{MOST, Waiting, count};

use crate::place::Place;

fn counted(place: &Place, session: &Session, shown: Option<Waiting>) -> Option<Waiting> {
    place.runtime.block_on(count(session, &place.config.kafka.group, shown)).ok()
}

/// Writes so many parked aggregates, and letters of which every second one is published.
fn write(place: &Place, session: &Session, aggregates: i64, letters: i64) {
    let sink = place.sink(session).0;
    place.database.execute(&format!(
        r#"insert into pgsluice.aggregate_t
             (sink, aggregate_type, aggregate_id, stream, "offset", parked_at)
           select {sink}, 'Customer', n::text, 1, n, case when n > 0 then now() end
           from generate_series(0, {aggregates}) n;
           insert into pgsluice.dead_letter_t
             (sink, stream, "offset", timestamp_type, headers, disposition, reason, published_at)
           select {sink}, 1, n, 'CreateTime', '[]', 'poison', 'json_syntax',
                  case when n % 2 = 1 then now() end
           from generate_series(1, {letters}) n"#
    ));
}

#[test]
fn parked_aggregates_and_unpublished_letters_are_counted_for_the_sink_up_to_a_limit() {
    let place = Place::new("waiting");
    let (session, _end) = place.open();
    let none = Waiting { parked: 0, unpublished: 0 };
    assert_eq!(counted(&place, &session, None), Some(none));

    write(&place, &session, 3, 4);
    place.database.execute("insert into pgsluice.sink_t (name) values ('other')");
    place.database.execute(
        "insert into pgsluice.aggregate_t
           (sink, aggregate_type, aggregate_id, stream, \"offset\", parked_at)
         select sink, 'Customer', 'k', 2, 1, now() from pgsluice.sink_t where name = 'other'",
    );
    let some = Waiting { parked: 3, unpublished: 2 };
    assert_eq!(counted(&place, &session, Some(none)), Some(some));

    place.database.execute("delete from pgsluice.aggregate_t; delete from pgsluice.dead_letter_t");
    write(&place, &session, MOST + 5, 2);
    let many = Waiting { parked: MOST, unpublished: 1 };
    assert_eq!(counted(&place, &session, Some(some)), Some(many));
}

/// Proves INV-14.
#[test]
fn numbers_that_were_read_are_not_told_before_a_durable_write_inv_14() {
    let place = Place::on(
        pgsluice_testkit::postgres::Postgres::shared(),
        "waiting_proof",
        &[("PGSLUICE__POSTGRES__SLOW_LOCK_TIMEOUT", "100ms")],
    );
    let (session, _end) = place.open();
    write(&place, &session, 3, 4);
    let mut holder = place.database.connect();
    let mut transaction = holder.transaction().unwrap();
    transaction.execute("select from pgsluice.sink_t for update", &[]).unwrap();

    // The write that would prove them waits for the row, and is given up.
    assert_eq!(counted(&place, &session, None), None);
    let shown = Waiting { parked: 3, unpublished: 2 };
    assert_eq!(counted(&place, &session, Some(shown)), Some(shown), "shown before: no write");
    assert!(!session.is_closed(), "work goes on");

    transaction.rollback().unwrap();
    assert_eq!(counted(&place, &session, None), Some(shown));
}
