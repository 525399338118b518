//! Tables of `client-protocol.md` part 8.

use super::*;
use crate::limits::{CONN_IDENTITIES_BYTES_MAX, CONN_IDENTITIES_MAX};
use crate::model::request::RawAcl;
use crate::model::{Acl, ErrorCode, Perms};

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
        assert_eq!(digest::id_of(DigestAlgorithm::Sha1, packet.as_bytes()), id);
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
        ("ip", "1:2:3:4:5:6:7::", true),
        ("ip", "1:2:3:4:5:6:7:8::", false),
        ("ip", "1::2::3", false),
        ("ip", ":1", false),
        ("ip", ":::", false),
        ("ip", "::12345", false),
        ("ip", "127.0.0.+1", true),
        ("ip", "127.0.0.-1", false),
        ("ip", "", false),
        ("super", "", false),
        ("x509", "CN=a", false),
        ("nonsense", "a", false),
    ] {
        let fixed = fix(&[raw(scheme, id)], &somebody());
        assert_eq!(fixed.is_ok(), valid, "{scheme}:{id}");
    }
}

#[test]
fn many_identities_times_many_entries_are_refused() {
    let config = AuthConfig::default();
    let mut me = Identities::default();
    for number in 0..300 {
        let id = Id { scheme: Str::from_static("digest"), id: Str::from(format!("u{number}:x")) };
        me = me.with(id).expect("there is room");
    }
    let entries = |count: i32| -> Vec<RawAcl> {
        let scheme = Some(Str::from_static("auth"));
        (0..count)
            .map(|perms| RawAcl { perms: Perms(perms), scheme: scheme.clone(), id: None })
            .collect()
    };
    assert_eq!(fix_acl(&config, Some(&entries(100)), &me).map(|acl| acl.len()), Ok(30_000));
    assert_eq!(fix_acl(&config, Some(&entries(300)), &me), Err(ErrorCode::INVALID_ACL));
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
        ("::-1", "::ffff", true),
    ] {
        assert_eq!(ip::matches(range, held), matches, "{range} {held}");
    }
    assert_eq!(ip::to_text("::1".parse().unwrap()), "0:0:0:0:0:0:0:1");
    assert_eq!(ip::to_text("::ffff:1.2.3.4".parse().unwrap()), "1.2.3.4");
}

#[test]
fn schemes_that_cannot_be_added() {
    for scheme in ["world", "auth", "super", "x509", "ensemble", ""] {
        let refused = authenticate(&AuthConfig::default(), scheme, Some(b"a:b"), &somebody());
        assert_eq!(refused, Err(AuthRefusal::Failed), "{scheme}");
    }
    let null = authenticate(&AuthConfig::default(), "digest", None, &somebody());
    assert_eq!(null, Err(AuthRefusal::Failed));
    assert_eq!(authenticate(&AuthConfig::default(), "ip", None, &somebody()), Ok(somebody()));
}

#[test]
fn the_other_digests() {
    use base64::Engine;
    for (name, expected) in [
        ("SHA-224", "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
        ("sha-256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "SHA-384",
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
             8086072ba1e7cc2358baeca134c825a7",
        ),
        ("SHA-512/256", "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23"),
    ] {
        let algorithm = DigestAlgorithm::parse(name).expect("it is offered");
        let id = digest::id_of(algorithm, b"abc");
        let hash =
            base64::engine::general_purpose::STANDARD.decode(id.strip_prefix("abc:").unwrap());
        let hex: String = hash.unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected, "{name}");
    }
    assert_eq!(DigestAlgorithm::parse("MD5"), None);
}

#[test]
fn clients_of_another_ensemble_are_sent_away() {
    let names = |names: &[&str]| AuthConfig {
        ensemble_names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        ..AuthConfig::default()
    };
    for (config, given, expected) in [
        (names(&["a", "b"]), Some(&b"b"[..]), Ok(somebody())),
        (names(&["a", "b"]), Some(b"c"), Err(AuthRefusal::OtherEnsemble)),
        (names(&["a"]), Some(b""), Ok(somebody())),
        (names(&["a"]), None, Ok(somebody())),
        (names(&[]), Some(b"c"), Ok(somebody())),
    ] {
        assert_eq!(authenticate(&config, "ensemble", given, &somebody()), expected, "{given:?}");
    }
}

#[test]
fn enforced_schemes() {
    let config = |schemes: &[&str]| AuthConfig {
        enforced_schemes: schemes.iter().map(|scheme| (*scheme).to_owned()).collect(),
        ..AuthConfig::default()
    };
    let known = authenticate(&AuthConfig::default(), "digest", Some(b"u:p"), &somebody()).unwrap();
    for (schemes, who, admitted) in [
        (&[][..], somebody(), true),
        (&["digest"], somebody(), false),
        (&["digest"], known.clone(), true),
        (&["sasl", "ip"], somebody(), true),
        (&["ensemble"], known, false),
    ] {
        assert_eq!(is_admitted(&config(schemes), &who), admitted, "{schemes:?}");
    }
}

#[test]
fn a_connection_proves_only_so_much() {
    let config = AuthConfig::default();
    let prove = |me: &Identities, user: &str| {
        authenticate(&config, "digest", Some(format!("{user}:p").as_bytes()), me)
    };
    let mut me = somebody();
    for user in 1..CONN_IDENTITIES_MAX {
        me = prove(&me, &user.to_string()).expect("there is room");
    }
    assert_eq!(me.iter().count(), CONN_IDENTITIES_MAX);
    assert_eq!(prove(&me, "one more"), Err(AuthRefusal::TooMany));
    assert_eq!(prove(&me, "1"), Ok(me.clone()));
    let long = "u".repeat(CONN_IDENTITIES_BYTES_MAX / 2);
    let me = prove(&somebody(), &long).expect("there is room");
    assert_eq!(prove(&me, &format!("{long}v")), Err(AuthRefusal::TooMany));
    assert!(prove(&me, "short").is_ok());
    // The super user is an identity of its own beside the digest.
    let id = "super:lK75jTNcA+U9vtVEw5vB51mj/w4=".to_owned();
    let config = AuthConfig { super_digest: Some(id), ..config };
    let filled = (2..CONN_IDENTITIES_MAX).fold(somebody(), |me, user| {
        authenticate(&config, "digest", Some(user.to_string().as_bytes()), &me).expect("room")
    });
    let refused = authenticate(&config, "digest", Some(b"super:secret"), &filled);
    assert_eq!(refused, Err(AuthRefusal::TooMany));
}
