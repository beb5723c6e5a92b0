use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::leaf::Leaf;
use crate::snapshot::{Snapshot, provider};
use crate::source::{self, Material, Origin, Part, Pem, ReadableKey, Source};
use crate::verify::{ChainVerifier, Root};
use crate::{LoadError, Purpose, Rejection, Subject, Tls, pem};

/// Where a process has its certificate, its private key and the CAs it trusts from.
///
/// ```no_run
/// use aegis_tls::{Subject, TlsOptions};
///
/// let subject = Subject::new("morpheus-1".parse()?, "identity-server".parse()?);
/// let tls = TlsOptions::files("node.pem", "node.key", "ca.pem").load(&subject)?;
/// assert_eq!(tls.spiffe_id().node_id(), "morpheus-1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The certificate file holds the own certificate first, then its intermediates. The key is PKCS#8, SEC1 or PKCS#1,
/// not encrypted. The CA file holds one or more CA certificates (the old and the new one during a change of the CA);
/// a duplicate or expired one does no harm, an entry that is no CA certificate fails the load.
///
/// What a CA has to write into the certificate of a node:
///
/// | field | value |
/// |---|---|
/// | URI name | one: `spiffe://<trust-domain>/aegis/<node-type>/<node-id>` |
/// | common name | none, or the node's id |
/// | key usage | `digitalSignature`; neither `keyCertSign` nor `cRLSign` |
/// | extended key usage | `serverAuth` and `clientAuth` |
/// | basic constraints | none, or no CA |
/// | key | ECDSA on P-256 or P-384, Ed25519, or RSA of at least 2048 bits |
#[derive(Debug)]
#[must_use]
pub struct TlsOptions {
    source: Source,
    development: bool,
    readable_key: bool,
    clock: Clock,
}

