//! `pgsluice check --sample N`: real records, what they mean, and what they would do.
//!
//! The records are read by a consumer that joins nothing and commits nothing, decoded by the
//! daemon's own decoder, and tried out by the slow lane's own code in one transaction that is
//! rolled back ([`crate::lanes::slow::rehearse`]). What a human reads of it is made of types,
//! positions, names and codes; no key, payload or id is ever part of it (INV-9).

mod line;
mod read;
mod unfilled;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use self::line::Explained;
pub use self::line::{Route, Said, Sampled, Trouble, Written};
use self::read::{Found, Taken};
use self::unfilled::Seen;
use super::database::Ground;
use super::finding::Report;
use super::kafka::{ASK_TIMEOUT, Cluster};
use super::tables::Tables;
use crate::config::Config;
use crate::kafka::positions::Positions;
use crate::lanes::context::ApplyContext;
use crate::lanes::slow::rehearse::Rehearsal;
use crate::route::Plan;
use crate::route::decoder::Decoder;
use crate::store::migrate;
use crate::store::sink::{SinkId, Stored};
use crate::telemetry::{MetricsError, Telemetry};
use pgsluice_core::fault::Fault;
use pgsluice_core::position::{KafkaPosition, Start, start_position};
use pgsluice_core::record::{StreamId, TopicPartition};
use pgsluice_core::verdict::Reason;

/// How long the transaction may last, and so how long it may hold what it wrote to: beside a
/// running daemon every row of it is a row that the daemon has to wait for.
const TRANSACTION: Duration = Duration::from_secs(5);

/// What is set in the transaction: nothing waits for somebody else's lock, and nothing runs for
/// longer than the transaction should.
const SETTINGS: &str = "set local lock_timeout = '100ms'; set local statement_timeout = '2s';\n";

/// Stands for a sink that never ran. Real ones count from 1, and its rows are rolled back.
const NO_SINK: SinkId = SinkId(-1);

/// How much of what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// How many records, over all partitions.
    pub records: usize,
    /// Which ones.
    pub from: From,
}

/// Which records a sample takes of each partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// Those the sink would read next.
    Next,
    /// The oldest.
    Earliest,
    /// The newest.
    Latest,
}

/// What was read and tried.
#[derive(Debug, Serialize)]
pub struct Sample {
    /// Which records were taken.
    pub from: From,
    /// The records in the order in which they were tried.
    pub records: Vec<Sampled>,
}

/// A partition with where the sample begins in it.
#[derive(Debug, Clone)]
struct Stretch {
    partition: TopicPartition,
    stream: StreamId,
    low: i64,
    start: i64,
    high: i64,
}

/// Reads and tries. `None` where it did not come to that; the report says why.
pub(super) async fn take(
    config: &Config,
    wanted: Wanted,
    cluster: Option<&Cluster>,
    ground: Option<Ground>,
    report: &mut Report,
) -> Option<Sample> {
    let (Some(cluster), Some(ground)) = (cluster, ground) else {
        return not_taken("brokers and database must answer", report);
    };
    let Some(plan) = ground.plan.clone() else {
        return not_taken("the routes must fit their tables", report);
    };
    if matches!(ground.tables, Tables::Unusable) {
        return not_taken("pgsluice's own tables must exist and be usable", report);
    }
    let stretches = stretches(config, wanted, cluster, &ground.stored, report)?;
    let decoder = Decoder::new(&plan, config);
    let found = match read::read(config, &decoder, wanted, &stretches) {
        Ok(found) => found,
        Err(error) => {
            let advice = "allow the user Read on the topics and try again";
            report.fail("sample", crate::kafka::faults::describe(&error), advice);
            return None;
        }
    };
    if let Some((what, advice)) = found.cut {
        report.warn("sample", what, advice);
    }
    let read = found.records.len();
    let mut seen = Seen::default();
    found.records.iter().for_each(|taken| seen.note(&taken.event));
    let sample = rehearse(config, wanted, plan.clone(), &ground, found, report).await?;
    judge(&sample, wanted, read, report);
    seen.judge(config, report);
    Some(sample)
}

fn not_taken(needs: &str, report: &mut Report) -> Option<Sample> {
    report.warn("sample", format!("not taken: {needs}"), "fix what failed above, then try again");
    None
}

/// Where each partition's records are to be read; one whose position cannot be used is reported.
fn stretches(
    config: &Config,
    wanted: Wanted,
    cluster: &Cluster,
    stored: &Stored,
    report: &mut Report,
) -> Option<Vec<Stretch>> {
    let partitions: Vec<TopicPartition> = cluster
        .sources
        .iter()
        .flat_map(|source| {
            let topic: std::sync::Arc<str> = source.name.as_str().into();
            (0..source.partitions)
                .map(move |partition| TopicPartition { topic: topic.clone(), partition })
        })
        .collect();
    let asked = Positions::connect(&config.kafka)
        .and_then(|positions| positions.fetch(&partitions, ASK_TIMEOUT));
    let known = match asked {
        Ok(known) => known,
        Err(error) => {
            let found =
                format!("cannot read positions: {}", crate::kafka::faults::describe(&error));
            report.unavailable("sample", found, "try again once the brokers are stable");
            return None;
        }
    };
    let mut stretches = Vec::new();
    // Streams that do not exist yet get numbers that no stream has.
    for (partition, spare) in partitions.into_iter().zip((i32::MIN..).map(StreamId)) {
        let Some(kafka) = known.get(&partition) else {
            report.warn(
                format!("partition {partition}"),
                "cannot read its position",
                "its records are not in the sample; check its leader",
            );
            continue;
        };
        let (stream, next) = stored.streams.get(&partition).copied().unwrap_or((spare, None));
        let Some(start) = start(wanted.from, start_position(next, kafka), kafka) else {
            halted(&partition, start_position(next, kafka), report);
            continue;
        };
        stretches.push(Stretch { partition, stream, low: kafka.low, start, high: kafka.high });
    }
    Some(stretches)
}

