//! From poll to progress. One pure coordinator ([`state`]) decides; thin shells around it do I/O.
//!
//! [`run`] is the loop between them: it turns what the shells report into inputs, and performs
//! the actions that the coordinator answers with. It owns the session, but no decision.

pub mod advance;
pub mod apply;
pub mod backoff;
pub mod decode;
pub mod frontier;
pub mod input;
pub mod mirror;
mod partition;
mod perform;
pub mod poll;
pub mod queue;
pub mod resolve;
#[cfg(test)]
mod simulation;
pub mod state;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::fault::{Fault, FaultKind};
use crate::group::{Group, GroupReply};
use crate::kafka::positions::Positions;
use crate::postgres::migrate::MigrateError;
use crate::postgres::{FaultPolicy, OpenError, Session};
use crate::publish::{self, Desk, Publisher};
use crate::record::{SessionId, TopicPartition};
use crate::store::publication::OwnedStream;
use crate::supervisor::ExitReason;
use crate::telemetry::Telemetry;
use crate::verdict::Reason;

use self::backoff::Backoff;
use self::decode::Decoder;
use self::input::{Action, Input, Lane, Report};
use self::mirror::Mirror;
use self::perform::{Live, OpenFailure, Opened, Outcome, Surroundings};
use self::poll::{Budget, Command, Consumer, PollEvent};
use self::state::{State, StateConfig};

/// Work under way: each piece ends in an outcome.
type Work = FuturesUnordered<Pin<Box<dyn Future<Output = Outcome>>>>;

/// How much is taken from the consumer thread and from finished work before time is looked at.
const BURST: usize = 64;

/// The longest wait without a turn of the loop, so that the heartbeat is fresh.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// How long the last commit to Kafka and the consumer's farewell may take, each.
const FAREWELL: Duration = Duration::from_secs(5);

/// Runs the pipeline until it is drained, fenced or broken.
///
/// `drain` asks for a clean end: polling stops, what is in flight is finished and made durable,
/// Kafka's offsets follow, the group is left.
pub async fn run(config: Config, telemetry: Telemetry, drain: CancellationToken) -> ExitReason {
    let started = Pipeline::start(Arc::new(config), telemetry);
    match started {
        Ok(mut pipeline) => {
            let reason = pipeline.turn(&drain).await;
            pipeline.leave(reason).await
        }
        Err(reason) => reason,
    }
}

struct Pipeline {
    around: Arc<Surroundings>,
    telemetry: Telemetry,
    state: State,
    consumer: Consumer,
    mirror: Mirror,
    /// What the publisher works on.
    desk: watch::Sender<Desk<Session>>,
    /// How publishing goes; `None` when dead letters stay in the table.
    publishing: Option<watch::Receiver<publish::Status>>,
    /// Tells the publisher that letters were written.
    letters_written: Arc<Notify>,
    owned: BTreeMap<TopicPartition, OwnedStream>,
    budget: Arc<Budget>,
    events: UnboundedReceiver<PollEvent>,
    work: Work,
    live: Option<Live>,
    /// A route's table was not what its plan expects: look at the catalog before the next take.
    plan_doubted: bool,
    /// The first session must be open by then.
    first_session_by: Option<Instant>,
    /// What the routes' tables lacked last, to say it once.
    problems: Vec<String>,
    /// Set by the drain: when to give up on it.
    drain_by: Option<Instant>,
    exit: Option<ExitReason>,
}

impl Pipeline {
    fn start(config: Arc<Config>, telemetry: Telemetry) -> Result<Self, ExitReason> {
        let (sender, events) = unbounded_channel();
        let limit = usize::try_from(config.limits.in_flight_bytes.0).unwrap_or(usize::MAX);
        let budget = Arc::new(Budget::new(limit));
        let kafka = |error: &dyn std::fmt::Display| {
            tracing::error!(event = "kafka_refused", %error, "the Kafka client could not be made");
            ExitReason::Configuration
        };
        let positions = Arc::new(Positions::connect(&config.kafka).map_err(|e| kafka(&e))?);
        let consumer =
            Consumer::start(&config, sender, Arc::clone(&budget)).map_err(|e| kafka(&e))?;
        let mirror = Mirror::start(&consumer).map_err(|e| kafka(&e))?;
        let (desk, at_desk) = watch::channel(Desk::default());
        let letters_written = Arc::new(Notify::new());
        let publisher = Publisher::start(&config, at_desk, Arc::clone(&letters_written))
            .map_err(|e| kafka(&e))?;
        let publishing = publisher.as_ref().map(Publisher::status);
        let work = Work::new();
        if let Some(publisher) = publisher {
            work.push(Box::pin(publisher.run().map(|()| Outcome::PublisherEnded)));
        }
        telemetry.started();
        let clock = Instant::now();
        Ok(Self {
            state: State::new(state_config(&config), rand::random()),
            first_session_by: Some(clock + config.postgres.startup_timeout),
            around: Arc::new(Surroundings { config, positions, clock, owner: owner() }),
            telemetry,
            consumer,
            mirror,
            desk,
            publishing,
            letters_written,
            owned: BTreeMap::new(),
            budget,
            events,
            work,
            live: None,
            plan_doubted: false,
            problems: Vec::new(),
            drain_by: None,
            exit: None,
        })
    }

