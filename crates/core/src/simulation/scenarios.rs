//! Hard cases, scripted against the same models: who moves is still drawn, what goes wrong is not.

use super::checker::Violation;
use super::model_sessions::ProcessId;
use super::model_statement::ModelGuard;
use super::process::index_of_verdict;
use super::scheduler::{Removed, World};
use super::swarm::{Rng, Swarm};
use super::workload::{Draft, Meaning, Target, Workload};
use crate::input::Input;
use crate::verdict::{Disposition, Verdict};

/// A world without faults in which `work` stands in Kafka from the start.
fn world(work: Workload, processes: usize) -> World {
    world_of(7, work, processes)
}

fn world_of(seed: u64, work: Workload, processes: usize) -> World {
    world_without(Removed::Nothing, seed, work, processes)
}

fn world_without(removed: Removed, seed: u64, work: Workload, processes: usize) -> World {
    let swarm = Swarm::quiet(work.logs.len(), processes);
    let mut world = World::new(swarm, work, Rng::new(seed), removed);
    world.held_back = 0;
    world.broker.visible = world.work.logs.iter().map(Vec::len).collect();
    world
}

/// One versioned aggregate with this many events in one partition.
fn one_aggregate(events: i64) -> Workload {
    let mut work = Workload::new(1);
    let aggregate = work.aggregate(true, [0, 0]);
    for version in 1..=events {
        work.append(0, Draft::write(aggregate, Some(version)));
    }
    work
}

fn finished(world: &World, verdict: Verdict) -> u64 {
    world.tally.finished[index_of_verdict(verdict)]
}

/// A process holds an answer about groups that its coordinator has not seen.
fn unread_reply(world: &World) -> bool {
    world.processes.iter().any(|p| p.inbox.iter().any(|i| matches!(i, Input::Replied { .. })))
}

fn finish(world: &mut World) -> Result<(), Violation> {
    world.run_until("everything is finished and mirrored", World::caught_up)?;
    world.drain_and_conclude()
}

/// Proves INV-4.
#[test]
fn a_commit_whose_answer_is_lost_takes_effect_once() -> Result<(), Violation> {
    let mut world = world(one_aggregate(3), 1);
    // GIVEN a group that was committed, and an answer nobody has seen.
    world.run_until("a group is committed", unread_reply)?;
    // WHEN the session breaks, and the answer is lost with it.
    let session = world.processes[0].session.unwrap();
    world.break_session(0, session);
    finish(&mut world)?;
    // THEN the records are read again, found settled, and took effect once.
    assert_eq!(world.server.db.tables.effects, [1, 1, 1]);
    assert!(finished(&world, Verdict::Duplicate) > 0);
    Ok(())
}

/// Proves INV-1.
#[test]
fn a_commit_that_a_crash_takes_back_is_made_again() -> Result<(), Violation> {
    let crashed = |seed| {
        let mut world = world_of(seed, one_aggregate(3), 1);
        // GIVEN a group that its coordinator knows to be applied, and no barrier since.
        let known = |w: &World| finished(w, Verdict::Applied) > 0;
        world.run_until("a group is finished", known).ok()?;
        // WHEN the server crashes and, as the dice have it, forgets it.
        world.crash();
        (!world.server.db.tables.effects.contains(&1)).then_some(world)
    };
    let mut world = (0..50).find_map(crashed).expect("a crash that takes the commit back");
    finish(&mut world)?;
    // THEN it was applied again, and nothing was passed over.
    assert_eq!(world.server.db.tables.effects, [1, 1, 1]);
    Ok(())
}

#[test]
fn a_revocation_waits_for_the_group_in_flight_and_its_progress() -> Result<(), Violation> {
    let mut world = world(one_aggregate(3), 2);
    // GIVEN a group in flight.
    world.run_until("a group is committed", unread_reply)?;
    let reader = world.broker.owner[0].unwrap();
    let at = world.find(reader).unwrap();
    // WHEN the group protocol gives the partition to the other process.
    let input = world.broker.revoke(reader, vec![0], world.now * 100, false);
    world.processes[at].consumer.told.push_back(input);
    let other = world.processes.iter().map(|p| p.id).find(|id| *id != reader);
    world.broker.wanted[0] = other;
    world.run_until("the partition is handed over", |w| w.broker.owner[0] != Some(reader))?;
    // THEN what was in flight is finished and durable before the other one reads.
    let applied = world.server.db.tables.effects.iter().filter(|e| **e == 1).count();
    assert!(applied > 0);
    assert_eq!(world.server.db.tables.streams[0].next, applied as i64);
    finish(&mut world)?;
    assert_eq!(finished(&world, Verdict::Duplicate), 0, "a clean handover reads nothing twice");
    Ok(())
}

