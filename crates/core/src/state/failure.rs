//! What follows from a group that failed.

use crate::fault::{Decision, Fault};
use crate::group::{Failure, Group, GroupKind};
use crate::record::SessionId;

use super::State;
use crate::input::{Action, Lane, Report};
use crate::partition::Phase;

impl State {
    pub(super) fn on_failed(
        &mut self,
        session: SessionId,
        lane: Lane,
        mut group: Group,
        fault: Fault,
    ) {
        let name = group.origin.partition.clone();
        let decision = (self.config.decide)(&fault);
        self.out.push(Action::Report(Report::Failed(decision, fault.clone())));
        match decision {
            Decision::WaitForDatabase => {
                self.discard(group);
                self.lose_session(session, fault);
            }
            Decision::Stop => {
                self.discard(group);
                self.out.push(Action::Stop(fault));
            }
            Decision::Halt(reason) => {
                let at = Some(group.first().offset());
                self.discard(group);
                self.halt(&name, reason, Some(fault), at);
            }
            Decision::RetryAfter | Decision::Isolate(_) => {
                let first = group.failure.is_none();
                let attempts = group.failure.as_ref().map_or(0, |f| f.attempts) + 1;
                let began = (name.clone(), self.now);
                let (_, since) = *self.failing.entry(group.order.clone()).or_insert(began);
                let exhausted = self.exhausted(&group);
                self.out.push(Action::Report(Report::Retry {
                    partition: name.clone(),
                    attempts,
                    fault: fault.clone(),
                }));
                group.failure = Some(Failure { attempts, since, last: self.now, exhausted, fault });
                let reading = self.partitions.get(&name).is_some_and(|p| p.phase == Phase::Reading);
                if !reading {
                    self.discard(group);
                } else if first && lane == Lane::Fast {
                    // The slow lane has the patience that a shared connection must not have.
                    self.to_resolve.push_back(group);
                } else {
                    let wait = self.config.retry.wait(attempts, &mut self.random);
                    self.retries.push((self.now + wait, group));
                }
            }
        }
    }

    /// Whether a group that fails now has failed for long enough: another aggregate of its route
    /// took effect since its last attempt, so the fault is neither the server's nor the route's.
    fn exhausted(&self, group: &Group) -> bool {
        let (Some(failure), Some(limit)) = (&group.failure, self.config.give_up_after) else {
            return false;
        };
        let GroupKind::Write(route) = group.kind else { return false };
        let others = self.succeeded.get(&route).is_some_and(|at| *at >= failure.last);
        failure.exhausted || (others && self.now.saturating_sub(failure.since) >= limit)
    }
}
