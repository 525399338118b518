//! ACLs as text: `world:anyone:cdrwa,digest:user:hash:r`, as zkCli writes them.

use ringkeeper::model::{Acl, Id, Perms};

/// Reads a list of entries. An id may hold colons and commas: an entry ends where permissions end
/// it.
pub(crate) fn parse(text: &str) -> Result<Vec<Acl>, String> {
    let mut entries = Vec::new();
    let mut part = String::new();
    for piece in text.split(',') {
        part.push_str(piece);
        match entry(&part) {
            Some(acl) => {
                entries.push(acl);
                part.clear();
            }
            None => part.push(','),
        }
    }
    match (part.trim_end_matches(','), entries.is_empty()) {
        ("", false) => Ok(entries),
        (rest, _) => Err(format!(
            "ACL entry {rest:?}: write scheme:id:permissions, with \
             permissions of the letters cdrwa, for example world:anyone:r"
        )),
    }
}

fn entry(text: &str) -> Option<Acl> {
    let (scheme, rest) = text.split_once(':')?;
    let (id, perms) = rest.rsplit_once(':')?;
    if scheme.is_empty() {
        return None;
    }
    Some(Acl { perms: parse_perms(perms)?, id: Id { scheme: scheme.into(), id: id.into() } })
}

/// Permissions of an entry: letters or a number.
pub(crate) fn parse_perms(text: &str) -> Option<Perms> {
    if text.is_empty() {
        return None;
    }
    if let Ok(number) = text.parse::<i32>() {
        return Some(Perms(number));
    }
    text.chars().try_fold(Perms::default(), |perms, letter| {
        let (_, bit) = Perms::LETTERS.iter().find(|(known, _)| *known == letter)?;
        Some(perms.or(*bit))
    })
}

/// The permissions of an entry: letters, or a number where letters do not say it.
pub(crate) fn perms(perms: Perms) -> String {
    if perms.0 & !Perms::ALL.0 != 0 || perms.0 == 0 {
        return perms.0.to_string();
    }
    perms.letters()
}

/// What [`parse`] reads.
pub(crate) fn format(acl: &[Acl]) -> String {
    let entry = |acl: &Acl| format!("{}:{}:{}", acl.id.scheme, acl.id.id, perms(acl.perms));
    acl.iter().map(entry).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acls_are_read_and_written() {
        for text in [
            "world:anyone:cdrwa",
            "world:anyone:r,digest:user:kW/+hash=:cd",
            "auth::cdrwa",
            "ip:10.0.0.0/8:r",
            "ip:2001:db8::1/64:r",
            "x509:CN=a,OU=b,O=c:rw,world:anyone:r",
            "world:anyone:255",
            "world:anyone:0",
        ] {
            assert_eq!(parse(text).map(|acl| format(&acl)), Ok(text.to_owned()));
        }
        assert_eq!(
            parse("world:anyone:awrdc").map(|acl| format(&acl)).as_deref(),
            Ok("world:anyone:cdrwa")
        );
        assert_eq!(
            parse("world:anyone:31").map(|acl| format(&acl)).as_deref(),
            Ok("world:anyone:cdrwa")
        );
        for bad in [
            "",
            ",",
            "world",
            "world:anyone",
            "world:anyone:",
            "world:anyone:x",
            ":a:r",
            "world:anyone:r,",
            "world:anyone:r,digest:u",
        ] {
            let accepted = matches!(bad, "world:anyone:r,");
            assert_eq!(parse(bad).is_ok(), accepted, "{bad:?}");
        }
    }
}
