//! Bounds and policies of the coordinator.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::fault::{Decision, Fault};
use crate::verdict::GapPolicy;

use crate::backoff::Backoff;

/// The pure table from fault to decision.
pub type Decide = Arc<dyn Fn(&Fault) -> Decision + Send + Sync>;

/// Bounds and policies of the coordinator.
#[derive(Clone)]
pub struct StateConfig {
    /// Transactions in flight on the fast lanes, all together.
    pub fast_capacity: usize,
    /// Requests in flight on the slow lane.
    pub slow_capacity: usize,
    /// Groups of one route that share a transaction.
    pub aggregates_per_transaction: usize,
    /// Events that fold into one group.
    pub events_per_group: usize,
    /// Groups that one set-based look reads.
    pub groups_per_read: usize,
    /// Records that may run ahead of the oldest unfinished one before a partition is paused.
    pub unfinished_per_partition: usize,
    /// What follows when versions are missing.
    pub gaps: GapPolicy,
    /// Skipped records leave a notification.
    pub note_skips: bool,
    /// Shortest time between two barriers.
    pub advance_interval: Duration,
    /// How long a revocation may wait for groups in flight.
    pub revoke_budget: Duration,
    /// Between attempts of one group.
    pub retry: Backoff,
    /// An aggregate that failed for so long while others of its route succeeded is parked.
    pub give_up_after: Option<Duration>,
    /// Between attempts to open a session.
    pub reopen: Backoff,
    /// Between attempts of a halted partition.
    pub halt: Backoff,
    /// Before a take that could not be had is asked for again.
    pub retake: Duration,
    /// Before a partition with a newer owner is taken again, if it is still assigned by then.
    pub fenced_wait: Duration,
    /// From fault to decision.
    pub decide: Decide,
}

impl fmt::Debug for StateConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateConfig")
            .field("fast_capacity", &self.fast_capacity)
            .field("slow_capacity", &self.slow_capacity)
            .finish_non_exhaustive()
    }
}
