//! `pgsluice check --connect` and `--sample`: proves what a run would rest on, shows what it would do,
//! and changes nothing.
//!
//! Brokers come first, then the database; what one of them lacks does not hide what the other
//! lacks. Names, numbers and reasons only: nothing here prints a value of a record (INV-9).

mod database;
mod finding;
mod kafka;
mod reading;
mod sample;
mod tables;
mod topic;

pub use finding::{Finding, Level, Report};
pub use sample::{From, Route, Said, Sample, Sampled, Trouble, Wanted, Written};

use crate::config::Config;

/// Looks at the brokers and the database, and tries a sample of records where one is wanted.
pub async fn check(config: &Config, wanted: Option<Wanted>) -> (Report, Option<Sample>) {
    let mut report = Report::default();
    let cluster = kafka::check(config, &mut report).await;
    let cluster_id = cluster.as_ref().and_then(|cluster| cluster.id.as_deref());
    let ground = database::check(config, cluster_id, &mut report).await;
    let sample = match wanted {
        Some(wanted) => sample::take(config, wanted, cluster.as_ref(), ground, &mut report).await,
        None => None,
    };
    (report, sample)
}
