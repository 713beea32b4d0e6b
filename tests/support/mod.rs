//! Real parts for integration tests: a throw-away PostgreSQL, a real Apache Kafka, the daemon as a
//! child process, and waiting with deadlines.
//!
//! A missing part is a failure that says what to install, never a test that passes.
#![allow(dead_code, reason = "each test binary uses its own part of this support code")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test panics where it cannot go on"
)]

pub(crate) mod broker;
pub(crate) mod certificates;
pub(crate) mod complaints;
pub(crate) mod daemon;
pub(crate) mod kafka;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod wait;
