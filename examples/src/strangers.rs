//! Those whom a mesh refuses at the door.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aegis::tls::Subject;
use aegis::tls::dev::{DevCa, Issued};
use aegis::{NodeId, NodeType, Server, TlsOptions};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::args::Outcome;

/// What an HTTP/2 client says first: the preface, and settings that change nothing.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A certificate for `id`, from the development CA in `directory`.
pub fn issue(directory: &Path, id: &str, node_type: &'static str) -> Outcome<Issued> {
    let subject = Subject::new(id.parse()?, NodeType::from_static(node_type));
    Ok(DevCa::open_or_create(directory)?.issue(&subject)?)
}

/// The options of somebody who trusts the CA in `mesh`, but whose certificate was `issued` by another one.
///
/// Everything else is right.
pub fn outsider(issued: &Issued, mesh: &Path) -> Outcome<TlsOptions> {
    // A process does not load a certificate that its own CAs have not signed.
    let trusted = [std::fs::read(&issued.ca)?, std::fs::read(mesh.join("ca-cert.pem"))?].concat();
    let (certificate, key) = (std::fs::read(&issued.certificate)?, std::fs::read(&issued.key)?);
    Ok(TlsOptions::pem(certificate, key, trusted).allow_development())
}

/// What a TLS client hears from `node` when it says hello: an error if it is refused.
///
/// By hand, since no aegis client can be without a certificate.
pub async fn knock(
    address: SocketAddr,
    node: &NodeId,
    ca: &Path,
    certificate: Option<&Issued>,
) -> Outcome<Result<(), std::io::Error>> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(ca)? {
        roots.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match certificate {
        None => config.with_no_client_auth(),
        Some(issued) => config.with_client_auth_cert(
            CertificateDer::pem_file_iter(&issued.certificate)?.collect::<Result<_, _>>()?,
            PrivateKeyDer::from_pem_file(&issued.key)?,
        )?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(node.to_string())?;
    let tcp = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    // In TLS 1.3 the client is done before the server has seen its certificate: the verdict is what it reads first.
    stream.write_all(HELLO).await?;
    Ok(stream.read_u8().await.map(drop))
}

/// Waits until `server` has refused more handshakes than `before`, and says whether it did.
///
/// It counts one when it has said goodbye, a moment after the client reads it.
pub async fn refusal_counted(server: &Server, before: u64, limit: Duration) -> bool {
    let began = Instant::now();
    while server.stats().refused <= before {
        if limit < began.elapsed() {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    true
}
