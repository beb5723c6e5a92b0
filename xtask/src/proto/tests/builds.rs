//! What is generated is compiled, documented and called, as a crate of its own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{GENERATED, Mode, Workspace};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/proto/tests/fixtures");

/// The stubs of the fixtures, under the lint exemptions of aegis-proto.
struct Crate(Workspace);

impl Crate {
    fn new() -> Self {
        // One place for all runs, or each would leave its own build behind.
        let name = "stubs-under-test";
        drop(fs::remove_dir_all(target().join(name)));
        let place = tempfile::Builder::new().prefix(name).rand_bytes(0).tempdir_in(target());
        let workspace = Workspace::at(place.unwrap());
        copy_protos(Path::new(FIXTURES), Path::new(""), &workspace);
        workspace.run(Mode::Write).unwrap();

        let root = workspace.0.path();
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let proto = root.join(GENERATED).parent().unwrap().to_owned();
        let lib = fs::read_to_string(ours.join("crates/aegis-proto/src/lib.rs")).unwrap();
        let (_, exemptions) = lib.split_once("#[rustfmt::skip]").unwrap();
        let lib = format!("//! Stubs.\n#![deny(warnings)]\n#[rustfmt::skip]{exemptions}");
        fs::write(proto.join("lib.rs"), lib).unwrap();
        fs::create_dir(root.join("tests")).unwrap();
        fs::copy(Path::new(FIXTURES).join("calls.rs"), root.join("tests/calls.rs")).unwrap();
        fs::write(root.join("Cargo.toml"), manifest(&ours.join("Cargo.toml"))).unwrap();
        fs::copy(ours.join("Cargo.lock"), root.join("Cargo.lock")).unwrap();
        Self(workspace)
    }

    /// Runs cargo in the crate and returns what it said.
    #[track_caller]
    fn cargo(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO"))
            .args(arguments)
            .arg("--offline")
            .current_dir(self.0.0.path())
            .env("CARGO_TARGET_DIR", target())
            .env("RUSTDOCFLAGS", "-Dwarnings")
            .env("PROTOC", "/nonexistent")
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "cargo {}\n{said}", arguments.join(" "));
        said
    }
}

/// The target directory of this test, where the dependencies are built already.
fn target() -> PathBuf {
    let executable = env::current_exe().unwrap();
    executable.ancestors().nth(3).unwrap().to_owned()
}

fn copy_protos(from: &Path, relative: &Path, workspace: &Workspace) {
    for entry in fs::read_dir(from.join(relative)).unwrap() {
        let name = relative.join(entry.unwrap().file_name());
        if from.join(&name).is_dir() {
            copy_protos(from, &name, workspace);
        } else if name.extension().is_some_and(|extension| extension == "proto") {
            let text = fs::read_to_string(from.join(&name)).unwrap();
            workspace.write(name.to_str().unwrap(), &text);
        }
    }
}

/// Dependencies and profiles are those of the workspace.
fn manifest(ours: &Path) -> String {
    let ours = fs::read_to_string(ours).unwrap();
    let dependencies = |names: &[&str]| -> String {
        let line = |name: &&str| ours.lines().find(|line| line.split(" = ").next() == Some(*name));
        let lines: Vec<&str> = names.iter().map(|name| line(name).unwrap()).collect();
        lines.join("\n")
    };
    let (_, profile) = ours.split_once("[profile.dev]").unwrap();
    let (profile, _) = profile.split_once("[profile.release]").unwrap();
    format!(
        "[workspace]\n\n[package]\nname = \"stubs\"\nedition = \"2024\"\n\n\
         [lib]\npath = \"crates/aegis-proto/src/lib.rs\"\n\n\
         [features]\ndefault = [\"client\", \"server\"]\nclient = []\nserver = []\nconvert = []\n\n\
         [dependencies]\n{}\n\
         [dev-dependencies]\n{}\n\
         [dev-dependencies.tokio]\nversion = \"1\"\nfeatures = [\"macros\", \"rt\"]\n\n\
         [profile.dev]{profile}",
        dependencies(&["prost", "prost-types", "tonic", "tonic-prost"]),
        dependencies(&["http"]),
    )
}

#[test]
fn what_is_generated_builds_and_documents_and_can_be_called() {
    let stubs = Crate::new();
    let said = stubs.cargo(&["test", "--tests"]);
    assert!(said.contains("3 passed"), "{said}");
    // No comment of a proto becomes a test.
    let said = stubs.cargo(&["test", "--doc"]);
    assert!(said.contains("running 0 tests"), "{said}");
    stubs.cargo(&["doc", "--no-deps"]);
}
