//! A development CA in a directory: certificates for a mesh on one machine, without asking anybody.
//!
//! ```
//! use aegis_tls::dev::DevCa;
//! use aegis_tls::{Subject, TlsOptions};
//!
//! # let temporary = tempfile::tempdir()?;
//! # let directory = temporary.path().join("certs");
//! let subject = Subject::new("trinity-1".parse()?, "gateway".parse()?);
//! DevCa::open_or_create(&directory)?.issue(&subject)?;
//! let tls = TlsOptions::cert_dir(&directory).load(&subject)?;
//! assert_eq!(tls.spiffe_id().to_string(), "spiffe://dev.aegis.local/aegis/gateway/trinity-1");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Whoever reads the directory can pose as any node of the mesh. So the CA lives 30 days, says in its certificate what
//! it is, and every source but [`TlsOptions::cert_dir`](crate::TlsOptions::cert_dir) refuses it unless told otherwise.
//!
//! The directory has mode 0700, its keys 0600 from their first byte on. Changes happen under a lock (`.aegis.lock`); each
//! file appears whole or not at all, and what a dying process left undone is done by the next.
//!
//! A CA is never replaced, and half of one is an error. A node's own certificate and key are replaced by
//! [`cert_dir`](crate::TlsOptions::cert_dir) when the certificate ran out, is about to, or does not fit the node or its
//! key, the last with a WARN that says why; and by [`DevCa::issue`] each time.

mod directory;
mod error;
mod issue;
mod key;
mod renewal;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aegis_core::{NodeId, NodeType};
use rcgen::Issuer;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use webpki::EndEntityCert;

use crate::leaf::{Leaf, parse};
use crate::verify::{ChainVerifier, DEVELOPMENT_DOMAIN, Root};
use crate::{Purpose, Rejection, Subject};

use directory::{Access, Directory, Lock};
pub use error::DevCaError;
use key::PrivateKey;
use renewal::Renewal;

const CA_CERTIFICATE: &str = "ca-cert.pem";
const CA_KEY: &str = "ca-key.pem";

/// A development CA and the directory it lives in; the [module's documentation](self) has an example.
///
/// It holds the CA's key, but no lock: that is taken for each change. Dropping it leaves the directory as it is.
pub struct DevCa {
    directory: Directory,
    certificate_pem: Vec<u8>,
    certificate: CertificateDer<'static>,
    root: Root,
    issuer: Issuer<'static, PrivateKey>,
}

/// The files of an issued certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Issued {
    /// `<id>-cert.pem`.
    pub certificate: PathBuf,
    /// `<id>-key.pem`, readable by its owner alone.
    pub key: PathBuf,
    /// `ca-cert.pem`.
    pub ca: PathBuf,
}

impl DevCa {
    /// Opens the CA of a directory; makes the directory and the CA if there are none, and says so once (WARN).
    ///
    /// Many processes may do this at once: they end with one CA. Blocking file I/O; waits at most 10 s for another process.
    ///
    /// # Errors
    /// [`DevCaError`]; what was there is left as it was.
    pub fn open_or_create(directory: impl AsRef<Path>) -> Result<Self, DevCaError> {
        let directory = Directory::open_or_create(directory.as_ref())?;
        let _lock = directory.lock()?;
        Self::ensure(&directory, SystemTime::now())
    }

    /// Where the CA lives.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The CA's certificate, as PEM.
    pub fn certificate_pem(&self) -> &[u8] {
        &self.certificate_pem
    }

    /// Issues a certificate, good for 7 days, into the CA's own directory, with a new key.
    ///
    /// An earlier pair of the node is replaced, however good it is; processes that loaded it go on with it. Blocking file
    /// I/O; waits at most 10 s for another process.
    ///
    /// # Errors
    /// [`DevCaError`]; without a node ([`Subject::any`]) there is nobody to issue for.
    pub fn issue(&self, subject: &Subject) -> Result<Issued, DevCaError> {
        let _lock = self.directory.lock()?;
        self.write_leaf(&self.directory, subject, SystemTime::now())
    }

    /// Issues a certificate into another directory, together with the CA's certificate but not its key.
    ///
    /// So each process gets a directory that lets it be one node only. Otherwise as [`issue`](Self::issue): an earlier pair
    /// there is replaced.
    ///
    /// ```
    /// use aegis_tls::dev::DevCa;
    /// use aegis_tls::{Subject, TlsOptions};
    ///
    /// # let temporary = tempfile::tempdir()?;
    /// # let (here, there) = (temporary.path().join("ca"), temporary.path().join("trinity-1"));
    /// let subject = Subject::new("trinity-1".parse()?, "gateway".parse()?);
    /// let issued = DevCa::open_or_create(&here)?.issue_into(&subject, &there)?;
    /// assert_eq!(issued.key, there.join("trinity-1-key.pem"));
    /// assert!(!there.join("ca-key.pem").exists());
    /// let tls = TlsOptions::cert_dir(&there).load(&subject)?;
    /// # drop(tls);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`DevCaError::OtherCa`] if files of another CA lie there; else as [`issue`](Self::issue).
    pub fn issue_into(
        &self,
        subject: &Subject,
        directory: impl AsRef<Path>,
    ) -> Result<Issued, DevCaError> {
        let out = Directory::open_or_create(directory.as_ref())?;
        if is_same(out.path(), self.directory.path()) {
            return self.issue(subject);
        }
        let _lock = out.lock()?;
        if out.read(CA_KEY)?.is_some() {
            return Err(DevCaError::OtherCa { path: out.join(CA_KEY) });
        }
        match out.read(CA_CERTIFICATE)? {
            None => {
                out.stage(CA_CERTIFICATE, &self.certificate_pem, Access::Everybody)?;
                out.publish(&[CA_CERTIFICATE])?;
            }
            Some(there) if *there == self.certificate_pem => {}
            Some(_) => return Err(DevCaError::OtherCa { path: out.join(CA_CERTIFICATE) }),
        }
        self.write_leaf(&out, subject, SystemTime::now())
    }

