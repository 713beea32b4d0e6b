//! From poll to progress. One pure coordinator ([`state`]) decides; thin shells around it do I/O.

pub mod backoff;
pub mod frontier;
pub mod input;
mod partition;
pub mod queue;
pub mod state;
