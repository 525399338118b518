//! Golden bytes of `client-protocol.md` part 16 and `quorum-and-disk.md` part 12, round trips, and
//! noise.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::client::{decode_event, decode_reply_header, encode_request};
use super::connect::{ConnectRequest, ConnectResponse, session_password};
use super::frame::{Deframer, Framed};
use super::jute::Reader;
use super::request::{Decoded, RequestFault, decode, decode_some};
use super::{response, txn};
use crate::base::Str;
use crate::model::request::{
    MultiReadKind, PathWatch, RawAcl, SetWatches, WatcherSelection, WatcherType,
};
use crate::model::{
    Acl, CreateKind, CreateRequest, CreateTxn, CreateTxnKind, ErrorCode, EventType, Perms,
    ReadRequest, ReconfigRequest, Request, SessionId, TxnBody, TxnHeader, WatchEvent, WriteRequest,
    Xid, Zxid,
};

/// Bytes from spaced hex.
pub(super) fn hex(text: &str) -> Bytes {
    let digits: String = text.split_whitespace().collect();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

const HELLO: &str = "00000000 0000000000000000 00002710 0000000000000000 00000010
    00000000000000000000000000000000 00";
const CREATE: &str = "00000001 00000001 00000002 2f61 00000000 00000001 0000001f 00000005
    776f726c64 00000006 616e796f6e65 00000000";

#[test]
fn handshakes_are_golden() {
    let request = ConnectRequest::decode(&hex(HELLO)).unwrap();
    assert_eq!((request.timeout_ms, request.has_read_only), (10_000, true));
    let mut buf = BytesMut::new();
    request.encode(&mut buf);
    assert_eq!(buf.freeze(), hex(&format!("0000002d {HELLO}")));
    let old = ConnectRequest::decode(&hex(HELLO).slice(..44)).unwrap();
    assert!(!old.has_read_only);

    let session = SessionId(0x0100_000f_f7f8_0000);
    let password = session_password(session);
    let accepted = ConnectResponse {
        timeout_ms: 10_000,
        session,
        password,
        read_only: false,
        has_read_only: true,
    };
    for (response, bytes) in [
        (
            accepted,
            "00000025 00000000 00002710 0100000ff7f80000 00000010
             7a1e00ce7fc77b82e8d604776039a6e9 00",
        ),
        (
            ConnectResponse::refused(true),
            "00000025 00000000 00000000 0000000000000000 00000010
             00000000000000000000000000000000 00",
        ),
        (
            ConnectResponse::refused(false),
            "00000024 00000000 00000000 0000000000000000 00000010
             00000000000000000000000000000000",
        ),
    ] {
        let mut buf = BytesMut::new();
        response.encode(&mut buf);
        let frame = buf.freeze();
        assert_eq!(frame, hex(bytes));
        assert_eq!(ConnectResponse::decode(&frame.slice(4..)).unwrap(), response);
    }
}

#[test]
fn passwords_are_apaches() {
    for (session, password) in [
        (0x0100_0015_9ba2_0005, "0bee7862e924c94a3468061adc027b81"),
        (0x0100_0016_eebc_0003, "73fd3968fb48db10df10720709e9d6cf"),
        (0x0100_000f_f7f8_0000, "7a1e00ce7fc77b82e8d604776039a6e9"),
        (0x0100_0012_b55f_0000, "53d5a098e4973cebe94f74ffcda4bf92"),
        (0x0300_0016_d563_0000, "ffcdce082001ca62750686fe69265cc8"),
    ] {
        assert_eq!(session_password(SessionId(session))[..], hex(password));
    }
}

#[test]
fn replies_and_events_are_golden() {
    let mut buf = BytesMut::new();
    response::reply(&mut buf, Xid(1), Zxid(7), ErrorCode::OK, |buf| response::path(buf, "/a"));
    let expected = "00000016 00000001 0000000000000007 00000000 00000002 2f61";
    assert_eq!(buf.split().freeze(), hex(expected));
    response::reply(&mut buf, Xid(3), Zxid(4), ErrorCode::OK, |buf| {
        response::multi_error(buf, ErrorCode::UNIMPLEMENTED);
        response::multi_end(buf);
    });
    let expected = "00000026 00000003 0000000000000004 00000000 ffffffff 00 fffffffa fffffffa
        ffffffff 01 ffffffff";
    assert_eq!(buf.split().freeze(), hex(expected));
    let event = WatchEvent { event_type: EventType::NodeDataChanged, path: "/w".into() };
    response::event(&mut buf, Zxid(0xca), &event);
    let expected = "0000001e ffffffff 00000000000000ca 00000000 00000003 00000003 00000002 2f77";
    let frame = buf.split().freeze();
    assert_eq!(frame, hex(expected));
    let mut reader = Reader::new(&frame.slice(4..));
    assert_eq!(decode_reply_header(&mut reader).unwrap().xid, Xid::NOTIFICATION);
    assert_eq!(decode_event(&mut reader).unwrap(), event);
    // With an error there is no body.
    response::reply(&mut buf, Xid(1), Zxid(7), ErrorCode::NO_NODE, |_| panic!("no body"));
    assert_eq!(buf.len(), 20);
}

#[test]
fn a_create_is_golden() {
    let open =
        RawAcl { perms: Perms::ALL, scheme: Some("world".into()), id: Some("anyone".into()) };
    let create = Request::Write(WriteRequest::Create(CreateRequest {
        kind: CreateKind::Create,
        path: "/a".into(),
        data: Some(Bytes::new()),
        acl: Some(vec![open]),
        flags: 0,
    }));
    let frame = decode(&hex(CREATE)).unwrap();
    assert_eq!((frame.xid, frame.opcode, frame.request.unwrap()), (Xid(1), 1, create.clone()));
    let mut buf = BytesMut::new();
    encode_request(Xid(1), &create, &mut buf);
    assert_eq!(buf.freeze(), hex(&format!("00000031 {CREATE}")));
}

#[test]
fn txns_are_golden() {
    let header = |cxid, zxid, time_ms| TxnHeader {
        session: SessionId(0x0100_0012_b55f_0000),
        cxid: Xid(cxid),
        zxid: Zxid(zxid),
        time_ms,
    };
    let create = CreateTxn {
        kind: CreateTxnKind::Create { ephemeral: false },
        path: "/a".into(),
        data: Some(Bytes::from_static(b"hello")),
        acl: vec![Acl::open()],
        parent_cversion: 1,
    };
    for (header, body, digest, bytes) in [
        (
            header(0, 0x1_0000_0001, 0x1a2_027f_8f7f),
            TxnBody::CreateSession { timeout_ms: 20_000 },
            Some(0x51c6_d660),
            "01000012b55f0000 00000000 0000000100000001 000001a2027f8f7f fffffff6 00004e20
             00000002 0000000051c6d660",
        ),
        (
            header(1, 0x1_0000_0002, 0x1a2_027f_8f8e),
            TxnBody::Create(create),
            Some(0x1_6039_670c),
            "01000012b55f0000 00000001 0000000100000002 000001a2027f8f8e 00000001 00000002 2f61
             00000005 68656c6c6f 00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00
             00000001 00000002 000000016039670c",
        ),
        (
            header(4, 0x1_0000_0005, 0x1a2_027f_8f9e),
            TxnBody::Error(ErrorCode::NODE_EXISTS),
            None,
            "01000012b55f0000 00000004 0000000100000005 000001a2027f8f9e ffffffff ffffff92",
        ),
        (
            header(10, 0x1_0000_000a, 0x1a2_027f_8fc2),
            TxnBody::CloseSession { paths: Some(["/e"].into_iter().collect()) },
            Some(0x1_a879_fb59),
            "01000012b55f0000 0000000a 000000010000000a 000001a2027f8fc2 fffffff5 00000001
             00000002 2f65 00000002 00000001a879fb59",
        ),
    ] {
        let mut buf = BytesMut::new();
        txn::encode(&header, &body, digest, &mut buf);
        let encoded = buf.freeze();
        assert_eq!(encoded, hex(bytes));
        assert_eq!(txn::encoded_bytes(&body, digest), encoded.len());
        let decoded = txn::decode(&encoded).unwrap();
        assert_eq!((decoded.header, decoded.body, decoded.digest), (header, body, digest));
    }
}

#[test]
fn what_is_no_request() {
    let fault = |bytes: &str| decode(&hex(bytes)).unwrap().request.unwrap_err();
    for opcode in ["00000000", "ffffffff", "0000000a", "0000000d", "00000017", "fffffff6"] {
        assert_eq!(fault(&format!("00000001 {opcode}")), RequestFault::Unknown, "{opcode}");
    }
    assert_eq!(fault("00000001 00000014 00000002 2f61"), RequestFault::Refused);
    for undecodable in [
        "00000001 00000001",
        "00000001 00000001 ffffffff 00000000 00000000 00000000",
        "00000001 00000002 ffffffff 00000000",
        "00000001 00000005 00000002 2f61 fffffffe 00000000",
        "00000001 00000005 00000002 2f61 7fffffff 00000000",
        "00000001 0000006a 00000002 2f61 00000002",
        "00000001 00000011 00000002 2f61 00000006",
        "00000001 0000000e 00000004 00 ffffffff 00000002 2f61 00 ffffffff 01 ffffffff",
        "00000001 0000000e 00000002 00 ffffffff 00000002 2f61 ffffffff",
        "00000001 0000000e 00000001 00 ffffffff 00000002 2f61 ffffffff 00000000 00000005
         ffffffff 01 ffffffff",
    ] {
        assert!(matches!(fault(undecodable), RequestFault::Undecodable(_)), "{undecodable}");
    }
    // Watches in front of a null are set, as Apache's server does, then the request is refused.
    let cut_short = hex("00000001 00000065 0000000000000000 ffffffff 00000000 00000000");
    let decoded = decode(&cut_short).unwrap().request;
    let Ok(Request::Read(ReadRequest::SetWatches(set))) = decoded else {
        panic!("a null list of setWatches decodes");
    };
    assert!(set.cut_short);
    let set = |text: &str| match decode(&hex(text)).unwrap().request {
        Ok(Request::Read(ReadRequest::SetWatches(set))) => set,
        other => panic!("{other:?}"),
    };
    let set_a = set("00000001 00000069 0000000000000000
         00000003 00000002 2f61 ffffffff 00000002 2f62 00000000 00000001 00000002 2f63
         00000001 00000002 2f64 00000000");
    assert!(set_a.cut_short && set_a.data.eq(["/a"]));
    assert!(set_a.child.is_empty() && set_a.persistent.is_empty(), "they come behind the null");
    let set_b_c = set("00000001 00000069 0000000000000000 00000000 00000000 00000000
         00000003 ffffffff 00000002 2f62 00000002 2f63 00000000");
    assert!(!set_b_c.cut_short && set_b_c.persistent.eq(["/b", "/c"]));
    // Bytes behind a whole record are ignored.
    assert_eq!(decode(&hex("00000001 0000000b 00")).unwrap().request, Ok(Request::Ping));
    assert!(decode(&hex("00000001 000000")).is_err());
}

#[test]
fn every_cut_of_a_record_is_an_error() {
    let hello = hex(HELLO);
    for len in 0..44 {
        assert!(ConnectRequest::decode(&hello.slice(..len)).is_err(), "{len}");
    }
    let create = hex(CREATE);
    for len in 8..create.len() {
        assert!(decode(&create.slice(..len)).unwrap().request.is_err(), "{len}");
    }
}

#[test]
fn frames_are_cut_at_their_lengths_however_they_arrive() {
    let stream = hex("00000003 616263 00000000 00000001 64");
    let expected = [Bytes::from_static(b"abc"), Bytes::new(), Bytes::from_static(b"d")];
    for piece in 1..=stream.len() {
        let mut deframer = Deframer::new(3);
        let mut found = Vec::new();
        for chunk in stream.chunks(piece) {
            deframer.push(Bytes::copy_from_slice(chunk));
            while let Some(frame) = deframer.next_frame().unwrap() {
                found.push(frame);
            }
        }
        assert_eq!(found, expected, "pieces of {piece}");
        assert_eq!(deframer.buffered(), 0);
    }
    for len in ["ffffffff", "00000004", "7fffffff"] {
        let mut deframer = Deframer::new(3);
        deframer.push(hex(len));
        assert!(deframer.next_frame().is_err(), "{len}");
    }
}

#[test]
fn frames_over_the_limit_go_by() {
    let long: Vec<u8> = (0..2_000_u32).map(|number| number.to_be_bytes()[3]).collect();
    let stream = [hex("00000003 616263 000007d0").as_ref(), &long, &hex("00000001 64")].concat();
    for piece in [1, 3, 7, 500, 1_023, 1_500, stream.len()] {
        let mut deframer = Deframer::new(3);
        deframer.skip_up_to(2_000);
        let mut found = Vec::new();
        for chunk in stream.chunks(piece) {
            deframer.push(Bytes::copy_from_slice(chunk));
            while let Some(framed) = deframer.next_framed().unwrap() {
                found.push(framed);
            }
            assert!(deframer.buffered() <= 7, "what goes by is not kept");
        }
        let head = Bytes::copy_from_slice(&long[..1024]);
        let frame = |text| Framed::Frame(Bytes::from_static(text));
        assert_eq!(found, [frame(b"abc"), Framed::Skipped { len: 2_000, head }, frame(b"d")]);
    }
    let mut deframer = Deframer::new(3);
    deframer.skip_up_to(1_999);
    deframer.push(hex("000007d0"));
    assert!(deframer.next_framed().is_err());
}

#[test]
fn the_length_of_every_txn_is_foretold() {
    let create = |kind| {
        TxnBody::Create(CreateTxn {
            kind,
            path: "/a".into(),
            data: None,
            acl: vec![Acl::open(), Acl::open()],
            parent_cversion: 1,
        })
    };
    let (path, data) = (Str::from("/path"), Some(Bytes::from_static(b"data")));
    let mut bodies = vec![
        create(CreateTxnKind::Create { ephemeral: true }),
        create(CreateTxnKind::Create2 { ephemeral: false }),
        create(CreateTxnKind::Container),
        create(CreateTxnKind::Ttl { ttl_ms: 1 }),
        TxnBody::Delete { path: path.clone() },
        TxnBody::DeleteContainer { path: path.clone() },
        TxnBody::SetData { path: path.clone(), data: data.clone(), version: 1 },
        TxnBody::Reconfig { path: path.clone(), data, version: 1 },
        TxnBody::SetAcl { path: path.clone(), acl: vec![Acl::open()], version: 1 },
        TxnBody::Check { path: path.clone(), version: 1 },
        TxnBody::Error(ErrorCode::NO_NODE),
    ];
    bodies.push(TxnBody::Multi(bodies.clone()));
    bodies.extend([
        TxnBody::CloseSession { paths: None },
        TxnBody::CloseSession { paths: Some([path.clone(), path].into_iter().collect()) },
        TxnBody::CreateSession { timeout_ms: 1 },
    ]);
    for body in bodies {
        for digest in [None, Some(1)] {
            let mut buf = BytesMut::new();
            txn::encode(&TxnHeader::default(), &body, digest, &mut buf);
            assert_eq!(txn::encoded_bytes(&body, digest), buf.len(), "{body:?}");
        }
        if let TxnBody::Multi(bodies) = &body {
            let (header, mut ops) = (TxnHeader::default(), BytesMut::new());
            bodies.iter().for_each(|body| txn::encode_op(body, &mut ops));
            let (mut in_parts, mut at_once) = (BytesMut::new(), BytesMut::new());
            txn::encode_multi(&header, &ops, bodies.len(), Some(1), &mut in_parts);
            txn::encode(&header, &body, Some(1), &mut at_once);
            assert_eq!(in_parts, at_once);
            assert_eq!(txn::multi_encoded_bytes(&ops), at_once.len());
        }
    }
}

fn any_str() -> impl Strategy<Value = Str> {
    "[ -~]{0,12}".prop_map(Str::from)
}

fn any_data() -> impl Strategy<Value = Option<Bytes>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from))
}

