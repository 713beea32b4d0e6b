//! Routes as they are written: which events they match and what they do.

use std::fmt;

use config::{Value, ValueKind};

use crate::config::field_source::FieldSources;
use crate::config::load::reader::Section;
use crate::config::section::decode::Format;
use crate::config::section::kafka::is_topic_name;
use crate::config::section::postgres::is_identifier;
use crate::config::section::route_name;

/// What happens to an event that no route matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnUnmatched {
    /// It is dead-lettered alone, reason `unmatched`.
    DeadLetter,
    /// It ends as SKIPPED.
    Skip,
    /// Its partition halts, reason `unmatched_halt`.
    Halt,
}

/// One route. Every condition given must match; an empty list matches everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConfig {
    /// Its name, given or made of what it does; no other route has it.
    pub name: String,
    /// The name was not given, and another order of the routes could give it to another one.
    pub named_by_order: bool,
    /// Topics.
    pub topic: Vec<String>,
    /// Aggregate types.
    pub aggregate_type: Vec<String>,
    /// Event types.
    pub event_type: Vec<String>,
    /// What the route does.
    pub action: RouteAction,
}

/// What a route does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteAction {
    /// Nothing: the event ends as SKIPPED.
    Skip,
    /// Writes the state of the aggregate's ledger row.
    Document {
        /// How the payload meets the stored state.
        state: DocumentState,
        /// The event deletes the document.
        delete: bool,
    },
    /// Inserts or updates a row of a user's table.
    Upsert {
        /// The table.
        table: TableName,
        /// Key columns; a unique index on exactly these must exist.
        key: Vec<(String, FieldSources)>,
        /// Columns beside the key; `None` for `"auto"`: every member of the payload that names a
        /// column.
        columns: Option<Vec<(String, FieldSources)>>,
    },
    /// Deletes a row of a user's table.
    Delete {
        /// The table.
        table: TableName,
        /// Key columns.
        key: Vec<(String, FieldSources)>,
        /// Columns to set instead of deleting; empty to delete.
        soft: Vec<(String, FieldSources)>,
    },
}

/// How a payload meets the stored state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DocumentState {
    /// Its top-level members replace those of the state.
    Merge,
    /// It replaces the state.
    Replace,
}

/// A table, as the catalog spells it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableName {
    /// Schema; `None` leaves it to the role's search path.
    pub schema: Option<String>,
    /// Name.
    pub name: String,
}

impl TableName {
    /// Reads `table`, `schema.table`, or either part in double quotes. Case is kept: names are
    /// compared with the catalog as they stand.
    ///
    /// # Errors
    /// A sentence for the operator when the text is no table name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let explain = || {
            "expected \"table\" or \"schema.table\" as the catalog spells it; a part that holds a \
             dot stands in double quotes"
                .to_owned()
        };
        let (first, rest) = identifier(text).ok_or_else(explain)?;
        let (schema, name) = match rest.strip_prefix('.') {
            None if rest.is_empty() => (None, first),
            None => return Err(explain()),
            Some(rest) => match identifier(rest) {
                Some((name, "")) => (Some(first), name),
                _ => return Err(explain()),
            },
        };
        let valid = schema.as_deref().is_none_or(is_identifier) && is_identifier(&name);
        if valid { Ok(Self { schema, name }) } else { Err(explain()) }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.name)
    }
}

/// Splits one identifier off the front: up to the next dot, or a quoted one.
fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find('.').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let plain = !name.contains(|c: char| c == '"' || c.is_whitespace());
        return plain.then(|| (name.to_owned(), rest));
    };
    let mut name = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        // Two quotes stand for one.
        match after.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return Some((name, after)),
        }
    }
}

/// Actions, of which a route has exactly one.
const ACTIONS: [&str; 4] = ["skip", "document", "upsert", "delete"];

/// Reads all `[[route]]` tables.
pub(in crate::config) fn read_routes(
    sections: Vec<Section<'_>>,
    format: Format,
) -> Vec<RouteConfig> {
    let mut routes: Vec<RouteConfig> = Vec::new();
    for section in sections {
        let route = RouteConfig::read(section, format, &routes);
        routes.push(route);
    }
    route_name::name_the_rest(&mut routes);
    routes
}

impl RouteConfig {
    fn read(mut section: Section<'_>, format: Format, earlier: &[Self]) -> Self {
        let route = Self {
            name: read_name(&mut section, earlier),
            named_by_order: false,
            topic: section.list("topic"),
            aggregate_type: section.list("aggregate_type"),
            event_type: section.list("event_type"),
            action: read_action(&mut section, format),
        };
        for (key, list) in [
            ("topic", &route.topic),
            ("aggregate_type", &route.aggregate_type),
            ("event_type", &route.event_type),
        ] {
            if list.is_empty() && section.entries().iter().any(|(name, _)| *name == key) {
                section.problem(key, "matches nothing; leave it out to match everything");
            }
        }
        if let Some(topic) = route.topic.iter().find(|topic| !is_topic_name(topic)) {
            section.problem(
                "topic",
                format!("{topic:?} is no topic name; a \"^pattern\" stands in kafka.topics only"),
            );
        }
        section.finish();
        route
    }
}

/// The name as given; empty where there is none.
fn read_name(section: &mut Section<'_>, earlier: &[RouteConfig]) -> String {
    let Some(name) = section.optional_text("name") else { return String::new() };
    if let Some(message) = route_name::refused(&name) {
        section.problem("name", message);
        return String::new();
    }
    if let Some(position) = earlier.iter().position(|route| route.name == name) {
        section.problem("name", format!("is the name of route[{position}] already"));
    }
    name
}

