//! The barrier: progress made durable, and with it everything committed before it (INV-1).

use crate::postgres::session::Session;
use crate::store::stream;
use pgsluice_core::fault::Fault;
use pgsluice_core::group::Progress;
use pgsluice_core::record::StreamId;

/// The barrier. Returns the streams whose progress is durable; one that was given and is not
/// returned has a newer owner.
///
/// # Errors
/// Nothing is known to be durable and the session is over: an error of any kind, a WARNING, a
/// deadline and a lock that is not held are all the same here (INV-1).
pub async fn advance(session: &Session, progress: &[Progress]) -> Result<Vec<StreamId>, Fault> {
    if progress.is_empty() {
        return Ok(Vec::new());
    }
    stream::advance(session, progress).await.inspect_err(|fault| session.fail(fault.clone()))
}
