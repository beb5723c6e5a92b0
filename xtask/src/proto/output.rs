//! The generated files, and how they differ from those that are committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    path::Path,
};

use super::{GENERATED, ProtoError};

/// The files that the generated directory should hold, and no others.
#[derive(Debug, Default)]
pub(super) struct Output {
    files: BTreeMap<String, Vec<u8>>,
}

/// A file that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(super) file: String,
    pub(super) kind: ChangeKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    Missing,
    Orphan,
    Stale,
}

impl Output {
    pub(super) fn add(&mut self, file: String, content: Vec<u8>) {
        self.files.insert(file, content);
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// What is to do to make `directory` hold this output, by file name.
    pub(super) fn changes(&self, directory: &Path) -> Result<Vec<Change>, ProtoError> {
        let present = list(directory)?;
        let mut changes = Vec::new();
        for (file, content) in &self.files {
            let kind = if !present.contains(file) {
                ChangeKind::Missing
            } else if fs::read(directory.join(file)).map_err(access(&directory.join(file)))?
                == *content
            {
                continue;
            } else {
                ChangeKind::Stale
            };
            changes.push(Change { file: file.clone(), kind });
        }
        let orphans = present.into_iter().filter(|file| !self.files.contains_key(file));
        changes.extend(orphans.map(|file| Change { file, kind: ChangeKind::Orphan }));
        changes.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(changes)
    }

    pub(super) fn write(&self, directory: &Path, changes: &[Change]) -> Result<(), ProtoError> {
        fs::create_dir_all(directory).map_err(access(directory))?;
        for Change { file, .. } in changes {
            let path = directory.join(file);
            match self.files.get(file) {
                Some(content) => fs::write(&path, content),
                None if path.is_dir() => fs::remove_dir_all(&path),
                None => fs::remove_file(&path),
            }
            .map_err(access(&path))?;
        }
        Ok(())
    }
}

/// The names in `directory`; none if it does not exist.
pub(super) fn list(directory: &Path) -> Result<BTreeSet<String>, ProtoError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(access(directory)(error)),
    };
    entries
        .map(|entry| {
            Ok(entry.map_err(access(directory))?.file_name().to_string_lossy().into_owned())
        })
        .collect()
}

pub(super) fn access(path: &Path) -> impl FnOnce(io::Error) -> ProtoError {
    |source| ProtoError::Access { path: path.to_owned(), source }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChangeKind::Missing => "missing",
            ChangeKind::Orphan => "orphan ",
            ChangeKind::Stale => "stale  ",
        };
        write!(f, "{kind} {GENERATED}/{}", self.file)
    }
}
