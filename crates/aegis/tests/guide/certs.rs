// For the programs of the guide on adopting: their certificates, where the guide has them.

use std::path::Path;

use aegis_testing::TestCa;

/// Writes the certificates and keys of both nodes, and their CA, to `certs` below this directory.
pub fn write(directory: &Path) {
    let certs = directory.join("certs");
    std::fs::create_dir(&certs).unwrap();
    let ca = TestCa::new();
    for (id, node_type) in [("morpheus-1", "identity-server"), ("vicky-1", "storage")] {
        let issued = ca.issue(id, node_type);
        let key = certs.join(format!("{id}-key.pem"));
        std::fs::write(certs.join(format!("{id}.pem")), &issued.certificate_pem).unwrap();
        std::fs::write(&key, &issued.key_pem).unwrap();
        std::fs::write(certs.join("ca.pem"), &issued.ca_pem).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}
