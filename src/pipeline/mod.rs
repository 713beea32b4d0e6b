//! From poll to progress. One pure coordinator ([`state`]) decides; thin shells around it do I/O.

pub mod advance;
pub mod apply;
pub mod backoff;
pub mod decode;
pub mod frontier;
pub mod input;
pub mod mirror;
mod partition;
pub mod poll;
pub mod queue;
pub mod resolve;
pub mod state;

#[cfg(test)]
mod simulation;
