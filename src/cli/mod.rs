//! Command line: one file per subcommand.

mod check;
mod health;
mod migrate;
mod resume;
mod run;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config};
use crate::exit::ExitReason;
use crate::kafka;

/// Moves events from Kafka into PostgreSQL: each aggregate in its own transaction, one final
/// outcome for every record.
#[derive(Debug, Parser)]
#[command(name = "pgsluice", version, propagate_version = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Settings come from the built-in defaults, then the configuration file, then variables such as
PGSLUICE__KAFKA__GROUP. `pgsluice check --defaults` prints every setting with its default.

Exit codes: 0 clean, 1 ended before the drain was finished, 2 configuration or usage, 3 dependency
unavailable at start, 4 fenced, 5 corruption, 70 bug.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Moves events until it is stopped
    ///
    /// SIGTERM or SIGINT drains: the process stops reading, finishes what is in flight, makes it
    /// durable and leaves the group. A second signal ends the process at once. Nothing is lost:
    /// unfinished records are read again.
    Run(Source),
    /// Checks the configuration; with --connect also its brokers and database
    ///
    /// Without --connect it needs no network. It prints every problem with its key and the line or
    /// variable it comes from, and ends with exit code 2 if there is one. With --connect it checks
    /// brokers, topics, group, server, tables and grants, and changes nothing; exit code 3 means
    /// that one of them did not answer. With --sample it also shows what real records would do.
    Check(check::Arguments),
    /// Creates or updates pgsluice's own tables
    ///
    /// `run` does the same at start unless postgres.migrate is "verify". Migrations only add, so
    /// older and newer versions of pgsluice work side by side.
    Migrate(migrate::Arguments),
    /// Lists active brakes, and lifts them
    ///
    /// A brake halts a partition when too many events of a route are dead-lettered or stale (reason
    /// dead_letter_flood or stale_flood). Once the cause is fixed, the partition resumes
    /// automatically. Use this command only for events that really are bad.
    Resume(resume::Arguments),
    /// Checks the health of a running daemon on this host
    ///
    /// Exit code 0 if its admin port (admin.listen) answers /live with 200, otherwise 1. Made for
    /// the health check of a container that has no other program for it.
    Health(health::Arguments),
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Args)]
struct Source {
    /// Configuration file; not needed if variables give every required setting
    #[arg(long, short, value_name = "FILE", env = "PGSLUICE_CONFIG")]
    config: Option<PathBuf>,
}

/// Reads the command line, runs the command and says how it ended.
pub fn main() -> ExitCode {
    // First, or OpenSSL frees what it has at exit under a client that is still talking: nobody waits
    // for a question to a broker once the process ends.
    openssl::init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors: clap knows which stream and code each one has.
            let failed = error.print().is_err();
            let code = if failed { 1 } else { u8::try_from(error.exit_code()).unwrap_or(2) };
            return ExitCode::from(code);
        }
    };
    let reason = match cli.command {
        Command::Run(source) => with_config(&source, run::run),
        Command::Check(arguments) => check::check(&arguments),
        Command::Health(arguments) => return health::health(&arguments),
        Command::Migrate(arguments) => migrate::run(&arguments),
        Command::Resume(arguments) => resume::resume(&arguments),
    };
    reason.into()
}

/// Loads the configuration and goes on with it, or prints every problem.
fn with_config(source: &Source, command: impl FnOnce(Config) -> ExitReason) -> ExitReason {
    match load(source) {
        Ok(config) => command(config),
        Err(problems) => {
            print_problems(&problems);
            ExitReason::Configuration
        }
    }
}

fn load(source: &Source) -> Result<Config, config::ConfigProblems> {
    let variables = config::variables(std::env::vars_os())?;
    config::load(source.config.as_deref(), variables.into_iter(), &kafka::Librdkafka)
}

/// Prints problems to stderr, one a line.
fn print_problems(problems: &config::ConfigProblems) {
    let count = problems.0.len();
    let noun = if count == 1 { "problem" } else { "problems" };
    complain(&format!("{count} {noun} in the configuration:\n{problems}"));
}

/// Prints to stderr, for what happens before there are logs.
fn complain(text: &str) {
    // There is nobody else to tell.
    writeln!(io::stderr(), "{text}").ok();
}

/// Prints a command's result. A reader that has seen enough, such as `head`, is no failure.
fn say(text: &str) {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("cannot print the result: {}", error.kind()));
        }
        Ok(()) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;
    use regex::Regex;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_line_that_the_documents_show_is_understood() {
        // In code: within a line, or a line of its own with a remark behind it.
        let shown = Regex::new(
            r"(?m)`pgsluice ([^`…]+)`|^pgsluice ((?:check|run|migrate|resume|health)\b[^#\n]*)|cargo run -- ([^#`\n]+)",
        );
        let shown = shown.expect("valid");
        let mut count = 0;
        for path in ["README.md", "CHANGELOG.md", "docs/operations.md", "docs/runbook.md"] {
            let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(&path).expect("a document");
            for found in shown.captures_iter(&text) {
                let line = found.iter().skip(1).flatten().next().expect("one of them").as_str();
                let line = line.replace(" N", " 1").replace("next|earliest|latest", "next");
                let parsed =
                    Cli::try_parse_from(["pgsluice"].into_iter().chain(line.split_whitespace()));
                let kind = parsed.err().map(|error| error.kind());
                // What is named without all that it needs is fine.
                let known = !matches!(
                    kind,
                    Some(
                        ErrorKind::UnknownArgument
                            | ErrorKind::InvalidSubcommand
                            | ErrorKind::InvalidValue
                    )
                );
                assert!(known, "{path}: pgsluice {line}: {kind:?}");
                count += 1;
            }
        }
        assert!(count > 20, "only {count} found");
    }

    #[test]
    fn every_command_has_help_and_takes_a_configuration() {
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name}");
            let takes = command.get_arguments().any(|argument| argument.get_id() == "config");
            assert!(takes, "{name}");
        }
    }
}
