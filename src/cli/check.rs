//! `pgsluice check`: every problem of the configuration, and with `--connect` of what it names.

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::check::{self, Report};
use crate::config::{Config, ConfigProblems, DEFAULT_TOML, RouteAction, VersionSource};
use crate::supervisor::ExitReason;

use super::{Source, complain, load, print_problems, say};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Prints every setting with its default and a comment, and checks nothing
    #[arg(long)]
    defaults: bool,
    /// Looks at brokers, topics, group, server, tables and grants too; changes nothing
    #[arg(long)]
    connect: bool,
    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORM", default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Lines for people
    Table,
    /// One JSON object
    Json,
}

pub(super) fn check(arguments: &Arguments) -> ExitReason {
    if arguments.defaults {
        say(DEFAULT_TOML.trim_end());
        return ExitReason::Clean;
    }
    let config = match load(&arguments.source) {
        Ok(config) => config,
        Err(problems) => {
            match arguments.output {
                Output::Table => print_problems(&problems),
                Output::Json => say(&problems_json(&problems).to_string()),
            }
            return ExitReason::Configuration;
        }
    };
    let notes = notes(&config);
    let report = match arguments.connect.then(|| connect(&config)) {
        None => Report::default(),
        Some(Some(report)) => report,
        Some(None) => return ExitReason::Bug,
    };
    match arguments.output {
        Output::Table => {
            for note in &notes {
                say(&format!("note: {note}"));
            }
            say("configuration ok");
            if arguments.connect {
                say(&report.to_string());
            }
        }
        Output::Json => say(&json!({
            "problems": [],
            "notes": notes,
            "findings": report.findings(),
        })
        .to_string()),
    }
    report.exit()
}

fn connect(config: &Config) -> Option<Report> {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => Some(runtime.block_on(Box::pin(check::check(config)))),
        Err(error) => {
            complain(&format!("no runtime: {}", error.kind()));
            None
        }
    }
}

fn problems_json(problems: &ConfigProblems) -> serde_json::Value {
    let problem = |problem: &crate::config::ConfigProblem| {
        json!({
            "key": problem.key,
            "place": problem.place.as_ref().map(ToString::to_string),
            "message": problem.message,
        })
    };
    json!({ "problems": problems.0.iter().map(problem).collect::<Vec<_>>() })
}

/// What is allowed but may surprise.
fn notes(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    if config.decode.version == VersionSource::None {
        notes.push(
            "events carry no version: where an aggregate's events stand in several partitions, \
             the last to arrive wins"
                .to_owned(),
        );
    }
    let unreachable = config.routes.iter().position(|route| {
        route.topic.is_empty() && route.aggregate_type.is_empty() && route.event_type.is_empty()
    });
    if let Some(position) = unreachable
        && position + 1 < config.routes.len()
    {
        notes.push(format!(
            "route[{position}] matches every event: the routes after it are never reached"
        ));
    }
    for (position, route) in config.routes.iter().enumerate() {
        if let RouteAction::Upsert { table, .. } | RouteAction::Delete { table, .. } = &route.action
            && table.schema.is_none()
        {
            notes.push(format!(
                "route[{position}] names a table without its schema: the role's search_path \
                 decides which one is meant"
            ));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn config(file: &str) -> Config {
        let path = tempfile::NamedTempFile::new().expect("temporary file");
        let required = "[kafka]\nbrokers = 'b:9092'\ngroup = 'g'\ntopics = 't'\n[postgres]\n\
                        url = 'postgres://a@b/c'\n";
        std::fs::write(&path, format!("{required}{file}")).expect("temporary file");
        config::load(Some(path.path()), std::iter::empty()).expect("valid")
    }

    #[test]
    fn unversioned_events_are_noted_and_versioned_ones_are_not() {
        assert_eq!(notes(&config("")).len(), 1);
        assert!(notes(&config("[decode]\nformat = 'envelope'\n")).is_empty());
    }

    #[test]
    fn a_route_behind_one_that_matches_everything_is_noted() {
        let file = "[decode]\nformat = 'envelope'\n[[route]]\nskip = true\n[[route]]\n\
                    topic = 't'\ndocument = {}\n";
        let notes = notes(&config(file));
        assert!(notes[0].starts_with("route[0] matches every event"), "{notes:?}");
    }
}
