//! Turns `proto/` into Rust, without any tool but cargo.

use std::error::Error;
use std::path::PathBuf;

const FILES: [&str; 7] = [
    "mvccpb.proto",
    "authpb.proto",
    "etcdserverpb.proto",
    "v3lockpb.proto",
    "v3electionpb.proto",
    "health.proto",
    "host.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo:rerun-if-changed={}", directory.display());
    let descriptors = protox::compile(FILES, [&directory])?;
    tonic_prost_build::configure()
        // Keys and values stay slices of what came from the network.
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
