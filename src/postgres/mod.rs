//! Database sessions, faults and migrations.

mod connect;
mod error;
pub mod lane;
mod lead;
pub mod lock;
mod probe;
pub mod session;
pub(crate) mod tls;

pub use connect::SessionEnd;
pub(crate) use connect::lift_statement_timeout;
pub use error::fault_of;
pub use lane::Lane;
pub use probe::Probe;
pub(crate) use session::OLDEST_SERVER;
pub use session::{Connections, OpenError, Session};
