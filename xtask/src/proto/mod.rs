//! `cargo xtask proto`: from the `.proto` files to the stubs that are committed.
//!
//! Nothing here knows a file, a package or a service by name, so that a new
//! `.proto` file needs no edit anywhere.

mod comments;
mod modules;
mod names;
mod output;
mod package;
mod source;
mod stubs;

#[cfg(test)]
mod tests;

use std::{fmt, io, path::Path, path::PathBuf};

use output::{Change, Output};

const PROTOS: &str = "proto";
const GENERATED: &str = "crates/aegis-proto/src/generated";

/// What to do with the stubs once they are made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mode {
    /// Bring the committed files up to date.
    Write,
    /// Fail if a committed file is not up to date.
    Check,
}

/// Makes the stubs of the workspace at `root`.
///
/// Nothing is written before all of them could be made.
pub(crate) fn run(root: &Path, mode: Mode) -> Result<Report, ProtoError> {
    let output = generate(&root.join(PROTOS))?;
    let directory = root.join(GENERATED);
    let changes = output.changes(&directory)?;
    match mode {
        Mode::Write => output.write(&directory, &changes)?,
        Mode::Check if !changes.is_empty() => return Err(ProtoError::Stale { changes }),
        Mode::Check => {}
    }
    Ok(Report { files: output.len(), changes })
}

fn generate(protos: &Path) -> Result<Output, ProtoError> {
    let packages = package::group(source::compile(protos)?)?;
    names::check(&packages)?;
    let mut output = Output::default();
    for (name, content) in stubs::generate(&packages)? {
        output.add(name, content.into_bytes());
    }
    for package in &packages {
        output.add(package.descriptor_file(), package.descriptor_set());
    }
    output.add("mod.rs".to_owned(), modules::render(&packages).into_bytes());
    Ok(output)
}

/// What a successful run did.
#[derive(Debug)]
pub(crate) struct Report {
    files: usize,
    changes: Vec<Change>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files in {GENERATED}", self.files)?;
        if self.changes.is_empty() {
            return write!(f, ", all up to date");
        }
        for change in &self.changes {
            write!(f, "\n  {change}")?;
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
    /// The committed files are not what the protos say.
    #[error("stubs are not up to date, run `cargo xtask proto`:{}", list(.changes))]
    Stale { changes: Vec<Change> },
    /// The generator failed on files that passed every check.
    #[error("cannot generate stubs: {source}")]
    Generate { source: io::Error },
}

fn list(changes: &[Change]) -> String {
    let lines: Vec<String> = changes.iter().map(|change| format!("\n  {change}")).collect();
    lines.concat()
}
