//! What is said of one record: by position, type, name and code.

use std::fmt;

use serde::Serialize;

use crate::config::Config;
use crate::lanes::slow::rehearse::{Ending, Rehearsed};
use crate::route::{Column, Plan, Target};
use crate::store::counts::TableRows;
use pgsluice_core::envelope::{EnvelopeField, FIELDS, FieldSpec};
use pgsluice_core::event::{Content, Event, RouteId};
use pgsluice_core::fault::{Fault, FaultKind};
use pgsluice_core::verdict::{Reason, Verdict};

use super::Sample;

/// Longest type that is shown: types are words, and what is longer is something else.
const LONGEST_TYPE: usize = 80;

/// A row or table that is locked.
const LOCKED: &str = "55P03";
/// The ledger row is not where it was read: the daemon moved it.
const MOVED: &str = "40001";

pub(super) const HALTED: &str = "would_halt";
const RETRIED: &str = "would_retry";
const LOCKED_NOW: &str = "locked_now";
const WAITS: &str = "waits";
const NOT_TRIED: &str = "not_tried";

/// What the reasons that new routes meet first mean, for people who do not know them yet.
const EXPLANATIONS: [(Reason, &str); 18] = [
    (Reason::JsonSyntax, "the value is not JSON"),
    (Reason::JsonDepth, "the JSON is nested deeper than decode.max_depth"),
    (Reason::JsonText, "the JSON contains text that jsonb cannot store: NUL or a lone surrogate"),
    (Reason::JsonShape, "the JSON is not an object, which the format or a merge needs"),
    (Reason::KeyEncoding, "the key is not UTF-8 text"),
    (Reason::FieldMissing, "a field that the format needs is not in the record"),
    (Reason::FieldInvalid, "a field has the wrong type or form"),
    (Reason::VersionMissing, "the format or decode.fields requires a version, but there is none"),
    (Reason::VersionInvalid, "the version is not a whole number of 0 or more"),
    (Reason::RecordTooLarge, "key and value are larger than limits.record_bytes"),
    (Reason::ColumnValue, "a value does not fit its column's type"),
    (Reason::ColumnKeyMissing, "the value of a key column is absent or null"),
    (Reason::ConstraintViolation, "a constraint of the table rejects the row"),
    (Reason::Unmatched, "no route matches"),
    (Reason::VersionConflict, "another event already has this version of the aggregate"),
    (Reason::AggregateParked, "an earlier event of its aggregate is a dead letter"),
    (Reason::PositionCovered, "it was decided before"),
    (Reason::Tombstone, "the value is null and decode.tombstone is \"skip\""),
];

/// Words of those that nobody can decide now.
pub(super) const UNDECIDED: [&str; 4] = [RETRIED, LOCKED_NOW, WAITS, NOT_TRIED];
/// Words of those that end in `dead_letter_t`.
pub(super) const LETTERS: [&str; 2] = ["DEAD_LETTERED", "PARKED"];

/// One record.
#[derive(Debug, Serialize)]
pub struct Sampled {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// What it says about itself.
    pub event: Said,
    /// The route it takes.
    pub route: Option<Route>,
    /// What becomes of it: a verdict, or in lower case why there is none now.
    pub verdict: &'static str,
    /// Why.
    pub reason: Option<&'static str>,
    /// What is at fault.
    pub trouble: Option<Trouble>,
    /// Where it goes as a dead letter: the topic, `None` where letters stay in the table.
    pub letter_topic: Option<String>,
    /// What its statement writes beside the ledger.
    pub write: Option<Written>,
    /// The rows that were written, triggers' too; `None` where the server does not count.
    pub rows: Option<Vec<TableRows>>,
}

/// What an event says about itself.
#[derive(Debug, Serialize)]
pub struct Said {
    /// Aggregate type.
    pub aggregate_type: Option<String>,
    /// Event type.
    pub event_type: Option<String>,
    /// Version.
    pub version: Option<i64>,
    /// The fields that were found.
    pub fields: Vec<&'static str>,
}

/// A route by its place, name and kind.
#[derive(Debug, Serialize)]
pub struct Route {
    /// Its place in the configuration; `None` for the default document route.
    pub index: Option<u16>,
    /// Its name.
    pub name: String,
    /// What it does.
    pub kind: &'static str,
    /// The table it writes to.
    pub table: Option<String>,
}