/// The first record to read, as far as it is known before the others' share is.
fn start(from: From, next: Start, kafka: &KafkaPosition) -> Option<i64> {
    match (from, next) {
        (From::Earliest | From::Latest, _) => Some(kafka.low),
        (From::Next, Start::Resume(next) | Start::Move(next, _)) => Some(next.0),
        (From::Next, Start::Halt(_)) => None,
    }
}

fn halted(partition: &TopicPartition, start: Start, report: &mut Report) {
    let Start::Halt(reason) = start else { return };
    let (found, advice) = match reason {
        Reason::NoPosition => (
            "no position is known, and kafka.start_from is \"error\": the partition would halt",
            "set kafka.start_from to where reading should begin, or use --from to sample elsewhere",
        ),
        _ => (
            "its position is not in the log (log_changed): the partition would halt",
            "see log_changed in docs/runbook.md; --from earliest samples the records anyway",
        ),
    };
    report.fail(format!("partition {partition}"), found, advice);
}

/// Tries the records one after the other in a transaction that is rolled back.
async fn rehearse(
    config: &Config,
    wanted: Wanted,
    plan: Plan,
    ground: &Ground,
    found: Found,
    report: &mut Report,
) -> Option<Sample> {
    let sink = ground.stored.sink.unwrap_or(NO_SINK);
    let Ok(context) = context(config, plan, sink) else {
        report.fail(
            "sample",
            "metrics cannot be registered",
            "this is a bug of pgsluice; please report it",
        );
        return None;
    };
    let mut settings = SETTINGS.to_owned();
    if let Tables::Creatable { schema_exists } = ground.tables {
        settings += &migrate::script(&config.postgres.schema, schema_exists);
    }
    let begun = match ground.probe.slow().await {
        Ok(connection) => Rehearsal::begin(connection, &context, &settings).await,
        Err(fault) => Err(fault),
    };
    let mut rehearsal = match begun {
        Ok(rehearsal) => rehearsal,
        Err(fault) => {
            refused(&fault, "nothing was tried", report);
            return None;
        }
    };
    let began = Instant::now();
    let mut records = Vec::with_capacity(found.records.len());
    let mut ended = None;
    for Taken { event, route, stream } in found.records {
        let explained = Explained { config, plan: &context.plan, route };
        if ended.is_some() || began.elapsed() > TRANSACTION {
            records.push(line::said(&explained, &event));
            continue;
        }
        let said = line::said(&explained, &event);
        match rehearsal.event(stream, event).await {
            Ok((event, rehearsed)) => {
                records.push(line::tried(&explained, said, &event, rehearsed))
            }
            Err(fault) => {
                records.push(said);
                ended = Some(fault);
            }
        }
    }
    rehearsal.end().await;
    if let Some(fault) = ended {
        refused(&fault, "the rest was not tried", report);
    }
    Some(Sample { from: wanted.from, records })
}

/// What the lanes of the daemon work with; its metrics are nobody's to read.
fn context(config: &Config, plan: Plan, sink: SinkId) -> Result<ApplyContext, MetricsError> {
    let telemetry = Telemetry::try_new(&config.kafka.group)?;
    Ok(ApplyContext::new(config, plan, sink, Instant::now(), telemetry))
}

fn refused(fault: &Fault, what: &str, report: &mut Report) {
    let found = format!("{fault}: {what}");
    super::database::trouble(fault, "sample", found, "the server's log says why", report);
}

/// What the sample says about the whole.
fn judge(sample: &Sample, wanted: Wanted, read: usize, report: &mut Report) {
    if read == 0 {
        let found = match wanted.from {
            From::Next => "no record at or after the position that the sink would read next",
            From::Earliest | From::Latest => "the topics have no records",
        };
        let advice = "produce some, or sample older ones with --from earliest or --from latest";
        return report.warn("sample", found, advice);
    }
    let (_, verdicts) = counted(sample.records.iter().map(|record| record.verdict));
    report.ok("sample", format!("{read} records: {verdicts}"));
    let reasons = |verdicts: &[&str]| {
        let concerned = sample.records.iter().filter(|record| verdicts.contains(&record.verdict));
        counted(concerned.map(|record| record.reason.unwrap_or("no reason")))
    };
    let (letters, why) = reasons(&line::LETTERS);
    if letters > 0 {
        report.warn(
            "sample",
            format!("{letters} of {read} would be dead letters: {why}"),
            "look at each one below and correct decode.fields, the route or the table, unless the \
             record itself is wrong",
        );
    }
    let (halts, why) = reasons(&[line::HALTED]);
    if halts > 0 {
        report.fail(
            "sample",
            format!("{halts} of {read} would halt their partition: {why}"),
            "fix what each of them names below; docs/runbook.md has a section for each reason",
        );
    }
    let (undecided, _) = reasons(&line::UNDECIDED);
    if undecided > 0 {
        report.warn(
            "sample",
            format!("{undecided} of {read} could not be decided now"),
            "another session holds rows that they need, or time ran out; try again, or use a \
             smaller sample",
        );
    }
}

/// How many there are, and how many of each word.
fn counted<'a>(words: impl Iterator<Item = &'a str>) -> (usize, String) {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    for word in words {
        *numbers.entry(word).or_default() += 1;
    }
    let texts: Vec<String> = numbers.iter().map(|(word, n)| format!("{word} {n}")).collect();
    (numbers.values().sum(), texts.join(", "))
}
