//! `cargo run -p redbutton-proto-codegen` writes `proto/src/gen` anew. It depends on nothing of ours, so that
//! it also runs while a changed contract does not compile yet. No protoc: protox is a compiler in Rust.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use prost::Message;

fn main() -> Result<()> {
    for (path, bytes) in generate()? {
        if std::fs::read(&path).unwrap_or_default() != bytes {
            std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
            println!("wrote {}", path.display());
        }
    }
    Ok(())
}

/// The generated files: where they belong and what they say.
fn generate() -> Result<[(PathBuf, Vec<u8>); 2]> {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(proto.join("redbutton/v1")).context("reading proto/redbutton/v1")? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    files.sort();
    let descriptors = protox::compile(&files, [&proto])?;
    let out = tempfile::tempdir()?;
    tonic_prost_build::configure()
        .out_dir(out.path())
        // Written by hand in proto/src/wire.rs, without the key that is in it.
        .skip_debug(["redbutton.v1.NodeToken", "redbutton.v1.InviteReply"])
        .compile_fds(descriptors.clone())?;
    let code = std::fs::read(out.path().join("redbutton.v1.rs"))?;
    Ok([
        (proto.join("src/gen/redbutton.v1.rs"), code),
        (
            proto.join("src/gen/redbutton.v1.bin"),
            descriptors.encode_to_vec(),
        ),
    ])
}

#[cfg(test)]
mod tests {
    #[test]
    fn generated_code_is_current() {
        for (path, fresh) in super::generate().expect("the .proto files compile") {
            assert!(
                std::fs::read(&path).unwrap_or_default() == fresh,
                "{} is stale: run `cargo run -p redbutton-proto-codegen`",
                path.display()
            );
        }
    }
}
