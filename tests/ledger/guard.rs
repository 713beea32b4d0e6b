//! The statement's guard against the rule: whatever the ledger row and the group, the row moves
//! only when [`judge`] applies every event of the group, one after the other on the row as it
//! changes. Thousands of cases, because the guard is SQL and the rule is Rust: neither is derived
//! from the other.

mod case;
mod table;

use std::cell::Cell;
use std::fmt;

use pgsluice::sql::binder::Extent;
use pgsluice::store::ledger::Guard;
use pgsluice_core::event::Event;
use pgsluice_core::record::RecordId;
use pgsluice_core::verdict::{Candidate, GapPolicy, Judgement, LedgerRow, judge};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use case::{Case, Place, Route, case};
use table::{Answer, Given, Image, Table};

/// How many batches each property is tried on.
const BATCHES: u32 = 48;
/// How many cases a batch has at most.
const BATCH: usize = 150;

/// Proves INV-2, INV-3, INV-4 and INV-8.
#[test]
fn the_fast_statement_moves_when_the_rule_applies_every_event_and_counts_what_is_missing() {
    fast_statement("guard_first", GapPolicy::Apply);
}

/// Proves INV-2, INV-3, INV-4 and INV-8.
#[test]
fn the_fast_statement_moves_when_the_rule_applies_every_event_and_parks_at_a_gap() {
    fast_statement("guard_first_parking", GapPolicy::Park);
}

/// Proves INV-13.
#[test]
fn the_slow_statement_moves_exactly_while_the_row_stands_where_it_was_seen() {
    let table = Table::new("guard_seen", GapPolicy::Apply);
    let tally = Tally::default();
    property((case(GapPolicy::Apply), seen()), |batch| {
        let cases: Vec<Case> = batch.iter().map(|(case, _)| case.first_only()).collect();
        let mut given = table.given(&cases);
        for (given, (_, seen)) in given.iter_mut().zip(batch) {
            given.seen = seen.position(given);
        }
        let answers = table.run(Guard::Seen, Extent::Event, &given)?;
        each(&given, &answers, |given, answer| slow_lane(given, answer, &tally))
    });
    tally.reaches(&[&tally.moved, &tally.refused]);
}

/// Gives every batch to the statement of each extent. The statement of a chunk takes many groups,
/// and each moves or not on its own.
fn fast_statement(name: &str, gaps: GapPolicy) {
    let table = Table::new(name, gaps);
    let tally = Tally::default();
    property(case(gaps), |cases| {
        let singles: Vec<Case> = cases.iter().map(Case::first_only).collect();
        for (extent, cases) in
            [(Extent::Event, &*singles), (Extent::Group, cases), (Extent::Chunk, cases)]
        {
            let given = table.given(cases);
            let answers = table
                .run(Guard::First, extent, &given)
                .map_err(|error| format!("{extent:?}: {error}"))?;
            each(&given, &answers, |given, answer| fast_lane(given, answer, gaps, &tally))
                .map_err(|error| format!("{extent:?}: {error}"))?;
        }
        Ok(())
    });
    tally.reaches(&[&tally.moved, &tally.refused, &tally.deleted_elsewhere, &tally.letter_between]);
}

/// Tries a property on batches; a failure shows the smallest batch that breaks it.
fn property<S>(case: S, holds: impl Fn(&[S::Value]) -> Result<(), String>)
where
    S: Strategy<Value: fmt::Debug>,
{
    let mut runner = TestRunner::new(ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 5_000,
        max_shrink_time: 60_000,
        ..ProptestConfig::with_cases(BATCHES)
    });
    let tried =
        runner.run(&vec(case, 1..=BATCH), |cases| holds(&cases).map_err(TestCaseError::fail));
    match tried {
        Ok(()) => {}
        Err(TestError::Fail(reason, cases)) if cases.len() > 3 => {
            panic!("{reason}\nin a batch of {}", cases.len())
        }
        Err(TestError::Fail(reason, cases)) => panic!("{reason}\nbatch: {cases:?}"),
        Err(TestError::Abort(reason)) => panic!("no cases: {reason}"),
    }
}

