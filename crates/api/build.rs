//! Compiles `proto/worker.proto` without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");
    println!("cargo:rerun-if-changed={root}/worker.proto");
    let descriptors = protox::compile(["worker.proto"], [root])?;
    tonic_prost_build::configure().bytes(".helios.worker.v1").compile_fds(descriptors)?;
    Ok(())
}
