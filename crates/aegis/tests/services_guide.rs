//! What the guides show that is no Rust, and the stubs that their code uses.

use std::path::{Path, PathBuf};

use crate::guide::blocks;

const QUICKSTART: &str = include_str!("../src/guide/quickstart.md");
const SERVICES: &str = include_str!("../src/guide/services.md");

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The code of the guides uses the stubs of a proto that is the reader's own. They are made here as a reader makes
/// them, and committed, since documentation has no build script.
///
/// `AEGIS_UPDATE=1` writes them anew.
#[test]
fn the_stubs_in_the_guides_are_made_from_the_proto_in_the_guides() {
    let protos: Vec<_> = [QUICKSTART, SERVICES]
        .iter()
        .flat_map(|guide| blocks(guide, "proto"))
        .filter(|proto| proto.contains("package audit.v1;"))
        .collect();
    assert_eq!(protos.len(), 2, "each guide shows it");
    assert_eq!(protos[0], protos[1], "and both show the same");

    let directory = tempfile::tempdir().unwrap();
    let (proto, out) = (directory.path().join("proto"), directory.path().join("out"));
    std::fs::create_dir_all(&proto).unwrap();
    std::fs::create_dir_all(&out).unwrap();
    std::fs::write(proto.join("audit.proto"), &protos[0]).unwrap();
    let files = protox::compile(["audit.proto"], [&proto]).unwrap();
    tonic_prost_build::configure().build_transport(false).out_dir(&out).compile_fds(files).unwrap();
    let made = std::fs::read_to_string(out.join("audit.v1.rs")).unwrap();
    let committed = at("tests/guide/audit.v1.rs");
    if std::env::var_os("AEGIS_UPDATE").is_some() {
        std::fs::write(&committed, &made).unwrap();
    }
    let committed = std::fs::read_to_string(committed).unwrap_or_default();
    assert!(made == committed, "the stubs are stale: run this test with AEGIS_UPDATE=1");
}

/// The guide shows two calls of the service; the file has more, in the same words.
#[test]
fn the_proto_of_the_identity_service_is_an_excerpt() {
    let shown = blocks(SERVICES, "proto");
    let shown = shown.iter().find(|proto| proto.contains("package aegis.identity.v1;")).unwrap();
    let file = std::fs::read_to_string(at("../../proto/identity/identity.proto")).unwrap();
    let mut rest = file.lines();
    for line in shown.lines().filter(|line| !line.trim().is_empty() && !line.contains("...")) {
        assert!(rest.any(|it| it == line), "{line:?} is not in the proto, or not in this order");
    }
}

/// The code of the server is shown once and used by all that follows.
#[test]
fn the_server_that_the_snippets_use_is_the_one_that_the_guide_shows() {
    let used = std::fs::read_to_string(at("tests/guide/identity.rs")).unwrap();
    let shown = blocks(SERVICES, "rust");
    let shown = shown.iter().find(|code| code.contains("struct IdentityServer")).unwrap();
    let hidden = |line: &str| line == "#" || line.starts_with("# ");
    let shown = shown.lines().filter(|line| !hidden(line)).collect::<Vec<_>>().join("\n");
    assert!(shown.contains("impl IdentityService for IdentityServer"), "{shown}");
    assert!(used.contains(&shown), "tests/guide/identity.rs lacks what the guide shows:\n{shown}");
}
