//! `[kafka]`: where records come from.

mod properties;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::ClientLibrary;
use crate::config::load::reader::Section;

/// Brokers, group and topics.
#[derive(Clone)]
pub struct KafkaConfig {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// The consumer group, and this sink's name in the database.
    pub group: String,
    /// Topic names, or patterns that start with `^`. Never empty.
    pub topics: Vec<String>,
    /// Where to begin when neither the database nor Kafka knows a position.
    pub start_from: StartFrom,
    /// librdkafka properties, passed through; may hold secrets.
    pub properties: BTreeMap<String, String>,
    /// How long a revocation may wait for what is in flight.
    pub revoke_budget: Duration,
    /// Name of this member for static membership; `None` for a dynamic member.
    pub instance_id: Option<String>,
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values of properties may be passwords: names only.
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("group", &self.group)
            .field("topics", &self.topics)
            .field("start_from", &self.start_from)
            .field("properties", &self.properties.keys())
            .field("revoke_budget", &self.revoke_budget)
            .field("instance_id", &self.instance_id)
            .finish()
    }
}

/// Where to begin when no position is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFrom {
    /// The oldest record there is.
    Earliest,
    /// Only what comes from now on.
    Latest,
    /// Halt the partition, reason `no_position`.
    Error,
    /// The first record at or after this time.
    At(Timestamp),
}

/// Longest topic and group names: Kafka's own limit for topics.
const MAX_NAME: usize = 249;

impl KafkaConfig {
    pub(in crate::config) fn read(mut section: Section<'_>, library: &dyn ClientLibrary) -> Self {
        let config = Self {
            brokers: read_brokers(&mut section),
            group: section.text("group"),
            topics: read_topics(&mut section),
            start_from: read_start(&mut section),
            properties: properties::read(&section.table("properties"), library),
            revoke_budget: section
                .duration("revoke_budget", Duration::ZERO..=Duration::from_secs(60)),
            instance_id: section.optional_text("instance_id"),
        };
        if config.group.len() > MAX_NAME {
            section.problem("group", format!("is longer than {MAX_NAME} bytes"));
        }
        if config.instance_id.as_deref() == Some("") {
            section.problem("instance_id", "must not be empty; remove it for a dynamic member");
        }
        section.finish();
        config
    }
}

fn read_brokers(section: &mut Section<'_>) -> String {
    let text = section.text("brokers");
    // Not shown: somebody may have written a password there.
    if !text.is_empty() && !text.split(',').map(str::trim).all(is_broker) {
        let form = "expected host:port, separated by commas, such as kafka-0:9092,kafka-1:9092";
        section.problem("brokers", form);
    }
    text
}

/// Whether librdkafka could find a broker there: `host`, `host:port` or `[address]:port`, and the
/// protocol before it, if need be.
fn is_broker(text: &str) -> bool {
    let address = match text.split_once("://") {
        None => text,
        Some((protocol, address)) => {
            let known = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
            if !known.iter().any(|known| protocol.eq_ignore_ascii_case(known)) {
                return false;
            }
            address
        }
    };
    let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) if host.contains(':') => (host, rest.strip_prefix(':')),
        _ => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    !host.is_empty()
        && host.chars().all(legal)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn read_topics(section: &mut Section<'_>) -> Vec<String> {
    if !section.has("topics") {
        section.missing("topics");
        return Vec::new();
    }
    let topics = section.list("topics");
    if topics.is_empty() {
        section.problem("topics", "needs at least one topic name or \"^pattern\"");
    }
    for topic in topics.iter().filter(|topic| !topic.starts_with('^') && !is_topic_name(topic)) {
        section.problem("topics", format!("{topic:?} is neither a topic name nor a \"^pattern\""));
    }
    topics
}

/// Whether Kafka would accept the name.
pub(super) fn is_topic_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty()
        && name.len() <= MAX_NAME
        && !matches!(name, "." | "..")
        && name.bytes().all(legal)
}

fn read_start(section: &mut Section<'_>) -> StartFrom {
    match section.text("start_from").as_str() {
        // The empty text was reported while it was read.
        "earliest" | "" => StartFrom::Earliest,
        "latest" => StartFrom::Latest,
        "error" => StartFrom::Error,
        text => text.parse().map(StartFrom::At).unwrap_or_else(|_| {
            section.problem(
                "start_from",
                "expected earliest | latest | error | a time such as 2026-01-31T00:00:00Z",
            );
            StartFrom::Earliest
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_hosts_with_ports() {
        for fine in ["b", "b:9092", "kafka-0.x_y:1", "10.0.0.1:9092", "[::1]:9092", "ssl://b:9093"]
        {
            assert!(is_broker(fine), "{fine}");
        }
        for other in ["", "b 9092", "b;9092", "b:9092x", "b:99999", "b:0", "http://b:9092", "a:b@c"]
        {
            assert!(!is_broker(other), "{other}");
        }
    }

    #[test]
    fn topic_names_follow_kafkas_own_rule() {
        assert!(is_topic_name("customer-events.v1_x"));
        for name in ["", ".", "..", "a b", "ä", "a/b"] {
            assert!(!is_topic_name(name), "{name}");
        }
        assert!(!is_topic_name(&"a".repeat(MAX_NAME + 1)));
    }
}
