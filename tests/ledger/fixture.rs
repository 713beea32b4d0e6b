//! A database with pgsluice's tables, an open session, and short ways to make events and groups.

use std::time::{Duration, Instant};

use pgsluice::config::{self, Config};
use pgsluice::kafka::Librdkafka;
use pgsluice::lanes::context::ApplyContext;
use pgsluice::lanes::fast::apply;
use pgsluice::lanes::parked_count::ParkedCount;
use pgsluice::lanes::slow::{read, resolve};
use pgsluice::lanes::statement::Statements;
use pgsluice::postgres::{Session, SessionEnd};
use pgsluice::route::kind::{Document, Upsert};
use pgsluice::route::{CompiledAction, CompiledRoute, Plan, Target};
use pgsluice::sql::name::Schema;
use pgsluice::store::migrate;
use pgsluice::store::sink::find_or_create;
use pgsluice::telemetry::Telemetry;
use pgsluice_core::event::{
    AggregateKey, AggregateVersion, Content, Envelope, Event, Json, LedgerEffect, Poison, RouteId,
    RowAction, RowWrite, Value, Write,
};
use pgsluice_core::fault::FaultPolicy;
use pgsluice_core::fault::{Fault, FaultKind, SqlState};
use pgsluice_core::group::{Failure, Group, GroupKind, GroupReply, OrderingKey, Origin};
use pgsluice_core::record::{
    Generation, Offset, OwnerEpoch, Raw, Record, SessionId, StreamId, TimestampType, TopicPartition,
};
use pgsluice_core::verdict::{GapPolicy, Reason, Verdict};

use pgsluice_testkit::postgres::{Database, Postgres};

/// The epoch under which the test owns its streams.
pub(crate) const EPOCH: OwnerEpoch = OwnerEpoch(7);

/// Which lane a group is given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Fast,
    Slow,
}

pub(crate) struct Fixture {
    pub(crate) database: Database,
    pub(crate) context: ApplyContext,
    pub(crate) session: Session,
    _end: SessionEnd,
    runtime: tokio::runtime::Runtime,
}

impl Fixture {
    /// A database with the streams 1 and 2, both ours, and one route for each action: `views-0`, ….
    pub(crate) fn new(name: &str, actions: Vec<CompiledAction>) -> Self {
        Self::with_gaps(name, GapPolicy::Apply, actions)
    }

    pub(crate) fn with_gaps(name: &str, gaps: GapPolicy, actions: Vec<CompiledAction>) -> Self {
        let database = Postgres::shared().database(name);
        let config = configuration(&database);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (session, end, sink) = runtime.block_on(async {
            migrate::migrate(&config.postgres).await.unwrap();
            let (session, end) = Session::open(&config, SessionId(1)).await.unwrap();
            let sink = find_or_create(&session, &config.kafka.group, None).await.unwrap();
            (session, end, sink)
        });
        let routes = actions
            .into_iter()
            .zip(0..)
            .map(|(action, id)| CompiledRoute {
                id: RouteId(id),
                name: format!("views-{id}").into(),
                action,
            })
            .collect();
        let context = ApplyContext {
            plan: Plan { routes },
            sink,
            statements: Statements::new(
                Schema::new(&config.postgres.schema),
                gaps == GapPolicy::Park,
            ),
            notification: config.notification.clone(),
            dead_letter: config.dead_letter.clone(),
            parked: ParkedCount::default(),
            gaps,
            faults: FaultPolicy::default(),
            deadline: Duration::from_secs(20),
            clock: Instant::now(),
            telemetry: Telemetry::try_new("ledger").unwrap(),
        };
        let fixture = Self { database, context, session, _end: end, runtime };
        for partition in 0..2 {
            fixture.database.execute(&format!(
                "insert into pgsluice.stream_t (sink, topic, partition, owner_epoch)
                 values ({}, 'topic', {partition}, {})",
                fixture.context.sink.0, EPOCH.0
            ));
        }
        fixture
    }

    /// Gives groups to the fast lane, as one statement where they fold alike.
    pub(crate) fn fast(&self, groups: Vec<Group>) -> Vec<GroupReply> {
        let done = self.runtime.block_on(apply(self.session.lane(), &self.context, groups));
        done.into_iter().map(|(_, reply)| reply).collect()
    }

