//! What keeps too much from being dead-lettered, dropped as stale, or parked; and giving up.

use std::time::Duration;

use pgsluice::config::BrakeConfig;
use pgsluice::route::kind::Skip;
use pgsluice::route::{Column, CompiledAction, CompiledRoute, Target};
use pgsluice::sql::column_type::ColumnType;
use pgsluice_core::event::{Content, RouteId};
use pgsluice_core::group::{Group, GroupReply};
use pgsluice_core::record::OwnerEpoch;
use pgsluice_core::verdict::{Reason, Verdict};

use crate::fixture::{
    DOCUMENT, Fixture, document, done, failed_with, group, group_of, owned_under, poison, upsert,
    upserting,
};

const DEAD_LETTERED: [Verdict; 1] = [Verdict::DeadLettered];

const TOLD: &str = "more than 2 aggregates were dead-lettered within 60 s, or more than a share of \
                    1 of all records (dead_letter.flood); fix the cause, or run `pgsluice resume \
                    --accept-dead-letters` if they are as they should be";

/// At most two aggregates a minute.
fn fixture(name: &str) -> Fixture {
    let mut fixture = Fixture::new(name, vec![DOCUMENT]);
    fixture.context.dead_letter.flood = Some(limit(2));
    fixture.context.dead_letter.stale_flood = Some(limit(2));
    fixture
}

fn limit(limit: u32) -> BrakeConfig {
    BrakeConfig { limit, share: 1.0, window: Duration::from_secs(60) }
}

/// `item(id, name)`.
fn item_route() -> CompiledAction {
    let column = |name: &str, ty| Column::new(name, ty);
    upserting(Target {
        schema: "public".into(),
        table: "item".into(),
        key: vec![column("id", ColumnType::Int8)],
        columns: vec![column("name", ColumnType::Text { max_chars: None })],
    })
}

/// A group of an aggregate of its own that cannot be applied.
fn bad(offset: i64) -> Group {
    group_of(&format!("bad-{offset}"), 1, vec![poison(offset, Some(1))])
}

#[track_caller]
fn halted(reply: &GroupReply, expected: Reason, offset: i64) -> String {
    match reply {
        GroupReply::Halted { reason, fault, at } => {
            assert_eq!((*reason, at.0), (expected, offset));
            fault.to_string()
        }
        other => panic!("a halt expected, not {other:?}"),
    }
}

/// Two letters, and a third one that trips the brake.
fn tripped(name: &str) -> Fixture {
    let fixture = fixture(name);
    assert_eq!(fixture.slow(bad(1)), done(&DEAD_LETTERED));
    assert_eq!(fixture.slow(bad(2)), done(&DEAD_LETTERED));
    let why = halted(&fixture.slow(bad(3)), Reason::DeadLetterFlood, 3);
    assert_eq!(why, TOLD);
    assert_eq!(fixture.letters(1).len(), 2);
    assert_eq!(fixture.notes(1).len(), 2);
    fixture
}

#[test]
fn one_aggregate_more_than_allowed_trips_the_brake_and_nothing_of_it_is_written() {
    let fixture = tripped("brake_trips");
    assert_eq!(
        fixture.line("select kind, \"offset\", route, aggregate_id, counted from pgsluice.brake_t"),
        "dead_letters|3||bad-3|3"
    );
    assert_eq!(
        fixture.line("select sink is not null, topic, partition from pgsluice.brake"),
        "t|topic|0"
    );
}

