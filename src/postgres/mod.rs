//! Database sessions, faults and migrations.

mod connect;
mod error;
pub mod lane;
mod lead;
pub mod lock;
pub mod migrate;
mod probe;
pub mod session;
pub mod sqlstate;
mod tls;

pub use connect::SessionEnd;
pub use lane::Lane;
pub use probe::Probe;
pub(crate) use session::OLDEST_SERVER;
pub use session::{Connections, OpenError, Session};
pub use sqlstate::{FaultPolicy, Override};
