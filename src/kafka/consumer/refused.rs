//! Topics that the brokers do not let this member read: missing ones, and those it may not read.
//!
//! librdkafka tells once that there is such a topic, without its name, and goes on by itself when
//! it can. So the brokers are asked about each topic, and again until none is refused.
//!
//! | a broker says | the topic counts as refused |
//! | --- | --- |
//! | in its metadata: unknown, or not authorized | until the metadata says otherwise |
//! | only to a fetch: not authorized | with every topic held here, until a record of it comes |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};

use super::thread::Poller;
use super::trouble::ASK_TIMEOUT;
use crate::kafka::faults::name;
use pgsluice_core::event::Event;
use pgsluice_core::source::PollEvent;

/// How often the brokers are asked about refused topics.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// What is known of refused topics.
#[derive(Debug, Default)]
pub(super) struct Refused {
    topics: BTreeMap<Arc<str>, Refusal>,
    /// An error of a poll that no topic explains yet.
    suspicion: Option<RDKafkaErrorCode>,
    due: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refusal {
    code: RDKafkaErrorCode,
    /// The metadata shows it; otherwise only fetches are refused.
    listed: bool,
}

/// Whether an error is about a topic.
pub(super) fn is_about_a_topic(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::TopicAuthorizationFailed
    )
}

impl Poller {
    /// An error of a poll says that some topic cannot be read: find out which.
    pub(super) fn suspect(&mut self, code: RDKafkaErrorCode) {
        self.refused.suspicion = Some(code);
        self.refused.due = Some(Instant::now());
    }

    /// Asks about the topics when that is due, and tells what is new.
    pub(super) fn ask_refused(&mut self) {
        let now = Instant::now();
        if self.refused.due.is_none_or(|due| now < due) {
            return;
        }
        self.refused.due = Some(now + ASK_AGAIN);
        let mut found = BTreeMap::new();
        for topic in self.topics_to_ask() {
            match self.listed_as(&topic) {
                Ok(Some(code)) => {
                    found.insert(topic, Refusal { code, listed: true });
                }
                Ok(None) => {
                    let known = self.refused.topics.get(&topic);
                    if let Some(known) = known.filter(|refusal| !refusal.listed) {
                        found.insert(topic, *known);
                    }
                }
                // Every further question would wait as long: ask again later.
                Err(_) => return,
            }
        }
        let suspicion = self.refused.suspicion.take();
        let unexplained = RDKafkaErrorCode::TopicAuthorizationFailed;
        if suspicion == Some(unexplained) && found.values().all(|r| r.code != unexplained) {
            for topic in self.readings.topics() {
                found.insert(topic, Refusal { code: unexplained, listed: false });
            }
        }
        self.tell_refused(found);
    }

    /// Records of a topic prove that it can be read.
    pub(super) fn seen(&mut self, batch: &[Event]) {
        if self.refused.topics.is_empty() {
            return;
        }
        let mut left = self.refused.topics.clone();
        for event in batch {
            left.remove(&event.record.partition.topic);
        }
        self.tell_refused(left);
    }

    fn tell_refused(&mut self, topics: BTreeMap<Arc<str>, Refusal>) {
        if topics.is_empty() {
            self.refused.due = None;
        }
        if topics != self.refused.topics {
            let told = topics.iter().map(|(topic, r)| (Arc::clone(topic), name(r.code))).collect();
            self.events.send(PollEvent::Refused(told)).ok();
            self.refused.topics = topics;
        }
    }

    /// The topics of the configuration that are no patterns, and those held or refused.
    fn topics_to_ask(&self) -> Vec<Arc<str>> {
        let configured = self.topics.iter().filter(|topic| !topic.starts_with('^'));
        let mut topics: Vec<Arc<str>> = configured.map(|topic| topic.as_str().into()).collect();
        topics.extend(self.readings.topics());
        topics.extend(self.refused.topics.keys().cloned());
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// The error that the brokers' metadata has for a topic.
    fn listed_as(&self, topic: &str) -> KafkaResult<Option<RDKafkaErrorCode>> {
        let metadata = self.member.fetch_metadata(Some(topic), ASK_TIMEOUT)?;
        let listed = metadata.topics().iter().find(|found| found.name() == topic);
        let code = listed.and_then(|topic| topic.error()).map(RDKafkaErrorCode::from);
        Ok(code.filter(|code| is_about_a_topic(*code)))
    }
}
