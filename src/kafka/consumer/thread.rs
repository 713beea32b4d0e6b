//! The thread's loop: commands, back-pressure, one batch, book-keeping, again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{BorrowedMessage, Message};
use tokio::sync::mpsc::UnboundedSender;

use super::budget::Budget;
use super::flow::pause;
use super::gate::Gate;
use super::member::{AssignmentChange, Member, release};
use super::reading::{Admission, Readings};
use super::record::Copied;
use super::refused::Refused;
use crate::config::{BatchConfig, Config};
use crate::kafka::faults::name;
use pgsluice_core::decode::{Decode, Decoded, Missing};
use pgsluice_core::event::Event;
use pgsluice_core::record::Record;
use pgsluice_core::source::{Command, PollEvent};

/// How long a poll waits for the first record; bounds how long a command waits, too.
const IDLE_POLL: Duration = Duration::from_millis(20);
/// Whether the thread goes on.
pub(super) enum Flow {
    /// Next round.
    On,
    /// Leave the group and end.
    Close,
    /// The client is spent: end without closing it, which would never return.
    Abandon(RDKafkaErrorCode),
}

/// The thread's state.
pub(super) struct Poller {
    pub(super) member: Arc<Member>,
    pub(super) readings: Readings,
    pub(super) events: UnboundedSender<PollEvent>,
    commands: Receiver<Command>,
    changes: Receiver<AssignmentChange>,
    pub(super) budget: Arc<Budget>,
    batch: BatchConfig,
    pub(super) decoder: Option<Arc<dyn Decode>>,
    pub(super) gate: Gate,
    /// Told to stop reading for good.
    pub(super) stopped: bool,
    pub(super) round_due: Instant,
    pub(super) positions_due: Instant,
    /// Some reading's position seems to be out of its log; find out which at this time.
    pub(super) span_check_due: Option<Instant>,
    /// Unreadable batches in a row, and when the last one was seen.
    pub(super) corrupt: Option<(u32, Instant)>,
    pub(super) unreachable: bool,
    pub(super) troubles: HashMap<i32, Instant>,
    pub(super) refused: Refused,
    /// Topics and patterns of the configuration.
    pub(super) topics: Vec<String>,
}

impl Poller {
    /// A thread that has not polled yet.
    pub(super) fn new(
        member: Arc<Member>,
        commands: Receiver<Command>,
        changes: Receiver<AssignmentChange>,
        events: UnboundedSender<PollEvent>,
        budget: Arc<Budget>,
        config: &Config,
    ) -> Self {
        let now = Instant::now();
        Self {
            member,
            readings: Readings::default(),
            events,
            commands,
            changes,
            budget,
            batch: config.batch.clone(),
            decoder: None,
            gate: Gate::Open,
            stopped: false,
            round_due: now,
            positions_due: now,
            span_check_due: None,
            corrupt: None,
            unreachable: false,
            troubles: HashMap::new(),
            refused: Refused::default(),
            topics: config.kafka.topics.clone(),
        }
    }

    /// Runs until it is told to close, nobody is left to talk to, or the client is spent.
    pub(super) fn run(mut self) {
        let flow = loop {
            match self.turn() {
                Flow::On => {}
                end => break end,
            }
        };
        let Self { member, events, .. } = self;
        if let Flow::Abandon(code) = flow {
            events.send(PollEvent::Fenced(name(code))).ok();
            std::mem::forget(member);
            return;
        }
        // From here on nobody answers revocations.
        member.context().closing.store(true, Ordering::Relaxed);
        release(member);
        events.send(PollEvent::Closed).ok();
    }

    fn turn(&mut self) -> Flow {
        if let Flow::Close = self.obey() {
            return Flow::Close;
        }
        self.seek_due();
        self.pace();
        if !matches!(self.gate, Gate::Standing(_))
            && let Flow::Abandon(code) = self.gather()
        {
            return Flow::Abandon(code);
        }
        self.announce_positions();
        self.check_spans();
        self.ask_refused();
        self.round()
    }