/// What is at fault: codes and names.
#[derive(Debug, Serialize)]
pub struct Trouble {
    /// The field, column or pointer, where it was found before the database was asked.
    pub field: Option<String>,
    /// The server's code.
    pub sqlstate: Option<String>,
    /// The constraint.
    pub constraint: Option<String>,
    /// The table.
    pub table: Option<String>,
    /// The column.
    pub column: Option<String>,
    /// All of it in one sentence.
    pub sentence: String,
}

/// What a statement writes.
#[derive(Debug, Serialize)]
pub struct Written {
    /// What it does.
    pub operation: &'static str,
    /// The table; `None` for a document, which stands in the ledger.
    pub table: Option<String>,
    /// The columns it sets, key first.
    pub columns: Vec<String>,
}

/// What explains a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Explained<'a> {
    pub(super) config: &'a Config,
    pub(super) plan: &'a Plan,
    pub(super) route: Option<RouteId>,
}

/// What is known of a record before it is tried.
pub(super) fn said(explained: &Explained<'_>, event: &Event) -> Sampled {
    let Explained { config, plan, route } = *explained;
    let envelope = &event.envelope;
    let aggregate_type = envelope.aggregate.as_ref().map(|key| shown(&key.aggregate_type));
    Sampled {
        topic: event.record.partition.topic.to_string(),
        partition: event.record.partition.partition,
        offset: event.record.offset.0,
        event: Said {
            aggregate_type,
            event_type: envelope.event_type.as_deref().map(shown),
            version: envelope.version.map(|version| version.0),
            fields: fields(event),
        },
        route: route.map(|id| Route {
            index: (usize::from(id.0) < config.routes.len()).then_some(id.0),
            name: plan.route(id).name.to_string(),
            kind: plan.route(id).action.word(),
            table: plan.route(id).action.target().map(full_name),
        }),
        verdict: NOT_TRIED,
        reason: None,
        trouble: None,
        letter_topic: None,
        write: None,
        rows: Some(Vec::new()),
    }
}

/// What became of it.
pub(super) fn tried(
    explained: &Explained<'_>,
    said: Sampled,
    event: &Event,
    rehearsed: Rehearsed,
) -> Sampled {
    let Rehearsed { ending, reason, fault, rows } = rehearsed;
    let letter = matches!(ending, Ending::Decided(Verdict::DeadLettered | Verdict::Parked));
    let applied = ending == Ending::Decided(Verdict::Applied);
    let field = match &event.content {
        Content::Poison(poison) if reason == Some(poison.reason) => poison.field.as_deref(),
        _ => None,
    };
    Sampled {
        verdict: word(&ending, fault.as_ref()),
        reason: reason.map(Reason::as_str),
        trouble: trouble(field, fault.as_ref()),
        letter_topic: letter
            .then(|| explained.config.dead_letter.topic_for(&event.record.partition.topic))
            .flatten(),
        write: applied.then(|| written(explained.plan, event)).flatten(),
        rows,
        ..said
    }
}

fn word(ending: &Ending, fault: Option<&Fault>) -> &'static str {
    match ending {
        Ending::Decided(verdict) => verdict.as_str(),
        Ending::Halted => HALTED,
        Ending::Waits => WAITS,
        Ending::Retried => match fault.map(|fault| fault.kind) {
            Some(FaultKind::Server(code)) if [LOCKED, MOVED].contains(&code.as_str()) => LOCKED_NOW,
            _ => RETRIED,
        },
    }
}

fn trouble(field: Option<&str>, fault: Option<&Fault>) -> Option<Trouble> {
    if field.is_none() && fault.is_none() {
        return None;
    }
    let text = |name: Option<&Box<str>>| name.map(ToString::to_string);
    let parts = [field.map(str::to_owned), fault.map(ToString::to_string)];
    Some(Trouble {
        field: field.map(str::to_owned),
        sqlstate: fault.and_then(Fault::sqlstate).map(|code| code.to_string()),
        constraint: text(fault.and_then(|fault| fault.constraint.as_ref())),
        table: text(fault.and_then(|fault| fault.table.as_ref())),
        column: text(fault.and_then(|fault| fault.column.as_ref())),
        sentence: parts.into_iter().flatten().collect::<Vec<_>>().join(", "),
    })
}

/// The envelope's fields that are there. An event id that is only the record's position was not
/// found.
fn fields(event: &Event) -> Vec<&'static str> {
    let found = |spec: &&FieldSpec| match spec.field {
        EnvelopeField::EventId => event.envelope.event_id.is_some(),
        field => event.field(field).is_some(),
    };
    FIELDS.iter().filter(found).map(|spec| spec.name).collect()
}

