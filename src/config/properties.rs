//! The syntax of Java property files: `key=value`, `key:value` or `key value`, comments with `#` or
//! `!`, backslash escapes, continuation lines, Latin-1. A repeated key keeps its last value.

use std::collections::BTreeSet;

/// One key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// Line it starts on, from 1.
    pub line: usize,
    /// The key, trimmed.
    pub key: String,
    /// The value, trimmed.
    pub value: String,
}

/// Reads a file. Every input is one: what is not understood is part of a key or value.
#[must_use]
pub fn parse(text: &[u8]) -> Vec<Property> {
    parse_text(&text.iter().map(|byte| char::from(*byte)).collect::<String>())
}

/// Reads a text that is not in a file, and so has characters rather than Latin-1 bytes.
#[must_use]
pub fn parse_text(text: &str) -> Vec<Property> {
    let mut properties: Vec<Property> = Vec::new();
    for (line, _, logical) in logical_lines(text) {
        let (key, value) = split(&logical);
        let (key, value) = (unescape(key).trim().to_owned(), unescape(value).trim().to_owned());
        properties.push(Property { line, key, value });
    }
    let mut seen = BTreeSet::new();
    properties.reverse();
    properties.retain(|property| seen.insert(property.key.clone()));
    properties.reverse();
    properties
}

/// The text of a file without the properties whose key `goes`, every other byte as it is.
#[must_use]
pub fn without(text: &[u8], goes: impl Fn(&str) -> bool) -> Vec<u8> {
    let latin = text.iter().map(|byte| char::from(*byte)).collect::<String>();
    let mut kept = vec![true; lines(&latin).count()];
    for (start, end, logical) in logical_lines(&latin) {
        if goes(unescape(split(&logical).0).trim()) {
            kept.get_mut(start - 1..end).unwrap_or_default().fill(false);
        }
    }
    let kept = lines(&latin).zip(kept).filter(|(_, kept)| *kept);
    // Each character stands for the byte that it was.
    kept.flat_map(|(line, _)| line.chars()).filter_map(|c| u8::try_from(c).ok()).collect()
}

/// Lines with what ends them: `\n`, `\r`, or `\r\n`, which is one end.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest.find(['\n', '\r']).unwrap_or(rest.len());
        let behind = rest.get(end..).unwrap_or_default();
        let len = if behind.starts_with("\r\n") { 2 } else { behind.len().min(1) };
        let (line, after) = rest.split_at(end + len);
        rest = after;
        (!line.is_empty()).then_some(line)
    })
}

/// Lines with continuations joined, between the first and the last line of each, from 1; blank
/// lines and comments left out.
fn logical_lines(text: &str) -> Vec<(usize, usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    let mut last = 0;
    for (at, line) in lines(text).enumerate() {
        let line = line.trim_end_matches(['\n', '\r']);
        let line = line.trim_start_matches([' ', '\t', '\u{c}']);
        let (start, mut logical) = match open.take() {
            Some(open) => open,
            None if line.is_empty() || line.starts_with(['#', '!']) => continue,
            None => (at + 1, String::new()),
        };
        let backslashes = line.len() - line.trim_end_matches('\\').len();
        if backslashes % 2 == 1 {
            logical.push_str(line.get(..line.len() - 1).unwrap_or_default());
            open = Some((start, logical));
        } else {
            logical.push_str(line);
            found.push((start, at + 1, logical));
        }
        last = at + 1;
    }
    found.extend(open.map(|(start, logical)| (start, last, logical)));
    found
}

/// The key ends at the first `=`, `:` or blank that no backslash escapes.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|c| {
        let ends = !escaped && matches!(c, '=' | ':' | ' ' | '\t' | '\u{c}');
        escaped = c == '\\' && !escaped;
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start_matches([' ', '\t', '\u{c}']);
    (key, rest.strip_prefix(['=', ':']).unwrap_or(rest))
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                out.push(code.unwrap_or('\u{fffd}'));
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}
