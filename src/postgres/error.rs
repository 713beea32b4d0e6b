//! From the driver's errors to a [`Fault`].
//!
//! This is the only file that touches `DbError`. The server's message and detail hold row values
//! and the driver's chain prints them, so neither is kept, stored or printed anywhere (INV-9):
//! a fault has the SQLSTATE and the names of constraint, table and column, nothing else.

use deadpool_postgres::PoolError;
use deadpool_postgres::{HookError, TimeoutType};
use tokio_postgres::error::DbError;
use tokio_postgres::types::WrongType;

use pgsluice_core::fault::{Fault, FaultKind, SqlState, TlsFault};

/// PostgreSQL cuts names to this many bytes; anything longer is not a name but text that a
/// trigger put into the field, and may hold values.
const LONGEST_NAME: usize = 63;

/// The server's functions behind PL/pgSQL's `raise` and PL/Python's `plpy.error`: names in what they
/// report were written by a user's code, which may have put a value there.
const RAISING: [&str; 2] = ["exec_stmt_raise", "PLy_output"];

/// The server's function that finds that a prepared statement would give other columns now.
const REVALIDATING: &str = "RevalidateCachedQuery";

/// `feature_not_supported`.
const NOT_SUPPORTED: SqlState = SqlState(*b"0A000");

/// Stands for the name of a constraint that a user's code enforces.
const RAISED: &str = "raised";

/// `invalid_authorization_specification`: the driver gives no code when it cannot answer the
/// server's demand for a password.
const NOT_AUTHENTICATED: SqlState = SqlState(*b"28000");

/// Stands for a code that is not five letters and digits; `internal_error`, which is tried again.
const UNREADABLE_CODE: SqlState = SqlState(*b"XX000");

/// What failed, without any of the server's or the driver's text.
pub fn fault_of(error: &tokio_postgres::Error) -> Fault {
    match error.as_db_error() {
        Some(answer) => from_answer(answer),
        None => Fault::new(kind_of(error)),
    }
}

/// What failed when a connection of the slow lane was asked for.
pub(super) fn fault_of_pool(error: &PoolError) -> Fault {
    match error {
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
            fault_of(error)
        }
        // The only check that a new connection of the pool has to pass.
        PoolError::PostCreateHook(HookError::Message(_)) => Fault::new(FaultKind::LockNotSeen),
        PoolError::Timeout(TimeoutType::Wait | TimeoutType::Create | TimeoutType::Recycle) => {
            Fault::new(FaultKind::Deadline)
        }
        PoolError::Closed => Fault::new(FaultKind::Connection),
        PoolError::NoRuntimeSpecified => Fault::new(FaultKind::Bug("pool without a runtime")),
    }
}

fn from_answer(answer: &DbError) -> Fault {
    if answer.routine().is_some_and(|routine| RAISING.contains(&routine)) {
        return raised(sqlstate(answer));
    }
    if sqlstate(answer) == NOT_SUPPORTED && answer.routine() == Some(REVALIDATING) {
        return Fault::new(FaultKind::PlanChanged);
    }
    let table = match (answer.schema(), answer.table()) {
        (Some(schema), Some(table)) => name(schema).zip(name(table)).map(|(schema, table)| {
            let mut full = String::from(schema);
            full.push('.');
            full.push_str(&table);
            full.into_boxed_str()
        }),
        (None, Some(table)) => name(table),
        (_, None) => None,
    };
    Fault {
        kind: FaultKind::Server(sqlstate(answer)),
        route: None,
        constraint: answer.constraint().and_then(name),
        table,
        column: answer.column().and_then(name),
        raised: false,
    }
}

/// What a user's own code raised: its names are not kept. One that says it is a constraint's
/// keeps that much, because the server itself names none where a table lacks a partition.
fn raised(code: SqlState) -> Fault {
    let constraint = code.as_str().starts_with("23").then(|| RAISED.into());
    Fault { constraint, raised: true, ..Fault::new(FaultKind::Server(code)) }
}

/// The code of an answer or notice.
pub(super) fn sqlstate(answer: &DbError) -> SqlState {
    SqlState::parse(answer.code().code()).unwrap_or(UNREADABLE_CODE)
}

fn name(text: &str) -> Option<Box<str>> {
    (text.len() <= LONGEST_NAME).then(|| text.into())
}

/// Whether the server asked for a password and the configuration has none.
fn wants_password(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.to_string() == "password missing")
}

/// The kind of an error that is not an answer of the server.
///
/// The driver keeps its own kind private; its `Display` is one fixed sentence for each (the cause
/// is not part of it), which the tests below and the integration tests hold fast.
fn kind_of(error: &tokio_postgres::Error) -> FaultKind {
    let wrong_type = std::error::Error::source(error).is_some_and(|cause| cause.is::<WrongType>());
    let sentence = error.to_string();
    match sentence.as_str() {
        "connection closed"
        | "error communicating with the server"
        | "error connecting to server"
        | "timeout waiting for server"
        | "unexpected message from server"
        | "error parsing response from server" => FaultKind::Connection,
        "error encoding message to server" => FaultKind::Encode,
        "authentication error" => FaultKind::Server(NOT_AUTHENTICATED),
        "error performing TLS handshake" => FaultKind::Tls(tls_fault(error)),
        "invalid configuration" if wants_password(error) => FaultKind::Server(NOT_AUTHENTICATED),
        "invalid connection string" | "invalid configuration" => {
            FaultKind::Bug("connection configuration rejected by the driver")
        }
        other if other.starts_with("error serializing parameter") => {
            if wrong_type {
                FaultKind::DriverType
            } else {
                FaultKind::Encode
            }
        }
        other if other.starts_with("error deserializing column") && wrong_type => {
            FaultKind::DriverType
        }
        _ => FaultKind::Bug("answer with an unexpected shape"),
    }
}

/// What the driver itself says of TLS; what is wrong with a certificate only [`super::tls`] hears.
fn tls_fault(error: &tokio_postgres::Error) -> TlsFault {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    match cause.as_deref() {
        Some("server does not support TLS") => TlsFault::ServerWithoutTls,
        _ => TlsFault::Handshake,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_times_out_is_an_outage() {
        let error = tokio_postgres::Error::__private_api_timeout();
        assert_eq!(fault_of(&error).kind, FaultKind::Connection);
    }

    #[test]
    fn a_connection_text_the_driver_refuses_is_not_an_outage() {
        let error = "host="
            .parse::<tokio_postgres::Config>()
            .and_then(|_| "port=x".parse::<tokio_postgres::Config>());
        let fault = fault_of(&error.unwrap_err());
        assert!(matches!(fault.kind, FaultKind::Bug(_)), "{fault}");
    }

    #[test]
    fn a_new_connection_that_does_not_see_the_lock_is_told_apart() {
        let refused = PoolError::PostCreateHook(HookError::message("any"));
        assert_eq!(fault_of_pool(&refused).kind, FaultKind::LockNotSeen);
        assert_eq!(
            fault_of_pool(&PoolError::Timeout(TimeoutType::Create)).kind,
            FaultKind::Deadline
        );
        assert_eq!(fault_of_pool(&PoolError::Closed).kind, FaultKind::Connection);
    }

    #[test]
    fn text_that_cannot_be_a_name_is_dropped() {
        assert_eq!(name("customer_pkey").as_deref(), Some("customer_pkey"));
        assert_eq!(name(&"v".repeat(64)), None);
    }
}