    /// Turns until there is a reason to end.
    async fn turn(&mut self, drain: &CancellationToken) -> ExitReason {
        self.feed(Input::Tick);
        loop {
            self.telemetry.beat();
            self.telemetry.in_flight_bytes(self.budget.in_flight());
            if let Some(publishing) = &self.publishing {
                self.telemetry.publishing(*publishing.borrow());
            }
            let wake = self.wake();
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.on_poll_event(event),
                    None => self.end(ExitReason::Bug),
                },
                Some(outcome) = self.work.next() => self.on_outcome(outcome),
                () = tokio::time::sleep_until(wake) => self.feed(Input::Tick),
                () = drain.cancelled(), if self.drain_by.is_none() => self.drain(),
            }
            self.burst();
            self.watch_limits();
            if let Some(reason) = self.exit {
                return reason;
            }
        }
    }

    /// Takes what is ready without waiting, so that a busy pipeline does not wait once for each.
    fn burst(&mut self) {
        for _ in 0..BURST {
            let Some(Some(outcome)) = self.work.next().now_or_never() else { break };
            self.on_outcome(outcome);
        }
        while let Ok(event) = self.events.try_recv() {
            self.on_poll_event(event);
        }
    }

    fn wake(&self) -> Instant {
        let latest = Instant::now() + HEARTBEAT;
        let limits = [self.first_session_by, self.drain_by];
        let deadline = self.state.next_deadline().map(|due| self.around.clock + due);
        limits.into_iter().flatten().chain(deadline).fold(latest, Instant::min)
    }

    fn watch_limits(&mut self) {
        let now = Instant::now();
        if self.first_session_by.is_some_and(|by| now >= by) {
            tracing::error!(
                event = "startup_timeout",
                "no database session within postgres.startup_timeout"
            );
            self.end(ExitReason::DependencyUnavailable);
        }
        if self.drain_by.is_some_and(|by| now >= by) {
            let unfinished = self.state.unfinished();
            tracing::error!(
                event = "drain_expired",
                unfinished,
                "shutdown.drain_timeout passed; the next start reads these records again"
            );
            self.end(ExitReason::Interrupted);
        }
    }

    fn drain(&mut self) {
        self.telemetry.draining();
        self.drain_by = Some(Instant::now() + self.around.config.shutdown.drain_timeout);
        self.first_session_by = None;
        self.consumer.send(Command::StopPolling);
        self.feed(Input::Drain);
    }

    fn end(&mut self, reason: ExitReason) {
        self.exit.get_or_insert(reason);
    }

    /// The last commit to Kafka, the farewell to the group, the end of the session.
    async fn leave(mut self, reason: ExitReason) -> ExitReason {
        if reason == ExitReason::Fenced {
            // Closing a fenced consumer never ends: leave it to the end of the process.
            return reason;
        }
        let mirror = self.mirror;
        let flushed = tokio::task::spawn_blocking(move || mirror.stop(FAREWELL)).await;
        if !matches!(flushed, Ok(true)) {
            tracing::warn!(event = "mirror_late", "the last commit to Kafka was not confirmed");
        }
        self.consumer.send(Command::Close);
        let closed = async {
            while let Some(event) = self.events.recv().await {
                match event {
                    PollEvent::Closed => break,
                    PollEvent::Revoked { ticket, .. } => {
                        self.consumer.send(Command::Released { ticket, commits: Vec::new() });
                    }
                    _ => {}
                }
            }
        };
        if tokio::time::timeout(FAREWELL, closed).await.is_err() {
            tracing::warn!(event = "consumer_late", "the consumer did not leave the group in time");
        }
        if let Some(live) = self.live {
            live.session.close();
        }
        reason
    }

    /// Tells the coordinator and does what it says.
    fn feed(&mut self, input: Input) {
        let actions = self.state.on(self.around.clock.elapsed(), input);
        for action in actions {
            self.perform(action);
        }
    }

    fn on_poll_event(&mut self, event: PollEvent) {
        match event {
            PollEvent::Assigned(partitions) => {
                self.telemetry.assigned(&partitions);
                self.feed(Input::Assigned(partitions));
            }
            PollEvent::Revoked { partitions, ticket, lost } => {
                self.mirror.forget(partitions.clone());
                self.feed(Input::Revoked { partitions, ticket, lost });
            }
            PollEvent::Polled(events) => self.feed(Input::Polled(events)),
            PollEvent::Positioned { partition, generation, next } => {
                self.feed(Input::Positioned { partition, generation, next });
            }
            PollEvent::LogChanged { partition, generation } => {
                self.feed(Input::LogChanged { partition, generation });
            }
            PollEvent::Fenced(_) => self.end(ExitReason::Fenced),
            PollEvent::Closed => self.end(ExitReason::Bug),
            PollEvent::Heartbeat => {}
            PollEvent::Unreachable => self.telemetry.kafka_unreachable(),
            PollEvent::Reachable => self.telemetry.kafka_reachable(),
            PollEvent::Trouble { code, fault } => self.telemetry.kafka_trouble(code, fault),
        }
    }

    fn on_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Input(input) => self.feed(input),
            Outcome::Opened(opened) => self.on_opened(opened),
            Outcome::NotOpened(id, failure) => self.on_not_opened(id, failure),
            Outcome::PublisherEnded => self.end(ExitReason::Bug),
        }
    }

    fn on_opened(&mut self, opened: Opened) {
        let Opened { session, end, context } = opened;
        let id = session.id;
        self.first_session_by = None;
        self.plan_doubted = false;
        self.problems.clear();
        self.telemetry.session_opened(id);
        let decoder = Decoder::new(&context.plan, &self.around.config);
        self.consumer.send(Command::Decode(Arc::new(decoder)));
        self.desk.send_modify(|desk| desk.letters = Some(Arc::clone(&session)));
        self.live = Some(Live { session, context });
        self.work.push(Box::pin(async move {
            let fault = end.wait().await;
            Outcome::Input(Input::SessionLost(id, fault))
        }));
        self.feed(Input::SessionOpened(id));
    }

    fn on_not_opened(&mut self, id: SessionId, failure: OpenFailure) {
        let first = self.first_session_by.is_some();
        match &failure {
            OpenFailure::Connection(error @ OpenError::ClusterMismatch { .. }) => {
                tracing::error!(event = "cluster_mismatch", %error, "refusing to start");
                return self.end(ExitReason::Fenced);
            }
            OpenFailure::Tables(MigrateError::Database(_))
            | OpenFailure::Connection(OpenError::Database(_)) => {}
            OpenFailure::Tables(error) => {
                tracing::error!(event = "tables_unusable", %error, "pgsluice's tables");
                if first {
                    return self.end(ExitReason::Configuration);
                }
            }
            OpenFailure::Connection(error) => {
                tracing::error!(event = "database_unusable", %error, "database");
                if first {
                    return self.end(ExitReason::Configuration);
                }
            }
            OpenFailure::Routes(problems) => self.report_problems(problems),
        }
        self.feed(Input::SessionLost(id, failure.fault()));
    }

    /// Routes that do not fit their tables stop everything until they do; said once.
    fn report_problems(&mut self, problems: &[String]) {
        // The database answers: this is no missing dependency.
        self.first_session_by = None;
        if self.problems != problems {
            for problem in problems {
                tracing::error!(event = "route_unusable", problem, "waiting until it is mended");
            }
            self.problems = problems.to_vec();
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::OpenSession { session, after } => {
                let around = Arc::clone(&self.around);
                self.work.push(Box::pin(perform::open(around, session, after)));
            }
            Action::CloseSession(id, fault) => self.close_session(id, &fault),
            Action::Take { session, partitions } => {
                if let Some(live) = self.live(session) {
                    let around = Arc::clone(&self.around);
                    let check_plan = std::mem::take(&mut self.plan_doubted);
                    self.work.push(Box::pin(live.take(around, partitions, check_plan)));
                }
            }
            Action::Seek { partition, generation, next, anchor } => {
                self.consumer.send(Command::Seek { partition, generation, next, anchor });
            }
            Action::Pause(partition) => self.consumer.send(Command::Pause(partition)),
            Action::Resume(partition) => self.consumer.send(Command::Resume(partition)),
            Action::Apply { session, groups } => match self.live(session) {
                Some(live) => self.work.push(Box::pin(live.apply(groups))),
                None => self.give_back(session, Lane::Fast, groups),
            },
            Action::Read { session, groups } => match self.live(session) {
                Some(live) => self.work.push(Box::pin(live.read(groups))),
                None => self.give_back(session, Lane::Slow, groups),
            },
            Action::Resolve { session, group } => match self.live(session) {
                Some(live) => self.work.push(Box::pin(live.resolve(group))),
                None => self.give_back(session, Lane::Slow, vec![group]),
            },
            Action::Advance { session, progress } => {
                if let Some(live) = self.live(session) {
                    self.work.push(Box::pin(live.advance(progress)));
                }
            }
            Action::Mirror(positions) => self.mirror.commit(positions),
            Action::Released(ticket, commits) => {
                self.consumer.send(Command::Released { ticket, commits });
            }
            Action::Drained => {
                self.telemetry.drained();
                self.end(ExitReason::Clean);
            }
            Action::Stop(fault) => {
                tracing::error!(event = "corruption", error = %fault, "the database reports damage");
                self.end(ExitReason::Corruption);
            }
            Action::Freed(weight) => self.budget.free(weight),
            Action::Report(report) => self.on_report(&report),
        }
    }

    fn on_report(&mut self, report: &Report) {
        self.telemetry.report(report);
        match report {
            Report::LettersWritten => self.letters_written.notify_one(),
            Report::Halted { reason: Reason::SchemaMismatch, .. } => self.plan_doubted = true,
            Report::Taken(partition, claim) => {
                let owned = OwnedStream { stream: claim.stream, epoch: claim.epoch };
                self.owned.insert(partition.clone(), owned);
                self.tell_publisher();
            }
            Report::GivenUp(partition) | Report::Fenced(partition) => {
                self.owned.remove(partition);
                self.tell_publisher();
            }
            _ => {}
        }
    }

    fn tell_publisher(&self) {
        let streams = self.owned.values().copied().collect();
        self.desk.send_modify(|desk| desk.streams = streams);
    }

    fn close_session(&mut self, id: SessionId, fault: &Fault) {
        self.telemetry.session_lost(id, fault);
        if let Some(live) = self.live.take_if(|live| live.session.id == id) {
            self.desk.send_modify(|desk| desk.letters = None);
            live.session.close();
        }
    }

    fn live(&self, session: SessionId) -> Option<Live> {
        self.live.as_ref().filter(|live| live.session.id == session).cloned()
    }

    /// The session of this work is gone: the coordinator counts it out.
    fn give_back(&mut self, session: SessionId, lane: Lane, groups: Vec<Group>) {
        let failed = GroupReply::Failed(Fault::new(FaultKind::Connection));
        let groups = groups.into_iter().map(|group| (group, failed.clone())).collect();
        self.work.push(Box::pin(std::future::ready(Outcome::Input(Input::Replied {
            session,
            lane,
            groups,
        }))));
    }
}

