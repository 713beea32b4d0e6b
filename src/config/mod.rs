//! The configuration: `config/default.toml` first, then a file, then `PGSLUICE__SECTION__KEY`
//! variables. `config/default.toml` holds every key with its default and is the manual; the
//! structs here hold what was read, checked and resolved.
//!
//! Every problem is found in one pass and reported with its key and the place it was read from,
//! see [`load`].

mod client_library;
mod field_source;
mod format;
mod load;
#[cfg(test)]
mod mistakes;
mod section;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use client_library::AnyProperty;
pub use client_library::{ClientLibrary, PropertiesRefused};
pub use field_source::{FieldSource, FieldSources};
pub use format::{FORMATS, Format, FormatDefaults};
pub use load::layer::Place;
#[cfg(any(test, fuzzing))]
pub(crate) use load::load_text;
pub(crate) use load::near::suggestion;
pub use load::problem::{ConfigProblem, ConfigProblems};
pub use load::units::{Bytes, parse_duration};
pub use load::{DEFAULT_TOML, doubtful_variables, load, variables};
pub use section::admin::AdminConfig;
pub use section::batch::BatchConfig;
pub use section::dead_letter::{BrakeConfig, DeadLetterConfig, HeaderStyle};
pub use section::decode::{DecodeConfig, EnvelopeSources, NumberTime, Tombstone};
pub use section::group::{GroupConfig, OnGap};
pub use section::kafka::{KafkaConfig, StartFrom};
pub use section::limits::LimitsConfig;
pub use section::log::{LogConfig, LogFormat};
pub use section::notification::{EventJson, NotificationConfig, NotificationWrite};
pub use section::postgres::{
    Durability, Migrate, PostgresConfig, Target, Tls, UrlError, Verification,
};
pub use section::retry::RetryConfig;
pub use section::route::{
    ColumnSources, DeleteRoute, DocumentRoute, DocumentState, OnUnmatched, RouteAction,
    RouteConfig, TableName, UpsertRoute,
};
pub use section::route_name::DEFAULT_ROUTE;
pub use section::shutdown::ShutdownConfig;

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
