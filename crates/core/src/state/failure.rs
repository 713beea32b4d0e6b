//! What follows from a group that failed.

use crate::fault::{Decision, Fault};
use crate::group::{Failure, Group};
use crate::record::SessionId;

use super::State;
use super::partition::Phase;
use crate::input::{Action, Lane, Report};

impl State {
    pub(super) fn on_failed(
        &mut self,
        session: SessionId,
        lane: Lane,
        mut group: Group,
        fault: Fault,
    ) {
        let name = group.partition().clone();
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
                let since = self.patience.failed(&group, self.now);
                let limit = self.config.give_up_after;
                let exhausted = self.patience.is_exhausted(&group, self.now, limit);
                self.out.push(Action::Report(Report::Retry {
                    partition: name.clone(),
                    attempts,
                    fault: fault.clone(),
                }));
                let last = self.now;
                let failure = Failure { attempts, since, last, exhausted, fault };
                group.failure = Some(Box::new(failure));
                let reading = self.partitions.get(&name).is_some_and(|p| p.phase == Phase::Reading);
                if !reading {
                    self.discard(group);
                } else if first && lane == Lane::Fast {
                    // The slow lane has the patience that a shared connection must not have.
                    self.work.resolve(group);
                } else {
                    let wait = self.config.retry.wait(attempts, &mut self.random);
                    self.work.retry(self.now + wait, group);
                }
            }
        }
    }
}