impl TlsOptions {
    /// PEM files. A key file that others can read is refused, unless [`allow_readable_key`](Self::allow_readable_key) was
    /// said; a file of more than 4 MiB, too.
    ///
    /// ```
    /// use aegis_tls::{Subject, TlsOptions};
    ///
    /// # let temporary = tempfile::tempdir()?;
    /// # let directory = temporary.path();
    /// # let issued = aegis_testing::TestCa::new().issue("morpheus-1", "identity-server");
    /// # let files = [("node.pem", &issued.certificate_pem), ("node.key", &issued.key_pem), ("ca.pem", &issued.ca_pem)];
    /// # for (name, text) in files {
    /// #     std::fs::write(directory.join(name), text)?;
    /// #     #[cfg(unix)]
    /// #     std::fs::set_permissions(directory.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    /// # }
    /// let [certificate, key, ca] = ["node.pem", "node.key", "ca.pem"].map(|name| directory.join(name));
    /// let tls = TlsOptions::files(certificate, key, ca).load(&Subject::any())?;
    /// assert_eq!(tls.spiffe_id().node_id(), "morpheus-1");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn files(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
        ca: impl Into<PathBuf>,
    ) -> Self {
        Self::new(Source::Files { certificate: certificate.into(), key: key.into(), ca: ca.into() })
    }

    /// Environment variables that hold PEM text; the arguments are their names.
    ///
    /// Every process of the same user can read them (`/proc/PID/environ`): prefer files. They are read by
    /// [`load`](Self::load).
    ///
    /// ```
    /// use aegis_tls::{LoadError, Subject, TlsOptions};
    ///
    /// let options = TlsOptions::env("NODE_CERTIFICATE", "NODE_KEY", "NODE_CA");
    /// // Nobody has set them here.
    /// let error = options.load(&Subject::any()).unwrap_err();
    /// assert!(matches!(error, LoadError::Environment { variable, .. } if variable == "NODE_CERTIFICATE"));
    /// ```
    pub fn env(
        certificate: impl Into<String>,
        key: impl Into<String>,
        ca: impl Into<String>,
    ) -> Self {
        Self::new(Source::Environment {
            certificate: certificate.into(),
            key: key.into(),
            ca: ca.into(),
        })
    }

    /// PEM text in memory, from wherever a process has its secrets. The copy of the key kept here is overwritten on drop.
    ///
    /// ```
    /// use aegis_tls::{LoadError, Subject, TlsOptions};
    ///
    /// # let issued = aegis_testing::TestCa::new().issue("morpheus-1", "identity-server");
    /// # let (certificate, key, ca) = (issued.certificate_pem, issued.key_pem, issued.ca_pem);
    /// let subject = Subject::new("morpheus-2".parse()?, "identity-server".parse()?);
    /// let error = TlsOptions::pem(certificate, key, ca).load(&subject).unwrap_err();
    /// // The certificate is good, but of morpheus-1: it is found out here, not at the first call.
    /// assert!(matches!(error, LoadError::WrongIdentity { found, .. } if found.node_id() == "morpheus-1"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pem(
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
        ca: impl Into<Vec<u8>>,
    ) -> Self {
        Self::new(Source::Memory {
            certificate: certificate.into(),
            key: Zeroizing::new(key.into()),
            ca: ca.into(),
        })
    }

    /// A directory with `<id>-cert.pem`, `<id>-key.pem` and `ca-cert.pem`.
    ///
    /// With the feature `dev-ca` this makes what is missing, a development CA (good for 30 days) and the node's certificate
    /// (7 days), and replaces this node's own certificate when it ran out, is about to, or does not fit the node or its
    /// key (the last with a WARN); nothing is replaced unless `ca-cert.pem` is a development CA, whose key is there, too.
    /// A development CA is accepted from here without [`allow_development`](Self::allow_development).
    pub fn cert_dir(directory: impl Into<PathBuf>) -> Self {
        Self { development: true, ..Self::new(Source::Directory(directory.into())) }
    }

    /// Accepts a development CA, which anybody who reads its directory can use to pose as any node (default: it is refused,
    /// except from [`cert_dir`](Self::cert_dir)).
    pub fn allow_development(self) -> Self {
        Self { development: true, ..self }
    }

    /// Accepts a key file that its group or everybody can read, as volumes of secrets in containers have them, with a WARN
    /// (default: it is refused, except from [`cert_dir`](Self::cert_dir), which warns as well).
    pub fn allow_readable_key(self) -> Self {
        Self { readable_key: true, ..self }
    }

    /// Another clock than the system's, for tests: a node judges certificates by it, and dates and judges records (default:
    /// [`SystemTime::now`]).
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// use aegis_tls::{LoadError, Rejection, Subject};
    ///
    /// const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    ///
    /// # let ca = aegis_testing::TestCa::new();
    /// # let options = ca.options("morpheus-1", "identity-server"); // good for 30 days
    /// let error = options.clock(|| SystemTime::now() + 31 * DAY).load(&Subject::any()).unwrap_err();
    /// assert!(matches!(error, LoadError::Rejected { reason: Rejection::Expired { .. }, .. }));
    /// ```
    pub fn clock(self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self { clock: Clock::new(now), ..self }
    }

    fn new(source: Source) -> Self {
        Self { source, development: false, readable_key: false, clock: Clock::default() }
    }

    /// Reads, checks and assembles everything; nothing is read again later. Blocking file I/O; a certificate and a key on disk
    /// that do not fit each other are read again for up to 0.2 s, since somebody may be replacing them.
    ///
    /// The chain is verified by rustls-webpki (RFC 5280), for both sides of a connection, and the leaf by the rules above.
    ///
    /// # Errors
    /// [`LoadError`] names the file and the reason. A certificate that other nodes would refuse is refused here.
    pub fn load(self, subject: &Subject) -> Result<Tls, LoadError> {
        // A writer may be between its two renames: the next look finds a pair that fits.
        const ATTEMPTS: usize = 20;
        let mut attempt = 1;
        loop {
            match self.assemble(subject) {
                Err(LoadError::KeyMismatch { .. }) if attempt < ATTEMPTS && self.is_on_disk() => {
                    attempt += 1;
                    std::thread::sleep(Duration::from_millis(10));
                }
                result => return result.map(|snapshot| Tls::new(snapshot, self.clock)),
            }
        }
    }

    fn is_on_disk(&self) -> bool {
        matches!(self.source, Source::Files { .. } | Source::Directory(_))
    }

    fn assemble(&self, subject: &Subject) -> Result<Snapshot, LoadError> {
        let material = self.read(subject)?;
        let provider = Arc::new(provider());
        let chain = pem::certificates(&material.certificate)?;
        let key = pem::private_key(&material.key)?;
        let roots = pem::roots(&material.ca)?;

        let key = provider.key_provider.load_private_key(key).map_err(|error| {
            LoadError::UnusableKey { origin: material.key.origin.clone(), source: Box::new(error) }
        })?;
        let certified = Arc::new(CertifiedKey::new(chain, key));
        let refuse =
            |reason| LoadError::Rejected { origin: material.certificate.origin.clone(), reason };
        let Some(der) = certified.cert.first() else {
            return Err(LoadError::NoCertificate { origin: material.certificate.origin });
        };
        let end_entity = EndEntityCert::try_from(der)
            .map_err(|_| refuse(Rejection::Malformed { reason: "it is no X.509 certificate" }))?;
        if certified.keys_match().is_err() {
            return Err(LoadError::KeyMismatch {
                certificate: material.certificate.origin,
                key: material.key.origin,
            });
        }
        let leaf = Leaf::parse(der, &end_entity).map_err(refuse)?;
        self.check_development(&leaf, &roots, &material)?;
        check_subject(&leaf, subject, &material.certificate.origin)?;

        let algorithms = provider.signature_verification_algorithms;
        let domain = leaf.spiffe_id.trust_domain().clone();
        let verifier = Arc::new(ChainVerifier::new(domain, roots, algorithms));
        let now = self.clock.now();
        for purpose in [Purpose::Server, Purpose::Client] {
            verifier.verify(&certified.cert, purpose, now).map_err(refuse)?;
        }
        Snapshot::new(leaf, certified, verifier, &provider, &self.clock).map_err(|error| {
            LoadError::UnusableKey { origin: material.key.origin, source: Box::new(error) }
        })
    }

    fn read(&self, subject: &Subject) -> Result<Material, LoadError> {
        let readable_key = if self.readable_key { ReadableKey::Warn } else { ReadableKey::Refuse };
        match &self.source {
            Source::Files { certificate, key, ca } => {
                source::files(certificate, key, ca, readable_key)
            }
            Source::Environment { certificate, key, ca } => {
                source::environment(certificate, key, ca)
            }
            Source::Memory { certificate, key, ca } => {
                let pem = |part, text: &[u8]| Pem {
                    origin: Origin::Memory(part),
                    text: Zeroizing::new(text.to_vec()),
                };
                Ok(Material {
                    certificate: pem(Part::Certificate, certificate),
                    key: pem(Part::Key, key),
                    ca: pem(Part::CaBundle, ca),
                })
            }
            Source::Directory(directory) => read_directory(directory, subject, &self.clock),
        }
    }

    fn check_development(
        &self,
        leaf: &Leaf,
        roots: &[Root],
        material: &Material,
    ) -> Result<(), LoadError> {
        let origin = if roots.iter().any(Root::is_development) {
            &material.ca.origin
        } else if leaf.spiffe_id.trust_domain() == &crate::verify::DEVELOPMENT_DOMAIN {
            &material.certificate.origin
        } else {
            return Ok(());
        };
        if self.development {
            return Ok(());
        }
        Err(LoadError::DevelopmentCa { origin: origin.clone() })
    }
}

