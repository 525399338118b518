//! Random values of requests: paths good and odd, data, ACLs, versions, flags.

use std::collections::BTreeMap;

use ringkeeper::base::Prng;

/// What the answers so far taught: paths that were made, and the versions of znodes.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) created: Vec<Vec<u8>>,
    pub(super) versions: BTreeMap<Vec<u8>, i32>,
}

/// Paths kept in [`Known`].
const CREATED_MAX: usize = 40;

impl Known {
    pub(super) fn created(&mut self, path: &[u8]) {
        if self.created.len() == CREATED_MAX {
            self.created.remove(0);
        }
        self.created.push(path.to_vec());
    }
}

/// A chosen value and what to call it.
pub(super) fn pick<T: Copy>(prng: &mut Prng, from: &[T]) -> T {
    let at = usize::try_from(prng.below(from.len() as u64)).expect("it is small");
    from[at]
}

/// True `parts` times in a hundred.
pub(super) const fn percent(prng: &mut Prng, parts: u64) -> bool {
    prng.below(100) < parts
}

const NAMES: &[&str] = &["a", "b", "c"];
const BUILT_IN: &[&str] = &["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"];
const QUOTA: &[&str] = &[
    "/zookeeper/quota/a",
    "/zookeeper/quota/a/zookeeper_limits",
    "/zookeeper/quota/a/zookeeper_stats",
    "/zookeeper/quota/a/b",
    "/zookeeper/quota/a/b/zookeeper_limits",
    "/zookeeper/quota/a/b/zookeeper_stats",
    "/zookeeper/quota/b",
    "/zookeeper/quota/b/zookeeper_limits",
    "/zookeeper/quota/b/zookeeper_stats",
];
/// Every rule of `client-protocol.md` 5.1 from both sides, and what is no UTF-8.
const ODD: &[&[u8]] = &[
    b"",
    b"a",
    b"a/b",
    b"/a/",
    b"//",
    b"//a",
    b"/a//b",
    b"/.",
    b"/..",
    b"/a/.",
    b"/a/..",
    b"/a/./b",
    b"/a/../b",
    b"/a/...",
    b"/a/.b",
    b"/a/b.",
    b"/a/b..c",
    b"/ ",
    b"/a/ ",
    b" /a",
    b"/a\0",
    b"/a\0b/c",
    b"\0",
    b"/a/\x01",
    b"/a/\x1f",
    b"/a/\x7f",
    b"/a/\xc2\x80",
    b"/a/\xc2\x9f",
    b"/a/\xc2\xa0",
    b"/a/\xed\x9f\xbf",
    b"/a/\xee\x80\x80",
    b"/a/\xef\xa3\xbf",
    b"/a/\xef\xa4\x80",
    b"/a/\xef\xbf\xaf",
    b"/a/\xef\xbf\xb0",
    b"/a/\xef\xbf\xbf",
    b"/a/\xe2\x80\xa8",
    b"/a/\xc3\xbc\xe4\xb8\xad",
    b"/a/\xf0\x9f\x98\x80",
    b"/\xff",
    b"/a\xc0\x80b",
    b"/\xe2\x82",
    b"/\xe2\x82/a",
    b"/\xed\xa0\xbd\xed\xb8\x80",
    b"/\xed\xa0\x80",
    b"/\xf0\x9f\x98",
    b"/\xf4\x90\x80\x80",
    b"/\xf8\x88\x80\x80\x80",
    b"/\xe0\x80\xaf",
    b"/a/%s%n",
    b"/zookeeper/",
    b"/zookeeper/quota/",
    b"/zookeeperx",
    b"/a/zookeeper_limits",
    b"/a/zookeeper_stats",
];

/// A path; `None` is null.
pub(super) fn path(prng: &mut Prng, known: &Known) -> Option<Vec<u8>> {
    match prng.below(100) {
        0..=61 => Some(plain_path(prng).into_bytes()),
        62..=79 if !known.created.is_empty() => {
            let at = usize::try_from(prng.below(known.created.len() as u64)).expect("small");
            known.created.get(at).cloned()
        }
        62..=84 => Some(pick(prng, BUILT_IN).into()),
        85..=92 => Some(pick(prng, QUOTA).into()),
        93..=98 => Some(odd_path(prng)),
        _ if percent(prng, 40) => None,
        _ => Some(long_path(prng)),
    }
}

/// One to three of few names, so that requests meet.
pub(super) fn plain_path(prng: &mut Prng) -> String {
    let depth = pick(prng, &[1, 1, 2, 2, 2, 3]);
    (0..depth).map(|_| format!("/{}", pick(prng, NAMES))).collect()
}

