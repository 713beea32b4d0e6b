//! The ledger's guards on a real PostgreSQL: every rule of `judge` on the fast lane (where SQL
//! enforces it) and on the slow lane, and what the slow lane writes when something cannot be
//! applied. Each guard was removed once to see these tests fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test panics where it cannot go on, in its helper functions too"
)]

mod brake;
mod fixture;
mod guard;
mod hostile;
mod parts;
mod poison;
mod race;
mod routed;
mod statements;
mod targets;
mod verdicts;
