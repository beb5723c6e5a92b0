//! Finds and compiles the `.proto` files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use prost_types::FileDescriptorProto;
use protox::{
    Compiler,
    file::{ChainFileResolver, GoogleFileResolver, IncludeFileResolver},
};

use super::{PROTOS, ProtoError};

/// A compiled file, named by its path under the proto directory.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) descriptor: FileDescriptorProto,
    /// False for files that are only there because others import them.
    pub(super) ours: bool,
}

/// Compiles every `.proto` file under `directory`, imports first.
pub(super) fn compile(directory: &Path) -> Result<Vec<Source>, ProtoError> {
    let mut resolver = ChainFileResolver::new();
    // First, so that a vendored copy of Google's files, which may be of any
    // age, is never read: the types come from prost-types in any case.
    resolver.add(GoogleFileResolver::new());
    resolver.add(IncludeFileResolver::new(directory.to_owned()));
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);

    let files = find(directory)?;
    for file in &files {
        compiler.open_file(file).map_err(|error| refusal(file, &error))?;
    }
    let sources = compiler.file_descriptor_set().file.into_iter().map(|descriptor| {
        let name = descriptor.name().to_owned();
        let ours = files.iter().any(|file| file.as_path() == Path::new(&name));
        Source { name, descriptor, ours }
    });
    Ok(sources.collect())
}

/// What the compiler says in full; it leaves out the file at its very end.
fn refusal(opened: &Path, error: &protox::Error) -> ProtoError {
    let text = format!("{error:?}");
    let opened = opened.to_string_lossy();
    let file = error.file().unwrap_or(&opened);
    let text = if text.starts_with(file) {
        format!("{PROTOS}/{text}")
    } else {
        format!("{PROTOS}/{file}: {text}")
    };
    ProtoError::Compile { text }
}

/// The files under `directory`, relative to it, in an order that does not
/// depend on the file system.
fn find(directory: &Path) -> Result<Vec<PathBuf>, ProtoError> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        let path = directory.join(&relative);
        let access = |source| ProtoError::Access { path: path.clone(), source };
        for entry in fs::read_dir(&path).map_err(access)? {
            let entry = entry.map_err(access)?;
            let relative = relative.join(entry.file_name());
            if entry.path().is_dir() {
                pending.push(relative);
            } else if is_ours(&relative) {
                found.push(relative);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_ours(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "proto")
        && !file.starts_with("google/protobuf")
}
