//! How the pipeline begins: the parts that can fail for a wrong setting, and the bounds.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::config::{Config, NotificationWrite};
use crate::exit::ExitReason;
use crate::kafka::source::Kafka;
use crate::relay::{Desk, Publisher};
use crate::telemetry::Telemetry;

use super::chores::{self, Counting, Lag};
use super::fetching::{Fetching, Nothing};
use super::perform::{Outcome, Surroundings};
use super::sessions::Unusable;
use super::{Pipeline, Work};
use crate::lanes::context::gap_policy;
use pgsluice_core::backoff::Backoff;
use pgsluice_core::source::{PollEvent, Source};
use pgsluice_core::state::{State, StateConfig};

/// How many refused groups one look at the ledger reads.
const GROUPS_PER_READ: usize = 500;

/// The shortest time between two barriers: what a crash costs at most, and the delay with which
/// an idle topic's progress becomes visible.
const ADVANCE_INTERVAL: Duration = Duration::from_millis(20);

/// How long the coordinator uses of the time that the consumer thread waits for a revocation: it
/// must have answered before the thread gives up.
const REVOKE_SHARE: f64 = 0.9;

impl Pipeline {
    /// Starts the parts. Nothing is read before a session is open.
    pub(super) fn start(config: Arc<Config>, telemetry: Telemetry) -> Result<Self, ExitReason> {
        let kafka = |error: &dyn Display| {
            tracing::error!(event = "kafka_refused", %error, "cannot create the Kafka client");
            ExitReason::Configuration
        };
        let (sender, events) = unbounded_channel();
        let source = Kafka::start(&config, sender, telemetry.clone()).map_err(|e| kafka(&e))?;
        let mut pipeline = Self::on(Arc::new(source), events, config, telemetry.clone());
        let config = &pipeline.around.config;
        let letters_written = Arc::clone(&pipeline.letters_written);
        let publisher = Publisher::start(config, pipeline.desk.subscribe(), letters_written)
            .map_err(|e| kafka(&e))?;
        let counting =
            Counting::new(config.kafka.group.clone(), publisher.is_some(), telemetry.clone());
        pipeline.work.push(chores::with_sessions(counting, pipeline.desk.subscribe()));
        let lag = Lag::new(Arc::clone(&pipeline.source), telemetry.clone());
        pipeline.work.push(chores::with_process(lag));
        if let Some(publisher) = publisher {
            pipeline.publishing = Some(publisher.status());
            pipeline.work.push(Box::pin(publisher.run().map(|()| Outcome::Ended("publisher"))));
        }
        telemetry.started();
        Ok(pipeline)
    }

    /// The loop on a source, with nothing beside it: `events` is the other end of what the source
    /// tells.
    pub(super) fn on(
        source: Arc<dyn Source>,
        events: UnboundedReceiver<PollEvent>,
        config: Arc<Config>,
        telemetry: Telemetry,
    ) -> Self {
        let clock = Instant::now();
        Self {
            state: State::new(state_config(&config), rand::random()),
            first_session_by: Some(clock + config.postgres.startup_timeout),
            around: Arc::new(Surroundings {
                config,
                source: Arc::clone(&source),
                clock,
                owner: owner(),
                telemetry: telemetry.clone(),
            }),
            telemetry,
            source,
            events,
            desk: watch::Sender::new(Desk::default()),
            publishing: None,
            letters_written: Arc::new(Notify::new()),
            owned: BTreeMap::new(),
            work: Work::new(),
            fetching: Fetching::new(Nothing),
            measure_due: clock,
            live: None,
            plan_doubted: false,
            unusable: Unusable::default(),
            joined: false,
            drain_by: None,
            exit: None,
        }
    }
}

/// Names this process for people: host and process id.
fn owner() -> Box<str> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}/{}", host.trim(), std::process::id()).into()
}

/// The coordinator's bounds, from the configuration.
fn state_config(config: &Config) -> StateConfig {
    let faults = config.retry.faults.clone();
    StateConfig {
        fast_capacity: config.postgres.lanes * config.postgres.in_flight,
        slow_capacity: config.postgres.slow_connections,
        aggregates_per_transaction: config.postgres.aggregates_per_transaction,
        events_per_group: config.limits.events_per_group,
        groups_per_read: GROUPS_PER_READ,
        unfinished_per_partition: config.limits.unfinished_per_partition,
        gaps: gap_policy(config),
        note_skips: config.notification.write == NotificationWrite::All,
        advance_interval: ADVANCE_INTERVAL,
        revoke_budget: config.kafka.revoke_budget.mul_f64(REVOKE_SHARE),
        retry: Backoff { initial: config.retry.initial, max: config.retry.max },
        give_up_after: config.retry.give_up_after,
        reopen: Backoff { initial: Duration::from_millis(200), max: Duration::from_secs(5) },
        halt: Backoff { initial: Duration::from_secs(2), max: Duration::from_secs(30) },
        retake: Duration::from_secs(1),
        fenced_wait: Duration::from_secs(10),
        decide: Arc::new(move |fault| faults.decide(fault)),
    }
}
