//! The guards of the promise, by name.
//!
//! A guard is a condition that keeps something from happening. Where the code asks one it writes
//! `guard!(Name, condition)`. That is the condition and nothing else, except in this crate's tests:
//! they can take a guard away, and then its condition never holds on that thread. So the simulation
//! proves for each guard that somebody would notice.

/// The condition of a guard: `guard!(VersionLower, version < stored)`.
macro_rules! guard {
    ($name:ident, $condition:expr) => {{
        #[cfg(test)]
        let stands = $crate::guard::stands($crate::guard::Guard::$name);
        #[cfg(not(test))]
        let stands = true;
        stands && $condition
    }};
}

pub(crate) use guard;

#[cfg(test)]
pub(crate) use removal::{Guard, guards, stands, without};

#[cfg(test)]
mod removal {
    use std::cell::Cell;

    /// Declares an enum of guards that can list them all.
    macro_rules! guards {
        ($(#[$meta:meta])* $visible:vis enum $name:ident {
            $($(#[$doc:meta])* $variant:ident,)*
        }) => {
            $(#[$meta])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            $visible enum $name { $($(#[$doc])* $variant,)* }

            impl $name {
                /// Every one of them.
                $visible const ALL: &'static [Self] = &[$(Self::$variant,)*];
            }
        };
    }

    pub(crate) use guards;

    guards! {
        /// What can be taken away.
        pub(crate) enum Guard {
            /// Progress stops before an unfinished record (INV-1).
            ContiguousPrefix,
            /// A key with a group on its way gives no second one (INV-3).
            OneGroupPerKey,
            /// Answers of an older session are ignored.
            SessionTag,
            /// Records and answers of an older reading are ignored.
            GenerationTag,
            /// A record with a letter is not decided again (INV-4).
            LetterIsTerminal,
            /// Rule 1: a record that the stored position covers is not decided again (INV-4).
            PositionCovered,
            /// What comes later for a parked aggregate is parked (INV-8).
            AggregateParked,
            /// What took effect from another partition is not parked when it comes again (ADR 0008).
            TookEffectBefore,
            /// A later record of the partition of a delete begins the aggregate anew.
            DeletedBeginsAnew,
            /// An unversioned event of another partition does not bring a deleted aggregate back.
            DeletedStays,
            /// A lower version changes nothing.
            VersionLower,
            /// The newest event again is not a conflict.
            EventRepeated,
            /// The stored version under another id is not taken for an old event.
            VersionConflict,
            /// Missing versions park the aggregate where the policy says so.
            VersionGap,
            /// An event without a version does not take the aggregate's away.
            VersionKept,
            /// Nothing is dead-lettered at its first failure (INV-7).
            SecondFailure,
            /// What fails in a way that is not its own is not given up before its time.
            TriedLongEnough,
            /// The brakes are asked before letters are written.
            BrakeAsked,
            /// Letters that were not written, because the row was another one, are decided again.
            JudgedAgain,
            /// Letters that were not written, because somebody else owns the stream, end the reading.
            NotOwner,
        }
    }

    thread_local! {
        static REMOVED: Cell<Option<Guard>> = const { Cell::new(None) };
    }

    /// Whether a guard is in place on this thread.
    pub(crate) fn stands(guard: Guard) -> bool {
        REMOVED.get() != Some(guard)
    }

    /// Puts back what was removed before, also when a run panics.
    struct Restore(Option<Guard>);

    impl Drop for Restore {
        fn drop(&mut self) {
            REMOVED.set(self.0);
        }
    }

    /// Runs `work` without a guard.
    pub(crate) fn without<T>(guard: Option<Guard>, work: impl FnOnce() -> T) -> T {
        let _restore = Restore(REMOVED.replace(guard));
        work()
    }
}
