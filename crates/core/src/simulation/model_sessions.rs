//! Connections to Postgres: sessions of one lead, fast lanes and slow connections, each a queue in
//! order. What a broken session had sent may still run later, or never, and nobody hears of it.

use std::collections::VecDeque;
use std::rc::Rc;

use super::checker::{Checker, Writer};
use super::model_kafka::Broker;
use super::model_postgres::{Database, LOCK_NOT_AVAILABLE, TRANSIENT, server_fault};
use super::model_statement::ModelGuard;
use super::model_transaction::Begun;
use super::swarm::{Rates, Rng};
use super::workload::{Workload, index_of, stream_of};
use crate::fault::{Fault, FaultKind};
use crate::group::{Group, GroupReply, Progress};
use crate::input::{Claim, Input, Lane, TakeReply};
use crate::position::{KafkaPosition, Start, start_position};
use crate::record::{Anchor, Generation, OwnerEpoch, SessionId, TopicPartition};
use crate::verdict::Reason;

/// A process that ran or runs; restarts get new numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProcessId(pub(super) u32);

#[derive(Debug)]
enum Lead {
    /// Kafka is asked first what it knows; once more where its answer does not fit the claim.
    Ask(Asked, Vec<(TopicPartition, Generation)>),
    Claim(Asked, Vec<Request>),
    /// Positions that are not the database's are written, then the take is answered.
    Settle(Asked, Vec<(Request, Result<Granted, TakeReply>)>),
    Advance(Vec<Progress>),
}

/// How often Kafka was asked for one take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Once,
    Twice,
}

#[derive(Debug)]
struct Request {
    partition: TopicPartition,
    generation: Generation,
    kafka: KafkaPosition,
}

#[derive(Debug)]
struct Granted {
    epoch: OwnerEpoch,
    anchor: Option<Anchor>,
    start: Start,
}

#[derive(Debug)]
enum Slow {
    Read(Vec<Group>),
    Resolve(Group),
    /// Row read and locked; everything else follows.
    Begun(Group, Begun),
    /// The client is gone, its row lock is not.
    Abandoned(usize),
}

#[derive(Debug)]
struct Session {
    owner: ProcessId,
    id: SessionId,
    /// The server it was opened on; a crash makes a new one.
    server: u32,
    /// The client still listens.
    open: bool,
    lead: VecDeque<Lead>,
    lanes: Vec<VecDeque<Vec<Group>>>,
    slow: Vec<Slow>,
}

/// The server with everything connected to it.
#[derive(Debug)]
pub(super) struct Server {
    /// The tables.
    pub(super) db: Database,
    sessions: Vec<Session>,
    /// Rises with every crash: locks of the one before are gone.
    life: u32,
    /// Aggregates whose row a slow transaction has locked.
    locked: Vec<bool>,
    lanes: usize,
}

/// What a step of the server needs of the world around it.
pub(super) struct Around<'a> {
    /// The checker.
    pub(super) checker: &'a mut Checker,
    /// Kafka, for the committed offsets.
    pub(super) broker: &'a mut Broker,
    /// The dice.
    pub(super) rng: &'a mut Rng,
    /// The rates.
    pub(super) rates: &'a Rates,
}

/// An answer on its way to a process.
pub(super) type Answer = (ProcessId, Input);

impl Server {
    /// A server with empty tables.
    pub(super) fn new(work: &Rc<Workload>, removed: Option<ModelGuard>, lanes: usize) -> Self {
        Self {
            db: Database::new(work, removed),
            sessions: Vec::new(),
            life: 0,
            locked: vec![false; work.aggregates.len()],
            lanes,
        }
    }

    /// Opens a session.
    pub(super) fn open(&mut self, owner: ProcessId, id: SessionId) {
        self.sessions.push(Session {
            owner,
            id,
            server: self.life,
            open: true,
            lead: VecDeque::new(),
            lanes: (0..self.lanes).map(|_| VecDeque::new()).collect(),
            slow: Vec::new(),
        });
    }

    fn session(&mut self, owner: ProcessId, id: SessionId) -> Option<&mut Session> {
        let life = self.life;
        self.sessions
            .iter_mut()
            .find(|s| s.owner == owner && s.id == id && s.open && s.server == life)
    }

    /// Sends a request for ownership.
    pub(super) fn send_take(
        &mut self,
        owner: ProcessId,
        id: SessionId,
        partitions: Vec<(TopicPartition, Generation)>,
    ) {
        if let Some(session) = self.session(owner, id) {
            session.lead.push_back(Lead::Ask(Asked::Once, partitions));
        }
    }

