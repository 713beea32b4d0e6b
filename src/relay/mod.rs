//! Publishes dead letters from the table to their topic.
//!
//! The table is the truth and the topic a copy of it: a letter is durable in `dead_letter_t`
//! before progress passes its record (INV-6), and whatever is wrong with the topic, letters wait
//! in the table. They leave only after a synchronous commit made after they were read (INV-14),
//! are published at least once, and in the order of their stream, which is the order of each
//! aggregate; parked records as well, so that the topic holds all that is missing.
//!
//! | a letter | is published as |
//! | --- | --- |
//! | that the broker takes | key, value, own headers, timestamp, and our headers |
//! | too large for the topic, or refused for its form | a pointer: key and our headers only, null value |
//! | whose timestamp the broker refuses | itself with the current time; its own in `pgsluice.timestamp` |

mod header;
mod outlet;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use tokio::sync::{Notify, watch};

use self::outlet::{Delivery, Outlet, Stuck};
use crate::config::Config;
use crate::kafka::faults::describe;
use crate::postgres::session::Session;
use crate::store::letter::publication::{self, OwnedStream, Portion, StoredLetter};
use crate::telemetry::Publishing;
use pgsluice_core::backoff::Backoff;
use pgsluice_core::fault::FaultPolicy;
use pgsluice_core::fault::{Decision, Fault};
use pgsluice_core::record::{RecordId, StreamId};

/// How often the table is looked at without being told to: letters of an earlier owner wait
/// there, too.
const ROUND: Duration = Duration::from_secs(5);
/// What one reading may bring into memory.
const PORTION: Portion = Portion { letters_per_stream: 200, bytes: 8 * 1024 * 1024 };
/// The refusal of a claim that is told: the first one may be a lock or a deadlock.
const TOLD_REFUSAL: u32 = 2;
/// Waits of a stream whose letter could not be delivered, without jitter.
const UNDELIVERED: Backoff =
    Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(60) };

/// The table of letters.
pub trait Letters {
    /// Letters of these streams, claimed durably for this process, in the order of each stream.
    fn claim(
        &self,
        streams: &[OwnedStream],
        portion: Portion,
    ) -> impl Future<Output = Result<Vec<StoredLetter>, Fault>>;

    /// Remembers that the topic has these letters.
    fn mark(&self, published: &[RecordId]) -> impl Future<Output = Result<(), Fault>>;
}

impl Letters for Session {
    async fn claim(
        &self,
        streams: &[OwnedStream],
        portion: Portion,
    ) -> Result<Vec<StoredLetter>, Fault> {
        publication::claim(self, streams, portion).await
    }

    async fn mark(&self, published: &[RecordId]) -> Result<(), Fault> {
        publication::mark(self, published).await
    }
}

/// What the publisher works on; the run loop keeps it current.
#[derive(Debug)]
pub struct Desk<L> {
    /// The open session, `None` while there is none.
    pub letters: Option<Arc<L>>,
    /// The streams this process owns.
    pub streams: Vec<OwnedStream>,
}

impl<L> Default for Desk<L> {
    fn default() -> Self {
        Self { letters: None, streams: Vec::new() }
    }
}

/// Publishes letters until nobody keeps its desk any more.
#[derive(Debug)]
pub struct Publisher<L> {
    outlet: Outlet,
    desk: watch::Receiver<Desk<L>>,
    wake: Arc<Notify>,
    status: watch::Sender<Publishing>,
    resting: HashMap<StreamId, Rest>,
    faults: FaultPolicy,
    /// How often in a row the database refused to give letters out.
    refusals: u32,
}

/// A stream that waits before the next attempt.
#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Instant,
    /// Attempts that failed in a row.
    failures: u32,
}

impl<L: Letters> Publisher<L> {
    /// A publisher for the configured topics, or `None` when dead letters stay in the table.
    /// `wake` is told when letters were written. Nothing is sent before [`Publisher::run`].
    ///
    /// # Errors
    /// When librdkafka refuses a setting. Unreachable brokers are no error: letters wait.
    pub fn start(
        config: &Config,
        desk: watch::Receiver<Desk<L>>,
        wake: Arc<Notify>,
    ) -> Result<Option<Self>, KafkaError> {
        if config.dead_letter.topic.is_empty() {
            return Ok(None);
        }
        let outlet = Outlet::start(&config.kafka, &config.dead_letter)?;
        let (status, _) = watch::channel(Publishing::default());
        let faults = config.retry.faults.clone();
        let resting = HashMap::new();
        Ok(Some(Self { outlet, desk, wake, status, resting, faults, refusals: 0 }))
    }

