//! librdkafka properties of the user: passed through, but for those that the guarantees rest on.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use config::ValueKind;
use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;
use rdkafka::types::RDKafkaConfRes;

use crate::kafka::log::LogOnly;
use crate::kafka::settings;

use super::kafka::{KafkaConfig, cannot_read, read_secret_line};
use super::load::near::suggestion;
use super::load::section::Section;

/// Properties that are refused, with the reason an operator gets to read.
const REFUSED: [(&str, &str); 20] = [
    ("bootstrap.servers", "is kafka.brokers"),
    ("metadata.broker.list", "is kafka.brokers"),
    ("group.id", "is kafka.group"),
    ("group.instance.id", "is kafka.instance_id"),
    ("enable.auto.commit", "is off: progress is kept in the database, Kafka's offset follows it"),
    ("auto.commit.enable", "is off: progress is kept in the database, Kafka's offset follows it"),
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
    ("request.required.acks", "is \"all\": a letter counts as published only when it is durable"),
    ("transactional.id", "is not set: letters are published outside of transactions"),
    ("partitioner", "is \"murmur2_random\", as Java clients choose partitions"),
];

/// Properties that name a file (`ssl.ca.location` also a directory, or the word `probe`).
const FILES: [&str; 5] = [
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.keystore.location",
    "ssl.crl.location",
];

/// Reads the properties; `name_file` reads the value from a file, e.g. `sasl.password_file`.
pub(super) fn read(section: &Section<'_>) -> BTreeMap<String, String> {
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
        let (property, text) = match property_file(name) {
            None => (name, Ok(text)),
            Some(property) => (property, read_secret_line(Path::new(&text))),
        };
        if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == property) {
            section.problem(name, format!("cannot be set: the guarantees rest on it; it {why}"));
            continue;
        }
        match text.and_then(|text| accepted(property, &text).map(|()| text)) {
            Ok(text) => drop(properties.insert(property.to_owned(), text)),
            Err(why) => section.problem(name, why),
        }
    }
    if let Some((name, why)) = without_effect(&properties) {
        section.contradiction(name, &["kafka.properties.security.protocol"], why);
    }
    properties
}

/// Credentials and files that the protocol has no use for: librdkafka would talk in plain text.
fn without_effect(properties: &BTreeMap<String, String>) -> Option<(&str, String)> {
    let protocol = properties.get("security.protocol").map_or("plaintext", String::as_str);
    let protocol = protocol.to_ascii_lowercase();
    let of_use = |name: &str| match name.split('.').next() {
        Some("sasl") => protocol.starts_with("sasl_"),
        Some("ssl") => protocol.ends_with("ssl"),
        _ => true,
    };
    let name = properties.keys().find(|name| !of_use(name))?;
    let protocols =
        if name.starts_with("sasl") { "SASL_SSL or SASL_PLAINTEXT" } else { "SSL or SASL_SSL" };
    Some((name, format!("has no effect: security.protocol is {protocol}, not {protocols}")))
}

/// What is wrong with properties that are each fine, by librdkafka's own judgement; it makes it
/// when a client is made. Without brokers that asks nobody.
pub(super) fn together(config: &KafkaConfig) -> Option<(Option<&String>, String)> {
    if config.properties.is_empty() {
        return None;
    }
    let mut consumer = settings::consumer(config, None);
    let mut producer = settings::producer(config);
    let consumer: Result<BaseConsumer<LogOnly>, _> =
        consumer.remove("bootstrap.servers").create_with_context(LogOnly);
    let producer: Result<BaseProducer, _> = producer.remove("bootstrap.servers").create();
    let Some(KafkaError::ClientCreation(text)) = consumer.err().or(producer.err()) else {
        return None;
    };
    // The names are librdkafka's; behind a colon there may be more than names.
    let text = text.split(": ").next().unwrap_or_default();
    let named = config.properties.keys().find(|name| text.contains(name.as_str()));
    Some((named, format!("librdkafka makes no client of these properties: {text}")))
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

/// Asks librdkafka itself. Its own text is dropped: it may hold the value, which may be a secret.
fn accepted(name: &str, text: &str) -> Result<(), String> {
    match ClientConfig::new().set(name, text).create_native_config() {
        Ok(client) if read_otherwise(text, &client.get(name).unwrap_or_default()) => {
            Err(format!("expected a number{}, without a unit", number_of(name)))
        }
        Ok(_) if FILES.contains(&name) && text != "probe" => match File::open(text) {
            Ok(_) => Ok(()),
            Err(error) => Err(cannot_read(Path::new(text), &error)),
        },
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            let near = suggestion(name, &COMMON);
            let near = if near.is_empty() { "; its CONFIGURATION.md lists them" } else { &near };
            Err(format!("is no property of librdkafka{near}"))
        }
        Err(_) => Err("librdkafka does not accept this value; see its CONFIGURATION.md".to_owned()),
    }
}

/// What a number counts, where the property's name says so.
fn number_of(name: &str) -> &'static str {
    let units = [
        (".ms", " of milliseconds"),
        (".kbytes", " of kilobytes"),
        (".bytes", " of bytes"),
        (".messages", " of messages"),
    ];
    units.into_iter().find(|(ending, _)| name.ends_with(ending)).map_or("", |(_, unit)| unit)
}

/// Whether librdkafka understood another number than what was written: it takes the digits at the
/// beginning and drops the rest, so `10s` would be 10 milliseconds, and one digit too many wraps.
fn read_otherwise(written: &str, understood: &str) -> bool {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    written != understood && number(understood).is_some() && number(written) != number(understood)
}

/// The property that `name` gives a file for. As a variable the name has lost its underscore.
fn property_file(name: &str) -> Option<&str> {
    let property = name.strip_suffix("_file").or_else(|| name.strip_suffix(".file"))?;
    ["sasl.password", "ssl.key.password", "ssl.keystore.password", "sasl.oauthbearer.client.secret"]
        .contains(&property)
        .then_some(property)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_happens_to_be_a_number_is_taken_as_it_is() {
        for text in ["007", "nan", "1e5"] {
            assert!(!read_otherwise(text, text), "{text}");
        }
        assert!(!read_otherwise("true", "true") && !read_otherwise("1", "true"));
        assert!(read_otherwise("010", "8") && read_otherwise("10s", "10"));
    }

    #[test]
    fn secrets_of_properties_may_come_from_files_under_either_spelling() {
        assert_eq!(property_file("sasl.password_file"), Some("sasl.password"));
        assert_eq!(property_file("sasl.password.file"), Some("sasl.password"));
        assert_eq!(property_file("log.file"), None);
    }
}
