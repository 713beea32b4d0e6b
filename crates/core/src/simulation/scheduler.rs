//! The world of one run, and who moves next. Every choice comes from the seed.

use std::rc::Rc;
use std::time::Duration;

use super::checker::{Checker, Violation};
use super::model_kafka::{Broker, Command, Surroundings};
use super::model_sessions::{Answer, Around, ProcessId, Server};
use super::model_statement::ModelGuard;
use super::oracle::RunFacts;
use super::process::{Process, describe, index_of_verdict};
use super::swarm::{Rates, Rng, Swarm};
use super::workload::Workload;
use crate::fault::{Fault, FaultKind};
use crate::guard::Guard;
use crate::input::{Action, Input, Lane, Report};
use crate::record::SessionId;

/// How often things happened, over one or many runs.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) steps: u64,
    pub(super) kills: u64,
    pub(super) zombies: u64,
    pub(super) sessions_lost: u64,
    pub(super) commits_lost: u64,
    pub(super) rebalances: u64,
    pub(super) revocations_unanswered: u64,
    pub(super) rewinds: u64,
    pub(super) drains: u64,
    pub(super) fenced: u64,
    pub(super) halted: u64,
    pub(super) retried: u64,
    pub(super) late_answers: u64,
    /// Finished records by verdict, in the order of [`crate::verdict::Verdict::ALL`].
    pub(super) finished: [u64; 8],
}

/// What to leave out of a run, to see whether somebody notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removed {
    /// Everything is in place.
    Nothing,
    /// A guard of the product.
    Core(Guard),
    /// A guard of the models.
    Model(ModelGuard),
}

impl Removed {
    /// The guard of the product that is left out.
    pub(super) fn core(self) -> Option<Guard> {
        match self {
            Self::Core(guard) => Some(guard),
            Self::Nothing | Self::Model(_) => None,
        }
    }

    fn model(self) -> Option<ModelGuard> {
        match self {
            Self::Model(guard) => Some(guard),
            Self::Nothing | Self::Core(_) => None,
        }
    }
}

/// Everything there is in one run.
#[derive(Debug)]
pub(super) struct World {
    pub(super) work: Rc<Workload>,
    pub(super) swarm: Swarm,
    pub(super) rates: Rates,
    pub(super) rng: Rng,
    pub(super) now: Duration,
    pub(super) server: Server,
    pub(super) broker: Broker,
    pub(super) checker: Checker,
    pub(super) processes: Vec<Process>,
    pub(super) tally: Tally,
    /// The operator is stopping everything.
    pub(super) maintenance: bool,
    /// Entries at the end of each log that are not produced yet.
    pub(super) held_back: usize,
    /// Prints what happens.
    pub(super) trace: bool,
    /// No guard is missing: the coordinator's books are looked at after each input.
    whole: bool,
    started: u32,
    idle: u32,
}

impl World {
    /// A world at its beginning.
    pub(super) fn new(swarm: Swarm, work: Workload, rng: Rng, removed: Removed) -> Self {
        let work = Rc::new(work);
        let mut server = Server::new(&work, removed.model(), swarm.lanes);
        server.db.gaps = swarm.gaps;
        server.db.folding_hides = swarm.folding_hides;
        server.db.synchronous = swarm.synchronous;
        Self {
            rates: swarm.rates.clone(),
            server,
            broker: Broker::new(&work),
            checker: Checker::new(&work),
            work,
            swarm,
            rng,
            now: Duration::ZERO,
            processes: Vec::new(),
            tally: Tally::default(),
            maintenance: false,
            held_back: 1,
            trace: false,
            whole: removed == Removed::Nothing,
            started: 0,
            idle: 0,
        }
    }