/// Stops the process that reads partition 0 with an unread answer, and lets another one take over.
fn zombie(world: &mut World) -> Result<ProcessId, Violation> {
    world.run_until("a group is committed", unread_reply)?;
    let zombie = world.broker.owner[0].unwrap();
    let at = world.find(zombie).unwrap();
    world.processes[at].stopped = true;
    world.run_until("the other process has taken over", |w| {
        w.broker.owner[0].is_some_and(|owner| owner != zombie) && w.caught_up()
    })?;
    Ok(zombie)
}

/// Proves INV-10.
#[test]
fn a_process_stopped_for_long_moves_nothing_when_it_goes_on() -> Result<(), Violation> {
    let mut world = world(one_aggregate(3), 2);
    // GIVEN a process that was stopped (SIGSTOP) with its answers unread, and a successor that
    // has finished everything.
    let zombie = zombie(&mut world)?;
    let before = world.server.db.tables.streams[0].clone();
    // WHEN it goes on and looks at its answers before it learns that the partition is gone.
    let at = world.find(zombie).unwrap();
    world.processes[at].stopped = false;
    let unheard = std::mem::take(&mut world.processes[at].consumer.told);
    world.run_until("its barrier is refused", |w| w.tally.fenced > 0)?;
    // THEN the owner and its progress are untouched.
    let after = &world.server.db.tables.streams[0];
    assert_eq!((after.epoch, after.next), (before.epoch, before.next));
    let at = world.find(zombie).unwrap();
    world.processes[at].consumer.told = unheard;
    finish(&mut world)
}

/// A member that lost its partition without hearing of it reads on, while its successor knows from
/// Kafka where the log ends and has not claimed the partition yet.
fn former_owner_reads_on(removed: Removed) -> Result<(), Violation> {
    let mut world = world_without(removed, 7, one_aggregate(6), 2);
    world.broker.visible = vec![3];
    world.held_back = 3;
    let progress = |w: &World| w.server.db.tables.streams[0].next;
    world.run_until("the first records are finished", |w| progress(w) == 3)?;
    // GIVEN such a member and such a successor.
    let former = world.broker.owner[0].unwrap();
    world.rates.unaware = 1000;
    world.rates.take_waits = 1000;
    world.broker.wanted[0] = world.processes.iter().map(|p| p.id).find(|id| *id != former);
    world.expel(world.find(former).unwrap());
    world.run_until("the successor asks Kafka", |w| w.server.claims_wait())?;
    // WHEN the former owner finishes records that were written after Kafka was asked.
    world.held_back = 0;
    world.run_until("the former owner finishes them", |w| progress(w) == 6)?;
    world.rates = Default::default();
    finish(&mut world)
}

#[test]
fn progress_that_a_former_owner_made_meanwhile_is_no_changed_log() -> Result<(), Violation> {
    former_owner_reads_on(Removed::Nothing)
}

#[test]
fn a_take_that_believes_an_end_of_the_log_from_before_its_claim_is_noticed() {
    let removed = Removed::Model(ModelGuard::EndAskedAgain);
    let noticed = former_owner_reads_on(removed).unwrap_err();
    assert_eq!(noticed.invariant, "take");
}

/// Proves INV-8.
#[test]
fn a_poison_event_parks_what_follows_and_delays_nobody_else() -> Result<(), Violation> {
    // GIVEN a poison event in the middle of one aggregate, and another aggregate behind it.
    let mut work = Workload::new(1);
    let (ill, well) = (work.aggregate(true, [0, 0]), work.aggregate(true, [0, 0]));
    work.append(0, Draft::write(ill, Some(1)));
    work.append(0, Draft::write(ill, Some(2)).target(Target::Refuses));
    work.append(0, Draft::write(ill, Some(3)));
    work.append(0, Draft::write(well, Some(1)));
    let mut world = world(work, 1);
    // WHEN everything is read.
    finish(&mut world)?;
    // THEN one record is dead-lettered, the next one of its aggregate parked, the rest applied.
    let notes: Vec<_> = world.server.db.tables.notes.iter().map(|note| note.unwrap()).collect();
    assert_eq!(notes, [Verdict::Applied, Verdict::DeadLettered, Verdict::Parked, Verdict::Applied]);
    Ok(())
}

