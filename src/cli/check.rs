//! `pgsluice check`: every problem of the configuration, and with `--connect` of what it names.

use clap::{Args, ValueEnum};
use regex::Regex;
use serde_json::json;

use crate::check::{self, From, Report, Sample, Wanted};
use crate::config::{
    self, Config, ConfigProblems, DEFAULT_TOML, FieldSource, FieldSources, RouteAction, RouteConfig,
};
use crate::exit::ExitReason;

use pgsluice_core::envelope::EnvelopeField;

use super::{Source, complain, load, print_problems, say};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Prints every setting with its default and a comment, and checks nothing
    #[arg(long)]
    defaults: bool,
    /// Also checks brokers, topics, group, server, tables and grants; changes nothing
    #[arg(long)]
    connect: bool,
    /// Also tries this many real records, in a transaction that is rolled back; implies --connect
    ///
    /// The records are read without joining the group, and no offset is committed. For each record
    /// this shows its position, what it says about itself (types, version and names of fields,
    /// never a value), the route it takes, the verdict with its reason, and what its statement
    /// wrote. Everything runs in one transaction that is rolled back at the end. If pgsluice's own
    /// tables are missing, they are created in that transaction. Triggers run, and what they do in
    /// the database is rolled back; what they do outside it is not, and sequences stay advanced.
    /// The transaction waits at most 100 ms for a lock and holds locks for a few seconds at most. A
    /// record that would be a dead letter is a warning; one that would halt its partition ends with
    /// exit code 2.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    sample: Option<u16>,
    /// Which records to sample from each partition
    #[arg(long, value_enum, value_name = "PLACE", default_value = "next", requires = "sample")]
    from: Place,
    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORM", default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// Lines of text
    Table,
    /// One JSON object
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Place {
    /// The records that the sink would read next
    Next,
    /// The oldest records
    Earliest,
    /// The newest records
    Latest,
}

impl Arguments {
    /// Whether anything but the configuration is looked at.
    fn connects(&self) -> bool {
        self.connect || self.sample.is_some()
    }

    fn wanted(&self) -> Option<Wanted> {
        let from = match self.from {
            Place::Next => From::Next,
            Place::Earliest => From::Earliest,
            Place::Latest => From::Latest,
        };
        self.sample.map(|records| Wanted { records: records.into(), from })
    }
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
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let notes = notes(&config, &config::doubtful_variables(names));
    let looked = arguments.connects().then(|| connect(&config, arguments.wanted()));
    let (report, sample) = match looked {
        None => (Report::default(), None),
        Some(Some(found)) => found,
        Some(None) => return ExitReason::Bug,
    };
    match arguments.output {
        Output::Table => {
            for note in &notes {
                say(&format!("note: {note}"));
            }
            say("configuration ok");
            if arguments.connects() {
                say(&report.to_string());
            }
            if let Some(sample) = sample.as_ref().filter(|sample| !sample.records.is_empty()) {
                say(&format!("\n{sample}"));
            }
        }
        Output::Json => say(&json!({
            "problems": [],
            "notes": notes,
            "findings": report.findings(),
            "sample": sample,
        })
        .to_string()),
    }
    report.exit()
}

fn connect(config: &Config, wanted: Option<Wanted>) -> Option<(Report, Option<Sample>)> {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => Some(runtime.block_on(Box::pin(check::check(config, wanted)))),
        Err(error) => {
            complain(&format!("cannot start a runtime: {}", error.kind()));
            None
        }
    }
}

fn problems_json(problems: &ConfigProblems) -> serde_json::Value {
    let problem = |problem: &config::ConfigProblem| {
        json!({
            "key": problem.key,
            "place": problem.place.as_ref().map(ToString::to_string),
            "message": problem.message,
        })
    };
    json!({ "problems": problems.0.iter().map(problem).collect::<Vec<_>>() })
}

/// What is allowed but may surprise. `doubtful` are variables that are not read, with what may have
/// been meant.
fn notes(config: &Config, doubtful: &[(String, String)]) -> Vec<String> {
    let mut notes: Vec<String> = doubtful
        .iter()
        .map(|(name, meant)| {
            format!("the variable {name} is ignored; if it is meant for pgsluice, use {meant}")
        })
        .collect();
    if let Some(lack) = config.postgres.connect_config().ok().and_then(|target| target.exposed()) {
        notes.push(format!("postgres.url has {lack}; sslmode=verify-full is safe"));
    }
    if !config.decode.is_versioned() {
        notes.push(
            "events have no version: if an aggregate's events are in several partitions, the last \
             to arrive wins"
                .to_owned(),
        );
    }
    let own_ids = !config.decode.fields.of(EnvelopeField::EventId).0.is_empty();
    if config.decode.is_versioned() && !own_ids {
        notes.push(
            "events have a version but no id: an event that its producer sends twice is a dead \
             letter (version_conflict); set decode.fields.event_id to recognize it as a duplicate"
                .to_owned(),
        );
    }
    notes.extend(named_by_order(config));
    for (position, route) in config.routes.iter().enumerate() {
        let name = &route.name;
        if let Some(wider) = shadowing(config, position, route) {
            notes.push(format!(
                "route {name} is never reached: route {} matches everything that it matches, and \
                 the first match wins; put the narrower one first",
                wider.name
            ));
        }
        notes.extend(never_given(config, route));
        for topic in route.topic.iter().filter(|topic| !reads(config, topic)) {
            notes.push(format!(
                "route {name} waits for topic {topic}, which kafka.topics does not read"
            ));
        }
        if route.action.table().is_some_and(|table| table.schema.is_none()) {
            notes.push(format!(
                "route {name} names a table without its schema: the role's search_path decides \
                 which one is used"
            ));
        }
    }
    notes
}

