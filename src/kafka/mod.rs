//! Kafka clients: their settings, what their errors mean, and what is asked of brokers beside the consumer.

pub mod consumer;
pub mod ends;
pub mod faults;
pub(crate) mod log;
pub mod mirror;
pub mod positions;
mod properties;
pub mod settings;
pub mod source;

pub use properties::Librdkafka;
