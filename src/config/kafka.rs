//! Where records come from, and the librdkafka properties that the guarantees rest on.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use std::{fmt, io};

use config::ValueKind;
use jiff::Timestamp;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use super::read::{Section, suggestion};

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

/// Properties that are refused, with the reason an operator gets to read.
const REFUSED: [(&str, &str); 17] = [
    ("bootstrap.servers", "is kafka.brokers"),
    ("metadata.broker.list", "is kafka.brokers"),
    ("group.id", "is kafka.group"),
    ("group.instance.id", "is kafka.instance_id"),
    ("enable.auto.commit", "is off: progress is kept in the database, Kafka's offset follows it"),
    ("auto.commit.interval.ms", "has no effect: automatic commits are off"),
    ("enable.auto.offset.store", "is off: only finished records count as progress"),
    (
        "auto.offset.reset",
        "is \"error\": a lost position halts the partition, see kafka.start_from",
    ),
    ("isolation.level", "is \"read_committed\": aborted records must never be applied"),
    (
        "partition.assignment.strategy",
        "is \"cooperative-sticky\": a rebalance takes only the partitions that move",
    ),
    ("group.protocol", "is \"classic\": ownership is handed over in its rebalance callbacks"),
    ("group.remote.assignor", "belongs to another group protocol than the one used here"),
    ("check.crcs", "is on: a damaged batch must not become events"),
    ("enable.partition.eof", "is set as reading needs it"),
    ("enable.idempotence", "is on: letters of one aggregate must keep their order"),
    ("acks", "is \"all\": a letter counts as published only when it is durable"),
    ("partitioner", "is \"murmur2_random\", as Java clients choose partitions"),
];

/// Longest topic and group names: Kafka's own limit for topics.
const MAX_NAME: usize = 249;

impl KafkaConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let config = Self {
            brokers: section.text("brokers"),
            group: section.text("group"),
            topics: read_topics(&mut section),
            start_from: read_start(&mut section),
            properties: read_properties(section.table("properties")),
            revoke_budget: section
                .duration("revoke_budget", Duration::ZERO..=Duration::from_secs(60)),
            instance_id: section.optional_text("instance_id"),
        };
        if config.group.len() > MAX_NAME {
            section.problem("group", format!("is longer than {MAX_NAME} bytes"));
        }
        if config.instance_id.as_deref() == Some("") {
            section.problem("instance_id", "must not be empty; leave it out for a dynamic member");
        }
        section.finish();
        config
    }
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

/// Reads the properties; `name_file` reads the value from a file, e.g. `sasl.password_file`.
fn read_properties(section: Section<'_>) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    for (name, value) in section.entries() {
        let text = match &value.kind {
            ValueKind::String(text) => text.clone(),
            ValueKind::I64(number) => number.to_string(),
            ValueKind::Boolean(flag) => flag.to_string(),
            _ => {
                section.problem(name, "expected a text, a number or true/false");
                continue;
            }
        };
        let (name, text) = match property_file(name) {
            None => (name, Ok(text)),
            Some(property) => (property, read_secret_line(Path::new(&text))),
        };
        if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            section.problem(name, format!("cannot be set: the guarantees rest on it; it {why}"));
            continue;
        }
        match text.and_then(|text| accepted(name, &text).map(|()| text)) {
            Ok(text) => drop(properties.insert(name.to_owned(), text)),
            Err(why) => section.problem(name, why),
        }
    }
    properties
}

/// Properties that people set, for suggesting one: librdkafka does not list its own.
const COMMON: [&str; 28] = [
    "security.protocol",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
    "sasl.kerberos.service.name",
    "sasl.kerberos.principal",
    "sasl.kerberos.keytab",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.token.endpoint.url",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.endpoint.identification.algorithm",
    "client.id",
    "client.rack",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "max.poll.interval.ms",
    "socket.timeout.ms",
    "fetch.max.bytes",
    "queued.max.messages.kbytes",
];

/// What a number must be where a property's name says so: librdkafka takes the digits at the
/// beginning of a text and drops the rest, so `10s` would be 10 milliseconds.
fn number_of(name: &str) -> Option<&'static str> {
    let units = [
        (".ms", "milliseconds"),
        (".bytes", "bytes"),
        (".kbytes", "kilobytes"),
        (".messages", "messages"),
    ];
    units.into_iter().find_map(|(ending, unit)| name.ends_with(ending).then_some(unit))
}

/// Asks librdkafka itself. Its own text is dropped: it may hold the value, which may be a secret.
fn accepted(name: &str, text: &str) -> Result<(), String> {
    if let Some(unit) = number_of(name)
        && text.trim().parse::<f64>().is_err()
    {
        return Err(format!("expected a number of {unit}, without a unit"));
    }
    match ClientConfig::new().set(name, text).create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            let near = suggestion(name, &COMMON);
            let near = if near.is_empty() { "; its CONFIGURATION.md lists them" } else { &near };
            Err(format!("is no property of librdkafka{near}"))
        }
        Err(_) => Err("librdkafka does not accept this value; see its CONFIGURATION.md".to_owned()),
    }
}

/// The property that `name` gives a file for. As a variable the name has lost its underscore.
fn property_file(name: &str) -> Option<&str> {
    let property = name.strip_suffix("_file").or_else(|| name.strip_suffix(".file"))?;
    ["sasl.password", "ssl.key.password", "ssl.keystore.password", "sasl.oauthbearer.client.secret"]
        .contains(&property)
        .then_some(property)
}

/// The content of a file without the line end that editors add.
pub(super) fn read_secret_line(path: &Path) -> Result<String, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => Err(cannot_read(path, &error)),
    }
}

/// The message for a file that cannot be read.
pub(super) fn cannot_read(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {}", path.display(), why(error))
}

/// Why a file cannot be read, in an operator's words.
pub(super) fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        kind => kind.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_kafkas_own_rule() {
        assert!(is_topic_name("customer-events.v1_x"));
        for name in ["", ".", "..", "a b", "ä", "a/b"] {
            assert!(!is_topic_name(name), "{name}");
        }
        assert!(!is_topic_name(&"a".repeat(MAX_NAME + 1)));
    }

    #[test]
    fn secrets_of_properties_may_come_from_files_under_either_spelling() {
        assert_eq!(property_file("sasl.password_file"), Some("sasl.password"));
        assert_eq!(property_file("sasl.password.file"), Some("sasl.password"));
        assert_eq!(property_file("log.file"), None);
    }
}
