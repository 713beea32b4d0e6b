//! `pgsluice check --connect`: proves what a run would rest on, and changes nothing.
//!
//! Brokers come first, then the database; what one of them lacks does not hide what the other
//! lacks. Names, numbers and reasons only: nothing here prints a value of a record (INV-9).

mod database;
mod finding;
mod kafka;
mod topic;

pub use finding::{Finding, Level, Report};

use crate::config::Config;

/// Looks at the brokers and the database.
pub async fn check(config: &Config) -> Report {
    let mut report = Report::default();
    let cluster = kafka::check(config, &mut report).await;
    let cluster_id = cluster.as_ref().and_then(|cluster| cluster.id.as_deref());
    database::check(config, cluster_id, &mut report).await;
    report
}
