//! Looks at the ends of the logs now and then, for the lag in metrics and `/status`.
//!
//! On a thread of its own: the calls block, and neither the poll loop nor a drain may wait for them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rdkafka::error::KafkaError;

use crate::config::KafkaConfig;
use crate::kafka::ends::LogEnds;
use crate::kafka::positions::Positions;
use crate::telemetry::Telemetry;

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
    pub(in crate::run) fn start(
        config: &KafkaConfig,
        positions: Arc<Positions>,
        telemetry: Telemetry,
    ) -> Result<Self, KafkaError> {
        let ends = LogEnds::connect(config, positions)?;
        let (stop, stopped) = bounded(0);
        std::thread::Builder::new()
            .name("lag".to_owned())
            .spawn(move || follow(&ends, &stopped, &telemetry))
            .map_err(|_| KafkaError::ClientCreation("no thread for the lag".to_owned()))?;
        Ok(Self { _stop: stop })
    }
}

fn follow(ends: &LogEnds, stopped: &Receiver<Infallible>, telemetry: &Telemetry) {
    let mut wait = IDLE;
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(wait) {
        let held = telemetry.partitions_held();
        wait = if held.is_empty() { IDLE } else { INTERVAL };
        telemetry.log_ends(&ends.fetch(&held));
    }
}
