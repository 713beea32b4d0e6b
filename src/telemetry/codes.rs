//! Compares `docs/logs.md` with the log lines that the sources hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// A log line as the source spells it.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    event: Option<String>,
    level: &'static str,
    fields: Vec<String>,
}

/// What the manual says of an event code: at which levels, and with which fields, it may come.
type Manual = BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>;

/// The arguments of a macro call: what stands before its closing parenthesis, cut at the commas
/// that are in no parentheses and no text.
fn arguments(text: &str) -> Vec<String> {
    let (mut depth, mut in_text, mut escaped) = (0_u32, false, false);
    let mut found = vec![String::new()];
    for character in text.chars() {
        let part = found.last_mut().expect("never empty");
        match character {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            _ if in_text => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(String::new());
                continue;
            }
            _ => {}
        }
        part.push(character);
    }
    found.iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// Every log line in a source text.
fn lines(source: &str) -> Vec<Line> {
    let mut found = Vec::new();
    for level in LEVELS {
        let call = format!("tracing::{level}!(");
        for (at, _) in source.match_indices(&call) {
            let mut line = Line { event: None, level, fields: Vec::new() };
            for argument in arguments(&source[at + call.len()..]) {
                let (name, value) = argument.split_once(" = ").unwrap_or((&argument, ""));
                if name == "event" {
                    line.event = Some(value.trim_matches('"').to_owned());
                } else if !argument.starts_with('"') && !argument.starts_with("target:") {
                    line.fields.push(name.trim_start_matches(['%', '?']).to_owned());
                }
            }
            found.push(line);
        }
    }
    found
}

fn each_source(directory: &Path, look: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            each_source(&path, look);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&path, &fs::read_to_string(&path).expect("a source"));
        }
    }
}

/// What the sources hold; panics at a line without a code.
fn written() -> Manual {
    let mut found = Manual::new();
    each_source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut |path, source| {
        for line in lines(source) {
            let event = line.event.clone();
            let event = event.unwrap_or_else(|| panic!("{}: no event in {line:?}", path.display()));
            let (levels, fields) = found.entry(event).or_default();
            levels.insert(line.level.to_uppercase());
            fields.extend(line.fields);
        }
    });
    found
}

/// The rows of `docs/logs.md`: code, levels, fields, meaning.
fn documented() -> Manual {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/logs.md");
    let text = fs::read_to_string(path).expect("docs/logs.md");
    let words = |cell: &str| {
        let words = cell.split(',').map(|word| word.trim().to_owned());
        words.filter(|word| !word.is_empty()).collect()
    };
    let mut found = Manual::new();
    let mut last = String::new();
    for row in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [event, levels, fields, meaning] = cells[..] else { panic!("four cells: {row}") };
        assert!(!meaning.is_empty(), "{row} says nothing");
        let event = event.trim_matches('`').to_owned();
        assert!(last < event, "{event} is not in its place of the alphabet");
        last.clone_from(&event);
        found.insert(event, (words(levels), words(fields)));
    }
    found
}

#[test]
fn the_manual_tells_every_line_with_its_levels_and_fields() {
    let (documented, written) = (documented(), written());
    for (event, line) in &written {
        assert_eq!(documented.get(event), Some(line), "docs/logs.md on {event}");
    }
    let gone: Vec<_> = documented.keys().filter(|event| !written.contains_key(*event)).collect();
    assert!(gone.is_empty(), "no line has these codes any more: {gone:?}");
}

#[test]
fn codes_and_fields_are_in_snake_case() {
    for (event, (_, fields)) in written() {
        for word in fields.iter().chain([&event]) {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(word.chars().all(plain), "{word} of {event}");
        }
    }
}

#[test]
fn a_line_is_read_as_it_is_spelled() {
    let source = "x.map(|e| tracing::\u{77}arn!(target: \"t\", event = \"a_b\", %error, n = f(1, \"),\"), \
         \"a (text, with\\\" commas)\"));";
    let expected =
        Line { event: Some("a_b".into()), level: "warn", fields: vec!["error".into(), "n".into()] };
    assert_eq!(lines(source), [expected]);
}
