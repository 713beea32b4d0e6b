//! What is sent to the database, and what its answers mean: fast lanes, slow lane, take, barrier.

pub mod barrier;
pub mod context;
pub mod fast;
pub mod parked_count;
pub mod part_move;
pub(crate) mod skip;
pub mod slow;
pub mod statement;
pub mod take;