#[test]
fn a_brake_that_tripped_holds_beyond_its_window_until_its_record_took_effect() {
    let fixture = tripped("brake_holds");
    fixture
        .database
        .execute("update pgsluice.dead_letter_t set failed_at = now() - interval '1 hour'");
    let why = halted(&fixture.slow(bad(3)), Reason::DeadLetterFlood, 3);
    assert_eq!(why, TOLD);
    halted(&fixture.slow(bad(4)), Reason::DeadLetterFlood, 4);
    // Another stream has not tripped, and the letters are too old to count.
    let elsewhere = group_of("elsewhere", 2, vec![poison(1, Some(1))]);
    assert_eq!(fixture.slow(elsewhere), done(&DEAD_LETTERED));
    // WHEN the record that tripped it can be applied, THEN others may be dead-lettered again.
    let mended = group_of("bad-3", 1, vec![document(3, Some(1))]);
    assert_eq!(fixture.fast(vec![mended]), [done(&[Verdict::Applied])]);
    assert_eq!(fixture.slow(bad(4)), done(&DEAD_LETTERED));
    // Nor does it hold again when a later event of that aggregate is one of them.
    let later = group_of("bad-3", 1, vec![poison(5, Some(2))]);
    fixture
        .database
        .execute("update pgsluice.dead_letter_t set failed_at = now() - interval '1 hour'");
    assert_eq!(fixture.slow(later), done(&DEAD_LETTERED));
    assert_eq!(fixture.slow(bad(6)), done(&DEAD_LETTERED));
}

#[test]
fn a_brake_is_lifted_by_progress_beyond_its_record() {
    let fixture = tripped("brake_passed");
    fixture
        .database
        .execute("update pgsluice.dead_letter_t set failed_at = now() - interval '1 hour'");
    fixture.database.execute("update pgsluice.stream_t set next_offset = 3 where partition = 0");
    halted(&fixture.slow(bad(4)), Reason::DeadLetterFlood, 4);
    fixture.database.execute("update pgsluice.stream_t set next_offset = 4 where partition = 0");
    assert_eq!(fixture.slow(bad(4)), done(&DEAD_LETTERED));
}

#[test]
fn an_operator_accepts_dead_letters_of_all_routes_or_of_one_and_for_a_while() {
    let fixture = tripped("brake_accepted");
    let accept = |route: &str, until: &str| {
        fixture.database.execute(&format!(
            "delete from pgsluice.acceptance_t; insert into pgsluice.acceptance_t \
             (sink, kind, route, accepted_until) values \
             ({}, 'dead_letters', '{route}', now() + interval '{until}')",
            fixture.context.sink.0
        ));
    };
    accept("views-0", "1 hour");
    halted(&fixture.slow(bad(3)), Reason::DeadLetterFlood, 3);
    accept("", "-1 second");
    halted(&fixture.slow(bad(3)), Reason::DeadLetterFlood, 3);
    accept("", "1 hour");
    for offset in 3..10 {
        assert_eq!(fixture.slow(bad(offset)), done(&DEAD_LETTERED));
    }
    // WHEN that is over, THEN what was accepted is not held against what comes now
    accept("", "0 seconds");
    assert_eq!(fixture.slow(bad(10)), done(&DEAD_LETTERED));
    assert_eq!(fixture.slow(bad(11)), done(&DEAD_LETTERED));
    halted(&fixture.slow(bad(12)), Reason::DeadLetterFlood, 12);
}

/// Writes a letter or a count of somebody else, by what differs from the one that is asked for.
fn elsewhere(fixture: &Fixture, sink: &str, route: &str, disposition: &str, offset: i64) {
    fixture.database.execute(&format!(
        "insert into pgsluice.stream_t (sink, topic, partition)
         select {sink}, 'elsewhere', 0 where {sink} = 99
         on conflict do nothing;
         insert into pgsluice.dead_letter_t
             (stream, sink, \"offset\", timestamp_type, headers, disposition, reason, route,
              aggregate_type, aggregate_id)
         select coalesce(max(stream), 2), {sink}, {offset}, 'CreateTime', '[]', '{disposition}',
           'x', '{route}', 't', {offset}::text
         from pgsluice.stream_t where sink = 99;
         insert into pgsluice.stale_t
         select coalesce(max(stream), 2), '{route}', now(), 1000, {offset}, {offset}
         from pgsluice.stream_t where sink = 99
         on conflict do nothing",
    ));
}

