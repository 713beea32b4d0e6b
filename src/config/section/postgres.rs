//! `[postgres]`: the connection, its limits, and how secrets reach it.

mod connection_text;
mod tls;

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::SslMode;

use self::tls::is_local;
pub use self::tls::{Tls, Verification};
use crate::config::load::file::read_secret_line;
use crate::config::load::reader::Section;

/// The database, and the session that writes to it.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// Connection URL or `key=value` text; empty when it comes from `url_file`.
    pub url: SecretString,
    /// A file that holds the URL, read on every connect.
    pub url_file: Option<PathBuf>,
    /// A file that holds the password, read on every connect.
    pub password_file: Option<PathBuf>,
    /// Schema of pgsluice's own tables.
    pub schema: String,
    /// Whether the tables are created and migrated, or only looked at.
    pub migrate: Migrate,
    /// Pipelined connections.
    pub lanes: usize,
    /// Transactions in flight per lane.
    pub in_flight: usize,
    /// Aggregates that share a transaction; a chunk that fails is split.
    pub aggregates_per_transaction: usize,
    /// What makes a commit durable.
    pub durability: Durability,
    /// Connections of the slow lane.
    pub slow_connections: usize,
    /// How long opening one connection may take.
    pub connect_timeout: Duration,
    /// `lock_timeout` of the lanes: a locked row delays everything behind it.
    pub lane_lock_timeout: Duration,
    /// `lock_timeout` of the slow lane.
    pub slow_lock_timeout: Duration,
    /// `statement_timeout` of every connection.
    pub statement_timeout: Duration,
    /// Our own limit for an answer; exceeded, the session is closed. Above `statement_timeout`.
    pub deadline: Duration,
    /// How long database and brokers may take to answer at start, before the process ends with
    /// code 3.
    pub startup_timeout: Duration,
}

/// What happens to pgsluice's own tables at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Migrate {
    /// Missing migrations are run.
    Auto,
    /// Missing migrations end the process.
    Verify,
}

/// What makes a commit durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// One durable barrier for many commits.
    Batch,
    /// Every commit waits for the disk.
    Transaction,
}

/// Why there is no connection configuration. Names what to mend, never a part of the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// A file could not be read.
    #[error("{0}")]
    File(String),
    /// Neither a URL nor `key=value` text.
    #[error(
        "is not a PostgreSQL URL such as postgres://user@host:5432/database (percent-encode \
         special characters in it)"
    )]
    Syntax,
    /// A character that ends a part of the URL stands within one: what follows it was taken for
    /// the host, say.
    #[error(
        "contains an @ that does not end user and password: percent-encode special characters \
         there and in everything that follows, @ as %40, / as %2F, ? as %3F, # as %23, % as %25"
    )]
    Unescaped,
    /// A password in the URL and one by file.
    #[error(
        "contains a password, and postgres.password_file names one as well: give only one of them"
    )]
    TwoPasswords,
    /// A part is missing.
    #[error("has no {0}")]
    Missing(&'static str),
    /// A mode that does not exist, or `allow`, which this version does not have.
    #[error("has an sslmode that is not disable, prefer, require, verify-ca or verify-full")]
    SslMode,
    /// The system's certificates together with a mode that does not look at the host's name.
    #[error("has sslrootcert=system, which needs sslmode=verify-full")]
    SystemRoots,
    /// A file about TLS holds something else.
    #[error("names a file in {0} that is not PEM readable without a password")]
    NotPem(&'static str),
    /// The key is not that of the certificate.
    #[error("has an sslkey that does not match the first certificate of sslcert")]
    WrongKey,
    /// A parameter about security that would otherwise be dropped.
    #[error("has the parameter {0}, which this version does not support")]
    NotSupported(String),
}

/// Where to connect, with secrets and certificates as their files hold them now.
#[derive(Debug, Clone)]
pub struct Target {
    /// The driver's part.
    pub driver: tokio_postgres::Config,
    /// What TLS needs.
    pub tls: Tls,
}

impl Target {
    /// What is missing on the way to a server that is not on this machine; `None` when its
    /// certificate is looked at, or nothing leaves the machine.
    pub fn exposed(&self) -> Option<&'static str> {
        if is_local(&self.driver) || self.tls.verification != Verification::None {
            return None;
        }
        Some(match self.driver.get_ssl_mode() {
            SslMode::Disable => {
                "sslmode=disable: everything goes to another machine unencrypted, including the \
                 password"
            }
            SslMode::Prefer => {
                "sslmode=prefer: traffic to another machine is encrypted only if the server offers \
                 it, and the server's certificate is not verified"
            }
            _ => {
                "sslmode=require without sslrootcert: traffic to another machine is encrypted, but \
                 the server's certificate is not verified, so an impostor could answer"
            }
        })
    }
}