fn any_raw_acl() -> impl Strategy<Value = Option<Vec<RawAcl>>> {
    let string = || prop::option::of(any_str());
    let entry = (any::<i32>(), string(), string());
    let entry = entry.prop_map(|(perms, scheme, id)| RawAcl { perms: Perms(perms), scheme, id });
    prop::option::of(prop::collection::vec(entry, 0..4))
}

fn any_single_write(flags: std::ops::Range<i32>) -> impl Strategy<Value = WriteRequest> {
    let kind = prop_oneof![
        Just(CreateKind::Create),
        Just(CreateKind::Create2),
        Just(CreateKind::Container),
        any::<i64>().prop_map(|ttl_ms| CreateKind::Ttl { ttl_ms }),
    ];
    let create = (kind, any_str(), any_data(), any_raw_acl(), flags).prop_map(
        |(kind, path, data, acl, flags)| {
            WriteRequest::Create(CreateRequest { kind, path, data, acl, flags })
        },
    );
    let versioned = || (any_str(), any::<i32>());
    prop_oneof![
        create,
        versioned().prop_map(|(path, version)| WriteRequest::Delete { path, version }),
        (versioned(), any_data()).prop_map(|((path, version), data)| WriteRequest::SetData {
            path,
            data,
            version
        }),
    ]
}

