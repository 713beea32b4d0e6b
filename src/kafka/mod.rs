//! Kafka clients: their settings, what their errors mean, and what is asked of brokers beside the consumer.

pub mod ends;
pub mod faults;
pub(crate) mod log;
pub mod positions;
pub mod settings;
