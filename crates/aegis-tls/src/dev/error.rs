use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use aegis_core::{Chain, NodeId};

use crate::Rejection;
use crate::clock::Utc;

/// Why a development CA could not be made, read or used.
///
/// The developer has to act; nothing that was there is replaced.
///
/// `Debug` prints the text with its causes, as a `main` that returns it shows it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum DevCaError {
    /// The CA's certificate is no certificate of a CA.
    #[error("{}: this is not the certificate of a CA: {reason}", path.display())]
    BadCa {
        /// The certificate file.
        path: PathBuf,
        /// What is wrong with it.
        reason: Rejection,
    },

    /// The CA's certificate is there, but not its key, so no certificate can be made for the node.
    #[error(
        "there is no usable certificate of {id} in {} and no development CA key (ca-key.pem) to make one with",
        directory.display()
    )]
    CannotIssue {
        /// The directory.
        directory: PathBuf,
        /// The node.
        id: NodeId,
    },

    /// Keys or certificates could not be made.
    #[error("cannot make a key or a certificate")]
    Crypto {
        /// Why; its type is not part of the contract.
        source: Box<dyn Error + Send + Sync>,
    },

    /// The CA is outside its dates.
    #[error(
        "the development CA in {} is valid from {} to {}; remove the directory to get a new one",
        directory.display(), Utc(*not_before), Utc(*not_after)
    )]
    Expired {
        /// The directory.
        directory: PathBuf,
        /// The begin of its validity.
        not_before: SystemTime,
        /// The end of its validity.
        not_after: SystemTime,
    },

    /// Others may write into the directory, and so put their own CA there.
    #[error("others may write into {} (mode {mode:o}); chmod 700 it", directory.display())]
    Exposed {
        /// The directory.
        directory: PathBuf,
        /// Its permission bits.
        mode: u32,
    },

    /// The directory belongs to another user, who could replace the CA.
    #[error("{} belongs to another user (uid {owner})", directory.display())]
    ForeignOwner {
        /// The directory.
        directory: PathBuf,
        /// Whose it is.
        owner: u32,
    },

    /// One half of the CA is missing. It is not made anew: certificates of the old one are in use.
    #[error(
        "{} exists, but {} does not; restore it, or remove the whole directory to get a new CA",
        present.display(), missing.display()
    )]
    HalfCa {
        /// The half that is there.
        present: PathBuf,
        /// The half that is not.
        missing: PathBuf,
    },

    /// A file or directory could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },

    /// Another process holds the directory's lock for too long.
    #[error("another process holds {} for more than {seconds} s", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long we waited.
        seconds: u64,
    },

    /// The CA's key does not fit its certificate.
    #[error("{} does not fit {}; the two are of different CAs", key.display(), certificate.display())]
    Mismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },

    /// A certificate was asked for without saying for whom.
    #[error("a certificate needs the id and the type of its node")]
    NoSubject,

    /// A link, a pipe or a directory lies where a file of the CA belongs.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },

    /// The output directory holds files of another CA.
    #[error("{} belongs to another CA; choose another directory for the output", path.display())]
    OtherCa {
        /// The file that says so.
        path: PathBuf,
    },

    /// The CA is not marked as one for development, so nothing is issued from it here.
    #[error("{} is no development CA; issue its certificates with its own tools", path.display())]
    RealCa {
        /// The certificate file.
        path: PathBuf,
    },
}

impl fmt::Debug for DevCaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Chain::new(self), f)
    }
}

impl DevCaError {
    pub(super) fn crypto(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Crypto { source: Box::new(error) }
    }
}