fn odd_path(prng: &mut Prng) -> Vec<u8> {
    pick(prng, ODD).to_vec()
}

fn long_path(prng: &mut Prng) -> Vec<u8> {
    let len = usize::try_from(prng.below(3000)).expect("small");
    format!("/a/{}", "n".repeat(len)).into_bytes()
}

/// Data for `path`. The statistics nodes of quotas get text that parses: other text ends an Apache
/// server at the next change that counts.
pub(super) fn data(prng: &mut Prng, path: Option<&[u8]>) -> Option<Vec<u8>> {
    let path = path.unwrap_or_default();
    let holds = |name: &[u8]| path.windows(name.len()).any(|part| part == name);
    if holds(b"zookeeper_stats") || holds(b"zookeeper_limits") {
        return Some(track(prng).into_bytes());
    }
    match prng.below(20) {
        0..=1 => None,
        2..=4 => Some(Vec::new()),
        5..=17 => Some(bytes(prng, 12)),
        18 => Some(bytes(prng, 2000)),
        _ if prng.one_in(20) => Some(bytes(prng, 300_000)),
        _ => Some(bytes(prng, 100)),
    }
}

fn bytes(prng: &mut Prng, below: u64) -> Vec<u8> {
    let len = prng.below(below);
    (0..len).map(|_| u8::try_from(prng.below(256)).expect("a byte")).collect()
}

/// Limits small enough to be met.
fn track(prng: &mut Prng) -> String {
    let number = |prng: &mut Prng| pick(prng, &[-1_i64, -1, 0, 1, 2, 3, 5, 20, 100]);
    let (count, bytes) = (number(prng), number(prng));
    match prng.below(6) {
        0..=1 => format!("count={count},bytes={bytes}"),
        2 => format!("count={count},bytes={bytes}=;byteHardLimit={}", number(prng)),
        3 => format!("count={count},bytes={bytes}=;countHardLimit={}", number(prng)),
        4 => {
            let (hard, count_hard) = (number(prng), number(prng));
            let start = format!("count={count},bytes={bytes}=");
            format!("{start};byteHardLimit={hard};countHardLimit={count_hard}")
        }
        _ => format!("bytes={bytes},count={count}"),
    }
}

pub(super) fn version(prng: &mut Prng, known: &Known, path: Option<&[u8]>) -> i32 {
    match prng.below(100) {
        0..=54 => -1,
        55..=84 => path.and_then(|path| known.versions.get(path)).copied().unwrap_or(0),
        85..=95 => i32::try_from(prng.below(4)).expect("small"),
        _ => pick(prng, &[-2, i32::MIN, i32::MAX, -1000, 77]),
    }
}

/// Flags of a create.
pub(super) fn flags(prng: &mut Prng, of_ttl: bool) -> i32 {
    match prng.below(100) {
        0..=79 if of_ttl => pick(prng, &[5, 6]),
        0..=84 => pick(prng, &[0, 0, 0, 0, 1, 2, 3]),
        85..=97 => pick(prng, &[0, 1, 2, 3, 4, 5, 6]),
        _ => pick(prng, &[7, -1, 8, 100, i32::MIN, i32::MAX]),
    }
}

pub(super) fn ttl(prng: &mut Prng) -> i64 {
    match prng.below(10) {
        // Long enough that no reaper acts during a run.
        0..=6 => 600_000_000 + i64::try_from(prng.below(1000)).expect("small"),
        7 => (1 << 40) - 1,
        8 => pick(prng, &[0, 1 << 40, i64::MAX]),
        _ => pick(prng, &[-1, i64::MIN, -5]),
    }
}

type Entry = (i32, Option<&'static [u8]>, Option<&'static [u8]>);

const fn entry(perms: i32, scheme: &'static [u8], id: &'static [u8]) -> Entry {
    (perms, Some(scheme), Some(id))
}

