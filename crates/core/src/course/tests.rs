use super::*;
use crate::event::{
    AggregateKey, AggregateVersion, Envelope, Json, LedgerEffect, Poison, RouteId,
    Write as EventWrite,
};
use crate::fault::{FaultKind, SqlState};
use crate::record::{Generation, Raw, Record, TimestampType, TopicPartition};

const STREAM: StreamId = StreamId(1);

fn event(offset: i64, version: i64, content: Content) -> Event {
    Event {
        record: Record {
            partition: TopicPartition { topic: "t".into(), partition: 0 },
            offset: Offset(offset),
            generation: Generation(1),
            timestamp: None,
            timestamp_type: TimestampType::NotAvailable,
            raw: Raw::default(),
        },
        envelope: Envelope {
            event_id: Some(format!("e{offset}").into()),
            aggregate: Some(AggregateKey { aggregate_type: "C".into(), id: "1".into() }),
            version: Some(AggregateVersion(version)),
            ..Envelope::default()
        },
        content,
    }
}

pub(super) fn write(offset: i64, version: i64) -> Event {
    let ledger = LedgerEffect::Set(Json::Value("{}".into()));
    let write = EventWrite { route: RouteId(0), ledger, rows: Vec::new() };
    event(offset, version, Content::Write(write))
}

fn poison(offset: i64) -> Event {
    let poison = Poison::new(Reason::JsonSyntax, None);
    event(offset, 1, Content::Poison(poison))
}

fn at(offset: i64) -> RecordId {
    RecordId { stream: STREAM, offset: Offset(offset) }
}

fn row(version: i64, offset: i64) -> LedgerRow {
    LedgerRow {
        version: Some(AggregateVersion(version)),
        event_id: Some(format!("e{offset}").into()),
        position: at(offset),
        deleted: false,
        parked: false,
        earlier_log: false,
    }
}

fn course(row: Option<LedgerRow>, letters: &[i64]) -> Course {
    let letters = letters.iter().copied().map(Offset).collect();
    Course::new(STREAM, GapPolicy::Apply, row, letters)
}

/// Follows a course; every event it wants applied succeeds, except the one at `refused`.
fn follow(course: &mut Course, events: &[Event], refused: Option<i64>) -> Vec<(Verdict, Write)> {
    for event in events {
        let Step::Apply { gap, .. } = course.next(event) else { continue };
        if refused == Some(event.offset().0) {
            let fault = Fault::new(FaultKind::Server(SqlState(*b"23514")));
            course.poisoned(event, Reason::ConstraintViolation, fault);
        } else {
            course.applied(event, gap);
        }
    }
    course.outcomes().iter().map(|outcome| (outcome.verdict, outcome.write)).collect()
}

const APPLIED: (Verdict, Write) = (Verdict::Applied, Write::Nothing);
const SETTLED: (Verdict, Write) = (Verdict::Duplicate, Write::Nothing);
const DEAD: (Verdict, Write) = (Verdict::DeadLettered, Write::Letter(Disposition::Poison));
const PARKED: (Verdict, Write) = (Verdict::Parked, Write::Letter(Disposition::Parked));

/// Proves INV-3.
#[test]
fn each_event_is_judged_on_the_row_that_the_one_before_left() {
    let mut course = course(Some(row(3, 5)), &[]);
    let events = [write(5, 3), write(6, 4), write(7, 4), write(8, 5), write(9, 2)];
    assert_eq!(course.next(&events[0]), Step::Decided);
    assert_eq!(course.next(&events[1]), Step::Apply { gap: 0, seen: Some(at(5)) });
    course.applied(&events[1], 0);
    let outcomes = follow(&mut course, &events[2..], None);
    // version 4 again with another id is a conflict, and everything after it waits
    assert_eq!(outcomes, [SETTLED, APPLIED, DEAD, PARKED, PARKED]);
    assert_eq!(course.parked_for(), Some(Reason::VersionConflict));
}

