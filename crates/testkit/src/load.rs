//! A producer that keeps the daemon busy while something happens to it.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::case::{Case, renamed};
use crate::kafka::{Place, Producer};

/// Records sent at a time, and the pause after them: some thousand a second, enough that
/// something is always in flight.
const BURST: usize = 200;
const PAUSE: Duration = Duration::from_millis(40);

/// Sends versions 1, 2, 3 … of each of its aggregates in turn until it is told to stop.
pub struct Load {
    stop: Sender<()>,
    thread: JoinHandle<Vec<Place>>,
    aggregates: usize,
}

impl Load {
    pub fn start(case: &Case, aggregates: usize) -> Self {
        let producer = Producer::new(&case.topic);
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut places = Vec::new();
            let mut sent = 0;
            loop {
                places.extend(producer.send_all((sent..sent + BURST).map(|n| {
                    let version = i64::try_from(n / aggregates + 1).expect("few");
                    renamed(&format!("c{}", n % aggregates), version)
                })));
                sent += BURST;
                if stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
                    return places;
                }
            }
        });
        Self { stop, thread, aggregates }
    }

    /// Ends the load; returns where its records are.
    pub fn finish(self) -> Sent {
        self.stop.send(()).expect("the producer runs");
        let places = self.thread.join().expect("the producer");
        Sent { places, aggregates: self.aggregates }
    }
}

/// What a load sent.
pub struct Sent {
    pub places: Vec<Place>,
    aggregates: usize,
}

impl Sent {
    /// Asserts that every record is APPLIED, once, and that every aggregate is at its last version.
    #[track_caller]
    pub fn assert_all_applied(&self, case: &Case) {
        case.assert_outcomes(self.places.iter().map(|place| (*place, "APPLIED")));
        for aggregate in 0..self.aggregates.min(self.places.len()) {
            let last = (self.places.len() - 1 - aggregate) / self.aggregates + 1;
            let version = case.version(&format!("c{aggregate}"));
            assert_eq!(version, i64::try_from(last).ok(), "version of c{aggregate}");
        }
    }
}
