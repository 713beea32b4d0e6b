//! Layers the sources and reads every section; all problems come back together.

mod contradiction;
pub(in crate::config) mod file;
pub(in crate::config) mod layer;
pub(in crate::config) mod near;
pub(in crate::config) mod problem;
pub(in crate::config) mod reader;
pub(in crate::config) mod units;

use std::ffi::OsString;
use std::path::Path;

use crate::config::section::route;
use crate::config::{
    AdminConfig, BatchConfig, ClientLibrary, Config, DeadLetterConfig, DecodeConfig, GroupConfig,
    KafkaConfig, LimitsConfig, LogConfig, NotificationConfig, OnUnmatched, PostgresConfig,
    RetryConfig, ShutdownConfig,
};
use file::cannot_read;
use layer::{ENV_PREFIX, Layer, Place, SyntaxError, variable_meant};
use problem::{Collector, ConfigProblem, ConfigProblems};
use reader::Section;

/// Every key with its default and a comment: the manual, and the first layer.
pub const DEFAULT_TOML: &str = include_str!("../../../config/default.toml");

/// Loads the configuration: the defaults, then the file if there is one, then the variables that
/// start with `PGSLUICE__`. Lists in variables are separated by commas.
///
/// `library` judges `[kafka.properties]`. Needs no network. Reads the files that secrets are given by, to prove that they can be read.
///
/// # Errors
/// Every problem found, each with its key and the line or variable it comes from.
pub fn load(
    path: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    library: &dyn ClientLibrary,
) -> Result<Config, ConfigProblems> {
    let Some(path) = path else { return load_text(None, env, library) };
    let text = std::fs::read_to_string(path).map_err(|error| {
        let message = cannot_read(path, &error);
        ConfigProblems(vec![ConfigProblem { key: String::new(), place: None, message }])
    })?;
    load_text(Some((path, &text)), env, library)
}

/// [`load`] with the file's path and text in hand.
pub(crate) fn load_text(
    file: Option<(&Path, &str)>,
    env: impl Iterator<Item = (String, String)>,
    library: &dyn ClientLibrary,
) -> Result<Config, ConfigProblems> {
    let defaults = Layer::from_defaults(DEFAULT_TOML).map_err(|errors| syntax(None, errors))?;
    let sections = defaults.sections();
    let mut builder = config::Config::builder().add_source(defaults);
    if let Some((path, text)) = file {
        builder = builder
            .add_source(Layer::from_file_text(text).map_err(|errors| syntax(Some(path), errors))?);
    }
    let variables: Vec<(String, String)> = env.collect();
    let strays = strays(&sections, &variables);
    let env = variables.into_iter();
    let layered = builder.add_source(Layer::from_env(env)).build().map_err(|error| {
        // Our layers never fail to collect; a text here would be the crate's own.
        let message = format!("cannot merge the settings: {error}");
        ConfigProblems(vec![ConfigProblem { key: String::new(), place: None, message }])
    })?;
    let collector = Collector::new(file.map(|(path, _)| path));
    let config = read(&layered.cache, &collector, library);
    let mut problems = collector.into_problems();
    problems.extend(strays);
    if problems.is_empty() { Ok(config) } else { Err(ConfigProblems(problems)) }
}

/// Environment variables as [`load`] takes them. Somebody else's that are not text are left out.
///
/// # Errors
/// Variables of ours whose value is not text.
pub fn variables(
    all: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, ConfigProblems> {
    let (mut variables, mut problems) = (Vec::new(), Vec::new());
    for (name, value) in all {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) if name.starts_with(ENV_PREFIX) => problems.push(ConfigProblem {
                key: String::new(),
                place: Some(Place::Env(name)),
                message: "is not UTF-8 text".to_owned(),
            }),
            Err(_) => {}
        }
    }
    if problems.is_empty() { Ok(variables) } else { Err(ConfigProblems(problems)) }
}

/// Variables that can only be misspelled ones of ours: two underscores stand in them, but not where
/// they belong.
fn strays(sections: &[String], variables: &[(String, String)]) -> Vec<ConfigProblem> {
    let stray = |(name, _): &(String, String)| {
        let meant = variable_meant(name, sections).filter(|_| name.contains("__"))?;
        Some(ConfigProblem {
            key: String::new(),
            place: Some(Place::Env(name.clone())),
            message: format!(
                "is ignored: two underscores must follow PGSLUICE, did you mean {meant}?"
            ),
        })
    };
    variables.iter().filter_map(stray).collect()
}

/// Variables that look like ours, are not read, and may be somebody else's: each with the one that
/// may have been meant.
pub fn doubtful_variables(names: impl Iterator<Item = String>) -> Vec<(String, String)> {
    let sections = Layer::from_defaults(DEFAULT_TOML).map_or_else(|_| Vec::new(), |l| l.sections());
    let doubtful = |name: String| Some((variable_meant(&name, &sections)?, name));
    names
        .filter(|name| !name.contains("__"))
        .filter_map(doubtful)
        .map(|(meant, name)| (name, meant))
        .collect()
}

fn syntax(path: Option<&Path>, errors: Vec<SyntaxError>) -> ConfigProblems {
    let problem = |error: SyntaxError| ConfigProblem {
        key: String::new(),
        place: path.map(|path| Place::File { path: path.to_owned(), line: error.line }),
        message: format!("is not TOML: {}", error.message),
    };
    ConfigProblems(errors.into_iter().map(problem).collect())
}

fn read(root: &config::Value, collector: &Collector, library: &dyn ClientLibrary) -> Config {
    let mut root = Section::new(String::new(), Some(root), collector);
    let on_unmatched = [
        ("dead-letter", OnUnmatched::DeadLetter),
        ("skip", OnUnmatched::Skip),
        ("halt", OnUnmatched::Halt),
    ];
    let decode = DecodeConfig::read(root.table("decode"));
    let routes = route::read_routes(root.tables("route"), decode.format);
    let config = Config {
        on_unmatched: root.choice("on_unmatched", &on_unmatched, &[]),
        kafka: KafkaConfig::read(root.table("kafka"), library),
        batch: BatchConfig::read(root.table("batch")),
        limits: LimitsConfig::read(root.table("limits")),
        decode,
        group: GroupConfig::read(root.table("group")),
        postgres: PostgresConfig::read(root.table("postgres")),
        routes,
        dead_letter: DeadLetterConfig::read(root.table("dead_letter")),
        notification: NotificationConfig::read(root.table("notification")),
        retry: RetryConfig::read(root.table("retry")),
        shutdown: ShutdownConfig::read(root.table("shutdown")),
        admin: AdminConfig::read(root.table("admin")),
        log: LogConfig::read(root.table("log")),
    };
    contradiction::check(&config, &mut root, library);
    root.finish();
    config
}
