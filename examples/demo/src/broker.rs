//! The demo's broker, which is librdkafka's mock cluster, and its producer.

use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use tokio::runtime::Runtime;

use crate::story::Scene;
use crate::{CUSTOMERS, ORDERS};

/// Partitions of each topic: enough to see that they progress on their own.
const PARTITIONS: i32 = 3;
/// How long the broker may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A broker in this process, on a random port of the loopback interface. It keeps the last 5 MB
/// of each partition in memory and loses everything when it ends.
pub(crate) struct Broker(MockCluster<'static, DefaultProducerContext>);

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Broker").field(&self.address()).finish()
    }
}

impl Broker {
    /// Starts it with the demo's topics.
    ///
    /// # Errors
    /// When librdkafka cannot open its listener.
    pub(crate) fn start() -> Result<Self, KafkaError> {
        let cluster = MockCluster::new(1)?;
        for topic in [CUSTOMERS, ORDERS] {
            cluster.create_topic(topic, PARTITIONS, 1)?;
            cluster.create_topic(&format!("{topic}-dlq"), PARTITIONS, 1)?;
        }
        Ok(Self(cluster))
    }

    /// Its address, for `kafka.brokers`.
    pub(crate) fn address(&self) -> String {
        self.0.bootstrap_servers()
    }
}

/// Sends the story.
pub(crate) struct Storyteller {
    config: ClientConfig,
    producer: FutureProducer,
    runtime: Runtime,
}

impl fmt::Debug for Storyteller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storyteller").finish_non_exhaustive()
    }
}

impl Storyteller {
    /// A producer for these brokers.
    ///
    /// # Errors
    /// When librdkafka refuses the address.
    pub(crate) fn connect(brokers: &str) -> anyhow::Result<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        let mut producing = config.clone();
        producing
            // Keys land where a Java producer would put them.
            .set("partitioner", "murmur2_random")
            // Events of one aggregate stay in order across retries.
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "10000");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let producer = {
            let _inside = runtime.enter();
            producing.create()?
        };
        Ok(Self { config, producer, runtime })
    }

    /// Creates the topics where they are missing. The embedded broker has them, does not know
    /// the request, and a real broker may refuse it: sending tells whether they are there.
    pub(crate) fn create_topics(&self) {
        let known = |topic| {
            let client = rdkafka::producer::Producer::client(&self.producer);
            let metadata = client.fetch_metadata(Some(topic), TIMEOUT).ok()?;
            let found = metadata.topics().iter().find(|t| t.name() == topic)?;
            (!found.partitions().is_empty()).then_some(())
        };
        let missing: Vec<_> = [CUSTOMERS, ORDERS]
            .into_iter()
            .filter(|topic| known(topic).is_none())
            .map(|topic| NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(-1)))
            .collect();
        if !missing.is_empty() {
            let created = self.runtime.block_on(async {
                let admin: AdminClient<_> = self.config.create()?;
                let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
                KafkaResult::Ok(admin.create_topics(&missing, &options).await?.len())
            });
            // Sending shows whether they exist.
            created.ok();
        }
    }

    /// Sends one record and waits until the broker has it.
    ///
    /// # Errors
    /// When the broker does not take it within ten seconds.
    pub(crate) fn tell(&self, scene: &Scene) -> KafkaResult<()> {
        let record = FutureRecord::to(scene.topic).key(&scene.key).payload(&scene.value);
        let sent = self.runtime.block_on(self.producer.send(record, TIMEOUT));
        sent.map(|_| ()).map_err(|(error, _)| error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_broker_takes_the_whole_story() {
        let broker = Broker::start().unwrap();
        let teller = Storyteller::connect(&broker.address()).unwrap();
        teller.create_topics();
        for scene in crate::story::story(1) {
            teller.tell(&scene).unwrap();
        }
    }
}
