//! Compiles the `.proto` files with protox, a compiler in Rust: no `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 8] = [
    "pipelet/v1/webhook.proto",
    "pipelet/v1/failed_delivery.proto",
    "pipelet/v1/event.proto",
    "pipelet/v1/station.proto",
    "pipelet/v1/transaction.proto",
    "pipelet/v1/id_tag.proto",
    "pipelet/v1/api_key.proto",
    "pipelet/v1/daemon.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=pipelet");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
