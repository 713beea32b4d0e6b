//! The structure holds: who may know whom, how long a file may be, and what a reader has to read to
//! follow the document route (docs/architecture.md).
//!
//! Reads the sources as text. Comments, string literals and test modules do not count.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics where it cannot go on")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of the daemon, lowest first: a room may use the rooms before it and the core, never one
/// behind it.
const ROOMS: [&str; 14] = [
    "config",
    "telemetry",
    "sql",
    "decode",
    "route",
    "postgres",
    "store",
    "kafka",
    "lanes",
    "relay",
    "check",
    "run",
    "admin",
    "cli",
];

/// What the core may depend on. No runtime, no Kafka client, no database driver, nothing in C.
const CORE_DEPENDENCIES: [&str; 3] = ["crc32fast", "jiff", "thiserror"];

/// How long a source file may be, in lines.
const LONGEST_FILE: usize = 500;

/// How many files and lines the way of an event through the document route may have.
const DOCUMENT_ROUTE: (usize, usize) = (7, 1_500);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a directory with this ending, sorted.
fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("directory of sources") {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The code of a file that is compiled into the binary: without comments, the contents of string
/// literals, and whatever follows the first test module.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let mut code = String::with_capacity(text.len());
    for line in text.lines() {
        let mut quoted = false;
        let mut escaped = false;
        let mut previous = ' ';
        for c in line.chars() {
            if !quoted && previous == '/' && c == '/' {
                break;
            }
            if c == '"' && !escaped && previous != '\'' {
                quoted = !quoted;
            }
            escaped = quoted && c == '\\' && !escaped;
            if !quoted {
                code.push(c);
            }
            previous = c;
        }
        code.push('\n');
    }
    code
}

/// The rooms that code names by `crate::room` or `crate::{room, …}`.
fn named_rooms(code: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let is_path = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if code[..at].ends_with(is_path) {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => {
                rooms.insert(word(rest));
            }
            Some(list) => {
                // Only the first name of each entry of the list counts, at its outer level.
                let mut depth = 0;
                let mut start = true;
                for (index, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && !c.is_whitespace() => {
                            rooms.insert(word(&list[index..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    rooms
}

/// The room a file stands in: the first part of its path below `src`.
fn room_of(path: &Path) -> String {
    let below = path.strip_prefix(root().join("src")).unwrap();
    let first = below.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn is_test_file(path: &Path) -> bool {
    path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")))
}

/// The arrows of one file that point upwards.
fn forbidden(room: &str, code: &str) -> Vec<String> {
    let Some(place) = ROOMS.iter().position(|known| *known == room) else { return Vec::new() };
    let upwards = |name: &String| ROOMS.iter().position(|known| known == name) > Some(place);
    named_rooms(code).into_iter().filter(upwards).collect()
}

#[test]
fn no_room_uses_a_room_above_it() {
    let mut wrong = Vec::new();
    for path in files(&root().join("src"), ".rs").into_iter().filter(|path| !is_test_file(path)) {
        let text = fs::read_to_string(&path).unwrap();
        for above in forbidden(&room_of(&path), &code(&text)) {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            wrong.push(format!("{name} uses {above}"));
        }
    }
    assert!(wrong.is_empty(), "arrows that point upwards:\n{}", wrong.join("\n"));
}

#[test]
fn every_folder_of_the_sources_is_a_room() {
    let folders = fs::read_dir(root().join("src")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<String> =
        folders.filter(|path| path.is_dir()).map(|path| room_of(&path)).collect();
    // Tests that compare documents with the code.
    found.retain(|folder| folder != "manual");
    found.sort();
    let mut known = ROOMS.map(str::to_owned).to_vec();
    known.sort();
    assert_eq!(found, known, "a new folder gets its place in ROOMS and in docs/architecture.md");
}

#[test]
fn the_core_depends_on_nothing_that_does_io() {
    let manifest = fs::read_to_string(root().join("crates/core/Cargo.toml")).unwrap();
    let table = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let names: Vec<&str> = table
        .lines()
        .filter(|line| !line.starts_with('#') && line.contains('='))
        .map(|line| line.split(['=', '.']).next().unwrap().trim())
        .collect();
    assert_eq!(names, CORE_DEPENDENCIES, "crates/core is the part without I/O");
    for path in files(&root().join("crates/core/src"), ".rs") {
        let text = code(&fs::read_to_string(&path).unwrap());
        for forbidden in ["std::fs", "std::net", "std::thread", "SystemTime", "Instant::now"] {
            let allowed = path.components().any(|part| part.as_os_str() == "simulation");
            assert!(allowed || !text.contains(forbidden), "{} uses {forbidden}", path.display());
        }
    }
}

#[test]
fn an_arrow_upwards_is_noticed_in_every_form_and_a_mention_is_not() {
    for text in [
        "use crate::run;",
        "use crate::run::Source;",
        "use crate::{config::Config, run::Source};",
        "let a = crate::run::state();",
        "pub(in crate::config) use crate::{\n    config,\n    run,\n};",
    ] {
        assert_eq!(forbidden("store", &code(text)), ["run"], "{text}");
    }
    for text in [
        "//! [`crate::run`] calls this.",
        "const A: &str = \"crate::run\";",
        "use crate::config::run;",
        "use pgsluice_core::run::x;",
        "use crate::{config::{run, x}, sql};",
        "fn a() {}\n#[cfg(test)]\nmod tests {\n    use crate::run;\n}",
    ] {
        assert!(forbidden("store", &code(text)).is_empty(), "{text}");
    }
}

#[test]
fn no_file_is_too_long_to_be_read_at_once() {
    let folders = ["src", "crates", "tests", "bench", "examples"];
    let folders = folders.iter().map(|folder| root().join(folder)).filter(|path| path.is_dir());
    for path in folders.flat_map(|folder| files(&folder, ".rs")) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LONGEST_FILE, "{} has {lines} lines", path.display());
    }
}

#[test]
fn the_document_route_is_followed_through_few_files() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let section = page.split("## The document route").nth(1).expect("the section").split("\n## ");
    let listed: Vec<PathBuf> = section
        .take(1)
        .flat_map(str::lines)
        .filter(|line| line.starts_with("| ") && line.contains(".rs`"))
        .filter_map(|line| line.split('`').nth(1).map(|path| root().join(path)))
        .collect();
    let lines: usize = listed
        .iter()
        .map(|path| fs::read_to_string(path).expect("a file that exists").lines().count())
        .sum();
    let (most_files, most_lines) = DOCUMENT_ROUTE;
    assert!(!listed.is_empty() && listed.len() <= most_files, "{} files", listed.len());
    assert!(lines <= most_lines, "{lines} lines in {} files", listed.len());
}
