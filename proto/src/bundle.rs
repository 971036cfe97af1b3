//! The bundle: one TOML file with everything that somebody needs to reach the controller.
//!
//! `redbutton-controller init` and `issue` write it, `redbutton` and the daemons read it. It holds a private
//! key: mode 0600, never in a log. Its text is parsed here; reading, writing and the mode are the callers'.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Identity, IdentityError};

/// A private key in PEM. Prints nothing of itself.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretPem(String);

impl SecretPem {
    /// Takes the PEM text.
    #[must_use]
    pub const fn new(pem: String) -> Self {
        Self(pem)
    }

    /// The PEM text, for the TLS stack alone.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        f.write_str("(secret)")
    }
}

/// Credentials and addresses of one person or one daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Format of this file; [`Bundle::FORMAT`].
    pub format: u32,
    /// Whom it speaks for, as in the certificate: `redbutton://person/alice`.
    pub identity: String,
    /// For people: the display name. For daemons: the node's name.
    pub name: String,
    /// Where the controller listens for this kind of peer: `host:port`, tried in order.
    pub controllers: Vec<String>,
    /// The CA's certificate, PEM.
    pub ca: String,
    /// Our certificate and its chain, PEM.
    pub certificate: String,
    /// Our private key, PEM (PKCS#8).
    pub key: SecretPem,
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Not TOML, a field missing or unknown. The message never quotes the file: it holds a key.
    #[error("bundle is malformed at line {line}: {message}")]
    Syntax {
        /// 1-based; 0 when unknown.
        line: usize,
        /// What the parser said, without the text around it.
        message: String,
    },
    /// Written by a newer Redbutton.
    #[error("bundle has format {got}, this program reads {expected}")]
    Format {
        /// In the file.
        got: u32,
        /// Ours.
        expected: u32,
    },
    /// Names nobody.
    #[error("bundle names nobody")]
    Identity(#[from] IdentityError),
    /// No address to dial.
    #[error("bundle lists no controller")]
    NoController,
}

impl Bundle {
    /// The format that this code writes. Readers refuse a higher one.
    pub const FORMAT: u32 = 1;

    /// A longer file is no bundle: it holds a few certificates and a key.
    pub const MAX_BYTES: u64 = 256 << 10;

    /// Reads the text of a bundle file.
    ///
    /// # Errors
    /// When it is not a bundle of a format that we know; the error quotes nothing of the text.
    pub fn parse(text: &str) -> Result<Self, BundleError> {
        let bundle: Bundle = toml::from_str(text).map_err(|e| BundleError::Syntax {
            line: e
                .span()
                .map_or(0, |span| text[..span.start].lines().count().max(1)),
            message: e.message().to_owned(),
        })?;
        if bundle.format != Self::FORMAT {
            return Err(BundleError::Format {
                got: bundle.format,
                expected: Self::FORMAT,
            });
        }
        bundle.identity()?;
        if bundle.controllers.is_empty() {
            return Err(BundleError::NoController);
        }
        Ok(bundle)
    }

    /// The text of a bundle file.
    #[must_use]
    pub fn to_text(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// Whom it speaks for.
    ///
    /// # Errors
    /// When the text is no identity.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        self.identity.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Bundle {
        Bundle {
            format: Bundle::FORMAT,
            identity: "redbutton://person/alice".into(),
            name: "alice".into(),
            controllers: vec!["localhost:7443".into()],
            ca: "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n".into(),
            certificate: "c".into(),
            key: SecretPem::new("very secret".into()),
        }
    }

    #[test]
    fn a_bundle_survives_its_file() {
        let back = Bundle::parse(&bundle().to_text()).expect("own text");
        assert_eq!(back.identity, "redbutton://person/alice");
        assert_eq!(back.key.expose(), "very secret");
        assert_eq!(back.ca, bundle().ca);
    }

    #[test]
    fn neither_debug_nor_errors_show_the_key() {
        assert!(!format!("{:?}", bundle()).contains("very secret"));
        let broken = bundle().to_text().replace("key = ", "kex = ");
        let error = Bundle::parse(&broken).expect_err("unknown field");
        assert!(!format!("{error} {error:?}").contains("very secret"), "{error:?}");
    }

    #[test]
    fn a_newer_format_is_refused() {
        let newer = bundle().to_text().replace("format = 1", "format = 2");
        assert!(matches!(
            Bundle::parse(&newer),
            Err(BundleError::Format { got: 2, expected: 1 })
        ));
    }
}
