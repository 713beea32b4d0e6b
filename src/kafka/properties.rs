//! librdkafka's own judgement of the properties that a user passes through to it.

#[cfg(test)]
mod tests;

use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;
use rdkafka::types::RDKafkaConfRes;

use crate::config::{ClientLibrary, KafkaConfig, PropertiesRefused, suggestion};

use super::log::LogOnly;
use super::settings;

/// librdkafka, as the configuration asks it.
#[derive(Debug, Clone, Copy)]
pub struct Librdkafka;

impl ClientLibrary for Librdkafka {
    fn accepts(&self, property: &str, value: &str) -> Result<(), String> {
        accepted(property, value)
    }

    fn accepts_together(&self, kafka: &KafkaConfig) -> Result<(), PropertiesRefused> {
        refused(kafka).map_or(Ok(()), Err)
    }
}

/// What is wrong with properties that are each fine, by librdkafka's own judgement; it makes it
/// when a client is made. Without brokers that asks nobody.
fn refused(config: &KafkaConfig) -> Option<PropertiesRefused> {
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
    let why = format!("librdkafka cannot create a client with these properties: {text}");
    Some(PropertiesRefused { property: named.cloned(), why })
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

/// Asks librdkafka about one property. Its own text is dropped: it may hold the value, which may be a secret.
fn accepted(name: &str, text: &str) -> Result<(), String> {
    match ClientConfig::new().set(name, text).create_native_config() {
        Ok(client) if read_otherwise(text, &client.get(name).unwrap_or_default()) => {
            Err(format!("expected a number{}, without a unit", number_of(name)))
        }
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            let near = suggestion(name, &COMMON);
            let near = if near.is_empty() { "; its CONFIGURATION.md lists them" } else { &near };
            Err(format!("is not a librdkafka property{near}"))
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
