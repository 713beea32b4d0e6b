//! librdkafka's lines in our log, and the callbacks of clients that have no others.

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

use super::faults::describe;

/// Logs one line of librdkafka. Its "error" is what it mends by itself, such as a refused
/// connection, so it is a warning here.
pub(crate) fn line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => {
            tracing::warn!(target: "librdkafka", event = "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
            tracing::info!(target: "librdkafka", event = "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(target: "librdkafka", event = "librdkafka", facility, "{message}");
        }
    }
}

/// Callbacks of a client whose errors come back with its calls: only its log lines are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogOnly;

impl ClientContext for LogOnly {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        line(level, facility, message);
    }

    fn stats_raw(&self, _statistics: &[u8]) {}

    fn error(&self, error: KafkaError, _reason: &str) {
        tracing::debug!(event = "kafka_client", error = describe(&error), "librdkafka error");
    }
}

impl ConsumerContext for LogOnly {}