    /// A take waits between Kafka's answer and its claim.
    pub(super) fn claims_wait(&self) -> bool {
        let leads = self.sessions.iter().flat_map(|s| s.lead.front());
        leads.into_iter().any(|statement| matches!(statement, Lead::Claim(..)))
    }

    /// Sends the barrier. A lead that something in between reconnected takes it too.
    pub(super) fn send_advance(
        &mut self,
        owner: ProcessId,
        id: SessionId,
        progress: Vec<Progress>,
    ) {
        let session = self.sessions.iter_mut().find(|s| s.owner == owner && s.id == id && s.open);
        if let Some(session) = session {
            session.lead.push_back(Lead::Advance(progress));
        }
    }

    /// Sends groups to one fast lane.
    pub(super) fn send_apply(
        &mut self,
        owner: ProcessId,
        id: SessionId,
        groups: Vec<Group>,
        rng: &mut Rng,
    ) {
        if let Some(session) = self.session(owner, id) {
            let lane = rng.below(session.lanes.len());
            session.lanes[lane].push_back(groups);
        }
    }

    /// Asks the slow lane to look at refused groups.
    pub(super) fn send_read(&mut self, owner: ProcessId, id: SessionId, groups: Vec<Group>) {
        if let Some(session) = self.session(owner, id) {
            session.slow.push(Slow::Read(groups));
        }
    }

    /// Asks the slow lane to decide one group.
    pub(super) fn send_resolve(&mut self, owner: ProcessId, id: SessionId, group: Group) {
        if let Some(session) = self.session(owner, id) {
            session.slow.push(Slow::Resolve(group));
        }
    }

    /// The client closed its connections or lost them: of what it sent, some still runs.
    pub(super) fn cut(&mut self, owner: ProcessId, id: SessionId, rng: &mut Rng, rates: &Rates) {
        let Some(at) = self.sessions.iter().position(|s| s.owner == owner && s.id == id && s.open)
        else {
            return;
        };
        let work = Rc::clone(&self.db.work);
        let session = &mut self.sessions[at];
        session.open = false;
        let mut arrived =
            |sent: usize| (0..sent).take_while(|_| rng.chance(rates.orphan_runs)).count();
        session.lead.truncate(arrived(session.lead.len()));
        session.lead.retain(|statement| !matches!(statement, Lead::Ask(..)));
        for lane in &mut session.lanes {
            lane.truncate(arrived(lane.len()));
        }
        let slow = std::mem::take(&mut session.slow);
        session.slow = slow
            .into_iter()
            .filter_map(|step| match step {
                Slow::Begun(group, begun) if arrived(1) == 1 => Some(Slow::Begun(group, begun)),
                Slow::Begun(group, begun) if begun.holds_lock => {
                    work.records[work.of(group.first())].aggregate.map(Slow::Abandoned)
                }
                Slow::Begun(..) => None,
                Slow::Abandoned(aggregate) => Some(Slow::Abandoned(aggregate)),
                Slow::Read(_) | Slow::Resolve(_) => None,
            })
            .collect();
    }

    /// Cuts every session of a process.
    pub(super) fn cut_all(&mut self, owner: ProcessId, rng: &mut Rng, rates: &Rates) {
        let ids: Vec<_> =
            self.sessions.iter().filter(|s| s.owner == owner && s.open).map(|s| s.id).collect();
        for id in ids {
            self.cut(owner, id, rng, rates);
        }
    }

    /// The server crashes: connections, locks and unflushed commits are gone. The lead of a session
    /// may be reconnected without its client noticing.
    pub(super) fn crash(&mut self, rng: &mut Rng, rates: &Rates) -> usize {
        self.life += 1;
        self.locked.fill(false);
        self.sessions.retain_mut(|session| {
            session.lanes.iter_mut().for_each(VecDeque::clear);
            session.slow.clear();
            session.lead.retain(|statement| matches!(statement, Lead::Advance(_)));
            session.open && rng.chance(rates.lead_rerouted)
        });
        self.db.crash(rng)
    }

