//! The decisions of pgsluice, without I/O: no runtime, no Kafka client, no database driver, no
//! clock. Time is a parameter, randomness comes from a seed, and everything that can interleave is
//! an [`input::Input`], so a simulation drives all of it through thousands of interleavings a second.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`record`], [`text`], [`envelope`], [`event`], [`group`], [`verdict`], [`fault`] | the nouns that every stage shares |
//! | [`input`] | what can happen, and what may be asked for |
//! | [`state`] | the coordinator: the state machine that decides |
//! | [`queue`], [`frontier`], [`backoff`] | its parts |
//! | [`decode`] | the seam to whoever turns records into events |
//! | [`source`] | the port to where records come from |
//! | [`position`] | where reading of a partition starts |

pub mod backoff;
pub mod course;
pub mod decode;
pub mod envelope;
pub mod event;
pub mod fault;
pub mod frontier;
pub mod group;
mod guard;
pub mod input;
pub mod position;
pub mod queue;
pub mod random;
pub mod record;
#[cfg(test)]
mod simulation;
pub mod source;
pub mod state;
pub mod text;
pub mod verdict;
