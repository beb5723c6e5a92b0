//! The wire format of the Go mesh, and of our own protocol, field by field.
//!
//! A change that fails here would break nodes that are already running.

use aegis_proto::{identity, mesh};
use prost::Message;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

fn decode(set: &[u8], package: &str) -> FileDescriptorSet {
    let mut set = FileDescriptorSet::decode(set).unwrap();
    set.file.retain(|file| file.package() == package);
    assert!(!set.file.is_empty(), "no file of package {package}");
    set
}

/// Each line is `Message: number name type, ...`, the whole message.
#[track_caller]
fn check_messages(set: &FileDescriptorSet, expected: &[&str]) {
    let messages: Vec<String> =
        set.file.iter().flat_map(|file| &file.message_type).map(describe).collect();
    for line in expected {
        assert!(messages.iter().any(|it| it == line), "no `{line}` among {messages:#?}");
    }
    assert_eq!(messages.len(), expected.len(), "{messages:#?}");
}

#[track_caller]
fn check_service(set: &FileDescriptorSet, name: &str, expected: &[&str]) {
    let service = set.file.iter().flat_map(|file| &file.service).find(|it| it.name() == name);
    assert_eq!(rpcs(service.unwrap()), expected);
}

fn describe(message: &DescriptorProto) -> String {
    let fields: Vec<String> = message.field.iter().map(describe_field).collect();
    format!("{}: {}", message.name(), fields.join(", ")).trim_end().to_owned()
}

fn describe_field(field: &FieldDescriptorProto) -> String {
    let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
    let kind = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().rsplit('.').next().unwrap().to_owned(),
        other => other.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    format!("{} {} {repeated}{kind}", field.number(), field.name())
}

fn rpcs(service: &ServiceDescriptorProto) -> Vec<String> {
    let short = |name: &str| name.rsplit('.').next().unwrap().to_owned();
    let rpcs = service.method.iter().map(|rpc| {
        assert!(!rpc.client_streaming());
        let stream = if rpc.server_streaming() { "stream " } else { "" };
        let (input, output) = (short(rpc.input_type()), short(rpc.output_type()));
        format!("{}({input}) -> {stream}{output}", rpc.name())
    });
    rpcs.collect()
}

#[test]
fn go_nodes_are_understood() {
    let set = decode(mesh::FILE_DESCRIPTOR_SET, "aegis");
    check_messages(
        &set,
        &[
            "PingRequest: 1 sender_id string, 2 timestamp int64",
            "PingResponse: 1 receiver_id string, 2 timestamp int64, 3 success bool",
            "HealthRequest: 1 sender_id string",
            "HealthResponse: 1 node_id string, 2 status string, 3 last_checked int64, 4 message string, 5 error string",
            "NodeInfoRequest: 1 sender_id string",
            "NodeInfoResponse: 1 id string, 2 name string, 3 type string, 4 address string, 5 health HealthResponse",
            "TopologySyncRequest: 1 sender_id string, 2 version int64",
            "TopologySyncResponse: 1 version int64, 2 nodes repeated TopologyNode, 3 updated_at int64",
            "GetTopologyRequest: 1 sender_id string",
            "GetTopologyResponse: 1 version int64, 2 nodes repeated TopologyNode",
            "TopologyNode: 1 id string, 2 name string, 3 type string, 4 address string, 5 joined_at int64, 6 updated_at int64, 7 services repeated Service",
            "Service: 1 name string, 2 version string",
        ],
    );
    check_service(
        &set,
        "MeshService",
        &[
            "Ping(PingRequest) -> PingResponse",
            "GetHealth(HealthRequest) -> HealthResponse",
            "GetNodeInfo(NodeInfoRequest) -> NodeInfoResponse",
            "SyncTopology(TopologySyncRequest) -> TopologySyncResponse",
            "GetTopology(GetTopologyRequest) -> GetTopologyResponse",
        ],
    );
}

#[test]
fn identity_is_the_service_of_the_guide() {
    let set = decode(identity::v1::FILE_DESCRIPTOR_SET, "aegis.identity.v1");
    check_messages(
        &set,
        &[
            "ValidateSessionRequest: 1 token string",
            "ValidateSessionResponse: 1 valid bool, 2 user_id string, 3 expires_at int64",
            "GetUserRequest: 1 user_id string",
            "GetUserByEmailRequest: 1 email string",
            "GetUserResponse: 1 id string, 2 email string, 3 name string, 4 avatar_url string, 5 email_verified bool, 6 created_at int64",
            "ListProvidersRequest: 1 user_id string",
            "ListProvidersResponse: 1 providers repeated Provider",
            "Provider: 1 type string, 2 provider_user_id string, 3 linked_at int64",
            "RevokeSessionRequest: 1 token string",
            "RevokeSessionResponse:",
            "RevokeUserSessionsRequest: 1 user_id string",
            "RevokeUserSessionsResponse: 1 revoked_count uint32",
            "ListUserSessionsRequest: 1 user_id string",
            "ListUserSessionsResponse: 1 sessions repeated SessionInfo",
            "SessionInfo: 1 token_prefix string, 2 created_at int64, 3 expires_at int64, 4 user_agent string, 5 ip_address string",
            "SubscribeSessionEventsRequest:",
            "SessionEvent: 1 type SessionEventType, 2 token_prefix string, 3 user_id string, 4 timestamp int64",
        ],
    );
    check_service(
        &set,
        "IdentityService",
        &[
            "ValidateSession(ValidateSessionRequest) -> ValidateSessionResponse",
            "GetUser(GetUserRequest) -> GetUserResponse",
            "GetUserByEmail(GetUserByEmailRequest) -> GetUserResponse",
            "ListProviders(ListProvidersRequest) -> ListProvidersResponse",
            "RevokeSession(RevokeSessionRequest) -> RevokeSessionResponse",
            "RevokeUserSessions(RevokeUserSessionsRequest) -> RevokeUserSessionsResponse",
            "ListUserSessions(ListUserSessionsRequest) -> ListUserSessionsResponse",
            "SubscribeSessionEvents(SubscribeSessionEventsRequest) -> stream SessionEvent",
        ],
    );
    let values = set.file.iter().flat_map(|file| &file.enum_type).flat_map(|it| &it.value);
    let values: Vec<(&str, i32)> = values.map(|value| (value.name(), value.number())).collect();
    assert_eq!(
        values,
        [
            ("SESSION_EVENT_TYPE_UNSPECIFIED", 0),
            ("SESSION_EVENT_TYPE_CREATED", 1),
            ("SESSION_EVENT_TYPE_REVOKED", 2),
            ("SESSION_EVENT_TYPE_EXPIRED", 3),
        ]
    );
}

