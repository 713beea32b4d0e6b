//! `[batch]`: how many records are gathered before they are dispatched.

use std::time::Duration;

use crate::config::load::reader::Section;
use crate::config::load::units::{Bytes, SIZES};

/// What is gathered before it is dispatched: whichever limit comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchConfig {
    /// Records of a batch, at least 1.
    pub max_records: usize,
    /// Keys and values of a batch together.
    pub max_bytes: Bytes,
    /// How long the first record of a batch waits for more.
    pub max_wait: Duration,
}

impl BatchConfig {
    pub(in crate::config) fn read(mut section: Section<'_>) -> Self {
        let config = Self {
            max_records: section.count("max_records", 1..=100_000),
            max_bytes: section.size("max_bytes", SIZES),
            max_wait: section.duration("max_wait", Duration::ZERO..=Duration::from_secs(10)),
        };
        section.finish();
        config
    }
}
