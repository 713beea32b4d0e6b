//! Groups of several parts: one transaction for all of them, a decision for each.

use std::time::Duration;

use pgsluice_core::event::{AggregateKey, Event};
use pgsluice_core::group::{Group, GroupReply, Part, Source};
use pgsluice_core::record::StreamId;
use pgsluice_core::verdict::Verdict;
use pgsluice_testkit::wait;

use crate::fixture::{
    DOCUMENT, Fixture, document, done, failed_code, group_of, grouped, part, poison,
};

fn of(id: &str, mut events: Vec<Event>) -> Part {
    for event in &mut events {
        let key = AggregateKey { aggregate_type: "Customer".into(), id: id.into() };
        event.envelope.aggregate = Some(key);
    }
    part(events)
}

/// `id version offset parked` of every ledger row.
fn rows(fixture: &Fixture) -> Vec<String> {
    fixture.lines(
        "select aggregate_id, version, \"offset\", parked_reason from pgsluice.aggregate_t \
         order by aggregate_id",
    )
}

fn two() -> Group {
    let b = of("b", vec![document(1, Some(1)), document(4, Some(2))]);
    grouped(1, vec![b, of("a", vec![document(2, Some(7))])])
}

/// Proves INV-2.
#[test]
fn all_parts_take_effect_in_one_transaction() {
    let fixture = Fixture::new("parts_apply", vec![DOCUMENT]);
    assert_eq!(fixture.slow(two()), done(&[Verdict::Applied; 3]));
    assert_eq!(rows(&fixture), ["a|7|2|-", "b|2|4|-"]);
    let transactions = "select count(distinct updated_at) from pgsluice.aggregate_t";
    assert_eq!(fixture.line(transactions), "1");
    assert_eq!(fixture.notes(1), ["1|APPLIED|-", "2|APPLIED|-", "4|APPLIED|-"]);
}

/// Proves INV-2.
#[test]
fn a_part_that_fails_takes_the_others_with_it() {
    let fixture = Fixture::new("parts_fail", vec![DOCUMENT]);
    fixture.database.execute(
        "create function refuse() returns trigger language plpgsql as
         $$ begin raise exception using errcode = 'P0001'; end $$;
         create trigger refuse before insert on pgsluice.aggregate_t
         for each row when (new.aggregate_id = 'a') execute function refuse()",
    );
    assert_eq!(failed_code(&fixture.slow(two())), "P0001");
    assert_eq!((rows(&fixture).len(), fixture.notes(1).len()), (0, 0));
}

#[test]
fn each_part_is_decided_on_its_own_row_and_verdicts_come_part_after_part() {
    let fixture = Fixture::new("parts_rows", vec![DOCUMENT]);
    fixture.fast(vec![group_of("a", 1, vec![document(2, Some(7))])]);
    fixture.fast(vec![group_of("b", 2, vec![document(9, Some(2))])]);
    // a was settled by its own position; of b the first event is older than what another stream told
    let verdicts = [Verdict::Stale, Verdict::Applied, Verdict::Duplicate];
    let b = of("b", vec![document(1, Some(1)), document(4, Some(3))]);
    let group = grouped(1, vec![b, of("a", vec![document(2, Some(7))])]);
    assert_eq!(fixture.slow(group), done(&verdicts));
    assert_eq!(rows(&fixture), ["a|7|2|-", "b|3|4|-"]);
    assert_eq!(fixture.line("select sum(events) from pgsluice.stale_t"), "1");
}

/// Proves INV-8.
#[test]
fn poison_in_one_part_parks_its_own_aggregate() {
    let fixture = Fixture::new("parts_poison", vec![DOCUMENT]);
    let b = of("b", vec![poison(1, Some(1)), document(4, Some(2))]);
    let a = of("a", vec![document(2, Some(7))]);
    let c = of("c", vec![poison(3, Some(1))]);
    let verdicts =
        [Verdict::DeadLettered, Verdict::Parked, Verdict::Applied, Verdict::DeadLettered];
    assert_eq!(fixture.slow(grouped(1, vec![b, a, c])), done(&verdicts));
    assert_eq!(rows(&fixture), ["a|7|2|-", "b|-|4|field_invalid", "c|-|3|field_invalid"]);
    let letters = ["1|poison|field_invalid", "3|poison|field_invalid", "4|parked|aggregate_parked"];
    assert_eq!(fixture.letters(1), letters);
    let notes = [
        "1|DEAD_LETTERED|field_invalid",
        "2|APPLIED|-",
        "3|DEAD_LETTERED|field_invalid",
        "4|PARKED|aggregate_parked",
    ];
    assert_eq!(fixture.notes(1), notes);
}

/// Proves INV-10.
#[test]
fn a_group_that_nobody_owns_writes_no_letters() {
    let fixture = Fixture::new("parts_sampled", vec![DOCUMENT]);
    let mut group = grouped(1, vec![of("a", vec![poison(1, Some(1))])]);
    let partition = group.partition().clone();
    group.source = Source::Sampled { partition, stream: StreamId(1) };
    assert_eq!(fixture.slow(group), GroupReply::NotOwner);
    assert_eq!((fixture.letters(1).len(), rows(&fixture).len()), (0, 0));
}

#[test]
fn a_look_settles_a_group_when_every_part_is_settled() {
    let fixture = Fixture::new("parts_look", vec![DOCUMENT]);
    fixture.slow(two());
    let more = || of("c", vec![document(3, Some(1))]);
    let alone = grouped(1, vec![more()]);
    let mut partly = two();
    partly.parts.rest.push(more());
    let looked = fixture.look(vec![two(), partly, alone, two()]);
    let settled = done(&[Verdict::Duplicate; 3]);
    let unsettled = GroupReply::Unsettled;
    assert_eq!(looked, [settled.clone(), unsettled.clone(), unsettled, settled]);
}

#[test]
fn the_fast_lane_leaves_several_parts_to_the_slow_one() {
    let fixture = Fixture::new("parts_fast", vec![DOCUMENT]);
    assert_eq!(fixture.fast(vec![two()]), [GroupReply::Unsettled]);
    assert_eq!(rows(&fixture), [""; 0]);
}

#[test]
fn rows_are_locked_in_the_order_of_aggregates_whatever_the_order_of_parts() {
    let fixture = Fixture::new("parts_locks", vec![DOCUMENT]);
    fixture.slow(two());
    // GIVEN somebody who has the row of a
    let database = fixture.database.clone();
    let mut holder = database.connect();
    let lock = |id| {
        format!("select 1 from pgsluice.aggregate_t where aggregate_id = '{id}' for update nowait")
    };
    holder.batch_execute(&format!("begin; {}", lock("a"))).unwrap();
    // WHEN a group that begins with b waits for a, THEN it does not hold b meanwhile
    let other = std::thread::spawn(move || {
        wait::until("the slow lane waits", Duration::from_secs(10), || {
            database.count(
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' \
                 and datname = current_database()",
            ) == 1
        });
        let free = database.connect().batch_execute(&lock("b")).is_ok();
        holder.batch_execute("rollback").unwrap();
        free
    });
    let b = of("b", vec![document(5, Some(3))]);
    let reply = fixture.slow(grouped(1, vec![b, of("a", vec![document(6, Some(8))])]));
    assert!(other.join().unwrap(), "b was locked before a");
    assert_eq!(reply, done(&[Verdict::Applied; 2]));
}
