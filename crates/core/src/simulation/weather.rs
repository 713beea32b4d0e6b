//! What goes wrong, and how the consumer group takes it: kills, zombies, broken sessions, crashes,
//! rebalances, an operator at work. Then the calm after it, in which everything must complete.

use std::time::Duration;

use super::checker::Violation;
use super::model_sessions::ProcessId;
use super::scheduler::World;
use super::swarm::Rates;
use crate::fault::{Fault, FaultKind};
use crate::input::{Input, MirrorPosition, RevokeTicket};

/// Steps within which everything must complete once the faults have stopped.
const PATIENCE: usize = 20_000;

impl World {
    /// Rolls the dice for every fault that can happen on its own.
    pub(super) fn faults(&mut self) {
        if self.rng.chance(self.rates.kill)
            && let Some(at) = self.pick_running()
        {
            self.kill(at);
        }
        if self.rng.chance(self.rates.stop)
            && let Some(at) = self.pick_running()
        {
            self.processes[at].stopped = true;
            self.tally.zombies += 1;
            let id = self.processes[at].id;
            self.say(|| format!("{id:?} is stopped"));
        }
        if self.rng.chance(self.rates.rebalance) {
            self.rebalance();
        }
        if self.rng.chance(self.rates.session_loss)
            && let Some(at) = self.pick_running()
            && let Some(session) = self.processes[at].session
        {
            self.break_session(at, session);
        }
        if self.rng.chance(self.rates.crash) {
            self.crash();
        }
        if self.rng.chance(self.rates.offset_taken_back) {
            let partition = self.rng.below(self.swarm.partitions);
            self.broker.take_back(partition);
        }
        if self.rng.chance(self.rates.maintenance) && !self.maintenance {
            self.say(|| "the operator stops everything".to_owned());
            self.maintenance = true;
        }
        if self.rng.chance(self.rates.hurry) {
            self.hurry();
        }
        if self.rng.chance(self.rates.mend) {
            self.mend();
        }
        if self.rng.chance(self.rates.brake) {
            self.server.db.braked = !self.server.db.braked;
        }
        if self.rng.chance(self.rates.resume)
            && let Some(process) = self.processes.iter_mut().find(|p| p.stopped)
        {
            process.stopped = false;
            let id = process.id;
            self.say(|| format!("{id:?} goes on"));
        }
    }

    /// The operator mends whatever stands in the way.
    pub(super) fn mend(&mut self) {
        self.server.db.mended = true;
        self.broker.mended = true;
    }

    /// Kill -9.
    pub(super) fn kill(&mut self, at: usize) {
        let process = self.processes.swap_remove(at);
        self.server.cut_all(process.id, &mut self.rng, &self.rates);
        self.tally.kills += 1;
        self.say(|| format!("{:?} is killed", process.id));
    }

    /// The database server crashes and comes back.
    pub(super) fn crash(&mut self) {
        let lost = self.server.crash(&mut self.rng, &self.rates);
        self.tally.commits_lost += lost as u64;
        self.say(|| format!("the server crashes, {lost} commits are gone"));
        for process in &mut self.processes {
            if let Some(session) = process.session {
                let fault = Fault::new(FaultKind::Connection);
                process.inbox.push(Input::SessionLost(session, fault));
                self.tally.sessions_lost += 1;
            }
            // A session that was just opened is gone before its owner has looked at it.
            let opened: Vec<_> = process
                .inbox
                .iter()
                .filter_map(|input| match input {
                    Input::SessionOpened(id) => Some(*id),
                    _ => None,
                })
                .collect();
            for id in opened {
                let fault = Fault::new(FaultKind::Connection);
                process.inbox.push(Input::SessionLost(id, fault));
            }
        }
    }

    /// The group decides anew who reads what.
    pub(super) fn rebalance(&mut self) {
        let members: Vec<ProcessId> =
            self.processes.iter().filter(|p| !p.draining).map(|p| p.id).collect();
        if members.is_empty() {
            return;
        }
        for partition in 0..self.swarm.partitions {
            self.broker.wanted[partition] = Some(members[self.rng.below(members.len())]);
        }
        self.tally.rebalances += 1;
        self.take_from_owners();
    }

