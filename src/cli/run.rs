//! `pgsluice run`: starts the parts in the order in which they can fail clearly, and waits.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::config::Config;
use crate::run;
use crate::supervisor::{Criticality, ExitReason, Supervisor};
use crate::telemetry::{Telemetry, flush_logs, init_logs};

use super::complain;

/// How long tasks may take to notice that the process ends.
const GRACE: Duration = Duration::from_secs(1);

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
    let tasks = LocalSet::new();
    let pipeline = Box::pin(run::run(config, telemetry.clone(), drain));
    let reason = tasks.block_on(&runtime, async move {
        let mut supervisor = Supervisor::new(end);
        supervisor.spawn("pipeline", Criticality::Critical, pipeline);
        supervisor.join(GRACE).await
    });
    // A question to a broker or name server that does not answer may still block one of its
    // threads; nobody waits for the answer any more.
    runtime.shutdown_background();
    telemetry.ending();
    Ok(reason)
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
    tracing::info!(event = "signal", signal = first, "draining; a second signal ends at once");
    drain.cancel();
    let second = tokio::time::timeout(limit, next_signal(&mut terminate, &mut interrupt)).await;
    match second {
        Ok(signal) => {
            tracing::warn!(event = "signal", signal, "ended before the drain was finished")
        }
        Err(_) => {
            tracing::error!(event = "drain_stuck", "the drain does not end; ending without it")
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