    /// Runs the next statement of some connection. Returns whether there was one.
    pub(super) fn step(&mut self, around: &mut Around<'_>, answers: &mut Vec<Answer>) -> bool {
        self.sessions.retain(|s| s.open || !s.is_idle());
        let busy: usize = self.sessions.iter().map(Session::connections).sum();
        if busy == 0 {
            return false;
        }
        let mut pick = around.rng.below(busy);
        for at in 0..self.sessions.len() {
            let count = self.sessions[at].connections();
            if pick < count {
                if !self.sessions[at].open && around.rng.chance(around.rates.orphan_waits) {
                    return true;
                }
                self.run(at, pick, around, answers);
                return true;
            }
            pick -= count;
        }
        false
    }

    fn run(&mut self, at: usize, pick: usize, around: &mut Around<'_>, answers: &mut Vec<Answer>) {
        let session = &mut self.sessions[at];
        let (owner, id, open) = (session.owner, session.id, session.open);
        let mut pick = pick;
        let mut answer = None;
        if !session.lead.is_empty() {
            if pick == 0 {
                answer = self.run_lead(at, around);
                answers.extend(answer.filter(|_| open).map(|input| (owner, input)));
                return;
            }
            pick -= 1;
        }
        let lane = session.lanes.iter().enumerate().filter(|(_, l)| !l.is_empty()).nth(pick);
        if let Some((lane, _)) = lane {
            if let Some(groups) = self.run_lane(at, lane, around) {
                answer = Some(Input::Replied { session: id, lane: Lane::Fast, groups });
            }
        } else {
            pick -= session.lanes.iter().filter(|l| !l.is_empty()).count();
            if let Some(groups) = self.run_slow(at, pick, around) {
                answer = Some(Input::Replied { session: id, lane: Lane::Slow, groups });
            }
        }
        answers.extend(answer.filter(|_| open).map(|input| (owner, input)));
    }

    fn run_lead(&mut self, at: usize, around: &mut Around<'_>) -> Option<Input> {
        let session = &mut self.sessions[at];
        let (id, server, open) = (session.id, session.server, session.open);
        match session.lead.pop_front()? {
            Lead::Ask(asked, partitions) => {
                let ask = |(partition, generation)| {
                    let kafka = around.broker.position(index_of(&partition));
                    Request { partition, generation, kafka }
                };
                let requests = partitions.into_iter().map(ask).collect();
                session.lead.push_front(Lead::Claim(asked, requests));
                None
            }
            Lead::Claim(asked, requests) if around.rng.chance(around.rates.take_waits) => {
                session.lead.push_front(Lead::Claim(asked, requests));
                None
            }
            Lead::Claim(asked, requests) => {
                let granted = requests
                    .into_iter()
                    .map(|request| {
                        let granted = self.claim(&request, around);
                        (request, granted)
                    })
                    .collect();
                // What follows is sent by a client that got the answer.
                if open {
                    self.sessions[at].lead.push_front(Lead::Settle(asked, granted));
                }
                None
            }
            Lead::Settle(asked, granted) => self.answer_take(at, asked, granted, around.checker),
            Lead::Advance(progress) => {
                if server != self.life && self.db.keeps(ModelGuard::LockCheck) {
                    return Some(Input::SessionLost(id, Fault::new(FaultKind::LockNotSeen)));
                }
                let advanced = self.db.advance(&progress, around.checker);
                Some(Input::Advanced(id, advanced.into_iter().map(stream_of).collect()))
            }
        }
    }

    fn answer_take(
        &mut self,
        at: usize,
        asked: Asked,
        granted: Vec<(Request, Result<Granted, TakeReply>)>,
        checker: &mut Checker,
    ) -> Option<Input> {
        let mut doubted = Vec::new();
        let mut replies = Vec::new();
        for (Request { partition, generation, .. }, granted) in granted {
            let index = index_of(&partition);
            match granted {
                Ok(Granted { start: Start::Halt(Reason::LogChanged), .. })
                    if asked == Asked::Once && self.db.keeps(ModelGuard::EndAskedAgain) =>
                {
                    doubted.push((partition, generation));
                }
                Ok(granted) => {
                    let reply = self.settle(index, &granted, checker);
                    replies.push((partition, generation, reply));
                }
                Err(refused) => replies.push((partition, generation, refused)),
            }
        }
        let session = &mut self.sessions[at];
        if !doubted.is_empty() {
            session.lead.push_front(Lead::Ask(Asked::Twice, doubted));
        }
        Some(Input::Taken(session.id, replies))
    }

