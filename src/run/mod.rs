//! From poll to progress. One pure coordinator ([`pgsluice_core::state`]) decides; thin shells around it do I/O.
//!
//! [`run`] is the loop between them: it turns what the shells report into inputs, and performs
//! the actions that the coordinator answers with. It owns the session, but no decision.

mod chores;
mod fetching;
mod measure;
mod perform;
mod sessions;
mod shutdown;
mod start;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::exit::ExitReason;
use crate::postgres::Session;
use crate::relay::Desk;
use crate::store::letter::publication::OwnedStream;
use crate::telemetry::{Publishing, Telemetry};
use pgsluice_core::decode::Missing;
use pgsluice_core::record::{SessionId, TopicPartition};

use self::fetching::{Fetching, Unobtainable};
use self::perform::{Live, Outcome, Surroundings};
use pgsluice_core::input::{Action, Input, Lane};
use pgsluice_core::source::{Command, PollEvent, Source};
use pgsluice_core::state::State;

/// Work under way: each piece ends in an outcome.
type Work = FuturesUnordered<Piece>;

/// One of them.
type Piece = Pin<Box<dyn Future<Output = Outcome>>>;

/// How much is taken from the consumer thread and from finished work before time is looked at.
const BURST: usize = 64;

/// The longest wait without a turn of the loop, so that the heartbeat is fresh.
const HEARTBEAT: Duration = Duration::from_millis(500);

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
    /// Where records come from.
    source: Arc<dyn Source>,
    /// What happens there.
    events: UnboundedReceiver<PollEvent>,
    /// What the publisher works on.
    desk: watch::Sender<Desk<Session>>,
    /// How publishing goes; `None` when dead letters stay in the table.
    publishing: Option<watch::Receiver<Publishing>>,
    /// Tells the publisher that letters were written.
    letters_written: Arc<Notify>,
    owned: BTreeMap<TopicPartition, OwnedStream>,
    work: Work,
    /// What decoding misses and is being fetched.
    fetching: Fetching,
    /// When to look at what takes more than a moment to measure.
    measure_due: Instant,
    live: Option<Live>,
    /// A route does not fit its table, or did not when something last failed: every take looks at
    /// the catalog first.
    plan_doubted: bool,
    unusable: sessions::Unusable,
    /// Was a member of the group once.
    joined: bool,
    /// The first session must be open by then.
    first_session_by: Option<Instant>,
    /// Set by the drain: when to give up on it.
    drain_by: Option<Instant>,
    exit: Option<ExitReason>,
}

