//! What can fail in the database, and the one decision that follows from it.
//!
//! A fault carries codes and names only. Text from the server or the driver is never kept: its
//! message and detail hold row values (INV-9).

mod poll;
mod sqlstate;

use std::fmt;

use crate::verdict::Reason;

pub use poll::PollFault;
pub use sqlstate::{CannotMove, FaultPolicy, Override};

/// A five character SQLSTATE.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SqlState(pub [u8; 5]);

impl SqlState {
    /// Reads a code; `None` unless it is five ASCII letters or digits.
    pub fn parse(code: &str) -> Option<Self> {
        let bytes: [u8; 5] = code.as_bytes().try_into().ok()?;
        bytes.iter().all(u8::is_ascii_alphanumeric).then_some(Self(bytes))
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("?????")
    }

    /// What the codes mean that an operator meets most, and that the server says without a name.
    fn meaning(self) -> Option<&'static str> {
        match self.as_str() {
            "28P01" | "28000" => Some("user or password rejected, or no password given"),
            "3D000" => Some("no such database"),
            "53300" => Some("too many connections"),
            "25006" => Some("the server accepts no writes"),
            "0A000" => Some("the server does not support this for such a table"),
            "42501" => Some("permission denied"),
            "42703" => Some("no such column"),
            "42P01" => Some("no such table"),
            "53100" => Some("disk full"),
            _ => None,
        }
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a fault comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The server answered with an error.
    Server(SqlState),
    /// The connection failed or was closed; what was in flight is unknown.
    Connection,
    /// No answer within our own deadline; what was in flight is unknown.
    Deadline,
    /// The driver refused a parameter's type: the target's schema changed under us.
    DriverType,
    /// The statement could not be encoded, e.g. larger than the protocol allows.
    Encode,
    /// A route does not fit its table as the catalog shows it: [`Fault::route`] says how.
    Route,
    /// A brake or a limit keeps the route's outcomes from being written: [`Fault::route`] says which.
    Brake,
    /// The routes' tables are not what the session compiled its statements for.
    PlanChanged,
    /// The server does not show the session's lock: another server, a pooler, or a lost session.
    LockNotSeen,
    /// No broker answered, and a first session waits for one.
    BrokersSilent,
    /// No connection, because of TLS: nothing was sent, an operator mends certificates or modes.
    Tls(TlsFault),
    /// Answers that the protocol does not allow, or another state that should not be.
    Bug(&'static str),
}

/// What is wrong with the TLS of a server or with ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsFault {
    /// The server does not speak TLS at all.
    ServerWithoutTls,
    /// The certificate's chain does not end at one that is trusted.
    UnknownCa,
    /// The certificate is for another host.
    WrongName,
    /// The certificate was valid once.
    Expired,
    /// The certificate, or our clock, is not yet there.
    NotYetValid,
    /// The certificate has another flaw.
    BadCertificate,
    /// The handshake failed: no version or cipher in common, or the server refuses our certificate.
    Handshake,
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServerWithoutTls => "the server does not support it, but sslmode requires it",
            Self::UnknownCa => {
                "the server's certificate is not signed by sslrootcert (or, without sslrootcert, \
                 by an authority that the system trusts)"
            }
            Self::WrongName => "the server's certificate does not name the host of postgres.url",
            Self::Expired => "a certificate in the server's chain has expired",
            Self::NotYetValid => "a certificate in the server's chain is not valid yet",
            Self::BadCertificate => "the server's certificate is not valid",
            Self::Handshake => {
                "the handshake failed (versions, ciphers, or the client certificate)"
            }
        })
    }
}

/// A failed attempt, with the names that help an operator and none of the values.
#[derive(Clone, PartialEq, Eq)]
pub struct Fault {
    /// What failed.
    pub kind: FaultKind,
    /// The route concerned, by its name and, where we looked at the catalog ourselves, what its table lacks:
    /// names only.
    pub route: Option<Box<str>>,
    /// Constraint named by the server.
    pub constraint: Option<Box<str>>,
    /// Table named by the server, with its schema.
    pub table: Option<Box<str>>,
    /// Column named by the server.
    pub column: Option<Box<str>>,
    /// A user's own code raised it, a trigger's for example: whatever its code says, it says
    /// nothing of the server.
    pub raised: bool,
}

impl Fault {
    /// A fault without names.
    pub fn new(kind: FaultKind) -> Self {
        Self { kind, route: None, constraint: None, table: None, column: None, raised: false }
    }

    /// The SQLSTATE, when the server gave one.
    pub fn sqlstate(&self) -> Option<SqlState> {
        match self.kind {
            FaultKind::Server(code) => Some(code),
            _ => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.route, self.kind) {
            (Some(route), FaultKind::Route | FaultKind::Brake) => f.write_str(route)?,
            (Some(route), _) => write!(f, "{route}: ")?,
            (None, _) => {}
        }
        match self.kind {
            FaultKind::Route | FaultKind::Brake => {}
            FaultKind::PlanChanged => f.write_str("the routes' tables changed")?,
            FaultKind::Server(code) => {
                write!(f, "sqlstate {code}")?;
                if self.raised {
                    f.write_str(" (raised by a trigger or function)")?;
                } else if let Some(meaning) = code.meaning() {
                    write!(f, " ({meaning})")?;
                }
            }
            FaultKind::Connection => f.write_str("connection lost")?,
            FaultKind::Deadline => f.write_str("no answer before the deadline")?,
            FaultKind::DriverType => f.write_str("parameter type rejected")?,
            FaultKind::Encode => f.write_str("statement could not be encoded")?,
            FaultKind::LockNotSeen => f.write_str("session lock not seen")?,
            FaultKind::BrokersSilent => f.write_str("no broker answers")?,
            FaultKind::Tls(what) => write!(f, "TLS: {what}")?,
            FaultKind::Bug(what) => write!(f, "unexpected state: {what}")?,
        }
        for (name, value) in
            [("constraint", &self.constraint), ("table", &self.table), ("column", &self.column)]
        {
            if let Some(value) = value {
                write!(f, ", {name} {value}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fault({self})")
    }
}

impl std::error::Error for Fault {}

/// What to do about a fault. Unknown faults are never dead-lettered directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Try the aggregate again after a back-off; others go on.
    RetryAfter,
    /// The session is unusable: close it, wait for the database, open a new one.
    WaitForDatabase,
    /// Data of one event: find it alone in the slow lane, dead-letter it.
    Isolate(Reason),
    /// An operator can mend it: stop the partition, try slowly, never dead-letter.
    Halt(Reason),
    /// Continuing would do harm (corruption): end the process with exit code 5.
    Stop,
}
