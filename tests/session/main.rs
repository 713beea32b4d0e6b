//! The database session against a real PostgreSQL: what makes progress durable, what refuses to,
//! and who owns a partition.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics where it cannot go on")]

mod barrier;
mod connection;
mod migrate;
mod place;
mod take;
mod tls;
mod waiting;