impl Pipeline {
    /// Turns until there is a reason to end.
    async fn turn(&mut self, drain: &CancellationToken) -> ExitReason {
        self.feed(Input::Tick);
        loop {
            self.telemetry.beat();
            self.measure();
            let wake = self.wake();
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.on_poll_event(event),
                    None => self.end_of("consumer"),
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
                self.joined = true;
                self.telemetry.assigned(&partitions);
                self.feed(Input::Assigned(partitions));
            }
            PollEvent::Revoked { partitions, ticket, lost } => {
                self.telemetry.revoked(lost);
                self.feed(Input::Revoked { partitions, ticket, lost });
            }
            PollEvent::Polled(events, read) => {
                self.telemetry.read(&events, read);
                self.feed(Input::Polled(events));
            }
            PollEvent::Positioned { partition, generation, next } => {
                self.feed(Input::Positioned { partition, generation, next });
            }
            PollEvent::Missing { missing, .. } => self.fetch(missing),
            PollEvent::LogChanged { partition, generation } => {
                self.feed(Input::LogChanged { partition, generation });
            }
            PollEvent::Fenced(code) => {
                self.telemetry.member_fenced(&code);
                self.end(ExitReason::Fenced);
            }
            PollEvent::Closed => self.end_of("consumer"),
            PollEvent::Heartbeat => {}
            PollEvent::Unreachable => self.telemetry.kafka_unreachable(),
            PollEvent::Reachable => self.telemetry.kafka_reachable(),
            PollEvent::Refused(topics) => self.telemetry.topics_refused(&topics),
            PollEvent::Trouble { code, fault, ends_a_start } => {
                self.telemetry.kafka_trouble(&code, fault);
                if !self.joined && ends_a_start {
                    self.end(ExitReason::Configuration);
                }
            }
        }
    }

    /// The partition is held by the consumer thread, for the coordinator it is one without records.
    fn fetch(&mut self, missing: Missing) {
        match self.fetching.begin(missing) {
            Ok(Some(fetched)) => {
                self.work.push(Box::pin(fetched.map(move |()| Outcome::Learned(missing))));
            }
            Ok(None) => {}
            Err(Unobtainable) => self.end_of("decoder"),
        }
    }

    fn on_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Input(input) => {
                self.note(&input);
                self.feed(input);
            }
            Outcome::Learned(missing) => {
                self.fetching.ended(missing);
                self.source.send(Command::Learned(missing));
            }
            Outcome::Opened(opened) => self.on_opened(opened),
            Outcome::NotOpened(id, failure) => self.on_not_opened(id, failure),
            Outcome::Ended(part) => self.end_of(part),
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::OpenSession { session, after } => {
                let around = Arc::clone(&self.around);
                let first = self.first_session_by.is_some();
                self.work.push(Box::pin(perform::open(around, session, after, first)));
            }
            Action::CloseSession(id, fault) => self.close_session(id, &fault),
            Action::Take { session, partitions } => {
                if let Some(live) = self.live(session) {
                    self.work.push(Box::pin(live.take(partitions, self.plan_doubted)));
                }
            }
            Action::Seek { partition, generation, next, anchor } => {
                self.source.send(Command::Seek { partition, generation, next, anchor });
            }
            Action::Pause(partition) => self.source.send(Command::Pause(partition)),
            Action::Resume(partition) => self.source.send(Command::Resume(partition)),
            Action::Apply { session, groups } => match self.live(session) {
                Some(live) => {
                    self.telemetry.sent(&groups);
                    self.work.push(Box::pin(live.apply(groups)));
                }
                None => self.work.push(perform::give_back(session, Lane::Fast, groups)),
            },
            Action::Read { session, groups } => match self.live(session) {
                Some(live) => self.work.push(Box::pin(live.read(groups))),
                None => self.work.push(perform::give_back(session, Lane::Slow, groups)),
            },
            Action::Resolve { session, group } => match self.live(session) {
                Some(live) => self.work.push(Box::pin(live.resolve(group))),
                None => self.work.push(perform::give_back(session, Lane::Slow, vec![group])),
            },
            Action::Advance { session, progress } => {
                if let Some(live) = self.live(session) {
                    self.work.push(Box::pin(live.advance(progress)));
                }
            }
            Action::Own(partition, claim) => {
                let owned = OwnedStream { stream: claim.stream, epoch: claim.epoch };
                self.owned.insert(partition, owned);
                self.tell_publisher();
            }
            Action::Disown(partition) => {
                self.owned.remove(&partition);
                self.tell_publisher();
                self.source.forget(partition);
            }
            Action::PublishLetters => self.letters_written.notify_one(),
            Action::DoubtPlan => self.plan_doubted = true,
            Action::Mirror(positions) => self.source.mirror(positions),
            Action::Released(ticket, commits) => {
                self.source.send(Command::Released { ticket, commits });
            }
            Action::Drained => {
                self.telemetry.drained();
                self.end(ExitReason::Clean);
            }
            Action::Stop(fault) => self.stop(&fault),
            Action::Freed(weight) => self.source.free(weight),
            Action::Report(report) => self.telemetry.report(&report),
        }
    }

    fn tell_publisher(&self) {
        let streams = self.owned.values().copied().collect();
        self.desk.send_modify(|desk| desk.streams = streams);
    }

    fn live(&self, session: SessionId) -> Option<Live> {
        self.live.as_ref().filter(|live| live.session.id == session).cloned()
    }
}
