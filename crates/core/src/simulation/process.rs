//! One pgsluice process: its coordinator, the real one, and what its shells remember.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::checker::Checker;
use super::model_kafka::Consumer;
use super::model_sessions::ProcessId;
use super::swarm::Swarm;
use super::workload::Workload;
use crate::backoff::Backoff;
use crate::fault::FaultPolicy;
use crate::group::{Group, GroupReply};
use crate::input::{Claim, Input, Lane, MirrorPosition};
use crate::record::{SessionId, TopicPartition};
use crate::state::{State, StateConfig};
use crate::verdict::Verdict;

/// Transactions in flight on the fast lanes.
const FAST_CAPACITY: usize = 4;
/// Requests in flight on the slow lane.
const SLOW_CAPACITY: usize = 2;
/// After so long a group that keeps failing is given up, where a run does so at all.
const GIVE_UP_AFTER: Duration = Duration::from_millis(80);
/// Records' weight that a consumer thread may have delivered and not got back.
const POLL_BUDGET: usize = 16_000;

/// A process.
#[derive(Debug)]
pub(super) struct Process {
    /// Its name; a restart is another process.
    pub(super) id: ProcessId,
    /// The coordinator.
    pub(super) state: State,
    /// It does not run at the moment (SIGSTOP).
    pub(super) stopped: bool,
    /// Its consumer thread.
    pub(super) consumer: Consumer,
    /// Answers of the database that it has not looked at, in no particular order.
    pub(super) inbox: Vec<Input>,
    /// Answers of sessions that are over, which may still come.
    pub(super) late: Vec<Input>,
    /// Sessions to open, and when.
    pub(super) opens: Vec<(SessionId, Duration)>,
    /// The session its coordinator uses.
    pub(super) session: Option<SessionId>,
    /// It was told to drain.
    pub(super) draining: bool,
    /// It has drained.
    pub(super) drained: bool,
    /// Aggregates of groups in flight in the session.
    in_flight: Vec<usize>,
    /// Requests in flight in the session: fast, slow, barriers.
    requests: [usize; 3],
    /// Records whose outcome an answer told, by verdict, and that were not reported yet.
    unreported: [u64; 8],
    /// Weight of records delivered and not given back.
    pub(super) held: usize,
    /// What it was told to take for its own: the publisher's list, and what may be mirrored.
    owned: BTreeMap<TopicPartition, Claim>,
}

impl Process {
    /// A process that was just started.
    pub(super) fn new(id: ProcessId, swarm: &Swarm, seed: u64) -> Self {
        Self {
            id,
            state: State::new(config(swarm), seed),
            stopped: false,
            consumer: Consumer::new(swarm.partitions),
            inbox: Vec::new(),
            late: Vec::new(),
            opens: Vec::new(),
            session: None,
            draining: false,
            drained: false,
            in_flight: Vec::new(),
            requests: [0; 3],
            unreported: [0; 8],
            held: 0,
            owned: BTreeMap::new(),
        }
    }

    /// Its consumer thread has budget left.
    pub(super) fn may_poll(&self) -> bool {
        self.held < POLL_BUDGET && !self.draining
    }

    /// What the shells notice before the coordinator takes an input.
    pub(super) fn before(&mut self, input: &Input, work: &Workload) {
        match input {
            // One that opens late, when a newer one is in use, is closed by the coordinator.
            Input::SessionOpened(id) => self.session = self.session.max(Some(*id)),
            Input::Polled(events) => {
                self.held += events.iter().map(|e| e.weight()).sum::<usize>();
            }
            Input::Replied { session, lane, groups } if self.session == Some(*session) => {
                self.requests[usize::from(*lane == Lane::Slow)] -= 1;
                for (group, reply) in groups {
                    let aggregate = aggregate_of(group, work);
                    if let Some(at) = self.in_flight.iter().position(|a| Some(*a) == aggregate) {
                        self.in_flight.swap_remove(at);
                    }
                    if let GroupReply::Done { verdicts, .. } = reply {
                        verdicts.iter().for_each(|v| self.unreported[index_of_verdict(*v)] += 1);
                    }
                }
            }
            Input::Advanced(session, _) if self.session == Some(*session) => self.requests[2] -= 1,
            _ => {}
        }
    }

    /// The session is over for this process.
    pub(super) fn session_ended(&mut self, id: SessionId) {
        self.opens.retain(|(opening, _)| *opening != id);
        if self.session == Some(id) {
            self.session = None;
            self.in_flight.clear();
            self.requests = [0; 3];
        }
    }

    /// A barrier is sent: one at a time.
    pub(super) fn sends_barrier(&mut self, checker: &mut Checker) {
        let id = self.id;
        self.requests[2] += 1;
        checker.require(self.requests[2] == 1, "barrier", || format!("{id:?} sends two barriers"));
    }

    /// A partition is its own under this claim.
    pub(super) fn owns(&mut self, partition: TopicPartition, claim: Claim) {
        self.consumer.may_mirror(&partition);
        self.owned.insert(partition, claim);
    }

    /// A partition is not its own any more: what is not mirrored yet will not be.
    pub(super) fn disowns(&mut self, partition: &TopicPartition) {
        self.owned.remove(partition);
        self.consumer.forget_mirror(partition);
    }

    /// A position is to be mirrored: only under the claim by which it was reached.
    pub(super) fn mirrors(&self, position: &MirrorPosition, checker: &mut Checker) {
        let owned = self.owned.get(&position.partition);
        let ours = owned
            .is_some_and(|claim| (claim.stream, claim.epoch) == (position.stream, position.epoch));
        let id = self.id;
        checker
            .require(ours, "mirror", || format!("{id:?} mirrors {position:?} and owns {owned:?}"));
    }

