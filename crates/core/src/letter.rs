//! Dead letters: records that are kept for somebody to look at.

/// Why a record is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It cannot be applied itself.
    Poison,
    /// It waits behind a dead letter of its aggregate.
    Parked,
}

impl Disposition {
    /// The word in `dead_letter_t.disposition`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Poison => "poison",
            Self::Parked => "parked",
        }
    }
}