#[test]
fn only_outcomes_of_the_sink_and_the_route_are_held_against_an_event() {
    let mut fixture = fixture("brake_scope");
    fixture.context.dead_letter.flood = Some(BrakeConfig { share: 0.01, ..limit(2) });
    let sink = fixture.context.sink.0.to_string();
    // GIVEN letters of another route, and parked ones, in a log of their own
    for offset in (1..1_000).step_by(100) {
        elsewhere(&fixture, &sink, "views-7", "poison", offset);
        elsewhere(&fixture, &sink, "views-0", "parked", offset + 1);
    }
    // and of another sink
    for offset in (2_001..3_000).step_by(100) {
        elsewhere(&fixture, "99", "views-0", "poison", offset);
    }
    fixture.database.execute("delete from pgsluice.stale_t where stream = 2 and route = 'views-0'");
    let mut event = poison(1, Some(1));
    if let Content::Poison(poison) = &mut event.content {
        poison.route = Some(RouteId(0));
    }
    assert_eq!(fixture.slow(group_of("own", 1, vec![event])), done(&DEAD_LETTERED));
    let newest = group(2, vec![document(5_000, Some(100))]);
    assert_eq!(fixture.fast(vec![newest]), [done(&[Verdict::Applied])]);
    let stale = group(1, vec![document(2, Some(2))]);
    assert_eq!(fixture.slow(stale), done(&[Verdict::Stale]));
}

/// A group of an aggregate of its own that cannot be applied, meant for a route.
fn bad_of(route: u16, stream: i32, offset: i64) -> Group {
    let mut event = poison(offset, Some(1));
    if let Content::Poison(poison) = &mut event.content {
        poison.route = Some(RouteId(route));
    }
    group_of(&format!("bad-{offset}"), stream, vec![event])
}

#[test]
fn a_route_inserted_above_does_not_change_what_letters_brakes_and_acceptances_mean() {
    let mut fixture = fixture("brake_inserted_route");
    let sink = fixture.context.sink.0;
    // GIVEN letters of a route, and those of a version that called it by its place
    assert_eq!(fixture.slow(bad_of(0, 1, 1)), done(&DEAD_LETTERED));
    assert_eq!(fixture.slow(bad_of(0, 1, 2)), done(&DEAD_LETTERED));
    for offset in 901..910 {
        elsewhere(&fixture, &sink.to_string(), "route[0]", "poison", offset);
        elsewhere(&fixture, &sink.to_string(), "route[1]", "poison", offset + 10);
    }
    // WHEN another route is written above it
    let inserted = CompiledRoute {
        id: RouteId(0),
        name: "inserted".into(),
        action: CompiledAction::Skip(Skip),
    };
    fixture.context.plan.routes.insert(0, inserted);
    fixture.context.plan.routes[1].id = RouteId(1);

    // THEN its letters count for it still, and not for the one that has its place now
    assert_eq!(fixture.slow(bad_of(0, 2, 11)), done(&DEAD_LETTERED));
    assert_eq!(fixture.slow(bad_of(0, 2, 12)), done(&DEAD_LETTERED));
    let why = halted(&fixture.slow(bad_of(1, 1, 3)), Reason::DeadLetterFlood, 3);
    assert_eq!(why, format!("route views-0: {TOLD}"));
    assert_eq!(fixture.line("select route, \"offset\" from pgsluice.brake"), "views-0|3");
    let accept = |route: &str| {
        fixture.database.execute(&format!(
            "insert into pgsluice.acceptance_t (sink, kind, route, accepted_until) \
             values ({sink}, 'dead_letters', '{route}', now() + interval '1 hour')",
        ));
    };
    for other in ["inserted", "route[0]", "route[1]"] {
        accept(other);
        halted(&fixture.slow(bad_of(1, 1, 3)), Reason::DeadLetterFlood, 3);
    }
    accept("views-0");
    assert_eq!(fixture.slow(bad_of(1, 1, 3)), done(&DEAD_LETTERED));
    assert_eq!(
        fixture.lines(
            "select route, count(*) from pgsluice.dead_letter group by route order by route"
        ),
        ["inserted|2", "route[0]|9", "route[1]|9", "views-0|3"],
        "rows of an earlier version are shown as they are"
    );
}

