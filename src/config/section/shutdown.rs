//! `[shutdown]`: how the process ends.

use std::time::Duration;

use crate::config::load::reader::Section;

/// How the process ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// How long a drain may take before the process ends all the same.
    pub drain_timeout: Duration,
}

impl ShutdownConfig {
    pub(in crate::config) fn read(mut section: Section<'_>) -> Self {
        let bounds = Duration::from_millis(100)..=Duration::from_secs(3600);
        let config = Self { drain_timeout: section.duration("drain_timeout", bounds) };
        section.finish();
        config
    }
}
