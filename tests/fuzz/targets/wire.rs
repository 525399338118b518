//! What comes from connections: the handshake, frames, requests, replies, words, and whole streams.

use bytes::{BufMut, Bytes, BytesMut};
use ringkeeper::auth::{self, AuthConfig, Identities};
use ringkeeper::base::Str;
use ringkeeper::client::requests;
use ringkeeper::model::request::{
    MultiReadKind, PathWatch, RawAcl, SetWatches, WatcherSelection, WatcherType,
};
use ringkeeper::model::{
    CreateKind, CreateRequest, EventType, ExtendedTypes, Perms, ReadRequest, ReconfigRequest,
    Request, SessionId, StatPersisted, WatchEvent, WriteRequest, Xid, Zxid, path,
};
use ringkeeper::wire::connect::{ConnectRequest, ConnectResponse};
use ringkeeper::wire::frame::Deframer;
use ringkeeper::wire::jute::Reader;
use ringkeeper::wire::word::Word;
use ringkeeper::wire::{client, request, response};

use super::{Target, pieces};

/// A vector's empty element is four bytes long and takes a string's place in memory, twice while
/// the vector grows.
const BYTES_PER_BYTE: usize = 64;
/// Longest frame taken.
const FRAME_BYTES_MAX: usize = 1 << 20;

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "handshake", run: handshake, seeds: handshakes, bytes_per_byte: BYTES_PER_BYTE },
    Target { name: "answer", run: answer, seeds: answers, bytes_per_byte: BYTES_PER_BYTE },
    Target { name: "request", run: one_request, seeds: frames, bytes_per_byte: BYTES_PER_BYTE },
    Target { name: "reply", run: reply, seeds: replies, bytes_per_byte: BYTES_PER_BYTE },
    Target { name: "frames", run: deframe, seeds: streams, bytes_per_byte: BYTES_PER_BYTE },
    Target { name: "word", run: word, seeds: words, bytes_per_byte: BYTES_PER_BYTE },
    Target { name: "ids", run: ids, seeds: id_seeds, bytes_per_byte: BYTES_PER_BYTE },
];

fn handshake(input: &[u8]) {
    let Ok(hello) = ConnectRequest::decode(&Bytes::copy_from_slice(input)) else { return };
    let mut buf = BytesMut::new();
    hello.encode(&mut buf);
    assert_eq!(ConnectRequest::decode(&buf.freeze().slice(4..)), Ok(hello));
}

fn handshakes() -> Vec<Vec<u8>> {
    let hello = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid(7),
        timeout_ms: 10_000,
        session: SessionId(0x0100_0000_0000_0001),
        password: Some(Bytes::from_static(&[7; 16])),
        read_only: false,
        has_read_only: true,
    };
    let old = ConnectRequest { has_read_only: false, password: None, ..hello.clone() };
    [hello, old].iter().map(|hello| body_of(|buf| hello.encode(buf))).collect()
}

fn answer(input: &[u8]) {
    let Ok(answer) = ConnectResponse::decode(&Bytes::copy_from_slice(input)) else { return };
    let mut buf = BytesMut::new();
    answer.encode(&mut buf);
    assert_eq!(ConnectResponse::decode(&buf.freeze().slice(4..)), Ok(answer));
}

fn answers() -> Vec<Vec<u8>> {
    vec![
        body_of(|buf| ConnectResponse::refused(true).encode(buf)),
        body_of(|buf| ConnectResponse::refused(false).encode(buf)),
    ]
}

/// A request, and what the server does with its texts before anything else.
fn one_request(input: &[u8]) {
    let Ok(decoded) = request::decode(&Bytes::copy_from_slice(input)) else { return };
    let request = match decoded.request {
        Ok(request) => request,
        Err(fault) => {
            let _answered = (fault.consumes_zxid(decoded.opcode), format!("{fault:?}"));
            return;
        }
    };
    if let Request::Write(WriteRequest::Create(create)) = &request {
        let me = Identities::of_peer([127, 0, 0, 1].into());
        let _judged = auth::fix_acl(&AuthConfig::default(), create.acl.as_deref(), &me);
        let _judged = (path::is_valid(&create.path), path::parent(&create.path));
    }
    // Compared as bytes: long lists of paths are kept as they came, and only their reader replaces
    // what is no UTF-8.
    let encoded = |request: &Request| {
        let mut buf = BytesMut::new();
        client::encode_request(decoded.xid, request, &mut buf);
        buf.freeze()
    };
    let bytes = encoded(&request);
    let again = request::decode(&bytes.slice(4..)).expect("the encoder writes requests");
    assert_eq!(again.xid, decoded.xid);
    assert_eq!(encoded(&again.request.expect("and whole ones")), bytes);
}

