//! Records decoded by routes that were compiled for real tables, on their way into them.

use std::io::Write as _;

use pgsluice::config;
use pgsluice::kafka::Librdkafka;
use pgsluice::route::decoder::Decoder;
use pgsluice::route::{Catalog, Plan, RouteProblems};
use pgsluice_core::event::{Content, Event};
use pgsluice_core::fault::Decision;
use pgsluice_core::group::GroupReply;
use pgsluice_core::record::{Generation, Offset, Raw, Record, TimestampType, TopicPartition};
use pgsluice_core::verdict::Verdict;

use crate::fixture::{Fixture, failed_before, group};

/// What became of a record that was alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It has its outcome, on the fast lane or, where that refused it, on the slow one.
    Decided(Verdict),
    /// It was found to be poison before the database was asked.
    Poison(&'static str),
    /// The database refused its data.
    Refused,
}

/// A fixture whose routes come from a configuration.
pub(crate) struct Routed {
    pub(crate) fixture: Fixture,
    decoder: Decoder,
    offset: std::cell::Cell<i64>,
}

impl Routed {
    /// The tables of `ddl`, and the routes of the `plain` format that write them.
    #[track_caller]
    pub(crate) fn new(name: &str, ddl: &str, routes: &str) -> Self {
        Self::compiled(name, ddl, routes).unwrap()
    }

    pub(crate) fn compiled(name: &str, ddl: &str, routes: &str) -> Result<Self, RouteProblems> {
        let mut fixture = Fixture::new(name, Vec::new());
        fixture.database.execute(ddl);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(routes.as_bytes()).unwrap();
        let variables = [
            ("PGSLUICE__KAFKA__BROKERS", "localhost:1".to_owned()),
            ("PGSLUICE__KAFKA__GROUP", "ledger".to_owned()),
            ("PGSLUICE__KAFKA__TOPICS", "topic".to_owned()),
            ("PGSLUICE__POSTGRES__URL", fixture.database.url()),
        ];
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value));
        let config = config::load(Some(file.path()), variables, &Librdkafka).unwrap();
        let catalog = fixture.block_on(async {
            let connection = fixture.session.slow().await.unwrap();
            Catalog::load(&connection, &config).await.unwrap()
        });
        fixture.context.plan = Plan::compile(&config, &catalog)?;
        let decoder = Decoder::new(&fixture.context.plan, &config);
        Ok(Self { fixture, decoder, offset: std::cell::Cell::new(0) })
    }

    /// The next record of the log, decoded.
    pub(crate) fn event(&self, key: &[u8], value: Option<&[u8]>) -> Event {
        self.offset.set(self.offset.get() + 1);
        self.decoder.decode(Record {
            partition: TopicPartition { topic: "topic".into(), partition: 0 },
            offset: Offset(self.offset.get()),
            generation: Generation(1),
            timestamp: Some(1_700_000_000_123),
            timestamp_type: TimestampType::CreateTime,
            raw: Raw::pair(Some(key), value),
        })
    }

    /// Gives the next record of the log to the fast lane.
    #[track_caller]
    pub(crate) fn give(&self, key: &str, value: &str) -> Ending {
        self.given(self.event(key.as_bytes(), Some(value.as_bytes())))
    }

    /// Gives a tombstone of that key.
    #[track_caller]
    pub(crate) fn tombstone(&self, key: &str) -> Ending {
        self.given(self.event(key.as_bytes(), None))
    }

    #[track_caller]
    pub(crate) fn given(&self, event: Event) -> Ending {
        if let Content::Poison(poison) = &event.content {
            return Ending::Poison(poison.reason.as_str());
        }
        let again = event.clone();
        match self.fixture.fast(vec![group(1, vec![event])]).remove(0) {
            GroupReply::Refused => self.slowly(again),
            reply => self.ending(&reply),
        }
    }

    /// The same on the slow lane, after it failed once.
    #[track_caller]
    pub(crate) fn slowly(&self, event: Event) -> Ending {
        let reply = self.fixture.slow(failed_before(group(1, vec![event])));
        self.ending(&reply)
    }

    #[track_caller]
    fn ending(&self, reply: &GroupReply) -> Ending {
        match reply {
            GroupReply::Done { verdicts, .. } => Ending::Decided(verdicts[0]),
            GroupReply::Failed(fault) => match self.fixture.context.faults.decide(fault) {
                Decision::Isolate(_) => Ending::Refused,
                other => panic!("{fault}: {other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
}
