//! Kafka clients: their settings, what their errors mean, and positions read beside the consumer.

pub mod faults;
pub(crate) mod log;
pub mod positions;
pub mod settings;
