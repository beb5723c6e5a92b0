//! A certificate from the development CA, for anyone: another program, grpcio, grpcurl.
//!
//! ```text
//! cargo run --example issue -- --cert-dir ./certs --id vicky-1 --type storage --out ./vicky
//! ```

use std::path::PathBuf;
use std::process::ExitCode;

use aegis::tls::Subject;
use aegis::tls::dev::DevCa;
use aegis::{NodeId, NodeType};
use examples::args::{self, Outcome};
use lexopt::Arg::Long;

const USAGE: &str = "\
A certificate from the development CA of a directory, for any program; prints the files that it wrote.

usage: issue --cert-dir DIR --id ID --type TYPE [--out DIR]

  --cert-dir DIR  the directory of the CA, which is made if there is none
  --id ID         the id that the certificate says
  --type TYPE     the node type that the certificate says
  --out DIR       where to write <ID>-cert.pem, <ID>-key.pem and ca-cert.pem (default: --cert-dir)";

fn main() -> ExitCode {
    examples::logs::install();
    args::report(run())
}

#[expect(clippy::print_stdout, reason = "what was written is this program's result")]
fn run() -> Outcome<ExitCode> {
    let (mut cert_dir, mut id, mut node_type, mut out) =
        (None::<PathBuf>, None::<NodeId>, None::<NodeType>, None::<PathBuf>);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("cert-dir") => cert_dir = Some(args::value("cert-dir", &mut parser)?),
            Long("id") => id = Some(args::value("id", &mut parser)?),
            Long("type") => node_type = Some(args::value("type", &mut parser)?),
            Long("out") => out = Some(args::value("out", &mut parser)?),
            Long("help") => {
                println!("{USAGE}");
                return Ok(ExitCode::SUCCESS);
            }
            _ => return Err(format!("{}\n{USAGE}", arg.unexpected()).into()),
        }
    }
    let cert_dir = args::required(cert_dir, "--cert-dir")?;
    let id = args::required(id, "--id")?;
    let node_type = args::required(node_type, "--type")?;
    let subject = Subject::new(id, node_type);
    let ca = DevCa::open_or_create(cert_dir)?;
    let issued = match out {
        Some(out) => ca.issue_into(&subject, out)?,
        None => ca.issue(&subject)?,
    };
    for file in [issued.certificate, issued.key, issued.ca] {
        println!("{}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}
