//! The CA itself.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use proto::bundle::SecretPem;
use proto::{DaemonRole, Identity, NodeId, NodeName, PersonName};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SanType,
    string::Ia5String,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};
use trust::Spki;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long a person's certificate is good for.
pub const PERSON_LIFE: Duration = Duration::days(90);
/// How long a node's certificate is good for.
pub const NODE_LIFE: Duration = Duration::days(365);
/// How long the CA is good for, and the controller's certificate with it: nothing renews that one yet.
const CA_LIFE: Duration = Duration::days(3_652);
/// Certificates are good from a little earlier on: the reader's clock may be behind.
const BACKDATE: Duration = Duration::hours(1);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// Not a name that a certificate can carry.
    #[error("server name {got:?} is neither a DNS name in lower case nor an IP address")]
    ServerName {
        /// What was given, cut to 80 characters.
        got: String,
    },
    /// The CA cannot be read. Says nothing of the key.
    #[error("CA is unusable: {message}")]
    Ca {
        /// What is wrong with it.
        message: &'static str,
    },
    /// The library refused.
    #[error("certificate of {subject} cannot be made")]
    Make {
        /// Whose.
        subject: String,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
}

/// A name under which peers find the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerName {
    /// As in DNS.
    Dns(NodeName),
    /// An address.
    Ip(IpAddr),
}

impl FromStr for ServerName {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        if let Ok(ip) = text.parse() {
            return Ok(ServerName::Ip(ip));
        }
        text.parse()
            .map(ServerName::Dns)
            .map_err(|_| PkiError::ServerName {
                got: text.chars().take(80).collect(),
            })
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerName::Dns(name) => name.fmt(f),
            ServerName::Ip(ip) => ip.fmt(f),
        }
    }
}

/// A certificate that the CA made, with its key.
#[derive(Debug)]
pub struct Issued {
    /// Whom it speaks for.
    pub identity: Identity,
    /// PEM.
    pub certificate: String,
    /// PKCS#8.
    pub key: SecretPem,
    /// When it ends.
    pub expires: OffsetDateTime,
}

impl Issued {
    /// The key that it is for.
    ///
    /// # Errors
    /// Never for what a CA made.
    pub fn spki(&self) -> Result<Spki, PkiError> {
        let leaf = CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok();
        leaf.and_then(|leaf| Spki::of_certificate(&leaf).ok())
            .ok_or(PkiError::Ca {
                message: "it made a certificate that cannot be read",
            })
    }
}

/// A CA with its key. Prints nothing of the key.
pub struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    expires: OffsetDateTime,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pem: _,
            issuer: _,
            expires,
        } = self;
        f.debug_struct("Ca")
            .field("expires", expires)
            .finish_non_exhaustive()
    }
}

