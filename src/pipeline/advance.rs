//! The barrier: progress made durable, and with it everything committed before it (INV-1).

use crate::fault::Fault;
use crate::group::Progress;
use crate::postgres::session::Session;
use crate::record::{OwnerEpoch, StreamId};
use crate::store::progress;

/// First part of the metadata of every offset that the mirror commits.
const TAG: &str = "pgsluice/";

/// Layout of what follows [`TAG`]; any layout is ours.
const TAG_LAYOUT: &str = "1";

/// The metadata of an offset that the mirror commits, `pgsluice/1/<stream>/<owner epoch>`.
pub fn mirror_tag(stream: StreamId, epoch: OwnerEpoch) -> String {
    format!("{TAG}{TAG_LAYOUT}/{}/{}", stream.0, epoch.0)
}

/// Whether the mirror wrote a committed offset, of whatever stream, owner or version of pgsluice.
pub fn is_ours(metadata: &str) -> bool {
    metadata.starts_with(TAG)
}

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
    progress::advance(session, progress).await.inspect_err(|fault| session.fail(fault.clone()))
}