#[test]
fn the_second_version_renames_one_field_and_adds_one_rpc() {
    let v1 = decode(identity::v1::FILE_DESCRIPTOR_SET, "aegis.identity.v1");
    let v2 = decode(identity::v2::FILE_DESCRIPTOR_SET, "aegis.identity.v2");
    let messages = |set: &FileDescriptorSet| -> Vec<String> {
        set.file.iter().flat_map(|file| &file.message_type).map(describe).collect()
    };
    let (old, new) = (messages(&v1), messages(&v2));
    let added: Vec<&String> = new.iter().filter(|it| !old.contains(it)).collect();
    assert_eq!(
        added,
        [
            "ValidateSessionResponse: 1 valid bool, 2 subject string, 3 expires_at int64",
            "RenewSessionRequest: 1 token string",
            "RenewSessionResponse: 1 expires_at int64",
        ]
    );
    let services = |set: &FileDescriptorSet| -> Vec<String> {
        set.file.iter().flat_map(|file| &file.service).flat_map(rpcs).collect()
    };
    let (old, new) = (services(&v1), services(&v2));
    let added: Vec<&String> = new.iter().filter(|it| !old.contains(it)).collect();
    assert_eq!(added, ["RenewSession(RenewSessionRequest) -> RenewSessionResponse"]);
}

#[test]
fn our_nodes_understand_each_other() {
    let set = decode(mesh::v1::FILE_DESCRIPTOR_SET, "aegis.mesh.v1");
    check_messages(
        &set,
        &[
            "Record: 1 trust_domain string, 2 node_id string, 3 name string, 4 node_type string, 5 addresses repeated string, 6 zone string, 7 services repeated ServiceRecord, 8 state State, 9 incarnation uint64, 10 revision uint64, 11 instance bytes, 12 issued_at int64, 13 expires_at int64, 14 protocol uint32",
            "ServiceRecord: 1 name string, 2 version string, 3 grpc_services repeated string, 4 weight uint32",
            "SignedRecord: 1 body bytes, 2 chain CertificateChain, 3 fingerprint bytes, 4 scheme uint32, 5 signature bytes",
            "CertificateChain: 1 der repeated bytes",
            "Stamp: 1 key bytes, 2 incarnation uint64, 3 revision uint64, 4 hash fixed64",
            "SyncRequest: 1 root bytes, 2 nodes uint64, 3 recent repeated Stamp, 4 buckets repeated bytes, 5 stamps repeated Stamp, 6 records repeated SignedRecord",
            "SyncResponse: 1 root bytes, 2 recent repeated Stamp, 3 want repeated bytes, 4 differing repeated uint32, 5 stamps repeated Stamp, 6 records repeated SignedRecord, 7 next_page bytes",
            "FetchRequest: 1 keys repeated bytes, 2 services_first repeated string",
            "RecordPage: 1 records repeated SignedRecord",
            "WatchRequest: 1 root bytes, 2 services repeated string",
            "TopologyDelta: 1 records repeated SignedRecord, 2 down repeated bytes, 3 root bytes",
            "MemberId: 1 key bytes, 2 incarnation uint64",
            "SwimPacket: 1 cluster bytes, 2 src MemberId, 3 src_inc uint32, 4 dst MemberId, 5 msg Probe, 6 updates repeated MemberUpdate, 7 news repeated Stamp",
            "SwimReply: 1 packets repeated SwimPacket",
            "Probe: 1 kind ProbeKind, 2 number uint32, 3 about MemberId",
            "MemberUpdate: 1 member MemberId, 2 inc uint32, 3 state MemberState",
        ],
    );
    check_service(
        &set,
        "DirectoryService",
        &[
            "Sync(SyncRequest) -> SyncResponse",
            "FetchRecords(FetchRequest) -> stream RecordPage",
            "WatchTopology(WatchRequest) -> stream TopologyDelta",
            "Swim(SwimPacket) -> SwimReply",
        ],
    );
}

#[test]
fn a_record_shares_the_buffer_it_arrived_in() {
    let signed = mesh::v1::SignedRecord { body: vec![7; 4096].into(), ..Default::default() };
    let wire = bytes::Bytes::from(signed.encode_to_vec());
    let body = mesh::v1::SignedRecord::decode(wire.clone()).unwrap().body;
    assert!(wire.as_ptr_range().contains(&body.as_ptr()));
}

#[cfg(feature = "server")]
#[test]
fn wire_names_are_those_of_the_protos() {
    assert_eq!(mesh::mesh_service_server::SERVICE_NAME, "aegis.MeshService");
    assert_eq!(mesh::v1::directory_service_server::SERVICE_NAME, "aegis.mesh.v1.DirectoryService");
    assert_eq!(
        identity::v2::identity_service_server::SERVICE_NAME,
        "aegis.identity.v2.IdentityService"
    );
}