    /// A partition is reported as gone: its coordinator must have disowned it before. A commit of it
    /// from now on would be an older owner's.
    pub(super) fn gave_up(&mut self, partition: &TopicPartition, checker: &mut Checker) {
        let id = self.id;
        checker.require(!self.owned.contains_key(partition), "disown", || {
            format!("{id:?} gave {partition} up and has not disowned it")
        });
        self.consumer.must_not_mirror(partition);
    }

    /// Outcomes are reported: only such as an answer of the database told (INV-13).
    pub(super) fn reports(&mut self, verdict: Verdict, count: u64, checker: &mut Checker) {
        let told = &mut self.unreported[index_of_verdict(verdict)];
        let id = self.id;
        checker.require(count <= *told, "INV-13", || {
            format!("{id:?} reports {count} {verdict:?}, the database told {told}")
        });
        *told = told.saturating_sub(count);
    }

    /// Work is sent to a lane: looks whether it may be.
    pub(super) fn sends(
        &mut self,
        lane: Lane,
        session: SessionId,
        groups: &[Group],
        (work, checker): (&Workload, &mut Checker),
    ) {
        let id = self.id;
        let (at, capacity) =
            if lane == Lane::Fast { (0, FAST_CAPACITY) } else { (1, SLOW_CAPACITY) };
        self.requests[at] += 1;
        checker.require(self.requests[at] <= capacity, "INV-11", || {
            format!("{id:?} has more than {capacity} requests in flight")
        });
        checker.require(self.session == Some(session), "session", || {
            format!("{id:?} sends groups through {session:?}, open is {:?}", self.session)
        });
        for group in groups {
            let ascending = group.events.windows(2).all(|w| w[0].offset() < w[1].offset());
            let alike = group.events.iter().all(|e| Group::kind_of(e) == Some(group.kind));
            checker.require(ascending && alike && !group.events.is_empty(), "group", || {
                format!("{id:?} sends a group of {} odd events", group.events.len())
            });
            let Some(aggregate) = aggregate_of(group, work) else { continue };
            checker.require(!self.in_flight.contains(&aggregate), "INV-3", || {
                format!("{id:?} has two groups of aggregate {aggregate} in flight")
            });
            self.in_flight.push(aggregate);
        }
    }

    /// A session is over: the answers that `keeps` says still come, but late.
    pub(super) fn answers_end(&mut self, session: SessionId, mut keeps: impl FnMut() -> bool) {
        let (over, kept): (Vec<_>, Vec<_>) = self.inbox.drain(..).partition(|input| {
            session_of(input) == Some(session) && !matches!(input, Input::SessionLost(..))
        });
        self.inbox = kept;
        self.late.extend(over.into_iter().filter(|_| keeps()));
    }

    /// Nothing is in flight, as far as the shells know.
    pub(super) fn is_quiet(&self) -> bool {
        self.in_flight.is_empty()
    }
}

/// Where a verdict is counted.
pub(super) fn index_of_verdict(verdict: Verdict) -> usize {
    Verdict::ALL.iter().position(|v| *v == verdict).unwrap_or_default()
}

fn aggregate_of(group: &Group, work: &Workload) -> Option<usize> {
    group.aggregate()?;
    work.records[work.of(group.first())].aggregate
}

/// The session an answer belongs to, and whether it may be lost with it.
fn session_of(input: &Input) -> Option<SessionId> {
    match input {
        Input::SessionOpened(id)
        | Input::SessionLost(id, _)
        | Input::Taken(id, _)
        | Input::Advanced(id, _)
        | Input::Replied { session: id, .. } => Some(*id),
        _ => None,
    }
}

/// A one-line description for a replayed run.
pub(super) fn describe(input: &Input) -> String {
    match input {
        Input::Polled(events) => {
            let at: Vec<_> = events
                .iter()
                .map(|e| format!("{}/{}", e.record.partition.partition, e.offset().0))
                .collect();
            format!("Polled {} {:?}", at.join(" "), events[0].record.generation)
        }
        Input::Replied { session, lane, groups } => {
            let lane = if *lane == Lane::Fast { "fast" } else { "slow" };
            let replies: Vec<_> = groups
                .iter()
                .map(|(g, reply)| {
                    let (p, first, last) =
                        (g.origin.partition.partition, g.first().offset().0, g.last().offset().0);
                    format!("{p}/{first}..={last}: {reply:?}")
                })
                .collect();
            format!("Replied {lane} of {session:?}: {}", replies.join(", "))
        }
        other => format!("{other:?}"),
    }
}

fn config(swarm: &Swarm) -> StateConfig {
    let backoff = |initial: u64, max: u64| Backoff {
        initial: Duration::from_millis(initial),
        max: Duration::from_millis(max),
    };
    StateConfig {
        fast_capacity: FAST_CAPACITY,
        slow_capacity: SLOW_CAPACITY,
        aggregates_per_transaction: swarm.chunk,
        events_per_group: swarm.events_per_group,
        groups_per_read: 3,
        unfinished_per_partition: swarm.unfinished,
        gaps: swarm.gaps,
        note_skips: true,
        advance_interval: Duration::from_millis(20),
        revoke_budget: Duration::from_millis(60),
        retry: backoff(5, 40),
        give_up_after: swarm.give_up.then_some(GIVE_UP_AFTER),
        reopen: backoff(5, 40),
        halt: backoff(20, 80),
        retake: Duration::from_millis(10),
        fenced_wait: Duration::from_millis(30),
        decide: Arc::new(|fault| FaultPolicy::default().decide(fault)),
    }
}