#[test]
fn to_accept_stale_events_is_not_to_accept_dead_letters() {
    let fixture = tripped("brake_accepted_other");
    fixture.database.execute(&format!(
        "insert into pgsluice.acceptance_t (sink, kind, accepted_until) values
           ({sink}, 'stale', now() + interval '1 hour'),
           (99, 'dead_letters', now() + interval '1 hour')",
        sink = fixture.context.sink.0
    ));
    halted(&fixture.slow(bad(3)), Reason::DeadLetterFlood, 3);
}

#[test]
fn a_brake_trips_for_the_owner_only() {
    let fixture = fixture("brake_owner");
    assert_eq!(fixture.slow(bad(1)), done(&DEAD_LETTERED));
    assert_eq!(fixture.slow(bad(2)), done(&DEAD_LETTERED));
    let late = owned_under(bad(3), OwnerEpoch(6));
    assert_eq!(fixture.slow(late), GroupReply::NotOwner);
    assert_eq!(fixture.lines("select 1 from pgsluice.brake_t"), [""; 0]);
}

#[test]
fn records_behind_a_dead_letter_are_parked_while_the_brake_holds() {
    let fixture = tripped("brake_parks");
    let behind = group_of("bad-1", 1, vec![document(4, Some(2))]);
    assert_eq!(fixture.slow(behind), done(&[Verdict::Parked]));
}

#[test]
fn what_took_effect_before_the_brake_stays() {
    let mut fixture = Fixture::new("brake_prefix", vec![item_route()]);
    fixture.context.dead_letter.flood = Some(BrakeConfig { share: 0.0, ..limit(1) });
    fixture
        .database
        .execute("create table item (id bigint primary key, name text check (name <> ''))");
    let item = |offset, name: &str| {
        upsert(offset, &[Some(pgsluice_core::event::Value::Text(name.into()))])
    };
    let bad = group_of("bad", 1, vec![item(1, "")]);
    assert_eq!(fixture.slow(failed_with(bad, *b"23514")), done(&DEAD_LETTERED));

    let events = || vec![item(2, "good"), item(3, ""), item(4, "later")];
    let reply = fixture.slow(failed_with(group(1, events()), *b"23514"));
    let why = halted(&reply, Reason::DeadLetterFlood, 3);
    assert!(why.starts_with("route views-0: more than 1 aggregates"), "{why}");
    assert_eq!(fixture.line("select name from item"), "good");
    assert_eq!(fixture.letters(1).len(), 1);

    fixture.context.dead_letter.flood = None;
    let verdicts = [Verdict::Duplicate, Verdict::DeadLettered, Verdict::Parked];
    assert_eq!(fixture.slow(failed_with(group(1, events()), *b"23514")), done(&verdicts));
    assert_eq!(
        fixture.lines("select route from pgsluice.dead_letter_t order by \"offset\""),
        ["views-0", "views-0", "views-0"]
    );
}

#[test]
fn stale_events_trip_a_brake_of_their_own() {
    let fixture = fixture("brake_stale");
    let newest = group(2, vec![document(1, Some(100))]);
    assert_eq!(fixture.fast(vec![newest]), [done(&[Verdict::Applied])]);
    let stale = |offset| group(1, vec![document(offset, Some(offset))]);
    assert_eq!(fixture.slow(stale(1)), done(&[Verdict::Stale]));
    assert_eq!(fixture.slow(stale(2)), done(&[Verdict::Stale]));
    assert_eq!(
        fixture.line("select route, events, first_offset, last_offset from pgsluice.stale_t"),
        "views-0|2|1|2"
    );
    let why = halted(&fixture.slow(stale(3)), Reason::StaleFlood, 3);
    assert_eq!(
        why,
        "route views-0: more than 2 events were stale within 60 s, or more than a share of 1 of \
         all records (dead_letter.stale_flood); fix the cause, or run `pgsluice resume \
         --accept-stale` if they are as they should be"
    );
    assert_eq!(fixture.notes(1).len(), 2);
    assert_eq!(fixture.line("select kind, counted from pgsluice.brake_t"), "stale|3");
    // Dead letters have nothing to do with it.
    assert_eq!(fixture.slow(bad(4)), done(&DEAD_LETTERED));
}

