//! Connections to the database: sessions, their lanes and lock, and what their errors mean. Knows
//! no table.

mod administration;
mod connect;
mod error;
pub mod lane;
mod lead;
pub mod lock;
mod probe;
pub mod session;
mod slow;
mod statements;
mod tls;

pub(crate) use administration::Administration;
pub use connect::SessionEnd;
pub use error::fault_of;
pub use lane::Lane;
pub use probe::Probe;
pub(crate) use session::OLDEST_SERVER;
pub use session::{OpenError, Session};
pub use slow::SlowConnection;