/// Names this process for people: host and process id.
fn owner() -> Box<str> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}/{}", host.trim(), std::process::id()).into()
}

/// The coordinator's bounds, from the configuration.
fn state_config(config: &Config) -> StateConfig {
    let faults = FaultPolicy::default();
    StateConfig {
        fast_capacity: config.postgres.lanes * config.postgres.in_flight,
        slow_capacity: config.postgres.slow_connections,
        aggregates_per_transaction: config.postgres.aggregates_per_transaction,
        events_per_group: config.limits.events_per_group,
        groups_per_read: 500,
        unfinished_per_partition: config.limits.unfinished_per_partition,
        gaps: perform::gap_policy(config),
        note_skips: config.notification.write == crate::config::NotificationWrite::All,
        advance_interval: Duration::from_millis(20),
        revoke_budget: config.kafka.revoke_budget.mul_f64(0.9),
        retry: Backoff { initial: config.retry.initial, max: config.retry.max },
        reopen: Backoff { initial: Duration::from_millis(200), max: Duration::from_secs(5) },
        halt: Backoff { initial: Duration::from_secs(2), max: Duration::from_secs(30) },
        retake: Duration::from_secs(1),
        fenced_wait: Duration::from_secs(10),
        decide: Arc::new(move |fault| faults.decide(fault)),
    }
}
