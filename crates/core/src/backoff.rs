//! Exponential back-off, with full jitter (a random wait between zero and the doubled ceiling) where
//! many may wait for the same thing, and without where one waits alone.

use std::time::Duration;

use crate::random::Random;

/// Waits between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Ceiling of the first wait.
    pub initial: Duration,
    /// Ceiling that no wait exceeds.
    pub max: Duration,
}

impl Backoff {
    /// The longest wait after `attempts` failed attempts (1 or more): the one without jitter.
    pub fn ceiling(&self, attempts: u32) -> Duration {
        let doubled = self.initial.saturating_mul(1_u32 << attempts.saturating_sub(1).min(20));
        doubled.min(self.max)
    }

    /// A random wait after `attempts` failed attempts (1 or more).
    pub fn wait(&self, attempts: u32, random: &mut Random) -> Duration {
        let ceiling = u64::try_from(self.ceiling(attempts).as_nanos()).unwrap_or(u64::MAX);
        // A random 64-bit fraction of the ceiling: the high half of the product.
        let product = u128::from(ceiling) * u128::from(random.next_u64());
        Duration::from_nanos(u64::try_from(product >> 64).unwrap_or(ceiling))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_and_stops_at_the_maximum() {
        let backoff =
            Backoff { initial: Duration::from_millis(100), max: Duration::from_millis(1000) };
        let mut random = Random::seeded(1);
        let longest = |attempts, random: &mut Random| {
            (0..2000).map(|_| backoff.wait(attempts, random)).max().unwrap_or_default()
        };
        for (attempts, ceiling) in [(1, 100), (2, 200), (4, 800), (5, 1000), (60, 1000)] {
            let wait = longest(attempts, &mut random);
            assert!(wait <= Duration::from_millis(ceiling), "{attempts}: {wait:?}");
            assert!(wait >= Duration::from_millis(ceiling * 9 / 10), "{attempts}: {wait:?}");
        }
    }

    #[test]
    fn waits_of_a_seed_stay_what_they_are() {
        let backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(60) };
        let mut random = Random::seeded(7);
        let waits: Vec<Duration> = (1..5).map(|n| backoff.wait(n, &mut random)).collect();
        let short: Vec<u128> = waits.iter().map(Duration::as_millis).collect();
        assert_eq!(short, [389, 33, 3603, 4663]);
    }
}
