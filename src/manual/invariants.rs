//! `docs/invariants.md` compared with the tests.
//!
//! A test that fails when an invariant does not hold carries the number in a line of its own above
//! its attributes, `/// Proves INV-4.` or `/// Proves INV-3 and INV-4.`. The last column of the
//! table names these tests in backticks, by function, by module, or by `module::function`; a name
//! stands for every test below it. No path is part of a name, so files can move.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// The invariants, INV-1 first. The table in the document has exactly these sentences.
const INVARIANTS: [&str; 14] = [
    "Progress, and so the Kafka offset, covers only the contiguous finished prefix of a partition.",
    "One aggregate group is one transaction; it commits or rolls back alone.",
    "Events of one aggregate take effect in source order; two groups of one aggregate are never in \
     flight together.",
    "Re-delivery changes nothing for what took effect, raises nothing, creates no dead letter. A \
     record with a letter is never applied from Kafka again.",
    "Every record ends in exactly one verdict.",
    "Key, value, headers and timestamp of a dead letter are durable, byte for byte, before progress \
     passes the record; the DLQ topic is published from that table.",
    "Only data of one event is dead-lettered. Transient faults are retried; faults an operator can \
     fix halt the partition.",
    "After a poison event the later events of that aggregate are parked, in order, until released.",
    "No payload value, key value or secret in logs, labels, DLQ context headers or notification \
     text.",
    "A process that lost a partition cannot move its progress, dead-letter, park or release \
     anything.",
    "Memory, connections, in-flight work, retries and metric series are bounded by configuration.",
    "The poll loop never waits for the database.",
    "Knowledge of the database held in memory may only lead to an attempt whose SQL verifies it. \
     DUPLICATE, STALE and PARKED are decided on a row read by the current session.",
    "Nothing read from Postgres leaves the process before a synchronous, WAL-writing commit made \
     after the read.",
];

/// What the line begins with in which a test carries its numbers.
const TAG: &str = "/// Proves INV-";

/// Where sources and documents are searched, below the repository's root.
const PLACES: [&str; 6] = ["src", "crates", "tests", "bench", "examples", "docs"];

/// Names of files and directories that are not part of a test's name.
const UNNAMED: [&str; 7] = ["src", "crates", "tests", "examples", "main", "lib", "mod"];

/// A file that may cite invariants.
struct Source {
    /// Below the root.
    path: PathBuf,
    text: String,
}

/// A test that carries numbers.
#[derive(Debug)]
struct Proof {
    /// Module by module, the function last.
    name: Vec<String>,
    numbers: BTreeSet<usize>,
}

/// A row of the table.
struct Row {
    number: usize,
    sentence: String,
    /// What the last column names in backticks.
    names: Vec<String>,
}

/// Every `INV-n`, and the `inv_n` of a function's name.
fn numbers(text: &str) -> BTreeSet<usize> {
    let cited = Regex::new(r"(?i)\binv-(\d+)|(?:\b|_)inv_(\d+)").expect("a pattern");
    let number = |found: regex::Captures<'_>| {
        found.get(1).or(found.get(2)).and_then(|digits| digits.as_str().parse().ok())
    };
    cited.captures_iter(text).filter_map(number).collect()
}

/// The rows of the table, and what is wrong with its form.
fn rows(document: &str, problems: &mut Vec<String>) -> Vec<Row> {
    let mut rows = Vec::new();
    for line in document.lines().filter(|line| line.starts_with("| INV-")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let number = numbers(cells[0]).first().copied();
        let (Some(number), [_, sentence, _, tests]) = (number, &*cells) else {
            problems.push(format!("not a row of four cells: {line}"));
            continue;
        };
        rows.push(Row {
            number,
            sentence: (*sentence).to_owned(),
            names: tests.split('`').skip(1).step_by(2).map(str::to_owned).collect(),
        });
    }
    rows
}

/// The name of the function that begins in this line.
fn function(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub(crate) ").unwrap_or(line);
    let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()
}

/// The tests of a source that carry numbers. Numbers above anything else are a problem.
fn proofs(source: &Source, problems: &mut Vec<String>) -> Vec<Proof> {
    let parts = source.path.with_extension("");
    let parts = parts.iter().map(|part| part.to_string_lossy().into_owned());
    let module: Vec<String> = parts.filter(|part| !UNNAMED.contains(&part.as_str())).collect();
    let mut proofs = Vec::new();
    let (mut carried, mut is_test, mut in_attribute) = (None, false, false);
    for line in source.text.lines().map(str::trim) {
        if in_attribute || line.starts_with("#[") {
            in_attribute = !line.ends_with(']');
            is_test |= line.ends_with("test]");
        } else if line.starts_with(TAG) {
            carried = Some(numbers(line));
        } else if !line.starts_with("///") {
            if let Some(numbers) = carried.take() {
                match function(line).filter(|_| is_test) {
                    Some(function) => {
                        let name = module.iter().cloned().chain([function.to_owned()]).collect();
                        proofs.push(Proof { name, numbers });
                    }
                    None => problems.push(format!(
                        "{}: numbers of invariants are carried by no test: {line}",
                        source.path.display()
                    )),
                }
            }
            is_test = false;
        }
    }
    proofs
}

/// Whether a name of the table stands for the test.
fn names(name: &str, proof: &Proof) -> bool {
    let wanted: Vec<&str> = name.split("::").collect();
    proof.name.windows(wanted.len()).any(|part| part == wanted)
}

