//! Looks at the ends of the logs now and then, for the lag in metrics and `/status`.
//!
//! On a thread of its own: the calls block, and neither the poll loop nor a drain may wait for them.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::telemetry::Telemetry;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use pgsluice_core::source::Source;

/// How old the ends may be.
const INTERVAL: Duration = Duration::from_secs(5);

/// How often to look whether partitions came, while there are none.
const IDLE: Duration = Duration::from_millis(500);

/// The thread's other end. Dropping it ends the thread after the call that is under way; nobody
/// waits for that.
#[derive(Debug)]
pub(in crate::run) struct LagThread {
    _stop: Sender<Infallible>,
}

impl LagThread {
    pub(in crate::run) fn start(source: Arc<dyn Source>, telemetry: Telemetry) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        std::thread::Builder::new()
            .name("lag".to_owned())
            .spawn(move || follow(&*source, &stopped, &telemetry))?;
        Ok(Self { _stop: stop })
    }
}

fn follow(source: &dyn Source, stopped: &Receiver<Infallible>, telemetry: &Telemetry) {
    let mut wait = IDLE;
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(wait) {
        let held = telemetry.partitions_held();
        wait = if held.is_empty() { IDLE } else { INTERVAL };
        telemetry.log_ends(&source.ends(&held));
    }
}
