use super::*;

fn kit() -> Kit {
    let mut kit = Kit::of("alice".into());
    kit.add(v1::KitPart {
        roots: "roots".into(),
        policy_issued_at_ms: 7,
        exported_at_ms: 9,
        nodes: vec![v1::KitNode {
            id: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".into(),
            name: "n1".into(),
            direct_address: "192.0.2.7:7445".into(),
            ..Default::default()
        }],
    });
    kit
}

const QUIET: Out = Out {
    json: false,
    quiet: true,
};

#[test]
fn a_kit_survives_its_file_and_only_its_owner_reads_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("kit");
    let passphrase = Passphrase::new("correct horse battery");
    write(&path, &kit(), &passphrase, QUIET).expect("written");
    assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
    let back = open(&path, &passphrase).expect("opened");
    assert_eq!(back, kit());
    for node in ["n1", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"] {
        let found = back.find(&node.parse().expect("a node")).expect(node);
        assert_eq!(found.address().expect("known").to_string(), "192.0.2.7:7445");
    }
    assert!(back.find(&"n2".parse().expect("a node")).is_none());
    let wrong = open(&path, &Passphrase::new("wrong horse battery")).expect_err("wrong");
    assert!(wrong.next().contains("passphrase again"), "{wrong:?}");
    assert!(!format!("{passphrase:?} {wrong:?} {wrong}").contains("horse"));
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("set");
    assert!(matches!(
        open(&path, &passphrase),
        Err(KitError::Open { mode: 0o644, .. })
    ));
}

#[test]
fn what_is_no_kit_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let passphrase = Passphrase::new("correct horse battery");
    let missing = open(&dir.path().join("none"), &passphrase).expect_err("missing");
    assert!(missing.next().contains("kit export"), "{missing:?}");
    let path = dir.path().join("kit");
    bundle::write_private_bytes(&path, b"something else").expect("written");
    assert!(matches!(open(&path, &passphrase), Err(KitError::Sealed { .. })));
    let mut newer = kit();
    newer.format = 2;
    write(&path, &newer, &passphrase, QUIET).expect("written");
    assert!(matches!(
        open(&path, &passphrase),
        Err(KitError::Format { got: 2, .. })
    ));
}
