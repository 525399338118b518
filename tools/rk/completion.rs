//! Completion in the shell: commands, and paths from the server, quoted as the shell reads them.

use rustyline::Helper;
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;

use crate::output::escaped;
use crate::shell::command_names;
use crate::zk::{Zk, join};

/// Completes the word before the cursor.
pub(crate) struct Completion {
    /// Whom to ask for names.
    pub(crate) zk: Zk,
}

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let children = |parent: &str| {
            self.zk.children(parent, false).map(|(names, _)| names).unwrap_or_default()
        };
        Ok(candidates(line.get(..at).unwrap_or(line), children))
    }
}

/// Where the last word of a line begins, and what could stand in its place.
fn candidates<Name: AsRef<str>>(
    line: &str,
    children: impl FnOnce(&str) -> Vec<Name>,
) -> (usize, Vec<Pair>) {
    let Some((start, word)) = last_word(line) else { return (line.len(), Vec::new()) };
    let is_first = line.get(..start).is_none_or(|before| before.trim().is_empty());
    let pairs = if is_first {
        let names = command_names(&word).into_iter();
        names.map(|name| Pair { replacement: format!("{name} "), display: name }).collect()
    } else if let (true, Some((parent, _))) = (word.starts_with('/'), word.rsplit_once('/')) {
        let parent = if parent.is_empty() { "/" } else { parent };
        let names = children(parent);
        let paths = names.iter().map(|name| join(parent, name.as_ref()));
        paths.filter(|path| path.starts_with(&word)).filter_map(|path| pair(&path)).collect()
    } else {
        Vec::new()
    };
    (start, pairs)
}

/// A path as it must be typed. Control characters, which no server allows in paths, cannot be.
fn pair(path: &str) -> Option<Pair> {
    let quoted = shlex::try_quote(path).ok().filter(|_| !path.contains(char::is_control))?;
    Some(Pair { display: escaped(path.as_bytes()), replacement: quoted.into_owned() })
}

/// The word that ends a line, without its quotation marks, and where it begins; `None` in a
/// comment. By the rules of `shlex::split`, but marks may be open.
fn last_word(line: &str) -> Option<(usize, String)> {
    let mut found: Option<(usize, String)> = None;
    let mut open = None;
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        if open.is_none() && matches!(c, ' ' | '\t' | '\n') {
            found = None;
            continue;
        }
        if found.is_none() && c == '#' {
            return None;
        }
        let word = &mut found.get_or_insert_with(|| (at, String::new())).1;
        match (open, c) {
            (None, '\'' | '"') => open = Some(c),
            (Some(mark), c) if c == mark => open = None,
            (Some('\''), c) => word.push(c),
            (within, '\\') => match chars.next() {
                None | Some((_, '\n')) => {}
                Some((_, c)) if within.is_none() || matches!(c, '$' | '`' | '"' | '\\') => {
                    word.push(c);
                }
                Some((_, c)) => word.extend(['\\', c]),
            },
            (_, c) => word.push(c),
        }
    }
    Some(found.unwrap_or_else(|| (line.len(), String::new())))
}

impl Hinter for Completion {
    type Hint = String;
}

impl Highlighter for Completion {}
impl Validator for Completion {}
impl Helper for Completion {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that a shell reads as something else if they are not quoted.
    const NAMES: [&str; 11] = [
        "plain",
        "two words",
        "it's",
        "\"both\"",
        "a'b\"c",
        "back\\slash",
        "#hash",
        "$home",
        "`run`",
        "~",
        "\u{e4}\u{4e2d}",
    ];

    fn complete(line: &str, names: &[&str]) -> Vec<String> {
        let (start, pairs) = candidates(line, |parent| {
            assert_eq!(parent, "/");
            names.to_vec()
        });
        let before = &line[..start];
        pairs.into_iter().map(|pair| format!("{before}{}", pair.replacement)).collect()
    }

    #[test]
    fn a_completed_path_is_read_as_that_path() {
        for name in NAMES {
            let path = format!("/{name}");
            // As far as somebody has typed it, in each way of quoting.
            for (len, _) in path.char_indices().skip(1) {
                let typed = &path[..len];
                let mut ways: Vec<String> = vec![typed.chars().flat_map(|c| ['\\', c]).collect()];
                if !typed.contains('\'') {
                    ways.extend([format!("'{typed}"), format!("'{typed}'")]);
                }
                if !typed.contains(['"', '\\', '$', '`']) {
                    ways.extend([format!("\"{typed}"), format!("/\"{}", &typed[1..])]);
                }
                for way in ways {
                    let lines = complete(&format!("set -v 1 {way}"), &["other", name]);
                    let found = lines.iter().find_map(|line| {
                        let words = shlex::split(line).expect("no mark is open");
                        (words[3..] == [path.as_str()]).then_some(words)
                    });
                    assert!(found.is_some(), "{way}: {lines:?}");
                }
            }
        }
        let lines = complete("set /a", &["a b", "b"]);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(shlex::split(&lines[0]).unwrap(), ["set", "/a b"]);
    }

    #[test]
    fn below_a_quoted_path_it_goes_on() {
        let (start, pairs) = candidates("get '/a b'/c", |parent| {
            assert_eq!(parent, "/a b");
            vec!["cd", "d"]
        });
        assert_eq!(start, 4);
        let words: Vec<_> = pairs.iter().map(|pair| shlex::split(&pair.replacement)).collect();
        assert_eq!(words, [Some(vec!["/a b/cd".to_owned()])]);
    }

    #[test]
    fn words_are_those_of_the_shell() {
        for (line, start, word) in [
            ("", 0, ""),
            ("get", 0, "get"),
            ("get ", 4, ""),
            (" get /a\\ b", 5, "/a b"),
            ("get \"/a \\\"b\\x", 4, "/a \"b\\x"),
            ("get '/a \\", 4, "/a \\"),
            ("get /a\\", 4, "/a"),
            ("get 'x' /a#b", 8, "/a#b"),
        ] {
            assert_eq!(last_word(line), Some((start, word.to_owned())), "{line}");
        }
        assert_eq!(last_word("get # /a"), None);
    }

    #[test]
    fn what_could_steer_the_terminal_is_not_offered() {
        assert_eq!(complete("get /", &["a\u{1b}[2J", "b"]), ["get /b"]);
        let (_, pairs) = candidates("get /", |_| vec!["a\u{202e}b"]);
        assert_eq!(pairs[0].display, "/a\\u{202e}b");
    }
}
