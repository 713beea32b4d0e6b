//! The seam between reading records and decoding them. Reading knows no format, and a decoder may
//! have to wait for something that is not in the record.

use std::fmt;

use crate::event::Event;
use crate::record::Record;

/// Something that decoding needs and that is neither in the record nor known yet, such as a schema
/// that a registry holds. Only the decoder and whoever fetches it know what it stands for; for all
/// others it is a name, free of data of records (INV-9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Missing {
    /// What sort of thing it is, e.g. `schema`.
    pub kind: &'static str,
    /// Which one.
    pub id: u128,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// What became of a record.
#[derive(Debug)]
pub enum Decoded {
    /// Its meaning is known; whatever is wrong with it is part of the event.
    Ready(Event),
    /// It has to be decoded again once this is known. Nothing behind it may go first.
    Missing(Missing, Record),
}

/// Turns records into events. The consumer thread calls it for every record, so it must not wait
/// for anything.
pub trait Decode: Send + Sync {
    /// The meaning of a record, or what has to be known first.
    fn decode(&self, record: Record) -> Decoded;
}
