//! Performs the coordinator's actions. Each becomes work that ends in an [`Outcome`]; nothing is
//! decided here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{Config, Migrate};
use crate::postgres::{OpenError, Session, SessionEnd};
use crate::route::{Catalog, Plan, RouteProblems};
use crate::store::migrate::{self, MigrateError};
use crate::store::sink::{self, SinkError};
use crate::telemetry::{SlowWork, Telemetry, WorkMetrics};
use pgsluice_core::decode::Missing;
use pgsluice_core::event::{Content, Event};
use pgsluice_core::fault::{Fault, FaultKind};
use pgsluice_core::group::{Group, GroupReply};
use pgsluice_core::record::{Generation, SessionId, TopicPartition};
use pgsluice_core::verdict::Reason;

use super::Piece;
use crate::lanes::context::ApplyContext;
use crate::lanes::take::{self, TakeRequest, Taken};
use crate::lanes::{barrier, fast, slow};
use pgsluice_core::input::{Input, Lane, TakeReply};
use pgsluice_core::position::KafkaPosition;
use pgsluice_core::source::Source;

/// How long Kafka may take to tell its positions before the take is asked for again.
const POSITIONS_TIMEOUT: Duration = Duration::from_secs(10);

/// What became of a piece of work.
pub(super) enum Outcome {
    /// Something the coordinator wants to know.
    Input(Input),
    /// Decoding knows what it missed.
    Learned(Missing),
    /// A session is ready to be used.
    Opened(Opened),
    /// A session could not be opened.
    NotOpened(SessionId, OpenFailure),
    /// The publisher or the counting ended, which they must not while the pipeline runs.
    Ended(&'static str),
}

/// A session with what is compiled for it.
pub(super) struct Opened {
    pub(super) session: Arc<Session>,
    pub(super) end: SessionEnd,
    pub(super) context: Arc<ApplyContext>,
}

/// Why there is no session.
pub(super) enum OpenFailure {
    /// The tables of pgsluice itself.
    Tables(MigrateError),
    /// The connection.
    Connection(OpenError),
    /// The sink's own row.
    Sink(SinkError),
    /// No broker said which cluster this is.
    Brokers,
}

impl OpenFailure {
    /// The fault to go on with.
    pub(super) fn fault(self) -> Fault {
        match self {
            Self::Tables(MigrateError::Database(fault)) => fault,
            Self::Tables(_) => Fault::new(FaultKind::Bug("cannot use pgsluice's tables")),
            Self::Connection(error) => error.into_fault(),
            Self::Sink(error) => error.into_fault(),
            Self::Brokers => Fault::new(FaultKind::BrokersSilent),
        }
    }
}

/// What the work needs to know; shared by all of it.
pub(super) struct Surroundings {
    pub(super) config: Arc<Config>,
    /// Where records come from.
    pub(super) source: Arc<dyn Source>,
    /// Where the coordinator's clock began.
    pub(super) clock: Instant,
    /// Names this process in `stream_t.owner`, for people.
    pub(super) owner: Box<str>,
    /// Where work is counted and timed.
    pub(super) telemetry: Telemetry,
}

/// Opens a session after a while: our own tables, the connections, the routes' targets.
///
/// The first one waits for the brokers, too: a start with neither is one that is not complete.
pub(super) async fn open(
    around: Arc<Surroundings>,
    id: SessionId,
    after: Duration,
    first: bool,
) -> Outcome {
    tokio::time::sleep(after).await;
    match try_open(&around, id, first).await {
        Ok(opened) => Outcome::Opened(opened),
        Err(failure) => Outcome::NotOpened(id, failure),
    }
}

async fn try_open(
    around: &Surroundings,
    id: SessionId,
    first: bool,
) -> Result<Opened, OpenFailure> {
    let config = &around.config;
    let tables = match config.postgres.migrate {
        Migrate::Auto => migrate::migrate(&config.postgres).await.map(|_| ()),
        Migrate::Verify => migrate::verify(&config.postgres).await.map(|_| ()),
    };
    tables.map_err(OpenFailure::Tables)?;
    let source = Arc::clone(&around.source);
    // Unknown while no broker answers; then there is nothing to read either.
    let cluster = blocking(move || source.cluster_id(POSITIONS_TIMEOUT)).await.flatten();
    if first && cluster.is_none() {
        return Err(OpenFailure::Brokers);
    }
    let (session, end) = Session::open(config, id).await.map_err(OpenFailure::Connection)?;
    let sink = sink::find_or_create(&session, &config.kafka.group, cluster.as_deref())
        .await
        .map_err(OpenFailure::Sink)?;
    // Where a route does not fit its table every take looks at the tables first, and halts the
    // partitions of topics that the route may be meant for.
    let (plan, _) = compile(config, &session).await.map_err(database)?;
    let telemetry = around.telemetry.clone();
    let context = ApplyContext::new(config, plan, sink, around.clock.into_std(), telemetry);
    Ok(Opened { session: Arc::new(session), end, context: Arc::new(context) })
}

fn database(fault: Fault) -> OpenFailure {
    OpenFailure::Connection(OpenError::Database(fault))
}

/// The routes as they fit the tables now, and what is wrong with those that do not.
async fn compile(config: &Config, session: &Session) -> Result<(Plan, RouteProblems), Fault> {
    let connection = session.slow().await?;
    let catalog = session
        .within(async {
            let loaded = Catalog::load(&connection, config).await;
            loaded.map_err(|error| crate::postgres::fault_of(&error))
        })
        .await?;
    Ok(Plan::compile_usable(config, &catalog))
}

/// Runs a blocking call on a thread of its own; `None` when it panicked.
async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(call).await.ok()
}