fn any_request() -> impl Strategy<Value = Request> {
    let check =
        (any_str(), any::<i32>()).prop_map(|(path, version)| WriteRequest::Check { path, version });
    // A null list of ACLs inside a multi refuses it whole.
    let in_multi = any_single_write(0..5).prop_map(|write| match write {
        WriteRequest::Create(create) => {
            let acl = Some(create.acl.unwrap_or_default());
            WriteRequest::Create(CreateRequest { acl, ..create })
        }
        other => other,
    });
    let multi = prop::collection::vec(prop_oneof![in_multi, check], 0..5);
    let set_acl = (any_str(), any_raw_acl(), any::<i32>())
        .prop_map(|(path, acl, version)| WriteRequest::SetAcl { path, acl, version });
    let text = || prop::option::of(any_str());
    let reconfig = (text(), text(), text(), any::<i64>()).prop_map(
        |(joining, leaving, new_members, from_config)| {
            let request = ReconfigRequest { joining, leaving, new_members, from_config };
            WriteRequest::Reconfig(request)
        },
    );
    let write = prop_oneof![
        reconfig,
        any_single_write(-9..9),
        set_acl,
        multi.prop_map(WriteRequest::Multi),
        Just(WriteRequest::CloseSession),
    ];
    let target = || (any_str(), any::<bool>()).prop_map(|(path, watch)| PathWatch { path, watch });
    let watcher_type = prop_oneof![
        Just(WatcherType::Children),
        Just(WatcherType::Data),
        Just(WatcherType::Any),
        Just(WatcherType::Persistent),
        Just(WatcherType::PersistentRecursive),
    ];
    let selection = (any_str(), watcher_type)
        .prop_map(|(path, watcher_type)| WatcherSelection { path, watcher_type })
        .boxed();
    let kind = prop_oneof![Just(MultiReadKind::GetData), Just(MultiReadKind::GetChildren)];
    let paths = || prop::collection::vec(any_str(), 0..4);
    let set_watches = (any::<i64>(), paths(), paths(), paths(), paths(), paths()).prop_map(
        |(zxid, data, exist, child, persistent, persistent_recursive)| SetWatches {
            relative_zxid: Zxid(zxid),
            data: data.into_iter().collect(),
            exist: exist.into_iter().collect(),
            child: child.into_iter().collect(),
            persistent: persistent.into_iter().collect(),
            persistent_recursive: persistent_recursive.into_iter().collect(),
            cut_short: false,
        },
    );
    let read = prop_oneof![
        target().prop_map(ReadRequest::Exists),
        target().prop_map(ReadRequest::GetData),
        target().prop_map(ReadRequest::GetChildren),
        target().prop_map(ReadRequest::GetChildren2),
        any_str().prop_map(|path| ReadRequest::GetAcl { path }),
        selection.clone().prop_map(ReadRequest::CheckWatches),
        selection.prop_map(ReadRequest::RemoveWatches),
        prop::collection::vec((kind, any_str()), 0..4).prop_map(ReadRequest::MultiRead),
        set_watches.prop_map(ReadRequest::SetWatches),
        prop::option::of(any_str()).prop_map(|prefix| ReadRequest::GetEphemerals { prefix }),
        any_str().prop_map(|path| ReadRequest::GetAllChildrenNumber { path }),
        (any_str(), any::<bool>())
            .prop_map(|(path, recursive)| ReadRequest::AddWatch { path, recursive }),
    ];
    let auth = (prop::option::of(any_str()), any_data())
        .prop_map(|(scheme, auth)| Request::Auth { scheme, auth });
    prop_oneof![
        write.prop_map(Request::Write),
        read.prop_map(Request::Read),
        any_str().prop_map(|path| Request::Sync { path }),
        auth,
        any_data().prop_map(|token| Request::Sasl { token }),
        Just(Request::Ping),
        Just(Request::WhoAmI),
    ]
}

