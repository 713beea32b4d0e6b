//! The thread's loop: commands, back-pressure, one batch, book-keeping, again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::mpsc::UnboundedSender;

use super::budget::Budget;
use super::member::{AssignmentChange, Member, release};
use super::reading::{Admission, Readings};
use super::record::{Copied, refuse_headers};
use super::{Command, Decode, PollEvent};
use crate::config::{BatchConfig, Config};
use crate::event::Event;
use crate::kafka::faults::{PollFault, describe, on_poll};
use crate::record::{Generation, TopicPartition};

/// How long a poll waits for the first record; bounds how long a command waits, too.
const IDLE_POLL: Duration = Duration::from_millis(20);
/// How long the loop stands still with a full budget before it pauses the partitions. Pausing
/// throws prefetched records away and costs about half a second of flow, so a short jam is sat
/// out; a long one must not keep rebalances waiting.
const STANDSTILL: Duration = Duration::from_secs(1);
/// How often the loop looks for room while it stands still.
const ROOM_CHECK: Duration = Duration::from_millis(2);
/// How often the slow duties are done: heartbeat, troubles, reachability.
const ROUND: Duration = Duration::from_secs(1);
/// The same error code is reported again only after it was not seen for this long.
const TROUBLE_MEMORY: Duration = Duration::from_secs(60);
/// How long one question to a broker may hold the loop up.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_millis(500);

/// Whether the thread goes on.
enum Flow {
    /// Next round.
    On,
    /// Leave the group and end.
    Close,
    /// The client is spent: end without closing it, which would never return.
    Abandon(RDKafkaErrorCode),
}

/// Whether records may flow, by the budget.
enum Gate {
    /// There is room.
    Open,
    /// No room since then; nothing is polled.
    Standing(Instant),
    /// No room for long: partitions are paused, polling goes on for the group's sake.
    Paused,
}

/// The thread's state.
pub(super) struct Poller {
    pub(super) member: Arc<Member>,
    pub(super) readings: Readings,
    pub(super) events: UnboundedSender<PollEvent>,
    commands: Receiver<Command>,
    changes: Receiver<AssignmentChange>,
    budget: Arc<Budget>,
    batch: BatchConfig,
    decoder: Option<Arc<dyn Decode>>,
    gate: Gate,
    /// Told to stop reading for good.
    stopped: bool,
    round_due: Instant,
    pub(super) positions_due: Instant,
    /// Some reading's position seems to be out of its log; find out which at this time.
    pub(super) span_check_due: Option<Instant>,
    /// Unreadable batches in a row, and when the last one was seen.
    pub(super) corrupt: Option<(u32, Instant)>,
    unreachable: bool,
    troubles: HashMap<i32, Instant>,
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
            events.send(PollEvent::Fenced(code)).ok();
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

    /// Pauses or resumes one partition for the coordinator.
    fn hold(&mut self, partition: &TopicPartition, held: bool) {
        let may_flow = self.may_flow();
        let Some(reading) = self.readings.get(&partition.topic, partition.partition) else {
            return;
        };
        reading.held = held;
        // A position that is still to be set resumes the partition by itself.
        if held {
            pause(&self.member, [partition]);
        } else if may_flow && reading.is_flowing() {
            resume(&self.member, [partition]);
        }
    }

    /// Records may be fetched at all.
    pub(super) fn may_flow(&self) -> bool {
        !self.stopped && !matches!(self.gate, Gate::Paused) && self.decoder.is_some()
    }

    /// Opens and closes the gate by the budget.
    fn pace(&mut self) {
        match self.gate {
            Gate::Open if self.budget.is_full() => self.gate = Gate::Standing(Instant::now()),
            Gate::Open => {}
            Gate::Standing(_) if !self.budget.is_full() => self.gate = Gate::Open,
            Gate::Standing(since) if since.elapsed() >= STANDSTILL => {
                self.pause_all();
                self.gate = Gate::Paused;
            }
            Gate::Standing(_) => std::thread::sleep(ROOM_CHECK),
            Gate::Paused if self.budget.is_low() => {
                self.gate = Gate::Open;
                if self.may_flow() {
                    let flowing = self.readings.iter_mut().filter(|r| r.is_flowing() && !r.held);
                    resume(&self.member, flowing.map(|r| &r.partition));
                }
            }
            Gate::Paused => {}
        }
    }

    fn pause_all(&mut self) {
        pause(&self.member, self.readings.iter_mut().map(|r| &r.partition));
    }

