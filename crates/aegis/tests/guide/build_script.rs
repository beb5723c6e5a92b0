// Runs the build script of a guide where its proto is; both come from the guide.

pub fn check(
    run: fn() -> Result<(), Box<dyn std::error::Error>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let guide = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/quickstart.md"));
    let (_, proto) = guide.split_once("package audit.v1;").unwrap();
    let (proto, _) = proto.split_once("```").unwrap();
    let directory = tempfile::tempdir()?;
    std::fs::create_dir(directory.path().join("proto"))?;
    let proto = format!("syntax = \"proto3\";\npackage audit.v1;\n{proto}");
    std::fs::write(directory.path().join("proto/audit.proto"), proto)?;
    std::env::set_current_dir(directory.path())?;
    // Safety: nobody else runs in this process.
    unsafe { std::env::set_var("OUT_DIR", directory.path()) };
    run()?;
    let stubs = std::fs::read_to_string(directory.path().join("audit.v1.rs"))?;
    assert!(stubs.contains("pub mod audit_service_server"));
    assert!(stubs.contains("pub mod audit_service_client"));
    Ok(())
}
