//! pgsluice moves events from Kafka into PostgreSQL: each aggregate in its own transaction, one
//! final outcome for every record, an outage never mistaken for bad data.

pub mod admin;
pub mod check;
pub mod cli;
pub mod config;
pub mod decode;
pub mod exit;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod kafka;
pub mod lanes;
#[cfg(test)]
mod manual;
pub mod postgres;
pub mod relay;
pub mod route;
pub mod run;
pub mod sql;
pub mod store;
pub mod telemetry;
