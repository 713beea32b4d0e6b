//! Black-box tests that stop the broker itself, and a long run with faults of every kind. They have
//! a broker of their own and use it one after the other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test panics where it cannot go on, in its helper functions too"
)]

mod broker;
mod soak;
mod traffic;
