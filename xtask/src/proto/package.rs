//! Groups files by their protobuf package and decides where each package goes.

use std::{collections::BTreeMap, path::Path};

use prost_build::Module;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use protox::prost::Message;

use super::{ProtoError, source::Source};

/// The package that needs no mention in a path: that of this project.
pub(super) const ROOT: &str = "aegis";
/// Modules of aegis-proto that are not made from a package.
const TAKEN: [&str; 3] = ["convert", "generated", "packages"];

/// One protobuf package: the unit of a Rust module.
#[derive(Debug)]
pub(super) struct Package {
    /// As in the `package` statement.
    pub(super) name: String,
    /// Where users find it, below the root of aegis-proto.
    pub(super) path: Vec<String>,
    pub(super) files: Vec<FileDescriptorProto>,
    pub(super) imports: Vec<FileDescriptorProto>,
}

impl Package {
    /// The module of the package as the generator names it.
    pub(super) fn module(&self) -> Module {
        Module::from_protobuf_package_name(&self.name)
    }

    /// The module, segment by segment.
    pub(super) fn segments(&self) -> Vec<String> {
        self.module().parts().map(str::to_owned).collect()
    }

    pub(super) fn stub_file(&self) -> String {
        format!("{}.rs", stem(&self.module()))
    }

    pub(super) fn descriptor_file(&self) -> String {
        format!("{}.bin", stem(&self.module()))
    }

    /// The files and all that they import, without comments: a changed comment
    /// changes no descriptor.
    pub(super) fn descriptor_set(&self) -> Vec<u8> {
        let files = self.imports.iter().chain(&self.files).cloned();
        let file = files.map(|file| FileDescriptorProto { source_code_info: None, ..file });
        FileDescriptorSet { file: file.collect() }.encode_to_vec()
    }

    /// The files as a reader knows them.
    pub(super) fn file_names(&self) -> Vec<String> {
        self.files.iter().map(|file| format!("proto/{}", file.name())).collect()
    }
}

/// What the files that are made of a package are called, up to their extension.
pub(super) fn stem(module: &Module) -> String {
    let segments: Vec<&str> = module.parts().map(|part| part.trim_start_matches("r#")).collect();
    segments.join(".")
}

/// Sorts `sources` into packages, by name.
pub(super) fn group(sources: Vec<Source>) -> Result<Vec<Package>, ProtoError> {
    let all: BTreeMap<String, FileDescriptorProto> =
        sources.iter().map(|source| (source.name.clone(), source.descriptor.clone())).collect();
    let mut files: BTreeMap<String, Vec<FileDescriptorProto>> = BTreeMap::new();
    for source in sources.into_iter().filter(|source| source.ours) {
        files.entry(source.descriptor.package().to_owned()).or_default().push(source.descriptor);
    }

    let mut refusals = Vec::new();
    let mut packages: Vec<Package> = Vec::new();
    for (name, files) in files {
        let imports = imports(&files, &all);
        match path(&name, &files) {
            Ok(path) => packages.push(Package { name, path, files, imports }),
            Err(refusal) => refusals.push(refusal),
        }
    }
    for (index, package) in packages.iter().enumerate() {
        if let Some(other) = packages.iter().take(index).find(|other| other.path == package.path) {
            refusals.push(format!(
                "{}: packages `{}` and `{}` both become the module `{}`: rename a package or move a file",
                package.file_names().join(", "),
                other.name,
                package.name,
                package.path.join("::"),
            ));
        }
    }
    if refusals.is_empty() { Ok(packages) } else { Err(ProtoError::Refused { refusals }) }
}

/// Where a package goes: its own segments without a leading `aegis`. The bare
/// package `aegis` has none left and takes the directory of its files.
pub(super) fn path(package: &str, files: &[FileDescriptorProto]) -> Result<Vec<String>, String> {
    let file = files.first().map(FileDescriptorProto::name).unwrap_or_default();
    if package.is_empty() {
        return Err(format!("proto/{file}: no package: add `package {ROOT}.<name>.v1;`"));
    }
    if package == "mod" {
        return Err(format!(
            "proto/{file}: the stubs of package `{package}` would be the file `mod.rs`, which lists all of them: rename the package"
        ));
    }
    let mut path: Vec<String> =
        Module::from_protobuf_package_name(package).parts().map(str::to_owned).collect();
    if path.first().is_some_and(|first| first == ROOT) {
        path.remove(0);
    }
    if path.is_empty() {
        let directory = Path::new(file).parent();
        if files.iter().any(|file| Path::new(file.name()).parent() != directory) {
            return Err(format!(
                "proto/{file}: the files of package `{package}` lie in several directories: put them into one"
            ));
        }
        let directory = directory.map(Path::to_string_lossy).unwrap_or_default();
        let directory = directory.replace(['/', '\\'], ".");
        path = Module::from_protobuf_package_name(&directory).parts().map(str::to_owned).collect();
    }
    if path.iter().any(String::is_empty) {
        return Err(format!(
            "proto/{file}: a part of package `{package}` has no letter or digit, of which Rust names are made: rename the package"
        ));
    }
    match path.first() {
        None => Err(format!(
            "proto/{file}: package `{package}` needs a directory below proto/, which names its module"
        )),
        Some(first) if TAKEN.contains(&first.as_str()) => Err(format!(
            "proto/{file}: package `{package}` would become the module `{first}`, which aegis-proto has already: rename the package"
        )),
        Some(_) => Ok(path),
    }
}

/// What `files` import, directly or not, imports before importers.
fn imports(
    files: &[FileDescriptorProto],
    all: &BTreeMap<String, FileDescriptorProto>,
) -> Vec<FileDescriptorProto> {
    fn visit<'a>(
        name: &'a str,
        all: &'a BTreeMap<String, FileDescriptorProto>,
        order: &mut Vec<&'a FileDescriptorProto>,
    ) {
        let Some(file) = all.get(name) else { return };
        if order.iter().any(|seen| seen.name() == name) {
            return;
        }
        for import in &file.dependency {
            visit(import, all, order);
        }
        order.push(file);
    }

    let mut order = Vec::new();
    for import in files.iter().flat_map(|file| &file.dependency) {
        visit(import, all, &mut order);
    }
    order
        .into_iter()
        .filter(|import| files.iter().all(|file| file.name() != import.name()))
        .cloned()
        .collect()
}
