//! `pgsluice run`: starts the parts in the order in which they can fail clearly, and waits.

use std::io;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::config::Config;
use crate::exit::ExitReason;
use crate::run;
use crate::telemetry::{Telemetry, flush_logs, init_logs};

use super::complain;

/// The pipeline ends its drain by itself at `shutdown.drain_timeout`. One that is stuck cannot:
/// after this much more the process ends all the same.
const STUCK_DRAIN: Duration = Duration::from_secs(10);

pub(super) fn run(config: Config) -> ExitReason {
    if let Err(error) = init_logs(&config.log) {
        complain(&error.to_string());
        return ExitReason::Configuration;
    }
    let reason = start(config).unwrap_or_else(|(reason, error)| {
        tracing::error!(event = "start_failed", error = %error, "cannot start");
        reason
    });
    tracing::info!(event = "ended", reason = reason.as_str(), code = reason.code(), "ended");
    flush_logs();
    reason
}

fn start(config: Config) -> Result<ExitReason, (ExitReason, anyhow::Error)> {
    let bug = |error: anyhow::Error| (ExitReason::Bug, error);
    let telemetry = Telemetry::try_new(&config.kafka.group).map_err(|error| bug(error.into()))?;
    let end = CancellationToken::new();
    admin::spawn(config.admin.listen, telemetry.clone(), end.clone())
        .map_err(|error| (ExitReason::Configuration, error.into()))?;
    let drain = CancellationToken::new();
    watch_signals(drain.clone(), config.shutdown.drain_timeout + STUCK_DRAIN)
        .map_err(|error| bug(error.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| bug(error.into()))?;
    let pipeline = Box::pin(run::run(config, telemetry.clone(), drain));
    let reason = runtime.block_on(to_its_end(pipeline, &end));
    // A question to a broker or name server that does not answer may still block one of its
    // threads; nobody waits for the answer any more.
    runtime.shutdown_background();
    telemetry.ending();
    Ok(reason)
}

/// Runs the pipeline until it ends, for whatever reason, and then cancels `end` for what serves it. A
/// panic is a bug: the hook has logged where it happened, its text stays out of the log (INV-9).
async fn to_its_end(
    pipeline: impl Future<Output = ExitReason>,
    end: &CancellationToken,
) -> ExitReason {
    let ended = AssertUnwindSafe(pipeline).catch_unwind().await;
    end.cancel();
    ended.unwrap_or(ExitReason::Bug)
}

/// Turns the first SIGTERM or SIGINT into a drain, and the second into the end of the process.
///
/// It has a thread of its own, so that a pipeline that is stuck can still be ended.
fn watch_signals(drain: CancellationToken, limit: Duration) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (terminate, interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(drain_then_end(terminate, interrupt, drain, limit)))?;
    Ok(())
}

async fn drain_then_end(
    mut terminate: Signal,
    mut interrupt: Signal,
    drain: CancellationToken,
    limit: Duration,
) {
    let first = next_signal(&mut terminate, &mut interrupt).await;
    tracing::info!(
        event = "signal",
        signal = first,
        "draining; a second signal ends the process at once"
    );
    drain.cancel();
    let second = tokio::time::timeout(limit, next_signal(&mut terminate, &mut interrupt)).await;
    match second {
        Ok(signal) => {
            tracing::warn!(
                event = "signal",
                signal,
                "second signal: ending before the drain is finished"
            )
        }
        Err(_) => {
            tracing::error!(
                event = "drain_stuck",
                "the drain does not end; ending without finishing it"
            )
        }
    }
    end_now(ExitReason::Interrupted);
}

async fn next_signal(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// Safe at any point: whatever was not durable is read again by the next owner (INV-4).
#[expect(clippy::exit, reason = "the pipeline's thread may be stuck and cannot be asked")]
fn end_now(reason: ExitReason) -> ! {
    flush_logs();
    std::process::exit(i32::from(reason.code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_the_pipeline_gives_the_exit_reason_and_ends_what_serves_it() {
        let end = CancellationToken::new();
        let reason = to_its_end(async { ExitReason::Fenced }, &end).await;
        assert_eq!(reason, ExitReason::Fenced);
        assert!(end.is_cancelled());
    }

    #[tokio::test]
    async fn a_panic_of_the_pipeline_is_a_bug_and_holds_nothing_up() {
        let end = CancellationToken::new();
        assert_eq!(to_its_end(async { panic!("on purpose") }, &end).await, ExitReason::Bug);
        assert!(end.is_cancelled());
    }
}
