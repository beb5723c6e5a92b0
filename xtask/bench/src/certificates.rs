use std::fs;
use std::path::{Path, PathBuf};

use aegis::{NodeId, NodeType, TlsOptions};
use aegis_tls::dev::DevCa;
use aegis_tls::{Subject, Tls};

use crate::Outcome;

pub(crate) const CLIENT: &str = "client-1";

/// How many providers there can be.
pub(crate) const SERVERS: u32 = 3;

/// The node id of a provider, which are counted from 1.
pub(crate) fn server(number: u32) -> String {
    format!("server-{number}")
}

/// The number of the provider with this node id.
pub(crate) fn number(id: &str) -> Option<i64> {
    id.strip_prefix("server-")?.parse().ok()
}

/// Makes a development CA and a certificate for each end.
pub(crate) fn issue(directory: &Path) -> Outcome<()> {
    let ca = DevCa::open_or_create(directory)?;
    ca.issue_into(&subject(CLIENT)?, directory)?;
    for number in 1..=SERVERS {
        ca.issue_into(&subject(&server(number))?, directory)?;
    }
    Ok(())
}

/// The TLS of one end, for raw tonic: the same as that of an aegis node.
pub(crate) fn tls(directory: &Path, id: &str) -> Outcome<Tls> {
    Ok(options(directory, id).load(&subject(id)?)?)
}

pub(crate) fn options(directory: &Path, id: &str) -> TlsOptions {
    let [certificate, key, ca] = files(directory, id);
    TlsOptions::files(certificate, key, ca).allow_development()
}

/// What [`options`] names, for tonic's own TLS.
pub(crate) struct Pem {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
    pub(crate) ca: Vec<u8>,
}

pub(crate) fn pem(directory: &Path, id: &str) -> Outcome<Pem> {
    let [certificate, key, ca] = files(directory, id).map(fs::read);
    Ok(Pem { certificate: certificate?, key: key?, ca: ca? })
}

fn files(directory: &Path, id: &str) -> [PathBuf; 3] {
    [format!("{id}-cert.pem"), format!("{id}-key.pem"), "ca-cert.pem".to_owned()]
        .map(|name| directory.join(name))
}

fn subject(id: &str) -> Outcome<Subject> {
    let (id, kind): (NodeId, NodeType) = (id.parse()?, "node".parse()?);
    Ok(Subject::new(id, kind))
}
