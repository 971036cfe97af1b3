//! `issue breakglass`: a certificate that nodes accept and the controller does not, for few people and the worst day.
//!
//! ```text
//! redbutton breakglass request ─▶ FILE.request ─▶ issue breakglass ─▶ FILE.certificate ─▶ redbutton breakglass accept
//!   (the key stays)                                (two people, or root here)               (key and certificate: FILE)
//! ```
//! Its key is enrolled like any other of that person, so that it is listed, and revoked, with the others: by
//! `people revoke-keys`, or with everything by `people remove`. The revocation reaches nodes with the next policy.
//! What the certificate may do follows from that policy, as for every certificate: it carries a name, no role.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use proto::PersonName;
use proto::bundle::{Bundle, SecretPem};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};

use super::issue::Desk;
use super::{AdminError, IssuedBundle, millis, whose_shell};
use crate::pki::{Ca, Certified, FileError, Requested, create_private};
use crate::store::{About, Holder, NewKey, Note, Store, StoreError};

/// Longest request file.
const MOST: u64 = 16 << 10;

/// A breakglass certificate.
#[derive(Debug, Clone)]
pub struct IssueBreakglass {
    /// The state directory.
    pub dir: PathBuf,
    /// Who; they exist.
    pub name: PersonName,
    /// Where it goes; nothing may stand there.
    pub out: PathBuf,
    /// How long it is good.
    pub life: Duration,
    /// As `redbutton breakglass request` wrote it; without one the key is made here, and travels.
    pub request: Option<PathBuf>,
}

/// A breakglass certificate that is wanted.
#[derive(Debug)]
pub struct Breakglass<'a> {
    /// Whose.
    pub name: &'a PersonName,
    /// The key that its holder made.
    pub requested: &'a Requested,
    /// How long it is good.
    pub life: Duration,
    /// Who proposed it; `None`: root on the controller's machine.
    pub by: Option<PersonName>,
}

/// Certifies a key and enrols it. For whoever has made sure that two people want it.
///
/// # Errors
/// When the person is not there, the key is another's or revoked, or the disk refuses.
pub async fn certify_breakglass(
    store: &dyn Store,
    ca: &Ca,
    wish: Breakglass<'_>,
    note: Note,
    now: OffsetDateTime,
) -> Result<Certified, AdminError> {
    let Breakglass {
        name,
        requested,
        life,
        by,
    } = wish;
    match store.person(name).await {
        Err(StoreError::NotFound { .. }) => return Err(AdminError::UnknownPerson { name: name.clone() }),
        other => other?,
    };
    let certified = ca.certify_breakglass(name, requested, life, now)?;
    // Enrolled before it is handed out: what nobody lists cannot be revoked.
    let key = NewKey {
        spki: requested.spki(),
        holder: Holder::Person(name.clone()),
        enrolled_by: by,
        certificate_expires_at_ms: millis(certified.expires),
    };
    store.enrol_key(&key, note).await?;
    Ok(certified)
}

/// Makes one, as root on the controller's machine: without a second person, and it stands so in the audit.
///
/// # Errors
/// See [`AdminError`].
pub async fn issue_breakglass(
    wish: &IssueBreakglass,
    now: OffsetDateTime,
) -> Result<IssuedBundle, AdminError> {
    let desk = Desk::open(&wish.dir, &wish.out).await?;
    let controllers = desk.controllers(&[], |recorded| recorded.people)?;
    let (requested, key) = match &wish.request {
        Some(path) => (read_request(path)?, SecretPem::new(String::new())),
        None => {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| AdminError::NoRandomness)?;
            let requested = Requested::from_public_key(&key.subject_public_key_info())
                .map_err(|_| AdminError::NoRandomness)?;
            (requested, SecretPem::new(key.serialize_pem()))
        }
    };
    let detail = format!(
        "breakglass certificate for {} days, key {}, by {}, without a second person",
        wish.life.whole_days(),
        requested.spki(),
        whose_shell()
    );
    let action = authz::Action::IssueBreakglass.as_str();
    let note = desk
        .note(
            action,
            format!("person {}", wish.name),
            detail,
            About::default(),
            now,
        )
        .await?;
    let certificate = Breakglass {
        name: &wish.name,
        requested: &requested,
        life: wish.life,
        by: None,
    };
    let certified = certify_breakglass(&desk.store, &desk.ca, certificate, note, now).await?;
    let bundle = Bundle {
        format: Bundle::FORMAT,
        identity: certified.identity.to_string(),
        name: wish.name.to_string(),
        controllers,
        ca: desk.ca.pem().to_owned(),
        certificate: certified.chain,
        key,
    };
    create_private(&wish.out, &bundle.to_text())?;
    desk.store.close().await?;
    Ok(IssuedBundle {
        identity: certified.identity,
        path: wish.out.clone(),
        expires: certified.expires,
        enrolled: false,
    })
}

fn read_request(path: &Path) -> Result<Requested, AdminError> {
    let bad = |what: String| AdminError::Request {
        path: path.to_owned(),
        what,
    };
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MOST).read_to_string(&mut text))
        .map_err(FileError::io(path, "read"))?;
    let der = CertificateSigningRequestDer::from_pem_slice(text.as_bytes())
        .map_err(|_| bad("it is no certificate request in PEM".into()))?;
    Requested::from_request(&der).map_err(|error| bad(error.to_string()))
}
