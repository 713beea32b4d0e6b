//! Has what decoding misses fetched, each thing once, however many partitions wait for it.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::Pin;

use pgsluice_core::decode::Missing;

/// Ends once the decoder knows what was missing. An outage of whoever holds it is waited out.
pub(super) type Fetched = Pin<Box<dyn Future<Output = ()>>>;

/// Whoever holds what decoders miss.
pub(super) trait Fetch {
    /// Begins to fetch it; `None` for something that is not to be had here.
    fn fetch(&self, missing: Missing) -> Option<Fetched>;
}

/// For decoders that need nothing but their records.
pub(super) struct Nothing;

impl Fetch for Nothing {
    fn fetch(&self, _: Missing) -> Option<Fetched> {
        None
    }
}

/// A decoder missed something that nobody can fetch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unobtainable;

/// What is being fetched.
pub(super) struct Fetching {
    source: Box<dyn Fetch>,
    under_way: BTreeSet<Missing>,
}

impl Fetching {
    /// Fetches from `source`; nothing is under way.
    pub(super) fn new(source: impl Fetch + 'static) -> Self {
        Self { source: Box::new(source), under_way: BTreeSet::new() }
    }

    /// Work that fetches it, or `None` where that is under way. [`Self::ended`] is to be told of its
    /// end.
    ///
    /// # Errors
    /// When it cannot be fetched at all.
    pub(super) fn begin(&mut self, missing: Missing) -> Result<Option<Fetched>, Unobtainable> {
        if self.under_way.contains(&missing) {
            return Ok(None);
        }
        let fetched = self.source.fetch(missing).ok_or(Unobtainable)?;
        self.under_way.insert(missing);
        Ok(Some(fetched))
    }

    /// It is known now. Who misses it from now on does not know that yet: it is fetched again.
    pub(super) fn ended(&mut self, missing: Missing) {
        self.under_way.remove(&missing);
    }
}

impl fmt::Debug for Fetching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetching").field("under_way", &self.under_way).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use futures_util::FutureExt;

    use super::*;

    /// Counts what it was asked for; knows everything at once.
    struct Counting(Rc<Cell<u32>>);

    impl Fetch for Counting {
        fn fetch(&self, _: Missing) -> Option<Fetched> {
            let asked = Rc::clone(&self.0);
            Some(Box::pin(async move { asked.set(asked.get() + 1) }))
        }
    }

    fn schema(id: u128) -> Missing {
        Missing { kind: "schema", id }
    }

    #[test]
    fn what_several_partitions_miss_is_fetched_once_and_again_when_it_is_missed_again() {
        let asked = Rc::new(Cell::new(0));
        let mut fetching = Fetching::new(Counting(Rc::clone(&asked)));
        let first = fetching.begin(schema(7)).unwrap().unwrap();
        assert!(fetching.begin(schema(7)).unwrap().is_none(), "under way");
        let other = fetching.begin(schema(8)).unwrap().unwrap();
        assert_eq!(first.now_or_never(), Some(()));
        fetching.ended(schema(7));
        assert_eq!(other.now_or_never(), Some(()));
        assert_eq!(asked.get(), 2);
        assert!(fetching.begin(schema(7)).unwrap().is_some());
        assert!(fetching.begin(schema(8)).unwrap().is_none(), "nobody said that it ended");
    }

    #[test]
    fn what_nobody_holds_is_refused_each_time() {
        let mut fetching = Fetching::new(Nothing);
        for _ in 0..2 {
            assert_eq!(fetching.begin(schema(7)).err(), Some(Unobtainable));
        }
    }
}
