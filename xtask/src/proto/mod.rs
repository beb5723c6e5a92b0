//! `cargo xtask proto`: from the `.proto` files to the stubs that are committed.
//!
//! Nothing here knows a file, a package or a service by name, so that a new
//! `.proto` file needs no edit anywhere.

mod breaking;
mod comments;
mod elements;
mod modules;
mod names;
mod output;
mod package;
mod source;
mod stubs;

#[cfg(test)]
mod tests;

use std::{fmt, io, path::Path, path::PathBuf};

use breaking::Break;
use output::{Change, Output};
use package::Package;

const PROTOS: &str = "proto";
const GENERATED: &str = "crates/aegis-proto/src/generated";

/// What to do with the stubs once they are made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mode {
    /// Bring the committed files up to date, unless that breaks somebody.
    Write,
    /// Bring the committed files up to date.
    WriteBreaking,
    /// Fail if a committed file is not up to date.
    Check,
}

/// Makes the stubs of the workspace at `root`.
///
/// Nothing is written before all of them could be made.
pub(crate) fn run(root: &Path, mode: Mode) -> Result<Report, ProtoError> {
    let directory = root.join(GENERATED);
    let packages = package::group(source::compile(&root.join(PROTOS))?)?;
    names::check(&packages)?;
    let breaks = breaking::find(&directory, &packages)?;
    let output = generate(&packages)?;
    let changes = output.changes(&directory)?;
    match mode {
        Mode::Check | Mode::Write if !breaks.is_empty() => {
            return Err(ProtoError::Breaking { breaks, changes });
        }
        Mode::Check if !changes.is_empty() => return Err(ProtoError::Stale { changes }),
        Mode::Check => {}
        Mode::Write | Mode::WriteBreaking => output.write(&directory, &changes)?,
    }
    Ok(Report { files: output.len(), changes, breaks })
}

fn generate(packages: &[Package]) -> Result<Output, ProtoError> {
    let mut output = Output::default();
    for (name, content) in stubs::generate(packages)? {
        output.add(name, content.into_bytes());
    }
    for package in packages {
        output.add(package.descriptor_file(), package.descriptor_set());
    }
    output.add("mod.rs".to_owned(), modules::render(packages).into_bytes());
    Ok(output)
}

/// What a successful run did.
#[derive(Debug)]
pub(crate) struct Report {
    files: usize,
    changes: Vec<Change>,
    breaks: Vec<Break>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files in {GENERATED}", self.files)?;
        if self.changes.is_empty() {
            return write!(f, ", all up to date");
        }
        f.write_str(&list(&self.changes))?;
        if !self.breaks.is_empty() {
            write!(f, "\nbreaking, as allowed:{}", list(&self.breaks))?;
        }
        Ok(())
    }
}

/// Why the stubs could not be made or are not up to date.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProtoError {
    /// A directory or file could not be read or written.
    #[error("cannot access {}: {source}", path.display())]
    Access { path: PathBuf, source: io::Error },
    /// The compiler refused a file; its text names the file and the place in it.
    #[error("{text}")]
    Compile { text: String },
    /// The files are valid, but no Rust can be made of them.
    #[error("{}", .refusals.join("\n"))]
    Refused { refusals: Vec<String> },
    /// The protos take away what somebody relies on.
    #[error(
        "breaking:{}\n\
        A new shape goes beside the old one, into a package such as `aegis.<name>.v2`. \
        Where nobody speaks the old one any more: `cargo xtask proto --allow-breaking`\n\
        stubs that are not up to date:{}",
        list(.breaks),
        list(.changes)
    )]
    Breaking { breaks: Vec<Break>, changes: Vec<Change> },
    /// What was committed cannot be read, so nothing can be compared with it.
    #[error("{} holds no descriptors ({source}): restore it", path.display())]
    Descriptors { path: PathBuf, source: protox::prost::DecodeError },
    /// The committed files are not what the protos say.
    #[error("stubs are not up to date, run `cargo xtask proto`:{}", list(.changes))]
    Stale { changes: Vec<Change> },
    /// The generator failed on files that passed every check.
    #[error("cannot generate stubs: {source}")]
    Generate { source: io::Error },
}

fn list(items: &[impl fmt::Display]) -> String {
    let lines: Vec<String> = items.iter().map(|item| format!("\n  {item}")).collect();
    lines.concat()
}
