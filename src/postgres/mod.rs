//! Database sessions, faults and migrations.

pub mod sqlstate;

pub use sqlstate::FaultPolicy;
