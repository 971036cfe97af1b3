//! `redbutton breakglass …`: a certificate for the worst day. The key is made here and stays here.

use std::path::{Path, PathBuf};

use proto::Identity;
use proto::bundle::SecretPem;
use rcgen::{KeyPair, PublicKeyData};

use super::login::{own_key, pending, request};
use crate::args::BreakglassCommand;
use crate::bundle;
use crate::credentials::Credentials;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;
use crate::text;
use crate::when::Time;

pub(super) fn run(command: BreakglassCommand, out: Out) -> Result<Exit, Failure> {
    match command {
        BreakglassCommand::Request { out: path } => ask(&path, out),
        BreakglassCommand::Accept {
            certificate,
            out: path,
        } => accept(&certificate, &path, out),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

fn free(path: &Path) -> Result<(), Failure> {
    match path.symlink_metadata() {
        Err(_) => Ok(()),
        Ok(_) => Err(Failure::Usage(format!("{} is there already", path.display()))),
    }
}

fn ask(path: &Path, out: Out) -> Result<Exit, Failure> {
    free(path)?;
    let key = own_key(&pending(path))?;
    let file = beside(path, ".request");
    bundle::write_private(&file, &pem(&request(&key)?))?;
    out.text_line(&format!(
        "{}: hand it to whoever issues: redbutton-controller issue breakglass PERSON --days N --request FILE --out FILE",
        file.display(),
    ))?;
    out.note(&format!("the key stays in {}", pending(path).display()));
    Ok(Exit::Done)
}

/// DER as RFC 7468 has it.
fn pem(der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE REQUEST-----\n");
    for line in der.chunks(48) {
        for three in line.chunks(3) {
            let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for (at, shift) in [18_u32, 12, 6, 0].into_iter().enumerate() {
                let letter = ALPHABET[(bits >> shift) as usize & 63];
                text.push(if at <= three.len() {
                    char::from(letter)
                } else {
                    '='
                });
            }
        }
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE REQUEST-----\n");
    text
}

fn accept(file: &Path, path: &Path, out: Out) -> Result<Exit, Failure> {
    free(path)?;
    let mut made = bundle::read(file)?;
    if !matches!(made.identity(), Ok(Identity::Breakglass(_))) {
        return Err(Failure::Usage(format!(
            "{} speaks for {}, which is no breakglass certificate",
            file.display(),
            text::line(&made.identity, 120)
        )));
    }
    let waiting = pending(path);
    let key = bundle::read_private(&waiting)
        .and_then(|pem| KeyPair::from_pem(&pem).ok())
        .ok_or_else(|| {
            Failure::Usage(format!(
                "no key waits in {}: --out is what it was at `breakglass request`",
                waiting.display()
            ))
        })?;
    made.key = SecretPem::new(key.serialize_pem());
    let own = Credentials::new(made)?;
    if own.public_key != key.subject_public_key_info() {
        return Err(Failure::Usage(format!(
            "{} is for another key than the one in {}",
            file.display(),
            waiting.display()
        )));
    }
    bundle::write(path, &own.bundle)?;
    // Best effort: what is left is private, and the same key.
    let _ = std::fs::remove_file(&waiting);
    out.text_line(&format!(
        "{}: good at nodes until {}: redbutton --bundle {} --direct NODE …",
        path.display(),
        Time(own.validity.until_ms()).iso(),
        path.display()
    ))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::CertificateSigningRequestDer;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        for length in [1, 2, 3, 47, 48, 49, 300] {
            let der: Vec<u8> = (0..length)
                .map(|n: u32| u8::try_from(n * 7 % 256).expect("small"))
                .collect();
            let back = CertificateSigningRequestDer::from_pem_slice(pem(&der).as_bytes()).expect("PEM");
            assert_eq!(&*back, &der[..], "{length} bytes");
        }
    }
}
