//! Black-box tests that stop the broker itself, and a long run with faults of every kind. They have
//! a broker of their own and use it one after the other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test panics where it cannot go on, in its helper functions too"
)]

#[path = "../support/mod.rs"]
mod support;

mod broker;
#[path = "../integration/case.rs"]
#[allow(dead_code, reason = "the cases of tests/integration use all of it")]
mod case;
#[path = "../integration/load.rs"]
mod load;
mod soak;
mod traffic;
