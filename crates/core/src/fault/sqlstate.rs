//! The one table from fault to decision.
//!
//! Every code that PostgreSQL 15 knows has a rule of its own (see `Rule`); a code it does not
//! know follows the `000` code of its class, and a class it does not know is tried again: unknown
//! is never dead-lettered. Users may move only codes that their own triggers raise; what such code
//! raises never ends a session or the process, whatever its code means when the server says it.

mod table;

use std::collections::BTreeMap;

use crate::fault::{Decision, Fault, FaultKind, SqlState};
use crate::verdict::Reason;

use table::RULES;

/// What a SQLSTATE means for a sink, before it is turned into a [`Decision`].
///
/// | rule | word in the fixture | decision |
/// | --- | --- | --- |
/// | `Retry` | RETRY_TXN | `RetryAfter` |
/// | `Reconnect` | RETRY_CONN | `WaitForDatabase` |
/// | `OutcomeUnknown` | UNKNOWN | `WaitForDatabase`: applying again is harmless (INV-4) |
/// | `Wait` | WAIT_DB | `WaitForDatabase` |
/// | `Isolate` | ISOLATE | `Isolate`, reason by class |
/// | `Notice` | WARN | `Isolate(RaisedException)`: as an error it can only be raised by a user's function |
/// | `Halt` | HALT | `Halt`, reason by class |
/// | `Fatal` | FATAL | `Stop` for corruption, else `Halt`: an operator mends it |
/// | `Bug` | BUG | `Halt(Unexpected)` |
/// | `NotAnError` | OK | `Halt(Unexpected)` |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Rolled back by the server; the same transaction may pass next time.
    Retry,
    /// The connection is of no more use.
    Reconnect,
    /// The commit may or may not have happened.
    OutcomeUnknown,
    /// The server cannot work at the moment.
    Wait,
    /// The data of one event is at fault.
    Isolate,
    /// Normally only a notice.
    Notice,
    /// The same for every event until an operator acts.
    Halt,
    /// No work is possible with this server as it is.
    Fatal,
    /// Our own mistake.
    Bug,
    /// Success; never arrives as an error.
    NotAnError,
}

/// Where a user may move a code that their own triggers raise (`retry.sqlstate`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Override {
    /// Try again after a back-off.
    Retry,
    /// The event is at fault: dead-letter it.
    Isolate,
    /// Stop the partition until an operator acts.
    Halt,
}

impl Override {
    /// The word of the configuration.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "retry" => Some(Self::Retry),
            "isolate" => Some(Self::Isolate),
            "halt" => Some(Self::Halt),
            _ => None,
        }
    }
}

/// A code that may not be moved: its decision protects the database or the promise itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server itself raises {0}; only codes that your own triggers raise can be set")]
pub struct CannotMove(pub SqlState);

/// Turns faults into decisions; pure and complete.
#[derive(Debug, Clone, Default)]
pub struct FaultPolicy {
    overrides: BTreeMap<SqlState, Override>,
}

impl FaultPolicy {
    /// The built-in table, with the user's own codes moved.
    ///
    /// # Errors
    /// [`CannotMove`] for a code about the connection, the server's health, corruption or our own
    /// mistakes, and for `isolate` on what the built-in table retries or halts on: dead-lettering
    /// on those would turn an outage, a lock or a missing grant into lost data (INV-7).
    pub fn new(overrides: BTreeMap<SqlState, Override>) -> Result<Self, CannotMove> {
        for (code, wanted) in &overrides {
            match (rule_of(*code), wanted) {
                (Some(Rule::Isolate | Rule::Notice) | None, _)
                | (Some(Rule::Retry | Rule::Halt), Override::Retry | Override::Halt) => {}
                (Some(Rule::Retry | Rule::Halt), Override::Isolate)
                | (
                    Some(
                        Rule::Reconnect
                        | Rule::OutcomeUnknown
                        | Rule::Wait
                        | Rule::Fatal
                        | Rule::Bug
                        | Rule::NotAnError,
                    ),
                    _,
                ) => return Err(CannotMove(*code)),
            }
        }
        Ok(Self { overrides })
    }

    /// What follows from a fault.
    pub fn decide(&self, fault: &Fault) -> Decision {
        match fault.kind {
            FaultKind::Server(code) => {
                match self.decide_code(code, fault.constraint.as_deref()) {
                    // The connection that brought it is as good as any.
                    Decision::WaitForDatabase | Decision::Stop if fault.raised => {
                        Decision::RetryAfter
                    }
                    decision => decision,
                }
            }
            FaultKind::Connection
            | FaultKind::Deadline
            | FaultKind::PlanChanged
            | FaultKind::LockNotSeen
            | FaultKind::BrokersSilent
            | FaultKind::Tls(_) => Decision::WaitForDatabase,
            FaultKind::Route => Decision::Halt(Reason::SchemaMismatch),
            // Raised with its own reason where it is decided; it is no failure of a statement.
            FaultKind::Brake => Decision::Halt(Reason::Unexpected),
            // The value was checked against the column's type when the session began, so the
            // type changed since.
            FaultKind::DriverType => Decision::Halt(Reason::SchemaMismatch),
            FaultKind::Encode => Decision::Isolate(Reason::DataException),
            FaultKind::Bug(_) => Decision::Halt(Reason::Unexpected),
        }
    }

