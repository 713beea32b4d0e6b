//! Types of events and aggregates: a handful of texts that all events share.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use pgsluice_core::envelope::SHARED_TYPE_BYTES;

/// The types seen so far. Bounded: a producer that makes a type of each id must not fill memory.
#[derive(Default)]
pub(super) struct Types(Mutex<HashSet<Arc<str>>>);

impl Types {
    /// How many are kept; when one more comes, all are forgotten.
    const CAPACITY: usize = 1_024;

    /// The one text that all events with this type share; its own for one that is longer than types
    /// are.
    pub(super) fn share(&self, text: &str) -> Arc<str> {
        if text.len() > SHARED_TYPE_BYTES {
            return Arc::from(text);
        }
        // Decoding has one thread, so nobody waits here.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = known.get(text) {
            return Arc::clone(shared);
        }
        if known.len() >= Self::CAPACITY {
            known.clear();
        }
        let shared: Arc<str> = Arc::from(text);
        known.insert(Arc::clone(&shared));
        shared
    }
}

impl fmt::Debug for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // INV-9: types are values of records.
        f.debug_struct("Types").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_shared(types: &Types, text: &str) -> bool {
        Arc::ptr_eq(&types.share(text), &types.share(text))
    }

    #[test]
    fn events_share_types_but_not_what_is_too_long_for_one() {
        let types = Types::default();
        assert!(is_shared(&types, "CustomerRegistered"));
        assert!(is_shared(&types, &"x".repeat(SHARED_TYPE_BYTES)));
        let long = "x".repeat(SHARED_TYPE_BYTES + 1);
        assert!(!is_shared(&types, &long));
        assert_eq!(*types.share(&long), *long);
    }

    #[test]
    fn types_without_end_are_forgotten_and_learned_again() {
        let types = Types::default();
        let first = types.share("0");
        for n in 0..=Types::CAPACITY {
            types.share(&n.to_string());
            assert!(types.0.lock().unwrap().len() <= Types::CAPACITY);
        }
        assert!(!Arc::ptr_eq(&first, &types.share("0")));
        assert!(is_shared(&types, "0"));
    }
}