#[test]
fn a_locked_aggregate_delays_nobody_else() -> Result<(), Violation> {
    // GIVEN a slow transaction that holds the lock of one aggregate and does not go on.
    let mut work = Workload::new(1);
    let (held, free) = (work.aggregate(true, [0, 0]), work.aggregate(true, [0, 0]));
    work.append(0, Draft::write(held, Some(1)));
    work.append(0, Draft::write(held, Some(2)).target(Target::Refuses));
    for version in 1..=20 {
        work.append(0, Draft::write(free, Some(version)));
    }
    let mut world = world(work, 1);
    world.rates.slow_waits = 1000;
    // WHEN other aggregates have records behind it, THEN these are applied meanwhile.
    world.run_until("the other aggregate is applied", |w| {
        w.server.db.tables.effects[2..].iter().all(|effects| *effects == 1)
    })?;
    assert!(world.server.db.tables.streams[0].next < 2, "progress waits (INV-1)");
    world.rates.slow_waits = 0;
    finish(&mut world)
}

/// Proves INV-7.
#[test]
fn a_missing_table_halts_the_partition_until_it_is_there() -> Result<(), Violation> {
    let mut work = Workload::new(1);
    let aggregate = work.aggregate(true, [0, 0]);
    work.append(0, Draft::write(aggregate, Some(1)).target(Target::MissingUntilMended));
    work.append(0, Draft::write(aggregate, Some(2)));
    let mut world = world(work, 1);
    // GIVEN a target table that is missing: the partition halts, again and again.
    world.run_until("the partition halts", |w| w.tally.halted > 0)?;
    for _ in 0..500 {
        world.step();
        world.verdict()?;
    }
    assert_eq!(world.server.db.tables.streams[0].next, 0);
    // WHEN the operator creates it.
    world.mend();
    finish(&mut world)?;
    // THEN everything was applied and nothing dead-lettered (INV-7).
    assert_eq!(finished(&world, Verdict::Applied), 2);
    assert_eq!(world.server.db.tables.letters, [None, None]);
    Ok(())
}

#[test]
fn an_aggregate_that_keeps_failing_is_given_up_only_while_others_succeed() -> Result<(), Violation>
{
    const OTHERS: usize = 100;
    let mut work = Workload::new(1);
    let (stuck, other) = (work.aggregate(true, [0, 0]), work.aggregate(true, [0, 0]));
    work.append(0, Draft::write(stuck, Some(1)).target(Target::LockedUntilMended));
    work.append(0, Draft::write(stuck, Some(2)));
    for version in 1..=OTHERS {
        work.append(0, Draft::write(other, Some(version as i64)));
    }
    let swarm = Swarm { give_up: true, ..Swarm::quiet(1, 1) };
    let mut world = World::new(swarm, work, Rng::new(7), Removed::Nothing);
    // GIVEN nothing but an aggregate that keeps failing: it is tried for as long as it takes.
    world.held_back = OTHERS;
    world.run_until("it failed often", |w| w.tally.retried > 50)?;
    assert_eq!(world.server.db.tables.letters[..2], [None, None]);
    // WHEN others succeed in between.
    while world.server.db.tables.letters[0].is_none() && world.held_back > 0 {
        world.held_back -= 1;
        let retried = world.tally.retried;
        world.run_until("it fails again", |w| {
            w.tally.retried > retried || w.server.db.tables.letters[0].is_some()
        })?;
    }
    // THEN it is parked with what follows it, and progress goes on.
    let parked = Some(Disposition::Parked);
    assert_eq!(world.server.db.tables.letters[0], parked, "given up");
    world.held_back = 0;
    finish(&mut world)?;
    assert_eq!(world.server.db.tables.letters[..2], [parked, parked]);
    assert_eq!(finished(&world, Verdict::Applied), OTHERS as u64);
    Ok(())
}