impl Ca {
    /// Makes a new CA.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate(now: OffsetDateTime) -> Result<(Self, SecretPem), PkiError> {
        let make = |source| PkiError::Make {
            subject: "the CA".to_owned(),
            source,
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let secret = SecretPem::new(key.serialize_pem());
        let expires = now + CA_LIFE;
        let mut params = params("Redbutton CA", now, expires);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).map_err(make)?.pem();
        Ok((
            Self {
                pem,
                issuer: Issuer::new(params, key),
                expires,
            },
            secret,
        ))
    }

    /// Takes up a CA from its files.
    ///
    /// # Errors
    /// When one of them is malformed or the key is another's. Nothing of the key is said.
    pub fn load(pem: String, key: &SecretPem) -> Result<Self, PkiError> {
        let unusable = |message| PkiError::Ca { message };
        let key =
            KeyPair::from_pem(key.expose()).map_err(|_| unusable("ca.key is not a private key in PEM"))?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| unusable("ca.pem is not a certificate in PEM"))?;
        // The certificate holds the public key's bytes as they are.
        let public = key.public_key_raw();
        if !der.windows(public.len()).any(|window| window == public) {
            return Err(unusable("ca.key is not the key of ca.pem"));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key)
            .map_err(|_| unusable("ca.pem is not an X.509 certificate"))?;
        let expires = X509Certificate::from_der(&der)
            .map(|(_, certificate)| certificate.validity().not_after.to_datetime())
            .map_err(|_| unusable("ca.pem is not an X.509 certificate"))?;
        Ok(Self { pem, issuer, expires })
    }

    /// The CA's certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// When it ends; nothing that it signs outlives it.
    #[must_use]
    pub const fn expires(&self) -> OffsetDateTime {
        self.expires
    }

    /// The controller's own certificate, as long as the CA.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn controller(&self, names: &[ServerName], now: OffsetDateTime) -> Result<Issued, PkiError> {
        let names = names.iter().map(|name| match name {
            ServerName::Dns(name) => ia5(name.as_str()).map(SanType::DnsName),
            ServerName::Ip(ip) => Ok(SanType::IpAddress(*ip)),
        });
        let names = names.collect::<Result<_, _>>()?;
        self.issue(
            Identity::Controller,
            names,
            ExtendedKeyUsagePurpose::ServerAuth,
            CA_LIFE,
            now,
        )
    }

    /// A person's certificate.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn person(&self, name: &PersonName, life: Duration, now: OffsetDateTime) -> Result<Issued, PkiError> {
        let identity = Identity::Person(name.clone());
        self.issue(
            identity,
            Vec::new(),
            ExtendedKeyUsagePurpose::ClientAuth,
            life,
            now,
        )
    }

    /// A node manager's certificate.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn node(
        &self,
        id: NodeId,
        name: &NodeName,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, PkiError> {
        let identity = Identity::Daemon(id, DaemonRole::NodeManager);
        let names = vec![SanType::DnsName(ia5(name.as_str())?)];
        let make = |source| PkiError::Make {
            subject: identity.to_string(),
            source,
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        // It dials the controller, and people dial it.
        let usage = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        self.certify(identity, &key, names, usage, life, now)
    }

    /// A certificate for the key that makes the controller's statements (crate `trust`), as long as the CA.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn signer(&self, now: OffsetDateTime) -> Result<Issued, PkiError> {
        let identity = Identity::Signer;
        let make = |source| PkiError::Make {
            subject: identity.to_string(),
            source,
        };
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(make)?;
        self.certify(identity, &key, Vec::new(), Vec::new(), CA_LIFE, now)
    }

    pub(super) fn issue(
        &self,
        identity: Identity,
        names: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, PkiError> {
        let make = |source| PkiError::Make {
            subject: identity.to_string(),
            source,
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        self.certify(identity, &key, names, vec![usage], life, now)
    }

    fn certify(
        &self,
        identity: Identity,
        key: &KeyPair,
        names: Vec<SanType>,
        usage: Vec<ExtendedKeyUsagePurpose>,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, PkiError> {
        let (certificate, expires) = self.certify_key(&identity, key, names, usage, life, now)?;
        Ok(Issued {
            certificate,
            key: SecretPem::new(key.serialize_pem()),
            expires,
            identity,
        })
    }

    /// The certificate alone and when it ends; whoever has the key keeps it.
    pub(super) fn certify_key(
        &self,
        identity: &Identity,
        key: &impl PublicKeyData,
        mut names: Vec<SanType>,
        usage: Vec<ExtendedKeyUsagePurpose>,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<(String, OffsetDateTime), PkiError> {
        let make = |source| PkiError::Make {
            subject: identity.to_string(),
            source,
        };
        // Certificates know no fractions of seconds.
        let expires = (now + life).min(self.expires).truncate_to_second();
        names.push(SanType::URI(ia5(&identity.to_string())?));
        let mut params = params(&identity.to_string(), now, expires);
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usage;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer).map_err(make)?.pem();
        Ok((certificate, expires))
    }
}

fn params(name: &str, now: OffsetDateTime, expires: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // At most 64 characters (X.520); peers read the URI, this is for people.
    params
        .distinguished_name
        .push(DnType::CommonName, name.chars().take(64).collect::<String>());
    params.not_before = now - BACKDATE;
    params.not_after = expires;
    params
}

fn ia5(text: &str) -> Result<Ia5String, PkiError> {
    text.to_owned().try_into().map_err(|source| PkiError::Make {
        subject: text.to_owned(),
        source,
    })
}

#[cfg(test)]
#[path = "ca_tests.rs"]
mod tests;
