//! Encodings: how the bytes of a key or a value become a document. What the document means is the
//! format's.

pub(crate) mod canonical;
pub(crate) mod json;

use self::json::Reading;

/// How a document is written as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Encoding {
    /// JSON text.
    Json,
}

impl Encoding {
    /// Reads a document, nested at most `max_depth` arrays and objects deep.
    pub(crate) fn read(self, bytes: &[u8], max_depth: usize) -> Reading<'_> {
        match self {
            Self::Json => json::Document::read(bytes, max_depth),
        }
    }
}
