//! `[group]`: how events are ordered.

use crate::config::load::reader::Section;

/// How events are ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// What happens when versions are missing before an event.
    pub on_gap: OnGap,
}

/// What happens when versions are missing before an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnGap {
    /// It is applied and counted.
    Apply,
    /// Its aggregate is parked.
    Park,
}

impl GroupConfig {
    pub(in crate::config) fn read(mut section: Section<'_>) -> Self {
        section.choice("order_by", &[("aggregate", ())], &["key"]);
        section.not_yet("atomic_by", "groups of several aggregates");
        let on_gap = [("apply", OnGap::Apply), ("park", OnGap::Park)];
        let config = Self { on_gap: section.choice("on_gap", &on_gap, &[]) };
        section.finish();
        config
    }
}
