//! What the fast and the slow lane share: routes, statements and policies of one session.

use std::time::{Duration, Instant};

use crate::config::{
    Config, DeadLetterConfig, EventJson, NotificationConfig, NotificationWrite, OnGap,
};
use crate::lanes::parked_count::ParkedCount;
use crate::lanes::statement::Statements;
use crate::route::Plan;
use crate::sql::name::Schema;
use crate::store::letter::Letter;
use crate::store::notification::Notify;
use crate::store::sink::SinkId;
use crate::telemetry::Telemetry;
use pgsluice_core::event::Event;
use pgsluice_core::fault::{Decision, Fault, FaultPolicy};
use pgsluice_core::group::{Group, GroupKind};
use pgsluice_core::verdict::{GapPolicy, Verdict};

/// What fast and slow lane need to know; the same for the whole session.
#[derive(Debug)]
pub struct ApplyContext {
    /// The routes, compiled for this session.
    pub plan: Plan,
    /// The sink's key in the database.
    pub sink: SinkId,
    /// The statements written so far.
    pub statements: Statements,
    /// Which outcomes leave a row.
    pub notification: NotificationConfig,
    /// What limits dead letters, stale events and parked records.
    pub dead_letter: DeadLetterConfig,
    /// How many records are parked, as of a moment ago.
    pub parked: ParkedCount,
    /// What happens where versions are missing.
    pub gaps: GapPolicy,
    /// What follows from a fault.
    pub faults: FaultPolicy,
    /// How long an answer may take before the session is given up.
    pub deadline: Duration,
    /// Where the coordinator's clock began.
    pub clock: Instant,
    /// Where work is counted and timed.
    pub telemetry: Telemetry,
}

impl ApplyContext {
    /// The context of a session that writes as `sink`, with routes compiled for it. `clock` is where
    /// the coordinator's clock began.
    pub fn new(
        config: &Config,
        plan: Plan,
        sink: SinkId,
        clock: Instant,
        telemetry: Telemetry,
    ) -> Self {
        let gaps = gap_policy(config);
        let schema = Schema::new(&config.postgres.schema);
        Self {
            statements: Statements::new(schema, gaps == GapPolicy::Park),
            plan,
            sink,
            notification: config.notification.clone(),
            dead_letter: config.dead_letter.clone(),
            parked: ParkedCount::default(),
            gaps,
            faults: config.retry.faults.clone(),
            deadline: config.postgres.deadline,
            clock,
            telemetry,
        }
    }

    /// Counts and times a transaction on a fast lane.
    pub(super) async fn timed<T>(
        &self,
        transaction: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let start = Instant::now();
        let answer = transaction.await;
        self.telemetry.metrics().work.fast_lane(start.elapsed(), answer.is_ok());
        answer
    }

    /// Names the route in a fault that halts partitions: the coordinator knows it by its place only.
    pub(crate) fn name_route(&self, group: &Group, fault: &mut Fault) {
        if let GroupKind::Write(route) = group.kind
            && let Decision::Halt(_) = self.faults.decide(fault)
        {
            fault.route = Some(format!("route {}", self.plan.route(route).name).into());
        }
    }

    /// Counts dead letters that were committed.
    pub(super) fn count_letters(&self, letters: &[Letter<'_>]) {
        for letter in letters {
            let Letter { disposition, reason, route, .. } = letter;
            self.telemetry.metrics().work.letter(*disposition, *reason, *route);
        }
    }

    /// Whether a verdict leaves a notification.
    pub(super) fn notes(&self, verdict: Verdict) -> bool {
        match self.notification.write {
            NotificationWrite::All => true,
            NotificationWrite::Failures => is_failure(verdict),
            NotificationWrite::None => false,
        }
    }

    /// Whether a verdict's notification carries the event.
    pub(super) fn shows_event(&self, verdict: Verdict) -> bool {
        match self.notification.event_json {
            EventJson::All => true,
            EventJson::Failures => is_failure(verdict),
            EventJson::None => false,
        }
    }

    /// What is noted of these events when they are applied.
    pub(super) fn notify<'a>(&self, events: impl IntoIterator<Item = &'a Event>) -> Notify {
        if !self.notes(Verdict::Applied) {
            return Notify::Nothing;
        }
        Notify::Row {
            context: events.into_iter().any(|event| !event.envelope.context.is_empty()),
            json: self.shows_event(Verdict::Applied),
        }
    }
}

/// The configured policy for missing versions.
pub(crate) fn gap_policy(config: &Config) -> GapPolicy {
    match config.group.on_gap {
        OnGap::Apply => GapPolicy::Apply,
        OnGap::Park => GapPolicy::Park,
    }
}

/// Outcomes that somebody has to look at.
fn is_failure(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Rejected | Verdict::DeadLettered | Verdict::Parked | Verdict::Discarded => true,
        Verdict::Applied | Verdict::Duplicate | Verdict::Stale | Verdict::Skipped => false,
    }
}
