//! For how long an aggregate may fail before it is given up (design §6).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::event::RouteId;
use crate::group::{Group, GroupKind, OrderingKey};
use crate::record::TopicPartition;
use crate::verdict::Verdict;

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
        let began = (group.partition().clone(), now);
        let (_, since) = self.failing.entry(group.order.clone()).or_insert(began);
        *since
    }

    /// A group has its outcomes, one for each event in their order: its key fails no more, and the
    /// routes of what took effect work.
    pub(super) fn finished(&mut self, group: &Group, verdicts: &[Verdict], now: Duration) {
        if !self.failing.is_empty() {
            self.failing.remove(&group.order);
        }
        let mut rest = verdicts;
        for part in group.parts.iter() {
            let (own, behind) = rest.split_at(part.events.len().min(rest.len()));
            rest = behind;
            if let GroupKind::Write(route) = part.kind
                && own.contains(&Verdict::Applied)
            {
                self.succeeded.insert(route, now);
            }
        }
    }

    /// A partition was given up.
    pub(super) fn forget(&mut self, name: &TopicPartition) {
        self.failing.retain(|_, (of, _)| of != name);
    }

    /// Whether a group that fails now has failed for long enough: another aggregate of each of its
    /// routes took effect since its last attempt, so the fault is neither the server's nor a route's.
    pub(super) fn is_exhausted(
        &self,
        group: &Group,
        now: Duration,
        limit: Option<Duration>,
    ) -> bool {
        let (Some(failure), Some(limit)) = (&group.failure, limit) else { return false };
        let works = |route| self.succeeded.get(&route).is_some_and(|at| *at >= failure.last);
        let others = group.routes().next().is_some() && group.routes().all(works);
        failure.exhausted || (others && now.saturating_sub(failure.since) >= limit)
    }

    /// Partitions with a key that fails, for [`super::State::check`].
    #[cfg(test)]
    pub(super) fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.failing.values().map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, FaultKind};
    use crate::group::{Failure, Part, Source};
    use crate::state::work::tests::{event, group};

    const LIMIT: Duration = Duration::from_secs(10);

    fn part(id: &str, route: u16, offset: i64) -> Part {
        Part::new(GroupKind::Write(RouteId(route)), event(id, route, offset))
    }

    /// A group of two routes that failed first at the start and last at second 5.
    fn failing() -> Group {
        let mut group = group("a", 0, 1);
        group.parts.rest.push(part("b", 1, 2));
        let (since, last) = (Duration::ZERO, Duration::from_secs(5));
        let fault = Fault::new(FaultKind::Connection);
        let failure = Failure { attempts: 2, since, last, exhausted: false, fault };
        group.failure = Some(Box::new(failure));
        group
    }

    #[test]
    fn a_group_is_given_up_only_while_every_route_of_it_works() {
        let (group, now) = (failing(), Duration::from_secs(20));
        let mut patience = Patience::default();
        assert!(!patience.is_exhausted(&group, now, Some(LIMIT)), "no route works");
        let mut other = self::group("c", 0, 3);
        patience.finished(&other, &[Verdict::Applied], now);
        assert!(!patience.is_exhausted(&group, now, Some(LIMIT)), "one route works");
        other.parts.rest.push(part("d", 1, 4));
        patience.finished(&other, &[Verdict::Applied, Verdict::Stale], now);
        assert!(
            !patience.is_exhausted(&group, now, Some(LIMIT)),
            "nothing of the other one applied"
        );
        patience.finished(&other, &[Verdict::Stale, Verdict::Applied], now);
        assert!(patience.is_exhausted(&group, now, Some(LIMIT)));
    }

    #[test]
    fn what_writes_through_no_route_is_never_given_up() {
        let mut group = failing();
        group.parts = Part { kind: GroupKind::Poison, ..part("a", 0, 1) }.into();
        let source = matches!(group.source, Source::Delivered(_));
        assert!(source && !Patience::default().is_exhausted(&group, LIMIT * 2, Some(LIMIT)));
    }
}
