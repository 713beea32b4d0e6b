//! Every rule of `judge`, once on each lane.

use pgsluice_core::event::Content;
use pgsluice_core::group::{Group, GroupReply};
use pgsluice_core::verdict::{GapPolicy, Reason, Verdict};

use crate::fixture::{
    DOCUMENT, Fixture, Lane, delete, document, done, failed_before, group, group_of, merging,
    poison, skips,
};

const APPLIED: [Verdict; 1] = [Verdict::Applied];

/// What a case expects.
struct Expected {
    fast: GroupReply,
    slow: GroupReply,
    /// The ledger row afterwards.
    ledger: &'static str,
}

fn refused(slow: Verdict, ledger: &'static str) -> Expected {
    Expected { fast: GroupReply::Refused, slow: done(&[slow]), ledger }
}

fn applied(gap: i64, ledger: &'static str) -> Expected {
    let reply = GroupReply::Done { verdicts: APPLIED.to_vec(), gap };
    Expected { fast: reply.clone(), slow: reply, ledger }
}

/// Gives `before` and then `candidate` to both lanes, in a database of its own each.
#[track_caller]
fn case(
    gaps: GapPolicy,
    before: fn() -> Vec<Group>,
    candidate: fn() -> Group,
    expected: &Expected,
) {
    for lane in [Lane::Fast, Lane::Slow] {
        let fixture = Fixture::with_gaps("verdict", gaps, vec![DOCUMENT]);
        for group in before() {
            let reply = fixture.slow(group);
            assert!(matches!(reply, GroupReply::Done { .. }), "{reply:?}");
        }
        let wanted = if lane == Lane::Fast { &expected.fast } else { &expected.slow };
        assert_eq!(fixture.give(lane, candidate()), *wanted, "{lane:?}");
        if lane == Lane::Slow || *wanted != GroupReply::Refused {
            assert_eq!(fixture.ledger(), expected.ledger, "{lane:?}");
        } else {
            let untouched = fixture.ledger();
            assert_eq!(fixture.slow(candidate()), expected.slow);
            assert_eq!(fixture.ledger(), expected.ledger, "after {untouched}");
        }
    }
}

const APPLY: GapPolicy = GapPolicy::Apply;

