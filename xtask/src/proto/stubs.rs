//! Generates the Rust code of the packages.

use std::collections::BTreeMap;

use prost_build::{Config, Module, Service, ServiceGenerator};
use prost_types::FileDescriptorProto;

use super::{ProtoError, comments, names, package::Package};

/// The code of each package, by file name.
pub(super) fn generate(packages: &[Package]) -> Result<BTreeMap<String, String>, ProtoError> {
    // Google's files too: the generator makes nothing of them, but looks into
    // their messages.
    let files = packages.iter().flat_map(|package| package.imports.iter().chain(&package.files));
    let files: BTreeMap<&str, &FileDescriptorProto> =
        files.map(|file| (file.name(), file)).collect();
    let requests = files.into_values().map(|file| {
        let mut file = file.clone();
        comments::sanitise(&mut file);
        (Module::from_protobuf_package_name(file.package()), file)
    });
    let modules =
        config().generate(requests.collect()).map_err(|source| ProtoError::Generate { source })?;
    Ok(packages
        .iter()
        .map(|package| {
            // A package may have no code of its own, such as one that only
            // extends others; its file is there all the same.
            let code = modules.get(&package.module()).cloned().unwrap_or_default();
            (package.stub_file(), code)
        })
        .collect())
}

fn config() -> Config {
    let services = tonic_prost_build::configure()
        .build_transport(false)
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        // An RPC added to a shared proto must not break who implements it.
        .generate_default_stubs(true)
        .service_generator();
    let mut config = Config::new();
    // Bytes share the buffer they arrived in.
    config.bytes(["."]).service_generator(Box::new(Renaming(services)));
    config
}

/// Gives another Rust name to what would meet a name of the generated code.
/// The name on the wire stays.
struct Renaming(Box<dyn ServiceGenerator>);

impl ServiceGenerator for Renaming {
    fn generate(&mut self, mut service: Service, buf: &mut String) {
        service.name = names::service(service.name);
        for method in &mut service.methods {
            method.name = names::method(std::mem::take(&mut method.name));
        }
        self.0.generate(service, buf);
    }

    fn finalize(&mut self, buf: &mut String) {
        self.0.finalize(buf);
    }

    fn finalize_package(&mut self, package: &str, buf: &mut String) {
        self.0.finalize_package(package, buf);
    }
}
