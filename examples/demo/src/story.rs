//! The story: every kind of outcome, in an order that makes sense to a reader.

use std::fmt;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{CUSTOMERS, ORDERS};

/// One record of the story.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scene {
    /// Where it is sent.
    pub(crate) topic: &'static str,
    /// The aggregate it is about, which is its key.
    pub(crate) key: String,
    /// The value, JSON unless the story wants it broken.
    pub(crate) value: String,
    /// What happens, for people.
    happens: String,
    /// The outcome it should have.
    outcome: &'static str,
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<58} -> {}", self.happens, self.outcome)
    }
}

/// An event before it is written down.
struct Event<'a> {
    topic: &'static str,
    aggregate: &'static str,
    id: &'a str,
    version: u32,
    name: &'static str,
    payload: Value,
}

impl Event<'_> {
    fn scene(self, outcome: &'static str) -> Scene {
        let Self { topic, aggregate, id, version, name, payload } = self;
        let mut value = json!({
            "eventType": name,
            "eventId": format!("{id}-{version}"),
            "timestamp": Timestamp::now().to_string(),
            "aggregateId": id,
            "aggregateType": aggregate,
            "sequenceNumber": version,
        });
        if let (Value::Object(value), Value::Object(payload)) = (&mut value, payload) {
            value.extend(payload);
        }
        let happens = format!("{name} {id}, version {version}");
        Scene { topic, key: id.to_owned(), value: value.to_string(), happens, outcome }
    }
}

fn customer(id: &str, version: u32, name: &'static str, payload: Value) -> Scene {
    customer_event(id, version, name, payload).scene("APPLIED")
}

fn customer_event<'a>(id: &'a str, version: u32, name: &'static str, payload: Value) -> Event<'a> {
    Event { topic: CUSTOMERS, aggregate: "Customer", id, version, name, payload }
}

fn order(id: &str, version: u32, name: &'static str, payload: Value) -> Scene {
    Event { topic: ORDERS, aggregate: "Order", id, version, name, payload }.scene("APPLIED")
}

fn registered(id: &str, name: &str, email: &str) -> Scene {
    customer(id, 1, "CustomerRegistered", json!({"name": name, "email": email}))
}

/// The whole story, with `extras` customers beside its own who only do what succeeds.
pub(crate) fn story(extras: u32) -> Vec<Scene> {
    let mut scenes = beginnings();
    for n in 1..=extras {
        scenes.extend(extra(n));
    }
    scenes.extend(repeats());
    scenes.extend(poison());
    scenes.extend(ends());
    scenes
}

/// Customers register and order; each event builds on the one before.
fn beginnings() -> Vec<Scene> {
    vec![
        registered("ada", "Ada", "ada@example.org"),
        registered("grace", "Grace", "grace@example.org"),
        registered("edsger", "Edsger", "edsger@example.org"),
        customer("ada", 2, "CustomerRenamed", json!({"name": "Ada King"})),
        customer("ada", 3, "CustomerMoved", json!({"address": "12 St James's Square, London"})),
        order(
            "order-1",
            1,
            "OrderPlaced",
            json!({"customer": "ada", "total": "49.90", "status": "placed"}),
        ),
        order("order-1", 2, "OrderPaid", json!({"status": "paid"})),
        order("order-1", 3, "OrderShipped", json!({"status": "shipped"})),
    ]
}

/// A customer who registers, moves and orders.
fn extra(n: u32) -> Vec<Scene> {
    let id = format!("customer-{n}");
    let order_id = format!("order-c{n}");
    let total = format!("{n}.{:02}", n % 100);
    vec![
        registered(&id, &format!("Customer {n}"), &format!("{id}@example.org")),
        order(
            &order_id,
            1,
            "OrderPlaced",
            json!({"customer": id, "total": total, "status": "placed"}),
        ),
        customer(&id, 2, "CustomerMoved", json!({"address": format!("{n} Main Street")})),
        order(&order_id, 2, "OrderPaid", json!({"status": "paid"})),
    ]
}

/// The same event again, and an old one that comes late: neither changes anything.
fn repeats() -> Vec<Scene> {
    let again = |happens: &str, mut scene: Scene, outcome| {
        scene.happens = format!("{} ({happens})", scene.happens);
        scene.outcome = outcome;
        scene
    };
    let moved = json!({"address": "12 St James's Square, London"});
    let mut late =
        again("late", customer("ada", 2, "CustomerRenamed", json!({"name": "Ada Byron"})), "STALE");
    // Another event than the one that had this version.
    late.value = late.value.replace("\"ada-2\"", "\"ada-2-late\"");
    vec![again("sent again", customer("ada", 3, "CustomerMoved", moved), "DUPLICATE"), late]
}

/// Events that cannot be applied: only their own aggregate waits.
fn poison() -> Vec<Scene> {
    let event = |version, name, payload| customer_event("grace", version, name, payload);
    vec![
        event(2, "CustomerEmailChanged", json!({"email": "not an address"}))
            .scene("DEAD_LETTERED, and grace is parked"),
        event(3, "CustomerMoved", json!({"address": "Arlington"})).scene("PARKED"),
        customer("edsger", 2, "CustomerMoved", json!({"address": "Nuenen"})),
        event(4, "CustomerRenamed", json!({"name": "Grace Hopper"})).scene("PARKED"),
        Scene {
            topic: ORDERS,
            key: "order-1".to_owned(),
            value: "{\"eventType\": \"OrderPaid\", \"tot".to_owned(),
            happens: "a record that is not JSON".to_owned(),
            outcome: "DEAD_LETTERED, alone",
        },
        customer("edsger", 3, "CustomerRenamed", json!({"name": "Edsger W."})),
    ]
}

/// An event nobody wants, and a customer who leaves.
fn ends() -> Vec<Scene> {
    let heartbeat = Event {
        topic: CUSTOMERS,
        aggregate: "Monitor",
        id: "monitor",
        version: 1,
        name: "Heartbeat",
        payload: json!({}),
    };
    vec![heartbeat.scene("SKIPPED"), customer("edsger", 4, "CustomerLeft", json!({}))]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn applied_events_of_an_aggregate_have_ascending_versions() {
        let mut newest = BTreeMap::new();
        for scene in story(3).into_iter().filter(|scene| scene.outcome == "APPLIED") {
            let value: Value = serde_json::from_str(&scene.value).unwrap();
            let version = value["sequenceNumber"].as_u64().unwrap();
            let before = newest.insert(scene.key.clone(), version).unwrap_or(0);
            assert_eq!(version, before + 1, "{scene}");
        }
    }

    #[test]
    fn the_repeated_event_is_the_same_event_and_the_late_one_is_not() {
        let scenes = story(0);
        let id = |outcome: &str| {
            let scene = scenes.iter().find(|scene| scene.outcome == outcome).unwrap();
            let value: Value = serde_json::from_str(&scene.value).unwrap();
            value["eventId"].as_str().unwrap().to_owned()
        };
        assert_eq!(id("DUPLICATE"), "ada-3");
        assert_eq!(id("STALE"), "ada-2-late");
    }

    #[test]
    fn every_outcome_that_needs_no_operator_occurs() {
        let scenes = story(0);
        for outcome in ["APPLIED", "DUPLICATE", "STALE", "DEAD_LETTERED", "PARKED", "SKIPPED"] {
            assert!(scenes.iter().any(|s| s.outcome.starts_with(outcome)), "{outcome}");
        }
    }
}
