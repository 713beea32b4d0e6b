//! From a record to an event: reads its envelope and asks the routes. Pure, and run on the
//! consumer thread.
//!
//! The order of the answers:
//!
//! | # | record | content |
//! | --- | --- | --- |
//! | 1 | tombstone, policy `skip`, or nothing to delete (`plain` without key) | skip `tombstone` |
//! | 2 | tombstone, policy `dead-letter` | poison `tombstone_refused` |
//! | 3 | a `skip` route matches for certain | skip `skip_route`, whatever else is wrong with it |
//! | 4 | something is wrong with it | poison |
//! | 5 | no route matches | `on_unmatched` |
//! | 6 | a value is missing or does not fit its column | poison |
//! | 7 | all else | write |
//!
//! Rule 3 stands before rule 4 so that heartbeats need not look like events; it holds only when
//! every earlier route is certain not to match, so broken events of another route are not lost.

use crate::config::{Config, OnUnmatched, Tombstone};
use crate::decode::{Draft, Reader};
use crate::route::{Choice, Plan, Rule, Rules, Subject};
use pgsluice_core::decode::{Decode, Decoded};
use pgsluice_core::event::{Content, Envelope, Event, Poison, RouteId};
use pgsluice_core::record::Record;
use pgsluice_core::verdict::Reason;

/// Decodes records by one configuration and one plan. Immutable, so threads may share it.
#[derive(Debug)]
pub struct Decoder {
    reader: Reader,
    rules: Rules,
    tombstone: Tombstone,
    on_unmatched: OnUnmatched,
}

impl Decoder {
    /// Prepares decoding. `plan` must have been compiled from `config`.
    pub fn new(plan: &Plan, config: &Config) -> Self {
        let max_bytes = usize::try_from(config.limits.record_bytes.0).unwrap_or(usize::MAX);
        Self {
            reader: Reader::new(&config.decode, max_bytes),
            rules: Rules::new(plan, config),
            tombstone: config.decode.tombstone,
            on_unmatched: config.on_unmatched,
        }
    }

    /// Finds out what a record means. Never fails and never panics: what cannot be applied is an
    /// event too, with the reason as its content and as much of its envelope as can be told.
    pub fn decode(&self, record: Record) -> Event {
        let (envelope, content) = self.read(&record);
        Event { record, envelope, content }
    }

    /// The route that a record takes, whatever comes of it there; `None` where no route is asked or
    /// none matches. For those who explain a record: [`Self::decode`] asks by itself.
    pub fn route_of(&self, record: &Record) -> Option<RouteId> {
        let draft = self.reader.read(record);
        if self.ended(&draft).is_some() {
            return None;
        }
        match self.choose(&draft, record) {
            Choice::Rule(rule) => Some(rule.id()),
            Choice::Unmatched | Choice::CannotTell => None,
        }
    }

    fn read(&self, record: &Record) -> (Envelope, Content) {
        let draft = self.reader.read(record);
        let content = self.content(&draft, record);
        (draft.envelope, content)
    }

    fn content(&self, draft: &Draft<'_>, record: &Record) -> Content {
        if let Some(content) = self.ended(draft) {
            return content;
        }
        match (self.choose(draft, record), &draft.problem) {
            (Choice::Rule(rule), _) if rule.unusable() => Content::Halt(Reason::SchemaMismatch),
            (Choice::Rule(rule), _) if rule.skips() => Content::Skip(Reason::SkipRoute),
            (Choice::Rule(rule), Some(problem)) => Content::Poison(rule.meant(problem.clone())),
            (_, Some(problem)) => Content::Poison(problem.clone()),
            (Choice::Rule(rule), None) => write(rule, draft),
            (Choice::Unmatched, None) => match self.on_unmatched {
                OnUnmatched::DeadLetter => poison(Reason::Unmatched),
                OnUnmatched::Skip => Content::Skip(Reason::Unmatched),
                OnUnmatched::Halt => Content::Halt(Reason::UnmatchedHalt),
            },
            // What could not be told is a problem of its own, so this cannot be; never guess.
            (Choice::CannotTell, None) => poison(Reason::FieldMissing),
        }
    }

    /// What a tombstone is that no route is asked about.
    fn ended(&self, draft: &Draft<'_>) -> Option<Content> {
        if !draft.tombstone {
            return None;
        }
        match self.tombstone {
            Tombstone::Skip => Some(Content::Skip(Reason::Tombstone)),
            Tombstone::DeadLetter => Some(poison(Reason::TombstoneRefused)),
            Tombstone::Delete if !draft.deletes => Some(Content::Skip(Reason::Tombstone)),
            Tombstone::Delete => None,
        }
    }

    fn choose(&self, draft: &Draft<'_>, record: &Record) -> Choice<'_> {
        self.rules.choose(&Subject {
            topic: &record.partition.topic,
            aggregate_type: draft.aggregate_type.as_deref(),
            event_type: draft.envelope.event_type.as_deref(),
            tombstone: draft.tombstone,
        })
    }
}

/// All that the formats of today need is in the record: nothing is ever missing.
impl Decode for Decoder {
    fn decode(&self, record: Record) -> Decoded {
        Decoded::Ready(Self::decode(self, record))
    }
}

fn write(rule: &Rule, draft: &Draft<'_>) -> Content {
    match rule.write(draft) {
        Ok(Some(write)) => Content::Write(write),
        Ok(None) => Content::Skip(Reason::SkipRoute),
        Err(poison) => Content::Poison(poison),
    }
}

fn poison(reason: Reason) -> Content {
    Content::Poison(Poison::new(reason, None))
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod weight;
