//! Names of routes: as given, or made of what a route does. Letters, brakes, acceptances and counts
//! of stale events carry them, so a name must not depend on where the route is written.

use std::collections::BTreeSet;

use crate::config::RouteConfig;

/// Longest name that can be given, in bytes: as long as PostgreSQL lets its own be.
const MAX_BYTES: usize = 63;

/// Name of the route that takes every event where none is configured.
pub const DEFAULT_ROUTE: &str = "document";

/// Why a name cannot be given; `None` where it can.
pub(super) fn refused(name: &str) -> Option<String> {
    if name.trim().is_empty() {
        Some("must not be empty; remove it for the default".to_owned())
    } else if name.trim() != name {
        Some("has leading or trailing spaces or line breaks".to_owned())
    } else if name.chars().any(char::is_control) {
        Some("contains a control character".to_owned())
    } else if name.len() > MAX_BYTES {
        Some(format!("is {} bytes long, but at most {MAX_BYTES} are allowed", name.len()))
    } else if is_place(name) {
        Some("is reserved for rows written before routes had names; choose another".to_owned())
    } else {
        None
    }
}

/// Whether the text is a route's place, as in `route[0]`.
fn is_place(text: &str) -> bool {
    let place = text.strip_prefix("route[").and_then(|rest| rest.strip_suffix(']'));
    place.is_some_and(|place| place.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Names the routes whose name is empty. Where a default is taken, a number follows it; which route
/// gets which number depends on their order, and [`RouteConfig::named_by_order`] says so.
pub(super) fn name_the_rest(routes: &mut [RouteConfig]) {
    let mut taken: BTreeSet<String> =
        routes.iter().map(|route| route.name.clone()).filter(|name| !name.is_empty()).collect();
    let given = taken.clone();
    let defaults: Vec<Option<String>> = routes
        .iter()
        .map(|route| route.name.is_empty().then(|| route.action.default_name()))
        .collect();
    for (route, default) in routes.iter_mut().zip(&defaults) {
        let Some(default) = default else { continue };
        let alike = defaults.iter().flatten().filter(|other| *other == default).count();
        route.named_by_order = alike > 1 || given.contains(default);
        let numbered = (2..).map(|number: usize| format!("{default} {number}"));
        let free = std::iter::once(default.clone()).chain(numbered).find(|n| !taken.contains(n));
        // The numbers do not end before the routes do.
        route.name = free.unwrap_or_default();
        taken.insert(route.name.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DeleteRoute, DocumentRoute, DocumentState, RouteAction, TableName};

    fn route(name: &str, action: RouteAction) -> RouteConfig {
        let (topic, aggregate_type, event_type) = (Vec::new(), Vec::new(), Vec::new());
        let name = name.to_owned();
        RouteConfig { name, named_by_order: false, topic, aggregate_type, event_type, action }
    }

    fn written(delete: bool) -> RouteAction {
        RouteAction::Document(DocumentRoute { state: DocumentState::Merge, delete })
    }

    fn document(name: &str) -> RouteConfig {
        route(name, written(false))
    }

    fn delete(name: &str, table: &str) -> RouteConfig {
        let table = TableName::parse(table).unwrap();
        route(name, RouteAction::Delete(DeleteRoute { table, key: Vec::new(), soft: Vec::new() }))
    }

    fn names(mut routes: Vec<RouteConfig>) -> Vec<(String, bool)> {
        name_the_rest(&mut routes);
        routes.into_iter().map(|route| (route.name, route.named_by_order)).collect()
    }

    fn named(name: &str, by_order: bool) -> (String, bool) {
        (name.to_owned(), by_order)
    }

    #[test]
    fn a_default_name_says_what_the_route_does_and_not_where_it_is() {
        let (a, b) = (|| delete("", "public.a"), || delete("", "b"));
        let skip = || route("", RouteAction::Skip);
        let gone = || route("", written(true));
        let expected = ["skip", "delete public.a", "document", "delete document", "delete b"];
        let found = names(vec![skip(), a(), document(""), gone(), b()]);
        assert_eq!(found, expected.map(|name| named(name, false)));
        let mut moved = names(vec![b(), gone(), document(""), a(), skip()]);
        moved.reverse();
        assert_eq!(found, moved);
    }

    #[test]
    fn routes_that_would_share_a_default_are_numbered_and_known_to_depend_on_their_order() {
        let found = names(vec![document(""), delete("", "a"), document(""), document("")]);
        let (first, other) = (named("document", true), named("delete a", false));
        assert_eq!(found, [first, other, named("document 2", true), named("document 3", true)]);
    }

    #[test]
    fn a_given_name_is_never_given_to_another_route() {
        let found = names(vec![document(""), document("document")]);
        assert_eq!(found, [named("document 2", true), named("document", false)]);
        // Given to the second one alone, the numbered default of before is kept by both.
        let found = names(vec![document(""), document("document 2")]);
        assert_eq!(found, [named("document", false), named("document 2", false)]);
    }

    #[test]
    fn a_name_that_looks_wrong_is_refused() {
        for name in ["customers", "upsert public.customer", "Käufe / neu", "route[x", "route 0"] {
            assert_eq!(refused(name), None, "{name}");
        }
        let long = "ä".repeat(32);
        for name in ["", "  ", " a", "a\n", "a\tb", "route[0]", "route[12]", &long] {
            assert!(refused(name).is_some(), "{name:?}");
        }
        assert_eq!(refused(&"a".repeat(63)), None);
    }
}