fn frames() -> Vec<Vec<u8>> {
    requests_of_every_kind()
        .iter()
        .map(|request| body_of(|buf| client::encode_request(Xid(5), request, buf)))
        .collect()
}

fn requests_of_every_kind() -> Vec<Request> {
    let path = Str::from_static("/a/b");
    let target = || PathWatch { path: path.clone(), watch: true };
    let selection = || WatcherSelection { path: path.clone(), watcher_type: WatcherType::Any };
    let acl = RawAcl {
        perms: Perms(31),
        scheme: Some(Str::from_static("world")),
        id: Some(Str::from_static("anyone")),
    };
    let create = |kind| {
        WriteRequest::Create(CreateRequest {
            kind,
            path: path.clone(),
            data: Some(Bytes::from_static(b"data")),
            acl: Some(vec![acl.clone(), acl.clone()]),
            flags: 0,
        })
    };
    let writes = vec![
        create(CreateKind::Create),
        create(CreateKind::Create2),
        create(CreateKind::Container),
        create(CreateKind::Ttl { ttl_ms: 1000 }),
        WriteRequest::Delete { path: path.clone(), version: 1 },
        WriteRequest::SetData { path: path.clone(), data: None, version: -1 },
        WriteRequest::Check { path: path.clone(), version: 3 },
    ];
    let set = SetWatches {
        relative_zxid: Zxid(9),
        data: [path.clone(), path.clone()].into_iter().collect(),
        child: [path.clone()].into_iter().collect(),
        ..SetWatches::default()
    };
    let persistent_recursive = [path.clone()].into_iter().collect();
    let both = SetWatches { persistent_recursive, ..set.clone() };
    let reads = vec![
        ReadRequest::Exists(target()),
        ReadRequest::GetData(target()),
        ReadRequest::GetChildren(target()),
        ReadRequest::GetChildren2(target()),
        ReadRequest::GetAcl { path: path.clone() },
        ReadRequest::CheckWatches(selection()),
        ReadRequest::RemoveWatches(selection()),
        ReadRequest::MultiRead(vec![
            (MultiReadKind::GetData, path.clone()),
            (MultiReadKind::GetChildren, path.clone()),
        ]),
        ReadRequest::SetWatches(set),
        ReadRequest::SetWatches(both),
        ReadRequest::GetEphemerals { prefix: Some(path.clone()) },
        ReadRequest::GetAllChildrenNumber { path: path.clone() },
        ReadRequest::AddWatch { path: path.clone(), recursive: true },
    ];
    let mut all = vec![
        Request::Write(WriteRequest::Multi(writes.clone())),
        Request::Write(WriteRequest::SetAcl {
            path: path.clone(),
            acl: Some(vec![acl.clone()]),
            version: 0,
        }),
        Request::Write(WriteRequest::CloseSession),
        Request::Sync { path: path.clone() },
        Request::Ping,
        Request::Auth {
            scheme: Some(Str::from_static("digest")),
            auth: Some(Bytes::from_static(b"user:secret")),
        },
        Request::Sasl { token: Some(Bytes::from_static(b"token")) },
        Request::WhoAmI,
        Request::Write(WriteRequest::Reconfig(ReconfigRequest {
            joining: Some(Str::from_static("server.1=a:1:2;3")),
            leaving: Some(Str::from_static("2,3")),
            new_members: None,
            from_config: -1,
        })),
    ];
    // A check stands in a multi only.
    let single = writes.into_iter().filter(|write| !matches!(write, WriteRequest::Check { .. }));
    all.extend(single.map(Request::Write));
    all.extend(reads.into_iter().map(Request::Read));
    all
}

/// A reply or an event, read in every way that a client may.
fn reply(input: &[u8]) {
    let frame = Bytes::copy_from_slice(input);
    let Ok((_, body)) = client::frame_body(&frame) else { return };
    let readers: [fn(&mut Reader); 6] = [
        |body| drop(client::decode_event(body)),
        |body| drop((body.buffer("data"), body.stat())),
        |body| drop((body.str("path"), body.stat())),
        |body| drop((body.acls(), body.stat())),
        |body| drop((body.vector("children", |body| body.some_str("child")), body.stat())),
        |body| while body.i32("type").is_ok() && body.bool("done").is_ok() {},
    ];
    for read in readers {
        read(&mut body.clone());
    }
}

type Write = Box<dyn Fn(&mut BytesMut)>;

