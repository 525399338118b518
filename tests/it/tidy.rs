//! Style and layering checks. Each message names the fix; the checks are themselves checked on
//! samples that must fail.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules and the layer each is in (`src/docs/architecture.md`).
const LAYERS: &[(&str, u32)] = &[
    ("base", 0),
    ("limits", 0),
    ("model", 0),
    ("wire", 1),
    ("txnlog", 1),
    ("snapshot", 1),
    ("apache", 1),
    ("config", 1),
    ("tree", 2),
    ("watch", 2),
    ("session", 2),
    ("auth", 2),
    ("zab", 2),
    ("server", 3),
    ("client", 4),
    ("shell", 4),
    ("sim", 4),
    ("trial", 5),
];

/// What only drivers may touch.
const OUTSIDE: &[&str] = &[
    "std::time::",
    "std::fs",
    "std::thread",
    "std::net::Tcp",
    "std::net::Udp",
    "glommio",
    "async fn",
    "async move",
    "AtomicU",
    "getrandom",
];

const BANNED: &[(&str, &str)] = &[
    ("todo!(", "build it, or leave it out and say so in the closing note"),
    ("unimplemented!(", "build it, or leave it out and say so in the closing note"),
    ("dbg!(", "use tracing"),
    ("FIXME", "fix it, or describe it in the closing note"),
    (".unwrap()", "use `?`, or `expect` with the fact that makes it impossible"),
];

fn layer_of(module: &str) -> Option<u32> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// Complaints about one file. `module` is its top-level module, empty for `main.rs` and `lib.rs`.
fn complaints(module: &str, text: &str, is_test: bool) -> Vec<String> {
    let mut found = Vec::new();
    if !text.starts_with("//!") {
        found.push("line 1: begin with `//!` and the file's one subject".to_owned());
    }
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    for (at, line) in text.lines().enumerate() {
        let number = at + 1;
        if 100 < line.chars().count() {
            found.push(format!("line {number}: wrap at 100 columns"));
        }
        if !line.is_ascii() {
            found.push(format!("line {number}: use ASCII; write characters as escapes"));
        }
    }
    for (at, line) in code.lines().enumerate() {
        let number = at + 1;
        let is_comment = line.trim_start().starts_with("//");
        if is_comment {
            continue;
        }
        for (word, fix) in BANNED {
            if line.contains(word) && !is_test {
                found.push(format!("line {number}: `{word}`: {fix}"));
            }
        }
        let Some(own) = layer_of(module) else { continue };
        if own < 4 && !is_test {
            for word in OUTSIDE.iter().filter(|word| line.contains(**word)) {
                found.push(format!("line {number}: `{word}` belongs into the shell"));
            }
        }
        for used in modules_used(line) {
            let Some(other) = layer_of(&used) else { continue };
            let allowed = used == module || other < own || (own == other && own == 0);
            if !allowed && !is_test {
                found.push(format!("line {number}: `{module}` must not know `{used}`"));
            }
        }
    }
    found
}

/// Top-level modules named by `crate::` paths in a line, those in braces included.
fn modules_used(line: &str) -> Vec<String> {
    let mut used = Vec::new();
    for part in line.split("crate::").skip(1) {
        let names: Vec<&str> = match part.strip_prefix('{') {
            Some(list) => list.split(',').collect(),
            None => vec![part],
        };
        for name in names {
            let name = name.trim();
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_');
            used.push(name[..end.unwrap_or(name.len())].to_owned());
        }
    }
    used
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn sources_are_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for folder in ["src", "tools", "tests", "benches"] {
        for path in sources(&root.join(folder)) {
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            let relative = path.strip_prefix(root).expect("below the root").display().to_string();
            let mut parts = relative.split('/');
            let top = parts.next();
            let module = parts.next().unwrap_or_default().trim_end_matches(".rs");
            let module = if top == Some("src") { module } else { "" };
            let is_test = folder != "src" || relative.ends_with("tests.rs");
            for complaint in complaints(module, &text, is_test) {
                all.push(format!("{relative}: {complaint}"));
            }
        }
    }
    assert!(all.is_empty(), "{} complaints:\n{}", all.len(), all.join("\n"));
}

#[test]
fn every_file_is_reachable() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in sources(&root) {
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if matches!(name, "lib" | "main") {
            continue;
        }
        let folder = path.parent().expect("files are in folders");
        let (name, folder) = match name {
            "mod" => (
                folder.file_name().and_then(|name| name.to_str()).unwrap_or_default(),
                folder.parent().expect("below src"),
            ),
            name => (name, folder),
        };
        let parents = if folder == root { vec!["lib.rs", "main.rs"] } else { vec!["mod.rs"] };
        let declared = parents.iter().any(|parent| {
            let text = fs::read_to_string(folder.join(parent));
            let text = text.expect("each folder has its front page");
            text.lines().any(|line| line.trim_end().ends_with(&format!("mod {name};")))
        });
        assert!(declared, "{}: declare `mod {name};` in {parents:?}", path.display());
    }
}

/// Names in backquotes that have an underscore are tests, or files of tests.
#[test]
fn the_tests_that_rules_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut names, mut code) = (Vec::new(), String::new());
    for folder in ["src", "tests"] {
        for path in sources(&root.join(folder)) {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
            code += &fs::read_to_string(&path).expect("sources are UTF-8");
        }
    }
    let rules = fs::read_to_string(root.join("src/docs/rules.md")).expect("it is there");
    let named: Vec<&str> = rules
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|text| text.rsplit("::").next())
        .filter(|name| name.contains('_') && !name.contains(['/', ' ']))
        .collect();
    assert!(50 < named.len(), "rules name their tests: {named:?}");
    let exists =
        |name: &str| names.iter().any(|file| file == name) || code.contains(&format!("fn {name}("));
    let missing: Vec<&&str> = named.iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "src/docs/rules.md names what does not exist: {missing:?}");
}

#[test]
fn the_tidy_test_notices() {
    let count = |module, text: &str| complaints(module, text, false).len();
    assert_eq!(count("tree", "//! Fine.\nuse crate::model::Zxid;\n"), 0);
    assert_eq!(count("tree", "use crate::model::Zxid;\n"), 1);
    assert_eq!(count("tree", "//! A.\nuse crate::watch::WatchTable;\n"), 1);
    assert_eq!(count("txnlog", "//! A.\nuse crate::{limits, wire};\n"), 1);
    assert_eq!(count("model", "//! A.\nuse crate::wire::jute;\n"), 1);
    assert_eq!(count("server", "//! A.\nuse crate::shell::run;\n"), 1);
    assert_eq!(count("sim", "//! A.\nuse crate::shell::run;\n"), 1);
    assert_eq!(count("server", "//! A.\nuse std::fs::File;\n"), 1);
    assert_eq!(count("server", "//! A.\nlet now = std::time::Instant::now();\n"), 1);
    assert_eq!(count("server", "//! A.\nlet x = y.unwrap();\n"), 1);
    assert_eq!(count("server", &format!("//! A.\n// {}\n", "x".repeat(100))), 1);
    assert_eq!(count("server", "//! A.\n// caf\u{e9}\n"), 1);
}
