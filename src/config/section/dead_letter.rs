//! `[dead_letter]`: what happens to poison, and the brakes on how much of it there may be.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::kafka::is_topic_name;
use crate::config::load::reader::Section;

/// What stands for the source topic in `dead_letter.topic`.
const TOPIC_MARK: &str = "{topic}";

/// What happens to poison.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetterConfig {
    /// Topic for dead letters; `{topic}` stands for the source, empty for none.
    pub topic: String,
    /// Whether a missing topic is created.
    pub create_topic: bool,
    /// Replication factor of a created topic; -1 leaves it to the broker.
    pub replication_factor: i32,
    /// Whose names the context headers have.
    pub headers: HeaderStyle,
    /// The brake on dead letters; it counts aggregates. `None`: none.
    pub flood: Option<BrakeConfig>,
    /// The brake on stale events; it counts events. `None`: none.
    pub stale_flood: Option<BrakeConfig>,
    /// Parked records of the whole sink; beyond it partitions halt.
    pub max_parked_events: usize,
}

/// A brake: what may happen on one route within a window, by the database's clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BrakeConfig {
    /// So many may be; one more trips the brake.
    pub limit: u32,
    /// So large a share of the records read may be, from 0 to 1.
    pub share: f64,
    /// How far back is counted.
    pub window: Duration,
}

/// Whose names the context headers of a dead letter have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeaderStyle {
    /// Kafka Connect's.
    Connect,
}

impl DeadLetterConfig {
    /// The topic for dead letters of `source`; `None` when they stay in the table.
    pub fn topic_for(&self, source: &str) -> Option<String> {
        (!self.topic.is_empty()).then(|| self.topic.replace(TOPIC_MARK, source))
    }

    /// A regular expression, anchored at both ends, for every topic that [`Self::topic_for`] can
    /// name: a `^pattern` subscription must not read our own dead letters.
    pub fn topic_pattern(&self) -> Option<String> {
        let parts: Vec<String> = self.topic.split(TOPIC_MARK).map(escape_dots).collect();
        (!self.topic.is_empty()).then(|| format!("^{}$", parts.join(".*")))
    }

    pub(in crate::config) fn read(mut section: Section<'_>) -> Self {
        let topic = section.optional_text("topic").unwrap_or_default();
        if !topic.is_empty() && !is_topic_name(&topic.replace(TOPIC_MARK, "t")) {
            section
                .problem("topic", "expected a topic name, in which {topic} means the source topic");
        }
        let factor = section.whole("replication_factor", -1..=100);
        if factor == 0 {
            section
                .problem("replication_factor", "expected -1 (the broker's default) or at least 1");
        }
        let config = Self {
            topic,
            create_topic: section.flag("create_topic", true),
            replication_factor: i32::try_from(factor).unwrap_or(-1),
            headers: section.choice("headers", &[("connect", HeaderStyle::Connect)], &["spring"]),
            flood: BrakeConfig::read(section.table("flood"), "aggregates"),
            stale_flood: BrakeConfig::read(section.table("stale_flood"), "events"),
            max_parked_events: section.count("max_parked_events", 1..=100_000_000),
        };
        section.finish();
        config
    }
}

impl BrakeConfig {
    fn read(mut section: Section<'_>, limit: &'static str) -> Option<Self> {
        /// A day: what is counted is kept for so long.
        const WINDOWS: RangeInclusive<Duration> =
            Duration::from_secs(1)..=Duration::from_secs(86_400);
        let limit = section.whole(limit, 0..=1_000_000_000);
        let config = Self {
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            share: section.share("share"),
            window: section.duration("window", WINDOWS),
        };
        section.finish();
        (config.limit > 0).then_some(config)
    }
}

/// Topic names hold no other character with a meaning in regular expressions.
fn escape_dots(part: &str) -> String {
    part.replace('.', "\\.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(topic: &str) -> DeadLetterConfig {
        DeadLetterConfig {
            topic: topic.to_owned(),
            create_topic: true,
            replication_factor: -1,
            headers: HeaderStyle::Connect,
            flood: None,
            stale_flood: None,
            max_parked_events: 1,
        }
    }

    #[test]
    fn the_dead_letter_topic_follows_the_source() {
        assert_eq!(letters("{topic}-dlq").topic_for("orders").as_deref(), Some("orders-dlq"));
        assert_eq!(letters("").topic_for("orders"), None);
    }

    #[test]
    fn the_pattern_of_dead_letter_topics_is_anchored_and_escaped() {
        assert_eq!(letters("{topic}.dlq").topic_pattern().as_deref(), Some("^.*\\.dlq$"));
        assert_eq!(letters("all-letters").topic_pattern().as_deref(), Some("^all-letters$"));
        assert_eq!(letters("").topic_pattern(), None);
    }
}
