//! Texts and bytes of an event. Mostly they are a part of the record that the event came with, byte
//! for byte, and then they are kept as a slice of it; what had to be converted has bytes of its own.
//!
//! A slice holds on to the record's bytes, so it can be read without the record and can never be
//! read with another one. [`crate::record::Raw`] makes them.

use std::fmt;
use std::sync::Arc;

/// Bytes that slices share. One pointer thin, which is what makes a slice 16 bytes.
pub(crate) type Buffer = Arc<Box<[u8]>>;

/// What a buffer takes in memory beside its bytes: two counts, a pointer and a length.
pub(crate) const BUFFER_BYTES: usize = 4 * size_of::<usize>();

/// Bytes of a record, or made from it. `Debug` shows how many there are only (INV-9).
#[derive(Clone)]
pub struct Slice {
    buffer: Buffer,
    start: u32,
    /// [`Slice::ALL`]: all bytes of the buffer.
    length: u32,
}

impl Slice {
    const ALL: u32 = u32::MAX;

    /// Bytes that are no part of a record.
    fn own(bytes: Box<[u8]>) -> Self {
        Self { buffer: Arc::new(bytes), start: 0, length: Self::ALL }
    }

    /// A part of `buffer`, when `bytes` are one: where they stand tells, not what they are.
    pub(crate) fn of(buffer: &Buffer, bytes: &[u8]) -> Option<Self> {
        let start = bytes.as_ptr().addr().checked_sub(buffer.as_ptr().addr())?;
        let inside = start.checked_add(bytes.len())? <= buffer.len();
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length != Self::ALL)?;
        let start = u32::try_from(start).ok().filter(|_| inside)?;
        Some(Self { buffer: Arc::clone(buffer), start, length })
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        if self.length == Self::ALL {
            return &self.buffer;
        }
        let start = self.start as usize;
        self.buffer.get(start..start + self.length as usize).unwrap_or_default()
    }

    /// What it holds in memory beside `shared`.
    pub(crate) fn weight_beside(&self, shared: &Buffer) -> usize {
        if Arc::ptr_eq(&self.buffer, shared) { 0 } else { BUFFER_BYTES + self.buffer.len() }
    }
}

impl From<&[u8]> for Slice {
    fn from(bytes: &[u8]) -> Self {
        Self::own(bytes.into())
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Slice {}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes)", self.as_bytes().len())
    }
}

/// Text of a record, or made from it.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(Slice);

impl Text {
    /// A part of `buffer`, when `text` is one.
    pub(crate) fn of(buffer: &Buffer, text: &str) -> Option<Self> {
        Slice::of(buffer, text.as_bytes()).map(Self)
    }

    /// The text. Looks at all bytes, to see again that they are UTF-8.
    pub fn as_str(&self) -> &str {
        // They were when the slice was made, and bytes of a buffer never change.
        std::str::from_utf8(self.0.as_bytes()).unwrap_or_default()
    }

    /// What it holds in memory beside `shared`.
    pub(crate) fn weight_beside(&self, shared: &Buffer) -> usize {
        self.0.weight_beside(shared)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Slice::own(text.into_bytes().into_boxed_slice()))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Slice::own(text.as_bytes().into()))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes)", self.0.as_bytes().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_told_by_where_it_stands() {
        let buffer: Buffer = Arc::new(b"key-value"[..].into());
        let part = Slice::of(&buffer, &buffer[4..]).unwrap();
        assert_eq!(part.as_bytes(), b"value");
        assert_eq!(part.weight_beside(&buffer), 0);
        let end = Slice::of(&buffer, &buffer[9..]).unwrap();
        assert_eq!(end.as_bytes(), b"");
        // The same bytes elsewhere are no part.
        let elsewhere: Buffer = Arc::new(b"key-value"[..].into());
        assert!(Slice::of(&buffer, &elsewhere[4..]).is_none());
        let own = Slice::from(&elsewhere[4..]);
        assert_eq!(own, part);
        assert_eq!(own.weight_beside(&buffer), BUFFER_BYTES + 5);
    }

    #[test]
    fn a_slice_outlives_the_record_it_is_a_part_of() {
        let buffer: Buffer = Arc::new("né".as_bytes().into());
        let text = Text::of(&buffer, std::str::from_utf8(&buffer).unwrap()).unwrap();
        drop(buffer);
        assert_eq!(text.as_str(), "né");
        assert_eq!(size_of::<Option<Text>>(), 16);
    }
}
