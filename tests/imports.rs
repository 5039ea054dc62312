//! Who may import whom. The rooms of the program are kept apart by this test, not by crates: it
//! reads every path that begins at the crate's root and holds it against [`RULES`].

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Belong to no room, and may be imported by any but `domain`.
const LEAVES: [&str; 9] = [
    "clock",
    "config",
    "entropy",
    "health",
    "heavy",
    "reconnect",
    "shutdown",
    "telemetry",
    "wake",
];

/// Each room, and the rooms it may import; leaves are listed only where they import a room.
const RULES: [(&str, &[&str]); 15] = [
    ("domain", &[]),
    ("store", &["domain"]),
    ("egress", &["domain"]),
    ("broker", &["domain"]),
    ("ingest", &["broker", "store", "egress", "domain"]),
    ("dispatch", &["store", "egress", "domain"]),
    ("outputs", &["store", "egress", "domain"]),
    ("outbox", &["broker", "store", "egress", "domain"]),
    ("replay", &["store", "domain"]),
    ("ops", &["store", "egress", "domain"]),
    ("api", &["store", "egress", "domain"]),
    (
        "app",
        &[
            "broker", "store", "egress", "domain", "ingest", "dispatch", "outputs", "outbox",
            "replay", "ops", "api",
        ],
    ),
    // `broker` for `events publish`, which speaks to it as the core does.
    ("cli", &["app", "store", "egress", "domain", "broker"]),
    // Ids are made of randomness.
    ("entropy", &["domain"]),
    // Limits and the default schedule are the domain's own.
    ("config", &["domain"]),
];

/// What would make the domain impure.
const NOT_IN_DOMAIN: [&str; 6] = ["tokio", "sqlx", "axum", "reqwest", "lapin", "std::fs"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn rooms_import_only_what_they_may() {
    let mut files = Vec::new();
    collect(&source(), &mut files);
    assert!(files.len() > 20, "the sources were not found");
    let violations: Vec<String> = files
        .iter()
        .flat_map(|(path, text)| violations(path, text))
        .collect();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn a_forbidden_import_is_seen_in_every_spelling() {
    for (path, text) in [
        ("domain/x.rs", "use crate::store::Store;"),
        ("domain/x.rs", "use crate::clock::Clock;"),
        ("domain/x.rs", "fn f() { tokio::spawn(g()); }"),
        ("domain/mod.rs", "pub use super::store::Store;"),
        ("store/sqlite/x.rs", "use super::super::super::dispatch::X;"),
        (
            "store/mod.rs",
            "use crate::{\n    domain::ids,\n    egress::Guard,\n};",
        ),
        (
            "store/mod.rs",
            "use crate::{clock, config::{self, Config}, app};",
        ),
        ("ingest/amqp.rs", "let x = crate::dispatch::permits();"),
        (
            "dispatch/mod.rs",
            "#[cfg(test)]\nmod tests { use crate::ingest::decode; }",
        ),
        ("ops/mod.rs", "use crate::dispatch::Dispatcher;"),
        ("cli/serve.rs", "use crate::dispatch::Dispatcher;"),
        ("clock.rs", "use crate::store::Store;"),
        ("wake.rs", "use super::domain::ids;"),
        ("newcomer/mod.rs", "use crate::clock::Clock;"),
    ] {
        assert_eq!(violations(Path::new(path), text).len(), 1, "{path}: {text}");
    }
}

#[test]
fn what_is_allowed_is_not_complained_about() {
    for (path, text) in [
        (
            "domain/x.rs",
            "use super::ids;\n#[cfg(test)]\nmod tests { use super::super::ids; }",
        ),
        ("domain/x.rs", "//! See [`crate::store`] and tokio."),
        (
            "store/mod.rs",
            "use crate::{domain::ids, clock::Clock}; // crate::dispatch",
        ),
        (
            "dispatch/settle.rs",
            "use crate::dispatch::permits; use crate::egress::Sent;",
        ),
        ("app.rs", "use crate::{dispatch, ingest::amqp, ops};"),
        (
            "cli/config.rs",
            "use super::config::X; use crate::config::Config;",
        ),
        ("entropy.rs", "use crate::domain::ids;"),
        ("clock.rs", "pub(crate) struct X; use crate::wake::Wake;"),
    ] {
        assert_eq!(violations(Path::new(path), text), [""; 0], "{path}: {text}");
    }
}

/// All sources, by their paths below `src`.
fn collect(dir: &Path, files: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            files.push((path.strip_prefix(source()).unwrap().to_owned(), text));
        }
    }
}

