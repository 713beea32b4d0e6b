//! For how long an aggregate may fail before it is given up (design §6).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::event::RouteId;
use crate::group::{Group, GroupKind, OrderingKey};
use crate::record::TopicPartition;

/// Who fails since when, and which routes work.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// When an aggregate of each route took effect last.
    succeeded: BTreeMap<RouteId, Duration>,
    /// Since when keys fail, and in which partition. Survives sessions: one that comes and goes
    /// must not keep an aggregate from being given up.
    failing: HashMap<OrderingKey, (TopicPartition, Duration)>,
}

impl Patience {
    /// A group failed. Returns when its key failed first.
    pub(super) fn failed(&mut self, group: &Group, now: Duration) -> Duration {
        let began = (group.origin.partition.clone(), now);
        let (_, since) = self.failing.entry(group.order.clone()).or_insert(began);
        *since
    }

    /// A group has its outcome.
    pub(super) fn finished(&mut self, order: &OrderingKey) {
        if !self.failing.is_empty() {
            self.failing.remove(order);
        }
    }

    /// An aggregate of a route took effect.
    pub(super) fn succeeded(&mut self, route: RouteId, now: Duration) {
        self.succeeded.insert(route, now);
    }

    /// A partition was given up.
    pub(super) fn forget(&mut self, name: &TopicPartition) {
        self.failing.retain(|_, (of, _)| of != name);
    }

    /// Whether a group that fails now has failed for long enough: another aggregate of its route
    /// took effect since its last attempt, so the fault is neither the server's nor the route's.
    pub(super) fn is_exhausted(
        &self,
        group: &Group,
        now: Duration,
        limit: Option<Duration>,
    ) -> bool {
        let (Some(failure), Some(limit)) = (&group.failure, limit) else { return false };
        let GroupKind::Write(route) = group.kind else { return false };
        let others = self.succeeded.get(&route).is_some_and(|at| *at >= failure.last);
        failure.exhausted || (others && now.saturating_sub(failure.since) >= limit)
    }

    /// Partitions with a key that fails, for [`super::State::check`].
    #[cfg(test)]
    pub(super) fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.failing.values().map(|(name, _)| name)
    }
}