    /// Carries out the commands that are there.
    fn obey(&mut self) -> Flow {
        loop {
            let command = match self.commands.try_recv() {
                Ok(command) => command,
                Err(TryRecvError::Empty) => return Flow::On,
                Err(TryRecvError::Disconnected) => return Flow::Close,
            };
            match command {
                Command::Decode(decoder) => self.decoder = Some(decoder),
                Command::Seek { partition, generation, next, anchor } => {
                    let reading = self.readings.get(&partition.topic, partition.partition);
                    if let Some(reading) = reading {
                        reading.start(generation, next.0, anchor, Instant::now());
                    }
                }
                Command::Learned(missing) => {
                    let now = Instant::now();
                    self.readings.iter_mut().for_each(|reading| reading.learn(missing, now));
                }
                Command::Pause(partition) => self.hold(&partition, true),
                Command::Resume(partition) => self.hold(&partition, false),
                Command::Released { .. } => {}
                Command::StopPolling => {
                    self.stopped = true;
                    self.pause_all();
                }
                Command::Close => return Flow::Close,
            }
        }
    }

    /// Polls one batch and hands it on.
    fn gather(&mut self) -> Flow {
        let mut batch = Vec::new();
        let mut bytes = 0_u64;
        let mut read = Instant::now();
        let mut deadline = read + IDLE_POLL;
        let member = Arc::clone(&self.member);
        let mut flow = Flow::On;
        loop {
            let wait = deadline.saturating_duration_since(Instant::now());
            match member.poll(wait) {
                Some(Ok(message)) => {
                    let size = message.payload_len() + message.key_len();
                    if let Some(event) = self.admit(&message) {
                        if batch.is_empty() {
                            read = Instant::now();
                            deadline = read + self.batch.max_wait;
                        }
                        bytes += size as u64;
                        batch.push(event);
                    }
                }
                Some(Err(error)) => {
                    flow = self.judge(&error);
                    // The error stands at its place in the order of records: what the verdict
                    // asks for has to happen before the next one.
                    break;
                }
                // Also after a rebalance, long before the wait is over.
                None => self.follow_assignment(),
            }
            let full = batch.len() >= self.batch.max_records
                || bytes >= self.batch.max_bytes.0
                || self.budget.is_full();
            if full || Instant::now() >= deadline {
                break;
            }
        }
        if !batch.is_empty() {
            self.reached();
            self.seen(&batch);
            self.events.send(PollEvent::Polled(batch, read)).ok();
        }
        flow
    }

    /// Turns a message into an event, if it is wanted.
    fn admit(&mut self, message: &BorrowedMessage<'_>) -> Option<Event> {
        let reading = self.readings.get(message.topic(), message.partition())?;
        let (timestamp, _) = super::record::timestamp(message.timestamp());
        let partition = reading.partition.clone();
        let crc = || pgsluice_core::record::crc(message.key(), message.payload());
        let admission = reading.admit(message.offset(), timestamp, crc);
        match admission {
            Admission::Drop => None,
            Admission::LogChanged(generation) => {
                pause(&self.member, [&partition]);
                self.events.send(PollEvent::LogChanged { partition, generation }).ok();
                None
            }
            Admission::Deliver(generation) => {
                let decoder = self.decoder.as_ref()?;
                match Copied::of(message, partition, generation).decode(&**decoder) {
                    Decoded::Ready(event) => {
                        self.budget.take(event.weight());
                        Some(event)
                    }
                    Decoded::Missing(missing, record) => {
                        self.wait_for(missing, record);
                        None
                    }
                }
            }
        }
    }

    /// Holds a record's partition until the decoder knows what it needs.
    fn wait_for(&mut self, missing: Missing, record: Record) {
        let Record { partition, generation, offset, .. } = record;
        if let Some(reading) = self.readings.get(&partition.topic, partition.partition) {
            reading.wait(missing, offset);
            pause(&self.member, [&partition]);
            self.events.send(PollEvent::Missing { partition, generation, missing }).ok();
        }
    }

    /// Takes note of what the rebalance callbacks did.
    fn follow_assignment(&mut self) {
        for change in self.changes.try_iter() {
            match change {
                AssignmentChange::Added(partitions) => {
                    for partition in partitions {
                        self.readings.assign(partition);
                    }
                }
                AssignmentChange::Removed(partitions) => {
                    for partition in &partitions {
                        self.readings.revoke(partition);
                    }
                }
            }
        }
    }
}