/// Groups whose session is gone before they could be sent: the coordinator counts them out.
pub(super) fn give_back(session: SessionId, lane: Lane, groups: Vec<Group>) -> Piece {
    let failed = GroupReply::Failed(Fault::new(FaultKind::Connection));
    let groups = groups.into_iter().map(|group| (group, failed.clone())).collect();
    let replied = Outcome::Input(Input::Replied { session, lane, groups });
    Box::pin(std::future::ready(replied))
}

/// An open session, and the work that goes through it.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) session: Arc<Session>,
    pub(super) context: Arc<ApplyContext>,
    pub(super) around: Arc<Surroundings>,
}

/// How the routes fit their tables now.
enum Fit {
    /// As they did when the session began, with what was wrong then.
    AsCompiled(RouteProblems),
    /// In another way.
    Otherwise,
    /// Some do not any more; the others as before.
    Broken(RouteProblems),
}

/// Whether the event was refused for what the plan says of a column.
fn rests_on_plan(event: &Event) -> bool {
    matches!(&event.content, Content::Poison(poison) if poison.reason == Reason::ColumnValue)
}

impl Live {
    pub(super) async fn apply(self, groups: Vec<Group>) -> Outcome {
        let lane = self.session.lane();
        let entered = lane.enter();
        let groups = fast::apply(lane, &self.context, groups).await;
        drop(entered);
        self.replied(Lane::Fast, groups)
    }

    pub(super) async fn read(self, groups: Vec<Group>) -> Outcome {
        let start = Instant::now();
        let groups = slow::read(&self.session, &self.context, groups).await;
        self.measured(SlowWork::Read, start, &groups);
        self.replied(Lane::Slow, groups)
    }

    /// A value is no dead letter because of a type that its column does not have any more (INV-13).
    pub(super) async fn resolve(self, group: Group) -> Outcome {
        if group.events().any(rests_on_plan) {
            match self.fit().await {
                Ok(Fit::AsCompiled(_)) => {}
                Ok(Fit::Otherwise | Fit::Broken(_)) => return self.plan_changed(),
                Err(fault) => {
                    return self.replied(Lane::Slow, vec![(group, GroupReply::Failed(fault))]);
                }
            }
        }
        let start = Instant::now();
        let groups = vec![slow::resolve(&self.session, &self.context, group).await];
        self.measured(SlowWork::Resolve, start, &groups);
        self.replied(Lane::Slow, groups)
    }

    async fn fit(&self) -> Result<Fit, Fault> {
        let (plan, problems) = compile(&self.around.config, &self.session).await?;
        Ok(if plan == self.context.plan {
            Fit::AsCompiled(problems)
        } else if self.context.plan.changed_to(&plan) {
            Fit::Otherwise
        } else {
            Fit::Broken(problems)
        })
    }

    /// The plan is the session's: another one needs another session.
    fn plan_changed(&self) -> Outcome {
        let changed = Fault::new(FaultKind::PlanChanged);
        Outcome::Input(Input::SessionLost(self.session.id, changed))
    }

    fn measured(&self, work: SlowWork, start: Instant, groups: &[(Group, GroupReply)]) {
        let committed = !groups.iter().any(|(_, reply)| matches!(reply, GroupReply::Failed(_)));
        self.metrics().slow_lane(work, start.elapsed(), committed);
    }

    fn metrics(&self) -> &WorkMetrics {
        &self.context.telemetry.metrics().work
    }

    fn replied(&self, lane: Lane, mut groups: Vec<(Group, GroupReply)>) -> Outcome {
        for (group, reply) in &mut groups {
            if let GroupReply::Failed(fault) = reply {
                self.context.name_route(group, fault);
            }
        }
        Outcome::Input(Input::Replied { session: self.session.id, lane, groups })
    }