    /// Polls one batch and hands it on.
    fn gather(&mut self) -> Flow {
        let mut batch = Vec::new();
        let mut bytes = 0_u64;
        let mut deadline = Instant::now() + IDLE_POLL;
        let member = Arc::clone(&self.member);
        let mut flow = Flow::On;
        loop {
            let wait = deadline.saturating_duration_since(Instant::now());
            match member.poll(wait) {
                Some(Ok(message)) => {
                    let size = message.payload_len() + message.key_len();
                    if let Some(event) = self.admit(&message) {
                        if batch.is_empty() {
                            deadline = Instant::now() + self.batch.max_wait;
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
            self.events.send(PollEvent::Polled(batch)).ok();
        }
        flow
    }

    /// Turns a message into an event, if it is wanted.
    fn admit(&mut self, message: &BorrowedMessage<'_>) -> Option<Event> {
        let reading = self.readings.get(message.topic(), message.partition())?;
        let (timestamp, _) = super::record::timestamp(message.timestamp());
        let partition = reading.partition.clone();
        let crc = || Copied::of(message, partition.clone(), Generation(0)).record.crc();
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
                let copied = Copied::of(message, partition, generation);
                self.budget.take(copied.record.weight());
                let mut event = decoder.decode(copied.record);
                if !copied.headers_readable {
                    refuse_headers(&mut event);
                }
                Some(event)
            }
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

    /// Judges an error that came out of a poll.
    fn judge(&mut self, error: &KafkaError) -> Flow {
        if let Some((code, _)) = self.member.client().fatal_error() {
            return Flow::Abandon(code);
        }
        let Some(code) = error.rdkafka_error_code() else {
            tracing::debug!(error = describe(error), "poll error without a code");
            return Flow::On;
        };
        match on_poll(code) {
            PollFault::Notice => {}
            PollFault::Transient if code == RDKafkaErrorCode::AllBrokersDown => {
                if !std::mem::replace(&mut self.unreachable, true) {
                    self.events.send(PollEvent::Unreachable).ok();
                }
            }
            PollFault::Transient => {
                tracing::debug!(error = describe(error), "transient kafka error");
            }
            PollFault::LostOwnership => {
                tracing::warn!(error = describe(error), "group membership lost, joining again");
            }
            PollFault::Reposition => self.span_check_due = Some(Instant::now()),
            fault @ PollFault::Corrupt => {
                self.refetch();
                self.trouble(code, fault);
            }
            fault @ (PollFault::Operator | PollFault::Exit) => self.trouble(code, fault),
        }
        Flow::On
    }

    /// Reports a code unless it was seen within the last minute.
    fn trouble(&mut self, code: RDKafkaErrorCode, fault: PollFault) {
        if self.troubles.insert(code as i32, Instant::now()).is_none() {
            self.events.send(PollEvent::Trouble { code, fault }).ok();
        }
    }

    /// A broker answered.
    fn reached(&mut self) {
        if std::mem::replace(&mut self.unreachable, false) {
            self.events.send(PollEvent::Reachable).ok();
        }
    }

    /// Slow duties. Ends the thread when nobody listens any more.
    fn round(&mut self) -> Flow {
        let now = Instant::now();
        if now < self.round_due {
            return Flow::On;
        }
        self.round_due = now + ROUND;
        self.troubles.retain(|_, seen| now.duration_since(*seen) < TROUBLE_MEMORY);
        if self.unreachable && self.broker_answers() {
            self.reached();
        }
        match self.events.send(PollEvent::Heartbeat) {
            Ok(()) => Flow::On,
            Err(_) => Flow::Close,
        }
    }

    /// Asks any broker for the metadata of a topic: an idle topic would otherwise never show
    /// that brokers are back.
    fn broker_answers(&mut self) -> bool {
        let topic = self.readings.iter_mut().next().map(|r| Arc::clone(&r.partition.topic));
        self.member.fetch_metadata(topic.as_deref(), ASK_TIMEOUT).is_ok()
    }
}

/// Pauses partitions; what was prefetched of them is thrown away and fetched again later.
pub(super) fn pause<'a>(member: &Member, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
    let list = list(partitions);
    if list.count() > 0
        && let Err(error) = member.pause(&list)
    {
        tracing::debug!(error = describe(&error), "pause refused");
    }
}

/// Resumes partitions.
pub(super) fn resume<'a>(
    member: &Member,
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
) {
    let list = list(partitions);
    if list.count() > 0
        && let Err(error) = member.resume(&list)
    {
        tracing::debug!(error = describe(&error), "resume refused");
    }
}

/// Partitions as librdkafka takes them.
pub(super) fn list<'a>(
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    list
}