#[test]
fn the_first_event_is_applied_and_has_no_gap() {
    let expected = applied(0, r#"9|e5|1|5|0|f|-|{"by": 5}"#);
    case(APPLY, Vec::new, || group(1, vec![document(5, Some(9))]), &expected);
    case(GapPolicy::Park, Vec::new, || group(1, vec![document(5, Some(9))]), &expected);
}

/// Proves INV-4.
#[test]
fn a_position_that_is_covered_is_a_duplicate_whatever_its_version() {
    let expected = refused(Verdict::Duplicate, r#"1|e5|1|5|0|f|-|{"by": 5}"#);
    let before = || vec![group(1, vec![document(5, Some(1))])];
    case(APPLY, before, || group(1, vec![document(5, Some(1))]), &expected);
    case(APPLY, before, || group(1, vec![document(4, Some(2))]), &expected);
    case(APPLY, before, || group(1, vec![document(5, None)]), &expected);
}

/// Proves INV-3.
#[test]
fn a_lower_version_is_stale() {
    let expected = refused(Verdict::Stale, r#"3|e5|1|5|0|f|-|{"by": 5}"#);
    let before = || vec![group(1, vec![document(5, Some(3))])];
    case(APPLY, before, || group(1, vec![document(6, Some(2))]), &expected);
    case(APPLY, before, || group(2, vec![document(6, Some(2))]), &expected);
}

#[test]
fn the_same_version_with_the_same_id_is_a_duplicate_and_with_another_a_conflict() {
    let before = || vec![group(1, vec![document(5, Some(3))])];
    let again = refused(Verdict::Duplicate, r#"3|e5|1|5|0|f|-|{"by": 5}"#);
    case(APPLY, before, || group(2, vec![document(5, Some(3))]), &again);
    let conflict = refused(Verdict::DeadLettered, r#"3|e5|1|6|0|f|version_conflict|{"by": 5}"#);
    case(APPLY, before, || group(1, vec![document(6, Some(3))]), &conflict);
}

#[test]
fn missing_versions_are_counted_or_parked() {
    let before = || vec![group(1, vec![document(5, Some(3))])];
    let counted = applied(2, r#"6|e6|1|6|2|f|-|{"by": 6}"#);
    case(APPLY, before, || group(1, vec![document(6, Some(6))]), &counted);
    let parked = refused(Verdict::Parked, r#"3|e5|1|6|0|f|version_gap|{"by": 5}"#);
    case(GapPolicy::Park, before, || group(1, vec![document(6, Some(6))]), &parked);
    let next = applied(0, r#"4|e6|1|6|0|f|-|{"by": 6}"#);
    case(GapPolicy::Park, before, || group(1, vec![document(6, Some(4))]), &next);
}

#[test]
fn unversioned_events_are_applied_in_the_order_of_arrival() {
    let before = || vec![group(1, vec![document(5, None)])];
    let later = applied(0, r#"-|e6|1|6|0|f|-|{"by": 6}"#);
    case(APPLY, before, || group(1, vec![document(6, None)]), &later);
    let other = applied(0, r#"-|e2|2|2|0|f|-|{"by": 2}"#);
    case(APPLY, before, || group(2, vec![document(2, None)]), &other);
    let versioned = applied(0, r#"4|e6|1|6|0|f|-|{"by": 6}"#);
    case(APPLY, before, || group(1, vec![document(6, Some(4))]), &versioned);
}

#[test]
fn an_unversioned_event_keeps_the_version_that_is_known() {
    let before = || vec![group(1, vec![document(5, Some(3))])];
    let expected = applied(0, r#"3|e6|1|6|0|f|-|{"by": 6}"#);
    case(APPLY, before, || group(1, vec![document(6, None)]), &expected);
}

#[test]
fn a_delete_takes_the_state_and_keeps_the_row() {
    let before = || vec![group(1, vec![document(5, Some(3))])];
    let expected = applied(0, "4|e6|1|6|0|t|-|-");
    case(APPLY, before, || group(1, vec![delete(6, Some(4))]), &expected);
}

#[test]
fn after_a_delete_only_its_own_partition_creates_again() {
    let before = || vec![group(1, vec![document(5, Some(3)), delete(6, Some(4))])];
    let created = applied(0, r#"1|e7|1|7|0|f|-|{"by": 7}"#);
    case(APPLY, before, || group(1, vec![document(7, Some(1))]), &created);
    case(GapPolicy::Park, before, || group(1, vec![document(7, Some(1))]), &created);
    let stale = refused(Verdict::Stale, "4|e6|1|6|0|t|-|-");
    case(APPLY, before, || group(2, vec![document(7, Some(3))]), &stale);
    case(APPLY, before, || group(2, vec![document(7, Some(4))]), &stale);
    case(APPLY, before, || group(2, vec![document(7, None)]), &stale);
}

#[test]
fn a_higher_version_of_another_partition_creates_again_on_the_slow_lane() {
    let before = || vec![group(1, vec![delete(6, Some(4))])];
    let expected = refused(Verdict::Applied, r#"5|e7|2|7|0|f|-|{"by": 7}"#);
    case(APPLY, before, || group(2, vec![document(7, Some(5))]), &expected);
}

#[test]
fn a_later_log_of_the_partition_creates_again_whatever_the_version() {
    let fixture = Fixture::new("later_log", vec![DOCUMENT]);
    fixture.slow(group(1, vec![delete(6, Some(4))]));
    fixture.database.execute(
        "insert into pgsluice.stream_t (sink, topic, partition, log_epoch, owner_epoch)
         select sink, topic, partition, 1, 7 from pgsluice.stream_t where stream = 1",
    );
    assert_eq!(fixture.slow(group(3, vec![document(0, Some(1))])), done(&APPLIED));
    assert_eq!(fixture.ledger(), r#"1|e0|3|0|0|f|-|{"by": 0}"#);
}

/// Proves INV-8.
#[test]
fn a_parked_aggregate_takes_nothing_and_keeps_everything() {
    let before = || {
        vec![
            group(1, vec![document(5, Some(3))]),
            failed_before(group(1, vec![poison(6, Some(4))])),
        ]
    };
    let parked = refused(Verdict::Parked, r#"3|e5|1|7|0|f|field_invalid|{"by": 5}"#);
    case(APPLY, before, || group(1, vec![document(7, Some(5))]), &parked);
    let settled = refused(Verdict::Duplicate, r#"3|e5|1|6|0|f|field_invalid|{"by": 5}"#);
    case(APPLY, before, || group(1, vec![document(5, Some(3))]), &settled);
}

/// Proves INV-4.
#[test]
fn a_record_with_a_letter_is_never_applied_again() {
    // GIVEN a letter of a record beyond the ledger's position, as after a change of configuration
    let before =
        || vec![group_of("c-2", 1, vec![poison(6, Some(4))]), group(1, vec![document(5, None)])];
    for lane in [Lane::Fast, Lane::Slow] {
        let fixture = Fixture::new("letter", vec![DOCUMENT]);
        for group in before() {
            fixture.slow(group);
        }
        let single = fixture.give(lane, group(1, vec![document(6, None)]));
        let several = fixture.give(lane, group(1, vec![document(6, None), document(7, None)]));
        let chunk = fixture.fast(vec![
            group_of("c-3", 1, vec![document(6, None)]),
            group_of("c-4", 1, vec![document(8, None)]),
        ]);
        match lane {
            Lane::Fast => {
                assert_eq!([single, several], [GroupReply::Refused, GroupReply::Refused]);
                assert_eq!(chunk, [GroupReply::Refused, done(&APPLIED)]);
            }
            Lane::Slow => {
                assert_eq!(single, done(&[Verdict::Duplicate]));
                assert_eq!(several, done(&[Verdict::Duplicate, Verdict::Applied]));
            }
        }
    }
}

/// Proves INV-5.
#[test]
fn every_outcome_is_noted_once() {
    let fixture = Fixture::new("notes", vec![DOCUMENT]);
    fixture.fast(vec![group(1, vec![document(5, Some(3)), document(6, Some(4))])]);
    fixture.slow(group(1, vec![document(7, Some(3)), document(8, Some(5))]));
    fixture.slow(group(2, vec![document(8, Some(5))]));
    let mut skipped = document(9, None);
    skipped.content = Content::Skip(Reason::Tombstone);
    fixture.fast(vec![skips(1, vec![skipped.clone()])]);
    fixture.slow(failed_before(skips(1, vec![skipped])));
    assert_eq!(
        fixture.notes(1),
        [
            "5|APPLIED|-",
            "6|APPLIED|-",
            "7|STALE|version_lower",
            "8|APPLIED|-",
            "9|SKIPPED|tombstone"
        ]
    );
    assert_eq!(fixture.notes(2), ["8|DUPLICATE|event_repeated"]);
}

/// Proves INV-4.
#[test]
fn what_is_settled_is_found_set_based_and_writes_nothing() {
    let fixture = Fixture::new("look", vec![DOCUMENT]);
    fixture.fast(vec![group(1, vec![document(5, Some(3)), document(6, Some(4))])]);
    fixture.slow(group_of("c-9", 1, vec![poison(7, None)]));
    let before = fixture.line("select count(*) from pgsluice.notification_t");
    let seen = fixture.look(vec![
        group(1, vec![document(5, Some(3)), document(6, Some(4))]),
        group(1, vec![document(6, Some(4)), document(8, Some(5))]),
        group_of("c-2", 1, vec![document(1, Some(1))]),
        group_of("c-9", 1, vec![poison(7, None)]),
        group(1, vec![document(7, None)]),
    ]);
    let twice = done(&[Verdict::Duplicate; 2]);
    let once = done(&[Verdict::Duplicate]);
    let unsettled = GroupReply::Unsettled;
    assert_eq!(seen, [twice, unsettled.clone(), unsettled, once.clone(), once]);
    assert_eq!(fixture.line("select count(*) from pgsluice.notification_t"), before);
}

#[test]
fn a_group_that_begins_in_the_past_is_refused_whole_and_its_rest_applied_slowly() {
    let fixture = Fixture::new("overlap", vec![DOCUMENT]);
    fixture.fast(vec![group(1, vec![document(5, Some(3))])]);
    let overlap = || group(1, vec![document(5, Some(3)), document(6, Some(4))]);
    assert_eq!(fixture.fast(vec![overlap()]), [GroupReply::Refused]);
    assert_eq!(fixture.slow(overlap()), done(&[Verdict::Duplicate, Verdict::Applied]));
    assert_eq!(fixture.ledger(), r#"4|e6|1|6|0|f|-|{"by": 6}"#);
}

#[test]
fn merging_keeps_every_digit_and_starts_anew_after_a_delete() {
    let fixture = Fixture::new("merge", vec![DOCUMENT]);
    let state = || fixture.line("select state from pgsluice.aggregate_t");
    fixture
        .fast(vec![group(1, vec![merging(1, Some(1), r#"{"a":12345678901234567890.10,"b":1}"#)])]);
    fixture.fast(vec![group(
        1,
        vec![merging(2, Some(2), r#"{"b":2}"#), merging(3, Some(3), r#"{"c":3.00}"#)],
    )]);
    assert_eq!(state(), r#"{"a": 12345678901234567890.10, "b": 2, "c": 3.00}"#);
    fixture.slow(group(1, vec![merging(4, Some(4), r#"{"d":4}"#)]));
    assert_eq!(state(), r#"{"a": 12345678901234567890.10, "b": 2, "c": 3.00, "d": 4}"#);
    fixture.fast(vec![group(1, vec![delete(5, Some(5))])]);
    assert_eq!(state(), "-");
    fixture.fast(vec![group(1, vec![merging(6, Some(6), r#"{"e":5}"#)])]);
    assert_eq!(state(), r#"{"e": 5}"#);
    fixture.fast(vec![group(1, vec![delete(7, Some(7)), merging(8, Some(8), r#"{"f":6}"#)])]);
    assert_eq!(state(), r#"{"f": 6}"#);
}

#[test]
fn both_lanes_report_every_version_that_is_missing_before_an_event_of_a_group() {
    for lane in [Lane::Fast, Lane::Slow] {
        let fixture = Fixture::new("gaps", vec![DOCUMENT]);
        fixture.slow(group(1, vec![document(5, Some(1))]));
        let events = vec![document(6, Some(3)), document(7, Some(5)), document(8, Some(9))];
        let reply = fixture.give(lane, group(1, events));
        let verdicts = vec![Verdict::Applied; 3];
        assert_eq!(reply, GroupReply::Done { verdicts, gap: 1 + 1 + 3 }, "{lane:?}");
    }
}

#[test]
fn one_refused_aggregate_of_a_chunk_does_not_hold_the_others() {
    let fixture = Fixture::new("chunk", vec![DOCUMENT]);
    fixture.fast(vec![group_of("b", 1, vec![document(5, Some(3))])]);
    let replies = fixture.fast(vec![
        group_of("c", 2, vec![document(8, Some(1)), document(9, Some(2))]),
        group_of("b", 1, vec![document(6, Some(3))]),
        group_of("a", 1, vec![document(7, Some(4))]),
        group_of("d", 1, vec![document(4, None)]),
    ]);
    // in the order of their keys
    let two = done(&[Verdict::Applied; 2]);
    assert_eq!(replies, [done(&APPLIED), GroupReply::Refused, two, done(&APPLIED)]);
    let gap = fixture.fast(vec![
        group_of("a", 1, vec![document(10, Some(7))]),
        group_of("b", 1, vec![document(11, Some(4))]),
    ]);
    assert_eq!(gap[0], GroupReply::Done { verdicts: APPLIED.to_vec(), gap: 2 });
    assert_eq!(gap[1], done(&APPLIED));
    assert_eq!(
        fixture.lines("select aggregate_id, version, \"offset\", gap, state from pgsluice.aggregate_t order by 1"),
        [
            r#"a|7|10|2|{"by": 10}"#,
            r#"b|4|11|0|{"by": 11}"#,
            r#"c|2|9|0|{"by": 9}"#,
            r#"d|-|4|0|{"by": 4}"#
        ]
    );
    assert_eq!(fixture.notes(2), ["8|APPLIED|-", "9|APPLIED|-"]);
}

#[test]
fn a_chunk_refuses_what_a_single_group_refuses() {
    let other = || group_of("z", 1, vec![document(90, Some(1))]);
    let chunk = |fixture: &Fixture, group: Group| fixture.fast(vec![group, other()]).remove(0);
    let fixture = Fixture::new("chunk_guards", vec![DOCUMENT]);
    fixture.slow(group(1, vec![document(5, Some(3))]));
    for stale in [document(5, Some(4)), document(6, Some(3)), document(6, Some(2))] {
        assert_eq!(chunk(&fixture, group(1, vec![stale])), GroupReply::Refused);
    }
    fixture.slow(group(1, vec![delete(7, Some(4))]));
    assert_eq!(chunk(&fixture, group(2, vec![document(8, Some(9))])), GroupReply::Refused);
    fixture.slow(group(1, vec![poison(9, Some(5))]));
    assert_eq!(chunk(&fixture, group(1, vec![document(10, Some(6))])), GroupReply::Refused);
    let parking = Fixture::with_gaps("chunk_gaps", GapPolicy::Park, vec![DOCUMENT]);
    parking.slow(group(1, vec![document(5, Some(3))]));
    assert_eq!(chunk(&parking, group(1, vec![document(6, Some(5))])), GroupReply::Refused);
}

#[test]
fn a_record_that_was_noted_before_is_applied_all_the_same() {
    // GIVEN records that an earlier configuration skipped
    let fixture = Fixture::new("noted_before", vec![DOCUMENT]);
    let skip = |offset| {
        let mut event = document(offset, None);
        event.content = Content::Skip(Reason::SkipRoute);
        event
    };
    fixture.fast(vec![skips(1, (5..=8).map(skip).collect())]);
    // WHEN they are read again, by an event, a group and a chunk
    assert_eq!(fixture.fast(vec![group(1, vec![document(5, None)])]), [done(&APPLIED)]);
    let chunk = vec![
        group_of("a", 1, vec![document(6, None)]),
        group_of("b", 1, vec![document(7, None), document(8, None)]),
    ];
    assert_eq!(fixture.fast(chunk), [done(&APPLIED), done(&[Verdict::Applied; 2])]);
    assert_eq!(fixture.notes(1)[0], "5|SKIPPED|skip_route");
}
