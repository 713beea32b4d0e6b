//! Brokers, group and which topics a subscription would read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::topic_partition_list::TopicPartitionList;
use regex::Regex;

use crate::config::Config;
use crate::kafka::faults::describe;
use crate::kafka::settings;

use super::finding::Report;
use super::topic::{self, Source};

/// How long one question to the brokers may take.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the group's coordinator may take to be found and to tell of its offsets.
const GROUP_TIMEOUT: Duration = Duration::from_secs(5);

/// How many messages of a client are looked through for a reason.
const SAID: usize = 100;

/// Remembers what went wrong with connections: a call that times out does not say why.
#[derive(Debug, Clone, Default)]
pub(super) struct Noting(Arc<Mutex<Vec<RDKafkaErrorCode>>>);

impl Noting {
    fn codes(&self) -> Vec<RDKafkaErrorCode> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Noting {
    fn error(&self, error: KafkaError, _reason: &str) {
        let mut codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        codes.extend(error.rdkafka_error_code());
    }
}

impl ConsumerContext for Noting {}

/// Brokers that answer.
pub(super) struct Cluster {
    /// Id of the cluster, where it has one.
    pub(super) id: Option<String>,
    /// The topics that are read.
    pub(super) sources: Vec<Source>,
}

/// Looks at everything a run asks of Kafka; `None` when there is nothing to go on with.
///
/// The calls block the thread, which has nothing else to do meanwhile.
pub(super) async fn check(config: &Config, report: &mut Report) -> Option<Cluster> {
    let context = Noting::default();
    let mut client = settings::offsets(&config.kafka);
    // A look must not create what it looks for.
    client.set("allow.auto.create.topics", "false");
    let client: BaseConsumer<Noting> = match client.create_with_context(context.clone()) {
        Ok(client) => client,
        Err(error) => {
            report.fail("kafka.properties", describe(&error), "correct or remove the property");
            return None;
        }
    };
    let metadata = match client.fetch_metadata(None, ASK_TIMEOUT) {
        Ok(metadata) => metadata,
        Err(error) => {
            // Why it failed comes out of a poll only.
            std::iter::from_fn(|| client.poll(Duration::from_millis(50))).take(SAID).for_each(drop);
            unreachable(config, &error, &context.codes(), report);
            return None;
        }
    };
    let id = client.client().fetch_cluster_id(ASK_TIMEOUT);
    let brokers = metadata.brokers().len();
    let cluster = id.as_deref().map_or_else(String::new, |id| format!(", cluster {id}"));
    report.ok("kafka.brokers", format!("{brokers} answering{cluster}"));
    group(config, &client, &metadata, report);
    let chosen = chosen(config, &metadata, report);
    let sources = topic::check(config, &metadata, &chosen, report).await;
    Some(Cluster { id, sources })
}

fn unreachable(
    config: &Config,
    error: &KafkaError,
    codes: &[RDKafkaErrorCode],
    report: &mut Report,
) {
    let subject = "kafka.brokers";
    let seen = |code| codes.contains(&code) || error.rdkafka_error_code() == Some(code);
    let brokers = &config.kafka.brokers;
    if seen(RDKafkaErrorCode::Authentication) || seen(RDKafkaErrorCode::SaslAuthenticationFailed) {
        let advice = "check sasl.mechanism, sasl.username and sasl.password in [kafka.properties]";
        report.fail(subject, format!("{brokers}: the credentials were rejected"), advice);
    } else if seen(RDKafkaErrorCode::SSL) {
        let advice = "check security.protocol and the ssl.* properties: the broker's certificate \
                      must be signed by ssl.ca.location and name the host";
        report.fail(subject, format!("{brokers}: no TLS connection"), advice);
    } else if seen(RDKafkaErrorCode::Resolve) {
        let advice = "check the spelling and that this machine can resolve the name";
        report.unavailable(subject, format!("{brokers}: host name not found"), advice);
    } else {
        let advice = "check host and port, that the brokers are running, and that \
                      security.protocol is the listener's";
        report.unavailable(subject, format!("{brokers}: no answer"), advice);
    }
}

/// Whether the brokers refuse the group to this user. Their list of groups does not tell: a group
/// that may not be seen is not in it.
fn group_refused(client: &BaseConsumer<Noting>, metadata: &Metadata) -> Option<KafkaError> {
    let topic = metadata.topics().iter().find(|topic| exists(topic))?;
    let mut asked = TopicPartitionList::new();
    asked.add_partition(topic.name(), 0);
    client.committed_offsets(asked, GROUP_TIMEOUT).err()?;
    // The call only times out; what the brokers said comes out of a poll.
    let said = std::iter::from_fn(|| client.poll(Duration::from_millis(50)));
    said.take(SAID).filter_map(Result::err).find(|error| {
        error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed)
    })
}

