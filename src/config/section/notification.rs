//! `[notification]`: which outcomes leave a row.

use crate::config::load::reader::Section;

/// Which outcomes leave a row in `notification_t`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotificationConfig {
    /// Which outcomes are written.
    pub write: NotificationWrite,
    /// Whose event bodies are written with them.
    pub event_json: EventJson,
}

/// Which outcomes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotificationWrite {
    /// Every record's.
    All,
    /// Only what did not go well.
    Failures,
    /// None.
    None,
}

/// Whose event bodies are written with the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventJson {
    /// None.
    None,
    /// Those that did not go well.
    Failures,
    /// Every one.
    All,
}

impl NotificationConfig {
    pub(in crate::config) fn read(mut section: Section<'_>) -> Self {
        section.not_yet("retain", "retention of notifications");
        let write = [
            ("all", NotificationWrite::All),
            ("failures", NotificationWrite::Failures),
            ("none", NotificationWrite::None),
        ];
        let event_json =
            [("none", EventJson::None), ("failures", EventJson::Failures), ("all", EventJson::All)];
        let config = Self {
            write: section.choice("write", &write, &[]),
            event_json: section.choice("event_json", &event_json, &[]),
        };
        if config.write == NotificationWrite::None && config.event_json != EventJson::None {
            let message = "has no effect: notification.write is \"none\"";
            section.contradiction("event_json", &["notification.write"], message);
        }
        section.finish();
        config
    }
}
