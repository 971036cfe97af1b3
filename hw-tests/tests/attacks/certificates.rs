//! Certificates that are not what they seem, on both of the controller's ports.

use anyhow::{Result, ensure};
use hw_tests::fleet::Fleet;
use proto::bundle::Bundle;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::wire::*;

type Chain = Vec<CertificateDer<'static>>;

/// Whoever they say they are.
fn claims() -> [&'static str; 6] {
    [
        "redbutton://person/alice",
        "redbutton://person/bob",
        "redbutton://controller",
        "redbutton://signer",
        "redbutton://node/6ba7b810-9dad-11d1-80b4-00c04fd430c8/nodemgr",
        "redbutton://invite/6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    ]
}

fn named(uri: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "leaf");
    params.subject_alt_names.push(SanType::URI(uri.try_into()?));
    Ok(params)
}

/// A client that trusts the fleet's CA and shows whatever it is given.
fn showing(
    fleet: &Bundle,
    own: Option<(Chain, PrivateKeyDer<'static>)>,
    tls12: bool,
) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(fleet.ca.as_bytes()) {
        roots.add(certificate?)?;
    }
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions: &[&rustls::SupportedProtocolVersion] = if tls12 {
        &[&rustls::version::TLS12]
    } else {
        &[&rustls::version::TLS13]
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_root_certificates(roots);
    let mut config = match own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

fn chain(bundle: &Bundle) -> Result<Chain> {
    Ok(CertificateDer::pem_slice_iter(bundle.certificate.as_bytes()).collect::<Result<_, _>>()?)
}

fn own_key(bundle: &Bundle) -> Result<PrivateKeyDer<'static>> {
    Ok(PrivateKeyDer::from_pem_slice(bundle.key.expose().as_bytes())?)
}

/// A fleet, a person's bundle and a node's.
fn world() -> Result<(Fleet, Bundle, Bundle)> {
    let fleet = controller()?;
    let alice = bundle(&fleet, "alice")?;
    let node = read(&fleet.enrol("planet1", "princeton")?)?;
    Ok((fleet, alice, node))
}

async fn refused_at_both(fleet: &Fleet, case: &str, config: &ClientConfig) -> Result<()> {
    for address in [fleet.people(), fleet.daemons()] {
        ensure!(
            refused(config.clone(), &address).await?,
            "{case}: served at {address}"
        );
    }
    Ok(())
}

#[test]
fn nobody_s_self_signed_or_foreign_certificate_opens_a_port() -> Result<()> {
    let (fleet, alice, _) = world()?;
    runtime().block_on(async {
        refused_at_both(&fleet, "no certificate", &showing(&alice, None, false)?).await?;
        let mut foreign = CertificateParams::default();
        // The same name as ours: a name is no key.
        foreign
            .distinguished_name
            .push(DnType::CommonName, "Redbutton CA");
        foreign.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let foreign = CertifiedIssuer::self_signed(foreign, KeyPair::generate()?)?;
        for claim in claims() {
            let key = KeyPair::generate()?;
            let own = named(claim)?.self_signed(&key)?;
            let config = showing(&alice, Some((vec![own.der().clone()], private(&key))), false)?;
            refused_at_both(&fleet, &format!("self-signed {claim}"), &config).await?;
            let signed = named(claim)?.signed_by(&key, &foreign)?;
            let chain = vec![signed.der().clone(), foreign.der().clone()];
            let config = showing(&alice, Some((chain, private(&key))), false)?;
            refused_at_both(&fleet, &format!("foreign {claim}"), &config).await?;
        }
        anyhow::Ok(())
    })?;
    support_presses(&fleet)
}

/// The oldest mistake of all: a leaf that is taken for an authority.
#[test]
fn whoever_has_a_certificate_cannot_make_another() -> Result<()> {
    let (fleet, alice, node) = world()?;
    runtime().block_on(async {
        for holder in [&alice, &node] {
            let signer = KeyPair::from_pem(holder.key.expose())?;
            let leaf = chain(holder)?.remove(0);
            let issuer = Issuer::from_ca_cert_der(&leaf, signer)?;
            for claim in claims() {
                let key = KeyPair::generate()?;
                let forged = named(claim)?.signed_by(&key, &issuer)?;
                let mut shown = vec![forged.der().clone()];
                shown.extend(chain(holder)?);
                let config = showing(&alice, Some((shown, private(&key))), false)?;
                refused_at_both(&fleet, &format!("{claim} by {}", holder.identity), &config).await?;
            }
        }
        anyhow::Ok(())
    })?;
    support_presses(&fleet)
}

#[test]
fn a_certificate_without_its_key_is_paper() -> Result<()> {
    let (fleet, alice, node) = world()?;
    runtime().block_on(async {
        for holder in [&alice, &node] {
            // rustls compares the two beforehand; an attacker's client does not.
            #[derive(Debug)]
            struct Paper(std::sync::Arc<rustls::sign::CertifiedKey>);
            impl rustls::client::ResolvesClientCert for Paper {
                fn resolve(
                    &self,
                    _: &[&[u8]],
                    _: &[rustls::SignatureScheme],
                ) -> Option<std::sync::Arc<rustls::sign::CertifiedKey>> {
                    Some(self.0.clone())
                }
                fn has_certs(&self) -> bool {
                    true
                }
            }
            let key = KeyPair::generate()?;
            let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&private(&key))?;
            let mut config = showing(&alice, None, false)?;
            let paper = rustls::sign::CertifiedKey::new(chain(holder)?, signing);
            config.client_auth_cert_resolver = std::sync::Arc::new(Paper(std::sync::Arc::new(paper)));
            refused_at_both(&fleet, &holder.identity, &config).await?;
        }
        anyhow::Ok(())
    })?;
    support_presses(&fleet)
}

