//! One seed's world: a small generator of random numbers, and the mix of sizes, policies and fault
//! rates drawn from it. Every run has its own mix (swarm testing), so that rare combinations occur.

use crate::random::Random;
use crate::verdict::GapPolicy;

/// The dice of a run: the product's own generator, the same on every machine.
#[derive(Debug, Clone)]
pub(super) struct Rng(Random);

impl Rng {
    /// A generator whose whole sequence follows from `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self(Random::seeded(seed.wrapping_mul(0xA076_1D64_78BD_642F) ^ 0xE703_7ED1_A0B4_28DB))
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `n`; 0 for `n == 0`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (((self.next() >> 32) * n as u64) >> 32) as usize
    }

    /// A number in `low..=high`.
    pub(super) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True `rate` times in a thousand.
    pub(super) fn chance(&mut self, rate: u32) -> bool {
        rate > 0 && self.below(1000) < rate as usize
    }
}

/// Rates of faults, each in thousandths of the occasions on which the fault is possible.
#[derive(Debug, Clone, Default)]
pub(super) struct Rates {
    /// A process is killed. An occasion is a step of the scheduler.
    pub(super) kill: u32,
    /// A process is stopped for long (SIGSTOP), to go on later as a zombie. Per step.
    pub(super) stop: u32,
    /// A stopped process goes on. Per step.
    pub(super) resume: u32,
    /// The operator mends the target. Per step.
    pub(super) mend: u32,
    /// The group changes who reads what. Per step.
    pub(super) rebalance: u32,
    /// A session breaks. Per step.
    pub(super) session_loss: u32,
    /// The server crashes and loses commits that were not flushed. Per step.
    pub(super) crash: u32,
    /// The operator stops everything, rewinds offsets, starts again. Per step.
    pub(super) maintenance: u32,
    /// The broker goes back to an earlier committed offset. Per step.
    pub(super) offset_taken_back: u32,
    /// A deadline passes while things are in flight. Per step.
    pub(super) hurry: u32,
    /// Opening a session fails. Per attempt.
    pub(super) open_refused: u32,
    /// A statement fails in a way that goes away. Per statement.
    pub(super) transient: u32,
    /// A take is refused by a lock or a silent broker. Per partition.
    pub(super) take_busy: u32,
    /// Time passes between Kafka's answer and the claim. Per statement.
    pub(super) take_waits: u32,
    /// A take is refused until somebody acts. Per partition.
    pub(super) take_halted: u32,
    /// An offset commit is lost. Per commit.
    pub(super) mirror_lost: u32,
    /// The lead of a broken session was reconnected by something in between. Per crash.
    pub(super) lead_rerouted: u32,
    /// A statement of a broken session still reaches the server. Per statement.
    pub(super) orphan_runs: u32,
    /// What still runs waits: the server passes over a broken session. Per statement.
    pub(super) orphan_waits: u32,
    /// A slow transaction stands still between its reads and its writes. Per statement.
    pub(super) slow_waits: u32,
    /// An answer of a broken session is delivered late instead of never. Per answer.
    pub(super) late_answer: u32,
    /// A late answer waits longer. Per chance to be delivered.
    pub(super) late_waits: u32,
    /// The brake on dead letters trips, or is lifted if it holds. Per step.
    pub(super) brake: u32,
    /// A revocation is not answered within its budget although the process runs. Per revocation.
    pub(super) revoke_timeout: u32,
    /// A member that lost partitions has not heard of it and reads on. Per round of the group.
    pub(super) unaware: u32,
}

/// The shape of one run.
#[derive(Debug, Clone)]
pub(super) struct Swarm {
    /// Partitions of the topic.
    pub(super) partitions: usize,
    /// Processes that may be alive together.
    pub(super) processes: usize,
    /// Number of aggregates.
    pub(super) aggregates: usize,
    /// Number of records in all logs together.
    pub(super) records: usize,
    /// Steps before the faults stop.
    pub(super) steps: usize,
    /// Fast lanes of a session.
    pub(super) lanes: usize,
    /// Groups that may share a fast transaction.
    pub(super) chunk: usize,
    /// Events a group may hold.
    pub(super) events_per_group: usize,
    /// Unfinished records a partition may hold.
    pub(super) unfinished: usize,
    /// What happens when versions are missing.
    pub(super) gaps: GapPolicy,
    /// A value the target refuses goes unnoticed when a later event of the group overwrites it.
    pub(super) folding_hides: bool,
    /// A group that keeps failing while others succeed is given up.
    pub(super) give_up: bool,
    /// Every commit is flushed (`durability = "transaction"`).
    pub(super) synchronous: bool,
    /// Versioned aggregates whose records stand in two partitions, in thousandths.
    pub(super) spread: u32,
    /// Odd records (duplicates, late, conflicts, poison, …) in thousandths.
    pub(super) odd: u32,
    /// The faults.
    pub(super) rates: Rates,
}

impl Swarm {
    /// Draws a shape and a mix of faults.
    pub(super) fn draw(rng: &mut Rng) -> Self {
        Self {
            partitions: rng.between(1, 3),
            processes: rng.between(1, 3),
            aggregates: rng.between(1, 5),
            records: rng.between(8, 60),
            steps: rng.between(100, 900),
            lanes: rng.between(1, 3),
            chunk: if rng.chance(300) { rng.between(2, 3) } else { 1 },
            events_per_group: rng.between(1, 5),
            unfinished: rng.between(3, 24),
            gaps: if rng.chance(300) { GapPolicy::Park } else { GapPolicy::Apply },
            folding_hides: rng.chance(300),
            give_up: rng.chance(600),
            synchronous: rng.chance(150),
            spread: 250,
            odd: if rng.chance(200) { 0 } else { rng.between(50, 500) as u32 },
            rates: Rates::draw(rng),
        }
    }

    /// A world without faults, for scripted scenarios.
    pub(super) fn quiet(partitions: usize, processes: usize) -> Self {
        Self {
            partitions,
            processes,
            aggregates: 0,
            records: 0,
            steps: 0,
            lanes: 2,
            chunk: 1,
            events_per_group: 4,
            unfinished: 64,
            gaps: GapPolicy::Apply,
            folding_hides: false,
            give_up: false,
            synchronous: false,
            spread: 0,
            odd: 0,
            rates: Rates::default(),
        }
    }
}

impl Rates {
    fn draw(rng: &mut Rng) -> Self {
        let mut rate =
            |highest: usize| if rng.chance(450) { 0 } else { rng.between(1, highest) as u32 };
        Self {
            resume: 20,
            mend: 2,
            kill: rate(12),
            stop: rate(12),
            rebalance: rate(25),
            session_loss: rate(25),
            crash: rate(15),
            maintenance: rate(8),
            offset_taken_back: rate(8),
            hurry: rate(60),
            open_refused: rate(300),
            transient: rate(150),
            take_busy: rate(200),
            take_waits: rate(950),
            take_halted: rate(60),
            mirror_lost: rate(400),
            lead_rerouted: rate(600),
            orphan_runs: rate(900),
            orphan_waits: rate(950),
            slow_waits: rate(950),
            late_answer: rate(800),
            late_waits: rate(950),
            brake: rate(20),
            revoke_timeout: rate(300),
            unaware: rate(950),
        }
    }
}