    /// Gives a group to a lane.
    pub(crate) fn give(&self, lane: Lane, group: Group) -> GroupReply {
        match lane {
            Lane::Fast => self.fast(vec![group]).remove(0),
            Lane::Slow => self.runtime.block_on(resolve(&self.session, &self.context, group)).1,
        }
    }

    /// Gives a group to the slow lane.
    pub(crate) fn slow(&self, group: Group) -> GroupReply {
        self.give(Lane::Slow, group)
    }

    /// The set-based look.
    pub(crate) fn look(&self, groups: Vec<Group>) -> Vec<GroupReply> {
        let seen = self.runtime.block_on(read(&self.session, &self.context, groups));
        seen.into_iter().map(|(_, reply)| reply).collect()
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The only ledger row as `version|event id|stream|offset|gap|deleted|parked reason|state`.
    pub(crate) fn ledger(&self) -> String {
        self.line(
            "select version, event_id, stream, \"offset\", gap, deleted, parked_reason, state \
             from pgsluice.aggregate_t",
        )
    }

    /// `offset status reason` of every notification of a stream, in order.
    pub(crate) fn notes(&self, stream: i32) -> Vec<String> {
        self.lines(&format!(
            "select \"offset\", status, reason from pgsluice.notification_t \
             where stream = {stream} order by \"offset\""
        ))
    }

    /// `offset disposition reason` of every letter of a stream, in order.
    pub(crate) fn letters(&self, stream: i32) -> Vec<String> {
        self.lines(&format!(
            "select \"offset\", disposition, reason from pgsluice.dead_letter_t \
             where stream = {stream} order by \"offset\""
        ))
    }

    #[track_caller]
    pub(crate) fn line(&self, sql: &str) -> String {
        let lines = self.lines(sql);
        assert_eq!(lines.len(), 1, "one row expected of {sql}: {lines:?}");
        lines[0].clone()
    }

    #[track_caller]
    pub(crate) fn lines(&self, sql: &str) -> Vec<String> {
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let join =
            |row: Vec<Option<String>>| row.into_iter().map(text).collect::<Vec<_>>().join("|");
        self.database.rows(sql).into_iter().map(join).collect()
    }
}

fn configuration(database: &Database) -> Config {
    let variables = [
        ("PGSLUICE__KAFKA__BROKERS", "localhost:1".to_owned()),
        ("PGSLUICE__KAFKA__GROUP", "ledger".to_owned()),
        ("PGSLUICE__KAFKA__TOPICS", "topic".to_owned()),
        ("PGSLUICE__POSTGRES__URL", database.url()),
        ("PGSLUICE__POSTGRES__LANES", "1".to_owned()),
    ];
    let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value));
    config::load(None, variables, &Librdkafka).unwrap()
}

/// A route that upserts rows of the target.
pub(crate) fn upserting(target: Target) -> CompiledAction {
    CompiledAction::Upsert(Upsert(target))
}

pub(crate) const DOCUMENT: CompiledAction = CompiledAction::Document(Document::Replace);

/// An event of aggregate `Customer/c-1`, whose id follows from its offset.
pub(crate) fn event(offset: i64, version: Option<i64>, content: Content) -> Event {
    let aggregate = AggregateKey { aggregate_type: "Customer".into(), id: "c-1".into() };
    Event {
        record: Record {
            partition: TopicPartition { topic: "topic".into(), partition: 0 },
            offset: Offset(offset),
            generation: Generation(1),
            timestamp: Some(1_700_000_000_123),
            timestamp_type: TimestampType::CreateTime,
            raw: Raw::pair(Some(b"c-1"), Some(b"{}")),
        },
        envelope: Envelope {
            event_id: Some(format!("e{offset}").into()),
            event_type: Some("Changed".into()),
            aggregate: Some(aggregate),
            version: version.map(AggregateVersion),
            ..Envelope::default()
        },
        content,
    }
}

/// An event that writes the ledger's row only.
pub(crate) fn writes(offset: i64, version: Option<i64>, ledger: LedgerEffect) -> Event {
    let write = Write { route: RouteId(0), ledger, rows: Vec::new() };
    event(offset, version, Content::Write(write))
}

