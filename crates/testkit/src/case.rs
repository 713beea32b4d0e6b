//! What every test has of its own: a topic, a consumer group, a database and a role for the daemon;
//! and the account of what became of each record.
//!
//! The daemon runs as `docs/operations.md` tells operators to let it: its role owns nothing and has
//! the grants that `pgsluice migrate --grants` prints, another role has migrated, and `migrate` is
//! `verify`. Only the test itself is a superuser.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::complaints::Expected;
use crate::daemon::{Daemon, pgsluice};
use crate::kafka::{self, Outgoing, Place, Producer};
use crate::postgres::{Database, Postgres};
use crate::process::next_number;

/// Within this time a lightly loaded daemon has finished what a test produced.
pub const SETTLING: Duration = Duration::from_secs(60);

/// Status of every record by its place, with the reason where there is one.
pub type Outcomes = BTreeMap<Place, (String, Option<String>)>;

/// One test's own corner of the broker and of the database server.
pub struct Case {
    pub topic: String,
    pub group: String,
    /// The database, for the test itself: as the superuser.
    pub database: Database,
    /// The daemon's role.
    pub role: String,
    migrate: &'static str,
    partitions: i32,
    expected: Expected,
}

impl Case {
    /// A topic, a group and a database on the shared server.
    pub fn new(name: &str, partitions: i32) -> Self {
        Self::on(Postgres::shared(), name, partitions)
    }

    /// The same on a server of one's own.
    pub fn on(server: &Postgres, name: &str, partitions: i32) -> Self {
        let database = server.copy(name, migrated);
        Self::with(database, name, partitions, "verify")
    }

    /// A case about migrating: its database is empty, and the daemon's role may create the schema
    /// and so comes to own it.
    pub fn unmigrated(name: &str, partitions: i32) -> Self {
        let case = Self::with(Postgres::shared().database(name), name, partitions, "auto");
        let (database, role) = (&case.database.name, &case.role);
        case.database.execute(&format!("grant create on database {database} to {role}"));
        case
    }

    fn with(database: Database, name: &str, partitions: i32, migrate: &'static str) -> Self {
        let role = format!("{}_runner", database.name);
        database.execute(&format!("create role {role} login"));
        Self {
            topic: kafka::topic(&name.replace('_', "-"), partitions),
            group: format!("{name}-{}-{}", std::process::id(), next_number()),
            database,
            role,
            migrate,
            partitions,
            expected: Expected::default(),
        }
    }

