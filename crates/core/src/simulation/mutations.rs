//! Teeth: every guard is removed once, and some seed must notice. A guard whose removal nobody
//! notices is either useless or unprotected.

use super::model_postgres::Guards;
use super::runs::run;
use super::scheduler::Removed;
use crate::state::Guard;

/// Seeds within which the removal must be noticed.
const BOUND: u64 = 60_000;

/// Runs seeds without a guard until one breaks a promise, which must be one of `expected`.
#[track_caller]
fn noticed(removed: Removed, expected: &[&str]) {
    let broken = (0..BOUND).find_map(|seed| run(seed, removed, false).err().map(|b| (seed, b)));
    let Some((seed, broken)) = broken else {
        panic!("nobody noticed within {BOUND} seeds that {removed:?}");
    };
    println!("seed {seed}: {broken}");
    assert!(
        expected.iter().any(|invariant| broken.starts_with(invariant)),
        "noticed for another reason at seed {seed}: {broken}"
    );
}

fn without_sql(remove: impl FnOnce(&mut Guards)) -> Removed {
    let mut sql = Guards::ALL;
    remove(&mut sql);
    Removed { sql, core: None }
}

fn without_core(guard: Guard) -> Removed {
    Removed { sql: Guards::ALL, core: Some(guard) }
}

#[test]
fn progress_beyond_the_contiguous_prefix_is_noticed() {
    noticed(without_core(Guard::ContiguousPrefix), &["INV-1"]);
}

#[test]
fn replies_of_an_older_session_taken_for_current_ones_are_noticed() {
    noticed(without_core(Guard::SessionTag), &["INV", "panic"]);
}

#[test]
fn records_and_replies_of_an_older_reading_taken_for_current_ones_are_noticed() {
    noticed(without_core(Guard::GenerationTag), &["INV", "panic"]);
}

#[test]
fn two_groups_of_an_aggregate_in_flight_are_noticed() {
    noticed(without_core(Guard::OneGroupInFlight), &["INV-3"]);
}

#[test]
fn a_fast_statement_that_ignores_versions_is_noticed() {
    noticed(without_sql(|g| g.ledger_condition = false), &["INV-3", "oracle"]);
}

#[test]
fn a_fast_statement_that_ignores_the_stored_position_is_noticed() {
    noticed(without_sql(|g| g.position_compare = false), &["INV-4"]);
}

#[test]
fn a_fast_statement_that_ignores_parking_is_noticed() {
    noticed(without_sql(|g| g.parked_check = false), &["INV-8"]);
}

#[test]
fn a_fast_statement_that_ignores_letters_is_noticed() {
    noticed(without_sql(|g| g.fast_letter_check = false), &["INV-4"]);
}

#[test]
fn a_slow_lane_that_ignores_letters_is_noticed() {
    noticed(without_sql(|g| g.slow_letter_check = false), &["INV-4"]);
}

#[test]
fn progress_written_by_a_former_owner_is_noticed() {
    noticed(without_sql(|g| g.owner_advances = false), &["INV-10"]);
}

#[test]
fn a_position_written_by_a_former_owner_is_noticed() {
    noticed(without_sql(|g| g.owner_repositions = false), &["INV-10"]);
}

#[test]
fn a_letter_written_by_a_former_owner_is_noticed() {
    noticed(without_sql(|g| g.owner_dead_letters = false), &["INV-10"]);
}

#[test]
fn a_barrier_on_a_server_that_never_saw_the_session_is_noticed() {
    noticed(without_sql(|g| g.lock_check = false), &["INV-1"]);
}

#[test]
fn a_slow_lane_that_writes_over_a_row_it_did_not_judge_is_noticed() {
    noticed(without_sql(|g| g.judged_row = false), &["INV"]);
}
