//! Events of every kind, and the outcome that each of them must have: a model of the contract that
//! is as simple as one row an aggregate.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use pgsluice_testkit::case::{Case, customer_event, renamed};
use pgsluice_testkit::kafka::{Outgoing, Place, Producer};

/// Aggregates that get events at a time. A parked one is replaced after a while.
const AGGREGATES: usize = 300;
/// Events that a parked aggregate still gets.
const AFTERMATH: u32 = 20;

/// What the target's constraint refuses: `note <> 'bob'`. Later events leave the note alone, so
/// that folding hides nothing.
pub(crate) const REFUSES_BOB: &str =
    "alter table customer add constraint no_bob check (note <> 'bob')";

/// One aggregate as the database must hold it once everything is finished.
#[derive(Debug, Clone)]
struct Aggregate {
    name: String,
    version: i64,
    /// Events left until another aggregate takes its place; it is parked.
    aftermath: Option<u32>,
}

/// Sends events and keeps the account of them.
pub(crate) struct Traffic {
    producer: Producer,
    random: StdRng,
    aggregates: Vec<Aggregate>,
    born: usize,
    /// Version of every aggregate that ever took an event.
    versions: BTreeMap<String, i64>,
    expected: BTreeMap<Place, &'static str>,
}

impl Traffic {
    pub(crate) fn new(case: &Case, seed: u64) -> Self {
        let mut traffic = Self {
            producer: case.producer(),
            random: StdRng::seed_from_u64(seed),
            aggregates: Vec::new(),
            born: 0,
            versions: BTreeMap::new(),
            expected: BTreeMap::new(),
        };
        traffic.aggregates = (0..AGGREGATES).map(|_| traffic.birth()).collect();
        traffic
    }

    fn birth(&mut self) -> Aggregate {
        self.born += 1;
        Aggregate { name: format!("c{}", self.born), version: 0, aftermath: None }
    }

    /// Sends that many events and notes what must become of each.
    pub(crate) fn send(&mut self, count: usize) {
        let (records, outcomes): (Vec<_>, Vec<_>) = (0..count).map(|_| self.event()).unzip();
        let places = self.producer.send_all(records);
        self.expected.extend(places.into_iter().zip(outcomes));
    }

    fn event(&mut self) -> (Outgoing, &'static str) {
        if self.random.random_bool(0.0005) {
            return (Outgoing::without_key("no JSON"), "DEAD_LETTERED");
        }
        let at = self.random.random_range(0..self.aggregates.len());
        if self.aggregates[at].aftermath == Some(0) {
            self.aggregates[at] = self.birth();
        }
        let chance = self.random.random_range(0..1000);
        let (record, outcome) = self.aggregates[at].event(chance);
        if outcome == "APPLIED" {
            let aggregate = &self.aggregates[at];
            self.versions.insert(aggregate.name.clone(), aggregate.version);
        }
        (record, outcome)
    }

    /// How many records were sent.
    pub(crate) fn sent(&self) -> usize {
        self.expected.len()
    }

    /// Places of the records that must be in the dead letter topic.
    pub(crate) fn letters(&self) -> Vec<Place> {
        let is_letter = |status: &&str| matches!(*status, "DEAD_LETTERED" | "PARKED");
        self.expected.iter().filter(|(_, status)| is_letter(status)).map(|(p, _)| *p).collect()
    }

    /// Asserts that every record has the outcome it must have, exactly once, and that the target
    /// holds the newest version of every aggregate.
    #[track_caller]
    pub(crate) fn assert_accounted(&self, case: &Case) {
        case.assert_outcomes(self.expected.iter().map(|(place, status)| (*place, *status)));
        let rows = case.database.rows("select id, version from customer order by id collate \"C\"");
        let found: BTreeMap<String, i64> = rows
            .into_iter()
            .map(|row| {
                let [id, version] = [0, 1].map(|n| row[n].clone().expect("no nulls"));
                (id, version.parse().expect("a version"))
            })
            .collect();
        assert!(found == self.versions, "the target holds other versions than were sent last");
    }
}

impl Aggregate {
    /// The next event of the aggregate, and its outcome.
    fn event(&mut self, chance: u32) -> (Outgoing, &'static str) {
        let next = self.version + 1;
        if let Some(left) = &mut self.aftermath {
            *left = left.saturating_sub(1);
            return (renamed(&self.name, next), "PARKED");
        }
        match chance {
            // The newest once more, as a producer's retry.
            0..30 if self.version > 0 => (renamed(&self.name, self.version), "DUPLICATE"),
            30..50 if self.version > 1 => (renamed(&self.name, self.version - 1), "STALE"),
            50 if self.version > 0 => {
                self.poisoned(self.version, "another", &json!({"newName": ""}))
            }
            51 => self.poisoned(next, "refused", &json!({"newName": "", "note": "bob"})),
            52 => self.poisoned(next, "mistyped", &json!({"newName": {"nested": 1}})),
            _ => {
                self.version = next;
                (renamed(&self.name, next), "APPLIED")
            }
        }
    }

    fn poisoned(
        &mut self,
        version: i64,
        event: &str,
        payload: &serde_json::Value,
    ) -> (Outgoing, &'static str) {
        self.aftermath = Some(AFTERMATH);
        let id = format!("{}-{event}", self.name);
        (customer_event(&self.name, version, &id, payload), "DEAD_LETTERED")
    }
}