    /// The CA of a locked directory, made if neither half of it exists.
    fn ensure(directory: &Directory, now: SystemTime) -> Result<Self, DevCaError> {
        let certificate = directory.read(CA_CERTIFICATE)?;
        let key = directory.read_key(CA_KEY)?;
        match (certificate, key) {
            (Some(certificate), Some(key)) => Self::open(directory, &certificate, &key, now),
            (None, None) => Self::create(directory, now),
            (None, Some(key)) => Self::finish(directory, &key, now),
            (Some(_), None) => Err(half(directory, CA_CERTIFICATE, CA_KEY)),
        }
    }

    fn create(directory: &Directory, now: SystemTime) -> Result<Self, DevCaError> {
        let pair = issue::make_ca(now)?;
        directory.stage(CA_KEY, pair.key.as_bytes(), Access::Owner)?;
        directory.stage(CA_CERTIFICATE, pair.certificate.as_bytes(), Access::Everybody)?;
        directory.publish(&[CA_KEY, CA_CERTIFICATE])?;
        tracing::warn!(
            directory = %directory.path().display(),
            days = issue::CA_LIFE.as_secs() / (24 * 60 * 60),
            "created a development CA: whoever reads this directory can pose as any node"
        );
        Self::open(directory, pair.certificate.as_bytes(), pair.key.as_bytes(), now)
    }

    /// Completes a creation that was cut off between its two renames; anything else is half a CA.
    fn finish(directory: &Directory, key: &[u8], now: SystemTime) -> Result<Self, DevCaError> {
        let half = || half(directory, CA_KEY, CA_CERTIFICATE);
        let certificate = directory.read_staged(CA_CERTIFICATE)?.ok_or_else(half)?;
        let ca = Self::open(directory, &certificate, key, now).map_err(|_| half())?;
        directory.publish(&[CA_CERTIFICATE])?;
        Ok(ca)
    }

