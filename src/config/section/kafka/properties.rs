//! `[kafka.properties]`: librdkafka properties of the user, passed through, but for those that the guarantees rest on.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use config::ValueKind;

use crate::config::ClientLibrary;
use crate::config::load::file::{cannot_read, read_secret_line};
use crate::config::load::reader::Section;

/// Properties that are refused, with the reason an operator gets to read.
const REFUSED: [(&str, &str); 20] = [
    ("bootstrap.servers", "is set by kafka.brokers"),
    ("metadata.broker.list", "is set by kafka.brokers"),
    ("group.id", "is set by kafka.group"),
    ("group.instance.id", "is set by kafka.instance_id"),
    (
        "enable.auto.commit",
        "is off: progress is kept in the database, and Kafka's offset follows it",
    ),
    (
        "auto.commit.enable",
        "is off: progress is kept in the database, and Kafka's offset follows it",
    ),
    ("auto.commit.interval.ms", "has no effect: automatic commits are off"),
    ("enable.auto.offset.store", "is off: only finished records count as progress"),
    (
        "auto.offset.reset",
        "is \"error\": a lost position halts the partition; see kafka.start_from",
    ),
    ("isolation.level", "is \"read_committed\": aborted records must never be applied"),
    (
        "partition.assignment.strategy",
        "is \"cooperative-sticky\": a rebalance takes only the partitions that move",
    ),
    ("group.protocol", "is \"classic\": ownership is handed over in its rebalance callbacks"),
    ("group.remote.assignor", "belongs to a group protocol that pgsluice does not use"),
    ("check.crcs", "is on: a damaged batch must not become events"),
    ("enable.partition.eof", "is set to what reading needs"),
    ("enable.idempotence", "is on: letters of one aggregate must keep their order"),
    ("acks", "is \"all\": a letter counts as published only when it is durable"),
    ("request.required.acks", "is \"all\": a letter counts as published only when it is durable"),
    ("transactional.id", "is not set: letters are published outside transactions"),
    (
        "partitioner",
        "is \"murmur2_random\": letters go to the partitions that Java clients would choose",
    ),
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
pub(super) fn read(section: &Section<'_>, library: &dyn ClientLibrary) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    for (name, value) in section.entries() {
        let text = match &value.kind {
            ValueKind::String(text) => text.clone(),
            ValueKind::I64(number) => number.to_string(),
            ValueKind::Boolean(flag) => flag.to_string(),
            _ => {
                section.problem(name, "expected a string, a number, or true or false");
                continue;
            }
        };
        let (property, text) = match property_file(name) {
            None => (name, Ok(text)),
            Some(property) => (property, read_secret_line(Path::new(&text))),
        };
        if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == property) {
            section.problem(
                name,
                format!("cannot be set, because the guarantees depend on it; it {why}"),
            );
            continue;
        }
        let accepted = |text: String| {
            library.accepts(property, &text)?;
            readable(property, &text)?;
            Ok(text)
        };
        match text.and_then(accepted) {
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

/// Whether the file that a property names can be read.
fn readable(property: &str, text: &str) -> Result<(), String> {
    if !FILES.contains(&property) || text == "probe" {
        return Ok(());
    }
    match File::open(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(cannot_read(Path::new(text), &error)),
    }
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
    fn secrets_of_properties_may_come_from_files_under_either_spelling() {
        assert_eq!(property_file("sasl.password_file"), Some("sasl.password"));
        assert_eq!(property_file("sasl.password.file"), Some("sasl.password"));
        assert_eq!(property_file("log.file"), None);
    }
}
