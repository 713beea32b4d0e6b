//! Reads settings one by one from the layered tables, and collects every problem on the way.
//!
//! A reader that finds a problem notes it and goes on with a stand-in value: the configuration is
//! thrown away once there is a single problem, so the stand-in is never used. The keys a section
//! asks for are its known keys; whatever else stands in it is reported with the nearest of them.

use std::ops::RangeInclusive;
use std::time::Duration;

use config::{Map, Value, ValueKind};

use super::layer::{ENV_PREFIX, Place, is_env, place_of};
use super::near::{nearest, suggestion};
use super::problem::Collector;
use super::units::{Bytes, parse_duration};

/// One table of the configuration while it is read.
#[derive(Debug)]
pub(in crate::config) struct Section<'a> {
    path: String,
    value: Option<&'a Value>,
    table: Option<&'a Map<String, Value>>,
    asked: Vec<&'static str>,
    collector: &'a Collector,
}

impl<'a> Section<'a> {
    /// The table `value` stands for; something else than a table is a problem.
    pub(in crate::config) fn new(
        path: String,
        value: Option<&'a Value>,
        collector: &'a Collector,
    ) -> Self {
        let table = match value.map(|value| &value.kind) {
            Some(ValueKind::Table(table)) => Some(table),
            Some(_) => {
                collector.note(path.clone(), value, "expected a table of settings".to_owned());
                None
            }
            None => None,
        };
        Self { path, value, table, asked: Vec::new(), collector }
    }

    /// Full name of a key of this table.
    pub(in crate::config) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Notes a problem with a key of this table. One that is not there is placed where the table
    /// itself was written, if that is known.
    pub(in crate::config) fn problem(&self, key: &str, message: impl Into<String>) {
        self.collector.note(self.path_of(key), self.written(key), message.into());
    }