    fn open(
        directory: &Directory,
        certificate_pem: &[u8],
        key_pem: &[u8],
        now: SystemTime,
    ) -> Result<Self, DevCaError> {
        let path = || directory.join(CA_CERTIFICATE);
        let bad = |reason| DevCaError::BadCa { path: path(), reason };
        let certificate = CertificateDer::from_pem_slice(certificate_pem)
            .map_err(|_| bad(Rejection::Malformed { reason: "it is no PEM" }))?;
        let root = Root::parse(&certificate).map_err(bad)?;
        if !root.is_development() {
            return Err(DevCaError::RealCa { path: path() });
        }
        let mismatch = || DevCaError::Mismatch { certificate: path(), key: directory.join(CA_KEY) };
        let key = PrivateKey::parse(key_pem).ok_or_else(mismatch)?;
        if !key.fits(&parse(&certificate).map_err(bad)?) {
            return Err(mismatch());
        }
        if root.check_dates(now).is_err() {
            return Err(DevCaError::Expired {
                directory: directory.path().to_owned(),
                not_before: root.not_before(),
                not_after: root.not_after(),
            });
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(DevCaError::crypto)?;
        Ok(Self {
            directory: directory.clone(),
            certificate_pem: certificate_pem.to_vec(),
            certificate,
            root,
            issuer,
        })
    }

    fn write_leaf(
        &self,
        out: &Directory,
        subject: &Subject,
        now: SystemTime,
    ) -> Result<Issued, DevCaError> {
        let Some(node) = subject.node() else {
            return Err(DevCaError::NoSubject);
        };
        let not_after = (now + issue::LEAF_LIFE).min(self.root.not_after());
        let pair = issue::make_leaf(&self.issuer, node, subject, now, not_after)?;
        let [certificate, key] = file_names(&node.0);
        out.stage(&key, pair.key.as_bytes(), Access::Owner)?;
        out.stage(&certificate, pair.certificate.as_bytes(), Access::Everybody)?;
        out.publish(&[&key, &certificate])?;
        Ok(Issued {
            certificate: out.join(&certificate),
            key: out.join(&key),
            ca: out.join(CA_CERTIFICATE),
        })
    }

    /// Why the node's files are not a pair that says what the node is, and will for a while.
    fn renewal(
        &self,
        node: &(NodeId, NodeType),
        subject: &Subject,
        now: SystemTime,
    ) -> Result<Option<Renewal>, DevCaError> {
        let [certificate, key] = file_names(&node.0);
        let unfit = |reason: &str| Some(Renewal::Unfit(reason.to_owned()));
        Ok(match (self.directory.read(&certificate)?, self.directory.read(&key)?) {
            (None, None) => Some(Renewal::First),
            (None, Some(_)) => unfit("only its key was there"),
            (Some(_), None) => unfit("its key is missing"),
            (Some(certificate), Some(key)) => {
                match self.check_pair(node, subject, &certificate, &key) {
                    Err(renewal) => Some(renewal),
                    Ok(leaf) if leaf.not_after < now || self.is_ending(&leaf, now) => {
                        Some(Renewal::Age { not_after: leaf.not_after })
                    }
                    Ok(leaf) => leaf.check_dates(now).err().map(Renewal::of_chain),
                }
            }
        })
    }

    /// Everything about a pair but its age.
    fn check_pair(
        &self,
        node: &(NodeId, NodeType),
        subject: &Subject,
        certificate: &[u8],
        key: &[u8],
    ) -> Result<Leaf, Renewal> {
        let unfit = |reason: &str| Renewal::Unfit(reason.to_owned());
        let unreadable = || unfit("it cannot be read");
        let der = CertificateDer::from_pem_slice(certificate).map_err(|_| unreadable())?;
        let end_entity = EndEntityCert::try_from(&der).map_err(|_| unreadable())?;
        let parsed = parse(&der).map_err(|_| unreadable())?;
        // Whose it is says more than what else is wrong with it.
        let leaf = Leaf::parse(&der, &end_entity).map_err(Renewal::of_chain)?;
        let wanted = issue::identity(&node.0, &node.1);
        if let Some(renewal) = Renewal::of_names(&wanted, subject, &leaf.spiffe_id, &leaf.dns_names)
        {
            return Err(renewal);
        }
        let key = PrivateKey::parse(key).ok_or_else(|| unfit("its key cannot be read"))?;
        if !key.fits(&parsed) {
            return Err(unfit("its key does not fit"));
        }
        let root = Root::parse(&self.certificate).map_err(Renewal::of_chain)?;
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        // At its first moment, so that one that ran out is told from one of another CA.
        ChainVerifier::new(DEVELOPMENT_DOMAIN, vec![root], algorithms)
            .verify(std::slice::from_ref(&der), Purpose::Server, leaf.not_before)
            .map_err(Renewal::of_chain)
    }

    /// Less than a third of its life is left, and a new one would last longer.
    fn is_ending(&self, leaf: &Leaf, now: SystemTime) -> bool {
        now + issue::LEAF_LIFE / 3 > leaf.not_after && leaf.not_after < self.root.not_after()
    }
}

impl fmt::Debug for DevCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevCa").field("directory", &self.directory.path()).finish_non_exhaustive()
    }
}

/// Sees to it that the node's three files are in the directory; the caller reads them before it drops the lock.
pub(crate) fn prepare(
    path: &Path,
    subject: &Subject,
    now: SystemTime,
) -> Result<Option<Lock>, DevCaError> {
    let Some(node) = subject.node() else {
        return Err(DevCaError::NoSubject);
    };
    let directory = Directory::open_or_create(path)?;
    let lock = directory.lock()?;
    let [certificate, key] = file_names(&node.0);
    let has_pair = directory.exists(&certificate) && directory.exists(&key);
    // Somebody else's certificates: issued elsewhere, or on a file system that cannot be written to.
    if lock.is_none() || (directory.exists(CA_CERTIFICATE) && !directory.exists(CA_KEY)) {
        return if has_pair && directory.exists(CA_CERTIFICATE) {
            Ok(lock)
        } else {
            Err(DevCaError::CannotIssue { directory: path.to_owned(), id: node.0.clone() })
        };
    }
    let present = [&certificate, &key].into_iter().find(|name| directory.exists(name));
    if let Some(present) = present
        && !directory.exists(CA_CERTIFICATE)
        && !directory.is_staged(CA_CERTIFICATE)?
    {
        return Err(half(&directory, present, CA_CERTIFICATE));
    }
    let ca = match DevCa::ensure(&directory, now) {
        Ok(ca) => ca,
        // Its own tools issue from it; a pair of it is as good as any.
        Err(DevCaError::RealCa { .. }) if has_pair => return Ok(lock),
        Err(error) => return Err(error),
    };
    if let Some(renewal) = ca.renewal(node, subject, now)? {
        let issued = ca.write_leaf(&directory, subject, now)?;
        renewal.announce(&issued.certificate, &node.0);
    }
    Ok(lock)
}

fn file_names(id: &NodeId) -> [String; 2] {
    [format!("{id}-cert.pem"), format!("{id}-key.pem")]
}

fn half(directory: &Directory, present: &str, missing: &str) -> DevCaError {
    DevCaError::HalfCa { present: directory.join(present), missing: directory.join(missing) }
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}