    pub(super) async fn advance(self, progress: Vec<pgsluice_core::group::Progress>) -> Outcome {
        let id = self.session.id;
        let start = Instant::now();
        let answer = barrier::advance(&self.session, &progress).await;
        self.metrics().barrier(start.elapsed());
        Outcome::Input(match answer {
            Ok(streams) => Input::Advanced(id, streams),
            Err(fault) => Input::SessionLost(id, fault),
        })
    }

    pub(super) async fn take(
        self,
        partitions: Vec<(TopicPartition, Generation)>,
        check_plan: bool,
    ) -> Outcome {
        let id = self.session.id;
        let (partitions, mut taken) = if check_plan {
            match self.fit().await {
                Ok(Fit::AsCompiled(problems) | Fit::Broken(problems)) => {
                    halted(&self.around.config, partitions, &problems)
                }
                Ok(Fit::Otherwise) => return self.plan_changed(),
                Err(fault) => return Outcome::Input(Input::SessionLost(id, fault)),
            }
        } else {
            (partitions, Vec::new())
        };
        let claimed = match self.claim(partitions).await {
            Ok(claimed) => claimed,
            Err(fault) => return Outcome::Input(Input::SessionLost(id, fault)),
        };
        // What Kafka said is older than the claim: a former owner that reads on may have moved
        // progress beyond it meanwhile. Now nobody can any more, so what it says now counts.
        let (claimed, doubted) = doubted(claimed);
        taken.extend(claimed);
        if !doubted.is_empty() {
            match self.claim(doubted).await {
                Ok(again) => taken.extend(again),
                Err(fault) => return Outcome::Input(Input::SessionLost(id, fault)),
            }
        }
        Outcome::Input(Input::Taken(id, taken))
    }

    /// Asks Kafka where partitions stand, then takes those it told of.
    async fn claim(
        &self,
        partitions: Vec<(TopicPartition, Generation)>,
    ) -> Result<Vec<Taken>, Fault> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let around = &self.around;
        let names: Vec<TopicPartition> = partitions.iter().map(|(name, _)| name.clone()).collect();
        let source = Arc::clone(&around.source);
        let found = blocking(move || source.positions(&names, POSITIONS_TIMEOUT)).await;
        let found = found.unwrap_or_default();
        let (requests, mut taken) = requests(partitions, found);
        if !requests.is_empty() {
            taken.extend(
                take::take(&self.session, self.context.sink, &around.owner, requests).await?,
            );
        }
        Ok(taken)
    }
}

/// Splits off the partitions whose position does not lie in the log as Kafka told of it.
fn doubted(taken: Vec<Taken>) -> (Vec<Taken>, Vec<(TopicPartition, Generation)>) {
    let changed = |(_, _, reply): &Taken| matches!(reply, TakeReply::Halted(Reason::LogChanged, _));
    let (doubted, settled): (Vec<_>, Vec<_>) = taken.into_iter().partition(changed);
    (settled, doubted.into_iter().map(|(name, generation, _)| (name, generation)).collect())
}

/// Splits partitions into those that can be taken now and those that Kafka did not tell the
/// position of: every partition that was asked for has an answer.
fn requests(
    partitions: Vec<(TopicPartition, Generation)>,
    mut found: HashMap<TopicPartition, KafkaPosition>,
) -> (Vec<TakeRequest>, Vec<Taken>) {
    let mut requests = Vec::new();
    let mut busy = Vec::new();
    for (partition, generation) in partitions {
        match found.remove(&partition) {
            Some(kafka) => requests.push(TakeRequest { partition, generation, kafka }),
            None => busy.push((partition, generation, TakeReply::Busy)),
        }
    }
    (requests, busy)
}

/// Splits off the partitions that cannot be read before an operator mends the tables of routes that
/// their records may take.
fn halted(
    config: &Config,
    partitions: Vec<(TopicPartition, Generation)>,
    problems: &RouteProblems,
) -> (Vec<(TopicPartition, Generation)>, Vec<Taken>) {
    let mut readable = Vec::new();
    let mut halted = Vec::new();
    for (partition, generation) in partitions {
        match problems.concerning(&partition.topic, config) {
            None => readable.push((partition, generation)),
            Some(problems) => {
                let reply = TakeReply::Halted(problems.reason(), Some(Fault::from(problems)));
                halted.push((partition, generation, reply));
            }
        }
    }
    (readable, halted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_whose_position_kafka_did_not_tell_is_asked_for_again() {
        let partition = |number| TopicPartition { topic: "t".into(), partition: number };
        let told = KafkaPosition { committed: None, low: 0, high: 5, start: Some(0) };
        let found = HashMap::from([(partition(1), told)]);

        let wanted = vec![(partition(0), Generation(7)), (partition(1), Generation(8))];
        let (requests, busy) = requests(wanted, found);

        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].partition, partition(1));
        assert_eq!(busy, [(partition(0), Generation(7), TakeReply::Busy)]);
    }
}
