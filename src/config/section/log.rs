//! `[log]`: what is logged, and in which form.

use tracing_subscriber::EnvFilter;

use crate::config::load::near::suggestion;
use crate::config::load::reader::Section;

/// Logs, on stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A level, or a filter such as `info,pgsluice::kafka=debug`.
    pub level: String,
    /// The form; `None`: pretty on a terminal, JSON otherwise.
    pub format: Option<LogFormat>,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// Levels, from silent to everything.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Whether the text is a level or a filter. A word alone must be a level: the filter would take any
/// other for the name of a module, and everything else would be silent.
fn is_filter(text: &str) -> bool {
    let known = |part: &str| {
        part.contains(['=', '[']) || LEVELS.iter().any(|level| part.eq_ignore_ascii_case(level))
    };
    text.split(',').all(|part| known(part.trim())) && EnvFilter::try_new(text).is_ok()
}

impl LogConfig {
    pub(in crate::config) fn read(mut section: Section<'_>) -> Self {
        let level = section.text("level");
        if !is_filter(&level) {
            let near = suggestion(&level, &LEVELS);
            section.problem(
                "level",
                format!(
                    "expected {}, or a filter such as \"info,pgsluice::kafka=debug\"{near}",
                    LEVELS.join(" | ")
                ),
            );
        }
        let formats = [("json", LogFormat::Json), ("pretty", LogFormat::Pretty)];
        let format = section.optional_choice("format", &formats, &[]);
        section.finish();
        Self { level, format }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_would_silence_everything_and_is_refused() {
        for filter in ["info", "WARN", "off", "info,pgsluice::kafka=debug", "pgsluice=trace, warn"]
        {
            assert!(is_filter(filter), "{filter}");
        }
        for other in ["verbose", "inf", "pgsluice", "info,pgsluice", "a=b=c", ""] {
            assert!(!is_filter(other), "{other}");
        }
    }
}
