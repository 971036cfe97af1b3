//! Audit heads that nodes kept, as files: what `audit witness` writes and `audit verify --witness` reads.
//!
//! A line a head, JSON: `{"node":"…","name":"n1","site":"princeton","head":"42:HASH","incarnation":1,"at_ms":…,
//! "reported_at_ms":…,"contradicts":false,"statement":"HEX"}`. The statement is the controller's signature with all
//! that is needed to check it; the other fields are for people, and none of them is believed. A line may also be a
//! bare `42:HASH`, written down by hand: it counts, unsigned.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use audit::{Head, Stated};
use prost::Message;
use proto::v1::{self, SignedStatement};
use serde::{Deserialize, Serialize};
use trust::{Kind, Roots};

use crate::failure::Failure;
use crate::view::hex;

/// Longest line, bytes.
const MAX_LINE: u64 = 64 << 10;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) node: String,
    pub(crate) name: String,
    pub(crate) site: String,
    pub(crate) head: String,
    pub(crate) incarnation: u64,
    pub(crate) at_ms: i64,
    pub(crate) reported_at_ms: i64,
    /// Part of a pair that cannot both be true.
    pub(crate) contradicts: bool,
    pub(crate) statement: String,
}

/// What a node has kept, a line each; what is no head is left out.
pub(crate) fn lines(witness: &v1::NodeWitness) -> Vec<Line> {
    let seen = witness.witnessed.clone().unwrap_or_default();
    let pairs = seen
        .contradictions
        .into_iter()
        .flat_map(|pair| [pair.earlier, pair.later])
        .flatten()
        .map(|statement| (statement, true));
    let line = |(statement, contradicts): (SignedStatement, bool)| {
        let stated = Stated::decode(&statement.body).ok()?;
        Some(Line {
            node: witness.node.clone(),
            name: witness.node_name.clone(),
            site: witness.site.clone(),
            head: stated.head.to_string(),
            incarnation: stated.version.incarnation,
            at_ms: stated.at_ms,
            reported_at_ms: witness.reported_at_ms,
            contradicts,
            statement: hex(&statement.encode_to_vec()),
        })
    };
    seen.head
        .into_iter()
        .map(|statement| (statement, false))
        .chain(pairs)
        .filter_map(line)
        .collect()
}

/// Heads from files and from the command line.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    pub(crate) heads: Vec<Head>,
    /// Whose signature was checked.
    pub(crate) signed: usize,
}

/// Reads a file of heads. With `roots` every statement's signature must be right.
///
/// # Errors
/// When a line is none, or is not signed by whom it should be; names the line.
pub(crate) fn read(path: &Path, roots: Option<&Roots>, into: &mut Heads) -> Result<(), Failure> {
    let what = || format!("witness file {}", path.display());
    let failed = |source| Failure::File { what: what(), source };
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let mut text = String::new();
    for number in 1_u64.. {
        text.clear();
        let bad = |why: &str| Failure::Audit(format!("{}, line {number}: {why}", what()));
        let got = file
            .by_ref()
            .take(MAX_LINE + 1)
            .read_line(&mut text)
            .map_err(failed)?;
        if got == 0 {
            break;
        }
        if got as u64 > MAX_LINE {
            return Err(bad("longer than any head"));
        }
        match parse(text.trim(), roots) {
            Ok(None) => {}
            Ok(Some((head, signed))) => {
                into.heads.push(head);
                into.signed += usize::from(signed);
            }
            Err(why) => return Err(bad(&why)),
        }
    }
    Ok(())
}