/// Routes whose names another order of the routes would swap. A route that skips leaves nothing
/// behind that could carry its name.
fn named_by_order(config: &Config) -> Option<String> {
    let by_order = |route: &&RouteConfig| route.named_by_order && route.action != RouteAction::Skip;
    let names: Vec<&str> =
        config.routes.iter().filter(by_order).map(|route| route.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "routes without their own name are distinguished only by their order: {}; give each a \
             name, because dead letters, brakes and acceptances are stored under it",
            names.join(", ")
        )
    })
}

/// Types that a route waits for and no record can have, whatever it holds.
fn never_given(config: &Config, route: &RouteConfig) -> Vec<String> {
    let name = &route.name;
    let fields = [
        (
            "aggregate_type",
            &route.aggregate_type,
            config.decode.fields.of(EnvelopeField::AggregateType),
        ),
        ("event_type", &route.event_type, config.decode.fields.of(EnvelopeField::EventType)),
    ];
    let told = |(field, waited, sources): (_, &Vec<String>, _)| {
        let given = possible(config, sources)?;
        let never = !waited.is_empty() && !waited.iter().any(|text| given.contains(text));
        never.then(|| {
            format!(
                "route {name} waits for an {field} that no record has: without \
                 decode.fields.{field} or another decode.format, it is {}",
                given.join(" or ")
            )
        })
    };
    fields.into_iter().filter_map(told).collect()
}

/// Every text that a field can be; `None` where the records decide.
fn possible(config: &Config, sources: &FieldSources) -> Option<Vec<String>> {
    let topics = &config.kafka.topics;
    let mut texts = Vec::new();
    for source in &sources.0 {
        match source {
            FieldSource::Const(text) => texts.push(text.clone()),
            FieldSource::Topic if !topics.iter().any(|topic| topic.starts_with('^')) => {
                texts.extend_from_slice(topics);
            }
            _ => return None,
        }
    }
    Some(texts)
}

/// Whether `kafka.topics` names the topic.
fn reads(config: &Config, topic: &str) -> bool {
    config.kafka.topics.iter().any(|read| {
        read == topic
            || read.starts_with('^') && Regex::new(read).is_ok_and(|read| read.is_match(topic))
    })
}