/// Whether the group may be used, and who is in it.
fn group(config: &Config, client: &BaseConsumer<Noting>, metadata: &Metadata, report: &mut Report) {
    let name = &config.kafka.group;
    let subject = format!("group {name}");
    if let Some(error) = group_refused(client, metadata) {
        let advice = "allow the user Read on the group";
        return report.fail(subject, describe(&error), advice);
    }
    let list = match client.client().fetch_group_list(Some(name), ASK_TIMEOUT) {
        Ok(list) => list,
        Err(error) => {
            let advice = "allow the user Read on the group";
            return report.fail(subject, format!("cannot be read: {}", describe(&error)), advice);
        }
    };
    let Some(group) = list.groups().iter().find(|group| group.name() == name) else {
        return report.ok(subject, "does not exist yet; the first start creates it");
    };
    let members = group.members().len();
    let strange = !matches!(group.protocol(), "" | "cooperative-sticky")
        || !matches!(group.protocol_type(), "" | "consumer");
    if members > 0 && strange {
        let found = format!("its {members} members use another protocol: {}", group.protocol());
        report.fail(
            subject,
            found,
            "another application uses this group; choose another name for kafka.group",
        );
    } else if members > 0 {
        let word = if members == 1 { "member" } else { "members" };
        report.ok(subject, format!("{members} {word} now"));
    } else {
        report.ok(subject, "no members now");
    }
}

/// The names of the topics that a subscription would read now.
fn chosen(config: &Config, metadata: &Metadata, report: &mut Report) -> Vec<String> {
    let ignored = settings::ignored(&config.kafka, config.dead_letter.topic_pattern().as_deref());
    let mut chosen: Vec<String> = Vec::new();
    for wanted in &config.kafka.topics {
        let found = if wanted.starts_with('^') {
            let found = matching(wanted, &ignored, metadata);
            let subject = format!("topics {wanted}");
            if found.is_empty() {
                report.warn(
                    subject,
                    "matches no topic yet",
                    "topics that appear later are read; check the pattern if the topics already \
                     exist",
                );
            } else {
                report.ok(subject, format!("matches {}", found.len()));
            }
            found
        } else if metadata.topics().iter().any(|topic| topic.name() == wanted && exists(topic)) {
            vec![wanted.clone()]
        } else {
            report.fail(
                format!("topic {wanted}"),
                "does not exist, or the user may not see it",
                "create it, correct kafka.topics, or allow the user Describe and Read on it",
            );
            Vec::new()
        };
        for topic in found {
            if !chosen.contains(&topic) {
                chosen.push(topic);
            }
        }
    }
    chosen
}

/// The topics that a pattern matches, but for those of a list of names and patterns.
fn matching(pattern: &str, ignored: &str, metadata: &Metadata) -> Vec<String> {
    let Some(pattern) = compiled(pattern) else { return Vec::new() };
    let ignored: Vec<Regex> = ignored.split(',').filter_map(compiled).collect();
    let wanted = |name: &&str| {
        pattern.is_match(name) && !ignored.iter().any(|ignored| ignored.is_match(name))
    };
    let names = metadata.topics().iter().filter(|topic| exists(topic)).map(MetadataTopic::name);
    names.filter(wanted).map(str::to_owned).collect()
}

/// A `^pattern`, or a name, as an expression.
fn compiled(text: &str) -> Option<Regex> {
    let name = || format!("^{}$", regex::escape(text));
    if text.starts_with('^') { Regex::new(text).ok() } else { Regex::new(&name()).ok() }
}

/// Whether a topic of the answer is there; one that was asked for and is not comes back too.
pub(super) fn exists(topic: &MetadataTopic) -> bool {
    !topic.partitions().is_empty()
}
