//! Which events a route is meant for.

use crate::config::RouteConfig;

/// What is known of an event when routes are asked. A field is `None` where it could not be told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// Topic of the record.
    pub(crate) topic: &'a str,
    /// Aggregate type.
    pub(crate) aggregate_type: Option<&'a str>,
    /// Event type.
    pub(crate) event_type: Option<&'a str>,
    /// The record has no value, so it has no type of event either unless a source outside of the
    /// value gives one.
    pub(crate) tombstone: bool,
}

/// Whether a route is meant for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Matching {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// A condition asks for a field that could not be told.
    CannotTell,
}

/// The conditions of a route; all given ones must hold, an empty list always does.
#[derive(Debug)]
pub(crate) struct Conditions {
    topic: Box<[Box<str>]>,
    aggregate_type: Box<[Box<str>]>,
    event_type: Box<[Box<str>]>,
}

impl Conditions {
    /// The conditions of a configured route.
    pub(crate) fn new(route: &RouteConfig) -> Self {
        let list = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
        Self {
            topic: list(&route.topic),
            aggregate_type: list(&route.aggregate_type),
            event_type: list(&route.event_type),
        }
    }

    /// Asks the route. A tombstone never meets a condition on `event_type`.
    pub(crate) fn matches(&self, subject: &Subject<'_>) -> Matching {
        let event_type = match subject.event_type {
            None if subject.tombstone && !self.event_type.is_empty() => Matching::No,
            known => one_of(&self.event_type, known),
        };
        let all = [
            one_of(&self.topic, Some(subject.topic)),
            one_of(&self.aggregate_type, subject.aggregate_type),
            event_type,
        ];
        if all.contains(&Matching::No) {
            Matching::No
        } else if all.contains(&Matching::CannotTell) {
            Matching::CannotTell
        } else {
            Matching::Yes
        }
    }
}

fn one_of(list: &[Box<str>], text: Option<&str>) -> Matching {
    match text {
        _ if list.is_empty() => Matching::Yes,
        None => Matching::CannotTell,
        Some(text) if list.iter().any(|wanted| **wanted == *text) => Matching::Yes,
        Some(_) => Matching::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RouteAction;

    fn conditions(topic: &[&str], aggregate_type: &[&str], event_type: &[&str]) -> Conditions {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Conditions::new(&RouteConfig {
            name: String::new(),
            named_by_order: false,
            topic: list(topic),
            aggregate_type: list(aggregate_type),
            event_type: list(event_type),
            action: RouteAction::Skip,
        })
    }

    const SUBJECT: Subject<'_> = Subject {
        topic: "t",
        aggregate_type: Some("Customer"),
        event_type: Some("Renamed"),
        tombstone: false,
    };

    #[test]
    fn every_condition_given_must_hold() {
        let matches = |t: &[&str], a: &[&str], e: &[&str]| conditions(t, a, e).matches(&SUBJECT);
        assert_eq!(matches(&[], &[], &[]), Matching::Yes);
        assert_eq!(matches(&["x", "t"], &["Customer"], &["Renamed"]), Matching::Yes);
        assert_eq!(matches(&["x"], &["Customer"], &["Renamed"]), Matching::No);
        assert_eq!(matches(&[], &[], &["renamed"]), Matching::No);
    }

    #[test]
    fn an_unknown_field_is_not_a_mismatch() {
        let unknown = Subject { event_type: None, ..SUBJECT };
        assert_eq!(conditions(&[], &[], &["Renamed"]).matches(&unknown), Matching::CannotTell);
        assert_eq!(conditions(&["x"], &[], &["Renamed"]).matches(&unknown), Matching::No);
        assert_eq!(conditions(&["t"], &[], &[]).matches(&unknown), Matching::Yes);
    }

    #[test]
    fn a_tombstone_has_no_event_type_to_match() {
        let tombstone = Subject { event_type: None, tombstone: true, ..SUBJECT };
        assert_eq!(conditions(&[], &[], &["Renamed"]).matches(&tombstone), Matching::No);
        assert_eq!(conditions(&[], &["Customer"], &[]).matches(&tombstone), Matching::Yes);
    }
}
