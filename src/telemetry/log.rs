//! Log lines on stderr.

use std::cell::Cell;
use std::io::IsTerminal;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

use tracing::Metadata;
use tracing::subscriber::set_global_default;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::{EnvFilter, fmt, registry};

use crate::config::{LogConfig, LogFormat};

use super::lossy::LossyWriter;

/// Target of librdkafka's own lines, which the room `kafka` writes.
const LIBRDKAFKA: &str = "librdkafka";
/// Instead of a panic's message that was put together at run time.
const LEFT_OUT: &str = "(omitted)";

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.level` is no filter.
    #[error("log.level is not a level or filter")]
    Level,
    /// The thread that writes them cannot be started.
    #[error("cannot start the thread that writes logs")]
    Thread(#[source] std::io::Error),
    /// Somebody else in this process has set up logs already.
    #[error("logging is already set up")]
    AlreadySet,
}

/// Sends log lines to stderr: JSON, one object a line, or a form for people. Nobody waits for
/// stderr; [`super::flush_logs`] writes the last lines before the process ends.
///
/// Panics are logged too: by their place and, where the code spells it out, their message. A
/// message that was put together at run time may hold a value and is left out (INV-9).
///
/// # Errors
/// The filter cannot be read, no thread can be started, or logs are set up already.
pub fn init_logs(config: &LogConfig) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&config.level).map_err(|_| LogError::Level)?;
    let on_terminal = std::io::stderr().is_terminal();
    let default = if on_terminal { LogFormat::Pretty } else { LogFormat::Json };
    let writer = LossyWriter::to_stderr().map_err(LogError::Thread)?;
    let lines = fmt::layer().with_writer(writer);
    let lines = match config.format.unwrap_or(default) {
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
        LogFormat::Pretty => lines.with_ansi(on_terminal).boxed(),
    };
    let subscriber = registry().with(lines.with_filter(filter_fn(is_ours))).with(filter);
    set_global_default(subscriber).map_err(|_| LogError::AlreadySet)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Whether a line is ours. What libraries say is left out, whatever the filter says: the driver
/// logs parameters and the server's notices, its pool the driver's errors, and all of them hold row
/// values (INV-9). The `log` crate is not bridged for the same reason.
fn is_ours(line: &Metadata<'_>) -> bool {
    let target = line.target();
    target == LIBRDKAFKA || target.split("::").next() == Some(env!("CARGO_CRATE_NAME"))
}

thread_local! {
    /// Whether a panic of this thread is caught where it is expected.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// What `read` gives, or `None` when it panics: for accessors of a library that panic at input that
/// others made. It is handled here, so no line tells of it; else one producer's odd header would be
/// an error for each record.
pub(crate) fn caught<T>(read: impl FnOnce() -> T) -> Option<T> {
    let outer = CAUGHT.replace(true);
    // Nothing is left half done: such an accessor has no state of ours.
    let read = catch_unwind(AssertUnwindSafe(read));
    CAUGHT.set(outer);
    read.ok()
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    if CAUGHT.get() {
        return;
    }
    let place = panic.location().map_or_else(String::new, ToString::to_string);
    let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or(LEFT_OUT);
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    tracing::error!(event = "panic", place, thread, error = message, "a part of pgsluice panicked");
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const MARK: &str = "PayloadCanary4711";
    const VARIABLE: &str = "PGSLUICE_PANIC_CANARY";

    fn refused(mark: &str) -> Result<(), String> {
        Err(mark.to_owned())
    }

    /// Does nothing unless the test below runs it, in a process of its own: logs and the panic hook
    /// are there once for a process.
    #[test]
    fn panics_for_the_test_below() {
        let Ok(mark) = std::env::var(VARIABLE) else { return };
        init_logs(&LogConfig { level: "trace".into(), format: Some(LogFormat::Json) }).unwrap();
        type Panic = fn(&str);
        let panics: [(&str, Panic); 4] = [
            ("spelled", |_| panic!("spelled out")),
            ("formatted", |mark| panic!("no {mark}")),
            ("unwrapped", |mark| refused(mark).unwrap()),
            ("any", |mark| std::panic::panic_any(mark.to_owned())),
        ];
        // As a library would.
        tracing::event!(target: "deadpool.postgres", tracing::Level::ERROR, "not recycled: {mark}");
        for (name, panic) in panics {
            let mark = mark.clone();
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(move || panic(&mark)).unwrap().join().unwrap_err();
        }
        assert_eq!(caught(|| refused(&mark).unwrap()), None, "and no line tells of it");
        crate::telemetry::flush_logs();
    }

    /// Proves INV-9.
    #[test]
    fn a_panic_is_logged_with_its_place_and_without_its_values_inv_9() {
        let test = "telemetry::log::tests::panics_for_the_test_below";
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env(VARIABLE, MARK)
            .output()
            .unwrap();
        let printed =
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{printed}");
        assert!(!printed.contains(MARK), "{printed}");
        let lines: Vec<serde_json::Value> =
            printed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let told: Vec<_> = lines
            .iter()
            .filter(|line| line["event"] == "panic" && line["level"] == "ERROR")
            .map(|line| (line["thread"].as_str().unwrap(), line["error"].as_str().unwrap()))
            .collect();
        let left_out = ["formatted", "unwrapped", "any"].map(|thread| (thread, LEFT_OUT));
        assert_eq!(told, [&[("spelled", "spelled out")][..], &left_out[..]].concat());
        for line in lines.iter().filter(|line| line["event"] == "panic") {
            let place = line["place"].as_str().unwrap();
            assert!(place.starts_with("src/telemetry/log.rs:"), "{place}");
        }
    }
}
