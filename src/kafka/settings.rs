//! Settings of the clients: the consumer, the dead letter producer, those that only ask, and those of
//! `check --sample` and of topic creation.
//!
//! Each is built in three layers: our defaults, which a user may change through
//! `[kafka.properties]`, then the user's properties, then the settings the guarantees rest on,
//! which always win. (The configuration refuses most of those as properties, so that nobody
//! writes one in vain.)

use rdkafka::ClientConfig;

use crate::config::KafkaConfig;

/// The property that hides topics.
const IGNORED: &str = "topic.blacklist";

/// Largest message the producer hands to a broker: librdkafka's own upper bound is 1 GB, and a
/// record that could be consumed must not fail locally because of the headers added to it. The
/// broker's limit is the one that counts.
const PRODUCER_MAX_MESSAGE_BYTES: u64 = 256 * 1024 * 1024;

/// Topics that Kafka keeps for itself: nobody means them by `^.*`.
const INTERNAL: &str =
    "^__(consumer_offsets|transaction_state|share_group_state|cluster_metadata)$";

/// What a `^pattern` of topics must not match, as librdkafka has it, separated by commas: what the
/// user does not want, `letters` (a pattern of our own dead letters), and Kafka's own topics.
pub fn ignored(config: &KafkaConfig, letters: Option<&str>) -> String {
    let user = config.properties.get(IGNORED).map(String::as_str);
    [user, letters, Some(INTERNAL)].into_iter().flatten().collect::<Vec<_>>().join(",")
}

/// Settings of the consumer thread's client. `letters` is a pattern of our own dead letters, which a
/// `^pattern` subscription must not match.
pub fn consumer(config: &KafkaConfig, letters: Option<&str>) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        // Prefetched records live outside `limits.in_flight_bytes`: keep them few. With
        // librdkafka's 64 MiB a backlog alone would exceed the daemon's memory budget.
        .set("queued.max.messages.kbytes", "4096")
        .set("queued.min.messages", "5000")
        // One response is buffered whole beside the queue above.
        .set("fetch.max.bytes", "4194304")
        // A small queue fills often; the default of 1 s would then be the time it stays empty.
        .set("fetch.queue.backoff.ms", "10")
        // A partition that was resumed or sought waits for the request that is under way, and an
        // idle one takes this long: 0.5 s by default.
        .set("fetch.wait.max.ms", "100")
        // A topic or partition created later is found in seconds; the default is five minutes.
        .set("topic.metadata.refresh.interval.ms", "10000");
    shared(&mut client, config);
    properties(&mut client, config);
    if let Some(instance) = &config.instance_id {
        client.set("group.instance.id", instance);
    }
    if config.topics.iter().any(|topic| topic.starts_with('^')) {
        // Only where a pattern could match them: the setting hides the topics altogether.
        client.set(IGNORED, ignored(config, letters));
    }
    client
        .set("bootstrap.servers", &config.brokers)
        .set("group.id", &config.group)
        // A rebalance takes only the partitions that move; the others keep their work in flight.
        .set("group.protocol", "classic")
        .set("partition.assignment.strategy", "cooperative-sticky")
        // Offsets follow the database's progress and nothing else (INV-1).
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Records of an aborted transaction must never take effect.
        .set("isolation.level", "read_committed")
        // A position that the log does not hold is for an operator to decide: rewinding or
        // skipping in silence breaks the promise either way.
        .set("auto.offset.reset", "error")
        // A damaged batch stops the partition instead of becoming an event.
        .set("check.crcs", "true")
        // End of partition is not an event we use, and it would wake the loop.
        .set("enable.partition.eof", "false");
    client
}

/// Settings of the client that reads committed offsets and watermarks. It has the sink's group
/// but never subscribes, so it is no member and causes no rebalance.
pub fn offsets(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    shared(&mut client, config);
    properties(&mut client, config);
    client
        .set("bootstrap.servers", &config.brokers)
        .set("group.id", &config.group)
        .set("group.protocol", "classic")
        .set("enable.auto.commit", "false")
        // The high watermark must be the one the consumer can reach: the last stable offset.
        .set("isolation.level", "read_committed");
    client
}

/// Settings of the client that reads a sample: assigned by hand, so it is no member of the group,
/// and it commits nothing.
pub fn sample(config: &KafkaConfig) -> ClientConfig {
    let mut client = offsets(config);
    client
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        // A look must not create what it looks for.
        .set("allow.auto.create.topics", "false")
        // Where a partition ends is what ends the wait for its records.
        .set("enable.partition.eof", "true")
        // A few records are wanted, not a full queue.
        .set("queued.max.messages.kbytes", "4096")
        .set("fetch.max.bytes", "4194304")
        .set("fetch.wait.max.ms", "100");
    client
}

/// Settings of the client that asks where logs end, with what transactions have not committed.
pub fn log_ends(config: &KafkaConfig) -> ClientConfig {
    let mut client = offsets(config);
    client.set("isolation.level", "read_uncommitted");
    client
}

