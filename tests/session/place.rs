//! A database of one test with our tables in it, and sessions on it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use pgsluice::config::{self, Config};
use pgsluice::kafka::Librdkafka;
use pgsluice::lanes::take::{TakeRequest, take};
use pgsluice::postgres::{Session, SessionEnd};
use pgsluice::store::migrate::migrate;
use pgsluice::store::sink::{SinkId, find_or_create};
use pgsluice_core::fault::Fault;
use pgsluice_core::group::Progress;
use pgsluice_core::input::{Claim, TakeReply};
use pgsluice_core::position::{Committed, KafkaPosition};
use pgsluice_core::record::{Anchor, Generation, NextOffset, Offset, SessionId, TopicPartition};

use pgsluice_testkit::postgres::{Database, Postgres};

/// Long enough for a busy machine; nothing here should take more than a moment.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) fn config_with(url: &str, more: &[(&str, &str)]) -> Config {
    let given = [
        ("PGSLUICE__KAFKA__BROKERS", "127.0.0.1:1"),
        ("PGSLUICE__KAFKA__GROUP", "views"),
        ("PGSLUICE__KAFKA__TOPICS", "events"),
        ("PGSLUICE__POSTGRES__URL", url),
        ("PGSLUICE__POSTGRES__LANES", "2"),
    ];
    let env = given.iter().chain(more).map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    config::load(None, env, &Librdkafka).unwrap()
}

/// A database with our tables in it.
pub(crate) struct Place {
    pub(crate) runtime: Runtime,
    pub(crate) database: Database,
    pub(crate) config: Config,
}

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        Self::on(Postgres::shared(), name, &[])
    }

    pub(crate) fn on(server: &Postgres, name: &str, more: &[(&str, &str)]) -> Self {
        let (runtime, database) = (runtime(), server.database(name));
        let config = config_with(&database.url(), more);
        runtime.block_on(migrate(&config.postgres)).unwrap();
        Self { runtime, database, config }
    }

    pub(crate) fn open(&self) -> (Session, SessionEnd) {
        let (session, end) =
            self.runtime.block_on(Session::open(&self.config, SessionId(1))).unwrap();
        self.sink(&session);
        (session, end)
    }

    /// The sink, whose row is made when it is first asked for.
    pub(crate) fn sink(&self, session: &Session) -> SinkId {
        let found = find_or_create(session, &self.config.kafka.group, Some("cluster-a"));
        self.runtime.block_on(found).unwrap()
    }

    /// Takes one partition; the log holds everything a test could ask for.
    pub(crate) fn take(
        &self,
        session: &Session,
        number: i32,
        committed: Option<Committed>,
    ) -> TakeReply {
        let kafka = KafkaPosition { committed, low: 0, high: 1_000_000, start: Some(0) };
        let request =
            TakeRequest { partition: partition(number), generation: Generation(1), kafka };
        let mut taken = self
            .runtime
            .block_on(take(session, self.sink(session), "this test", vec![request]))
            .unwrap();
        let (name, generation, reply) = taken.pop().unwrap();
        assert_eq!((name, generation), (partition(number), Generation(1)));
        reply
    }

    pub(crate) fn claim(&self, session: &Session, number: i32) -> Claim {
        match self.take(session, number, None) {
            TakeReply::Claimed(claim) => claim,
            other => panic!("not claimed: {other:?}"),
        }
    }

    pub(crate) fn next_offset(&self) -> Option<String> {
        self.database.text("select next_offset from pgsluice.stream_t")
    }

    pub(crate) fn lead_is_ended(&self, session: &Session) {
        self.database.execute(&format!("select pg_terminate_backend({})", session.lead_backend()));
    }

    pub(crate) fn end(&self, end: SessionEnd) -> Fault {
        let waited = async { tokio::time::timeout(PATIENCE, end.wait()).await };
        self.runtime.block_on(waited).expect("the session ends")
    }
}

pub(crate) fn partition(number: i32) -> TopicPartition {
    TopicPartition { topic: Arc::from("events"), partition: number }
}

pub(crate) fn progress(claim: &Claim, next: i64) -> Progress {
    let anchor = Anchor { offset: Offset(next - 1), timestamp: Some(1_000), crc: u32::MAX };
    Progress {
        stream: claim.stream,
        epoch: claim.epoch,
        next: NextOffset(next),
        anchor: Some(anchor),
    }
}