    /// Asks owners to let go of what somebody else shall read.
    fn take_from_owners(&mut self) {
        for at in 0..self.processes.len() {
            let id = self.processes[at].id;
            let moving: Vec<usize> = (0..self.swarm.partitions)
                .filter(|&p| {
                    self.broker.owner[p] == Some(id)
                        && self.broker.wanted[p] != Some(id)
                        && !self.broker.revocations.iter().any(|r| r.partitions.contains(&p))
                })
                .collect();
            if moving.is_empty() {
                continue;
            }
            let unheard = self.rng.chance(self.rates.revoke_timeout);
            if unheard && self.rng.chance(500) {
                self.expel(at);
            } else {
                let deadline = self.now + Duration::from_millis(60);
                let input = self.broker.revoke(id, moving, deadline, unheard);
                self.processes[at].consumer.told.push_back(input);
            }
            self.tally.revocations_unanswered += u64::from(unheard);
        }
    }

    /// A member missed its heartbeats: all it read is gone before it knows, and it reads on.
    pub(super) fn expel(&mut self, at: usize) {
        let id = self.processes[at].id;
        let partitions: Vec<usize> =
            (0..self.swarm.partitions).filter(|&p| self.broker.owner[p] == Some(id)).collect();
        self.broker.revocations.retain(|r| r.process != id);
        for &partition in &partitions {
            self.broker.owner[partition] = None;
        }
        self.say(|| format!("{id:?} loses {partitions:?} unasked"));
        self.broker.unaware.push((id, partitions));
    }

    /// Expelled members hear of it, sooner or later; before they are given anything for certain.
    fn tell_expelled(&mut self, rejoins: Option<ProcessId>) {
        for (id, partitions) in std::mem::take(&mut self.broker.unaware) {
            let Some(at) = self.find(id) else { continue };
            if rejoins != Some(id) && self.rng.chance(self.rates.unaware) {
                self.broker.unaware.push((id, partitions));
                continue;
            }
            let told = self.broker.lost(&partitions);
            let consumer = &mut self.processes[at].consumer;
            consumer.forget(&partitions);
            consumer.told.push_back(told);
        }
    }

    /// A coordinator answers a revocation.
    pub(super) fn released(
        &mut self,
        from: ProcessId,
        ticket: RevokeTicket,
        positions: &[MirrorPosition],
    ) {
        for position in positions {
            self.checker.mirror(position);
        }
        let answered = self
            .broker
            .revocations
            .iter()
            .position(|r| r.process == from && r.ticket == ticket && !r.deaf);
        if let Some(at) = answered {
            for position in positions {
                self.broker.commit(from, position);
            }
            self.end_revocation(at);
        }
    }

    fn end_revocation(&mut self, at: usize) {
        let revocation = self.broker.revocations.swap_remove(at);
        if let Some(at) = self.find(revocation.process) {
            self.processes[at].consumer.forget(&revocation.partitions);
        }
        for partition in revocation.partitions {
            self.broker.owner[partition] = None;
        }
    }

    /// Group membership takes its course: time-outs, dead and silent members, new ones.
    pub(super) fn tend_group(&mut self) -> bool {
        let mut moved = false;
        while let Some(at) = self.broker.revocations.iter().position(|r| r.deadline <= self.now) {
            self.end_revocation(at);
            moved = true;
        }
        moved |= self.tend_members();
        self.tell_expelled(None);
        for partition in 0..self.swarm.partitions {
            if self.broker.owner[partition].is_some() || self.processes.is_empty() {
                continue;
            }
            let wanted = self.broker.wanted[partition].and_then(|id| self.find(id));
            let at = wanted.unwrap_or_else(|| self.rng.below(self.processes.len()));
            if self.processes[at].stopped || self.processes[at].draining {
                continue;
            }
            self.tell_expelled(Some(self.processes[at].id));
            let process = &mut self.processes[at];
            process.consumer.assign(&self.work, &[partition]);
            self.broker.owner[partition] = Some(process.id);
            moved = true;
        }
        moved
    }

    fn tend_members(&mut self) -> bool {
        let mut moved = false;
        if self.maintenance {
            moved |= self.stop_all();
        } else if self.processes.len() < self.swarm.processes {
            self.start_process();
            moved = true;
        }
        for partition in 0..self.swarm.partitions {
            let Some(owner) = self.broker.owner[partition] else { continue };
            match self.find(owner) {
                None => {
                    self.broker.owner[partition] = None;
                    self.broker.revocations.retain(|r| r.process != owner);
                    moved = true;
                }
                Some(at) if self.processes[at].stopped && self.rng.chance(300) => {
                    self.expel(at);
                    moved = true;
                }
                Some(_) => {}
            }
        }
        moved
    }

    /// The operator drains every process, moves offsets, perhaps adds a route, starts again.
    fn stop_all(&mut self) -> bool {
        if self.processes.is_empty() {
            self.operate();
            self.maintenance = false;
            return true;
        }
        if let Some(at) = self.processes.iter().position(|p| p.stopped) {
            self.kill(at);
            return true;
        }
        self.drain_all()
    }

