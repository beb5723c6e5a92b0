//! Conversions are total: a checked value or a typed error, whatever the bytes.

use std::time::Duration;

use aegis_core::{NodeId, NodeType, ServiceInfo, SpiffeId, TrustDomain};
use aegis_proto::convert::{WireError, decode_record, encode_record, keys, records};
use aegis_proto::mesh::v1 as wire;
use aegis_topology::{
    Description, Instance, Key, Label, NodeState, Precedence, Record, Root, ServiceEntry,
    SignedRecord, Stamp, SyncRequest, SyncResponse, Timestamp,
};
use bytes::Bytes;
use proptest::prelude::any;
use proptest::proptest;
use prost::Message;

fn record() -> Record {
    let owner = SpiffeId::new(
        TrustDomain::from_static("prod.example"),
        NodeType::from_static("identity-server"),
        NodeId::from_static("morpheus-1"),
    );
    let service = ServiceEntry::new(ServiceInfo::from_static("identity", "v1"))
        .served_by(["aegis.identity.v1.IdentityService"])
        .unwrap()
        .with_weight(50);
    let addresses = ["10.0.0.1:8443", "[fd00::1]:8443"].map(|it| it.parse().unwrap());
    let description = Description::new(Label::new("Morpheus").unwrap(), addresses, [service])
        .unwrap()
        .in_zone(Label::new("eu-1").unwrap());
    let mut record = Record::new(
        owner,
        Instance::from_bytes([7; 16]),
        Precedence::new(1_700_000_000_000, 3),
        description,
        Timestamp::from_millis(1_700_000_000_000),
        Duration::from_secs(3_600),
    );
    record.state = NodeState::Draining;
    record
}

fn signed() -> SignedRecord {
    let chain = vec![Bytes::from_static(b"leaf"), Bytes::from_static(b"issuer")];
    SignedRecord::new(encode_record(&record()), chain, 0x0403, Bytes::from_static(b"signature"))
}

#[test]
fn a_record_reads_back_as_it_was_written() {
    assert_eq!(decode_record(&encode_record(&record())).unwrap(), record());
}

#[test]
fn addresses_that_nobody_can_dial_are_ignored() {
    let mut body = wire::Record::decode(encode_record(&record())).unwrap();
    body.addresses = ["0.0.0.0:1", "[::]:1", "10.0.0.1:0", "10.0.0.1:1"].map(str::to_owned).into();
    let record = decode_record(&body.encode_to_vec()).unwrap();
    assert_eq!(record.description.addresses(), ["10.0.0.1:1".parse().unwrap()]);
}

#[track_caller]
fn check_refused(change: impl FnOnce(&mut wire::Record), expected: &str) {
    let mut body = wire::Record::decode(encode_record(&record())).unwrap();
    change(&mut body);
    let error = decode_record(&body.encode_to_vec()).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_record_that_breaks_a_rule_is_refused_with_the_rule() {
    check_refused(|it| it.node_id = "../x".into(), "a name in the record is not valid");
    check_refused(|it| it.trust_domain.clear(), "a name in the record is not valid");
    check_refused(|it| it.name = "a\u{1b}[2J".into(), "the name in the record cannot be shown");
    check_refused(|it| it.zone = "z".repeat(65), "the zone in the record cannot be shown");
    check_refused(
        |it| it.addresses.push("nowhere".into()),
        "an address in the message cannot be read",
    );
    check_refused(|it| it.state = 9, "the record's state 9 is unknown");
    check_refused(
        |it| it.instance = Bytes::from_static(&[1; 15]),
        "the instance has 15 bytes, not 16",
    );
    check_refused(|it| it.issued_at = -1, "the time of issue -1 is out of range");
    check_refused(|it| it.protocol = 0, "the protocol version 0 is out of range");
    check_refused(
        |it| it.services[0].grpc_services.push("no/slash".into()),
        "the description in the record cannot be used",
    );
}

#[test]
fn messages_of_a_sync_read_back_as_they_were_written() {
    let stamp = Stamp::new(Key::from_bytes([3; 16]), Precedence::new(4, 5), 6);
    let mut request = SyncRequest::default();
    request.root = Root::from_bytes([9; 16]);
    request.nodes = 2;
    request.recent = vec![stamp];
    request.buckets = vec![Root::from_bytes([1; 16]); 256];
    request.stamps = vec![stamp, Stamp::unknown(stamp.key)];
    request.records = vec![signed()];
    assert_eq!(SyncRequest::try_from(wire::SyncRequest::from(request.clone())).unwrap(), request);

    let mut response = SyncResponse::default();
    response.root = request.root;
    response.want = vec![stamp.key];
    response.differing = vec![0, 255];
    response.stamps = vec![stamp];
    response.records = vec![signed()];
    response.more = true;
    let read = SyncResponse::try_from(wire::SyncResponse::from(response.clone())).unwrap();
    assert_eq!(read, response);
}

#[test]
fn counts_and_lengths_are_bounded() {
    let good = wire::SignedRecord::from(signed());
    let mut fingerprint = good.clone();
    let hash = Bytes::from_static(&[0; 32]);
    fingerprint.certificate = Some(wire::signed_record::Certificate::Fingerprint(hash));
    assert!(matches!(SignedRecord::try_from(fingerprint), Err(WireError::NoChain)));
    let mut long = good.clone();
    let chain = wire::CertificateChain { der: vec![Bytes::new(); 5] };
    long.certificate = Some(wire::signed_record::Certificate::Chain(chain));
    assert!(matches!(SignedRecord::try_from(long), Err(WireError::Count { .. })));
    let mut scheme = good.clone();
    scheme.scheme = 70_000;
    assert!(matches!(SignedRecord::try_from(scheme), Err(WireError::Range { .. })));
    // Among others, it is only left out.
    let (read, unreadable) = records(vec![wire::SignedRecord::default(), good]).unwrap();
    assert_eq!((read, unreadable), (vec![signed()], 1));
    assert!(matches!(keys(&[Bytes::from_static(&[1; 17])]), Err(WireError::Length { .. })));
    assert!(matches!(keys(&vec![Bytes::new(); 20_000]), Err(WireError::Count { .. })));
    let buckets = wire::SyncRequest { buckets: vec![Bytes::new(); 3], ..Default::default() };
    assert!(matches!(SyncRequest::try_from(buckets), Err(WireError::Count { .. })));
    let differing = wire::SyncResponse { differing: vec![256], ..Default::default() };
    assert!(matches!(SyncResponse::try_from(differing), Err(WireError::Range { .. })));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        drop(decode_record(&bytes));
        if let Ok(request) = wire::SyncRequest::decode(&*bytes) {
            drop(SyncRequest::try_from(request));
        }
        if let Ok(response) = wire::SyncResponse::decode(&*bytes) {
            drop(SyncResponse::try_from(response));
        }
    }

    #[test]
    fn no_damaged_record_panics(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut body = encode_record(&record()).to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        drop(decode_record(&body));
    }
}