    fn written(&self, key: &str) -> Option<&'a Value> {
        let written = self.table.and_then(|table| table.get(key));
        written.or(self.value.filter(|value| value.origin().is_some()))
    }

    /// Notes that a key cannot stand together with others, given by their full names. Nothing is
    /// noted where one of them has a problem of its own: its stand-in value proves nothing.
    pub(in crate::config) fn contradiction(
        &self,
        key: &str,
        with: &[&str],
        message: impl Into<String>,
    ) {
        let path = self.path_of(key);
        if !self.collector.any_unread(|key| key == path || with.contains(&key)) {
            self.collector.add(path, self.written(key), message.into());
        }
    }

    /// Whether a problem of this table or a key of it was noted.
    pub(in crate::config) fn has_problems(&self) -> bool {
        self.collector.has_problems_of(&self.path)
    }

    /// Notes a problem with this table as a whole.
    pub(in crate::config) fn problem_here(&self, message: impl Into<String>) {
        self.collector.note(self.path.clone(), self.value, message.into());
    }

    /// The value of a key, and the note that the key is known.
    pub(in crate::config) fn raw(&mut self, key: &'static str) -> Option<&'a Value> {
        self.asked.push(key);
        self.table?.get(key).filter(|value| !matches!(value.kind, ValueKind::Nil))
    }

    /// Whether a key is set at all.
    pub(in crate::config) fn has(&mut self, key: &'static str) -> bool {
        self.raw(key).is_some()
    }

    /// Something else stands in the table's place, which is noted: that it lacks keys is no news.
    fn is_no_table(&self) -> bool {
        self.value.is_some() && self.table.is_none()
    }

    /// Notes that a required key is missing, and how it can be given.
    pub(in crate::config) fn missing(&self, key: &str) {
        if self.is_no_table() {
            return;
        }
        // Routes are lists of tables, which variables cannot express.
        if self.path.starts_with("route[") {
            self.problem(key, "is missing");
        } else {
            let variable = variable(&self.path_of(key));
            self.problem(key, format!("is missing; set it in the file or as {variable}"));
        }
    }

    /// The same for a key in whose place a file may be named.
    pub(in crate::config) fn missing_with_file(&self, key: &str) {
        if self.is_no_table() {
            return;
        }
        let path = self.path_of(key);
        self.problem(
            key,
            format!(
                "is missing; set it in the file or as {}, or name a file that holds it: {path}_file",
                variable(&path)
            ),
        );
    }

    /// A key that exists in the contract but not in this version.
    pub(in crate::config) fn not_yet(&mut self, key: &'static str, what: &str) {
        if self.has(key) {
            self.problem(key, format!("this version does not support {what}; remove the key"));
        }
    }

    /// A text, if it is there.
    pub(in crate::config) fn optional_text(&mut self, key: &'static str) -> Option<String> {
        let value = self.raw(key)?;
        match &value.kind {
            ValueKind::String(text) => Some(text.clone()),
            _ => {
                self.problem(key, "expected a string in quotes");
                None
            }
        }
    }

    /// A text that must be there and not be empty.
    pub(in crate::config) fn text(&mut self, key: &'static str) -> String {
        match self.optional_text(key) {
            Some(text) if text.trim().is_empty() => {
                self.problem(key, "must not be empty");
                text
            }
            Some(text) if text.trim() != text => {
                self.problem(key, "has leading or trailing spaces or line breaks");
                text.trim().to_owned()
            }
            Some(text) => text,
            None => {
                if !self.has(key) {
                    self.missing(key);
                }
                String::new()
            }
        }
    }

    /// A text or a list of texts; nothing at all is the empty list.
    pub(in crate::config) fn list(&mut self, key: &'static str) -> Vec<String> {
        let Some(value) = self.raw(key) else { return Vec::new() };
        texts(value).unwrap_or_else(|| {
            self.problem(key, "expected a string or a list of strings");
            Vec::new()
        })
    }

    /// A whole number within bounds.
    pub(in crate::config) fn whole(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<i64>,
    ) -> i64 {
        let Some(value) = self.raw(key) else {
            self.missing(key);
            return *bounds.start();
        };
        let number = match &value.kind {
            ValueKind::I64(number) => Some(*number),
            ValueKind::String(text) if is_env(value) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(number) if bounds.contains(&number) => number,
            Some(_) | None => {
                let (from, to) = bounds.clone().into_inner();
                let quoted = matches!(value.kind, ValueKind::String(_)) && !is_env(value);
                let form = if quoted { ", without quotes" } else { "" };
                self.problem(key, format!("expected a whole number from {from} to {to}{form}"));
                from
            }
        }
    }

    /// A share of a whole: a number from 0 to 1.
    pub(in crate::config) fn share(&mut self, key: &'static str) -> f64 {
        let Some(value) = self.raw(key) else {
            self.missing(key);
            return 0.0;
        };
        let number = match &value.kind {
            ValueKind::Float(number) => Some(*number),
            ValueKind::I64(0) => Some(0.0),
            ValueKind::I64(1) => Some(1.0),
            ValueKind::String(text) if is_env(value) => text.trim().parse().ok(),
            _ => None,
        };
        number.filter(|share| (0.0..=1.0).contains(share)).unwrap_or_else(|| {
            self.problem(key, "expected a share from 0.0 to 1.0");
            0.0
        })
    }

    /// A count that fits memory, from 1 unless the bounds say otherwise.
    pub(in crate::config) fn count(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<u32>,
    ) -> usize {
        let (from, to) = bounds.into_inner();
        usize::try_from(self.whole(key, i64::from(from)..=i64::from(to))).unwrap_or(usize::MAX)
    }

    /// Yes or no; `default` where the key is absent.
    pub(in crate::config) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        let Some(value) = self.raw(key) else { return default };
        match &value.kind {
            ValueKind::Boolean(flag) => *flag,
            ValueKind::String(text) if is_env(value) && text == "true" => true,
            ValueKind::String(text) if is_env(value) && text == "false" => false,
            _ => {
                self.problem(key, "expected true or false, without quotes");
                default
            }
        }
    }

    /// A size with its unit, within bounds.
    pub(in crate::config) fn size(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<Bytes>,
    ) -> Bytes {
        let from = *bounds.start();
        self.parsed(key, Bytes::parse, from, |size| {
            let told = || format!("expected {} to {}", bounds.start(), bounds.end());
            (!bounds.contains(size)).then(told)
        })
    }

    /// A duration with its unit, within bounds.
    pub(in crate::config) fn duration(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<Duration>,
    ) -> Duration {
        self.parsed(key, parse_duration, *bounds.start(), |duration| {
            if bounds.contains(duration) {
                return None;
            }
            let [from, to] = [*bounds.start(), *bounds.end()].map(humantime::format_duration);
            Some(format!("expected {from} to {to}"))
        })
    }

    /// A text that must parse; `check` may still refuse the result.
    fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        stand_in: T,
        check: impl FnOnce(&T) -> Option<String>,
    ) -> T {
        let Some(value) = self.raw(key) else {
            self.missing(key);
            return stand_in;
        };
        let text = match &value.kind {
            ValueKind::String(text) => text.as_str(),
            // A bare number lacks its unit: the parser's sentence says so.
            _ => "",
        };
        let parsed = parse(text).and_then(|parsed| match check(&parsed) {
            None => Ok(parsed),
            Some(message) => Err(message),
        });
        parsed.unwrap_or_else(|message| {
            self.problem(key, message);
            stand_in
        })
    }

    /// One of several words, if the key is set. `later` holds words that are documented but that
    /// this version does not have.
    pub(in crate::config) fn optional_choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        later: &[&str],
    ) -> Option<T> {
        let text = self.optional_text(key)?;
        let found = choices.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let expected = words.join(" | ");
            if later.contains(&text.as_str()) {
                let message = format!("this version does not support \"{text}\", only {expected}");
                self.problem(key, message);
            } else {
                self.problem(key, format!("expected {expected}{}", suggestion(&text, &words)));
            }
        }
        found.map(|(_, choice)| *choice)
    }

    /// One of several words; absent is a problem. The stand-in is the first word's choice.
    pub(in crate::config) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        later: &[&str],
    ) -> T {
        if !self.has(key) {
            self.missing(key);
        }
        self.optional_choice(key, choices, later).unwrap_or(choices[0].1)
    }

    /// A table inside this one; absent reads as empty.
    pub(in crate::config) fn table(&mut self, key: &'static str) -> Section<'a> {
        let value = self.raw(key);
        Section::new(self.path_of(key), value, self.collector)
    }

    /// The tables of a list of tables, e.g. `[[route]]`.
    pub(in crate::config) fn tables(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.raw(key) else { return Vec::new() };
        let ValueKind::Array(items) = &value.kind else {
            let message = if matches!(place_of(value, None), Some(Place::Env(_))) {
                "cannot be set by a variable; set it in a file".to_owned()
            } else {
                format!("expected a list of tables: write [[{key}]], with two brackets")
            };
            self.problem(key, message);
            return Vec::new();
        };
        let section =
            |(index, item)| Section::new(format!("{key}[{index}]"), Some(item), self.collector);
        items.iter().enumerate().map(section).collect()
    }

    /// All entries of a table whose keys the user chooses, sorted by key.
    pub(in crate::config) fn entries(&self) -> Vec<(&'a str, &'a Value)> {
        let Some(table) = self.table else { return Vec::new() };
        let mut entries: Vec<_> = table.iter().map(|(key, value)| (key.as_str(), value)).collect();
        entries.sort_by_key(|(key, _)| *key);
        entries
    }

    /// Reports every key that nobody asked for.
    pub(in crate::config) fn finish(self) {
        for (key, value) in self.entries() {
            if self.asked.contains(&key) {
                continue;
            }
            let what = if matches!(value.kind, ValueKind::Table(_)) { "section" } else { "key" };
            let near = if is_env(value) {
                self.variable_meant(key)
            } else {
                nearest(key, &self.asked).map(|near| format!("\"{near}\""))
            };
            let near = near.map_or_else(|| self.known(), |near| format!(", did you mean {near}?"));
            self.problem(key, format!("unknown {what}{near}"));
        }
    }

    /// The keys that there are, where none is near.
    fn known(&self) -> String {
        let mut keys = self.asked.clone();
        keys.sort_unstable();
        keys.dedup();
        format!("; known keys are {}", keys.join(", "))
    }

    /// The variable that was meant by one whose key is not known here.
    fn variable_meant(&self, key: &str) -> Option<String> {
        // One underscore where two belong: the section became a part of the key.
        let section = self.asked.iter().find_map(|known| Some((known, key.strip_prefix(known)?)));
        if let Some((section, rest)) = section
            && let Some(rest) = rest.strip_prefix('_')
        {
            return Some(variable(&self.path_of(&format!("{section}.{rest}"))));
        }
        nearest(key, &self.asked).map(|near| variable(&self.path_of(near)))
    }
}

/// The variable that stands for a key, given by its full name.
fn variable(path: &str) -> String {
    format!("{ENV_PREFIX}{}", path.to_uppercase().replace('.', "__"))
}

/// A text or a list of texts; `None` for anything else. Variables separate by commas.
pub(in crate::config) fn texts(value: &Value) -> Option<Vec<String>> {
    match &value.kind {
        ValueKind::String(text) if is_env(value) => Some(
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(str::to_owned)
                .collect(),
        ),
        ValueKind::String(text) => Some(vec![text.clone()]),
        ValueKind::Array(items) => items
            .iter()
            .map(|item| match &item.kind {
                ValueKind::String(text) => Some(text.clone()),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}
