//! pgsluice moves events from Kafka into PostgreSQL: each aggregate in its own transaction, one
//! final outcome for every record, an outage never mistaken for bad data.

pub mod admin;
pub mod check;
pub mod cli;
pub mod config;
pub mod demo;
pub mod envelope;
pub mod event;
pub mod fault;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod group;
pub mod kafka;
#[cfg(test)]
mod manual;
pub mod pipeline;
pub mod postgres;
pub mod publish;
pub mod record;
pub mod route;
pub mod store;
pub mod supervisor;
pub mod telemetry;
pub mod verdict;