    /// Tells every process to drain.
    pub(super) fn drain_all(&mut self) -> bool {
        let Some(at) = self.processes.iter().position(|p| !p.draining) else { return false };
        self.processes[at].draining = true;
        self.give(at, Input::Drain);
        true
    }

    fn operate(&mut self) {
        for partition in 0..self.swarm.partitions {
            let next = self.server.db.tables.streams[partition].next;
            if self.rng.chance(700) {
                let earlier = self.rng.below(next as usize + 1) as i64;
                self.broker.reset(partition, earlier);
                self.tally.rewinds += 1;
                self.say(|| format!("the operator rewinds {partition} from {next} to {earlier}"));
            }
        }
        // A new route may change what is unfinished only when nothing is.
        let finished = (0..self.swarm.partitions)
            .all(|p| self.checker.finished(p) >= self.broker.visible[p] as i64);
        if finished && self.rng.chance(700) {
            self.broker.new_route = true;
        }
    }

    /// A drained process leaves the group and ends.
    pub(super) fn leave(&mut self, at: usize) {
        let process = self.processes.swap_remove(at);
        let id = process.id;
        self.tally.drains += 1;
        self.server.cut_all(id, &mut self.rng, &self.rates);
        for owner in self.broker.owner.iter_mut().filter(|owner| **owner == Some(id)) {
            *owner = None;
        }
        self.broker.revocations.retain(|r| r.process != id);
        self.say(|| format!("{id:?} has drained and leaves"));
    }

    /// Runs the storm.
    pub(super) fn storm(&mut self) -> Result<(), Violation> {
        for _ in 0..self.swarm.steps {
            self.step();
            self.verdict()?;
        }
        Ok(())
    }

    /// The faults stop: everything pending completes, a fresh record a partition too, and every
    /// process drains.
    pub(super) fn calm(&mut self) -> Result<(), Violation> {
        self.say(|| "the faults stop".to_owned());
        self.rates = Rates::default();
        self.mend();
        self.server.db.braked = false;
        self.maintenance = false;
        for process in &mut self.processes {
            process.stopped = false;
        }
        self.run_until("everything is finished", World::all_finished)?;
        self.held_back = 0;
        self.run_until("a fresh record is finished and mirrored", World::caught_up)?;
        self.drain_and_conclude()
    }

    /// Every record produced so far has its outcome, and progress says so.
    fn all_finished(&self) -> bool {
        (0..self.swarm.partitions).all(|p| {
            let visible = self.broker.visible[p] as i64;
            // A rewind is obeyed until our own commit has replaced the operator's. A process that
            // lost the partition may obey it last; the owner notices with the next record.
            let told = self.tally.rewinds > 0 || self.server.db.tables.streams[p].next == visible;
            visible + self.held_back as i64 >= self.work.logs[p].len() as i64
                && self.checker.finished(p) >= visible
                && told
        })
    }

    /// Progress is at the end of every log, and Kafka knows.
    pub(super) fn caught_up(&self) -> bool {
        (0..self.swarm.partitions).all(|p| {
            let end = self.work.logs[p].len();
            self.broker.visible[p] == end
                && self.server.db.tables.streams[p].next == end as i64
                && (end == 0 || self.broker.committed[p].is_some_and(|c| c.next == end as i64))
        })
    }

    /// Drains every process and compares what is stored with the oracle.
    pub(super) fn drain_and_conclude(&mut self) -> Result<(), Violation> {
        self.run_until("every record's weight is given back", |w| {
            w.processes.iter().all(|p| p.held == 0 && p.consumer.told.is_empty())
        })?;
        self.maintenance = true;
        while self.drain_all() {}
        self.run_until("every process has drained", |w| w.processes.is_empty())?;
        let facts = self.facts();
        self.checker.conclude(&self.server.db.tables, &facts);
        self.verdict()
    }

    /// Steps until `done`, within [`PATIENCE`].
    pub(super) fn run_until(
        &mut self,
        what: &'static str,
        done: impl Fn(&Self) -> bool,
    ) -> Result<(), Violation> {
        for _ in 0..PATIENCE {
            if done(self) {
                return Ok(());
            }
            self.step();
            self.verdict()?;
        }
        let places: Vec<_> = (0..self.swarm.partitions)
            .map(|p| {
                let (next, end) = (self.server.db.tables.streams[p].next, self.broker.visible[p]);
                format!("{p}: {next} of {end}, read by {:?}", self.broker.owner[p])
            })
            .collect();
        let what = format!("not reached: {what}; {}", places.join("; "));
        Err(Violation { invariant: "liveness", what })
    }
}