    fn claim(&mut self, request: &Request, around: &mut Around<'_>) -> Result<Granted, TakeReply> {
        if around.rng.chance(around.rates.take_busy) {
            return Err(TakeReply::Busy);
        }
        if around.rng.chance(around.rates.take_halted) {
            return Err(TakeReply::Halted(Reason::NoPosition, None));
        }
        let partition = index_of(&request.partition);
        let (epoch, next, anchor) = self.db.claim(partition, around.checker);
        // The decision is the product's own.
        Ok(Granted { epoch, anchor, start: start_position(next, &request.kafka) })
    }

    fn settle(&mut self, partition: usize, granted: &Granted, checker: &mut Checker) -> TakeReply {
        let (stream, epoch) = (stream_of(partition), granted.epoch);
        match granted.start {
            Start::Halt(reason) => {
                checker.require(false, "take", || format!("{partition} halts: {reason:?}"));
                TakeReply::Halted(reason, None)
            }
            Start::Resume(next) => {
                TakeReply::Claimed(Claim { stream, epoch, next, anchor: granted.anchor })
            }
            Start::Move(next, _) => {
                if self.db.reposition(Writer { partition, epoch }, next, checker) {
                    TakeReply::Claimed(Claim { stream, epoch, next, anchor: None })
                } else {
                    TakeReply::Busy
                }
            }
        }
    }

    fn run_lane(
        &mut self,
        at: usize,
        lane: usize,
        around: &mut Around<'_>,
    ) -> Option<Vec<(Group, GroupReply)>> {
        let groups = self.sessions[at].lanes[lane].pop_front()?;
        let locked = groups.iter().any(|g| self.lock_of(g).is_some_and(|a| self.locked[a]));
        let refused = transient(around);
        let replies = match locked.then_some(LOCK_NOT_AVAILABLE).or(refused) {
            Some(code) => self.db.unwritten(&server_fault(code), &groups),
            None => self.db.apply(&groups, around.checker),
        };
        Some(groups.into_iter().zip(replies).collect())
    }

    fn run_slow(
        &mut self,
        at: usize,
        pick: usize,
        around: &mut Around<'_>,
    ) -> Option<Vec<(Group, GroupReply)>> {
        let failed = |group, code| Some(vec![(group, GroupReply::Failed(server_fault(code)))]);
        match self.sessions[at].slow.swap_remove(pick) {
            Slow::Read(groups) => {
                let replies = self.db.read(&groups);
                Some(groups.into_iter().zip(replies).collect())
            }
            Slow::Resolve(group) => {
                if let Some(code) = transient(around) {
                    return failed(group, code);
                }
                if group.is_skip() {
                    let reply = self.db.note_skips(&group);
                    return Some(vec![(group, reply)]);
                }
                // `for update` locks a row that exists; a missing one cannot be locked.
                let lock = self.lock_of(&group);
                if lock.is_some_and(|a| self.locked[a]) {
                    return failed(group, LOCK_NOT_AVAILABLE);
                }
                if let Some(aggregate) = lock {
                    self.locked[aggregate] = true;
                }
                let begun = self.db.begin(&group);
                self.sessions[at].slow.push(Slow::Begun(group, begun));
                None
            }
            Slow::Begun(group, begun) if around.rng.chance(around.rates.slow_waits) => {
                self.sessions[at].slow.push(Slow::Begun(group, begun));
                None
            }
            Slow::Begun(group, begun) => {
                let lock = self.db.aggregate_of(&group).filter(|_| begun.holds_lock);
                let reply = self.db.follow(&group, begun, around.checker);
                if let Some(aggregate) = lock {
                    self.locked[aggregate] = false;
                }
                Some(vec![(group, reply)])
            }
            Slow::Abandoned(aggregate) => {
                self.locked[aggregate] = false;
                None
            }
        }
    }

    /// The aggregate whose row the group would have to lock.
    fn lock_of(&self, group: &Group) -> Option<usize> {
        self.db.aggregate_of(group).filter(|&a| self.db.tables.ledger[a].is_some())
    }
}

/// The code of a failure that goes away by itself, if the dice want one.
fn transient(around: &mut Around<'_>) -> Option<&'static [u8; 5]> {
    let fails = around.rng.chance(around.rates.transient);
    fails.then(|| TRANSIENT[around.rng.below(TRANSIENT.len())])
}

impl Session {
    fn is_idle(&self) -> bool {
        self.connections() == 0
    }

    /// Connections with something to run.
    fn connections(&self) -> usize {
        usize::from(!self.lead.is_empty())
            + self.lanes.iter().filter(|l| !l.is_empty()).count()
            + self.slow.len()
    }
}
