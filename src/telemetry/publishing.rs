//! How publishing of dead letters goes.

use std::sync::Arc;
use std::time::Instant;

/// How publishing goes, for readiness and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Publishing {
    /// Letters published by this process.
    pub published: u64,
    /// Since when letters could not be delivered; `None` while all is well.
    pub stuck_since: Option<Instant>,
    /// The topic that did not take them, and the name of the error's code.
    pub error: Option<Arc<str>>,
}