impl PostgresConfig {
    /// Where to connect, with secrets and certificates read anew from their files. Blocks for
    /// the time of reading a few small files.
    ///
    /// # Errors
    /// A file that cannot be read, or a URL that cannot be used.
    pub fn connect_config(&self) -> Result<Target, UrlError> {
        let from_file;
        let url = match &self.url_file {
            Some(path) => {
                from_file = SecretString::from(read_secret_line(path).map_err(UrlError::File)?);
                &from_file
            }
            None => &self.url,
        };
        let mut target = parse_url(url)?;
        if let Some(path) = &self.password_file {
            if target.driver.get_password().is_some() {
                return Err(UrlError::TwoPasswords);
            }
            target.driver.password(read_secret_line(path).map_err(UrlError::File)?);
        }
        target.driver.connect_timeout(self.connect_timeout);
        Ok(target)
    }

    pub(in crate::config) fn read(mut section: Section<'_>) -> Self {
        let seconds = Duration::from_secs;
        let milliseconds = Duration::from_millis;
        let hour = seconds(3600);
        let durability = [("batch", Durability::Batch), ("transaction", Durability::Transaction)];
        let config = Self {
            url: SecretString::from(section.optional_text("url").unwrap_or_default()),
            url_file: section.optional_text("url_file").map(PathBuf::from),
            password_file: section.optional_text("password_file").map(PathBuf::from),
            schema: section.text("schema"),
            migrate: section.choice(
                "migrate",
                &[("auto", Migrate::Auto), ("verify", Migrate::Verify)],
                &[],
            ),
            lanes: section.count("lanes", 1..=64),
            in_flight: section.count("in_flight", 1..=1024),
            aggregates_per_transaction: section.count("aggregates_per_transaction", 1..=1000),
            durability: section.choice("durability", &durability, &[]),
            slow_connections: section.count("slow_connections", 1..=64),
            connect_timeout: section.duration("connect_timeout", seconds(1)..=seconds(300)),
            lane_lock_timeout: section.duration("lane_lock_timeout", milliseconds(1)..=seconds(60)),
            slow_lock_timeout: section
                .duration("slow_lock_timeout", milliseconds(1)..=seconds(300)),
            statement_timeout: section.duration("statement_timeout", milliseconds(100)..=hour),
            deadline: section.duration("deadline", milliseconds(200)..=2 * hour),
            startup_timeout: section.duration("startup_timeout", Duration::ZERO..=hour),
        };
        config.check(&mut section);
        section.finish();
        config
    }

    fn check(&self, section: &mut Section<'_>) {
        match (section.has("url"), section.has("url_file")) {
            (false, false) => section.missing_with_file("url"),
            (true, true) => section.problem("url_file", "give either url or url_file, not both"),
            (from_url, _) => {
                if let Some(Err(why)) = self.password_file.as_deref().map(read_secret_line) {
                    section.problem("password_file", why);
                } else if let Err(error) = self.connect_config() {
                    section.problem(if from_url { "url" } else { "url_file" }, error.to_string());
                }
            }
        }
        if !is_identifier(&self.schema) {
            section.problem(
                "schema",
                "expected a name of at most 63 bytes without control characters",
            );
        }
        if self.schema.starts_with("pg_") {
            section.problem("schema", "names that start with pg_ are reserved for PostgreSQL");
        }
        if self.deadline <= self.statement_timeout {
            let statement = humantime::format_duration(self.statement_timeout);
            section.contradiction(
                "deadline",
                &["postgres.statement_timeout"],
                format!("must be above postgres.statement_timeout ({statement})"),
            );
        }
    }
}