#[test]
fn stale_events_that_an_operator_accepted_do_not_count_afterwards() {
    let fixture = fixture("brake_stale_accepted");
    let newest = group(2, vec![document(1, Some(100))]);
    assert_eq!(fixture.fast(vec![newest]), [done(&[Verdict::Applied])]);
    let stale = |offset| group(1, vec![document(offset, Some(offset))]);
    assert_eq!(fixture.slow(stale(1)), done(&[Verdict::Stale]));
    assert_eq!(fixture.slow(stale(2)), done(&[Verdict::Stale]));
    fixture.database.execute(&format!(
        "insert into pgsluice.acceptance_t (sink, kind, accepted_until) \
         values ({}, 'stale', now())",
        fixture.context.sink.0
    ));
    assert_eq!(fixture.slow(stale(3)), done(&[Verdict::Stale]));
}

#[test]
fn a_window_of_seconds_sees_the_minute_in_which_it_begins() {
    let mut fixture = fixture("brake_stale_seconds");
    fixture.context.dead_letter.stale_flood =
        Some(BrakeConfig { window: Duration::from_secs(1), ..limit(2) });
    let newest = group(2, vec![document(1, Some(100))]);
    assert_eq!(fixture.fast(vec![newest]), [done(&[Verdict::Applied])]);
    fixture.database.execute(
        "insert into pgsluice.stale_t values \
         (1, 'views-0', now() - interval '59 seconds', 2, 1, 2)",
    );
    let stale = group(1, vec![document(3, Some(3))]);
    halted(&fixture.slow(stale), Reason::StaleFlood, 3);
}

#[test]
fn stale_events_are_counted_where_nothing_is_noted() {
    let mut fixture = fixture("brake_stale_silent");
    fixture.context.notification.write = pgsluice::config::NotificationWrite::None;
    let newest = group(2, vec![document(1, Some(100))]);
    assert_eq!(fixture.fast(vec![newest]), [done(&[Verdict::Applied])]);
    let stale = group(1, vec![document(1, Some(1)), document(2, Some(2))]);
    assert_eq!(fixture.slow(stale), done(&[Verdict::Stale, Verdict::Stale]));
    assert_eq!(fixture.line("select events from pgsluice.stale_t"), "2");
}

#[test]
fn a_large_share_of_stale_events_trips_only_when_it_lasts() {
    let mut fixture = fixture("brake_stale_share");
    fixture.context.dead_letter.stale_flood =
        Some(BrakeConfig { limit: 1_000_000, share: 0.2, window: Duration::from_secs(600) });
    let newest = group(2, vec![document(1, Some(100_000))]);
    assert_eq!(fixture.fast(vec![newest]), [done(&[Verdict::Applied])]);
    let seen = |minutes_ago: i32, first: i64, last: i64, events: i64| {
        fixture.database.execute(&format!(
            "insert into pgsluice.stale_t values (1, 'views-0', \
             date_trunc('minute', now()) - interval '{minutes_ago} minutes', {events}, {first}, \
             {last})"
        ));
    };
    let stale = |offset| group(1, vec![document(offset, Some(offset))]);
    seen(1, 1, 500, 200);
    assert_eq!(fixture.slow(stale(501)), done(&[Verdict::Stale]), "a burst");
    seen(6, 1, 1, 1);
    halted(&fixture.slow(stale(502)), Reason::StaleFlood, 502);
}

