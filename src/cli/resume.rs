//! `pgsluice resume`: the brakes that hold, and an operator's word that the events are really bad.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::config::{Config, DEFAULT_ROUTE, parse_duration};
use crate::exit::ExitReason;
use crate::postgres::{OpenError, Probe};
use crate::sql::name::Schema;
use crate::store::brake::{BrakeKind, Standing, accept, standing};
use pgsluice_core::fault::Fault;

use super::check::Output;
use super::{Source, complain, say, with_config};

/// The longest time for which a brake can be lifted.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Accepts events that would be dead-lettered as really bad: the brake dead_letter.flood does
    /// not trip for a while
    #[arg(long)]
    accept_dead_letters: bool,
    /// Accepts stale events as really old: the brake dead_letter.stale_flood does not trip for a
    /// while
    #[arg(long)]
    accept_stale: bool,
    /// For how long to accept them, at most 30d
    #[arg(long = "for", value_name = "DURATION", default_value = "1h", value_parser = lasting)]
    lasting: Duration,
    /// Accepts only events of the route with this name; without it, of all routes
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORM", default_value = "table")]
    output: Output,
}

fn lasting(text: &str) -> Result<Duration, String> {
    let lasting = parse_duration(text)?;
    if (Duration::from_secs(1)..=LONGEST).contains(&lasting) {
        Ok(lasting)
    } else {
        Err("expected 1s to 30d".to_owned())
    }
}

/// What was found and done.
#[derive(Debug)]
struct Outcome {
    brakes: Vec<Standing>,
    /// Kind, route (empty for all) and until when.
    accepted: Vec<(BrakeKind, String, String)>,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("database: {0}")]
    Open(OpenError),
    #[error("database: {0}{hint}", hint = missing_tables(.0))]
    Database(Fault),
    #[error("group {0:?} has not read anything yet; check kafka.group and postgres.schema")]
    UnknownSink(String),
    #[error("there is no route {0:?}; the configuration has {1}")]
    UnknownRoute(String, String),
}

/// What to do about a table or schema that is not there; nothing about another fault.
fn missing_tables(fault: &Fault) -> &'static str {
    match fault.sqlstate() {
        Some(state) if matches!(state.as_str(), "42P01" | "3F000") => {
            "; `pgsluice migrate` creates the missing tables"
        }
        _ => "",
    }
}

pub(super) fn resume(arguments: &Arguments) -> ExitReason {
    with_config(&arguments.source, |config| {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                complain(&format!("cannot start a runtime: {}", error.kind()));
                return ExitReason::Bug;
            }
        };
        match runtime.block_on(Box::pin(carry_out(arguments, &config))) {
            Ok(outcome) => {
                match arguments.output {
                    Output::Table => say(&table(&config.kafka.group, &outcome)),
                    Output::Json => say(&as_json(&config.kafka.group, &outcome).to_string()),
                }
                ExitReason::Clean
            }
            Err(refused) => {
                complain(&refused.to_string());
                match refused {
                    Refused::Open(OpenError::Database(_)) | Refused::Database(_) => {
                        ExitReason::DependencyUnavailable
                    }
                    Refused::Open(_) | Refused::UnknownSink(_) | Refused::UnknownRoute(..) => {
                        ExitReason::Configuration
                    }
                }
            }
        }
    })
}

async fn carry_out(arguments: &Arguments, config: &Config) -> Result<Outcome, Refused> {
    let route = arguments.route.as_deref();
    if let Some(route) = route {
        known_route(config, route)?;
    }
    let probe = Probe::open(config).await.map_err(Refused::Open)?;
    let schema = Schema::new(&config.postgres.schema);
    let sink = &config.kafka.group;
    let brakes = standing(probe.client(), &schema, sink).await.map_err(Refused::Database)?;
    let brakes = brakes.ok_or_else(|| Refused::UnknownSink(sink.clone()))?;
    let asked = [
        (arguments.accept_dead_letters, BrakeKind::DeadLetters),
        (arguments.accept_stale, BrakeKind::Stale),
    ];
    let mut accepted = Vec::new();
    for (_, kind) in asked.into_iter().filter(|(asked, _)| *asked) {
        let until = accept(probe.client(), &schema, sink, (kind, route), arguments.lasting);
        let until = until.await.map_err(Refused::Database)?;
        accepted.push((kind, route.unwrap_or_default().to_owned(), until));
    }
    Ok(Outcome { brakes, accepted })
}

