//! Sources of settings: a TOML text and environment variables, both as `config` values that
//! remember where they were written. The `config` crate layers them; its own file source knows
//! the file but not the line, which is why the text is parsed here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::{ConfigError, Map, Source, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What every environment variable of ours starts with: two underscores, so that variables which
/// Kubernetes injects for a service named `pgsluice` never collide.
pub(in crate::config) const ENV_PREFIX: &str = "PGSLUICE__";

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// An environment variable.
    Env(String),
}

impl Place {
    /// Line in the file; variables come after every line.
    pub(in crate::config) fn line(&self) -> usize {
        match self {
            Self::File { line, .. } => *line,
            Self::Env(_) => usize::MAX,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => f.write_str(name),
        }
    }
}

/// The form in which a value carries its place: `config` keeps one text with each value.
fn line_origin(line: usize) -> String {
    format!("line {line}")
}

/// Reads the place back from a value; `None` for a built-in default. A table that was merged from
/// several layers has lost its own place: the first of its settings stands for it.
pub(in crate::config) fn place_of(value: &Value, file: Option<&Path>) -> Option<Place> {
    let Some(origin) = value.origin() else {
        let ValueKind::Table(table) = &value.kind else { return None };
        let mut places: Vec<_> =
            table.values().filter_map(|setting| place_of(setting, file)).collect();
        places.sort_by_key(Place::line);
        return places.into_iter().next();
    };
    match (origin.strip_prefix("line "), file) {
        (Some(line), Some(path)) => {
            Some(Place::File { path: path.to_owned(), line: line.parse().ok()? })
        }
        (Some(_), None) => None,
        (None, _) => Some(Place::Env(origin.to_owned())),
    }
}

/// Whether a value came from an environment variable, where everything is text and lists are
/// separated by commas.
pub(in crate::config) fn is_env(value: &Value) -> bool {
    value.origin().is_some_and(|origin| origin.starts_with(ENV_PREFIX))
}

/// A TOML text that cannot be read at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct SyntaxError {
    /// Line, from 1.
    pub line: usize,
    /// What the parser expected. Never the text itself, which may hold a secret.
    pub message: String,
}

/// One layer of settings, ready for the `config` crate.
#[derive(Debug, Clone)]
pub(in crate::config) struct Layer(Arc<Map<String, Value>>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok((*self.0).clone())
    }
}

impl Layer {
    /// The built-in defaults: like a file, but its values have no place an operator could edit.
    pub(in crate::config) fn from_defaults(text: &str) -> Result<Self, Vec<SyntaxError>> {
        parse_toml(text, false)
    }

    /// The names of its sections.
    pub(in crate::config) fn sections(&self) -> Vec<String> {
        let table = |value: &Value| matches!(value.kind, ValueKind::Table(_));
        self.0.iter().filter(|(_, value)| table(value)).map(|(name, _)| name.clone()).collect()
    }

    /// The text of a configuration file; every value remembers its line.
    ///
    /// # Errors
    /// All places where the text is not TOML.
    pub(in crate::config) fn from_file_text(text: &str) -> Result<Self, Vec<SyntaxError>> {
        parse_toml(text, true)
    }

    /// The variables that start with [`ENV_PREFIX`]. Under `kafka.properties` an underscore
    /// stands for the dot of librdkafka's names.
    pub(in crate::config) fn from_env(variables: impl Iterator<Item = (String, String)>) -> Self {
        let mut root = Node::default();
        for (name, text) in variables {
            let Some(path) = name.strip_prefix(ENV_PREFIX) else { continue };
            let mut segments: Vec<String> =
                path.split("__").map(|segment| segment.to_ascii_lowercase()).collect();
            if let [section, table, property] = segments.as_mut_slice()
                && section == "kafka"
                && table == "properties"
            {
                *property = property.replace('_', ".");
            }
            root.insert(&segments, Value::new(Some(&name), ValueKind::String(text)));
        }
        Self(Arc::new(root.into_tables()))
    }
}

