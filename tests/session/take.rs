//! Ownership of partitions, and where reading starts.

use pgsluice::lanes::barrier::advance;
use pgsluice::lanes::take::{TakeRequest, take};
use pgsluice::sql::name::Schema;
use pgsluice::store::brake::standing;
use pgsluice::store::stream::{NewPosition, reposition};
use pgsluice_core::input::{Claim, TakeReply};
use pgsluice_core::position::mirror_tag;
use pgsluice_core::position::{Committed, KafkaPosition};
use pgsluice_core::record::{Generation, NextOffset};

use crate::place::{Place, partition, progress};

/// Proves INV-10.
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

    let kafka = KafkaPosition { committed: None, low: 0, high: 100, start: Some(7) };
    let requests = [0, 1].map(|number| TakeRequest {
        partition: partition(number),
        generation: Generation(2),
        kafka: kafka.clone(),
    });
    let taken = place
        .runtime
        .block_on(take(&session, place.sink(&session), "this test", requests.to_vec()))
        .unwrap();
    assert_eq!(taken[0], (partition(0), Generation(2), TakeReply::Busy));
    let TakeReply::Claimed(free) = &taken[1].2 else { panic!("{:?}", taken[1]) };
    assert_eq!(free.next, NextOffset(7));

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
fn stale_events_that_are_read_again_are_not_counted_twice() {
    let place = Place::new("stale_again");
    let (session, _end) = place.open();
    let claim = place.claim(&session, 0);
    place.runtime.block_on(advance(&session, &[progress(&claim, 50)])).unwrap();
    // GIVEN counts before, around and beyond the position
    place.database.execute(&format!(
        "insert into pgsluice.stale_t
         select {}, 'route[0]', date_trunc('minute', now()) - make_interval(mins => n), 1, a, b
         from (values (3, 10, 49), (2, 40, 60), (1, 50, 90)) as c(n, a, b)",
        claim.stream.0
    ));
    let mut holder = place.database.connect();
    let counts = "select string_agg(first_offset::text, ' ' order by first_offset) \
                  from pgsluice.stale_t";
    // WHEN somebody counts at this moment, taking does not wait for them
    let mut counting = holder.transaction().unwrap();
    counting.execute("select 1 from pgsluice.stale_t for update", &[]).unwrap();
    place.claim(&session, 0);
    counting.rollback().unwrap();
    assert_eq!(place.database.text(counts).as_deref(), Some("10 40 50"));
    place.claim(&session, 0);
    assert_eq!(place.database.text(counts).as_deref(), Some("10 40"));
}

#[test]
fn a_brake_that_progress_lifted_does_not_hold_again_where_an_operator_went_back() {
    let place = Place::new("brake_again");
    let (session, _end) = place.open();
    let claim = place.claim(&session, 0);
    place.runtime.block_on(advance(&session, &[progress(&claim, 50)])).unwrap();
    place.database.execute(&format!(
        "insert into pgsluice.brake_t (stream, kind, \"offset\", counted)
         values ({stream}, 'stale', 30, 9);
         insert into pgsluice.stale_t
         values ({stream}, 'route[0]', now(), 5, 10, 19), ({stream}, 'route[1]', now(), 5, 20, 40)",
        stream = claim.stream.0
    ));
    let group = place.config.kafka.group.clone();
    let schema = Schema::new("pgsluice");
    let holding = || {
        let lead = place.runtime.block_on(session.slow()).unwrap();
        place.runtime.block_on(standing(&lead, &schema, &group)).unwrap().unwrap().len()
    };
    assert_eq!(holding(), 0);
    let moved = Committed { next: 20, metadata: String::new() };
    assert!(matches!(place.take(&session, 0, Some(moved)), TakeReply::Claimed(_)));
    assert_eq!(holding(), 0);
    let counts = "select string_agg(route, ' ') from pgsluice.stale_t";
    assert_eq!(place.database.text(counts).as_deref(), Some("route[0]"), "the others come again");
}

#[test]
fn the_newest_log_of_a_partition_is_taken_and_an_older_one_left_alone() {
    let place = Place::new("newest_log");
    let (session, _end) = place.open();
    let old = place.claim(&session, 0);
    place.database.execute(
        "insert into pgsluice.stream_t (sink, topic, partition, log_epoch, next_offset)
         select sink, topic, partition, 1, 3 from pgsluice.stream_t",
    );
    let new = place.claim(&session, 0);
    assert_ne!(new.stream, old.stream);
    assert_eq!(new.next, NextOffset(3));
    let epochs =
        "select string_agg(owner_epoch::text, ' ' order by log_epoch) from pgsluice.stream_t";
    assert_eq!(place.database.text(epochs).as_deref(), Some("1 1"));
}

/// Proves INV-10.
#[test]
fn who_lost_a_partition_moves_its_position_no_more_inv_10() {
    let place = Place::new("late_move");
    let ((first, _), (second, _)) = (place.open(), place.open());
    let old = place.claim(&first, 0);
    let new = place.claim(&second, 0);
    let position = |claim: &Claim, next| NewPosition {
        stream: claim.stream,
        epoch: claim.epoch,
        next: NextOffset(next),
    };
    let late = place.runtime.block_on(reposition(&first, &[position(&old, 70)])).unwrap();
    assert_eq!(late, []);
    assert_eq!(place.next_offset().as_deref(), Some("0"));
    let moved = place.runtime.block_on(reposition(&second, &[position(&new, 7)])).unwrap();
    assert_eq!(moved, [new.stream]);
    assert_eq!(place.next_offset().as_deref(), Some("7"));
}