/// What is wrong in one file.
fn violations(path: &Path, text: &str) -> Vec<String> {
    let first = path.iter().next().unwrap().to_str().unwrap();
    let room = first.strip_suffix(".rs").unwrap_or(first);
    if room == "lib" || room == "main" {
        return Vec::new();
    }
    let rule = RULES.iter().find(|(name, _)| *name == room);
    if rule.is_none() && !LEAVES.contains(&room) {
        return vec![format!(
            "{room}: a new room needs a rule in tests/imports.rs"
        )];
    }
    let rooms: &[&str] = rule.map_or(&[], |(_, rooms)| rooms);
    let may = |name: &str| {
        name == room || rooms.contains(&name) || (room != "domain" && LEAVES.contains(&name))
    };
    let code = without_comments(text);
    let impure: &[&str] = if room == "domain" {
        &NOT_IN_DOMAIN
    } else {
        &[]
    };
    let forbidden = imported(&code, depth(path))
        .into_iter()
        .filter(|name| !may(name))
        .chain(
            impure
                .iter()
                .map(|name| (*name).to_owned())
                .filter(|name| paths(&code, &format!("{name}::")).next().is_some()),
        );
    forbidden
        .map(|name| format!("{}: `{room}` must not import `{name}`", path.display()))
        .collect()
}

/// How many `super::` lead from a file's module to the crate's root.
fn depth(path: &Path) -> usize {
    let file = path.file_name().unwrap();
    path.iter().count() - usize::from(file == "mod.rs")
}

fn without_comments(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    lines.join("\n")
}

/// The first names behind the crate's root, wherever a path begins there.
fn imported(code: &str, depth: usize) -> BTreeSet<String> {
    let known = |name: &str| LEAVES.contains(&name) || RULES.iter().any(|(room, _)| *room == name);
    let from_root = paths(code, "crate::").flat_map(first_names);
    // A longer chain of `super` than the file is deep belongs to a module inside of it, or leads
    // to the root: told apart by whether a room is named.
    let up = "super::".repeat(depth);
    let from_above = paths(code, &up)
        .map(|rest| rest.trim_start_matches("super::"))
        .flat_map(first_names)
        .filter(|name| known(name));
    from_root.chain(from_above).collect()
}

/// What follows each occurrence of `prefix` as the beginning of a path.
fn paths<'a>(code: &'a str, prefix: &str) -> impl Iterator<Item = &'a str> {
    let inside = |char: char| char.is_alphanumeric() || matches!(char, '_' | ':' | '$');
    code.match_indices(prefix)
        .filter(move |(at, _)| !code[..*at].ends_with(inside))
        .map(move |(at, found)| &code[at + found.len()..])
}

/// The name that a path goes on with, or those of its group (`{store::Store, clock}`).
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| {
        let text = text.trim_start();
        let end = text.find(|char: char| !char.is_alphanumeric() && char != '_');
        text[..end.unwrap_or(text.len())].to_owned()
    };
    let Some(group) = rest.strip_prefix('{') else {
        return vec![name(rest)];
    };
    let mut names = Vec::new();
    let (mut open, mut start) = (0, 0);
    for (at, char) in group.char_indices() {
        match char {
            '{' => open += 1,
            '}' if open > 0 => open -= 1,
            ',' | '}' if open == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
                if char == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}
