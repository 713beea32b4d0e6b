//! `aggregate_t`, the ledger: one row per aggregate, moved first by every statement.

pub mod move_row;
mod row;

pub use row::{Address, Look, Parking, lock, look, park, read, storable};