    /// What the daemons of this test log at ERROR and WARN, by event code. It must come; anything
    /// else must not.
    pub fn expects(&self, codes: &[&'static str]) {
        codes.iter().for_each(|code| self.expected.require(code));
    }

    /// The same where it depends on how things interleave whether it comes; the test says on what.
    pub fn allows(&self, codes: &[&'static str]) {
        codes.iter().for_each(|code| self.expected.allow(code));
    }

    /// `postgres.url` of the daemon.
    pub fn url(&self) -> String {
        self.database.url_as(&self.role)
    }

    /// The required settings and short group timings, then `more` sections. The role has the
    /// grants for them afterwards.
    pub fn config(&self, more: &str) -> String {
        let config = format!(
            "[kafka]\nbrokers = \"{}\"\ngroup = \"{}\"\ntopics = [\"{}\"]\n\
             [kafka.properties]\n\"session.timeout.ms\" = \"6000\"\n\
             \"heartbeat.interval.ms\" = \"500\"\n\
             [postgres]\nurl = \"{}\"\nmigrate = \"{}\"\n{more}\n",
            kafka::brokers(),
            self.group,
            self.topic,
            self.url(),
            self.migrate,
        );
        self.grant(&config);
        config
    }

    /// Gives the role what `pgsluice migrate --grants` prints, but for tables that are not there:
    /// whoever creates one later grants as well.
    fn grant(&self, config: &str) {
        let (code, grants, errors) =
            pgsluice(&["migrate", "--grants", &self.role], Some(config), &[]);
        assert_eq!(code, Some(0), "{errors}");
        let mut superuser = self.database.connect();
        for grant in grants.lines() {
            if let Err(error) = superuser.batch_execute(grant) {
                let code = error.code().map(postgres::error::SqlState::code);
                assert!(matches!(code, Some("42P01" | "3F000")), "{grant}: {error:?}");
            }
        }
    }

    /// A daemon with [`Self::config`].
    pub fn daemon(&self, more: &str) -> Daemon {
        self.daemon_with(more, &[])
    }

    /// The same with further variables, for keys of sections that `config` has already.
    pub fn daemon_with(&self, more: &str, variables: &[(&str, &str)]) -> Daemon {
        self.daemon_of(Some(&self.config(more)), variables)
    }

    /// A daemon with a configuration that is all the test's own, or with none.
    pub fn daemon_of(&self, config: Option<&str>, variables: &[(&str, &str)]) -> Daemon {
        Daemon::start(config, variables, &self.expected)
    }

    pub fn producer(&self) -> Producer {
        Producer::new(&self.topic)
    }

    /// Every record's outcome, from `notification_t`.
    pub fn outcomes(&self) -> Outcomes {
        let sql = format!(
            "select partition, \"offset\", status, reason from pgsluice.notification \
             where sink = '{}' and topic = '{}'",
            self.group, self.topic
        );
        let number = |text: &Option<String>| text.as_deref().unwrap_or("").parse::<i64>().ok();
        let rows = self.database.try_rows(&sql).unwrap_or_default().into_iter().map(|row| {
            let partition = number(&row[0]).and_then(|n| i32::try_from(n).ok());
            let place = Place {
                partition: partition.expect("a partition"),
                offset: number(&row[1]).expect("an offset"),
            };
            (place, (row[2].clone().expect("a status"), row[3].clone()))
        });
        rows.collect()
    }

    /// How many records have that outcome.
    pub fn count(&self, status: &str) -> usize {
        self.outcomes().values().filter(|(found, _)| found == status).count()
    }

    /// Where the database says that reading goes on; `None` while it has no position.
    pub fn progress(&self, partition: i32) -> Option<i64> {
        let sql = format!(
            "select next_offset from pgsluice.stream where sink = '{}' and topic = '{}' \
             and partition = {partition}",
            self.group, self.topic
        );
        let rows = self.database.try_rows(&sql).unwrap_or_default();
        rows.first()?.first()?.as_deref()?.parse().ok()
    }

    /// Whether the database's progress stands at the end of every partition that holds anything.
    pub fn finished(&self) -> bool {
        (0..self.partitions).all(|partition| {
            let end = kafka::end_offset(&self.topic, partition);
            end == 0 || self.progress(partition) == Some(end)
        })
    }

    /// Waits until everything in the topic is finished and durable.
    #[track_caller]
    pub fn until_finished(&self, daemon: &Daemon) {
        daemon.until("progress stands at the end of the topic", SETTLING, || self.finished());
    }

    /// Waits until Kafka's committed offsets followed.
    #[track_caller]
    pub fn until_mirrored(&self, daemon: &Daemon) {
        daemon.until("the committed offsets follow", SETTLING, || {
            (0..self.partitions).all(|partition| {
                let end = kafka::end_offset(&self.topic, partition);
                end == 0 || kafka::committed(&self.group, &self.topic, partition) == Some(end)
            })
        });
    }

    /// Asserts the account of INV-5: exactly these records have an outcome, exactly once, and it is
    /// the expected one.
    #[track_caller]
    pub fn assert_outcomes<'a>(&self, expected: impl IntoIterator<Item = (Place, &'a str)>) {
        let expected: BTreeMap<Place, &str> = expected.into_iter().collect();
        let found = self.outcomes();
        let differing: Vec<String> = expected
            .keys()
            .chain(found.keys())
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .filter(|place| {
                expected.get(place).copied() != found.get(place).map(|(status, _)| status.as_str())
            })
            .take(20)
            .map(|place| {
                format!(
                    "{place:?}: {:?} expected, {:?} found",
                    expected.get(place),
                    found.get(place)
                )
            })
            .collect();
        assert!(differing.is_empty(), "outcomes differ:\n{}", differing.join("\n"));
        let below: i64 = (0..self.partitions).filter_map(|p| self.progress(p)).sum();
        assert!(
            i64::try_from(expected.len()).expect("few") <= below,
            "{} outcomes, but progress covers only {below} records",
            expected.len()
        );
    }

    /// Asserts that nothing is dead-lettered or parked (INV-7).
    #[track_caller]
    pub fn assert_no_letters(&self) {
        assert_eq!(
            self.database.text("select count(*) from pgsluice.dead_letter_t").as_deref(),
            Some("0")
        );
    }

    /// The reason of one record's outcome.
    #[track_caller]
    pub fn reason(&self, place: Place) -> Option<String> {
        self.outcomes().get(&place).expect("the record has an outcome").1.clone()
    }

    /// Version of an aggregate in the ledger.
    pub fn version(&self, aggregate: &str) -> Option<i64> {
        let sql = format!(
            "select version from pgsluice.aggregate where sink = '{}' and aggregate_id = '{aggregate}'",
            self.group
        );
        self.database.try_rows(&sql).ok()?.first()?.first()?.as_deref()?.parse().ok()
    }

    /// Document of an aggregate, as the server prints `jsonb`.
    pub fn state(&self, aggregate: &str) -> Option<String> {
        let sql = format!(
            "select state from pgsluice.aggregate where sink = '{}' and aggregate_id = '{aggregate}'",
            self.group
        );
        self.database.try_rows(&sql).ok()?.into_iter().next()?.into_iter().next()?
    }

