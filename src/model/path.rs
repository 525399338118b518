//! Znode paths: validation (`client-protocol.md` 5.1) and taking apart.

/// Whether `path` may be created, set, or checked: absolute, no empty, `.` or `..` component, no
/// trailing slash, and no character that ZooKeeper refuses.
#[must_use]
pub fn is_valid(path: &str) -> bool {
    if path == "/" {
        return true;
    }
    let Some(components) = path.strip_prefix('/') else { return false };
    components.split('/').all(|name| !matches!(name, "" | "." | ".."))
        && path.chars().all(|c| !is_refused(c))
}

/// The text before the last `/`, `/` itself for children of the root; `None` without any `/`.
#[must_use]
pub fn parent(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 => path.get(..1),
        at => path.get(..at),
    }
}

/// The text after the last `/`.
#[must_use]
pub fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Supplementary characters are surrogate pairs in Java, which ZooKeeper refuses.
const fn is_refused(c: char) -> bool {
    matches!(c,
        '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}'
        | '\u{fff0}'..='\u{ffff}' | '\u{10000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_judged_as_zookeeper_judges_them() {
        for good in [
            "/",
            "/a",
            "/a/b",
            "/...",
            "/.a",
            "/a.",
            "/a..b",
            "/\u{a0}",
            "/\u{d7ff}",
            "/\u{f900}",
            "/\u{ffef}",
            "/\u{2028}",
            "/ ",
        ] {
            assert!(is_valid(good), "{good:?}");
        }
        for bad in [
            "",
            "a",
            "a/b",
            "/a/",
            "//",
            "/a//b",
            "/.",
            "/..",
            "/a/./b",
            "/a/..",
            "/\0",
            "/\u{1f}",
            "/\u{7f}",
            "/\u{9f}",
            "/\u{e000}",
            "/\u{f8ff}",
            "/\u{fff0}",
            "/\u{fffd}",
            "/\u{10000}",
        ] {
            assert!(!is_valid(bad), "{bad:?}");
        }
    }

    #[test]
    fn parents_and_names() {
        assert_eq!(parent("/a"), Some("/"));
        assert_eq!(parent("/a/b"), Some("/a"));
        assert_eq!(parent("/"), Some("/"));
        assert_eq!(parent("a/b"), Some("a"));
        assert_eq!(parent("ab"), None);
        assert_eq!(name("/a/b"), "b");
    }
}
