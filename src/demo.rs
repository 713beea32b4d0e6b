//! What `pgsluice demo` is made of: a story of customers and orders in the `envelope` format, a
//! broker inside the process, and a producer. `config/demo.toml` and `demo/schema.sql` are the
//! other half of it.

mod broker;
mod story;

pub use self::broker::{Broker, Storyteller};
pub use self::story::{Scene, story};

/// Topic of the customers' events.
pub const CUSTOMERS: &str = "customer-events";
/// Topic of the orders' events.
pub const ORDERS: &str = "order-events";
