//! Topics and the dead letter topics beside them: partitions, retention, compaction, sizes.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::{Metadata, MetadataTopic};

use crate::config::{Config, DocumentRoute, RouteAction};
use crate::kafka::log::LogOnly;
use crate::kafka::settings;
use crate::route::kind::holds_everything;

use super::finding::Report;
use super::kafka::{ASK_TIMEOUT, exists};
use super::reading::Reader;

/// An outage over a weekend must not outlast what the topic keeps.
const SHORT_RETENTION: Duration = Duration::from_secs(3 * 24 * 3600);
/// Room that the context headers of a dead letter take beside the record.
const HEADERS: i64 = 16 * 1024;

/// A topic that is read.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) partitions: i32,
}

/// The settings of a topic that matter here.
#[derive(Debug, Clone, Copy, Default)]
struct Settings {
    /// Milliseconds; -1 for ever.
    retention: Option<i64>,
    compacted: bool,
    max_message: Option<i64>,
}

/// Looks at the chosen topics and at where their dead letters go.
pub(super) async fn check(
    config: &Config,
    metadata: &Metadata,
    chosen: &[String],
    report: &mut Report,
) -> Vec<Source> {
    let sources: Vec<Source> = chosen
        .iter()
        .filter_map(|name| Some((name, topic(metadata, name)?)))
        .map(|(name, topic)| Source { name: name.clone(), partitions: partitions(topic) })
        .collect();
    let letters: Vec<(&Source, String)> = sources
        .iter()
        .filter_map(|source| Some((source, config.dead_letter.topic_for(&source.name)?)))
        .collect();
    let admin: AdminClient<LogOnly> =
        match settings::admin(&config.kafka).create_with_context(LogOnly) {
            Ok(admin) => admin,
            // The same properties made a client before.
            Err(_) => return sources,
        };
    let there = letters.iter().map(|(_, name)| name).filter(|n| topic(metadata, n).is_some());
    let named: Vec<&String> = sources.iter().map(|source| &source.name).chain(there).collect();
    let settings = read_settings(&admin, &named).await;
    let reader = Reader::new(config);
    for source in &sources {
        let Some(found) = topic(metadata, &source.name) else { continue };
        check_leaders(source, found, report);
        if let Some(code) = reader.refused(found) {
            let advice = "allow the user Read on it";
            report.fail(
                format!("topic {}", source.name),
                format!("cannot be read: {code:?}"),
                advice,
            );
        }
        check_settings(config, source, settings.get(&source.name), report);
    }
    if letters.is_empty() {
        report.ok("dead letters", "are kept in dead_letter_t; no topic is configured");
    }
    let mut seen = HashSet::new();
    for (source, name) in letters.iter().filter(|(_, name)| seen.insert(name.clone())) {
        match topic(metadata, name) {
            Some(found) => {
                let pair = (settings.get(&source.name), settings.get(name));
                check_letters(source, name, found, pair, report);
            }
            None => check_creation(config, &admin, source, name, report).await,
        }
    }
    sources
}

fn topic<'a>(metadata: &'a Metadata, name: &str) -> Option<&'a MetadataTopic> {
    metadata.topics().iter().find(|topic| topic.name() == name && exists(topic))
}

fn partitions(topic: &MetadataTopic) -> i32 {
    i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX)
}

/// The settings of the topics that may be read; the others are missing.
async fn read_settings(
    admin: &AdminClient<LogOnly>,
    names: &[&String],
) -> HashMap<String, Settings> {
    let wanted: Vec<ResourceSpecifier<'_>> =
        names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    if wanted.is_empty() {
        return HashMap::new();
    }
    let options = AdminOptions::new().request_timeout(Some(ASK_TIMEOUT));
    let answers = admin.describe_configs(wanted.iter(), &options).await.unwrap_or_default();
    let read = |resource: ConfigResource| {
        let OwnedResourceSpecifier::Topic(name) = &resource.specifier else { return None };
        let value = |key| resource.get(key).and_then(|entry| entry.value.as_deref());
        let settings = Settings {
            retention: value("retention.ms").and_then(|text| text.parse().ok()),
            compacted: value("cleanup.policy").is_some_and(|text| text.contains("compact")),
            max_message: value("max.message.bytes").and_then(|text| text.parse().ok()),
        };
        Some((name.clone(), settings))
    };
    // The answer to a user who may not ask has no error, only no settings.
    let told = |resource: &ConfigResource| !resource.entries.is_empty();
    answers.into_iter().filter_map(Result::ok).filter(told).filter_map(read).collect()
}

