//! What runs beside the flow of records: done again and again, at its own pace, later and later where
//! it fails. Nothing of it decides, and nothing waits for it.
//!
//! A chore is done [`with_sessions`], on the database session that is open and only while there is
//! one, or [`with_process`]. Either ends when the loop does, in the middle of a turn if need be.

mod counting;
mod lag;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

pub(super) use self::counting::Counting;
pub(super) use self::lag::Lag;
use super::Piece;
use super::perform::Outcome;
use crate::relay::Desk;
use pgsluice_core::backoff::Backoff;
use pgsluice_core::fault::Fault;

/// Something that is done again and again, on what `On` stands for: a session, or nothing.
pub(super) trait Chore<On> {
    /// Its name in the log.
    const NAME: &'static str;
    /// From the end of a turn to the next one.
    const INTERVAL: Duration;
    /// The same after turns that failed, without jitter.
    const AFTER_FAILURE: Backoff;

    /// Does it once. The future may be dropped at any point where it waits.
    async fn turn(&mut self, on: &On) -> Result<(), Fault>;
}

/// Does a chore on whatever session is open, until the desk's other end is dropped. A turn ends
/// with its session: what it waits for may never come then.
pub(super) fn with_sessions<L: 'static, C: Chore<L> + 'static>(
    mut chore: C,
    mut desk: watch::Receiver<Desk<L>>,
) -> Piece {
    Box::pin(async move {
        let mut failures = 0;
        while let Some(session) = open(&mut desk).await {
            let turn = tokio::select! {
                turn = chore.turn(&session) => Some(turn),
                () = gone(&mut desk, &session) => None,
            };
            // Not held while nothing is done with it: it could not be closed.
            drop(session);
            let Some(turn) = turn else { continue };
            sleep(rest(C::NAME, turn, &mut failures, (C::INTERVAL, C::AFTER_FAILURE))).await;
        }
        Outcome::Ended(C::NAME)
    })
}

/// Does a chore until the loop ends.
pub(super) fn with_process<C: Chore<()> + 'static>(mut chore: C) -> Piece {
    Box::pin(async move {
        let mut failures = 0;
        loop {
            let turn = chore.turn(&()).await;
            sleep(rest(C::NAME, turn, &mut failures, (C::INTERVAL, C::AFTER_FAILURE))).await;
        }
    })
}

/// How long to wait after a turn.
fn rest(
    name: &'static str,
    turn: Result<(), Fault>,
    failures: &mut u32,
    (interval, after_failure): (Duration, Backoff),
) -> Duration {
    let Err(fault) = turn else {
        *failures = 0;
        return interval;
    };
    *failures = failures.saturating_add(1);
    tracing::debug!(
        event = "chore_failed",
        chore = name,
        failures,
        error = %fault,
        "work beside the flow failed; it is tried again later"
    );
    after_failure.ceiling(*failures)
}

/// The open session, once there is one; `None` when the loop has ended.
async fn open<L>(desk: &mut watch::Receiver<Desk<L>>) -> Option<Arc<L>> {
    // A value that is there would be given out after that, too.
    desk.has_changed().ok()?;
    let found = desk.wait_for(|desk| desk.letters.is_some()).await.ok()?;
    found.letters.clone()
}

/// Waits until the session is not the open one any more.
async fn gone<L>(desk: &mut watch::Receiver<Desk<L>>, session: &Arc<L>) {
    let other =
        |desk: &Desk<L>| desk.letters.as_ref().is_none_or(|open| !Arc::ptr_eq(open, session));
    desk.wait_for(other).await.ok();
}

#[cfg(test)]
mod tests;