proptest! {
    #[test]
    fn requests_come_back(xid: i32, request in any_request()) {
        let mut buf = BytesMut::new();
        encode_request(Xid(xid), &request, &mut buf);
        let mut deframer = Deframer::new(1 << 20);
        deframer.push(buf.freeze());
        let frame = deframer.next_frame().unwrap().unwrap();
        let decoded = decode(&frame).unwrap();
        prop_assert_eq!(decoded.xid, Xid(xid));
        prop_assert_eq!(decoded.request, Ok(request));
    }

    #[test]
    fn a_multi_is_the_same_read_in_parts(
        ops in prop::collection::vec(any_single_write(-9..9), 0..9),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ops_at_once in 1..4_usize,
    ) {
        let mut buf = BytesMut::new();
        encode_request(Xid(7), &Request::Write(WriteRequest::Multi(ops)), &mut buf);
        // Behind length, xid and opcode.
        if let Some((index, byte)) = damage {
            let at = 12 + index.index(buf.len() - 12);
            buf[at] = byte;
        }
        let frame = buf.freeze().slice(4..);
        let mut decoded = decode_some(&frame, ops_at_once).unwrap();
        let parts = loop {
            match decoded {
                Decoded::Part(decoder) => decoded = decoder.go_on(ops_at_once),
                Decoded::Whole(frame) => break frame,
            }
        };
        let whole = decode(&frame).unwrap();
        prop_assert_eq!((parts.xid, parts.opcode), (whole.xid, whole.opcode));
        prop_assert_eq!(parts.request, whole.request);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(
        opcode in prop_oneof![any::<i32>(), -11..110_i32],
        noise in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let noise = Bytes::from(noise);
        let frame = [&[0, 0, 0, 1], &opcode.to_be_bytes()[..], &noise].concat();
        let _request = decode(&Bytes::from(frame));
        let _hello = ConnectRequest::decode(&noise);
        let _answer = ConnectResponse::decode(&noise);
        let _txn = txn::decode(&noise);
        let _event = decode_event(&mut Reader::new(&noise));
    }
}