fn full_name(target: &Target) -> String {
    format!("{}.{}", target.schema, target.table)
}

/// What the event's statement writes beside the ledger.
fn written(plan: &Plan, event: &Event) -> Option<Written> {
    let write = event.write()?;
    let action = &plan.route(write.route).action;
    let target = action.target();
    let columns = target.zip(write.rows.first()).map_or_else(Vec::new, |(target, row)| {
        let given = target.columns.iter().zip(&row.columns).filter(|(_, value)| value.is_some());
        let name = |column: &Column| column.name.clone();
        target.key.iter().map(name).chain(given.map(|(column, _)| name(column))).collect()
    });
    Some(Written { operation: action.operation(write), table: target.map(full_name), columns })
}

/// A type as it may stand on a terminal: one line, no longer than a word should be.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(LONGEST_TYPE).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST_TYPE).is_some() {
        shown.push('…');
    }
    shown
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for record in &self.records {
            writeln!(f, "{record}")?;
        }
        f.write_str(
            "\neverything ran in one transaction, which was rolled back; no offset was committed. \
             Sequences that it used stay advanced.",
        )
    }
}

impl fmt::Display for Sampled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Said { aggregate_type, event_type, version, fields } = &self.event;
        let or = |text: &Option<String>, none| text.as_deref().unwrap_or(none).to_owned();
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)?;
        write!(f, "  {}", or(aggregate_type, "(no aggregate)"))?;
        write!(f, "  {}", or(event_type, "(no event type)"))?;
        if let Some(version) = version {
            write!(f, "  version {version}")?;
        }
        writeln!(f, "\n  fields   {}", fields.join(", "))?;
        match &self.route {
            None => writeln!(f, "  route    none")?,
            Some(route) => writeln!(f, "  route    {route}")?,
        }
        write!(f, "  verdict  {}", self.verdict)?;
        if let Some(reason) = self.reason {
            write!(f, ", {reason}")?;
        }
        if let Some(trouble) = &self.trouble {
            write!(f, ": {}", trouble.sentence)?;
        }
        let meant = EXPLANATIONS.iter().find(|(known, _)| Some(known.as_str()) == self.reason);
        if let Some((_, meaning)) = meant {
            write!(f, " ({meaning})")?;
        }
        write!(f, "\n  effect   ")?;
        self.effect(f)
    }
}

impl Sampled {
    fn effect(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.verdict {
            HALTED => {
                return f.write_str("none; the partition would halt here until the cause is fixed");
            }
            RETRIED => return f.write_str("none now; it would be retried later"),
            LOCKED_NOW => {
                return f.write_str("none now; another session holds a row or table that it needs");
            }
            WAITS => {
                return f.write_str("none now; it waits for an earlier event of its aggregate");
            }
            NOT_TRIED => return f.write_str("not tried"),
            _ => {}
        }
        if LETTERS.contains(&self.verdict) {
            f.write_str("stored in dead_letter_t")?;
            if let Some(topic) = &self.letter_topic {
                write!(f, " and published to {topic}")?;
            }
            if self.event.aggregate_type.is_some()
                && self.reason != Some(Reason::Unmatched.as_str())
            {
                f.write_str("; later events of its aggregate wait behind it")?;
            }
            return Ok(());
        }
        let Some(write) = &self.write else { return f.write_str("none") };
        f.write_str(write.operation)?;
        if let Some(table) = &write.table {
            write!(f, " {table} ({})", write.columns.join(", "))?;
        }
        let Some(rows) = &self.rows else {
            return f.write_str(": rows were not counted (track_counts is off)");
        };
        for (position, TableRows { table, inserted, updated, deleted }) in rows.iter().enumerate() {
            f.write_str(if position == 0 { ": " } else { "; " })?;
            write!(f, "{table}")?;
            for (number, what) in
                [(inserted, "inserted"), (updated, "updated"), (deleted, "deleted")]
            {
                if *number != 0 {
                    write!(f, " {number} {what}")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(_) => write!(f, "{}, {}", self.name, self.kind)?,
            None => write!(f, "the default route, {}", self.kind)?,
        }
        if let Some(table) = &self.table {
            let into = if self.kind == "upsert" { "into" } else { "of" };
            write!(f, " {into} {table}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_cannot_reach_the_terminal_as_anything_but_one_short_word() {
        assert_eq!(shown("Customer"), "Customer");
        assert_eq!(shown("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert_eq!(shown(&"ä".repeat(LONGEST_TYPE + 1)), format!("{}…", "ä".repeat(LONGEST_TYPE)));
    }
}
