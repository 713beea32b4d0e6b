//! Columns that no record of a sample has anything for: most often a pointer that points nowhere.
//!
//! A source that an event does not have leaves its column alone, so a misspelled one is no error of
//! any single event; a nullable column just stays empty. Over a sample it can be seen.

use std::collections::BTreeMap;

use crate::check::finding::Report;
use crate::config::Config;
use crate::route::kind::expected;
use pgsluice_core::event::{Event, RouteId, RowAction};

/// What the upserts of a sample brought for each column of their route.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<RouteId, Route>);

#[derive(Debug, Default)]
struct Route {
    upserts: usize,
    /// In the order of the route's columns.
    found: Vec<bool>,
}

impl Seen {
    /// Takes an event into account.
    pub(super) fn note(&mut self, event: &Event) {
        let Some(write) = event.write() else { return };
        let upsert = write.rows.iter().find(|row| row.action == RowAction::Upsert);
        let Some(columns) = upsert.map(|row| &row.columns) else { return };
        let route = self.0.entry(write.route).or_default();
        route.upserts += 1;
        route.found.resize(columns.len(), false);
        for (found, value) in route.found.iter_mut().zip(columns) {
            *found |= value.is_some();
        }
    }

    /// Warns of each configured column that stayed without a value.
    pub(super) fn judge(&self, config: &Config, report: &mut Report) {
        for (id, Route { upserts, found }) in &self.0 {
            let Some(route) = config.routes.get(usize::from(id.0)) else { continue };
            let Some(columns) = expected(&route.action) else { continue };
            let never: Vec<&str> = columns
                .iter()
                .zip(found)
                .filter_map(|((column, _), found)| (!found).then_some(column.as_str()))
                .collect();
            if !never.is_empty() {
                report.warn(
                    format!("route {}", route.name),
                    format!(
                        "none of {upserts} records has a value for column {}",
                        never.join(", ")
                    ),
                    "correct the source of the column, unless these events should leave it \
                     unchanged",
                );
            }
        }
    }
}