    /// Prints a line of a replayed run.
    pub(super) fn say(&self, line: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>6} ms  {}", self.now.as_millis(), line());
        }
    }

    /// The first violation so far.
    pub(super) fn verdict(&self) -> Result<(), Violation> {
        self.checker.violation().map_or(Ok(()), |v| Err(v.clone()))
    }

    /// Starts a process.
    pub(super) fn start_process(&mut self) -> ProcessId {
        self.started += 1;
        let id = ProcessId(self.started);
        self.processes.push(Process::new(id, &self.swarm, self.rng.next()));
        self.say(|| format!("{id:?} starts"));
        let at = self.processes.len() - 1;
        self.give(at, Input::Tick);
        id
    }

    /// Index of a process, if it still lives.
    pub(super) fn find(&self, id: ProcessId) -> Option<usize> {
        self.processes.iter().position(|p| p.id == id)
    }

    /// One step: some fault perhaps, then somebody moves.
    pub(super) fn step(&mut self) {
        self.tally.steps += 1;
        self.now += Duration::from_millis(1);
        self.faults();
        let moved = match self.rng.below(16) {
            0..=3 => self.step_inbox(),
            4..=6 => self.step_told(),
            7..=9 => self.step_consumer(),
            10..=13 => self.step_server(),
            14 => {
                let partition = self.rng.below(self.swarm.partitions);
                self.broker.produce(partition, self.held_back, &self.checker)
            }
            _ => self.keep_house(),
        };
        self.idle = if moved { 0 } else { self.idle + 1 };
        if self.idle > 30 {
            self.idle = 0;
            self.keep_house();
            self.jump();
        }
    }

    /// A process that runs, at random.
    pub(super) fn pick_running(&mut self) -> Option<usize> {
        if self.processes.is_empty() {
            return None;
        }
        let at = self.rng.below(self.processes.len());
        (!self.processes[at].stopped).then_some(at)
    }

    /// A process looks at an answer of the database.
    pub(super) fn step_inbox(&mut self) -> bool {
        let Some(at) = self.pick_running() else { return false };
        let process = &mut self.processes[at];
        if !process.late.is_empty() && !self.rng.chance(self.rates.late_waits) {
            let pick = self.rng.below(process.late.len());
            let input = process.late.swap_remove(pick);
            self.tally.late_answers += 1;
            self.give(at, input);
            return true;
        }
        if process.inbox.is_empty() {
            return false;
        }
        let pick = self.rng.below(process.inbox.len());
        let input = process.inbox.swap_remove(pick);
        if let Input::SessionLost(id, _) = &input {
            self.sever(at, *id);
        }
        self.give(at, input);
        true
    }

    /// A process looks at what its consumer thread told.
    pub(super) fn step_told(&mut self) -> bool {
        let Some(at) = self.pick_running() else { return false };
        let Some(input) = self.processes[at].consumer.told.pop_front() else { return false };
        self.give(at, input);
        true
    }

    /// A consumer thread obeys or reads.
    pub(super) fn step_consumer(&mut self) -> bool {
        let Some(at) = self.pick_running() else { return false };
        let process = &mut self.processes[at];
        let blocked = self.broker.revocations.iter().any(|r| r.process == process.id);
        // What was delivered and not looked at counts too.
        let may_poll = !blocked && process.may_poll() && process.consumer.told.len() < 4;
        let mut around = Surroundings {
            work: &self.work,
            broker: &mut self.broker,
            checker: &mut self.checker,
            rng: &mut self.rng,
            rates: &self.rates,
        };
        process.consumer.step(process.id, &mut around, may_poll)
    }

    /// The server runs a statement.
    pub(super) fn step_server(&mut self) -> bool {
        let mut answers: Vec<Answer> = Vec::new();
        let mut around = Around {
            checker: &mut self.checker,
            broker: &mut self.broker,
            rng: &mut self.rng,
            rates: &self.rates,
        };
        let moved = self.server.step(&mut around, &mut answers);
        for (owner, input) in answers {
            if let Some(at) = self.find(owner) {
                self.say(|| format!("  server answers {owner:?}: {}", describe(&input)));
                self.processes[at].inbox.push(input);
            }
        }
        moved
    }

    /// Hands an input to a coordinator and does what it asks for.
    pub(super) fn give(&mut self, at: usize, input: Input) {
        let process = &mut self.processes[at];
        process.before(&input, &self.work);
        let id = process.id;
        let line = self.trace.then(|| describe(&input));
        let actions = process.state.on(self.now, input);
        if self.whole {
            let state = process.state.check();
            self.checker.require(state.is_ok(), "state", || state.unwrap_err());
        }
        if let Some(line) = line {
            self.say(|| format!("{id:?} <- {line}"));
        }
        for action in actions {
            self.say(|| format!("{id:?} -> {action:?}"));
            self.perform(at, action);
        }
    }

    fn perform(&mut self, at: usize, action: Action) {
        let process = &mut self.processes[at];
        let owner = process.id;
        match action {
            Action::OpenSession { session, after } => {
                process.opens.push((session, self.now + after));
            }
            Action::CloseSession(session, _) => self.sever(at, session),
            Action::Take { session, partitions } => {
                self.server.send_take(owner, session, partitions);
            }
            Action::Seek { partition, generation, next, anchor } => {
                process.consumer.command(Command::Seek(partition, generation, next, anchor));
            }
            Action::Pause(partition) => process.consumer.command(Command::Pause(partition)),
            Action::Resume(partition) => process.consumer.command(Command::Resume(partition)),
            Action::Apply { session, groups } => {
                process.sends(Lane::Fast, session, &groups, (&self.work, &mut self.checker));
                self.server.send_apply(owner, session, groups, &mut self.rng);
            }
            Action::Read { session, groups } => {
                process.sends(Lane::Slow, session, &groups, (&self.work, &mut self.checker));
                self.server.send_read(owner, session, groups);
            }
            Action::Resolve { session, group } => {
                let alone = std::slice::from_ref(&group);
                process.sends(Lane::Slow, session, alone, (&self.work, &mut self.checker));
                self.server.send_resolve(owner, session, group);
            }
            Action::Advance { session, progress } => {
                process.sends_barrier(&mut self.checker);
                self.server.send_advance(owner, session, progress);
            }
            Action::Own(partition, claim) => process.owns(partition, claim),
            Action::Disown(partition) => process.disowns(&partition),
            // The publisher and the catalog are not modelled.
            Action::PublishLetters | Action::DoubtPlan => {}
            Action::Mirror(positions) => {
                for position in &positions {
                    self.checker.mirror(position);
                    process.mirrors(position, &mut self.checker);
                }
                process.consumer.command(Command::Mirror(positions));
            }
            Action::Released(ticket, positions) => self.released(owner, ticket, &positions),
            Action::Drained => {
                process.drained = true;
                let quiet = process.is_quiet() || process.session.is_none();
                self.checker.require(quiet, "drain", || format!("{owner:?} drained in flight"));
            }
            Action::Stop(fault) => {
                self.checker.require(false, "stop", || format!("{owner:?} stops: {fault}"));
            }
            Action::Freed(weight) => {
                let held = process.held;
                self.checker.require(weight <= held, "INV-11", || {
                    format!("{owner:?} frees {weight} of {held}")
                });
                process.held = held.saturating_sub(weight);
            }
            Action::Report(report) => self.count(at, &report),
        }
    }

    fn count(&mut self, at: usize, report: &Report) {
        match report {
            Report::Finished { verdict, count, .. } => {
                self.processes[at].reports(*verdict, *count, &mut self.checker);
                self.tally.finished[index_of_verdict(*verdict)] += count;
            }
            Report::Fenced(partition) => {
                self.tally.fenced += 1;
                self.processes[at].gave_up(partition, &mut self.checker);
            }
            Report::GivenUp(partition) => self.processes[at].gave_up(partition, &mut self.checker),
            Report::Halted { .. } => self.tally.halted += 1,
            Report::Retry { .. } => self.tally.retried += 1,
            _ => {}
        }
    }

    /// Every connection of a session is closed; of its answers some still come, late.
    pub(super) fn sever(&mut self, at: usize, session: SessionId) {
        let process = &mut self.processes[at];
        self.server.cut(process.id, session, &mut self.rng, &self.rates);
        process.session_ended(session);
        process.answers_end(session, || self.rng.chance(self.rates.late_answer));
    }

    /// A session breaks; the process hears of it.
    pub(super) fn break_session(&mut self, at: usize, session: SessionId) {
        let process = &mut self.processes[at];
        self.server.cut(process.id, session, &mut self.rng, &self.rates);
        process.answers_end(session, || self.rng.chance(self.rates.late_answer));
        process.inbox.push(Input::SessionLost(session, Fault::new(FaultKind::Connection)));
        self.tally.sessions_lost += 1;
        let id = process.id;
        self.say(|| format!("{session:?} of {id:?} breaks"));
    }

    /// Opens sessions, starts processes, lets time-outs happen, hands out partitions.
    pub(super) fn keep_house(&mut self) -> bool {
        let opened = self.open_sessions();
        let handed = self.tend_group();
        let mut ticked = false;
        for at in 0..self.processes.len() {
            let process = &self.processes[at];
            let due = process.state.next_deadline().is_some_and(|due| due <= self.now);
            if due && !process.stopped {
                self.give(at, Input::Tick);
                ticked = true;
            }
        }
        let drained = self.processes.iter().position(|p| p.drained);
        if let Some(at) = drained {
            self.leave(at);
        }
        opened || handed || ticked || drained.is_some()
    }

    fn open_sessions(&mut self) -> bool {
        let mut any = false;
        for process in self.processes.iter_mut().filter(|p| !p.stopped) {
            let Some(at) = process.opens.iter().position(|(_, due)| *due <= self.now) else {
                continue;
            };
            let (session, _) = process.opens.swap_remove(at);
            process.inbox.push(if self.rng.chance(self.rates.open_refused) {
                Input::SessionLost(session, Fault::new(FaultKind::Connection))
            } else {
                self.server.open(process.id, session);
                Input::SessionOpened(session)
            });
            any = true;
        }
        any
    }

    /// Nobody can move: time passes until somebody must.
    fn jump(&mut self) {
        let deadlines = self
            .processes
            .iter()
            .filter(|p| !p.stopped)
            .flat_map(|p| p.opens.iter().map(|(_, due)| *due).chain(p.state.next_deadline()));
        let revocations = self.broker.revocations.iter().map(|r| r.deadline);
        if let Some(next) = deadlines.chain(revocations).min() {
            self.now = self.now.max(next);
        }
    }

    /// Time runs on although things are in flight.
    pub(super) fn hurry(&mut self) {
        self.jump();
    }

    /// What the oracle must know.
    pub(super) fn facts(&self) -> RunFacts {
        RunFacts {
            gaps: self.swarm.gaps,
            folding_hides: self.swarm.folding_hides,
            new_route: self.broker.new_route,
            give_up: self.swarm.give_up,
        }
    }
}
