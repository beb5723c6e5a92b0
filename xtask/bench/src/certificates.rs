use std::path::Path;

use aegis::{NodeId, NodeType, TlsOptions};
use aegis_tls::dev::DevCa;
use aegis_tls::{Subject, Tls};

use crate::Outcome;

pub(crate) const SERVER: &str = "server-1";
pub(crate) const CLIENT: &str = "client-1";

/// Makes a development CA and a certificate for each end.
pub(crate) fn issue(directory: &Path) -> Outcome<()> {
    let ca = DevCa::open_or_create(directory)?;
    for id in [SERVER, CLIENT] {
        ca.issue_into(&subject(id)?, directory)?;
    }
    Ok(())
}

/// The TLS of one end, for raw tonic: the same as that of an aegis node.
pub(crate) fn tls(directory: &Path, id: &str) -> Outcome<Tls> {
    Ok(options(directory, id).load(&subject(id)?)?)
}

pub(crate) fn options(directory: &Path, id: &str) -> TlsOptions {
    let file = |name: String| directory.join(name);
    let (certificate, key) = (file(format!("{id}-cert.pem")), file(format!("{id}-key.pem")));
    TlsOptions::files(certificate, key, file("ca-cert.pem".into())).allow_development()
}

fn subject(id: &str) -> Outcome<Subject> {
    let (id, kind): (NodeId, NodeType) = (id.parse()?, "node".parse()?);
    Ok(Subject::new(id, kind))
}