#[test]
fn the_row_is_compared_with_where_the_last_applied_event_left_it() {
    let mut course = course(None, &[]);
    let events = [write(5, 1), write(6, 2), write(7, 3)];
    assert_eq!(course.next(&events[0]), Step::Apply { gap: 0, seen: None });
    course.applied(&events[0], 0);
    assert_eq!(course.next(&events[1]), Step::Apply { gap: 0, seen: Some(at(5)) });
    let fault = Fault::new(FaultKind::Server(SqlState(*b"23505")));
    course.poisoned(&events[1], Reason::ConstraintViolation, fault.clone());
    assert_eq!(course.next(&events[2]), Step::Decided);
    assert_eq!(
        course.before_letters(),
        Some(at(5)),
        "what the database holds until they are written"
    );
    assert_eq!(course.position(), Some(at(7)), "the last record decided");
    assert_eq!(course.outcomes()[1].fault, Some(fault));
    assert_eq!(course.outcomes()[2].fault, None, "the fault is of one event only (INV-7)");
}

/// Proves INV-4.
#[test]
fn a_letter_is_terminal_and_does_not_stop_what_follows() {
    let mut course = course(None, &[5, 7]);
    let events = [write(5, 1), write(6, 2), write(7, 3)];
    assert_eq!(follow(&mut course, &events, None), [SETTLED, APPLIED, SETTLED]);
}

/// Proves INV-8.
#[test]
fn poison_on_a_parked_aggregate_waits_undecided() {
    let parked = LedgerRow { parked: true, ..row(3, 5) };
    let mut course = course(Some(parked), &[]);
    assert_eq!(follow(&mut course, &[poison(6)], None), [PARKED]);
    assert_eq!(course.outcomes()[0].reason, Some(Reason::AggregateParked));
}

#[test]
fn poison_is_a_letter_whatever_version_it_claims() {
    for stored in [1, 3] {
        let mut course = course(Some(row(stored, 5)), &[]);
        assert_eq!(follow(&mut course, &[poison(6), write(7, 9)], None), [DEAD, PARKED]);
        assert_eq!(course.parked_for(), Some(Reason::JsonSyntax));
    }
}

/// Proves INV-4.
#[test]
fn poison_that_was_decided_before_is_settled() {
    let mut course = course(Some(row(3, 5)), &[]);
    assert_eq!(follow(&mut course, &[poison(5)], None), [SETTLED]);
    assert_eq!(course.parked_for(), None);
}

#[test]
fn missing_versions_park_from_there_on_where_the_policy_says_so() {
    let mut course = Course::new(STREAM, GapPolicy::Park, Some(row(3, 5)), BTreeSet::new());
    let events = [write(6, 4), write(7, 6), write(8, 7)];
    assert_eq!(follow(&mut course, &events, None), [APPLIED, PARKED, PARKED]);
    let reasons: Vec<_> = course.outcomes().iter().map(|outcome| outcome.reason).collect();
    assert_eq!(reasons, [None, Some(Reason::VersionGap), Some(Reason::AggregateParked)]);
    assert_eq!(course.parked_for(), Some(Reason::VersionGap));
}

#[test]
fn the_gaps_of_a_group_add_up() {
    let mut course = course(Some(row(1, 1)), &[]);
    follow(&mut course, &[write(2, 3), write(3, 6)], None);
    let verdicts = vec![Verdict::Applied; 2];
    assert_eq!(course.done(), GroupReply::Done { verdicts, gap: 3 });
}

#[test]
fn stale_events_are_noted_and_nothing_else() {
    let mut course = course(Some(row(3, 5)), &[]);
    assert_eq!(follow(&mut course, &[write(6, 2)], None), [(Verdict::Stale, Write::Note)]);
    assert_eq!(course.position(), Some(at(5)), "the ledger does not move");
    assert_eq!(course.parked_for(), None);
}

#[test]
fn only_what_was_decided_before_settles() {
    assert!(course(Some(row(3, 5)), &[]).settles(&write(5, 3)));
    assert!(course(None, &[5]).settles(&write(5, 3)));
    assert!(!course(Some(row(3, 5)), &[]).settles(&write(6, 4)), "to be applied");
    assert!(!course(Some(row(3, 5)), &[]).settles(&write(6, 2)), "stale, to be noted");
    assert!(!course(Some(row(3, 5)), &[]).settles(&write(6, 3)), "a conflict");
    // the newest event again, from another partition: to be noted as well
    let other =
        LedgerRow { position: RecordId { stream: StreamId(2), offset: Offset(5) }, ..row(3, 5) };
    assert!(!course(Some(other), &[]).settles(&write(5, 3)));
}
