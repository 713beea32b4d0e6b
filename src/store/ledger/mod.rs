//! `aggregate_t`, the ledger: one row per aggregate, moved first by every statement.

mod move_row;
mod row;

pub use move_row::{Guard, Layout, moved};
pub use row::{Address, Look, Parking, lock, look, park, read, storable};
