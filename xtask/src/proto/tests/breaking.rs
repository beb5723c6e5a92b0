//! What may not change once it is committed, and what may.

use std::fs;

use super::{GREETER, Mode, Workspace, proto};

/// One of everything that can break.
const BASE: &str = "
    message M {
      reserved 7, 20 to 29; reserved \"old\";
      string text = 1; repeated M many = 2; map<string, M> by_name = 3; optional int32 maybe = 4;
      oneof choice { string left = 5; int64 right = 6; }
      Inner inner = 8; E e = 9;
      message Inner { bool yes = 1; }
    }
    message Other {}
    enum E { reserved 5; E_UNSET = 0; E_A = 1; E_B = 2; }
    service S { rpc Get(M) returns (M); rpc Watch(M) returns (stream M); }";

/// Commits `before`, changes it to `after`, and expects lines that name the
/// break, and no others; that it is written only when allowed; and that
/// `before` itself breaks nothing.
#[track_caller]
fn check_files(before: &[(&str, &str)], after: &[(&str, &str)], lines: &[&str]) {
    let workspace = Workspace::new(before);
    workspace.run(Mode::Write).unwrap();
    workspace.run(Mode::Write).unwrap();
    for (name, _) in before {
        workspace.remove(name);
    }
    for (name, text) in after {
        workspace.write(name, text);
    }
    let committed = workspace.snapshot();
    for mode in [Mode::Check, Mode::Write] {
        let error = workspace.run(mode).unwrap_err().to_string();
        let found: Vec<&str> =
            error.lines().filter_map(|line| line.strip_prefix("  proto/")).collect();
        assert_eq!(found, lines, "{error}");
        assert!(error.contains("cargo xtask proto --allow-breaking"), "{error}");
        assert_eq!(workspace.snapshot(), committed);
    }
    let report = workspace.run(Mode::WriteBreaking).unwrap().to_string();
    assert!(lines.iter().all(|line| report.contains(line)), "{report}");
    workspace.run(Mode::Check).unwrap();
}

