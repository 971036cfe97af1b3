//! An audit export of release 0.1.0 (commit c157691), made by its programs. DO NOT CHANGE THIS TEST nor its file.

use audit::verify_lines;

const FILE: &str = include_str!("golden/0.1.0/audit.jsonl");

#[test]
fn an_export_of_0_1_0_verifies_to_its_head() {
    let verified = verify_lines(FILE.as_bytes(), None, &[]).expect("0.1.0 wrote it");
    assert_eq!(verified.head.sequence, 22);
    assert_eq!(
        verified.head.hash.to_string(),
        "1caadb5dcc451baf15c8db7ae4d2b13d866cc50051097210f282cc3435f1d9a6"
    );
    let forged = FILE.replacen("\"pat\"", "\"tap\"", 1);
    assert!(verify_lines(forged.as_bytes(), None, &[]).is_err());
}