/// Whether a name can be a quoted identifier without PostgreSQL cutting it short.
pub(super) fn is_identifier(name: &str) -> bool {
    !name.is_empty() && name.len() <= 63 && !name.chars().any(char::is_control)
}

/// Parses a URL. The driver's own message is dropped: it may hold parts of the URL (INV-9).
fn parse_url(url: &SecretString) -> Result<Target, UrlError> {
    // A file or a variable may have got a line end or a space behind it.
    let (text, parameters) = connection_text::split(url.expose_secret().trim())?;
    let mut driver: tokio_postgres::Config = text.parse().map_err(|_| UrlError::Syntax)?;
    if driver.get_hosts().is_empty() && driver.get_hostaddrs().is_empty() {
        return Err(UrlError::Missing("host"));
    }
    if driver.get_user().is_none() {
        return Err(UrlError::Missing("user"));
    }
    if driver.get_dbname().is_none() {
        return Err(UrlError::Missing("database"));
    }
    let tls = parameters.apply(&mut driver)?;
    Ok(Target { driver, tls })
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::Host;

    use super::*;

    fn parse(url: &str) -> Result<(), UrlError> {
        parse_url(&SecretString::from(url)).map(|_| ())
    }

    #[test]
    fn a_url_needs_host_user_and_database() {
        assert!(parse("postgres://app@localhost/app").is_ok());
        assert!(parse("host=localhost user=app dbname=app").is_ok());
        assert!(parse(" postgres://app@localhost/app \n").is_ok());
        assert_eq!(parse("postgres://localhost/app"), Err(UrlError::Missing("user")));
        assert_eq!(parse("postgres://app@localhost"), Err(UrlError::Missing("database")));
        assert_eq!(parse("user=app dbname=app"), Err(UrlError::Missing("host")));
    }

    #[test]
    fn what_reaches_another_machine_unseen_or_unverified_is_told() {
        let exposed = |url: &str| parse_url(&SecretString::from(url)).expect(url).exposed();
        for mode in ["disable", "prefer", "require"] {
            let told = exposed(&format!("postgres://a@db/d?sslmode={mode}")).expect(mode);
            assert!(told.starts_with(&format!("sslmode={mode}")), "{told}");
            assert_eq!(exposed(&format!("postgres://a@localhost/d?sslmode={mode}")), None);
        }
        for fine in ["postgres://a@db/d", "postgres://a@db/d?sslmode=verify-ca"] {
            assert_eq!(exposed(fine), None, "{fine}");
        }
    }

    #[test]
    fn special_characters_of_a_password_are_read_as_they_stand_or_told_of() {
        let password = |url: &str| {
            let target = parse_url(&SecretString::from(url)).expect(url);
            assert_eq!(target.driver.get_hosts(), [Host::Tcp("db".to_owned())], "{url}");
            String::from_utf8(target.driver.get_password().expect(url).to_vec()).expect("text")
        };
        for plain in ["p/w", "p?w", "p#w", "p:w", "p?a=b&sslmode=x", "100%"] {
            assert_eq!(password(&format!("postgres://app:{plain}@db/app")), plain);
        }
        assert_eq!(password("postgres://app:p%40w%25@db/app?sslmode=require"), "p@w%");
        for second in ["s3@cret", "s3/@cret", "s3@c/ret", "s3@c:ret", "s3@c=ret", "s3@c?ret", "@"] {
            let refused = parse(&format!("postgres://app:{second}@db:5432/app"));
            assert_eq!(refused, Err(UrlError::Unescaped), "{second}");
        }
        // In a parameter's value it is fine, unless it is the first.
        assert!(parse("postgres://app@db/app?application_name=a@b").is_ok());
        assert!(parse("postgres://app:p?w@db/app?application_name=a@b").is_ok());
        assert_eq!(parse("postgres://db/app?user=a@b"), Err(UrlError::Unescaped));
    }

    #[test]
    fn a_broken_url_never_shows_in_the_message() {
        let error = parse("postgres://app:s3cret@local host:x/app").expect_err("is broken");
        assert!(!error.to_string().contains("s3cret"));
    }
}
