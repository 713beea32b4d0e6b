//! The random runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use super::scheduler::{Removed, Tally, World};
use super::swarm::{Rng, Swarm};
use super::workload::generate;
use crate::guard::without;

/// Seeds tried by default.
const SEEDS: u64 = 10_000;
/// Threads that try them.
const THREADS: usize = 2;

/// Runs one seed; the error says which promise was broken. `weather` changes the mix that was drawn.
pub(super) fn run(
    seed: u64,
    removed: Removed,
    weather: fn(&mut Swarm),
    trace: bool,
) -> Result<Tally, String> {
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        without(removed.core(), || {
            let mut rng = Rng::new(seed);
            let mut swarm = Swarm::draw(&mut rng);
            weather(&mut swarm);
            let work = generate(&swarm, &mut rng);
            let mut world = World::new(swarm, work, rng, removed);
            world.trace = trace;
            world.storm().and_then(|()| world.calm()).map(|()| world.tally)
        })
    }));
    match attempt {
        Ok(Ok(tally)) => Ok(tally),
        Ok(Err(violation)) => Err(violation.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("panic: {}", text.unwrap_or("without words")))
        }
    }
}

/// The mix as it was drawn.
pub(super) fn any_weather(_: &mut Swarm) {}

/// How to see a failed seed again.
fn report(seed: u64, broken: &str) -> String {
    format!(
        "seed {seed} broke {broken}\nreplay: PGSLUICE_SIM_SEED={seed} cargo test --lib \
         simulation::runs -- --nocapture"
    )
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number of seeds or a seed"))
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.kills += other.kills;
        self.zombies += other.zombies;
        self.sessions_lost += other.sessions_lost;
        self.commits_lost += other.commits_lost;
        self.rebalances += other.rebalances;
        self.revocations_unanswered += other.revocations_unanswered;
        self.rewinds += other.rewinds;
        self.drains += other.drains;
        self.fenced += other.fenced;
        self.halted += other.halted;
        self.retried += other.retried;
        self.late_answers += other.late_answers;
        for (sum, count) in self.finished.iter_mut().zip(other.finished) {
            *sum += count;
        }
    }
}

/// Proves INV-1, INV-3, INV-4, INV-5, INV-8, INV-10, INV-11 and INV-13.
#[test]
fn every_interleaving_keeps_the_promise() {
    if let Some(seed) = number("PGSLUICE_SIM_SEED") {
        run(seed, Removed::Nothing, any_weather, true)
            .unwrap_or_else(|broken| panic!("{}", report(seed, &broken)));
        return;
    }
    let seeds = number("PGSLUICE_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let work = || {
        let mut sum = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return Ok(sum);
            }
            match run(seed, Removed::Nothing, any_weather, false) {
                Ok(tally) => sum.add(&tally),
                Err(broken) => {
                    next.store(seeds, Ordering::Relaxed);
                    return Err(report(seed, &broken));
                }
            }
        }
    };
    let results: Vec<Result<Tally, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|t| t.join().expect("runs catch their panics")).collect()
    });
    let mut sum = Tally::default();
    for result in results {
        match result {
            Ok(tally) => sum.add(&tally),
            Err(report) => panic!("{report}"),
        }
    }
    println!("{seeds} seeds: {sum:?}");
    enough_happened(seeds, &sum);
}

/// A run in which little happens proves little.
fn enough_happened(seeds: u64, sum: &Tally) {
    if seeds < 1000 {
        return;
    }
    let happened = [
        ("kills", sum.kills),
        ("zombies", sum.zombies),
        ("lost sessions", sum.sessions_lost),
        ("lost commits", sum.commits_lost),
        ("rebalances", sum.rebalances),
        ("unanswered revocations", sum.revocations_unanswered),
        ("rewinds", sum.rewinds),
        ("drains", sum.drains),
        ("fenced partitions", sum.fenced),
        ("halted partitions", sum.halted),
        ("retries", sum.retried),
        ("late answers", sum.late_answers),
        ("applied", sum.finished[0]),
        ("duplicates", sum.finished[2]),
        ("stale", sum.finished[3]),
        ("skipped", sum.finished[4]),
        ("dead letters", sum.finished[5]),
        ("parked", sum.finished[6]),
    ];
    for (what, count) in happened {
        assert!(count > seeds / 100, "only {count} {what} in {seeds} seeds");
    }
}