fn check_leaders(source: &Source, found: &MetadataTopic, report: &mut Report) {
    let subject = format!("topic {}", source.name);
    let leaderless = found.partitions().iter().filter(|p| p.leader() < 0).count();
    if leaderless > 0 {
        report.unavailable(
            &subject,
            format!("{leaderless} of {} partitions have no leader", source.partitions),
            "their records are read once a broker leads them; check the brokers",
        );
    } else {
        report.ok(&subject, of_partitions(source.partitions));
    }
}

fn check_settings(
    config: &Config,
    source: &Source,
    settings: Option<&Settings>,
    report: &mut Report,
) {
    let subject = format!("topic {}", source.name);
    let Some(settings) = settings else {
        report.warn(
            &subject,
            "cannot read its settings",
            "allow the user DescribeConfigs so that retention and sizes can be checked",
        );
        return;
    };
    if settings.compacted && needs_every_event(config) {
        report.warn(
            &subject,
            "is compacted: only the last record of a key is kept",
            "events that are merged or sent for effect are lost once they are compacted before \
             they are read; use cleanup.policy=delete, or whole states (state = \"replace\")",
        );
    }
    if let Some(retention) = settings.retention.and_then(milliseconds)
        && !settings.compacted
        && retention < SHORT_RETENTION
    {
        report.warn(
            &subject,
            format!("keeps records for {}", humantime::format_duration(retention)),
            "an outage or halt that lasts longer loses records unread; raise retention.ms",
        );
    }
    let limit = i64::try_from(config.limits.record_bytes.0).unwrap_or(i64::MAX);
    if let Some(max) = settings.max_message.filter(|max| *max > limit) {
        report.warn(
            &subject,
            format!("accepts records of {max} bytes, but limits.record_bytes is {limit}"),
            "a record above the limit is dead-lettered; raise limits.record_bytes",
        );
    }
}

/// Whether leaving out an older event changes what is written.
fn needs_every_event(config: &Config) -> bool {
    let default = || RouteAction::Document(DocumentRoute::default_of(config.decode.format));
    match config.routes.as_slice() {
        [] => !holds_everything(&default()),
        routes => routes.iter().any(|route| !holds_everything(&route.action)),
    }
}

/// Milliseconds as Kafka writes them; `None` for its -1, for ever.
fn milliseconds(number: i64) -> Option<Duration> {
    u64::try_from(number).ok().map(Duration::from_millis)
}

fn check_letters(
    source: &Source,
    name: &str,
    found: &MetadataTopic,
    (from, to): (Option<&Settings>, Option<&Settings>),
    report: &mut Report,
) {
    let subject = format!("dead letter topic {name}");
    let count = partitions(found);
    if count < source.partitions {
        report.warn(
            &subject,
            format!("{}, but {} has {}", of_partitions(count), source.name, source.partitions),
            "letters keep their order by key, but not their partition numbers; add partitions",
        );
    } else {
        report.ok(&subject, of_partitions(count));
    }
    let (Some(from), Some(to)) = (from, to) else { return };
    if to.compacted {
        report.warn(
            &subject,
            "is compacted: only the last letter of a key is kept",
            "set cleanup.policy=delete; dead_letter_t keeps every letter",
        );
    }
    let forever = |retention: Option<i64>| retention.filter(|ms| *ms >= 0).unwrap_or(i64::MAX);
    if forever(to.retention) < forever(from.retention) {
        report.warn(
            &subject,
            format!("keeps letters for less time than {} keeps records", source.name),
            "raise its retention.ms; dead_letter_t keeps every letter",
        );
    }
    if let (Some(from), Some(to)) = (from.max_message, to.max_message)
        && to < from
    {
        report.warn(
            &subject,
            format!("accepts records of {to} bytes, but {} of {from}", source.name),
            format!(
                "the largest letters, which also have headers, are published as pointers into \
                 dead_letter_t; raise its max.message.bytes to {}",
                from.saturating_add(HEADERS)
            ),
        );
    }
}