#[test]
fn each_certificate_opens_its_own_port_only() -> Result<()> {
    let (fleet, alice, node) = world()?;
    runtime().block_on(async {
        let (person, daemon) = (honest(&alice)?, honest(&node)?);
        ensure!(
            refused(person.clone(), &fleet.daemons()).await?,
            "a person at the daemons' port"
        );
        ensure!(
            refused(daemon.clone(), &fleet.people()).await?,
            "a node at the people's port"
        );
        // The controls.
        ensure!(
            !refused(person, &fleet.people()).await?,
            "a person at the people's port"
        );
        ensure!(
            !refused(daemon, &fleet.daemons()).await?,
            "a node at the daemons' port"
        );
        anyhow::Ok(())
    })?;
    support_presses(&fleet)
}

#[test]
fn neither_port_speaks_an_older_tls_or_another_protocol() -> Result<()> {
    let (fleet, alice, node) = world()?;
    runtime().block_on(async {
        for (holder, address) in [(&alice, fleet.people()), (&node, fleet.daemons())] {
            let own = || anyhow::Ok(Some((chain(holder)?, own_key(holder)?)));
            let control = showing(holder, own()?, false)?;
            ensure!(!refused(control.clone(), &address).await?, "the control");
            let old = showing(holder, own()?, true)?;
            ensure!(tls(old, &address).await.is_err(), "TLS 1.2 at {address}");
            for protocols in [
                vec![],
                vec![b"http/1.1".to_vec()],
                vec![b"h2c".to_vec(), b"spdy/3".to_vec()],
            ] {
                let mut config = control.clone();
                config.alpn_protocols = protocols.clone();
                ensure!(
                    refused(config, &address).await?,
                    "ALPN {protocols:?} at {address}"
                );
            }
            // Both may be offered; HTTP/2 is what is spoken.
            let mut both = control.clone();
            both.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
            let stream = tls(both, &address).await?;
            ensure!(stream.get_ref().1.alpn_protocol() == Some(b"h2"), "{address}");
            // No resumption: a second connection makes a full handshake, so that revocation is looked at again.
            for _ in 0..2 {
                let stream = tls(control.clone(), &address).await?;
                ensure!(
                    stream.get_ref().1.handshake_kind() != Some(rustls::HandshakeKind::Resumed),
                    "a session was resumed at {address}"
                );
            }
        }
        anyhow::Ok(())
    })?;
    support_presses(&fleet)
}

/// Rubbish behind a good certificate is not looked for a way round it, and a hundred certificates hold up nobody.
#[test]
fn a_chain_of_a_hundred_certificates_holds_up_nobody() -> Result<()> {
    let (fleet, alice, _) = world()?;
    runtime().block_on(async {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Redbutton CA");
        let mut issuers = vec![CertifiedIssuer::self_signed(
            params.clone(),
            KeyPair::generate()?,
        )?];
        for _ in 1..100 {
            let next = CertifiedIssuer::signed_by(
                params.clone(),
                KeyPair::generate()?,
                &issuers[issuers.len() - 1],
            )?;
            issuers.push(next);
        }
        let key = KeyPair::generate()?;
        let leaf = named("redbutton://person/alice")?.signed_by(&key, &issuers[99])?;
        let mut shown = vec![leaf.der().clone()];
        shown.extend(issuers.iter().rev().map(|issuer| issuer.der().clone()));
        let config = showing(&alice, Some((shown, private(&key))), false)?;
        for _ in 0..20 {
            refused_at_both(&fleet, "a hundred", &config).await?;
        }
        // Names without end, in a certificate that nobody has signed.
        let key = KeyPair::generate()?;
        let mut huge = named("redbutton://person/alice")?;
        for number in 0..2_000 {
            huge.subject_alt_names
                .push(SanType::DnsName(format!("host-{number}.example").try_into()?));
        }
        let huge = huge.self_signed(&key)?;
        let config = showing(&alice, Some((vec![huge.der().clone()], private(&key))), false)?;
        refused_at_both(&fleet, "two thousand names", &config).await?;
        anyhow::Ok(())
    })?;
    support_presses(&fleet)
}

/// Health and reflection are calls like any other: nothing of the controller's can be had without a certificate, and
/// whoever has one that names nobody known gets no further than these.
#[test]
fn nothing_is_served_to_nobody() -> Result<()> {
    let (fleet, alice, _) = world()?;
    runtime().block_on(async {
        let nobody = showing(&alice, None, false)?;
        for path in [
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            WHO,
        ] {
            for address in [fleet.people(), fleet.daemons()] {
                let answer = async {
                    let mut http2 = Http2::begin(nobody.clone(), &address).await?;
                    http2.call(request(path).body(())?, &[]).await
                };
                let answer = answer.await;
                ensure!(answer.is_err(), "{path} at {address}: {answer:?}");
            }
        }
        anyhow::Ok(())
    })?;
    support_presses(&fleet)
}
