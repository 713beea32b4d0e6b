//! An aggregate without a row cannot be locked: somebody else may create the row between the slow
//! lane's look and its write. The write is a compare-and-set, so the group is judged again.

use std::time::Duration;

use pgsluice_core::group::{Group, GroupReply};
use pgsluice_core::verdict::Verdict;

use crate::fixture::{DOCUMENT, Fixture, document, done, failed_code, group, poison};
use pgsluice_testkit::wait;

/// Gives a group to the slow lane; while its transaction is about to insert the ledger row, another
/// session inserts it with version 9, as read from stream 2.
fn overtaken(fixture: &Fixture, group: Group) -> GroupReply {
    fixture.database.execute(
        "create function pause() returns trigger language plpgsql as
         $$ begin perform pg_advisory_xact_lock(1); return new; end $$;
         create trigger pause before insert on pgsluice.aggregate_t
         for each row execute function pause()",
    );
    let database = fixture.database.clone();
    let mut other = database.connect();
    other.batch_execute("select pg_advisory_lock(1)").expect("lock");
    let overtaker = std::thread::spawn(move || {
        wait::until("the slow lane waits", Duration::from_secs(10), || {
            database.count(
                "select count(*) from pg_locks where locktype = 'advisory' and not granted \
                 and database = (select oid from pg_database where datname = current_database())",
            ) == 1
        });
        other
            .batch_execute(
                "set session_replication_role = replica;
                 insert into pgsluice.aggregate_t
                     (sink, aggregate_type, aggregate_id, version, event_id, stream, \"offset\")
                 select sink, 'Customer', 'c-1', 9, 'e9', 2, 9 from pgsluice.sink_t;
                 select pg_advisory_unlock(1)",
            )
            .expect("overtake");
    });
    let reply = fixture.slow(group);
    overtaker.join().expect("overtaker");
    reply
}

/// Proves INV-13.
#[test]
fn a_row_that_appears_after_it_was_judged_absent_is_judged_again() {
    let fixture = Fixture::new("race_apply", vec![DOCUMENT]);
    let reply = overtaken(&fixture, group(1, vec![document(5, Some(3))]));
    assert_eq!(failed_code(&reply), "40001");
    assert_eq!(fixture.ledger(), "9|e9|2|9|0|f|-|-");
    assert_eq!(fixture.notes(1), [""; 0]);
    assert_eq!(fixture.slow(group(1, vec![document(5, Some(3))])), done(&[Verdict::Stale]));
}

/// Proves INV-13.
#[test]
fn a_row_that_appears_is_not_parked_and_no_letter_is_written() {
    let fixture = Fixture::new("race_park", vec![DOCUMENT]);
    let reply = overtaken(&fixture, group(1, vec![poison(5, Some(3))]));
    assert_eq!(failed_code(&reply), "40001");
    assert_eq!(fixture.ledger(), "9|e9|2|9|0|f|-|-");
    assert_eq!(fixture.letters(1), [""; 0]);
    assert_eq!(fixture.notes(1), [""; 0]);
    let again = fixture.slow(group(1, vec![poison(5, Some(3))]));
    assert_eq!(again, done(&[Verdict::DeadLettered]));
    assert_eq!(fixture.ledger(), "9|e9|1|5|0|f|field_invalid|-");
}