/// A head, and whether its signature was checked; nothing for an empty line.
fn parse(line: &str, roots: Option<&Roots>) -> Result<Option<(Head, bool)>, String> {
    if line.is_empty() {
        return Ok(None);
    }
    if !line.starts_with('{') {
        return Ok(Some((
            line.parse().map_err(|e: audit::HeadError| e.to_string())?,
            false,
        )));
    }
    let line: Line = serde_json::from_str(line).map_err(|e| format!("not a head: {e}"))?;
    let bytes = unhex(&line.statement).ok_or("its statement is no hexadecimal text")?;
    let statement = SignedStatement::decode(&bytes[..]).map_err(|_| "its statement is malformed")?;
    let body = match roots {
        Some(roots) => trust::verify(&statement, roots, Kind::AuditHead)
            .map_err(|e| format!("not signed by the controller: {e}"))?,
        None => &statement.body,
    };
    let stated = Stated::decode(body).map_err(|e| e.to_string())?;
    // What is shown to people must be what is signed.
    if line.head != stated.head.to_string() {
        return Err(format!(
            "it says {}, its statement says {}",
            line.head, stated.head
        ));
    }
    Ok(Some((stated.head, roots.is_some())))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let digit = |b: u8| char::from(b).to_digit(16);
    pairs
        .iter()
        .map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use audit::Hash;
    use proto::Version;
    use proto::bundle::SecretPem;
    use rcgen::{
        BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
        SanType,
    };
    use trust::Signer;

    fn controller() -> (Roots, Signer) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("randomness");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("a certificate").pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("randomness");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI("redbutton://signer".try_into().expect("ASCII"))];
        let pem = params.signed_by(&key, &issuer).expect("a certificate").pem();
        let signer = Signer::load(&pem, &SecretPem::new(key.serialize_pem())).expect("a signer");
        (Roots::from_pem(&root).expect("a root"), signer)
    }

    fn said(signer: &Signer, sequence: u64) -> SignedStatement {
        let stated = Stated {
            head: Head {
                sequence,
                hash: Hash::new([7; 32]),
            },
            version: Version::default(),
            at_ms: 1,
        };
        signer.sign(Kind::AuditHead, stated.encode())
    }

    #[test]
    fn what_is_written_is_read_and_its_signature_checked() {
        let ((roots, signer), (other, _)) = (controller(), controller());
        let witness = v1::NodeWitness {
            node_name: "n1".into(),
            witnessed: Some(v1::Witnessed {
                head: Some(said(&signer, 42)),
                contradictions: vec![v1::Contradiction {
                    earlier: Some(said(&signer, 9)),
                    later: Some(SignedStatement::default()),
                }],
            }),
            ..v1::NodeWitness::default()
        };
        let lines = lines(&witness);
        assert_eq!(lines.len(), 2, "what is no head is left out");
        assert_eq!(
            lines.iter().map(|line| line.contradicts).collect::<Vec<_>>(),
            [false, true]
        );
        let json = serde_json::to_string(&lines[0]).expect("JSON");
        let (head, signed) = parse(&json, Some(&roots)).expect("signed").expect("a head");
        assert_eq!((head.sequence, signed), (42, true));
        assert_eq!(
            parse(&json, None).expect("unsigned").map(|(_, signed)| signed),
            Some(false)
        );
        let refused = parse(&json, Some(&other)).expect_err("another root");
        assert!(refused.contains("not signed by the controller"), "{refused}");
        let shown = json.replace("\"42:", "\"43:");
        assert!(
            parse(&shown, Some(&roots))
                .expect_err("shown")
                .contains("its statement says 42:")
        );
        let edited = json.replace("0707", "0708");
        assert!(parse(&edited, Some(&roots)).is_err());
        assert_eq!(parse("", None), Ok(None));
        assert!(
            parse(&format!("42:{}", "07".repeat(32)), None)
                .expect("bare")
                .is_some()
        );
    }

    #[test]
    fn reading_a_line_never_panics() {
        for line in ["{", "{}", "42:", ":", "é", "{\"statement\":\"é\"}", "\u{0}"] {
            assert!(parse(line, None).is_err(), "{line:?}");
        }
        assert_eq!(unhex("0aF"), None);
        assert_eq!(unhex("0aFf"), Some(vec![10, 255]));
        assert_eq!(unhex("éé"), None);
    }
}
