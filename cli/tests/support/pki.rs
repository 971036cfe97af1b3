//! A CA and what it signs.

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType, date_time_ymd};

/// A certificate and its key, PEM.
pub(crate) struct Credentials {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A certificate authority.
pub(crate) struct Authority {
    pub(crate) certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed").pem();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// A controller's, for these names.
    pub(crate) fn server(&self, names: &[&str]) -> Credentials {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// Alice's; expired long ago if asked.
    pub(crate) fn person(&self, expired: bool) -> Credentials {
        self.person_until(expired.then_some(2003))
    }

    /// Alice's, from May 2003 to May of this year; the library's long default without one.
    pub(crate) fn person_until(&self, year: Option<i32>) -> Credentials {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(
            "redbutton://person/alice".try_into().expect("ASCII"),
        )];
        if let Some(year) = year {
            params.not_before = date_time_ymd(2003, 5, 1);
            params.not_after = date_time_ymd(year, 5, 27);
        }
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Credentials {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed").pem();
        Credentials {
            certificate,
            key: key.serialize_pem(),
        }
    }
}