/// The first route that leaves nothing to a later one.
fn shadowing<'a>(
    config: &'a Config,
    position: usize,
    later: &RouteConfig,
) -> Option<&'a RouteConfig> {
    let wider = |wide: &[String], narrow: &[String]| {
        wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|text| wide.contains(text)))
    };
    // A route without a topic is for those that are read, which are known unless by a pattern.
    let read = &config.kafka.topics;
    let known = !read.iter().any(|topic| topic.starts_with('^'));
    let topics = if later.topic.is_empty() && known { read } else { &later.topic };
    config.routes.iter().take(position).find(|earlier| {
        wider(&earlier.topic, topics)
            && wider(&earlier.aggregate_type, &later.aggregate_type)
            && wider(&earlier.event_type, &later.event_type)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(file: &str) -> Config {
        let path = tempfile::NamedTempFile::new().expect("temporary file");
        let required = "[kafka]\nbrokers = 'b:9092'\ngroup = 'g'\ntopics = 't'\n[postgres]\n\
                        url = 'postgres://a@b/c'\n";
        std::fs::write(&path, format!("{required}{file}")).expect("temporary file");
        config::load(Some(path.path()), std::iter::empty(), &config::AnyProperty).expect("valid")
    }

    #[test]
    fn unversioned_events_are_noted_and_versioned_ones_are_not() {
        assert_eq!(notes(&config(""), &[]).len(), 1);
        assert!(notes(&config("[decode]\nformat = 'envelope'\n"), &[]).is_empty());
    }

    #[test]
    fn a_connection_that_is_not_verified_and_a_variable_that_is_not_read_are_noted() {
        let mut config = config("[decode]\nformat = 'envelope'\n");
        config.postgres.url = "postgres://a@db/c?sslmode=prefer".to_owned().into();
        let meant = [("PGSLUICE_LOG_LEVEL".to_owned(), "PGSLUICE__LOG__LEVEL".to_owned())];
        let notes = notes(&config, &meant);
        assert!(notes[0].contains("PGSLUICE_LOG_LEVEL is ignored"), "{notes:?}");
        assert!(notes[1].contains("sslmode=prefer"), "{notes:?}");
    }

    #[test]
    fn a_route_for_a_topic_that_is_not_read_is_noted() {
        let routes = "[decode]\nformat = 'envelope'\n[[route]]\ntopic = ['t', 'tt']\nskip = true\n";
        let mut config = config(routes);
        assert_eq!(
            notes(&config, &[]),
            ["route skip waits for topic tt, which kafka.topics does not read"]
        );
        config.kafka.topics = vec!["^t+$".to_owned()];
        assert!(notes(&config, &[]).is_empty());
    }

    #[test]
    fn a_type_that_no_record_can_have_is_noted() {
        let told = |more: &str, wanted: &str| {
            let notes = notes(&config(&format!("{more}[[route]]\n{wanted}\nskip = true\n")), &[]);
            notes.into_iter().find(|note| note.contains("that no record has"))
        };
        // Somebody forgot decode.format.
        let note = told("", "aggregate_type = ['Customer', 'Order']").unwrap_or_default();
        assert!(note.starts_with("route skip waits for an aggregate_type"), "{note}");
        assert!(note.ends_with("it is t"), "{note}");
        let note = told("", "event_type = 'CustomerMoved'").unwrap_or_default();
        assert!(note.ends_with("it is record"), "{note}");
        for fine in ["", "aggregate_type = ['t', 'x']", "event_type = 'record'"] {
            assert_eq!(told("", fine), None, "{fine}");
        }
        let fields = "[decode.fields]\nevent_type = ['value:/kind', 'const:x']\n";
        assert_eq!(told(fields, "event_type = 'CustomerMoved'"), None);
        assert_eq!(told("[decode]\nformat = 'envelope'\n", "aggregate_type = 'Customer'"), None);
    }

    #[test]
    fn a_table_without_its_schema_is_noted() {
        let route = |table| {
            format!(
                "[decode]\nformat = 'envelope'\n[[route]]\n[route.delete]\ntable = '{table}'\n\
                 key = {{ id = 'key' }}\n"
            )
        };
        let told = notes(&config(&route("customer")), &[]);
        assert!(
            told[0].starts_with("route delete customer names a table without its schema"),
            "{told:?}"
        );
        assert!(notes(&config(&route("public.customer")), &[]).is_empty());
    }

    #[test]
    fn routes_that_only_their_order_tells_apart_are_noted() {
        let told = |routes: &[&str]| {
            let routes: Vec<String> =
                routes.iter().map(|given| format!("[[route]]\n{given}\n")).collect();
            let notes = notes(&config(&routes.concat()), &[]);
            notes.into_iter().find(|note| note.contains("by their order"))
        };
        let (a, b) = ("event_type = 'a'\ndocument = {}", "event_type = 'b'\ndocument = {}");
        let note = told(&[a, b]).unwrap_or_default();
        assert!(note.contains("by their order: document, document 2; give each a name"), "{note}");
        assert_eq!(told(&[&format!("name = 'as'\n{a}"), b]), None);
        assert_eq!(told(&[a, "event_type = 'c'\nskip = true"]), None);
        // Nothing that is kept carries the name of a route that skips.
        assert_eq!(told(&["event_type = 'c'\nskip = true", "skip = true"]), None);
    }

    #[test]
    fn a_route_that_an_earlier_one_leaves_nothing_to_is_noted() {
        let envelope = "[decode]\nformat = 'envelope'\n";
        let never = |routes: &[&str]| {
            let routes: Vec<String> =
                routes.iter().map(|given| format!("[[route]]\n{given}\nskip = true\n")).collect();
            let notes = notes(&config(&format!("{envelope}{}", routes.concat())), &[]);
            notes.into_iter().find(|note| note.contains("is never reached"))
        };
        let narrow = "aggregate_type = 'A'\nevent_type = 'x'";
        for wide in ["", "topic = 't'", "aggregate_type = 'A'", "event_type = ['x', 'y']", narrow] {
            let note = never(&[wide, narrow]).unwrap_or_default();
            let expected = "route skip 2 is never reached: route skip matches";
            assert!(note.starts_with(expected), "{wide}: {note}");
            assert_eq!(never(&[narrow, wide]).is_some(), wide == narrow, "{wide}");
        }
        assert_eq!(never(&["event_type = 'x'", "event_type = ['x', 'y']"]), None);
    }

    #[test]
    fn a_version_beside_an_id_that_is_only_a_position_is_noted() {
        let conflict = |file: &str| {
            notes(&config(file), &[]).iter().any(|note| note.contains("version_conflict"))
        };
        let versioned = "[decode.fields]\nversion = 'value:/rev'\n";
        assert!(conflict(versioned));
        assert!(!conflict(&format!("{versioned}event_id = 'value:/id'\n")));
        assert!(!conflict("") && !conflict("[decode]\nformat = 'envelope'\n"));
    }
}
