//! Which groups the fast lanes try.

use super::*;
use crate::event::AggregateVersion;

/// The fast statement compares the first version of a group and no other.
/// Proves INV-3.
#[test]
fn only_a_group_whose_versions_ascend_is_a_first_attempt() {
    let (count, park) = (GapPolicy::Apply, GapPolicy::Park);
    for (gaps, versions, lane) in [
        (count, [None, None, None], Lane::Fast),
        (count, [Some(1), Some(2), Some(9)], Lane::Fast),
        (count, [Some(1), Some(3), Some(3)], Lane::Slow),
        (count, [Some(1), Some(3), Some(2)], Lane::Slow),
        (count, [None, None, Some(1)], Lane::Slow),
        (count, [Some(1), Some(2), None], Lane::Slow),
        (park, [Some(1), Some(2), Some(3)], Lane::Fast),
        (park, [Some(1), Some(2), Some(4)], Lane::Slow),
    ] {
        let mut reader = Reader::new();
        reader.state.config.gaps = gaps;
        let events = (0..).zip(versions).map(|(offset, version)| {
            let mut event = reader.event(partition(), ("a", offset), write());
            event.envelope.version = version.map(AggregateVersion);
            event
        });
        let events = events.collect();
        reader.give(Input::Polled(events));
        let sent = reader.only();
        assert_eq!((sent.0, sent.1.events.len()), (lane, 3), "{gaps:?} {versions:?}");
    }
}