/// Checks every case of a batch; the error shows the first that is wrong.
fn each(
    given: &[Given<'_>],
    answers: &[Answer],
    check: impl Fn(&Given<'_>, &Answer) -> Result<(), String>,
) -> Result<(), String> {
    given.iter().zip(answers).try_for_each(|(given, answer)| {
        check(given, answer).map_err(|why| {
            let Given { number, case, seen, .. } = given;
            let Answer { before, after, moved } = answer;
            format!(
                "{why}\nnumber {number}: {case:?}\nseen: {seen:?}\nmoved: {moved:?}\n\
                 before: {before:?}\nafter: {after:?}"
            )
        })
    })
}

/// What became of the cases: a test in which everything is refused proves little.
#[derive(Debug, Default)]
struct Tally {
    moved: Cell<u32>,
    refused: Cell<u32>,
    deleted_elsewhere: Cell<u32>,
    letter_between: Cell<u32>,
}

impl Tally {
    fn count(outcome: &Cell<u32>) {
        outcome.set(outcome.get() + 1);
    }

    #[track_caller]
    fn reaches(&self, outcomes: &[&Cell<u32>]) {
        assert!(outcomes.iter().all(|outcome| outcome.get() >= BATCHES), "{self:?}");
    }
}

fn candidate<'e>(given: &Given<'_>, event: &'e Event, redrive: bool) -> Candidate<'e> {
    let stream = Case::stream(given.number, Place::Here);
    Candidate {
        id: RecordId { stream, offset: event.offset() },
        event_id: event.id(),
        version: event.envelope.version,
        redrive,
    }
}

/// What the rule makes of a group of which it applies every event: the row after it, and the
/// versions that are missing before each event.
fn judged(given: &Given<'_>, gaps: GapPolicy) -> Option<(LedgerRow, Vec<i64>)> {
    let mut row = given.case.ledger_row(given.number);
    let mut missing = Vec::new();
    for (at, event) in given.events.iter().enumerate() {
        // Whoever judges settles a record with a letter before the rule is asked (INV-4).
        if given.case.own_letters().any(|offset| offset == event.offset().0) {
            return None;
        }
        let candidate = candidate(given, event, false);
        let Judgement::Apply { gap } = judge(row.as_ref(), &candidate, gaps) else { return None };
        let deletes = given.case.deletes && at + 1 == given.events.len();
        row = Some(LedgerRow::applied(row.as_ref(), &candidate, deletes));
        missing.push(gap);
    }
    row.map(|row| (row, missing))
}

/// Moved exactly when the rule applies every event. The guard is stricter in two cases, and leaves
/// them to the slow lane:
///
/// - the aggregate was deleted from another stream: whether a higher version creates it again
///   depends on what else is known of the two streams;
/// - a record between the group's first and last has a letter, although it is none of the group's.
fn fast_lane(
    given: &Given<'_>,
    answer: &Answer,
    gaps: GapPolicy,
    tally: &Tally,
) -> Result<(), String> {
    let (first, last) = (given.events[0].offset().0, given.events.last().unwrap().offset().0);
    let letter_between = given.case.own_letters().any(|offset| (first..=last).contains(&offset));
    let deleted_elsewhere =
        given.case.row.as_ref().is_some_and(|row| row.deleted && row.place != Place::Here);
    match (answer.moved, judged(given, gaps)) {
        (Some(gap), Some((row, missing))) => {
            Tally::count(&tally.moved);
            // As it is today, what is missing within the group does not count: the gap is the one
            // before the first event that has a version.
            let versioned = given.events.iter().position(|event| event.envelope.version.is_some());
            let wanted = versioned.map_or(0, |first| missing[first]);
            moved(given, answer, row, (gap, wanted))
        }
        (Some(_), None) => Err("moved, and the rule does not apply every event".to_owned()),
        (None, Some(_)) if deleted_elsewhere => {
            Tally::count(&tally.deleted_elsewhere);
            untouched(answer)
        }
        (None, Some(_)) if letter_between => {
            Tally::count(&tally.letter_between);
            untouched(answer)
        }
        (None, Some(_)) => Err("refused, and the rule applies every event".to_owned()),
        (None, None) => {
            Tally::count(&tally.refused);
            untouched(answer)
        }
    }
}

/// Moved exactly when the row stands where it was seen. The rule has judged before, so that
/// everything else is allowed: a re-drive never moves the position back and keeps the row parked.
fn slow_lane(given: &Given<'_>, answer: &Answer, tally: &Tally) -> Result<(), String> {
    let before = given.case.ledger_row(given.number);
    let stands = before.as_ref().map(|row| row.position) == given.seen;
    match (answer.moved, stands) {
        (Some(gap), true) => {
            Tally::count(&tally.moved);
            let candidate = candidate(given, &given.events[0], true);
            let applied = LedgerRow::applied(before.as_ref(), &candidate, given.case.deletes);
            let parked = before.as_ref().is_some_and(|row| row.parked);
            let wanted = match judge(before.as_ref(), &candidate, GapPolicy::Apply) {
                // As it is today, nothing is missing after a delete, from whatever stream.
                _ if before.is_some_and(|row| row.deleted) => 0,
                Judgement::Apply { gap } => gap,
                // Never given to the statement: the rule does not apply it.
                _ => gap,
            };
            moved(given, answer, LedgerRow { parked, ..applied }, (gap, wanted))
        }
        (Some(_), false) => Err("moved, and the row stands elsewhere".to_owned()),
        (None, true) => Err("refused, and the row stands where it was seen".to_owned()),
        (None, false) => {
            Tally::count(&tally.refused);
            untouched(answer)
        }
    }
}

/// The row, the notifications and the target are as the group leaves them; letters never change.
fn moved(
    given: &Given<'_>,
    answer: &Answer,
    row: LedgerRow,
    (gap, wanted): (i64, i64),
) -> Result<(), String> {
    let Answer { before, after, .. } = answer;
    let last = given.events.last().unwrap().offset().0;
    let written = (!given.case.deletes).then_some(last);
    let (document, target) = match given.case.route {
        Route::Document => (written.map(|offset| offset.to_string()), before.target),
        // Only a delete touches the document of an aggregate whose route writes a table.
        Route::Table if given.case.deletes => (None, None),
        Route::Table => (before.document.clone(), written),
    };
    let notes = given.events.iter().map(|event| format!("{} APPLIED", event.offset().0));
    let wanted = Image {
        row: Some(row),
        gap: Some(wanted),
        document,
        notes: Some(notes.collect::<Vec<_>>().join(", ")),
        target,
        letters: before.letters.clone(),
        all: after.all.clone(),
    };
    if gap != wanted.gap.unwrap() {
        return Err(format!("moved with a gap of {gap} and not {:?}", wanted.gap));
    }
    if *after != wanted {
        return Err(format!("moved, and not to this: {wanted:?}"));
    }
    Ok(())
}

/// Not one column of any row has changed.
fn untouched(answer: &Answer) -> Result<(), String> {
    if answer.before != answer.after {
        return Err("refused, and something was written".to_owned());
    }
    Ok(())
}

/// Where whoever judged saw the row.
#[derive(Debug, Clone, Copy)]
enum Seen {
    WhereItStands,
    /// At another offset, by that much.
    Off(i64),
    InAnotherStream,
    Nowhere,
}

fn seen() -> impl Strategy<Value = Seen> {
    prop_oneof![
        4 => Just(Seen::WhereItStands),
        1 => prop_oneof![Just(-1), Just(1), Just(5)].prop_map(Seen::Off),
        1 => Just(Seen::InAnotherStream),
        1 => Just(Seen::Nowhere),
    ]
}

impl Seen {
    /// The position of a row that was seen; `None` where there was none. Rows are never deleted, so
    /// nobody saw one that is not there.
    fn position(self, given: &Given<'_>) -> Option<RecordId> {
        let mut position = given.case.ledger_row(given.number)?.position;
        match self {
            Self::WhereItStands => {}
            Self::Off(by) => position.offset.0 += by,
            Self::InAnotherStream => position.stream.0 += 1,
            Self::Nowhere => return None,
        }
        Some(position)
    }
}
