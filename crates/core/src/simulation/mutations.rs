//! Teeth: every guard is removed once, and some seed must notice. A guard whose removal nobody
//! notices is either useless or unprotected.

use super::model_statement::ModelGuard;
use super::runs::{any_weather, run};
use super::scheduler::Removed;
use super::swarm::{Rates, Swarm};
use crate::guard::Guard;

/// Seeds within which the removal must be noticed.
const BOUND: u64 = 2_000;

/// Runs seeds without a guard until one breaks a promise, which must be one of `expected`.
#[track_caller]
fn noticed(removed: Removed, weather: fn(&mut Swarm), expected: &[&str]) {
    let broken = |seed| run(seed, removed, weather, false).err().map(|broken| (seed, broken));
    let Some((seed, broken)) = (0..BOUND).find_map(broken) else {
        panic!("nobody noticed within {BOUND} seeds that {removed:?}");
    };
    println!("noticed {removed:?} at seed {seed}: {broken}");
    let whole = run(seed, Removed::Nothing, weather, false).err();
    assert_eq!(whole, None, "seed {seed} breaks a promise with every guard in place");
    assert!(
        expected.iter().any(|invariant| broken.starts_with(invariant)),
        "noticed for another reason at seed {seed}: {broken}"
    );
}

/// Whoever lost a partition hears of it late, and has dead letters to write.
fn former_owners(swarm: &mut Swarm) {
    swarm.odd = 500;
    swarm.processes = 3;
    swarm.rates.unaware = 900;
    swarm.rates.stop = 10;
    swarm.rates.rebalance = 20;
}

/// Two owners work on new aggregates whose records stand in two partitions.
fn two_owners(swarm: &mut Swarm) {
    swarm.odd = 500;
    (swarm.partitions, swarm.processes) = (2, 2);
    (swarm.aggregates, swarm.records, swarm.spread) = (5, 20, 1000);
    swarm.rates = Rates { slow_waits: 800, rebalance: 10, transient: 100, ..swarm.rates.clone() };
}

/// The operator stops everything often, rewinds, and adds a route for what none matched.
fn maintenance(swarm: &mut Swarm) {
    swarm.odd = 500;
    (swarm.records, swarm.steps) = (12, 900);
    swarm.rates = Rates { maintenance: 15, ..Rates::default() };
}

/// The server crashes often, and something in between reconnects the lead.
fn crashes(swarm: &mut Swarm) {
    swarm.synchronous = false;
    swarm.rates = Rates { crash: 15, lead_rerouted: 600, ..swarm.rates.clone() };
}

/// One test for each guard; `in` names the weather in which its removal shows, where most weather
/// hides it.
macro_rules! mutations {
    ($($test:ident: $guard:expr $(, in $weather:ident)? => $($expected:literal)|+;)*) => {
        $(#[test] fn $test() {
            let weathers: &[fn(&mut Swarm)] = &[$($weather,)? any_weather];
            noticed($guard, weathers[0], &[$($expected),+]);
        })*

        #[test]
        fn every_guard_is_removed_once() {
            let removed = [$($guard),*];
            for guard in Guard::ALL {
                assert!(removed.contains(&Core(*guard)), "{guard:?}");
            }
            // Its case is a script, in `scenarios.rs`.
            let scripted = ModelGuard::EndAskedAgain;
            for guard in ModelGuard::ALL.iter().filter(|guard| **guard != scripted) {
                assert!(removed.contains(&Model(*guard)), "{guard:?}");
            }
        }
    };
}

use Removed::{Core, Model};

mutations! {
    progress_beyond_the_contiguous_prefix_is_noticed:
        Core(Guard::ContiguousPrefix) => "INV-1";
    two_groups_of_an_aggregate_in_flight_are_noticed:
        Core(Guard::OneGroupPerKey) => "INV-3";
    replies_of_an_older_session_taken_for_current_ones_are_noticed:
        Core(Guard::SessionTag) => "INV" | "panic";
    records_and_replies_of_an_older_reading_taken_for_current_ones_are_noticed:
        Core(Guard::GenerationTag) => "INV" | "panic";
    a_slow_lane_that_ignores_letters_is_noticed:
        Core(Guard::LetterIsTerminal) => "INV-4";
    a_rule_that_ignores_positions_is_noticed:
        Core(Guard::PositionCovered) => "INV" | "oracle";
    a_rule_that_ignores_parking_is_noticed:
        Core(Guard::AggregateParked) => "INV-8" | "oracle";
    parking_what_took_effect_from_another_partition_is_noticed:
        Core(Guard::TookEffectBefore) => "INV-4" | "oracle";
    a_deleted_aggregate_that_does_not_begin_anew_is_noticed:
        Core(Guard::DeletedBeginsAnew) => "oracle";
    a_deleted_aggregate_brought_back_from_another_partition_is_noticed:
        Core(Guard::DeletedStays) => "oracle";
    a_lower_version_that_is_applied_is_noticed:
        Core(Guard::VersionLower) => "INV-3" | "oracle";
    a_repeated_event_taken_for_a_conflict_is_noticed:
        Core(Guard::EventRepeated) => "INV" | "oracle";
    a_version_conflict_taken_for_an_old_event_is_noticed:
        Core(Guard::VersionConflict) => "oracle";
    missing_versions_that_do_not_park_are_noticed:
        Core(Guard::VersionGap) => "oracle";
    a_version_forgotten_at_an_unversioned_event_is_noticed:
        Core(Guard::VersionKept) => "INV-3" | "oracle" | "gap";
    a_letter_at_the_first_failure_is_noticed:
        Core(Guard::SecondFailure) => "INV-7";
    an_aggregate_given_up_before_its_time_is_noticed:
        Core(Guard::TriedLongEnough) => "oracle";
    a_brake_that_is_not_asked_is_noticed:
        Core(Guard::BrakeAsked) => "brake";
    letters_lost_because_the_row_was_another_one_are_noticed:
        Core(Guard::JudgedAgain), in two_owners => "INV";
    a_former_owner_that_does_not_learn_of_it_is_noticed:
        Core(Guard::NotOwner), in former_owners => "liveness";

    a_fast_statement_that_ignores_versions_is_noticed:
        Model(ModelGuard::VersionCompare) => "INV-3" | "oracle";
    a_fast_statement_that_ignores_the_stored_position_is_noticed:
        Model(ModelGuard::PositionCompare) => "INV-4";
    a_fast_statement_that_ignores_parking_is_noticed:
        Model(ModelGuard::ParkedCheck) => "INV-8";
    a_fast_statement_that_ignores_letters_is_noticed:
        Model(ModelGuard::LetterCheck), in maintenance => "INV-4";
    a_statement_that_takes_the_stored_version_away_is_noticed:
        Model(ModelGuard::VersionKept) => "INV-3" | "oracle";
    a_slow_lane_that_writes_over_a_row_it_did_not_judge_is_noticed:
        Model(ModelGuard::SeenCompare), in two_owners => "INV";
    a_letter_that_takes_the_good_prefix_with_it_is_noticed:
        Model(ModelGuard::EventSavepoint) => "INV" | "liveness";
    progress_written_by_a_former_owner_is_noticed:
        Model(ModelGuard::OwnerAdvances) => "INV-10";
    a_position_written_by_a_former_owner_is_noticed:
        Model(ModelGuard::OwnerRepositions) => "INV-10";
    a_letter_written_by_a_former_owner_is_noticed:
        Model(ModelGuard::OwnerDeadLetters) => "INV-10";
    a_barrier_on_a_server_that_never_saw_the_session_is_noticed:
        Model(ModelGuard::LockCheck), in crashes => "INV-1";
}
