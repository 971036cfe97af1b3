//! `redbutton sign-restore`: one's word that a backup may take over. Needs no controller: it may be the dead one.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use proto::bundle::Bundle;
use rustls::SignatureScheme;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use sha2::{Digest, Sha256};
use trust::RestoreApproval;

use crate::args::Global;
use crate::bundle;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;

/// `sign-restore --json`
#[derive(Serialize)]
struct Signed {
    backup: String,
    sha256: String,
    by: String,
    approval: String,
}

pub(super) fn sign(backup: &Path, out_file: &Path, global: &Global, out: Out) -> Result<Exit, Failure> {
    let path = match &global.bundle {
        Some(path) => path.clone(),
        None => bundle::default_path(std::env::var_os("HOME").map(PathBuf::from).as_deref())?,
    };
    let bundle = bundle::read(&path)?;
    let digest = digest(backup)?;
    let signature = signature(&bundle, &RestoreApproval::to_sign(&digest))?;
    let approval = RestoreApproval::new(&digest, &signature, &bundle.certificate);
    let failed = |source| Failure::File {
        what: format!("file {}", out_file.display()),
        source,
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out_file)
        .map_err(failed)?;
    file.write_all(approval.to_text().as_bytes()).map_err(failed)?;
    let view = Signed {
        backup: backup.display().to_string(),
        sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        by: bundle.identity,
        approval: out_file.display().to_string(),
    };
    out.result(&view, |_| {
        format!(
            "{} signs the backup {}\nsha256 {}: compare it with the other person's before you hand this over\n\
             then, on the controller's machine: redbutton-controller restore --from BACKUP --approval {} --approval OTHER\n",
            view.by, view.backup, view.sha256, view.approval
        )
    })?;
    Ok(Exit::Done)
}

fn digest(path: &Path) -> Result<[u8; 32], Failure> {
    let failed = |source| Failure::File {
        what: format!("backup {}", path.display()),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    let mut sha = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(sha.finalize().into()),
            read => sha.update(&buffer[..read]),
        }
    }
}

fn signature(bundle: &Bundle, message: &[u8]) -> Result<Vec<u8>, Failure> {
    // Errors of the key are told without their words: they may quote it.
    let unusable = || {
        Failure::Usage("the key in the bundle cannot sign: it is no ECDSA P-256 or Ed25519 key".to_owned())
    };
    let key = PrivateKeyDer::from_pem_slice(bundle.key.expose().as_bytes()).map_err(|_| unusable())?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|_| unusable())?;
    let signer = key
        .choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519])
        .ok_or_else(unusable)?;
    signer.sign(message).map_err(|_| unusable())
}
