//! Settings that are each fine and cannot stand together, found across sections.

use std::time::Duration;

use humantime::format_duration;
use regex::Regex;

use super::reader::Section;
use crate::config::{ClientLibrary, Config, OnGap};

/// librdkafka's defaults of the timings that settings are compared with, in milliseconds.
const SESSION_TIMEOUT: (&str, u64) = ("session.timeout.ms", 45_000);
const HEARTBEAT: (&str, u64) = ("heartbeat.interval.ms", 3_000);
const POLL_INTERVAL: (&str, u64) = ("max.poll.interval.ms", 300_000);

/// Notes every contradiction.
pub(in crate::config) fn check(
    config: &Config,
    root: &mut Section<'_>,
    library: &dyn ClientLibrary,
) {
    dead_letter_topics(config, root);
    topics(config, root);
    memory(config, root);
    group_timing(config, root);
    lock_timing(config, root);
    clients(config, root, library);
    if config.group.on_gap == OnGap::Park && !config.decode.is_versioned() {
        root.table("group").problem(
            "on_gap",
            "\"park\" needs versions, but events have none; set decode.fields.version, or on_gap = \
             \"apply\"",
        );
    }
}

/// A dead letter topic that is also a source would feed every letter back.
fn dead_letter_topics(config: &Config, root: &mut Section<'_>) {
    let letters = root.table("dead_letter");
    let topics = &config.kafka.topics;
    let patterns = topics.iter().any(|topic| topic.starts_with('^'));
    if patterns && config.dead_letter.topic == "{topic}" {
        letters.problem(
            "topic",
            "dead letters would go to the topic they come from; use \"{topic}-dlq\"",
        );
        return;
    }
    let own = config.dead_letter.topic_pattern().and_then(|pattern| Regex::new(&pattern).ok());
    for source in topics.iter().filter(|topic| !topic.starts_with('^')) {
        let Some(target) = config.dead_letter.topic_for(source) else { continue };
        if topics.contains(&target) {
            letters.problem(
                "topic",
                format!(
                    "dead letters of {source} would go to {target}, which kafka.topics reads; \
                     choose another topic, or remove {target} from kafka.topics"
                ),
            );
        } else if patterns && own.as_ref().is_some_and(|own| own.is_match(source)) {
            // A pattern never reads our own letters, and librdkafka hides such topics altogether.
            letters.problem(
                "topic",
                format!(
                    "{source} has the name of a dead letter topic and would not be read together \
                     with a \"^pattern\"; name dead letter topics differently"
                ),
            );
        }
    }
}

/// Topics that cannot be subscribed to.
fn topics(config: &Config, root: &mut Section<'_>) {
    let kafka = root.table("kafka");
    for (position, topic) in config.kafka.topics.iter().enumerate() {
        if config.kafka.topics.iter().take(position).any(|earlier| earlier == topic) {
            kafka.problem("topics", format!("{topic} is listed twice"));
        }
        if topic.starts_with('^')
            && let Some(why) = pattern_refused(topic)
        {
            kafka.problem("topics", format!("{topic:?} {why}"));
        }
    }
}

/// Why a pattern of topics cannot be used. librdkafka matches with the C library's POSIX expressions,
/// which read some of what other kinds know in another way, and so match nothing.
fn pattern_refused(pattern: &str) -> Option<String> {
    if Regex::new(pattern).is_err() {
        return Some("is not a regular expression".to_owned());
    }
    let foreign = Regex::new(r"\\[[:alnum:]]|\(\?|[*+?}]\?").ok()?.find(pattern)?;
    Some(format!(
        "has {}, which POSIX regular expressions do not support: write [0-9] for \\d, ( for (?:",
        foreign.as_str()
    ))
}

/// What is read must fit what may be in memory, or it could never be read.
fn memory(config: &Config, root: &mut Section<'_>) {
    let most = config.limits.in_flight_bytes;
    if config.limits.record_bytes > most {
        root.table("limits").contradiction(
            "record_bytes",
            &["limits.in_flight_bytes"],
            format!("must not exceed limits.in_flight_bytes ({most})"),
        );
    }
    if config.batch.max_bytes > most {
        root.table("batch").contradiction(
            "max_bytes",
            &["limits.in_flight_bytes"],
            format!("must not exceed limits.in_flight_bytes ({most}): no batch could fill up"),
        );
    }
}

/// How long a member may be silent, and what it does meanwhile.
fn group_timing(config: &Config, root: &mut Section<'_>) {
    let timing = |(name, default): (&str, u64)| {
        let given = config.kafka.properties.get(name).and_then(|text| text.parse().ok());
        Duration::from_millis(given.unwrap_or(default))
    };
    let text = |duration: Duration| format!("{} ms", duration.as_millis());
    let (session, poll) = (timing(SESSION_TIMEOUT), timing(POLL_INTERVAL));
    let mut kafka = root.table("kafka");
    if config.kafka.revoke_budget >= poll {
        kafka.contradiction(
            "revoke_budget",
            &["kafka.properties.max.poll.interval.ms"],
            format!(
                "must be below {} ({}): the group would not wait that long",
                POLL_INTERVAL.0,
                text(poll)
            ),
        );
    }
    let properties = kafka.table("properties");
    if session > poll {
        let message = format!(
            "must not exceed {} ({}); lower it or raise the other",
            POLL_INTERVAL.0,
            text(poll)
        );
        let with = ["kafka.properties.max.poll.interval.ms"];
        properties.contradiction(SESSION_TIMEOUT.0, &with, message);
    }
    if timing(HEARTBEAT) >= session {
        let message = format!(
            "must be below {} ({}), ideally a third of it",
            SESSION_TIMEOUT.0,
            text(session)
        );
        let with = ["kafka.properties.session.timeout.ms"];
        properties.contradiction(HEARTBEAT.0, &with, message);
    }
}

/// What only the client library knows of its properties; asked where nothing else is wrong with
/// them.
fn clients(config: &Config, root: &mut Section<'_>, library: &dyn ClientLibrary) {
    let mut kafka = root.table("kafka");
    if kafka.has_problems() {
        return;
    }
    if let Err(refused) = library.accepts_together(&config.kafka) {
        let properties = kafka.table("properties");
        match refused.property {
            Some(name) => properties.problem(&name, refused.why),
            None => properties.problem_here(refused.why),
        }
    }
}

/// A wait that is longer than what bounds it never ends as it should.
fn lock_timing(config: &Config, root: &mut Section<'_>) {
    let postgres = root.table("postgres");
    if config.postgres.lane_lock_timeout > config.postgres.slow_lock_timeout {
        postgres.contradiction(
            "lane_lock_timeout",
            &["postgres.slow_lock_timeout"],
            format!(
                "must not exceed postgres.slow_lock_timeout ({}): what meets a lock is retried \
                 with that timeout",
                format_duration(config.postgres.slow_lock_timeout)
            ),
        );
    }
    if config.postgres.slow_lock_timeout >= config.postgres.statement_timeout {
        postgres.contradiction(
            "slow_lock_timeout",
            &["postgres.statement_timeout"],
            format!(
                "must be below postgres.statement_timeout ({}), which would end the wait first",
                format_duration(config.postgres.statement_timeout)
            ),
        );
    }
}
