//! Tables of `client-protocol.md` part 8.

use super::*;
use crate::model::request::RawAcl;
use crate::model::{Acl, Perms};

fn raw(scheme: &str, id: &str) -> RawAcl {
    RawAcl { perms: Perms::ALL, scheme: Some(scheme.into()), id: Some(id.into()) }
}

fn somebody() -> Identities {
    Identities::of_peer("127.0.0.1".parse().unwrap())
}

fn fix(entries: &[RawAcl], who: &Identities) -> Result<Vec<Acl>, ErrorCode> {
    fix_acl(&AuthConfig::default(), Some(entries), who)
}

#[test]
fn digests_are_apaches() {
    for (packet, id) in [
        ("u:p", "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ="),
        ("v:q", "v:Mfy8apI9YguGKmh+AxUmAFSwkII="),
        ("super:secret", "super:lK75jTNcA+U9vtVEw5vB51mj/w4="),
    ] {
        assert_eq!(digest::id_of(packet.as_bytes()), id);
    }
}

#[test]
fn ids_are_judged_by_their_scheme() {
    for (scheme, id, valid) in [
        ("world", "anyone", true),
        ("world", "someone", false),
        ("digest", "u:h", true),
        ("digest", ":h", true),
        ("digest", "a:b:", true),
        ("digest", "u:", false),
        ("digest", "a:b:c", false),
        ("digest", "::b", false),
        ("digest", "nocolon", false),
        ("ip", "10.0.0.1", true),
        ("ip", "010.000.0.01/8", true),
        ("ip", "10.0.0.1/33", false),
        ("ip", "10.0.0.1/", false),
        ("ip", "10.0.0", false),
        ("ip", "256.0.0.1", false),
        ("ip", "::1", true),
        ("ip", "fe80::/10", true),
        ("ip", "::ffff:1.2.3.4", false),
        ("ip", "fe80::1%eth0", false),
        ("super", "", false),
        ("x509", "CN=a", false),
        ("nonsense", "a", false),
    ] {
        let fixed = fix(&[raw(scheme, id)], &somebody());
        assert_eq!(fixed.is_ok(), valid, "{scheme}:{id}");
    }
}

#[test]
fn empty_and_null_parts_of_an_acl() {
    let who = somebody();
    assert_eq!(fix_acl(&AuthConfig::default(), None, &who), Err(ErrorCode::INVALID_ACL));
    assert_eq!(fix(&[], &who), Err(ErrorCode::INVALID_ACL));
    let no_scheme = RawAcl { perms: Perms::ALL, scheme: None, id: Some("a".into()) };
    assert_eq!(fix(&[no_scheme], &who), Err(ErrorCode::INVALID_ACL));
    let no_id = RawAcl { perms: Perms::ALL, scheme: Some("world".into()), id: None };
    assert_eq!(fix(&[no_id], &who), Err(ErrorCode::MARSHALLING_ERROR));
    let twice = [raw("world", "anyone"), raw("world", "anyone")];
    assert_eq!(fix(&twice, &who).unwrap(), vec![Acl::open()]);
}

#[test]
fn auth_expands_to_the_ids_that_count() {
    let entry = RawAcl { perms: Perms::READ, scheme: Some("auth".into()), id: None };
    assert_eq!(fix(std::slice::from_ref(&entry), &somebody()), Err(ErrorCode::INVALID_ACL));
    let config = AuthConfig::default();
    let who = authenticate(&config, "digest", Some(b"u:p"), &somebody()).unwrap();
    let who = authenticate(&config, "digest", Some(b"v:q"), &who).unwrap();
    let fixed = fix(&[entry], &who).unwrap();
    let ids: Vec<&str> = fixed.iter().map(|acl| acl.id.id.as_str()).collect();
    assert_eq!(ids, ["u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=", "v:Mfy8apI9YguGKmh+AxUmAFSwkII="]);
    assert!(allowed(&config, &fixed, Perms::READ, &who));
    assert!(!allowed(&config, &fixed, Perms::WRITE, &who));
    assert!(!allowed(&config, &fixed, Perms::READ, &somebody()));
    assert_eq!(mask_digests(&fixed)[0].id.id, "u:x");
}

#[test]
fn the_super_user_is_bound_by_nothing() {
    let config = AuthConfig {
        super_digest: Some("super:lK75jTNcA+U9vtVEw5vB51mj/w4=".to_owned()),
        ..AuthConfig::default()
    };
    let who = authenticate(&config, "digest", Some(b"super:secret"), &somebody()).unwrap();
    let users: Vec<String> =
        who.who_am_i().iter().map(|(scheme, user)| format!("{scheme}={user}")).collect();
    assert_eq!(users, ["ip=127.0.0.1", "super=", "digest=super"]);
    let nobody_may = [Acl { perms: Perms(0), ..Acl::open() }];
    assert!(allowed(&config, &nobody_may, Perms::WRITE, &who));
    assert!(!allowed(&config, &nobody_may, Perms::WRITE, &somebody()));
    let wrong = authenticate(&config, "digest", Some(b"super:guess"), &somebody()).unwrap();
    assert!(!wrong.is_super());
}

#[test]
fn address_ranges_match_their_own_family() {
    for (range, held, matches) in [
        ("10.1.2.3", "10.1.2.3", true),
        ("10.1.2.3", "10.1.2.4", false),
        ("10.0.0.0/8", "10.9.9.9", true),
        ("10.0.0.0/8", "11.9.9.9", false),
        ("0.0.0.0/0", "11.9.9.9", true),
        ("0.0.0.0/0", "::1", false),
        ("::/0", "::1", true),
        ("fe80::/10", "fe80:0:0:0:1:2:3:4", true),
        ("fe80::/10", "fec0::1", false),
    ] {
        assert_eq!(ip::matches(range, held), matches, "{range} {held}");
    }
    assert_eq!(ip::to_text("::1".parse().unwrap()), "0:0:0:0:0:0:0:1");
    assert_eq!(ip::to_text("::ffff:1.2.3.4".parse().unwrap()), "1.2.3.4");
}

#[test]
fn schemes_that_cannot_be_added() {
    for scheme in ["world", "auth", "super", "x509", ""] {
        let refused = authenticate(&AuthConfig::default(), scheme, Some(b"a:b"), &somebody());
        assert_eq!(refused, Err(ErrorCode::AUTH_FAILED), "{scheme}");
    }
    let null = authenticate(&AuthConfig::default(), "digest", None, &somebody());
    assert_eq!(null, Err(ErrorCode::AUTH_FAILED));
    assert_eq!(authenticate(&AuthConfig::default(), "ip", None, &somebody()), Ok(somebody()));
}
