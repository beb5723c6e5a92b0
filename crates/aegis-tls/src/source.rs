use std::fmt;
use std::fs::Metadata;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::LoadError;

/// More than any bundle of a mesh needs, and little enough to read at once.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Where certificate, key and CA bundle come from.
pub(crate) enum Source {
    Files { certificate: PathBuf, key: PathBuf, ca: PathBuf },
    Environment { certificate: String, key: String, ca: String },
    Memory { certificate: Vec<u8>, key: Zeroizing<Vec<u8>>, ca: Vec<u8> },
    Directory(PathBuf),
}

// By hand: the key may be in here.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files { certificate, key, ca } => f
                .debug_struct("Files")
                .field("certificate", certificate)
                .field("key", key)
                .field("ca", ca)
                .finish(),
            Self::Environment { certificate, key, ca } => f
                .debug_struct("Environment")
                .field("certificate", certificate)
                .field("key", key)
                .field("ca", ca)
                .finish(),
            Self::Memory { .. } => f.write_str("Memory"),
            Self::Directory(directory) => f.debug_tuple("Directory").field(directory).finish(),
        }
    }
}

/// PEM text and where it was read.
pub(crate) struct Pem {
    pub(crate) origin: Origin,
    pub(crate) text: Zeroizing<Vec<u8>>,
}

/// The three parts of a TLS configuration, as text.
pub(crate) struct Material {
    pub(crate) certificate: Pem,
    pub(crate) key: Pem,
    pub(crate) ca: Pem,
}

/// Where a certificate, a key or a CA bundle was read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// The environment variable of this name.
    Environment(String),
    /// This file.
    File(PathBuf),
    /// Bytes handed to [`TlsOptions::pem`](crate::TlsOptions::pem).
    Memory(Part),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::File(path) => path.display().fmt(f),
            Self::Memory(part) => write!(f, "the {part} given in memory"),
        }
    }
}

/// One of the three parts of a TLS configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The certificates of the CAs that are trusted.
    CaBundle,
    /// The own certificate, with its intermediates behind it.
    Certificate,
    /// The private key of the own certificate.
    Key,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CaBundle => "CA bundle",
            Self::Certificate => "certificate",
            Self::Key => "private key",
        })
    }
}

/// What is done about a private key that others can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadableKey {
    Refuse,
    Warn,
}

pub(crate) fn files(
    certificate: &Path,
    key: &Path,
    ca: &Path,
    readable_key: ReadableKey,
) -> Result<Material, LoadError> {
    Ok(Material {
        certificate: file(certificate, Part::Certificate, readable_key)?,
        key: file(key, Part::Key, readable_key)?,
        ca: file(ca, Part::CaBundle, readable_key)?,
    })
}

pub(crate) fn environment(certificate: &str, key: &str, ca: &str) -> Result<Material, LoadError> {
    let read = |name: &str| match std::env::var(name) {
        Ok(text) => Ok(Pem {
            origin: Origin::Environment(name.to_owned()),
            text: Zeroizing::new(text.into_bytes()),
        }),
        Err(source) => Err(LoadError::Environment { variable: name.to_owned(), source }),
    };
    Ok(Material { certificate: read(certificate)?, key: read(key)?, ca: read(ca)? })
}

/// Reads a file once; what is checked is what was read.
fn file(path: &Path, part: Part, readable_key: ReadableKey) -> Result<Pem, LoadError> {
    let error = |source| LoadError::Read { part, path: path.to_owned(), source };
    let check = |metadata: &Metadata| {
        if metadata.is_file() {
            Ok(())
        } else {
            Err(error(io::Error::other("it is not a regular file")))
        }
    };
    // Opening a FIFO would block until somebody writes to it.
    check(&std::fs::metadata(path).map_err(error)?)?;
    let opened = std::fs::File::open(path).map_err(error)?;
    // What was opened may be something else by now.
    let metadata = opened.metadata().map_err(error)?;
    check(&metadata)?;
    if part == Part::Key
        && let Some(mode) = mode_for_others(&metadata)
    {
        match readable_key {
            ReadableKey::Refuse => {
                return Err(LoadError::ReadableKey { path: path.to_owned(), mode });
            }
            ReadableKey::Warn => warn_of_readable_key(path, mode),
        }
    }
    let mut text = Zeroizing::new(Vec::new());
    opened.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).map_err(error)?;
    if MAX_FILE_BYTES < text.len() as u64 {
        return Err(error(io::Error::other("it is larger than 4 MiB")));
    }
    Ok(Pem { origin: Origin::File(path.to_owned()), text })
}

/// The mode of a file that others than its owner may read or write.
#[cfg(unix)]
pub(crate) fn mode_for_others(metadata: &Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;

    const OTHERS: u32 = 0o077;
    let mode = metadata.permissions().mode() & 0o777;
    (mode & OTHERS != 0).then_some(mode)
}

#[cfg(not(unix))]
pub(crate) fn mode_for_others(_: &Metadata) -> Option<u32> {
    None
}

pub(crate) fn warn_of_readable_key(path: &Path, mode: u32) {
    tracing::warn!(
        key = %path.display(),
        mode = format_args!("{mode:o}"),
        "others can read this private key; chmod 600 it"
    );
}