/// An event that upserts, deletes or marks the row with this key.
pub(crate) fn row(
    offset: i64,
    version: Option<i64>,
    action: RowAction,
    key: i64,
    columns: &[Option<Value>],
) -> Event {
    let ledger = match action {
        RowAction::Upsert => LedgerEffect::Keep,
        RowAction::Remove | RowAction::Mark => LedgerEffect::Clear,
    };
    let row = RowWrite { action, key: Box::new([Value::Int(key)]), columns: columns.into() };
    let write = Write { route: RouteId(0), ledger, rows: vec![row] };
    event(offset, version, Content::Write(write))
}

/// An event whose document says which offset wrote it.
pub(crate) fn document(offset: i64, version: Option<i64>) -> Event {
    let text = format!(r#"{{"by":{offset}}}"#);
    writes(offset, version, LedgerEffect::Set(Json::Value(text.into())))
}

/// An event whose members are merged into the document.
pub(crate) fn merging(offset: i64, version: Option<i64>, text: &str) -> Event {
    writes(offset, version, LedgerEffect::Merge(Json::Value(text.into())))
}

pub(crate) fn delete(offset: i64, version: Option<i64>) -> Event {
    writes(offset, version, LedgerEffect::Clear)
}

pub(crate) fn poison(offset: i64, version: Option<i64>) -> Event {
    let reason = Poison::new(Reason::FieldInvalid, Some("value:/total".into()));
    event(offset, version, Content::Poison(reason))
}

/// An upsert of the row with key 1.
pub(crate) fn upsert(offset: i64, columns: &[Option<Value>]) -> Event {
    row(offset, Some(offset), RowAction::Upsert, 1, columns)
}

/// Events of one aggregate from one stream, as a first attempt.
pub(crate) fn group(stream: i32, events: Vec<Event>) -> Group {
    let aggregate = events[0].envelope.aggregate.clone();
    let partition = TopicPartition { topic: "topic".into(), partition: stream - 1 };
    Group {
        kind: Group::kind_of(&events[0]).unwrap(),
        order: aggregate.map_or_else(
            || OrderingKey::Alone(partition.clone(), events[0].offset().0),
            OrderingKey::Aggregate,
        ),
        origin: Origin {
            partition,
            stream: StreamId(stream),
            epoch: EPOCH,
            generation: Generation(1),
        },
        events,
        failure: None,
    }
}

/// A group of another aggregate.
pub(crate) fn group_of(id: &str, stream: i32, mut events: Vec<Event>) -> Group {
    for event in &mut events {
        event.envelope.aggregate =
            Some(AggregateKey { aggregate_type: "Customer".into(), id: id.into() });
    }
    group(stream, events)
}

/// The group after its data was found at fault once.
pub(crate) fn failed_before(group: Group) -> Group {
    failed_with(group, *b"23514")
}

pub(crate) fn failed_with(mut group: Group, code: [u8; 5]) -> Group {
    let mut fault = Fault::new(FaultKind::Server(SqlState(code)));
    fault.constraint = Some("of_the_target".into());
    group.failure = Some(Failure {
        attempts: 1,
        since: Duration::ZERO,
        last: Duration::ZERO,
        exhausted: false,
        fault,
    });
    group
}

pub(crate) fn done(verdicts: &[Verdict]) -> GroupReply {
    GroupReply::Done { verdicts: verdicts.to_vec(), gap: 0 }
}

#[track_caller]
pub(crate) fn failed_code(reply: &GroupReply) -> String {
    match reply {
        GroupReply::Failed(fault) => fault.sqlstate().unwrap().to_string(),
        other => panic!("a failure expected, not {other:?}"),
    }
}

/// Kind of a group of skips, for those made by hand.
pub(crate) fn skips(stream: i32, events: Vec<Event>) -> Group {
    let mut skips = group(stream, events);
    skips.order = OrderingKey::Skips(skips.origin.partition.clone());
    skips.kind = GroupKind::Skip;
    skips
}

/// Text that compression makes no shorter.
pub(crate) fn incompressible(length: usize) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(digits[(state % 64) as usize])
    };
    (0..length).map(|_| next()).collect()
}