    /// Whether nothing can be tried again on the session that brought the fault.
    pub fn ends_session(&self, fault: &Fault) -> bool {
        matches!(self.decide(fault), Decision::WaitForDatabase | Decision::Stop)
    }

    fn decide_code(&self, code: SqlState, constraint: Option<&str>) -> Decision {
        match self.overrides.get(&code) {
            Some(Override::Retry) => return Decision::RetryAfter,
            // A code that users move is one that their own code raises.
            Some(Override::Isolate) => return Decision::Isolate(Reason::RaisedException),
            Some(Override::Halt) => {
                return Decision::Halt(match rule_of(code) {
                    Some(Rule::Isolate | Rule::Notice) | None => Reason::RaisedException,
                    Some(_) => halt_reason(code),
                });
            }
            None => {}
        }
        // "No partition of the relation found for row" carries no constraint name: a missing
        // partition is the same for every event of its range, and an operator adds it.
        if code.0 == *b"23514" && constraint.is_none() {
            return Decision::Halt(Reason::SchemaMismatch);
        }
        match rule_of(code) {
            Some(Rule::Retry) | None => Decision::RetryAfter,
            Some(Rule::Reconnect | Rule::OutcomeUnknown | Rule::Wait) => Decision::WaitForDatabase,
            Some(Rule::Isolate) => Decision::Isolate(isolate_reason(code)),
            Some(Rule::Notice) => Decision::Isolate(Reason::RaisedException),
            Some(Rule::Halt) => Decision::Halt(halt_reason(code)),
            Some(Rule::Fatal) if class(code) == *b"XX" => Decision::Stop,
            Some(Rule::Fatal) => Decision::Halt(halt_reason(code)),
            Some(Rule::Bug | Rule::NotAnError) => Decision::Halt(Reason::Unexpected),
        }
    }
}

/// The rule of a code: its own, else that of its class, else none.
fn rule_of(code: SqlState) -> Option<Rule> {
    let find = |wanted: &[u8; 5]| {
        RULES.binary_search_by(|(listed, _)| (*listed).cmp(wanted)).ok().map(|at| RULES[at].1)
    };
    let [first, second, ..] = code.0;
    find(&code.0).or_else(|| find(&[first, second, b'0', b'0', b'0']))
}

fn class(code: SqlState) -> [u8; 2] {
    [code.0[0], code.0[1]]
}

fn isolate_reason(code: SqlState) -> Reason {
    match &class(code) {
        b"23" => Reason::ConstraintViolation,
        b"P0" => Reason::RaisedException,
        _ => Reason::DataException,
    }
}

