//! What `pki.sealed` holds.

use proto::bundle::SecretPem;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Ca, Issued, PkiError, ServerName, root};
use crate::seal::Secret;

/// The format that this code writes. Readers refuse a higher one.
const FORMAT: u32 = 1;

/// Where a root stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Everybody learns to trust it; it signs nothing yet.
    Staged,
    /// Leaves are issued below it.
    Issuing,
    /// Leaves were issued below it and are still good.
    Retiring,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Stage::Staged => "staged",
            Stage::Issuing => "issuing",
            Stage::Retiring => "retiring",
        })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Root {
    pub(super) certificate: String,
    pub(super) key: SecretPem,
    pub(super) stage: Stage,
}

/// A certificate, with its chain where it is a leaf, and its key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: SecretPem,
}

impl From<Issued> for Pair {
    fn from(issued: Issued) -> Self {
        Self {
            certificate: issued.certificate,
            key: issued.key,
        }
    }
}

/// Everything. `Debug` shows no key: [`SecretPem`] does not.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    format: u32,
    /// It came from the version before: bundles may be out whose keys the store does not know.
    #[serde(default)]
    pub(super) migrated: bool,
    /// DNS names and addresses in the controller's certificate.
    pub(super) names: Vec<String>,
    /// The one that issues first.
    pub(super) roots: Vec<Root>,
    pub(super) issuing: Pair,
    pub(super) controller: Pair,
    pub(super) signer: Pair,
}

impl Kept {
    /// All of it new.
    pub(super) fn generate(names: &[ServerName], now: OffsetDateTime) -> Result<Self, PkiError> {
        let (certificate, key) = root::make_root(now)?;
        Self::below(certificate, key, names, None, now)
    }

    /// A root that there is, and everything below it new; also a new certificate for a signer that there is.
    pub(super) fn below(
        root: String,
        root_key: SecretPem,
        names: &[ServerName],
        signer: Option<&SecretPem>,
        now: OffsetDateTime,
    ) -> Result<Self, PkiError> {
        let (certificate, key) = root::make_issuing(&root, &root_key, now)?;
        let issuing = Pair { certificate, key };
        let ca = Ca::issuing(root.clone(), issuing.certificate.clone(), &issuing.key)?;
        let controller = ca.controller(names, now)?.into();
        let signer = match signer {
            Some(key) => ca.signer_again(key, now)?,
            None => ca.signer(now)?,
        };
        Ok(Self {
            format: FORMAT,
            migrated: false,
            names: names.iter().map(ToString::to_string).collect(),
            roots: vec![Root {
                certificate: root,
                key: root_key,
                stage: Stage::Issuing,
            }],
            issuing,
            controller,
            signer: signer.into(),
        })
    }

    pub(super) fn to_text(&self) -> Secret {
        Secret::new(serde_json::to_vec(self).expect("texts and numbers have a JSON form"))
    }

    /// The message quotes nothing of the text.
    pub(super) fn from_text(text: &Secret) -> Result<Self, String> {
        let kept: Self = serde_json::from_slice(text.expose())
            .map_err(|error| format!("malformed at column {}", error.column()))?;
        if kept.format != FORMAT {
            return Err(format!("format is {}, this program reads {FORMAT}", kept.format));
        }
        if kept.roots.first().map(|root| root.stage) != Some(Stage::Issuing) {
            return Err("its first root is not the one that issues".to_owned());
        }
        Ok(kept)
    }

    pub(super) fn roots_pem(&self) -> String {
        self.roots.iter().map(|root| root.certificate.as_str()).collect()
    }

    pub(super) fn issuing_root(&self) -> Result<&Root, PkiError> {
        let issuing = self.roots.iter().find(|root| root.stage == Stage::Issuing);
        issuing.ok_or(PkiError::Ca {
            message: "no root issues",
        })
    }

    pub(super) fn ca(&self) -> Result<Ca, PkiError> {
        let issuing = self.issuing.certificate.clone();
        Ca::issuing(self.roots_pem(), issuing, &self.issuing.key)
    }

    /// A new issuing CA below the root that issues.
    pub(super) fn issue_anew(&mut self, now: OffsetDateTime) -> Result<(), PkiError> {
        let root = self.issuing_root()?;
        let (certificate, key) = root::make_issuing(&root.certificate, &root.key, now)?;
        self.issuing = Pair { certificate, key };
        Ok(())
    }

    /// A new certificate for the controller, with a new key.
    pub(super) fn serve_anew(&mut self, now: OffsetDateTime) -> Result<(), PkiError> {
        let names: Vec<ServerName> = self
            .names
            .iter()
            .map(|name| name.parse())
            .collect::<Result<_, _>>()?;
        self.controller = self.ca()?.controller(&names, now)?.into();
        Ok(())
    }

    /// A new certificate for the signer, with its old key.
    pub(super) fn sign_anew(&mut self, now: OffsetDateTime) -> Result<(), PkiError> {
        self.signer = self.ca()?.signer_again(&self.signer.key, now)?.into();
        Ok(())
    }
}
