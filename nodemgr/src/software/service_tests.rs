//! What may come in and what may not; real signatures, real files, real programs (shell scripts).

use std::os::unix::fs::PermissionsExt;

use proto::bundle::SecretPem;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType,
};
use sha2::{Digest, Sha256};
use tonic::Code;
use trust::Signer;

use super::*;

struct World {
    dir: tempfile::TempDir,
    signer: Signer,
    updates: Updates,
    shutdown: CancellationToken,
}

fn authority() -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("randomness");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).expect("a certificate").pem();
    (pem, Issuer::new(params, key))
}

fn signer(issuer: &Issuer<'static, KeyPair>) -> Signer {
    let key = KeyPair::generate_for(&PKCS_ED25519).expect("randomness");
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI("redbutton://signer".try_into().expect("ASCII"))];
    let pem = params.signed_by(&key, issuer).expect("a certificate").pem();
    Signer::load(&pem, &SecretPem::new(key.serialize_pem())).expect("a signer")
}

fn world(refused: &str) -> World {
    let dir = tempfile::tempdir().expect("a folder");
    let (pem, issuer) = authority();
    let shutdown = CancellationToken::new();
    let updates = Updates::new(Setup {
        state_dir: dir.path().to_owned(),
        config_file: "/etc/redbutton/nodemgr.toml".into(),
        refused: refused.into(),
        roots: Arc::new(std::sync::RwLock::new(Roots::from_pem(&pem).expect("a root"))),
        shutdown: shutdown.clone(),
    })
    .expect("threads");
    World {
        dir,
        signer: signer(&issuer),
        updates,
        shutdown,
    }
}

/// A program that says it is this version.
fn program(version: &str) -> Vec<u8> {
    format!("#!/bin/sh\n[ \"$1\" = --version ] && echo redbutton-nodemgr {version}\nexit 0\n").into_bytes()
}

fn manifest(bytes: &[u8], version: &str, epoch: u64) -> v1::Manifest {
    v1::Manifest {
        name: NAME.into(),
        version: version.into(),
        sha256: Sha256::digest(bytes).to_vec(),
        size: bytes.len() as u64,
        architecture: std::env::consts::ARCH.into(),
        decided: Some(v1::Version {
            incarnation: 1,
            epoch,
        }),
    }
}

impl World {
    async fn offer(&self, manifest: &v1::Manifest) -> Result<u64, Status> {
        self.offer_signed(self.signer.sign(Kind::Software, manifest.encode_to_vec()))
            .await
    }

    async fn offer_signed(&self, statement: v1::SignedStatement) -> Result<u64, Status> {
        let request = v1::OfferSoftwareRequest {
            manifest: Some(statement),
        };
        Ok(self.updates.offer(Request::new(request)).await?.into_inner().have)
    }

    async fn chunk(&self, sha256: &[u8], offset: u64, data: &[u8]) -> Result<u64, Status> {
        let request = v1::SoftwareChunk {
            sha256: sha256.into(),
            offset,
            data: data.into(),
        };
        Ok(self.updates.chunk(Request::new(request)).await?.into_inner().have)
    }

    async fn activate(&self, sha256: &[u8]) -> Result<SoftwareState, Status> {
        let request = v1::ActivateSoftwareRequest {
            sha256: sha256.into(),
            deadline_ms: 60_000,
        };
        Ok(self.updates.activate(Request::new(request)).await?.into_inner())
    }
}

