//! Black-box tests: the built daemon between a real Apache Kafka and a real PostgreSQL.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test panics where it cannot go on, in its helper functions too"
)]

mod brakes;
mod canary;
mod check;
mod crash;
mod exit_codes;
mod farewell;
mod first_steps;
mod halts;
mod log;
mod members;
mod metrics;
mod order;
mod outage;
mod parts;
mod poison;
mod roles;
mod routes;
mod sample;
mod secured;
mod server;
mod stderr;
mod topics;