    /// Everything that a re-delivery must leave alone, with each row's writing transaction.
    pub fn fingerprint(&self) -> Vec<Vec<Option<String>>> {
        self.database.rows(
            "select 'aggregate', aggregate_type, aggregate_id, xmin::text, a::text \
               from pgsluice.aggregate_t a \
             union all select 'notification', stream::text, \"offset\"::text, xmin::text, n::text \
               from pgsluice.notification_t n \
             order by 1, 2, 3",
        )
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        // Its daemons have ended: they borrow nothing, but every test declares them later.
        if !std::thread::panicking() {
            let missing = self.expected.missing();
            assert!(missing.is_empty(), "expected and never logged: {missing:?}");
        }
    }
}

/// Migrates an empty database, as a role that owns pgsluice's schema and nothing else.
fn migrated(database: &Database) {
    let owner = format!("{}_owner", database.name);
    database.execute(&format!(
        "create role {owner} login; grant create on database {} to {owner}",
        database.name
    ));
    let url = database.url_as(&owner);
    let config = format!(
        "[kafka]\nbrokers = \"unused\"\ngroup = \"unused\"\ntopics = [\"unused\"]\n\
         [postgres]\nurl = \"{url}\"\n"
    );
    let (code, _, errors) = pgsluice(&["migrate"], Some(&config), &[]);
    assert_eq!(code, Some(0), "{errors}");
}

/// How many records this process finished with that verdict, by its own metrics.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small whole number")]
pub fn counted(daemon: &Daemon, verdict: &str) -> usize {
    daemon.metric("pgsluice_records_total", &[&format!("verdict=\"{verdict}\"")]).round() as usize
}

/// A domain event as a Java service's event classes come out of Jackson, `eventType` twice.
pub fn customer_event(
    aggregate: &str,
    version: i64,
    event_id: &str,
    payload: &serde_json::Value,
) -> Outgoing {
    let event_type = if version == 1 { "CustomerRegistered" } else { "CustomerNameChanged" };
    let mut members = vec![
        format!("\"eventType\":\"{event_type}\""),
        format!("\"eventId\":{}", json!(event_id)),
        "\"timestamp\":\"2026-11-21T10:15:30.123456789Z\"".to_owned(),
        format!("\"aggregateId\":{}", json!(aggregate)),
        "\"aggregateType\":\"Customer\"".to_owned(),
        format!("\"sequenceNumber\":{version}"),
    ];
    for (name, value) in payload.as_object().expect("a payload is an object") {
        members.push(format!("{}:{value}", json!(name)));
    }
    members.push(format!("\"eventType\":\"{event_type}\""));
    Outgoing::new(aggregate, format!("{{{}}}", members.join(",")))
}

/// Event `version` of an aggregate, with an event id and a name derived from both.
pub fn renamed(aggregate: &str, version: i64) -> Outgoing {
    let payload = json!({ "newName": format!("{aggregate} {version}") });
    customer_event(aggregate, version, &format!("{aggregate}-{version}"), &payload)
}

/// `[decode]` of the tests that need versions.
pub const ENVELOPE: &str = "[decode]\nformat = \"envelope\"\n";

/// A customer table and the route to it, as in the documentation.
pub const CUSTOMER_TABLE: &str = "create table customer (id text primary key, name text not null, note text, \
     version bigint not null)";
/// The route into [`CUSTOMER_TABLE`].
pub const CUSTOMER_ROUTE: &str = "[decode]\nformat = \"envelope\"\n\
     [[route]]\naggregate_type = \"Customer\"\n[route.upsert]\ntable = \"public.customer\"\n\
     key = { id = \"aggregate_id\" }\n\
     columns = { name = \"payload:/newName\", note = \"payload:/note\", version = \"version\" }\n";

/// Remembers every version that was ever written to [`CUSTOMER_TABLE`], in the order of writing.
pub const EFFECTS: &str = "create table effect (n bigserial, id text, version bigint); \
     create function remember() returns trigger language plpgsql \
       security definer set search_path = '' as $$ begin \
       insert into public.effect (id, version) values (new.id, new.version); return new; end $$; \
     create trigger remember after insert or update on customer \
       for each row execute function remember()";

impl Case {
    /// Asserts that versions of an aggregate were written in ascending order, none twice.
    #[track_caller]
    pub fn assert_effects_ascend(&self) {
        let backwards = "select count(*) from (select version <= lag(version) over \
             (partition by id order by n) as wrong from effect) w where wrong";
        assert_eq!(self.database.count(backwards), 0, "versions written twice or backwards");
        assert!(self.database.count("select count(*) from effect") > 0, "effects were recorded");
    }
}
