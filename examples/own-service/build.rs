//! Makes the stubs, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["audit.proto"], ["proto"])?;
    // Calls go through aegis, so tonic's own transport is not needed.
    tonic_prost_build::configure().build_transport(false).compile_fds(files)?;
    Ok(())
}
