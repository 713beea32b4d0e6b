//! Routes as they are written: which events they match and what they do.

mod delete;
mod document;
mod table;
mod upsert;

pub use delete::DeleteRoute;
pub use document::{DocumentRoute, DocumentState};
pub use table::{ColumnSources, TableName};
pub use upsert::UpsertRoute;

use crate::config::format::Format;
use crate::config::load::reader::Section;
use crate::config::section::kafka::is_topic_name;
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

/// What a route does, by kind. Each kind has its section in a file of its own, and its code in one
/// of `route/kind/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteAction {
    /// Nothing: the event ends as SKIPPED.
    Skip,
    /// Writes the state of the aggregate's ledger row.
    Document(DocumentRoute),
    /// Inserts or updates a row of a user's table.
    Upsert(UpsertRoute),
    /// Deletes a row of a user's table.
    Delete(DeleteRoute),
}

impl RouteAction {
    /// The user's table that it names.
    pub fn table(&self) -> Option<&TableName> {
        match self {
            Self::Skip | Self::Document(_) => None,
            Self::Upsert(upsert) => Some(&upsert.table),
            Self::Delete(delete) => Some(&delete.table),
        }
    }

    /// The name of a route that does this and was given none.
    pub(in crate::config) fn default_name(&self) -> String {
        match self {
            Self::Skip => "skip".to_owned(),
            Self::Document(document) => document.default_name().to_owned(),
            Self::Upsert(upsert) => format!("upsert {}", upsert.table),
            Self::Delete(delete) => format!("delete {}", delete.table),
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
                section.problem(key, "matches nothing; remove it to match everything");
            }
        }
        if let Some(topic) = route.topic.iter().find(|topic| !is_topic_name(topic)) {
            section.problem(
                "topic",
                format!(
                    "{topic:?} is not a topic name; a \"^pattern\" is allowed only in kafka.topics"
                ),
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
        section.problem("name", format!("is already the name of route[{position}]"));
    }
    name
}

fn read_action(section: &mut Section<'_>, format: Format) -> RouteAction {
    section.not_yet("sql", "routes with SQL statements");
    let given: Vec<&str> = ACTIONS.into_iter().filter(|action| section.has(action)).collect();
    match given.as_slice() {
        ["document"] => {
            RouteAction::Document(DocumentRoute::read(section.table("document"), format))
        }
        ["upsert"] => RouteAction::Upsert(UpsertRoute::read(section.table("upsert"))),
        ["delete"] => RouteAction::Delete(DeleteRoute::read(section.table("delete"))),
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
                section.problem("skip", "expected true; otherwise remove the route");
            }
            RouteAction::Skip
        }
        [_, more, ..] => {
            let message =
                format!("a route does exactly one thing, but this one has {}", given.join(", "));
            section.problem(more, message);
            RouteAction::Skip
        }
    }
}