#[test]
fn counts_of_stale_events_are_forgotten_after_a_day() {
    let fixture = fixture("brake_stale_old");
    fixture.database.execute(
        "insert into pgsluice.stale_t values \
           (1, 'views-0', now() - interval '25 hours', 7, 1, 9), \
           (1, 'renamed since', now() - interval '25 hours', 7, 1, 9)",
    );
    let newest = group(2, vec![document(1, Some(100))]);
    assert_eq!(fixture.fast(vec![newest]), [done(&[Verdict::Applied])]);
    let stale = group(1, vec![document(1, Some(1))]);
    assert_eq!(fixture.slow(stale), done(&[Verdict::Stale]));
    assert_eq!(fixture.lines("select events from pgsluice.stale_t"), ["1"]);
}

/// Proves INV-11.
#[test]
fn no_more_than_the_allowed_records_are_parked() {
    let mut fixture = fixture("parking_full");
    fixture.context.dead_letter.max_parked_events = 2;
    assert_eq!(fixture.slow(bad(1)), done(&DEAD_LETTERED));
    let behind = |offset| group_of("bad-1", 1, vec![document(offset, Some(offset))]);
    assert_eq!(fixture.slow(behind(2)), done(&[Verdict::Parked]));
    assert_eq!(fixture.slow(behind(3)), done(&[Verdict::Parked]));
    let why = halted(&fixture.slow(behind(4)), Reason::ParkingFull, 4);
    assert_eq!(
        why,
        "route views-0: 2 records are parked, the limit that dead_letter.max_parked_events sets"
    );
    assert_eq!(fixture.letters(1).len(), 3);
    // WHEN an operator resolves one of them, THEN there is room for another.
    fixture.database.execute(
        "update pgsluice.dead_letter_t set resolved_at = now(), resolution = 'discarded' \
         where \"offset\" = 2",
    );
    assert_eq!(fixture.slow(behind(4)), done(&[Verdict::Parked]));
    halted(&fixture.slow(behind(5)), Reason::ParkingFull, 5);
}

#[test]
fn an_aggregate_that_was_tried_for_too_long_is_parked_with_the_fault_that_kept_it() {
    let fixture = Fixture::new("given_up", vec![item_route()]);
    fixture.database.execute("create table item (id bigint primary key, name text)");
    fixture.database.execute("insert into item values (1, 'before')");
    let mut holder = fixture.database.connect();
    let mut held = holder.transaction().unwrap();
    held.execute("update item set name = 'held' where id = 1", &[]).unwrap();
    let item = |offset| upsert(offset, &[Some(pgsluice_core::event::Value::Null)]);
    let again = |exhausted| {
        let mut group = failed_with(group(1, vec![item(1), item(2)]), *b"55P03");
        group.failure.as_mut().unwrap().exhausted = exhausted;
        group
    };
    assert!(matches!(fixture.slow(again(false)), GroupReply::Failed(_)));
    assert_eq!(fixture.slow(again(true)), done(&[Verdict::Parked, Verdict::Parked]));
    assert_eq!(fixture.letters(1), ["1|parked|retry_exhausted", "2|parked|aggregate_parked"]);
    assert_eq!(fixture.line("select parked_reason from pgsluice.aggregate_t"), "retry_exhausted");
    assert_eq!(
        fixture.line("select sqlstate from pgsluice.dead_letter_t where \"offset\" = 1"),
        "55P03"
    );
    drop(held);
}

#[test]
fn a_group_larger_than_the_whole_limit_is_parked_while_there_is_room() {
    let mut fixture = fixture("parking_large_group");
    fixture.context.dead_letter.max_parked_events = 2;
    assert_eq!(fixture.slow(bad(1)), done(&DEAD_LETTERED));
    let behind = |offsets: std::ops::Range<i64>| {
        group_of("bad-1", 1, offsets.map(|n| document(n, Some(n))).collect())
    };
    assert_eq!(fixture.slow(behind(2..5)), done(&[Verdict::Parked; 3]));
    halted(&fixture.slow(behind(5..6)), Reason::ParkingFull, 5);
}
