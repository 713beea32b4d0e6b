//! Black-box tests: the built daemon between a real Apache Kafka and a real PostgreSQL.

#[path = "../support/mod.rs"]
mod support;

mod parts;
