//! `redbutton login`: a key of one's own by an invite, or a new certificate for the one that is there.
//!
//! ```text
//! invite ─▶ key: made here, kept in BUNDLE.pending first ─▶ Enrol.Accept ─▶ BUNDLE written ─▶ pending removed
//! ```
//! The key is on the disk before the invite is used: whoever is cut off runs the same command again, with the same
//! key, and the controller answers again.

use std::path::{Path, PathBuf};

use proto::Identity;
use proto::bundle::{Bundle, SecretPem};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey};
use tokio::time::Instant;

use super::bundle_path;
use crate::agent;
use crate::args::{Global, LoginArgs};
use crate::bundle::{self, BundleFileError};
use crate::client::{Dialer, Trouble};
use crate::credentials::Credentials;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;
use crate::render;
use crate::view::keys::LoggedIn;
use crate::when::Time;

pub(super) async fn login(args: LoginArgs, global: &Global, out: Out) -> Result<Exit, Failure> {
    let path = bundle_path(global)?;
    let deadline = Instant::now() + global.timeout;
    let fresh = match &args.invite {
        None => {
            let own = Credentials::new(bundle::read(&path)?)?;
            if matches!(own.bundle.identity(), Ok(Identity::Invite(_))) {
                return Err(BundleFileError::Invite { path }.into());
            }
            let dialer = Dialer::new(
                own,
                Some(path.clone()),
                global.controller.clone(),
                global.server_name.clone(),
            )?;
            dialer.renew(deadline, global.timeout).await?;
            Credentials::new(bundle::read(&path)?)?
        }
        Some(invite) => by_invite(&args, invite, &path, global, deadline).await?,
    };
    let view = LoggedIn {
        person: fresh.bundle.name.clone(),
        certificate_expires_at: Time(fresh.validity.until_ms()),
        bundle: path.display().to_string(),
    };
    out.result(&view, |_| render::keys::logged_in(&view, Time::now()))?;
    if let Some(invite) = &args.invite {
        out.note(&format!("the invite is used up: delete {}", invite.display()));
    }
    Ok(Exit::Done)
}

async fn by_invite(
    args: &LoginArgs,
    file: &Path,
    path: &Path,
    global: &Global,
    deadline: Instant,
) -> Result<Credentials, Failure> {
    let invite = bundle::read(file)?;
    if !matches!(invite.identity(), Ok(Identity::Invite(_))) {
        return Err(BundleFileError::NoInvite {
            path: file.to_owned(),
            identity: invite.identity,
        }
        .into());
    }
    if !args.force {
        nobody_else(path, &invite.name)?;
    }
    let pending = pending(path);
    let (key, request) = match &args.ssh_agent {
        Some(wanted) => (agent::reference(), request(&agent::find(wanted)?)?),
        None => {
            let key = own_key(&pending)?;
            (key.serialize_pem(), request(&key)?)
        }
    };
    let own = Credentials::new(invite.clone())?;
    let dialer = Dialer::new(own, None, global.controller.clone(), global.server_name.clone())?;
    let client = dialer.connect(deadline, global.timeout).await?;
    let reply = client.accept(request).await.map_err(|failure| match failure {
        Failure::Broken {
            trouble: Trouble::Expired,
            ..
        } => BundleFileError::InviteEnded {
            path: file.to_owned(),
        }
        .into(),
        other => other,
    })?;
    let controllers = if reply.controllers.is_empty() {
        invite.controllers
    } else {
        reply.controllers
    };
    let made = Bundle {
        format: Bundle::FORMAT,
        identity: reply.identity,
        name: reply.name,
        controllers,
        ca: reply.roots,
        certificate: reply.certificate,
        key: SecretPem::new(key),
    };
    let fresh = Credentials::new(made)?;
    bundle::write(path, &fresh.bundle)?;
    // Best effort: what is left is private, and the next login would use a key that is enrolled already and say so.
    let _ = std::fs::remove_file(&pending);
    Ok(fresh)
}

/// The key that waits for its certificate.
pub(super) fn pending(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".pending");
    path.with_file_name(name)
}

/// The key of a login that was cut off, or a new one: on the disk before anybody hears of it.
pub(super) fn own_key(pending: &Path) -> Result<KeyPair, Failure> {
    if let Some(key) = bundle::read_private(pending).and_then(|pem| KeyPair::from_pem(&pem).ok()) {
        return Ok(key);
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| no_key())?;
    bundle::write_private(pending, &key.serialize_pem())?;
    Ok(key)
}

fn no_key() -> Failure {
    Failure::File {
        what: "making a key".to_owned(),
        source: std::io::Error::other("there is no randomness"),
    }
}

/// PKCS#10, DER: the key, signed by itself. What else a request can say is the controller's to know.
pub(super) fn request(key: &impl SigningKey) -> Result<Vec<u8>, Failure> {
    let request = CertificateParams::default().serialize_request(key);
    Ok(request
        .map_err(|_| crate::agent::AgentError::Refused)?
        .der()
        .to_vec())
}

/// Nothing stands there, or a bundle of the same person.
fn nobody_else(path: &Path, name: &str) -> Result<(), BundleFileError> {
    let in_the_way = |what: String| BundleFileError::InTheWay {
        path: path.to_owned(),
        what,
    };
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    match bundle::read(path) {
        Ok(there) if there.identity == format!("redbutton://person/{name}") => Ok(()),
        Ok(there) => Err(in_the_way(format!("it speaks for {}", there.identity))),
        Err(_) => Err(in_the_way("it cannot be read as a bundle".to_owned())),
    }
}