/// Refuses a name that no route has: an acceptance of it would mean nothing.
fn known_route(config: &Config, name: &str) -> Result<(), Refused> {
    let mut names: Vec<&str> = config.routes.iter().map(|route| route.name.as_str()).collect();
    if names.is_empty() {
        names.push(DEFAULT_ROUTE);
    }
    if names.contains(&name) {
        return Ok(());
    }
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    Err(Refused::UnknownRoute(name.to_owned(), quoted.join(", ")))
}

fn table(sink: &str, outcome: &Outcome) -> String {
    let mut lines = vec![match outcome.brakes.len() {
        0 => format!("{sink} has no active brake"),
        1 => format!("{sink} has 1 active brake"),
        count => format!("{sink} has {count} active brakes"),
    }];
    for brake in &outcome.brakes {
        let Standing { topic, partition, offset, kind, route, counted, tripped_at } = brake;
        let route = if route.is_empty() { "no route" } else { route };
        lines.push(format!(
            "  {topic}/{partition} at offset {offset}: {kind}, {route}, {counted} counted, since \
             {tripped_at}"
        ));
    }
    for (kind, route, until) in &outcome.accepted {
        let route = if route.is_empty() { "every route" } else { route };
        lines.push(format!(
            "{} of {route} accepted until {until}; halted partitions resume within a minute",
            kind.as_str()
        ));
    }
    if outcome.accepted.is_empty() && !outcome.brakes.is_empty() {
        lines.push(
            "nothing was changed: fix the cause, or pass --accept-dead-letters or --accept-stale"
                .to_owned(),
        );
    }
    lines.join("\n")
}

fn as_json(sink: &str, outcome: &Outcome) -> serde_json::Value {
    let accepted = outcome.accepted.iter().map(
        |(kind, route, until)| json!({ "kind": kind.as_str(), "route": route, "until": until }),
    );
    json!({
        "sink": sink,
        "brakes": outcome.brakes,
        "accepted": accepted.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgsluice_core::fault::{FaultKind, SqlState};

    #[test]
    fn the_table_names_the_brakes_and_says_what_to_do() {
        let brake = Standing {
            topic: "orders".into(),
            partition: 3,
            offset: 120,
            kind: "dead_letters".into(),
            route: "customers".into(),
            counted: 21,
            tripped_at: "2026-11-21T10:00:00Z".into(),
        };
        let mut outcome = Outcome { brakes: vec![brake], accepted: Vec::new() };
        let text = table("views", &outcome);
        assert!(
            text.starts_with("views has 1 active brake\n  orders/3 at offset 120: dead_letters")
        );
        assert!(text.ends_with("--accept-dead-letters or --accept-stale"), "{text}");
        let until = "2026-11-21T11:00:00Z".to_owned();
        outcome.accepted.push((BrakeKind::DeadLetters, String::new(), until));
        let text = table("views", &outcome);
        assert!(text.contains("\ndead_letters of every route accepted until 2026-11-21T11:00:00Z"));
        assert!(!text.contains("nothing was changed"), "{text}");
    }

    #[test]
    fn migrating_is_advised_only_where_tables_are_missing() {
        let told = |code| {
            let code = SqlState::parse(code).expect("a code");
            Refused::Database(Fault::new(FaultKind::Server(code))).to_string()
        };
        assert!(told("42P01").contains("pgsluice migrate"), "{}", told("42P01"));
        assert!(told("3F000").contains("pgsluice migrate"), "{}", told("3F000"));
        assert!(!told("25006").contains("pgsluice migrate"), "{}", told("25006"));
        let lost = Refused::Database(Fault::new(FaultKind::Connection)).to_string();
        assert_eq!(lost, "database: connection lost");
    }

    #[test]
    fn acceptance_lasts_a_second_to_a_month() {
        assert_eq!(lasting("90m"), Ok(Duration::from_secs(5400)));
        assert!(lasting("0s").is_err());
        assert!(lasting("31d").is_err());
        assert!(lasting("soon").is_err());
    }
}
