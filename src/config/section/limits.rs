//! `[limits]`: bounds on memory and work.

use crate::config::load::reader::Section;
use crate::config::load::units::{Bytes, SIZES};

/// Bounds on memory and work (INV-11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Weight of all events in memory, see `Event::weight`; polling stops above it.
    pub in_flight_bytes: Bytes,
    /// Records of a partition that may run ahead of its oldest unfinished one.
    pub unfinished_per_partition: usize,
    /// Key and value of one record; a larger one is poison `record_too_large`.
    pub record_bytes: Bytes,
    /// Events of one aggregate that are folded into one transaction.
    pub events_per_group: usize,
}

impl LimitsConfig {
    pub(in crate::config) fn read(mut section: Section<'_>) -> Self {
        let config = Self {
            in_flight_bytes: section.size("in_flight_bytes", SIZES),
            unfinished_per_partition: section.count("unfinished_per_partition", 1..=10_000_000),
            record_bytes: section.size("record_bytes", SIZES),
            events_per_group: section.count("events_per_group", 1..=10_000),
        };
        section.finish();
        config
    }
}