/// Asks the broker whether it would create the topic, without creating it.
async fn check_creation(
    config: &Config,
    admin: &AdminClient<LogOnly>,
    source: &Source,
    name: &str,
    report: &mut Report,
) {
    let subject = format!("dead letter topic {name}");
    if !config.dead_letter.create_topic {
        report.fail(
            subject,
            "does not exist, and dead_letter.create_topic is false",
            format!("create it with {} partitions, or allow its creation", source.partitions),
        );
        return;
    }
    let factor = TopicReplication::Fixed(config.dead_letter.replication_factor);
    let new = NewTopic::new(name, source.partitions, factor);
    let options = AdminOptions::new().request_timeout(Some(ASK_TIMEOUT)).validate_only(true);
    let refused = match admin.create_topics([&new], &options).await {
        Ok(results) => results.into_iter().find_map(Result::err).map(|(_, code)| code),
        Err(error) => Some(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
    };
    match refused {
        None => report.ok(subject, "does not exist; the first letter creates it"),
        Some(code) => report.fail(
            subject,
            format!("does not exist, and the broker would not create it: {code:?}"),
            format!(
                "create it with {} partitions, or allow the user Create on it; \
                 dead_letter.replication_factor must fit the brokers",
                source.partitions
            ),
        ),
    }
}

fn of_partitions(count: i32) -> String {
    if count == 1 { "1 partition".to_owned() } else { format!("{count} partitions") }
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::check::Level;
    use crate::config;

    #[test]
    fn only_what_replaces_the_whole_state_can_do_without_older_events() {
        let needs = |more: &str| {
            let file = tempfile::NamedTempFile::new().expect("temporary file");
            let required = "[kafka]\nbrokers = 'b:9092'\ngroup = 'g'\ntopics = 't'\n[postgres]\n\
                            url = 'postgres://a@b/c'\n";
            std::fs::write(&file, format!("{required}{more}")).expect("temporary file");
            let config = config::load(Some(file.path()), std::iter::empty(), &config::AnyProperty)
                .expect("valid");
            needs_every_event(&config)
        };
        let upsert = "[[route]]\n[route.upsert]\ntable = 't'\nkey = { id = 'key' }\n\
                      columns = 'auto'\n";
        let envelope = "[decode]\nformat = 'envelope'\n";
        for merging in [envelope, upsert, "[[route]]\ndocument = { state = 'merge' }\n"] {
            assert!(needs(merging), "{merging}");
        }
        let replace = format!("{envelope}[[route]]\ndocument = {{ state = 'replace' }}\n");
        for whole in
            ["", &replace, "[[route]]\ndocument = { delete = true }\n[[route]]\nskip = true\n"]
        {
            assert!(!needs(whole), "{whole}");
        }
    }

    #[test]
    fn partitions_without_a_leader_are_an_outage_and_are_counted() {
        let cluster = MockCluster::new(1).expect("a cluster");
        cluster.create_topic("t", 3, 1).expect("a topic");
        cluster.partition_leader("t", 1, None).expect("no leader");
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .create()
            .expect("a client");
        let metadata = client.fetch_metadata(Some("t"), ASK_TIMEOUT).expect("metadata");
        let mut report = Report::default();

        let source = Source { name: "t".to_owned(), partitions: 3 };
        check_leaders(&source, topic(&metadata, "t").expect("the topic"), &mut report);

        let [finding] = report.findings() else { panic!("{report}") };
        assert_eq!(finding.level, Level::Unavailable);
        assert_eq!(finding.found, "1 of 3 partitions have no leader");
    }
}