fn read_directory(
    directory: &Path,
    subject: &Subject,
    clock: &Clock,
) -> Result<Material, LoadError> {
    let Some((id, _)) = subject.node() else {
        return Err(LoadError::NoSubject);
    };
    #[cfg(not(feature = "dev-ca"))]
    let _ = clock;
    #[cfg(feature = "dev-ca")]
    let _lock = crate::dev::prepare(directory, subject, clock.now())?;
    let files = [
        directory.join(format!("{id}-cert.pem")),
        directory.join(format!("{id}-key.pem")),
        directory.join("ca-cert.pem"),
    ];
    if let Some(path) = files.iter().find(|path| !path.exists()) {
        return Err(LoadError::Missing { path: path.clone(), id: id.clone() });
    }
    let [certificate, key, ca] = &files;
    source::files(certificate, key, ca, ReadableKey::Warn)
}

fn check_subject(leaf: &Leaf, subject: &Subject, origin: &Origin) -> Result<(), LoadError> {
    match subject.node() {
        Some((expected, expected_type)) if !subject.is_named_by(&leaf.spiffe_id) => {
            Err(LoadError::WrongIdentity {
                origin: origin.clone(),
                expected: expected.clone(),
                expected_type: expected_type.clone(),
                found: Box::new(leaf.spiffe_id.clone()),
            })
        }
        _ => Ok(()),
    }
}