#[test]
fn a_brake_holds_the_letter_and_all_behind_it_until_it_is_lifted() -> Result<(), Violation> {
    let mut work = Workload::new(1);
    let aggregate = work.aggregate(true, [0, 0]);
    work.append(0, Draft::write(aggregate, Some(1)));
    work.append(0, Draft::write(aggregate, Some(2)).target(Target::Refuses));
    work.append(0, Draft::write(aggregate, Some(3)));
    let mut world = world(work, 1);
    // GIVEN a brake that holds: the partition halts at the poison, again and again.
    world.server.db.braked = true;
    world.run_until("the partition halts", |w| w.tally.halted > 0)?;
    for _ in 0..500 {
        world.step();
        world.verdict()?;
    }
    assert_eq!(world.server.db.tables.letters, [None, None, None]);
    assert_eq!(world.server.db.tables.effects, [1, 0, 0], "what came before took effect");
    assert_eq!(world.tally.halted, 1, "told once");
    // WHEN it is lifted, THEN the letter is written and the rest parked.
    world.server.db.braked = false;
    finish(&mut world)?;
    assert_eq!(finished(&world, Verdict::DeadLettered), 1);
    assert_eq!(finished(&world, Verdict::Parked), 1);
    Ok(())
}

#[test]
fn a_record_to_stop_at_is_neither_passed_nor_lost() -> Result<(), Violation> {
    let mut work = Workload::new(1);
    let aggregate = work.aggregate(true, [0, 0]);
    work.append(0, Draft::write(aggregate, Some(1)));
    work.append(0, Draft::write(aggregate, Some(2)).meaning(Meaning::Halting));
    work.append(0, Draft::write(aggregate, Some(3)));
    work.marker(0);
    let mut world = world(work, 1);
    // GIVEN a configuration that says to stop at the second record.
    world.run_until("the partition halts", |w| w.tally.halted > 0)?;
    for _ in 0..500 {
        world.step();
        world.verdict()?;
    }
    // THEN what stands before it is finished, and progress waits there.
    assert_eq!(world.server.db.tables.streams[0].next, 1);
    // WHEN the operator mends the configuration, THEN all is applied in order.
    world.mend();
    finish(&mut world)?;
    assert_eq!(world.server.db.tables.effects, [1, 1, 1]);
    Ok(())
}

#[test]
fn progress_reaches_the_end_of_a_log_that_ends_in_a_marker() -> Result<(), Violation> {
    let mut work = one_aggregate(2);
    work.marker(0);
    let mut world = world(work, 1);
    finish(&mut world)?;
    assert_eq!(world.server.db.tables.streams[0].next, 3);
    Ok(())
}

#[test]
fn records_that_arrive_while_draining_are_left_for_the_next_start() -> Result<(), Violation> {
    let mut work = one_aggregate(2);
    work.marker(0);
    let mut world = world(work, 1);
    // GIVEN a process that is told to drain while records are on their way to it.
    world.run_until("records are delivered", |w| {
        w.processes
            .iter()
            .any(|p| p.consumer.told.iter().any(|input| matches!(input, Input::Polled(_))))
    })?;
    world.processes[0].draining = true;
    world.give(0, Input::Drain);
    world.swarm.processes = 0;
    world.run_until("it has drained", |w| w.processes.is_empty())?;
    // THEN nothing was passed over, and the next start finishes it.
    assert_eq!(world.server.db.tables.streams[0].next, 0);
    world.swarm.processes = 1;
    finish(&mut world)?;
    assert_eq!(finished(&world, Verdict::Applied), 2);
    Ok(())
}

#[test]
fn what_no_route_matches_is_dead_lettered_alone() -> Result<(), Violation> {
    let mut work = Workload::new(1);
    let aggregate = work.aggregate(true, [0, 0]);
    work.append(0, Draft::write(aggregate, Some(1)).meaning(Meaning::Unmatched));
    work.append(0, Draft::write(aggregate, Some(2)));
    let mut world = world(work, 1);
    finish(&mut world)?;
    let notes: Vec<_> = world.server.db.tables.notes.iter().map(|note| note.unwrap()).collect();
    assert_eq!(notes, [Verdict::DeadLettered, Verdict::Applied]);
    Ok(())
}