fn halt_reason(code: SqlState) -> Reason {
    match (&class(code), &code.0) {
        (b"28", _) | (_, b"42501") => Reason::PermissionDenied,
        (_, b"25006") => Reason::ReadOnlyServer,
        (b"53", _) => Reason::ResourceExhausted,
        _ => Reason::SchemaMismatch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: &str) -> Fault {
        Fault::new(FaultKind::Server(SqlState::parse(code).unwrap()))
    }

    fn decide(code: &str) -> Decision {
        let mut fault = server(code);
        fault.constraint = Some("a_constraint".into());
        FaultPolicy::default().decide(&fault)
    }

    /// Proves INV-7.
    #[test]
    fn every_code_of_the_reference_table_is_decided_by_its_word() {
        let reference = include_str!("../../fixtures/faults_sqlstate.tsv");
        let mut rows = 0;
        for line in reference.lines().skip(1) {
            let mut cells = line.split('\t');
            let (code, _, word) =
                (cells.next().unwrap(), cells.next().unwrap(), cells.next().unwrap());
            let decision = decide(code);
            let fits = match word {
                "RETRY_TXN" => decision == Decision::RetryAfter,
                // The word is for one message of this code, which has a kind of its own
                // (`PlanChanged`); the table halts on any other.
                "RETRY_CONN" if code == "0A000" => {
                    decision == Decision::Halt(Reason::SchemaMismatch)
                }
                "RETRY_CONN" | "UNKNOWN" | "WAIT_DB" => decision == Decision::WaitForDatabase,
                "ISOLATE" => matches!(decision, Decision::Isolate(reason) if match &code[..2] {
                    "23" => reason == Reason::ConstraintViolation,
                    "P0" => reason == Reason::RaisedException,
                    _ => reason == Reason::DataException,
                }),
                "WARN" => decision == Decision::Isolate(Reason::RaisedException),
                "HALT" => matches!(decision, Decision::Halt(reason) if match code {
                    "42501" => reason == Reason::PermissionDenied,
                    "53400" => reason == Reason::ResourceExhausted,
                    _ => reason == Reason::SchemaMismatch,
                }),
                "FATAL" => match &code[..2] {
                    "XX" => decision == Decision::Stop,
                    "28" => decision == Decision::Halt(Reason::PermissionDenied),
                    _ => decision == Decision::Halt(Reason::SchemaMismatch),
                },
                // Two groups of a chunk that write one row: they are tried alone before this table is
                // asked. What is left comes from a user's own code.
                "BUG" if code == "21000" => decision == Decision::Isolate(Reason::DataException),
                "BUG" | "OK" => decision == Decision::Halt(Reason::Unexpected),
                other => panic!("unknown word {other}"),
            };
            assert!(fits, "{code} {word}: {decision:?}");
            rows += 1;
        }
        assert_eq!(rows, RULES.len(), "a row is missing on one side");
    }

    #[test]
    fn the_table_is_sorted_so_that_binary_search_finds_every_row() {
        assert!(RULES.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn a_missing_partition_halts_but_a_named_check_isolates() {
        let policy = FaultPolicy::default();
        assert_eq!(policy.decide(&server("23514")), Decision::Halt(Reason::SchemaMismatch));
        assert_eq!(decide("23514"), Decision::Isolate(Reason::ConstraintViolation));
    }

    #[test]
    fn an_unlisted_code_follows_its_class_and_an_unknown_class_is_tried_again() {
        assert_eq!(decide("23999"), Decision::Isolate(Reason::ConstraintViolation));
        assert_eq!(decide("42999"), Decision::Halt(Reason::SchemaMismatch));
        assert_eq!(decide("08999"), Decision::WaitForDatabase);
        assert_eq!(decide("XX999"), Decision::RetryAfter);
        assert_eq!(decide("ZZ001"), Decision::RetryAfter);
    }

    /// Proves INV-7.
    #[test]
    fn an_outage_in_any_form_is_never_isolated() {
        let policy = FaultPolicy::default();
        for kind in [
            FaultKind::Connection,
            FaultKind::Deadline,
            FaultKind::LockNotSeen,
            FaultKind::PlanChanged,
        ] {
            assert_eq!(policy.decide(&Fault::new(kind)), Decision::WaitForDatabase);
        }
        for code in ["08006", "25006", "53100", "53300", "57P01", "57P02", "57P03", "58030"] {
            assert_eq!(decide(code), Decision::WaitForDatabase, "{code}");
        }
    }

    #[test]
    fn what_a_users_code_raises_says_nothing_of_the_server() {
        let policy = FaultPolicy::default();
        for code in ["08006", "57P01", "53100", "XX001", "40003"] {
            let raised = Fault { raised: true, ..server(code) };
            assert_eq!(policy.decide(&raised), Decision::RetryAfter, "{code}");
        }
        for code in ["P0001", "22003", "42501", "40001"] {
            let raised = Fault { raised: true, ..server(code) };
            assert_eq!(policy.decide(&raised), policy.decide(&server(code)), "{code}");
        }
    }

    #[test]
    fn driver_refusals_halt_on_types_and_isolate_on_values() {
        let policy = FaultPolicy::default();
        let decide = |kind| policy.decide(&Fault::new(kind));
        assert_eq!(decide(FaultKind::DriverType), Decision::Halt(Reason::SchemaMismatch));
        assert_eq!(decide(FaultKind::Encode), Decision::Isolate(Reason::DataException));
        assert_eq!(decide(FaultKind::Bug("x")), Decision::Halt(Reason::Unexpected));
    }

    #[test]
    fn users_move_their_own_codes_only() {
        let code = |text| SqlState::parse(text).unwrap();
        let moved = FaultPolicy::new(BTreeMap::from([
            (code("P0001"), Override::Halt),
            (code("ZZ001"), Override::Isolate),
            (code("23503"), Override::Retry),
        ]))
        .unwrap();
        assert_eq!(moved.decide(&server("P0001")), Decision::Halt(Reason::RaisedException));
        assert_eq!(moved.decide(&server("ZZ001")), Decision::Isolate(Reason::RaisedException));
        assert_eq!(moved.decide(&server("23503")), Decision::RetryAfter);
        for forbidden in [
            "08006", "57P01", "XX001", "53100", "42601", "28000", "00000", "42P01", "42501",
            "55P03", "40001",
        ] {
            let refused = FaultPolicy::new(BTreeMap::from([(code(forbidden), Override::Isolate)]));
            assert_eq!(refused.unwrap_err(), CannotMove(code(forbidden)));
        }
    }
}