fn read_action(section: &mut Section<'_>, format: Format) -> RouteAction {
    section.not_yet("sql", "routes with SQL statements");
    let given: Vec<&str> = ACTIONS.into_iter().filter(|action| section.has(action)).collect();
    match given.as_slice() {
        ["document"] => read_document(section.table("document"), format),
        ["upsert"] => read_upsert(section.table("upsert")),
        ["delete"] => read_delete(section.table("delete")),
        // What else was given is either reported here or was reported as missing above.
        [] => {
            if !section.has("sql") {
                section.problem_here(
                    "does nothing: give it [route.document], [route.upsert], [route.delete] or \
                     skip = true",
                );
            }
            RouteAction::Skip
        }
        [_] => {
            if !section.flag("skip", true) {
                section.problem("skip", "expected true; leave the route out otherwise");
            }
            RouteAction::Skip
        }
        [_, more, ..] => {
            let message = format!("a route does one thing, this one has {}", given.join(", "));
            section.problem(more, message);
            RouteAction::Skip
        }
    }
}

fn read_document(mut section: Section<'_>, format: Format) -> RouteAction {
    let states = [("merge", DocumentState::Merge), ("replace", DocumentState::Replace)];
    let default = match format {
        Format::Plain => DocumentState::Replace,
        Format::Envelope => DocumentState::Merge,
    };
    let state = section.optional_choice("state", &states, &[]).unwrap_or(default);
    let delete = section.flag("delete", false);
    if delete && section.has("state") {
        section.problem("state", "has no meaning beside delete = true");
    }
    section.finish();
    RouteAction::Document { state, delete }
}

fn read_upsert(mut section: Section<'_>) -> RouteAction {
    let table = read_table(&mut section);
    let key = read_key(&mut section);
    let columns = match section.raw("columns") {
        None => {
            section
                .problem("columns", "is missing; give columns = { name = \"source\" } or \"auto\"");
            None
        }
        Some(Value { kind: ValueKind::String(text), .. }) if text == "auto" => None,
        Some(Value { kind: ValueKind::Table(_), .. }) => {
            Some(read_columns(section.table("columns")))
        }
        Some(_) => {
            section.problem("columns", "expected { column = \"source\" } or \"auto\"");
            None
        }
    };
    let twice = columns.iter().flatten().find(|(name, _)| key.iter().any(|(k, _)| k == name));
    if let Some((name, _)) = twice {
        section.problem("columns", format!("{name:?} is a key column already"));
    }
    section.finish();
    RouteAction::Upsert { table, key, columns }
}

fn read_delete(mut section: Section<'_>) -> RouteAction {
    let table = read_table(&mut section);
    let key = read_key(&mut section);
    let soft = if section.has("soft") {
        let soft = read_columns(section.table("soft"));
        if soft.is_empty() {
            section.problem("soft", "needs at least one column; leave it out to delete the row");
        }
        soft
    } else {
        Vec::new()
    };
    section.finish();
    RouteAction::Delete { table, key, soft }
}

fn read_table(section: &mut Section<'_>) -> TableName {
    let stand_in = TableName { schema: None, name: String::new() };
    let text = section.text("table");
    if text.is_empty() {
        return stand_in;
    }
    TableName::parse(&text).unwrap_or_else(|message| {
        section.problem("table", message);
        stand_in
    })
}

fn read_key(section: &mut Section<'_>) -> Vec<(String, FieldSources)> {
    if section.raw("key").is_some_and(|value| !matches!(value.kind, ValueKind::Table(_))) {
        section
            .problem("key", "expected { column = \"source\" }, such as { id = \"aggregate_id\" }");
        return Vec::new();
    }
    let given = section.table("key");
    // A column whose source cannot be read is a problem of its own.
    let none = given.entries().is_empty();
    let key = read_columns(given);
    if none {
        section.problem("key", "needs at least one column, such as { id = \"aggregate_id\" }");
    }
    key
}

/// Reads `column = source` pairs, sorted by column so that a statement's text is stable.
fn read_columns(section: Section<'_>) -> Vec<(String, FieldSources)> {
    let mut columns = Vec::new();
    for (name, value) in section.entries() {
        if !is_identifier(name) {
            section.problem(name, "is no column name");
        }
        match FieldSources::read(value) {
            Ok(sources) => columns.push((name.to_owned(), sources)),
            Err(message) => section.problem(name, message),
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(schema: Option<&str>, name: &str) -> Result<TableName, String> {
        Ok(TableName { schema: schema.map(str::to_owned), name: name.to_owned() })
    }

    #[test]
    fn a_table_name_keeps_its_case_and_may_be_quoted() {
        assert_eq!(TableName::parse("customer"), table(None, "customer"));
        assert_eq!(TableName::parse("public.Customer"), table(Some("public"), "Customer"));
        assert_eq!(TableName::parse(r#""a.b"."say ""x""""#), table(Some("a.b"), r#"say "x""#));
    }

    #[test]
    fn a_table_name_that_cannot_be_meant_is_refused() {
        for text in ["", ".", "a.", ".a", "a.b.c", "a b", "\"a", "\"a\"b", "a; drop table b"] {
            assert!(TableName::parse(text).is_err(), "{text}");
        }
        assert!(TableName::parse(&"a".repeat(64)).is_err());
    }
}
