//! TLS of a daemon that listens for people itself: its own certificate and the trusted roots, both of which change
//! while it runs, and a clock that may be wrong.
//!
//! A certificate or a root that is replaced counts from the next handshake on; connections that stand stay (who may
//! do what is asked anew at each call). The clock never runs behind what the controller last signed: a machine
//! that woke up in 1970 lets people in all the same, and a certificate that had ended by then stays ended.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::UNIX_EPOCH;

use proto::Identity;
use proto::bundle::SecretPem;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, Error};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme, version};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::TlsError;
use crate::tls::{self, ALPN};

/// What a door shows and whom it trusts. Shared by the listener and by whoever renews.
pub struct Door {
    roots: RwLock<Arc<dyn ClientCertVerifier>>,
    own: RwLock<Arc<CertifiedKey>>,
    /// Seconds since 1970.
    not_before: AtomicU64,
    ended: AtomicBool,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door")
            .field("not_before", &self.not_before)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

fn verifier(roots_pem: &str) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(tls::roots(roots_pem)?, tls::provider())
        .build()
        .map_err(|e| TlsError::Setup(e.to_string()))?;
    Ok(verifier)
}

fn own(cert_pem: &str, key_pem: &SecretPem) -> Result<Arc<CertifiedKey>, TlsError> {
    let own = CertifiedKey::from_der(tls::chain(cert_pem)?, tls::key(key_pem)?, &tls::provider())
        .map_err(TlsError::Own)?;
    Ok(Arc::new(own))
}

impl Door {
    /// Takes up the first certificate (leaf first), its key and the roots.
    ///
    /// # Errors
    /// When a text holds not what it should; the error says which and shows none of it.
    pub fn new(roots_pem: &str, cert_pem: &str, key_pem: &SecretPem) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self {
            roots: RwLock::new(verifier(roots_pem)?),
            own: RwLock::new(own(cert_pem, key_pem)?),
            not_before: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }))
    }

    /// Lets in people and daemons whose certificate has ended, if it is otherwise right:
    /// [`Peer::expired`](crate::Peer::expired) says so, and the caller lets them do no more than renew. The end of
    /// an invite's certificate is its end.
    pub fn let_ended_in(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Trusts these roots from the next handshake on, instead of those before.
    ///
    /// # Errors
    /// When they are none; then those before stay.
    pub fn trust(&self, roots_pem: &str) -> Result<(), TlsError> {
        let new = verifier(roots_pem)?;
        *self.roots.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Shows this certificate from the next handshake on.
    ///
    /// # Errors
    /// When it cannot be used; then the one before stays.
    pub fn show(&self, cert_pem: &str, key_pem: &SecretPem) -> Result<(), TlsError> {
        let new = own(cert_pem, key_pem)?;
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// It is at least so late (seconds since 1970), whatever this machine's clock says.
    pub fn it_is_past(&self, seconds: u64) {
        self.not_before.fetch_max(seconds, Ordering::Relaxed);
    }

    /// For a listener.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = ServerConfig::builder_with_details(tls::provider(), Arc::new(Clock(self.clone())))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|e| TlsError::Setup(e.to_string()))?
            .with_client_cert_verifier(Arc::new(Verifier(self.clone())))
            .with_cert_resolver(Arc::new(Own(self.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }

    fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.roots.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Debug)]
struct Clock(Arc<Door>);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let floor = self.0.not_before.load(Ordering::Relaxed);
        let floor = UnixTime::since_unix_epoch(std::time::Duration::from_secs(floor));
        Some(UnixTime::now().max(floor))
    }
}

#[derive(Debug)]
struct Own(Arc<Door>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.own.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// webpki's check against the roots of the moment, and: the certificate names exactly one of us.
#[derive(Debug)]
struct Verifier(Arc<Door>);

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // The roots change; a client that has one certificate needs no hint.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verifier = self.0.verifier();
        let named = || trust::identity_of(std::slice::from_ref(end_entity)).map_err(tls::refused);
        let ended = match verifier.verify_client_cert(end_entity, intermediates, now) {
            Ok(verified) => return named().map(|_| verified),
            Err(error) => error,
        };
        let is_ended = matches!(
            ended,
            Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })
        );
        if !is_ended || !self.0.ended.load(Ordering::Relaxed) {
            return Err(ended);
        }
        let (identity, until) = named()?;
        if !matches!(identity, Identity::Person(_) | Identity::Daemon(..)) {
            return Err(ended);
        }
        // As of its last second, when its issuer was good as well: nothing is signed for longer than its issuer is.
        let last = UnixTime::since_unix_epoch(until.duration_since(UNIX_EPOCH).unwrap_or_default());
        verifier.verify_client_cert(end_entity, intermediates, last.min(now))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verifier().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verifier().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.verifier().supported_verify_schemes()
    }
}