const OPEN: Entry = entry(31, b"world", b"anyone");
const ENTRIES: &[Entry] = &[
    OPEN,
    entry(1, b"world", b"anyone"),
    entry(15, b"world", b"anyone"),
    entry(0, b"world", b"anyone"),
    entry(-1, b"world", b"anyone"),
    entry(255, b"world", b"anyone"),
    entry(31, b"auth", b""),
    entry(3, b"auth", b"ignored"),
    (31, Some(b"auth"), None),
    entry(31, b"digest", b"u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ="),
    entry(31, b"digest", b"v:Mfy8apI9YguGKmh+AxUmAFSwkII="),
    entry(1, b"digest", b"w:x"),
    entry(31, b"ip", b"127.0.0.1"),
    entry(31, b"ip", b"127.0.0.0/8"),
    entry(31, b"ip", b"10.0.0.0/8"),
    entry(31, b"ip", b"::1"),
    entry(31, b"ip", b"fe80::/10"),
];
const ODD_ENTRIES: &[Entry] = &[
    entry(31, b"world", b"anyone2"),
    entry(31, b"world", b""),
    entry(31, b"World", b"anyone"),
    entry(31, b"", b"anyone"),
    (31, None, Some(b"anyone")),
    (31, None, None),
    (31, Some(b"world"), None),
    (31, Some(b"digest"), None),
    (31, Some(b"ip"), None),
    entry(31, b"digest", b"u:"),
    entry(31, b"digest", b":h"),
    entry(31, b"digest", b"a:b:"),
    entry(31, b"digest", b"a:b:c"),
    entry(31, b"digest", b"::b"),
    entry(31, b"digest", b":"),
    entry(31, b"digest", b"nocolon"),
    entry(31, b"digest", b"\xc3\xbc:\xe4\xb8\xad"),
    entry(31, b"digest", b"\xf0\x9f\x98\x80:h"),
    entry(31, b"digest", b"a\xff:h"),
    entry(31, b"ip", b"127.0.0.1/33"),
    entry(31, b"ip", b"127.0.0.1/-1"),
    entry(31, b"ip", b"127.0.0.1/0"),
    entry(31, b"ip", b"127.0.0.1/"),
    entry(31, b"ip", b"127.0.0.1/+8"),
    entry(31, b"ip", b"127.0.0.1/8/8"),
    entry(31, b"ip", b"127.0.0.1/a"),
    entry(31, b"ip", b"127.0.0"),
    entry(31, b"ip", b"127.0.0.256"),
    entry(31, b"ip", b"127.0.0.1."),
    entry(31, b"ip", b".127.0.0.1"),
    entry(31, b"ip", b"0127.000.0.1"),
    entry(31, b"ip", b"+127.0.0.1"),
    entry(31, b"ip", b"127.0.0.-1"),
    entry(31, b"ip", b"localhost"),
    entry(31, b"ip", b""),
    entry(31, b"ip", b"/8"),
    entry(31, b"ip", b":::1"),
    entry(31, b"ip", b"1::2::3"),
    entry(31, b"ip", b"::"),
    entry(31, b"ip", b"::/0"),
    entry(31, b"ip", b"::/129"),
    entry(31, b"ip", b"1:2:3:4:5:6:7:8"),
    entry(31, b"ip", b"1:2:3:4:5:6:7:8:9"),
    entry(31, b"ip", b"1:2:3:4:5:6:7::"),
    entry(31, b"ip", b"::2:3:4:5:6:7:8"),
    entry(31, b"ip", b"12345::"),
    entry(31, b"ip", b"g::"),
    entry(31, b"ip", b"::ffff:1.2.3.4"),
    entry(31, b"ip", b"fe80::1%lo"),
    entry(31, b"ip", b"1:2:3:4:5:6:7"),
    entry(31, b"ip", b":1:2:3:4:5:6:7"),
    entry(31, b"super", b""),
    entry(31, b"sasl", b"joe"),
    entry(31, b"x509", b"CN=a"),
    entry(31, b"ensemble", b"a"),
    entry(31, b"nonsense", b"a"),
];

/// An ACL with its length, encoded.
pub(super) fn acl(prng: &mut Prng) -> Vec<u8> {
    let chosen: Vec<Entry> = match prng.below(100) {
        0..=64 => vec![OPEN],
        65..=66 => Vec::new(),
        67 => return (-1_i32).to_be_bytes().to_vec(),
        68..=91 => (0..=prng.below(3)).map(|_| pick(prng, ENTRIES)).collect(),
        _ => {
            let mut chosen: Vec<Entry> = (0..prng.below(3)).map(|_| pick(prng, ENTRIES)).collect();
            chosen.push(pick(prng, ODD_ENTRIES));
            chosen
        }
    };
    let mut out = Vec::new();
    put_i32(&mut out, i32::try_from(chosen.len()).expect("few"));
    for (perms, scheme, id) in chosen {
        put_i32(&mut out, perms);
        put_buffer(&mut out, scheme);
        put_buffer(&mut out, id);
    }
    out
}

/// A 4-byte integer.
pub(crate) fn put_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// A buffer or string; `None` is null.
pub(crate) fn put_buffer(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => put_i32(out, -1),
        Some(bytes) => {
            put_i32(out, i32::try_from(bytes.len()).expect("requests are small"));
            out.extend_from_slice(bytes);
        }
    }
}
