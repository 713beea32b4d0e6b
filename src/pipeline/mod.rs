//! From poll to progress. One pure coordinator ([`state`]) decides; thin shells around it do I/O.

pub mod input;