#[tokio::test]
async fn a_signed_program_comes_in_is_tried_and_takes_over() {
    let world = world("");
    let bytes = program("0.2.0");
    let manifest = manifest(&bytes, "0.2.0", 3);
    assert_eq!(world.offer(&manifest).await.expect("signed"), 0);
    let (first, second) = bytes.split_at(20);
    assert_eq!(world.chunk(&manifest.sha256, 0, first).await.expect("first"), 20);
    assert_eq!(world.offer(&manifest).await.expect("again"), 20);
    let have = world.chunk(&manifest.sha256, 20, second).await.expect("rest");
    assert_eq!(have, manifest.size);
    let state = world.activate(&manifest.sha256).await.expect("good");
    assert!(
        state.trial && state.attempt == 1 && state.left_why.is_empty(),
        "{state:?}"
    );
    world.shutdown.cancelled().await;

    // What the launcher of the next process reads.
    let ledger = Place::below(world.dir.path()).read().expect("on disk");
    let current = ledger.current.expect("the new one");
    assert_eq!(current.sha256, hex(&manifest.sha256));
    // A later decision was obeyed: an earlier one, however well signed, is not any more.
    let mut old = manifest.clone();
    old.decided = Some(v1::Version {
        incarnation: 1,
        epoch: 2,
    });
    let refused = world.offer(&old).await.expect_err("old");
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn what_the_signer_did_not_name_never_comes_in() {
    let world = world("");
    let bytes = program("0.2.0");
    let good = manifest(&bytes, "0.2.0", 1);
    let foreign = signer(&authority().1).sign(Kind::Software, good.encode_to_vec());
    let other_kind = world.signer.sign(Kind::Policy, good.encode_to_vec());
    let mut edited = world.signer.sign(Kind::Software, good.encode_to_vec());
    edited.body[30] ^= 1;
    for statement in [foreign, other_kind, edited, v1::SignedStatement::default()] {
        let refused = world.offer_signed(statement).await.expect_err("not signed");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
    let wrong = [
        v1::Manifest {
            name: "redbutton-controller".into(),
            ..good.clone()
        },
        v1::Manifest {
            architecture: "sparc64".into(),
            ..good.clone()
        },
        v1::Manifest {
            version: "0.2.0\n".into(),
            ..good.clone()
        },
        v1::Manifest {
            version: String::new(),
            ..good.clone()
        },
        v1::Manifest {
            sha256: vec![1; 31],
            ..good.clone()
        },
        v1::Manifest {
            size: 0,
            ..good.clone()
        },
        v1::Manifest {
            size: MAX_SIZE + 1,
            ..good.clone()
        },
    ];
    for manifest in wrong {
        let refused = world.offer(&manifest).await.expect_err("malformed");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
    // Not offered: neither bytes nor a switch.
    let refused = world
        .chunk(&good.sha256, 0, &bytes)
        .await
        .expect_err("not offered");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(
        world
            .activate(&good.sha256)
            .await
            .expect_err("not offered")
            .code(),
        Code::FailedPrecondition
    );
    // Offered, and other bytes come.
    world.offer(&good).await.expect("signed");
    let mut evil = bytes.clone();
    evil[15] ^= 1;
    let refused = world
        .chunk(&good.sha256, 0, &evil)
        .await
        .expect_err("other bytes");
    assert!(refused.message().contains("SHA-256"), "{refused}");
    assert!(world.activate(&good.sha256).await.is_err());
    for data in [vec![], vec![0; MAX_CHUNK + 1]] {
        let refused = world.chunk(&good.sha256, 0, &data).await.expect_err("its size");
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    assert!(!world.shutdown.is_cancelled());
}

#[tokio::test]
async fn a_program_that_does_not_work_here_is_not_switched_to() {
    let world = world("");
    for (bytes, says) in [
        (b"#!/bin/sh\nexit 1\n".to_vec(), "ended with"),
        (program("0.9.0"), "calls itself"),
        (b"\x7fELF but not really".to_vec(), "trying it"),
    ] {
        let manifest = manifest(&bytes, "0.2.0", 1);
        world.offer(&manifest).await.expect("signed");
        world.chunk(&manifest.sha256, 0, &bytes).await.expect("whole");
        let refused = world
            .activate(&manifest.sha256)
            .await
            .expect_err("it does not work");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains(says), "{refused}");
        let there = Place::below(world.dir.path()).program(&hex(&manifest.sha256));
        let mode = std::fs::metadata(there).expect("kept").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
    assert!(!world.shutdown.is_cancelled());
    assert_eq!(
        Place::below(world.dir.path()).read().expect("none"),
        Ledger::default()
    );
}

#[tokio::test]
async fn where_nobody_starts_it_again_nothing_is_changed() {
    let world = world("nobody starts it again");
    let refused = world
        .offer(&manifest(b"x", "0.2.0", 1))
        .await
        .expect_err("refused");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::FailedPrecondition, "nobody starts it again")
    );
    assert_eq!(Updates::state(&world.updates).refused, "nobody starts it again");
    assert!(world.activate(&[1; 32]).await.is_err());
}

#[test]
fn hexadecimal_goes_there_and_back() {
    assert_eq!(unhex(&hex(&[0, 1, 0xab, 0xff])), [0, 1, 0xab, 0xff]);
    assert!(unhex("").is_empty());
}