fn replies() -> Vec<Vec<u8>> {
    let header = |buf: &mut BytesMut| {
        buf.put_i32(3);
        buf.put_i64(9);
        buf.put_i32(0);
    };
    let stat = StatPersisted::default().visible(4, 2, ExtendedTypes::Off);
    let names = ["a", "b", "c"];
    let event = WatchEvent { event_type: EventType::NodeCreated, path: Str::from_static("/a") };
    let bodies: Vec<Write> = vec![
        Box::new(move |buf| response::path_and_stat(buf, "/a", &stat)),
        Box::new(move |buf| response::data_and_stat(buf, Some(b"data"), &stat)),
        Box::new(move |buf| response::acl_and_stat(buf, &[ringkeeper::model::Acl::open()], &stat)),
        Box::new(move |buf| response::children_and_stat(buf, names.into_iter(), &stat)),
        Box::new(|buf| {
            for _ in 0..3 {
                response::multi_error(buf, ringkeeper::model::ErrorCode::NO_NODE);
            }
            response::multi_end(buf);
        }),
    ];
    let mut all: Vec<Vec<u8>> = bodies
        .iter()
        .map(|body| {
            let mut buf = BytesMut::new();
            header(&mut buf);
            body(&mut buf);
            buf.to_vec()
        })
        .collect();
    all.push(body_of(|buf| response::event(buf, Zxid(4), &event)));
    all
}

/// A stream in pieces of a length that its first byte says gives the frames that it gives whole.
fn deframe(input: &[u8]) {
    let Some((len, stream)) = input.split_first() else { return };
    let whole = frames_of(pieces(stream, stream.len()), stream.len());
    let cut = frames_of(pieces(stream, usize::from(*len)), stream.len());
    assert_eq!(whole, cut);
}

/// The frames of a stream, and whether it went wrong.
fn frames_of(stream: impl Iterator<Item = Bytes>, len: usize) -> (Vec<Bytes>, bool) {
    let mut deframer = Deframer::new(FRAME_BYTES_MAX);
    let mut frames = Vec::new();
    for piece in stream {
        deframer.push(piece);
        let _peeked = (deframer.peek_word(), deframer.peek_opcode());
        loop {
            match deframer.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
            assert!(frames.len() <= len, "every frame takes bytes of the stream");
        }
        assert!(deframer.buffered() <= len);
    }
    (frames, false)
}

fn streams() -> Vec<Vec<u8>> {
    let mut stream = vec![7];
    for request in requests_of_every_kind() {
        let mut buf = BytesMut::new();
        client::encode_request(Xid(5), &request, &mut buf);
        stream.extend_from_slice(&buf);
    }
    vec![stream, vec![3, 0, 0, 0, 0, 0, 0, 0, 1, 9, 0, 0, 0, 2, 8, 8]]
}

fn word(input: &[u8]) {
    let Some(word) = input.first_chunk().and_then(|first| Word::parse(*first)) else { return };
    assert_eq!(Some(word.name().as_bytes()), input.get(..4));
}

fn words() -> Vec<Vec<u8>> {
    Word::ALL.iter().map(|word| word.name().as_bytes().to_vec()).collect()
}

/// An ACL of one entry, its scheme and id split at the first zero; the same text as an auth packet,
/// and what it proves against the ACL.
fn ids(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (scheme, id) = text.split_once('\0').unwrap_or((&text, ""));
    let entry =
        RawAcl { perms: Perms(31), scheme: Some(Str::from(scheme)), id: Some(Str::from(id)) };
    let config = AuthConfig::default();
    let me = Identities::of_peer([10, 1, 2, 3].into());
    let me = auth::authenticate(&config, scheme, Some(id.as_bytes()), &me).unwrap_or(me);
    let _listed = me.who_am_i();
    if let Ok(acl) = auth::fix_acl(&config, Some(&[entry]), &me) {
        let _judged = auth::allowed(&config, &acl, Perms(1), &me);
        assert_eq!(auth::mask_digests(&acl).len(), acl.len());
    }
}

fn id_seeds() -> Vec<Vec<u8>> {
    ["world\0anyone", "digest\0u:p", "ip\x0010.0.0.0/8", "ip\0::1/64", "auth\0", "digest\0u:x:"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

/// A frame without its length.
fn body_of(encode: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut buf = BytesMut::new();
    encode(&mut buf);
    buf.split_off(4).to_vec()
}

/// A request as the tools send it, so that seeds and tools do not drift apart.
#[test]
fn seeds_decode() {
    let mut buf = BytesMut::new();
    client::encode_request(Xid(1), &requests::get("/a", true), &mut buf);
    let tools = buf.split_off(4).to_vec();
    for frame in frames().into_iter().chain([tools]) {
        let decoded = request::decode(&Bytes::from(frame)).expect("it has a header");
        assert!(decoded.request.is_ok(), "{decoded:?}");
    }
}
