//! Performs the coordinator's actions. Each becomes work that ends in an [`Outcome`]; nothing is
//! decided here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{Config, Migrate};
use crate::event::{Content, Event};
use crate::fault::{Fault, FaultKind};
use crate::group::{Group, GroupReply};
use crate::kafka::positions::Positions;
use crate::postgres::migrate::{self, MigrateError};
use crate::postgres::{OpenError, Session, SessionEnd};
use crate::record::{Generation, SessionId, TopicPartition};
use crate::route::{Catalog, Plan, RouteProblems};
use crate::telemetry::{SlowWork, Telemetry, WorkMetrics};
use crate::verdict::Reason;

use super::Piece;
use super::advance;
use super::apply;
use super::context::ApplyContext;
use super::input::{Input, Lane, TakeReply};
use super::resolve;
use super::take::{self, KafkaPosition, TakeRequest};

/// How long Kafka may take to tell its positions before the take is asked for again.
const POSITIONS_TIMEOUT: Duration = Duration::from_secs(10);

/// What became of a piece of work.
pub(super) enum Outcome {
    /// Something the coordinator wants to know.
    Input(Input),
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
    /// No broker said which cluster this is.
    Brokers,
}

impl OpenFailure {
    /// The fault to go on with.
    pub(super) fn fault(self) -> Fault {
        match self {
            Self::Tables(MigrateError::Database(fault)) => fault,
            Self::Tables(_) => Fault::new(FaultKind::Bug("pgsluice's tables cannot be used")),
            Self::Connection(error) => error.into_fault(),
            Self::Brokers => Fault::new(FaultKind::Bug("no broker answers")),
        }
    }
}

/// What the work needs to know; shared by all of it.
pub(super) struct Surroundings {
    pub(super) config: Arc<Config>,
    pub(super) positions: Arc<Positions>,
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
    let positions = Arc::clone(&around.positions);
    // Unknown while no broker answers; then there is nothing to read either.
    let cluster = blocking(move || positions.cluster_id(POSITIONS_TIMEOUT)).await.flatten();
    if first && cluster.is_none() {
        return Err(OpenFailure::Brokers);
    }
    let (session, end) =
        Session::open(config, id, cluster.as_deref()).await.map_err(OpenFailure::Connection)?;
    // Where a route does not fit its table there is no plan, and nothing is claimed with this
    // session: every take looks at the tables first and halts its partitions.
    let plan = compile(config, &session).await.map_err(database)?;
    let plan = plan.unwrap_or_else(|_| Plan { routes: Vec::new() });
    let telemetry = around.telemetry.clone();
    let context = ApplyContext::new(config, plan, session.sink, around.clock.into_std(), telemetry);
    Ok(Opened { session: Arc::new(session), end, context: Arc::new(context) })
}

fn database(fault: Fault) -> OpenFailure {
    OpenFailure::Connection(OpenError::Database(fault))
}

/// The routes as they fit the tables now.
async fn compile(config: &Config, session: &Session) -> Result<Result<Plan, RouteProblems>, Fault> {
    let connection = session.slow().await?;
    let catalog = session
        .within(async {
            let loaded = Catalog::load(&connection, config).await;
            loaded.map_err(|error| Fault::from_postgres(&error))
        })
        .await?;
    Ok(Plan::compile(config, &catalog))
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
    /// As they did when the session began.
    AsCompiled,
    /// In another way.
    Otherwise,
    /// Not any more.
    Not(RouteProblems),
}

/// Whether the event was refused for what the plan says of a column.
fn rests_on_plan(event: &Event) -> bool {
    matches!(&event.content, Content::Poison(poison) if poison.reason == Reason::ColumnValue)
}

impl Live {
    pub(super) async fn apply(self, groups: Vec<Group>) -> Outcome {
        let lane = self.session.lane();
        let entered = lane.enter();
        let groups = apply::apply(lane, &self.context, groups).await;
        drop(entered);
        self.replied(Lane::Fast, groups)
    }

    pub(super) async fn read(self, groups: Vec<Group>) -> Outcome {
        let start = Instant::now();
        let groups = resolve::read(&self.session, &self.context, groups).await;
        self.measured(SlowWork::Read, start, &groups);
        self.replied(Lane::Slow, groups)
    }

    /// A value is no dead letter because of a type that its column does not have any more (INV-13).
    pub(super) async fn resolve(self, group: Group) -> Outcome {
        if group.events.iter().any(rests_on_plan) {
            match self.fit().await {
                Ok(Fit::AsCompiled) => {}
                Ok(Fit::Otherwise | Fit::Not(_)) => return self.plan_changed(),
                Err(fault) => {
                    return self.replied(Lane::Slow, vec![(group, GroupReply::Failed(fault))]);
                }
            }
        }
        let start = Instant::now();
        let groups = vec![resolve::resolve(&self.session, &self.context, group).await];
        self.measured(SlowWork::Resolve, start, &groups);
        self.replied(Lane::Slow, groups)
    }

    async fn fit(&self) -> Result<Fit, Fault> {
        Ok(match compile(&self.around.config, &self.session).await? {
            Ok(plan) if plan == self.context.plan => Fit::AsCompiled,
            Ok(_) => Fit::Otherwise,
            Err(problems) => Fit::Not(problems),
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

    fn replied(&self, lane: Lane, groups: Vec<(Group, GroupReply)>) -> Outcome {
        Outcome::Input(Input::Replied { session: self.session.id, lane, groups })
    }

    pub(super) async fn advance(self, progress: Vec<crate::group::Progress>) -> Outcome {
        let id = self.session.id;
        let start = Instant::now();
        let answer = advance::advance(&self.session, &progress).await;
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
        if check_plan {
            match self.fit().await {
                Ok(Fit::AsCompiled) => {}
                Ok(Fit::Otherwise) => return self.plan_changed(),
                Ok(Fit::Not(problems)) => return halted(id, partitions, problems),
                Err(fault) => return Outcome::Input(Input::SessionLost(id, fault)),
            }
        }
        let around = &self.around;
        let names: Vec<TopicPartition> = partitions.iter().map(|(name, _)| name.clone()).collect();
        let positions = Arc::clone(&around.positions);
        let found = blocking(move || positions.fetch(&names, POSITIONS_TIMEOUT)).await;
        let found = found.and_then(Result::ok).unwrap_or_default();
        let (requests, busy) = requests(partitions, found);
        if requests.is_empty() {
            return Outcome::Input(Input::Taken(id, busy));
        }
        Outcome::Input(match take::take(&self.session, &around.owner, requests).await {
            Ok(mut replies) => {
                replies.extend(busy);
                Input::Taken(id, replies)
            }
            Err(fault) => Input::SessionLost(id, fault),
        })
    }
}

/// Splits partitions into those that can be taken now and those that Kafka did not tell the
/// position of: every partition that was asked for has an answer.
fn requests(
    partitions: Vec<(TopicPartition, Generation)>,
    mut found: HashMap<TopicPartition, KafkaPosition>,
) -> (Vec<TakeRequest>, Vec<take::Taken>) {
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

/// None of these partitions can be read before an operator mends the routes' tables.
fn halted(
    id: SessionId,
    partitions: Vec<(TopicPartition, Generation)>,
    problems: RouteProblems,
) -> Outcome {
    let reason = problems.reason();
    let fault = Fault::from(problems);
    let reply = |(partition, generation)| {
        (partition, generation, TakeReply::Halted(reason, Some(fault.clone())))
    };
    Outcome::Input(Input::Taken(id, partitions.into_iter().map(reply).collect()))
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