/// Replaces `old` in the base by `new`, which breaks `lines`.
#[track_caller]
fn check(old: &str, new: &str, lines: &[&str]) {
    let lines: Vec<String> = lines.iter().map(|line| format!("a/a.proto: {line}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    check_files(&[("a/a.proto", &proto(BASE))], &[("a/a.proto", &changed(old, new))], &lines);
}

/// Replaces `old` in the base by `new`, which breaks nobody.
#[track_caller]
fn check_kept(old: &str, new: &str) {
    let workspace = Workspace::new(&[("a/a.proto", &proto(BASE))]);
    workspace.run(Mode::Write).unwrap();
    workspace.write("a/a.proto", &changed(old, new));
    workspace.run(Mode::Write).unwrap();
    workspace.run(Mode::Check).unwrap();
}

#[track_caller]
fn changed(old: &str, new: &str) -> String {
    assert!(BASE.contains(old), "no `{old}` in the base");
    proto(&BASE.replacen(old, new, 1))
}

#[test]
fn an_element_that_is_gone_breaks() {
    check(
        "string text = 1;",
        "",
        &["field `M.text`: was `string text = 1`, now gone: keep it, marked `[deprecated = true]`"],
    );
    check_kept("string text = 1;", "string text = 1 [deprecated = true];");
    check(
        "E_B = 2;",
        "",
        &["value `E.E_B`: was `E_B = 2`, now gone: keep it, marked `[deprecated = true]`"],
    );
    check(
        "rpc Get(M) returns (M);",
        "",
        &["rpc `S.Get`: was `rpc Get(M) returns (M)`, now gone: \
           keep it: servers that do not implement it answer UNIMPLEMENTED"],
    );
    check("message Other {}", "", &["message `Other`: was there, now gone: keep it"]);
    check(
        "Inner inner = 8; E e = 9;\n      message Inner { bool yes = 1; }",
        "E e = 9;",
        &[
            "message `M.Inner`: was there, now gone: keep it",
            "field `M.inner`: was `M.Inner inner = 8`, now gone: keep it, marked `[deprecated = true]`",
        ],
    );
    check(
        "service S { rpc Get(M) returns (M); rpc Watch(M) returns (stream M); }",
        "",
        &["service `S`: was there, now gone: keep it"],
    );
}

#[test]
fn a_retyped_field_breaks() {
    let remedy = "leave it as it was and add another beside it";
    for (old, new, was, now) in [
        ("string text = 1", "bytes text = 1", "string text = 1", "bytes text = 1"),
        (
            "string text = 1",
            "repeated string text = 1",
            "string text = 1",
            "repeated string text = 1",
        ),
        (
            "string text = 1",
            "optional string text = 1",
            "string text = 1",
            "optional string text = 1",
        ),
        ("repeated M many = 2", "M many = 2", "repeated M many = 2", "M many = 2"),
        (
            "repeated M many = 2",
            "repeated Other many = 2",
            "repeated M many = 2",
            "repeated Other many = 2",
        ),
        (
            "map<string, M> by_name",
            "map<int32, M> by_name",
            "map<string, M> by_name = 3",
            "map<int32, M> by_name = 3",
        ),
    ] {
        let name = was.split(' ').rev().nth(2).unwrap();
        check(old, new, &[&format!("field `M.{name}`: was `{was}`, now `{now}`: {remedy}")]);
    }
    // A message can always be absent.
    check_kept("Inner inner = 8", "optional Inner inner = 8");
}

#[test]
fn a_field_that_enters_or_leaves_a_oneof_breaks() {
    let remedy = "leave it as it was and add another beside it";
    check(
        "oneof choice { string left = 5; int64 right = 6; }",
        "string left = 5; oneof choice { int64 right = 6; }",
        &[&format!(
            "field `M.left`: was `string left = 5 in oneof choice`, now `string left = 5`: {remedy}"
        )],
    );
    check(
        "string text = 1;",
        "oneof one { string text = 1; }",
        &[&format!(
            "field `M.text`: was `string text = 1`, now `string text = 1 in oneof one`: {remedy}"
        )],
    );
    check_kept("int64 right = 6;", "int64 right = 6; bool both = 10;");
}

#[test]
fn another_number_or_name_breaks() {
    check(
        "string text = 1",
        "string text = 11",
        &["field `M.text`: was `string text = 1`, now `string text = 11`: give it its number back"],
    );
    check(
        "string text = 1",
        "string words = 1",
        &["field `M.text`: was `string text = 1`, now `string words = 1`: give it its name back"],
    );
    check(
        "E_A = 1; E_B = 2;",
        "E_B = 1; E_A = 2;",
        &[
            "value `E.E_A`: was `E_A = 1`, now `E_A = 2`: give it its number back",
            "value `E.E_B`: was `E_B = 2`, now `E_B = 1`: give it its number back",
        ],
    );
    check(
        "E_B = 2",
        "E_C = 2",
        &["value `E.E_B`: was `E_B = 2`, now `E_C = 2`: give it its name back"],
    );
    check_kept("E_A = 1; E_B = 2;", "E_B = 2; E_A = 1; E_C = 3;");
}

#[test]
fn a_value_that_is_no_longer_the_first_of_its_number_breaks() {
    let aliases = |values| {
        let text = format!("enum E {{ option allow_alias = true; E_UNSET = 0; {values} }}");
        proto(&text)
    };
    let before = aliases("E_A = 1; E_B = 1; E_C = 1;");
    // Stubs have one variant for each number, by the name that comes first.
    check_files(
        &[("a.proto", &before)],
        &[("a.proto", &aliases("E_NEW = 1; E_A = 1; E_C = 1; E_B = 1;"))],
        &[
            "a.proto: value `E.E_A`: was the first with its number, now `E_NEW` is: put it first again",
        ],
    );
    let workspace = Workspace::new(&[("a.proto", &before)]);
    workspace.run(Mode::Write).unwrap();
    workspace.write("a.proto", &aliases("E_D = 2; E_A = 1; E_C = 1; E_B = 1; E_NEW = 1;"));
    workspace.run(Mode::Write).unwrap();
}

#[test]
fn an_rpc_with_other_messages_or_streams_breaks() {
    let remedy = "leave it as it was and add another beside it";
    for (old, new, was, now) in [
        (
            "Get(M) returns (M)",
            "Get(Other) returns (M)",
            "Get(M) returns (M)",
            "Get(Other) returns (M)",
        ),
        (
            "Get(M) returns (M)",
            "Get(M) returns (Other)",
            "Get(M) returns (M)",
            "Get(M) returns (Other)",
        ),
        (
            "Get(M) returns (M)",
            "Get(stream M) returns (M)",
            "Get(M) returns (M)",
            "Get(stream M) returns (M)",
        ),
        (
            "Watch(M) returns (stream M)",
            "Watch(M) returns (M)",
            "Watch(M) returns (stream M)",
            "Watch(M) returns (M)",
        ),
    ] {
        let name = was.split('(').next().unwrap();
        check(old, new, &[&format!("rpc `S.{name}`: was `rpc {was}`, now `rpc {now}`: {remedy}")]);
    }
    check_kept("service S {", "service S { rpc Put(M) returns (M);");
}

#[test]
fn what_was_reserved_stays_so() {
    check(
        "reserved 7, 20 to 29;",
        "reserved 20 to 29; bool again = 7;",
        &["message `M`: was `reserved 7`, now a field `bool again = 7`: reserve it again"],
    );
    check(
        "reserved 7, 20 to 29;",
        "reserved 7, 20 to 24, 26 to 29;",
        &["message `M`: was `reserved 20 to 29`, now not all of it reserved: reserve it again"],
    );
    check(
        "reserved \"old\";",
        "",
        &["reserved name `M.old`: was `reserved \"old\"`, now gone: reserve it again"],
    );
    check(
        "reserved 5; E_UNSET = 0;",
        "E_UNSET = 0; E_C = 5;",
        &["enum `E`: was `reserved 5`, now a value `E_C = 5`: reserve it again"],
    );
    check_kept("reserved 7, 20 to 29;", "reserved 7 to 7, 20 to 24, 25 to 31;");
    // What goes by intent leaves its number and name behind.
    check(
        "string text = 1;",
        "reserved 1; reserved \"text\";",
        &["field `M.text`: was `string text = 1`, now gone: keep it, marked `[deprecated = true]`"],
    );
}

#[test]
fn a_package_goes_only_by_intent() {
    let farewell = GREETER.replace("greeter", "farewell");
    check_files(
        &[("greeter.proto", GREETER), ("farewell.proto", &farewell)],
        &[("greeter.proto", GREETER)],
        &["farewell.proto: package `aegis.farewell.v1`: was there, now gone: \
           keep it until no node serves or calls it"],
    );
    check_files(
        &[("a/a.proto", &proto(BASE))],
        &[("a/a.proto", &proto(BASE).replace("aegis.a.v1", "aegis.a.v2"))],
        &["a/a.proto: package `aegis.a.v1`: was there, now gone: \
           keep it until no node serves or calls it"],
    );
}

#[test]
fn an_element_may_move_to_another_file_of_its_package() {
    let workspace = Workspace::new(&[("a/a.proto", &proto("message A {} message B { A a = 1; }"))]);
    workspace.run(Mode::Write).unwrap();
    workspace.write("a/a.proto", &proto("import \"a/b.proto\"; message B { A a = 1; }"));
    workspace.write("a/b.proto", &proto("message A {}"));
    workspace.run(Mode::Write).unwrap();

    // What breaks next is named where it is now, the place of what is gone included.
    workspace.write("a/b.proto", &proto(""));
    workspace.write("a/a.proto", &proto("message A { bool x = 1; } message B {}"));
    let error = workspace.run(Mode::Write).unwrap_err().to_string();
    assert!(error.contains("  proto/a/a.proto: field `B.a`: was `A a = 1`, now gone"), "{error}");
}

#[test]
fn proto2_breaks_by_its_own_rules() {
    let before = "syntax = \"proto2\"; package aegis.a.v1;
        message M { required int32 a = 1; optional int32 b = 2 [default = 3]; extensions 100 to 199; }
        extend M { optional string more = 100; }";
    let after = "syntax = \"proto2\"; package aegis.a.v1;
        message M { optional int32 a = 1; optional int32 b = 2 [default = 4]; extensions 100 to 199; }
        extend M { optional bytes more = 100; }";
    let remedy = "leave it as it was and add another beside it";
    check_files(
        &[("a.proto", before)],
        &[("a.proto", after)],
        &[
            &format!(
                "a.proto: extension `more`: was `extend M {{ optional string more = 100 }}`, now `extend M {{ optional bytes more = 100 }}`: {remedy}"
            ),
            &format!(
                "a.proto: field `M.a`: was `required int32 a = 1`, now `optional int32 a = 1`: {remedy}"
            ),
            &format!(
                "a.proto: field `M.b`: was `optional int32 b = 2 [default = 3]`, now `optional int32 b = 2 [default = 4]`: {remedy}"
            ),
        ],
    );
}

#[test]
fn the_first_value_of_a_proto2_enum_is_its_default() {
    let proto2 = |values| {
        format!(
            "syntax = \"proto2\"; package aegis.a.v1; enum E {{ {values} }} message M {{ optional E e = 1; }}"
        )
    };
    check_files(
        &[("a.proto", &proto2("E_A = 1; E_B = 2; E_C = 3;"))],
        &[("a.proto", &proto2("E_B = 2; E_A = 1; E_C = 3;"))],
        &["a.proto: value `E.E_A`: was the default of its enum, now `E_B` is: put it first again"],
    );
    let workspace = Workspace::new(&[("a.proto", &proto2("E_A = 1; E_B = 2; E_C = 3;"))]);
    workspace.run(Mode::Write).unwrap();
    workspace.write("a.proto", &proto2("E_A = 1; E_C = 3; E_B = 2; E_D = 0;"));
    workspace.run(Mode::Write).unwrap();
}

#[test]
fn the_bare_package_stays_where_its_users_find_it() {
    let bare = "syntax = \"proto3\"; package aegis; message M {}";
    check_files(
        &[("mesh/a.proto", bare)],
        &[("net/a.proto", bare)],
        &[
            "net/a.proto: package `aegis`: was `aegis_proto::mesh`, now `aegis_proto::net`: move its files back",
        ],
    );
}

#[test]
fn a_field_is_a_map_only_by_its_own_entries() {
    let other = proto("message Box { message ByNameEntry {} }").replace("aegis.a.v1", "aegis.b.v1");
    let before = proto(
        "import \"b.proto\"; message M { map<string, M> by_name = 1; aegis.b.v1.Box.ByNameEntry one = 2; }",
    );
    let after =
        before.replace("aegis.b.v1.Box.ByNameEntry one", "repeated aegis.b.v1.Box.ByNameEntry one");
    check_files(
        &[("a.proto", &before), ("b.proto", &other)],
        &[("a.proto", &after), ("b.proto", &other)],
        &[
            "a.proto: field `M.one`: was `aegis.b.v1.Box.ByNameEntry one = 2`, now `repeated aegis.b.v1.Box.ByNameEntry one = 2`: \
           leave it as it was and add another beside it",
        ],
    );
}

#[test]
fn a_oneof_whose_type_gets_another_name_breaks() {
    check(
        "message Inner { bool yes = 1; }",
        "message Inner { bool yes = 1; } message Choice {}",
        &[
            "field `M.left`: was `string left = 5 in oneof choice`, now `string left = 5 in oneof choice (ChoiceOneOf)`: leave it as it was and add another beside it",
            "field `M.right`: was `int64 right = 6 in oneof choice`, now `int64 right = 6 in oneof choice (ChoiceOneOf)`: leave it as it was and add another beside it",
        ],
    );
}

#[test]
fn descriptors_that_cannot_be_read_are_named() {
    let workspace = Workspace::new(&[("greeter.proto", GREETER)]);
    workspace.run(Mode::Write).unwrap();
    let path = workspace.generated("aegis.greeter.v1.bin");
    fs::write(&path, "\u{7f}").unwrap();
    let error = workspace.run(Mode::Write).unwrap_err().to_string();
    assert!(error.contains("aegis.greeter.v1.bin holds no descriptors"), "{error}");
    assert!(error.ends_with("restore it"), "{error}");

    fs::remove_file(&path).unwrap();
    workspace.run(Mode::Write).unwrap();
    workspace.run(Mode::Check).unwrap();
}