/// Settings of the dead letter producer.
pub fn producer(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        // A letter waits in the table, so a short wait for company costs nothing.
        .set("linger.ms", "5")
        // An outage is noticed and reported within this time; the letter is sent again.
        .set("message.timeout.ms", "30000")
        // What may wait in memory (INV-11).
        .set("queue.buffering.max.kbytes", "65536");
    shared(&mut client, config);
    properties(&mut client, config);
    client
        .set("bootstrap.servers", &config.brokers)
        .set("message.max.bytes", PRODUCER_MAX_MESSAGE_BYTES.to_string())
        // A letter is marked published only when every in-sync replica has it.
        .set("acks", "all")
        // Retries inside the client neither repeat nor reorder.
        .set("enable.idempotence", "true")
        // Java's partitioner: a key lands where every other producer would put it.
        .set("partitioner", "murmur2_random");
    client
}

/// Settings of the client that creates topics.
pub fn admin(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    shared(&mut client, config);
    properties(&mut client, config);
    client.set("bootstrap.servers", &config.brokers);
    client
}

/// Defaults all clients share.
fn shared(client: &mut ClientConfig, config: &KafkaConfig) {
    client
        // Broker logs and quotas name clients by it.
        .set("client.id", format!("pgsluice-{}", config.group))
        // A peer that vanished without a word is noticed; off by default.
        .set("socket.keepalive.enable", "true")
        // The default of 10 s between reconnects prolongs every broker restart.
        .set("reconnect.backoff.max.ms", "2000");
}

/// The user's properties.
fn properties(client: &mut ClientConfig, config: &KafkaConfig) {
    for (name, value) in &config.properties {
        client.set(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StartFrom;

    fn config(properties: &[(&str, &str)]) -> KafkaConfig {
        KafkaConfig {
            brokers: "127.0.0.1:9092".to_owned(),
            group: "sink".to_owned(),
            topics: vec!["events".to_owned()],
            start_from: StartFrom::Earliest,
            properties: properties
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            revoke_budget: std::time::Duration::from_secs(5),
            instance_id: None,
        }
    }

    /// Proves INV-1.
    #[test]
    fn a_users_property_cannot_move_what_the_guarantees_rest_on() {
        let properties = [
            ("enable.auto.commit", "true"),
            ("isolation.level", "read_uncommitted"),
            ("auto.offset.reset", "latest"),
        ];
        let client = consumer(&config(&properties), None);
        assert_eq!(client.get("enable.auto.commit"), Some("false"));
        assert_eq!(client.get("isolation.level"), Some("read_committed"));
        assert_eq!(client.get("auto.offset.reset"), Some("error"));
    }

    #[test]
    fn a_sample_reads_what_the_consumer_would_and_leaves_the_group_alone() {
        let properties =
            [("isolation.level", "read_uncommitted"), ("enable.auto.offset.store", "true")];
        let client = sample(&config(&properties));
        assert_eq!(client.get("isolation.level"), Some("read_committed"));
        assert_eq!(client.get("enable.auto.commit"), Some("false"));
        assert_eq!(client.get("enable.auto.offset.store"), Some("false"));
        assert_eq!(client.get("group.instance.id"), None);
    }

    #[test]
    fn a_users_property_replaces_a_default() {
        let client =
            consumer(&config(&[("queued.min.messages", "7"), ("sasl.username", "me")]), None);
        assert_eq!(client.get("queued.min.messages"), Some("7"));
        assert_eq!(client.get("sasl.username"), Some("me"));
    }

    #[test]
    fn every_client_setting_is_known_to_librdkafka() {
        for client in [
            consumer(&config(&[]), Some("^.*-dlq$")),
            offsets(&config(&[])),
            sample(&config(&[])),
            log_ends(&config(&[])),
            producer(&config(&[])),
            admin(&config(&[])),
        ] {
            client.create_native_config().unwrap();
        }
    }

    #[test]
    fn a_pattern_does_not_subscribe_to_our_own_dead_letters_and_kafkas_own_topics() {
        let mut config = config(&[]);
        assert_eq!(consumer(&config, Some("^.*-dlq$")).get(IGNORED), None);
        config.topics = vec!["^events".to_owned()];
        let expected = format!("^.*-dlq$,{INTERNAL}");
        assert_eq!(consumer(&config, Some("^.*-dlq$")).get(IGNORED), Some(expected.as_str()));
        assert_eq!(consumer(&config, None).get(IGNORED), Some(INTERNAL));
        // Nor to what the user does not want.
        config.properties.insert(IGNORED.to_owned(), "^old-.*,odd".to_owned());
        let expected = format!("^old-.*,odd,^.*-dlq$,{INTERNAL}");
        let client = consumer(&config, Some("^.*-dlq$"));
        assert_eq!(client.get(IGNORED), Some(expected.as_str()));
        client.create_native_config().unwrap();
    }
}
