//! Compiles `proto/` without needing `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
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
