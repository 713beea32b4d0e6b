//! Exponential back-off with full jitter: a random wait between zero and the doubled ceiling.

use std::time::Duration;

use rand::RngExt;

/// Waits between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Ceiling of the first wait.
    pub initial: Duration,
    /// Ceiling that no wait exceeds.
    pub max: Duration,
}

impl Backoff {
    /// The wait after `attempts` failed attempts (1 or more).
    pub fn wait(&self, attempts: u32, random: &mut impl RngExt) -> Duration {
        let doubled = self.initial.saturating_mul(1_u32 << attempts.saturating_sub(1).min(20));
        let ceiling = doubled.min(self.max);
        ceiling.mul_f64(random.random_range(0.0..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::Xoshiro256PlusPlus;

    use super::*;

    #[test]
    fn the_ceiling_doubles_and_stops_at_the_maximum() {
        let backoff =
            Backoff { initial: Duration::from_millis(100), max: Duration::from_millis(1000) };
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let longest = |attempts, random: &mut Xoshiro256PlusPlus| {
            (0..2000).map(|_| backoff.wait(attempts, random)).max().unwrap_or_default()
        };
        for (attempts, ceiling) in [(1, 100), (2, 200), (4, 800), (5, 1000), (60, 1000)] {
            let wait = longest(attempts, &mut random);
            assert!(wait <= Duration::from_millis(ceiling), "{attempts}: {wait:?}");
            assert!(wait >= Duration::from_millis(ceiling * 9 / 10), "{attempts}: {wait:?}");
        }
    }
}
