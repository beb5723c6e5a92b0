//! The command as its users see it, on a workspace in a temporary directory.

mod breaking;
mod builds;

use std::{collections::BTreeMap, fs, path::PathBuf};

use tempfile::TempDir;

use super::{GENERATED, Mode, PROTOS, ProtoError, Report, run};

/// A service of its own package, one of everything.
const GREETER: &str = r#"
    syntax = "proto3";
    package aegis.greeter.v1;
    service Greeter { rpc Greet(Hello) returns (Hello); }
    message Hello { string text = 1; }
"#;

struct Workspace(TempDir);

impl Workspace {
    fn new(protos: &[(&str, &str)]) -> Self {
        let workspace = Self::at(tempfile::tempdir().unwrap());
        for (name, text) in protos {
            workspace.write(name, text);
        }
        workspace
    }

    fn at(place: TempDir) -> Self {
        fs::create_dir(place.path().join(PROTOS)).unwrap();
        Self(place)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(PROTOS).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.0.path().join(PROTOS).join(name)).unwrap();
    }

    fn generated(&self, name: &str) -> PathBuf {
        self.0.path().join(GENERATED).join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.generated(name)).unwrap()
    }

    /// All generated files.
    fn snapshot(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(self.generated("")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    fn run(&self, mode: Mode) -> Result<Report, ProtoError> {
        run(self.0.path(), mode)
    }

    /// Writes the stubs, then looks for `expected` in those of `package`.
    #[track_caller]
    fn check_stubs(&self, package: &str, expected: &[&str]) {
        self.run(Mode::Write).unwrap();
        let code = self.read(&format!("{package}.rs"));
        for text in expected {
            assert!(code.contains(text), "no `{text}` in\n{code}");
        }
    }

    /// Expects a refusal that says all of `expected`, and nothing written.
    #[track_caller]
    fn check_refused(&self, expected: &[&str]) {
        let error = self.run(Mode::Write).unwrap_err().to_string();
        for text in expected {
            assert!(error.contains(text), "no `{text}` in\n{error}");
        }
        assert!(!self.generated("").exists());
    }
}

/// A file of package `aegis.a.v1` with `body`.
fn proto(body: &str) -> String {
    format!("syntax = \"proto3\";\npackage aegis.a.v1;\n{body}\n")
}

#[track_caller]
fn check_refused(body: &str, expected: &[&str]) {
    Workspace::new(&[("a/a.proto", &proto(body))]).check_refused(expected);
}

#[track_caller]
fn check_stubs(body: &str, expected: &[&str]) {
    Workspace::new(&[("a/a.proto", &proto(body))]).check_stubs("aegis.a.v1", expected);
}

#[test]
fn a_new_proto_needs_no_edit() {
    let workspace = Workspace::new(&[("greeter/greeter.proto", GREETER)]);
    workspace.check_stubs("aegis.greeter.v1", &["pub struct Hello", "pub mod greeter_client"]);
    assert!(workspace.read("mod.rs").contains("pub mod greeter {\n    pub mod v1 {"));
    assert!(workspace.generated("aegis.greeter.v1.bin").exists());
    workspace.run(Mode::Check).unwrap();

    workspace.write("farewell.proto", &GREETER.replace("greeter", "farewell"));
    workspace.check_stubs("aegis.farewell.v1", &["pub mod greeter_server"]);
    assert!(workspace.read("mod.rs").contains("pub mod farewell {"));
}

#[test]
fn a_check_names_what_is_stale_missing_or_orphaned() {
    let workspace = Workspace::new(&[("greeter.proto", GREETER)]);
    workspace.run(Mode::Write).unwrap();
    workspace.write("greeter.proto", &GREETER.replace("text = 1;", "text = 1; bool loud = 2;"));
    fs::remove_file(workspace.generated("mod.rs")).unwrap();
    fs::write(workspace.generated("old.rs"), "").unwrap();

    let error = workspace.run(Mode::Check).unwrap_err().to_string();
    for expected in [
        "run `cargo xtask proto`",
        "stale   crates/aegis-proto/src/generated/aegis.greeter.v1.bin",
        "stale   crates/aegis-proto/src/generated/aegis.greeter.v1.rs",
        "missing crates/aegis-proto/src/generated/mod.rs",
        "orphan  crates/aegis-proto/src/generated/old.rs",
    ] {
        assert!(error.contains(expected), "no `{expected}` in\n{error}");
    }
    assert!(!workspace.generated("mod.rs").exists(), "a check writes nothing");

    workspace.run(Mode::Write).unwrap();
    workspace.run(Mode::Check).unwrap();
}

#[test]
fn a_changed_comment_changes_no_descriptor() {
    let workspace = Workspace::new(&[("greeter.proto", GREETER)]);
    workspace.run(Mode::Write).unwrap();
    let before = fs::read(workspace.generated("aegis.greeter.v1.bin")).unwrap();
    workspace.write("greeter.proto", &GREETER.replace("message", "// Said.\nmessage"));
    workspace.check_stubs("aegis.greeter.v1", &["/// Said."]);
    assert_eq!(fs::read(workspace.generated("aegis.greeter.v1.bin")).unwrap(), before);
}

#[test]
fn a_removed_proto_takes_its_stubs_along() {
    let farewell = GREETER.replace("greeter", "farewell");
    let workspace = Workspace::new(&[("greeter.proto", GREETER), ("farewell.proto", &farewell)]);
    workspace.run(Mode::Write).unwrap();
    workspace.remove("farewell.proto");
    let error = workspace.run(Mode::Check).unwrap_err().to_string();
    for expected in ["aegis.farewell.v1.rs", "aegis.farewell.v1.bin"] {
        let expected = format!("orphan  crates/aegis-proto/src/generated/{expected}");
        assert!(error.contains(&expected), "no `{expected}` in\n{error}");
    }

    workspace.run(Mode::WriteBreaking).unwrap();
    assert!(!workspace.generated("aegis.farewell.v1.rs").exists());
    assert!(!workspace.generated("aegis.farewell.v1.bin").exists());
    assert!(!workspace.read("mod.rs").contains("farewell"));
}

#[test]
fn the_bare_package_takes_the_name_of_its_directory() {
    let workspace = Workspace::new(&[
        ("mesh/mesh.proto", "syntax = \"proto3\"; package aegis; message Ping {}"),
        ("mesh/v1/mesh.proto", "syntax = \"proto3\"; package aegis.mesh.v1; message Record {}"),
    ]);
    workspace.run(Mode::Write).unwrap();
    let modules = workspace.read("mod.rs");
    assert!(modules.contains("pub mod mesh {\n    //! Package `aegis`"), "{modules}");
    assert!(modules.contains("    pub mod v1 {\n        //! Package `aegis.mesh.v1`"), "{modules}");
}

#[test]
fn a_package_without_a_place_is_refused() {
    let bare = "syntax = \"proto3\"; package aegis; message A {}";
    Workspace::new(&[("a.proto", bare)]).check_refused(&["proto/a.proto", "needs a directory"]);
    Workspace::new(&[("a/a.proto", bare), ("b/b.proto", &bare.replace('A', "B"))])
        .check_refused(&["proto/a/a.proto", "several directories", "put them into one"]);
    Workspace::new(&[("a.proto", "syntax = \"proto3\"; message A {}")])
        .check_refused(&["proto/a.proto: no package", "add `package aegis."]);
    for (package, reason) in [
        ("aegis.convert.v1", "the module `convert`"),
        ("aegis.packages.v1", "the module `packages`"),
        ("mod", "the file `mod.rs`"),
        ("aegis._.v1", "no letter or digit"),
    ] {
        Workspace::new(&[("a.proto", &format!("syntax = \"proto3\"; package {package};"))])
            .check_refused(&["proto/a.proto", reason, package, "rename the package"]);
    }
    Workspace::new(&[
        ("mesh/a.proto", bare),
        ("mesh/b.proto", "syntax = \"proto3\"; package aegis.mesh; message B {}"),
    ])
    .check_refused(&["proto/mesh/b.proto", "`aegis` and `aegis.mesh`", "module `mesh`"]);
}

#[test]
fn a_broken_proto_is_reported_with_file_and_line() {
    check_refused("message A { strin text = 1; }", &["proto/a/a.proto:3:13: ", "strin"]);
    check_refused("message A {", &["proto/a/a.proto:", "expected"]);
    check_refused("import \"none.proto\";", &["proto/a/a.proto:3:1: ", "'none.proto' not found"]);
    check_refused(
        "import \"google/protobuf/any.proto\";\nimport \"google/protobuf/any.proto\";",
        &["proto/a/a.proto:4:1: ", "listed twice"],
    );
    let a = proto("message A {}");
    Workspace::new(&[("a/a.proto", &a), ("b/a.proto", &a)])
        .check_refused(&["proto/b/a.proto:3:9: ", "already defined in file 'a/a.proto'"]);
    let importer = proto("import \"a.proto\"; message B { A a = 1; }");
    Workspace::new(&[("a/a.proto", &a), ("b.proto", &importer)])
        .check_refused(&["proto/b.proto:3:1: ", "import 'a.proto' not found"]);
}

#[test]
fn packages_refer_to_each_other() {
    let workspace = Workspace::new(&[
        ("common/types.proto", "syntax = \"proto3\"; package aegis; message User {}"),
        (
            "users/users.proto",
            "syntax = \"proto3\"; package aegis.users.v1; import \"common/types.proto\";
             message Users { repeated aegis.User users = 1; }",
        ),
    ]);
    workspace.check_stubs("aegis.users.v1", &["Vec<super::super::User>"]);
    // `super::super` of the code of `aegis.users.v1` has to be package `aegis`.
    let modules: String = workspace.read("mod.rs").split_whitespace().collect();
    let expected = "modpackages{pub(incrate::generated)modaegis{include!(\"aegis.rs\");\
        pub(incrate::generated)modusers{pub(incrate::generated)modv1{include!(\"aegis.users.v1.rs\");";
    assert!(modules.contains(expected), "{modules}");
}

#[test]
fn types_of_google_are_found_and_own_copies_are_not_read() {
    let workspace = Workspace::new(&[
        ("google/protobuf/timestamp.proto", "an old copy, or none at all"),
        ("google/protobuf/descriptor.proto", "likewise"),
        (
            "a/a.proto",
            &proto(
                "import \"google/protobuf/timestamp.proto\";
                 import \"google/protobuf/empty.proto\";
                 message A { google.protobuf.Timestamp at = 1; }
                 service S { rpc Nothing(google.protobuf.Empty) returns (google.protobuf.Empty); }",
            ),
        ),
    ]);
    workspace.check_stubs(
        "aegis.a.v1",
        &["Option<::prost_types::Timestamp>", "request: tonic::Request<()>"],
    );
    let modules = workspace.read("mod.rs");
    assert!(!modules.contains("google"), "{modules}");
}

#[test]
fn names_that_meet_in_rust_are_refused_with_file_element_and_remedy() {
    check_refused(
        "enum Fb { FB_A = 0; } enum FB { FB_B = 0; }",
        &["proto/a/a.proto: ", "enum `Fb` and enum `FB`", "rename one of them"],
    );
    check_refused("message FooBar {} message Foo_Bar {}", &["message `Foo_Bar`", "`FooBar`"]);
    check_refused(
        "message A { message Inner {} } message a { message Inner {} }",
        &["message `A` and message `a`", "the types in message `A`"],
    );
    check_refused(
        "message A { int32 foo_bar = 1; oneof FooBar { int32 x = 2; } }",
        &["field `A.foo_bar` and oneof `A.FooBar`"],
    );
    check_refused("enum E { E_UNSET = 0; UNSET = 1; }", &["value `E.E_UNSET` and value `E.UNSET`"]);
    check_refused(
        "message M {} service S { rpc DoIt(M) returns (M); rpc Do_it(M) returns (M); }",
        &["rpc `S.DoIt` and rpc `S.Do_it`"],
    );
    check_refused(
        "message EchoClient { message Inner {} } service Echo {}",
        &["the types in message `EchoClient` and service `Echo`", "`echo_client`"],
    );
    for (fields, method) in [
        ("E a = 1; E set_a = 2;", "set_a"),
        ("E a = 1; optional int32 set_a = 2;", "set_a"),
        ("repeated E a = 1; E push_a = 2;", "push_a"),
        ("map<int32, E> a = 1; E get_a = 2;", "get_a"),
        ("map<int32, E> a = 1; E insert_a = 2;", "insert_a"),
    ] {
        check_refused(
            &format!("enum E {{ A = 0; }} message M {{ {fields} }}"),
            &["field `M.a` and field `M.", &format!("`{method}` in Rust: rename one of them")],
        );
    }
    check_refused(
        "enum E { A = 0; } message M { map<int32, E> type = 1; }",
        &["proto/a/a.proto: field `M.type` is a map of enums", "rename it"],
    );
}

#[test]
fn names_without_a_letter_are_refused() {
    for (body, element) in [
        ("message _ {}", "message `_`"),
        ("message M { int32 _ = 1; }", "field `M._`"),
        ("message M { message __ {} }", "message `M.__`"),
        ("message M { oneof _ { int32 a = 1; } }", "oneof `M._`"),
        ("message M { oneof a { int32 _ = 1; } }", "field `M._`"),
        ("enum _ { A = 0; }", "enum `_`"),
        ("enum E { _ = 0; }", "value `E._`"),
        ("service _ {}", "service `_`"),
        ("message M {} service S { rpc _(M) returns (M); }", "rpc `S._`"),
    ] {
        check_refused(body, &["proto/a/a.proto: ", element, "no letter or digit", ": rename it"]);
        check_stubs(&body.replace('_', "_1"), &["pub "]);
    }
}

#[test]
fn names_that_only_look_alike_are_kept() {
    check_stubs(
        "message M { enum Type { A = 0; } oneof type { int32 x = 1; } }
         message O { message Inner {} oneof inner { Inner i = 1; } }
         enum Feeding { FEEDING_SELF = 0; }
         enum Time { TIME_3S = 0; }
         message Seconds { Time a = 1; int32 set_a = 2; map<int32, int32> type = 3; oneof set { Time set_b = 4; Time b = 5; } }
         message Words { int32 type = 1; int32 self = 2; int32 super = 3; int32 crate = 4; int32 async = 5; int32 gen = 6; optional int32 maybe = 7; }",
        &["enum TypeOneOf", "enum InnerOneOf", "Self_ = 0", "Time3s = 0", "pub r#gen: i32", "pub crate_: i32"],
    );
}

#[test]
fn services_give_way_to_the_generated_code_and_keep_their_names_on_the_wire() {
    check_stubs(
        "message M {}
         service Service { rpc Connect(M) returns (M); rpc Ready(M) returns (M); rpc New(M) returns (M); rpc Clone(M) returns (M); rpc Move(M) returns (M); rpc Type(M) returns (M); rpc Self(M) returns (M); }
         service raft_request { rpc join(M) returns (M); }
         service Clone { rpc With_Origin(M) returns (M); }
         service Echo {} service EchoClient {}",
        &[
            "pub async fn new_(",
            "\"/aegis.a.v1.Service/New\"",
            "\"/aegis.a.v1.Service/Self\"",
            "async fn r#move(",
            "\"/aegis.a.v1.raft_request/join\"",
            "pub trait RaftRequest",
            "pub trait Clone_",
            "pub async fn with_origin_(",
            "\"/aegis.a.v1.Clone/With_Origin\"",
            "pub mod echo_client_client",
        ],
    );
}

#[test]
fn comments_become_no_tests() {
    check_stubs(
        "// Use it so:\n//\n//\tlet x = 1;\n//        x + 1\n//\n// ```rust\n// unclosed [x] <T> */\n//\n// ~~~\nmessage M {}",
        &["/// let x = 1;\n/// x + 1", "/// \\`\\`\\`rust", "\\[x\\] \\<T\\> */", "/// \\~\\~\\~"],
    );
}