/// Everything in which the document, the list of invariants and the tests do not agree.
fn problems(document: &str, invariants: &[&str], sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    let table = rows(document, &mut problems);
    let written: Vec<(usize, &str)> =
        table.iter().map(|row| (row.number, row.sentence.as_str())).collect();
    let wanted: Vec<(usize, &str)> = (1..).zip(invariants.iter().copied()).collect();
    for differing in written.iter().filter(|row| !wanted.contains(row)) {
        problems.push(format!("the table has another sentence or number: {differing:?}"));
    }
    for missing in wanted.iter().filter(|invariant| !written.contains(invariant)) {
        problems.push(format!("the table lacks {missing:?}"));
    }
    if problems.is_empty() && written != wanted {
        problems.push("rows of the table are repeated or out of order".to_owned());
    }
    let mut tests = Vec::new();
    for source in sources {
        for unknown in
            numbers(&source.text).into_iter().filter(|n| !(1..=invariants.len()).contains(n))
        {
            problems.push(format!("{} cites INV-{unknown}", source.path.display()));
        }
        if source.path.extension().is_some_and(|extension| extension == "rs") {
            tests.extend(proofs(source, &mut problems));
        }
    }
    for Row { number, names: listed, .. } in &table {
        let proving = || tests.iter().filter(|proof| proof.numbers.contains(number));
        if proving().next().is_none() {
            problems.push(format!("no test carries INV-{number}"));
        }
        for name in listed.iter().filter(|name| !proving().any(|proof| names(name, proof))) {
            problems.push(format!("no test named `{name}` carries INV-{number}"));
        }
        for proof in proving().filter(|proof| !listed.iter().any(|name| names(name, proof))) {
            problems.push(format!("`{}` is not named for INV-{number}", proof.name.join("::")));
        }
    }
    problems
}

/// The nearest directory above the manifest that has the document.
fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let has_document = |directory: &&Path| directory.join("docs/invariants.md").is_file();
    manifest.ancestors().find(has_document).expect("docs/invariants.md")
}

/// Reads every source and document below a directory.
fn read(root: &Path, directory: &Path, sources: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        let is_text = path.extension().is_some_and(|kind| kind == "rs" || kind == "md");
        if path.is_dir() && !path.ends_with("target") {
            read(root, &path, sources);
        } else if is_text {
            let text = fs::read_to_string(&path).expect("UTF-8");
            let path = path.strip_prefix(root).expect("below the root").to_owned();
            sources.push(Source { path, text });
        }
    }
}

#[test]
fn every_invariant_is_proved_by_the_tests_that_the_document_names() {
    let root = root();
    let document = fs::read_to_string(root.join("docs/invariants.md")).expect("the document");
    let mut sources = Vec::new();
    for directory in PLACES.map(|place| root.join(place)).iter().filter(|place| place.is_dir()) {
        read(root, directory, &mut sources);
    }
    let problems = problems(&document, &INVARIANTS, &sources);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// What is wrong with a table of one invariant and one source.
fn problems_of(row: &str, path: &str, text: &str) -> Vec<String> {
    let source = Source { path: path.into(), text: text.replace("TAG-", TAG) };
    problems(row, &["It holds."], &[source])
}

const ROW: &str = "| INV-1 | It holds. | `code.rs` | `queue` (property), `queue::holds` |";
const TEST: &str = "TAG-1.\n#[test]\nfn holds() {}";

#[test]
fn a_test_is_found_by_its_module_or_its_name_wherever_its_file_is() {
    for path in ["src/a/queue.rs", "crates/core/src/queue.rs", "tests/queue/main.rs"] {
        assert_eq!(problems_of(ROW, path, TEST), [""; 0], "{path}");
    }
    let among_others = "/// A trap.\nTAG-1.\n#[ignore = \"slow\"]\n#[tokio::test]\n\
                        #[expect(\n  a,\n)]\nasync fn holds() {}\nstruct A;";
    assert_eq!(problems_of(ROW, "src/queue/tests.rs", among_others), [""; 0]);
}

#[test]
fn whatever_does_not_agree_is_reported() {
    let wrong = |row: &str, text: &str, problem: &str| {
        let found = problems_of(row, "src/queue.rs", text);
        assert!(found.iter().any(|found| found.contains(problem)), "{problem}: {found:?}");
    };
    // Put together, because this file is searched as well.
    let unknown = 99;
    let cited = format!("cites INV-{unknown}");
    wrong(ROW, &format!("{TEST}\n// INV-{unknown}"), &cited);
    wrong(ROW, &format!("{TEST}\nfn it_holds_inv_{unknown}() {{}}"), &cited);
    wrong(ROW, "#[test]\nfn holds() {}", "no test carries INV-1");
    wrong(ROW, "TAG-1.\nfn holds() {}", "carried by no test");
    wrong(ROW, "TAG-1.\nstruct A;\n#[test]\nfn holds() {}", "carried by no test");
    wrong(&ROW.replace("queue::holds", "queue::held"), TEST, "no test named `queue::held`");
    wrong(&ROW.replace("`queue` (property)", "`que`"), TEST, "no test named `que`");
    let more = format!("{TEST}\n{}", TEST.replace("holds", "holds_too"));
    wrong(&ROW.replace("`queue` (property), ", ""), &more, "`queue::holds_too` is not named");
    wrong(&ROW.replace("holds. ", "held. "), TEST, "another sentence");
    wrong(&ROW.replace("INV-1", "INV-2"), TEST, "the table lacks (1,");
    wrong(&format!("{ROW}\n{ROW}"), TEST, "repeated");
    wrong(&ROW.replace("`code.rs` |", ""), TEST, "not a row of four cells");
}
