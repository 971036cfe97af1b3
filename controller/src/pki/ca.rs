//! The CA itself.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use proto::bundle::SecretPem;
use proto::{DaemonRole, Identity, NodeId, NodeName, PersonName};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SanType, string::Ia5String,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};
use trust::Spki;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long a person's certificate is good for.
pub const PERSON_LIFE: Duration = Duration::days(90);
/// How long a node's certificate is good for; it is renewed from half of that on.
pub const NODE_LIFE: Duration = Duration::days(1);
/// How long the controller's certificate is good for; it renews that by itself.
pub(super) const CONTROLLER_LIFE: Duration = Duration::days(30);
/// How long a root is good for, and at most the signer's certificate, which no clock judges.
pub(super) const ROOT_LIFE: Duration = Duration::days(3_652);
/// How long an issuing certificate is good for. Replaced when half of it is over, so that nothing is cut short.
pub(super) const ISSUING_LIFE: Duration = Duration::days(730);
/// Certificates are good from a little earlier on: the reader's clock may be behind. Each from a little later than
/// its issuer.
const BACKDATE: Duration = Duration::hours(1);
pub(super) const ISSUING_BACKDATE: Duration = Duration::hours(2);
pub(super) const ROOT_BACKDATE: Duration = Duration::hours(3);

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

/// A CA with its key: an issuing one below a root, or a root by itself. Prints nothing of the key.
pub struct Ca {
    /// Every root that is trusted.
    pem: String,
    /// What leads from a leaf to a root: our own certificate, unless we are the root.
    tail: String,
    issuer: Issuer<'static, KeyPair>,
    begins: OffsetDateTime,
    expires: OffsetDateTime,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pem: _,
            tail: _,
            issuer: _,
            begins: _,
            expires,
        } = self;
        f.debug_struct("Ca")
            .field("expires", expires)
            .finish_non_exhaustive()
    }
}

impl Ca {
    /// Makes a new root that signs leaves by itself: what tests need.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate(now: OffsetDateTime) -> Result<(Self, SecretPem), PkiError> {
        let (pem, secret) = super::root::make_root(now)?;
        let ca = Self::load(pem, &secret)?;
        Ok((ca, secret))
    }

    /// Takes up a root that signs leaves by itself.
    ///
    /// # Errors
    /// When one of them is malformed or the key is another's. Nothing of the key is said.
    pub fn load(pem: String, key: &SecretPem) -> Result<Self, PkiError> {
        let (issuer, begins, expires) = issuer(&pem, key, CA_FILES)?;
        Ok(Self {
            pem,
            tail: String::new(),
            issuer,
            begins,
            expires,
        })
    }

    /// Takes up an issuing CA below one of the roots.
    ///
    /// # Errors
    /// As [`Ca::load`].
    pub(super) fn issuing(roots: String, pem: String, key: &SecretPem) -> Result<Self, PkiError> {
        let (issuer, begins, expires) = issuer(&pem, key, ISSUING)?;
        Ok(Self {
            pem: roots,
            tail: pem,
            issuer,
            begins,
            expires,
        })
    }

    /// From when it is good.
    pub(super) const fn begins(&self) -> OffsetDateTime {
        self.begins
    }

    /// Every root that is trusted, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// When it ends; nothing that it signs outlives it.
    #[must_use]
    pub const fn expires(&self) -> OffsetDateTime {
        self.expires
    }

    /// The controller's own certificate, with its chain.
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
            vec![ExtendedKeyUsagePurpose::ServerAuth],
            CONTROLLER_LIFE,
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
            vec![ExtendedKeyUsagePurpose::ClientAuth],
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
        self.issue(identity, node_names(name)?, node_usage(), life, now)
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
        self.certify(identity, &key, Vec::new(), Vec::new(), ROOT_LIFE, now)
    }

    /// A new certificate for the signer that there is: after a change of roots its statements lead to the new one.
    ///
    /// # Errors
    /// When its key is malformed.
    pub(super) fn signer_again(&self, key: &SecretPem, now: OffsetDateTime) -> Result<Issued, PkiError> {
        let key = KeyPair::from_pem(key.expose()).map_err(|_| PkiError::Ca {
            message: "the signer's key is not a private key in PEM",
        })?;
        self.certify(Identity::Signer, &key, Vec::new(), Vec::new(), ROOT_LIFE, now)
    }

    pub(super) fn issue(
        &self,
        identity: Identity,
        names: Vec<SanType>,
        usage: Vec<ExtendedKeyUsagePurpose>,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, PkiError> {
        let make = |source| PkiError::Make {
            subject: identity.to_string(),
            source,
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        self.certify(identity, &key, names, usage, life, now)
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

    /// The certificate with its chain and when it ends; whoever has the key keeps it.
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
        let begins = (now - BACKDATE).max(self.begins());
        let mut params = params(&identity.to_string(), begins, expires);
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usage;
        params.use_authority_key_identifier_extension = true;
        let mut chain = params.signed_by(key, &self.issuer).map_err(make)?.pem();
        chain.push_str(&self.tail);
        Ok((chain, expires))
    }
}

/// What errors call the certificate and the key.
type Called = [&'static str; 3];
const CA_FILES: Called = [
    "ca.key is not a private key in PEM",
    "ca.pem is not an X.509 certificate in PEM",
    "ca.key is not the key of ca.pem",
];
const ISSUING: Called = [
    "the issuing key is not a private key in PEM",
    "the issuing certificate is not X.509 in PEM",
    "the issuing key is not the key of its certificate",
];

fn issuer(
    pem: &str,
    key: &SecretPem,
    [no_key, no_certificate, strangers]: Called,
) -> Result<(Issuer<'static, KeyPair>, OffsetDateTime, OffsetDateTime), PkiError> {
    let unusable = |message| PkiError::Ca { message };
    let key = KeyPair::from_pem(key.expose()).map_err(|_| unusable(no_key))?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| unusable(no_certificate))?;
    let (begins, expires) = {
        let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| unusable(no_certificate))?;
        if certificate.public_key().raw != key.subject_public_key_info() {
            return Err(unusable(strangers));
        }
        let validity = certificate.validity();
        (
            validity.not_before.to_datetime(),
            validity.not_after.to_datetime(),
        )
    };
    let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|_| unusable(no_certificate))?;
    Ok((issuer, begins, expires))
}

pub(super) fn node_names(name: &NodeName) -> Result<Vec<SanType>, PkiError> {
    Ok(vec![SanType::DnsName(ia5(name.as_str())?)])
}

/// A node dials the controller, and people dial it.
pub(super) fn node_usage() -> Vec<ExtendedKeyUsagePurpose> {
    vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ]
}

pub(super) fn params(name: &str, begins: OffsetDateTime, expires: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // At most 64 characters (X.520); peers read the URI, this is for people.
    params
        .distinguished_name
        .push(DnType::CommonName, name.chars().take(64).collect::<String>());
    params.not_before = begins;
    params.not_after = expires;
    // By default it would come from the key, and a renewed certificate has the same key.
    params.serial_number = Some(uuid::Uuid::new_v4().into_bytes().to_vec().into());
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