    /// How publishing goes, kept current while it runs.
    pub fn status(&self) -> watch::Receiver<Publishing> {
        self.status.subscribe()
    }

    /// Publishes. Ends when the desk's other end is dropped, or with the producer's thread.
    /// Dropping the future is safe at any point: what was sent and not marked is sent again.
    pub async fn run(mut self) {
        loop {
            let more = self.round().await;
            if self.desk.has_changed().is_err() {
                return;
            }
            if !more {
                let pause = self.until_next();
                tokio::select! {
                    () = self.wake.notified() => {}
                    changed = self.desk.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }

    /// One portion. `true` when there may be more to do at once.
    async fn round(&mut self) -> bool {
        let now = Instant::now();
        let (letters, streams) = {
            let desk = self.desk.borrow_and_update();
            self.resting.retain(|stream, _| desk.streams.iter().any(|s| s.stream == *stream));
            let due = |s: &&OwnedStream| self.resting.get(&s.stream).is_none_or(|r| r.until <= now);
            (desk.letters.clone(), desk.streams.iter().filter(due).copied().collect::<Vec<_>>())
        };
        let Some(letters) = letters.filter(|_| !streams.is_empty()) else { return false };
        let portion = match letters.claim(&streams, PORTION).await {
            Ok(portion) => portion,
            Err(fault) => {
                self.unclaimed(&fault);
                return false;
            }
        };
        if std::mem::take(&mut self.refusals) >= TOLD_REFUSAL {
            tracing::info!(
                event = "letters_claimed",
                "dead letters can be read for publishing again"
            );
        }
        if portion.is_empty() {
            return false;
        }
        let Some(delivery) = self.outlet.send(portion).await else { return false };
        let published = delivery.published.len();
        self.take_note(&delivery, now);
        if published > 0
            && let Err(fault) = letters.mark(&delivery.published).await
        {
            tracing::warn!(
                event = "letters_unmarked",
                error = %fault,
                "cannot mark dead letters as published; they will be published again"
            );
            return false;
        }
        published > 0
    }

    /// One WARN for a refusal that lasts, however many rounds. A session that ended is told where
    /// that is noticed.
    fn unclaimed(&mut self, fault: &Fault) {
        let refused = self.faults.decide(fault) != Decision::WaitForDatabase;
        self.refusals = self.refusals.saturating_add(refused.into());
        if refused && self.refusals == TOLD_REFUSAL {
            tracing::warn!(
                event = "letters_unclaimed",
                error = %fault,
                "cannot read dead letters for publishing; will retry"
            );
        } else {
            tracing::debug!(
                event = "letters_unclaimed",
                error = %fault,
                "cannot read dead letters for publishing"
            );
        }
    }

    /// Counts what went out and lets streams that stand still rest.
    fn take_note(&mut self, delivery: &Delivery, now: Instant) {
        for id in &delivery.published {
            self.resting.remove(&id.stream);
        }
        let was_stuck = self.status.borrow().stuck_since;
        if let (None, Some(stuck)) = (was_stuck, delivery.stuck.first()) {
            tracing::warn!(
                event = "letters_stuck",
                topic = stuck.topic,
                error = describe(&stuck.error),
                "cannot publish dead letters to their topic; they wait in dead_letter_t"
            );
        }
        for Stuck { stream, .. } in &delivery.stuck {
            let before = self.resting.get(stream);
            let failures = before.map_or(0, |rest| rest.failures).saturating_add(1);
            let until = now + UNDELIVERED.ceiling(failures);
            self.resting.insert(*stream, Rest { until, failures });
        }
        let latest = delivery.stuck.first();
        let latest = latest.map(|s| format!("{}: {}", s.topic, describe(&s.error)).into());
        if was_stuck.is_some() && self.resting.is_empty() {
            tracing::info!(event = "letters_flow", "publishing dead letters again");
        }
        self.status.send_modify(|status| {
            status.published += delivery.published.len() as u64;
            let stuck = !self.resting.is_empty();
            status.stuck_since = stuck.then(|| was_stuck.unwrap_or(now));
            status.error = latest.or(status.error.take()).filter(|_| stuck);
        });
    }

    /// Time to the next look at the table.
    fn until_next(&self) -> Duration {
        let now = Instant::now();
        let due = self.resting.values().map(|rest| rest.until.saturating_duration_since(now));
        due.min().map_or(ROUND, |due| due.min(ROUND))
    }
}
