//! Compiles `proto/` without needing `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Of the run, not of the compilation: a target folder may be shared by several checkouts.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo does not say where the package is")?;
    let root = std::path::Path::new(&here).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile([root.join("nightshift/v1/bus.proto")], [&root])?;
    prost_build::Config::new()
        .bytes([
            ".nightshift.v1.Envelope.payload",
            ".nightshift.v1.MetricBlock.dictionary",
            ".nightshift.v1.MetricBlock.kind",
        ])
        .compile_fds(descriptors)?;
    Ok(())
}
