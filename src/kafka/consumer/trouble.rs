//! Errors that come out of a poll, and the loop's slow duties.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::refused::is_about_a_topic;
use super::thread::{Flow, Poller};
use crate::kafka::faults::{describe, ends_a_start, name, on_poll};
use pgsluice_core::fault::PollFault;
use pgsluice_core::source::PollEvent;

/// How often the slow duties are done: heartbeat, troubles, reachability.
const ROUND: Duration = Duration::from_secs(1);
/// The same error code is reported again only after it was not seen for this long.
const TROUBLE_MEMORY: Duration = Duration::from_secs(60);
/// How long one question to a broker may hold the loop up.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_millis(500);

impl Poller {
    /// Judges an error that came out of a poll.
    pub(super) fn judge(&mut self, error: &KafkaError) -> Flow {
        if let Some((code, _)) = self.member.client().fatal_error() {
            return Flow::Abandon(code);
        }
        let Some(code) = error.rdkafka_error_code() else {
            tracing::debug!(
                event = "kafka_client",
                error = describe(error),
                "poll error without a code"
            );
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
                tracing::debug!(
                    event = "kafka_client",
                    error = describe(error),
                    "transient Kafka error"
                );
            }
            // A partition vanished from under us: with its topic, more often than not.
            PollFault::LostOwnership if code == RDKafkaErrorCode::UnknownPartition => {
                self.suspect(code);
            }
            PollFault::LostOwnership => {
                tracing::warn!(
                    event = "membership_lost",
                    error = describe(error),
                    "group membership lost; rejoining"
                );
            }
            PollFault::Reposition => self.span_check_due = Some(Instant::now()),
            fault @ PollFault::Corrupt => {
                self.refetch();
                self.trouble(code, fault);
            }
            PollFault::Operator if is_about_a_topic(code) => self.suspect(code),
            fault @ (PollFault::Operator | PollFault::Exit) => self.trouble(code, fault),
        }
        Flow::On
    }

    /// Reports a code unless it was seen within the last minute.
    fn trouble(&mut self, code: RDKafkaErrorCode, fault: PollFault) {
        if self.troubles.insert(code as i32, Instant::now()).is_none() {
            let ends_a_start = ends_a_start(code);
            self.events.send(PollEvent::Trouble { code: name(code), fault, ends_a_start }).ok();
        }
    }

    /// A broker answered.
    pub(super) fn reached(&mut self) {
        if std::mem::replace(&mut self.unreachable, false) {
            self.events.send(PollEvent::Reachable).ok();
        }
    }

    /// Slow duties. Ends the thread when nobody listens any more.
    pub(super) fn round(&mut self) -> Flow {
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
