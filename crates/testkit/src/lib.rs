//! Real parts for the tests: a throw-away PostgreSQL, a real Apache Kafka, the daemon as a child
//! process, waiting with deadlines, and a test's own corner of all of it.
//!
//! A missing part is a failure that says what to install, never a test that passes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    missing_docs,
    missing_debug_implementations,
    reason = "a test panics where it cannot go on, and reads the code of its kit"
)]

pub mod broker;
pub mod case;
pub mod certificates;
pub mod complaints;
pub mod daemon;
pub mod kafka;
pub mod load;
pub mod postgres;
pub mod process;
pub mod wait;