/// The variable that was meant by one whose name lacks an underscore, e.g. `PGSLUICE_KAFKA__GROUP`.
/// `None` for one that is none of ours, or may come from Kubernetes or Docker for another service.
pub(in crate::config) fn variable_meant(name: &str, sections: &[String]) -> Option<String> {
    let rest = name.strip_prefix(ENV_PREFIX.trim_end_matches('_'))?.strip_prefix('_')?;
    sections.iter().find_map(|section| {
        let section = section.to_ascii_uppercase();
        let key = rest.strip_prefix(section.as_str())?.strip_prefix('_')?;
        let injected = key == "PORT" || key.starts_with("PORT_") || key.starts_with("SERVICE_");
        (!injected).then(|| format!("{ENV_PREFIX}{section}__{}", key.trim_start_matches('_')))
    })
}

/// Environment variables sorted into their sections.
#[derive(Default)]
struct Node {
    leaves: BTreeMap<String, Value>,
    tables: BTreeMap<String, Node>,
}

impl Node {
    fn insert(&mut self, path: &[String], value: Value) {
        match path {
            [] => {}
            [key] => {
                self.leaves.insert(key.clone(), value);
            }
            [table, rest @ ..] => {
                self.tables.entry(table.clone()).or_default().insert(rest, value);
            }
        }
    }

    fn into_tables(self) -> Map<String, Value> {
        let tables = self
            .tables
            .into_iter()
            .map(|(key, node)| (key, Value::new(None, ValueKind::Table(node.into_tables()))));
        // A variable that names a whole section stays visible beside the section's own variables:
        // it replaces the table, and reading the section then names it as the problem.
        tables.chain(self.leaves).collect()
    }
}

fn parse_toml(text: &str, with_lines: bool) -> Result<Layer, Vec<SyntaxError>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors
            .into_iter()
            .map(|error| SyntaxError {
                line: line_at(text, error.span().map_or(0, |span| span.start)),
                message: error.message().to_owned(),
            })
            .collect());
    }
    let lines = Lines { text, with_lines };
    Ok(Layer(Arc::new(lines.table(document.get_ref()))))
}

fn line_at(text: &str, position: usize) -> usize {
    text.bytes().take(position).filter(|byte| *byte == b'\n').count() + 1
}

/// Turns a parsed document into values that know their line.
struct Lines<'a> {
    text: &'a str,
    with_lines: bool,
}

impl Lines<'_> {
    fn table(&self, table: &DeTable<'_>) -> Map<String, Value> {
        table
            .iter()
            .map(|(key, value)| {
                (key.get_ref().to_string(), self.value(value, Some(key.span().start)))
            })
            .collect()
    }

    /// `key` is where the value's key stands; a table of its own has no better place.
    fn value(&self, value: &Spanned<DeValue<'_>>, key: Option<usize>) -> Value {
        let position = key.unwrap_or(value.span().start);
        let origin = self.with_lines.then(|| line_origin(line_at(self.text, position)));
        let kind = match value.get_ref() {
            DeValue::String(text) => ValueKind::String(text.to_string()),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => ValueKind::I64(number),
                    // Too large for any setting: as text it fails the reader's own check.
                    Err(_) => ValueKind::String(number.as_str().to_owned()),
                }
            }
            DeValue::Float(number) => {
                number.as_str().parse().map_or(ValueKind::Nil, ValueKind::Float)
            }
            DeValue::Boolean(flag) => ValueKind::Boolean(*flag),
            DeValue::Datetime(time) => ValueKind::String(time.to_string()),
            DeValue::Array(items) => {
                ValueKind::Array(items.iter().map(|item| self.value(item, None)).collect())
            }
            DeValue::Table(table) => ValueKind::Table(self.table(table)),
        };
        Value::new(origin.as_ref(), kind)
    }
}
