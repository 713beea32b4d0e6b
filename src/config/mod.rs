//! The configuration: `config/default.toml` first, then a file, then `PGSLUICE__SECTION__KEY`
//! variables. `config/default.toml` holds every key with its default and is the manual; the
//! structs here hold what was read, checked and resolved.
//!
//! Every problem is found in one pass and reported with its key and the place it was read from,
//! see [`load`].

mod connection_text;
mod contradiction;
mod decode;
mod kafka;
mod limits;
mod load;
#[cfg(test)]
mod mistakes;
mod near;
mod postgres;
mod properties;
mod read;
mod route;
mod source;
mod surface;
#[cfg(test)]
mod tests;
mod tls;
mod units;

pub use decode::{
    DecodeConfig, EnvelopeField, FieldSource, FieldSources, Format, NumberTime, Tombstone,
    VersionSource,
};
pub use kafka::{KafkaConfig, StartFrom};
pub use limits::{BatchConfig, GroupConfig, LimitsConfig, OnGap, RetryConfig, ShutdownConfig};
#[cfg(any(test, fuzzing))]
pub(crate) use load::load_text;
pub use load::{DEFAULT_TOML, doubtful_variables, load, variables};
pub use postgres::{Durability, Migrate, PostgresConfig, Target, UrlError};
pub use read::{ConfigProblem, ConfigProblems};
pub use route::{DocumentState, OnUnmatched, RouteAction, RouteConfig, TableName};
pub use source::Place;
pub use surface::{
    AdminConfig, BrakeConfig, DeadLetterConfig, EventJson, HeaderStyle, LogConfig, LogFormat,
    NotificationConfig, NotificationWrite,
};
pub use tls::{Tls, Verification};
pub use units::{Bytes, parse_duration};

/// The whole configuration, checked and resolved.
///
/// `Debug` prints no secret: the database URL is a `SecretString`, and of the Kafka properties
/// only the names are shown.
#[derive(Debug, Clone)]
pub struct Config {
    /// What happens to an event that no route matches; asked only where routes are configured.
    pub on_unmatched: OnUnmatched,
    /// Where records come from.
    pub kafka: KafkaConfig,
    /// What is gathered before it is dispatched.
    pub batch: BatchConfig,
    /// Bounds on memory and work.
    pub limits: LimitsConfig,
    /// How records are read.
    pub decode: DecodeConfig,
    /// How events are ordered.
    pub group: GroupConfig,
    /// Where rows go.
    pub postgres: PostgresConfig,
    /// Routes, first match wins. Empty: every event takes the default document route.
    pub routes: Vec<RouteConfig>,
    /// What happens to poison.
    pub dead_letter: DeadLetterConfig,
    /// Which outcomes leave a row.
    pub notification: NotificationConfig,
    /// Retries of a single aggregate.
    pub retry: RetryConfig,
    /// How the process ends.
    pub shutdown: ShutdownConfig,
    /// The admin port.
    pub admin: AdminConfig,
    /// Logs.
    pub log: LogConfig,
}
