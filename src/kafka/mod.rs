//! Kafka clients: their settings, and what their errors mean.

pub mod faults;
pub(crate) mod log;
pub mod settings;
