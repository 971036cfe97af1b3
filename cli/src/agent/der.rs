//! An ECDSA signature as X.509 and TLS want it: SEQUENCE { INTEGER r, INTEGER s } (RFC 3279 §2.2.3).

/// From two positive numbers, big-endian, at most 33 bytes each.
pub(super) fn signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    let (r, s) = (integer(r), integer(s));
    // Two integers of at most 35 bytes: every length fits into one byte.
    let mut der = vec![0x30, short(r.len() + s.len())];
    der.extend(r);
    der.extend(s);
    der
}

fn integer(number: &[u8]) -> Vec<u8> {
    let significant = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    let digits = number.get(significant..).unwrap_or_default();
    // Positive: a leading bit would be a sign. Zero has one digit.
    let pad = digits.first().is_none_or(|first| first & 0x80 != 0);
    let mut der = vec![0x02, short(digits.len() + usize::from(pad))];
    if pad {
        der.push(0);
    }
    der.extend_from_slice(digits);
    der
}

fn short(len: usize) -> u8 {
    u8::try_from(len)
        .ok()
        .filter(|len| *len < 0x80)
        .expect("two numbers of P-256")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_positive() {
        assert_eq!(integer(&[0x00, 0x01]), [0x02, 1, 0x01]);
        assert_eq!(integer(&[0x80]), [0x02, 2, 0x00, 0x80]);
        assert_eq!(integer(&[0x00, 0x80]), [0x02, 2, 0x00, 0x80]);
        assert_eq!(integer(&[]), [0x02, 1, 0x00]);
        assert_eq!(signature(&[1], &[2]), [0x30, 6, 0x02, 1, 1, 0x02, 1, 2]);
        assert_eq!(signature(&[0xff; 33], &[0xff; 33]).len(), 2 + 2 * 36);
    }
}
