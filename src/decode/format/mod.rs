//! Formats: what a document and its record mean as an event. One file a format, each with one
//! [`Profile`]; names and defaults are in `config/format.rs`.

mod envelope;
mod plain;

use std::borrow::Cow;

use crate::config::Format;
use crate::decode::encoding::json::Document;
use pgsluice_core::record::Record;
use pgsluice_core::verdict::Reason;

/// How records of one format are read.
#[derive(Debug)]
pub(crate) struct Profile {
    /// Ids and types must not be empty.
    pub(crate) strict: bool,
    /// Why a document other than null is no event of this format.
    pub(crate) misshapen: fn(&Document<'_>) -> Option<Reason>,
    /// How the source `key` gives the id of an aggregate; `None`: as text, like any field.
    pub(crate) id_of_key: Option<IdOfKey>,
    /// Whether a record without a value names something that can be deleted.
    pub(crate) deletes: fn(&Record) -> bool,
}

/// Reads a record's key as the id of an aggregate.
pub(crate) type IdOfKey = fn(&Record) -> Result<Cow<'_, str>, Reason>;

impl Profile {
    /// The profile of a format.
    pub(crate) fn of(format: Format) -> &'static Self {
        match format {
            Format::Plain => &plain::PROFILE,
            Format::Envelope => &envelope::PROFILE,
        }
    }
}
