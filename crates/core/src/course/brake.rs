//! What has to be asked before the outcomes of a group are written, and the rule of the brakes.
//! Pure: who asks, counts.

use std::time::Duration;

use crate::event::Event;
use crate::guard::guard;
use crate::record::Offset;
use crate::verdict::{Disposition, Reason, Verdict};

use super::{Course, Outcome, Write};

/// A share of fewer records says nothing.
const SMALLEST_STRETCH: i64 = 200;

/// Something that limits what a group may end as. The first one that says no keeps all of the
/// group's letters and notes from being written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit<'e> {
    /// A first poison event: the brake on dead letters.
    DeadLetters(&'e Event),
    /// Stale events: the brake on those.
    Stale {
        /// The first of them.
        first: &'e Event,
        /// How many.
        events: usize,
    },
    /// A first parked event: room for parked records.
    Parked(&'e Event),
}

impl<'e> Limit<'e> {
    /// The event that must not be passed where the limit says no.
    pub fn event(&self) -> &'e Event {
        match self {
            Self::DeadLetters(event) | Self::Stale { first: event, .. } | Self::Parked(event) => {
                event
            }
        }
    }

    /// Its offset.
    pub fn at(&self) -> Offset {
        self.event().offset()
    }

    /// Why the partition halts where the limit says no.
    pub fn reason(&self) -> Reason {
        match self {
            Self::DeadLetters(_) => Reason::DeadLetterFlood,
            Self::Stale { .. } => Reason::StaleFlood,
            Self::Parked(_) => Reason::ParkingFull,
        }
    }

    /// The rule of both brakes, on what was counted before. Room for parked records is not a
    /// brake: it never trips.
    pub fn trips(&self, allowed: &Allowance, counted: Counted) -> Option<Tripped> {
        let (events, lasts) = match self {
            Self::DeadLetters(_) => (1, true),
            // A producer that restarts sends many again within seconds, then none.
            Self::Stale { events, .. } => {
                let events = i64::try_from(*events).unwrap_or(i64::MAX);
                (events, counted.lasting >= allowed.window.as_secs_f64() / 2.0)
            }
            Self::Parked(_) => return None,
        };
        let (count, records) = (counted.count + events, counted.records + events);
        if counted.accepted {
            return None;
        }
        if counted.holds {
            return Some(Tripped::Holds);
        }
        if count > i64::from(allowed.limit) {
            return Some(Tripped::Count(count));
        }
        let beyond = f64_of(records) > allowed.share * f64_of(counted.stretch);
        (lasts && counted.stretch >= SMALLEST_STRETCH && beyond).then_some(Tripped::Share(records))
    }
}

/// What a brake lets pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowance {
    /// Aggregates or stale events within the window.
    pub limit: u32,
    /// Share of all records that were read, 0.0 to 1.0.
    pub share: f64,
    /// How far back is counted.
    pub window: Duration,
}

/// What was counted, without the events that are asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counted {
    /// An operator accepted this kind for now; nothing was counted.
    pub accepted: bool,
    /// The brake of the stream tripped and holds.
    pub holds: bool,
    /// Aggregates, or stale events.
    pub count: i64,
    /// Records that were dead-lettered, or stale events.
    pub records: i64,
    /// Records of the stretches of the logs in which these stand, the one asked for included.
    pub stretch: i64,
    /// For how long they have kept coming, in seconds.
    pub lasting: f64,
}

/// Why a brake stops.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tripped {
    /// It tripped before and holds.
    Holds,
    /// More than the limit.
    Count(i64),
    /// A larger share of the records than allowed: so many.
    Share(i64),
}

impl Outcome {
    /// An event that ends as stale now, and not only again.
    pub fn is_stale(&self) -> bool {
        self.verdict == Verdict::Stale && self.write == Write::Note
    }
}

impl Course {
    /// Everything that limits what the course wants written, in the order in which it is asked.
    pub fn limits<'e>(&self, events: &'e [Event]) -> Vec<Limit<'e>> {
        let first = |wanted: Write| {
            let outcomes = || events.iter().zip(self.outcomes());
            outcomes().find(|(_, outcome)| outcome.write == wanted).map(|(event, _)| event)
        };
        let poison = first(Write::Letter(Disposition::Poison)).filter(|_| guard!(BrakeAsked, true));
        let stale = || events.iter().zip(self.outcomes()).filter(|(_, o)| o.is_stale());
        let stale =
            stale().next().map(|(first, _)| Limit::Stale { first, events: stale().count() });
        let parked = first(Write::Letter(Disposition::Parked));
        let (poison, parked) = (poison.map(Limit::DeadLetters), parked.map(Limit::Parked));
        poison.into_iter().chain(stale).chain(parked).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of records, far below 2^53")]
fn f64_of(count: i64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::course::tests::write;

    const LIMITS: Allowance = Allowance { limit: 20, share: 0.05, window: Duration::from_secs(60) };

    /// What was counted together with the event that is asked for.
    fn counted(count: i64, records: i64, stretch: i64) -> Counted {
        let (count, records) = (count - 1, records - 1);
        Counted { accepted: false, holds: false, count, records, stretch, lasting: 0.0 }
    }

    fn tripped(counted: Counted) -> Option<Tripped> {
        Limit::DeadLetters(&write(5, 1)).trips(&LIMITS, counted)
    }

    #[test]
    fn one_more_than_the_limit_trips() {
        assert_eq!(tripped(counted(20, 20, 1_000_000)), None);
        assert_eq!(tripped(counted(21, 21, 1_000_000)), Some(Tripped::Count(21)));
    }

    #[test]
    fn a_larger_share_trips_once_enough_records_were_read() {
        assert_eq!(tripped(counted(10, 10, 200)), None, "just the share");
        assert_eq!(tripped(counted(11, 11, 200)), Some(Tripped::Share(11)));
        assert_eq!(tripped(counted(11, 11, 199)), None, "too few records to tell");
        assert_eq!(tripped(counted(1, 11, 200)), Some(Tripped::Share(11)));
    }

    #[test]
    fn what_comes_in_one_burst_is_no_share() {
        let limits = Allowance { limit: 10_000, share: 0.2, window: Duration::from_secs(600) };
        let first = &write(5, 1);
        let stale = Limit::Stale { first, events: 2_000 };
        let burst = Counted { count: 0, records: 0, ..counted(1, 1, 2_000) };
        assert_eq!(stale.trips(&limits, burst), None);
        let lasting = Counted { lasting: 300.0, ..burst };
        assert_eq!(stale.trips(&limits, lasting), Some(Tripped::Share(2_000)));
    }

    #[test]
    fn a_brake_that_tripped_holds_and_acceptance_lifts_it() {
        let holds = Counted { holds: true, ..counted(1, 1, 1) };
        assert_eq!(tripped(holds), Some(Tripped::Holds));
        assert_eq!(tripped(Counted { accepted: true, ..holds }), None);
        assert_eq!(tripped(Counted { accepted: true, ..counted(99, 99, 99) }), None);
    }
}
