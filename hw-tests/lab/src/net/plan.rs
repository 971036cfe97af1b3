//! Who has which address. Segment 0 is the centre, segment i the i-th site; numbers in IPv6 addresses read like the
//! decimal ones of IPv4: 10.77.12.34 is also fd77:12::34.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const PREFIX: u8 = 24;
pub(super) const PREFIX6: u8 = 64;
/// The test's own side, on the tap.
pub(super) const HOST: u8 = 1;
/// The first number that a port gets, and the last.
pub(super) const FIRST: u8 = 11;
pub(super) const LAST: u8 = 250;
/// The router, on every segment; in IPv6 it is `::fe`, which no decimal number looks like.
const ROUTER: u8 = 254;
const ROUTER6: u16 = 0xfe;
/// The router on every link, where IPv6 wants one such address.
pub(super) const ROUTER_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, ROUTER6);
pub(super) const MAX_SITES: usize = 200;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Mac(pub(super) [u8; 6]);

impl Mac {
    pub(super) const BROADCAST: Mac = Mac([0xff; 6]);

    /// Broadcast or multicast.
    pub(super) fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::fmt::Debug for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// 12 becomes 0x12.
fn reads_like(number: u8) -> u16 {
    let n = u16::from(number);
    n / 100 * 0x100 + n / 10 % 10 * 0x10 + n % 10
}

pub(super) fn ip(segment: u8, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, segment, number)
}

pub(super) fn ip6(segment: u8, number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, reads_like(segment), 0, 0, 0, 0, 0, reads_like(number))
}

pub(super) fn mac(segment: u8, number: u8) -> Mac {
    Mac([0x52, 0x54, 0x00, 0x77, segment, number])
}

pub(super) fn router_ip(segment: u8) -> Ipv4Addr {
    ip(segment, ROUTER)
}

pub(super) fn router_ip6(segment: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, reads_like(segment), 0, 0, 0, 0, 0, ROUTER6)
}

pub(super) fn router_mac(segment: u8) -> Mac {
    mac(segment, ROUTER)
}

/// The segment that an address belongs to, of `segments` many.
pub(super) fn segment_of(address: IpAddr, segments: u8) -> Option<u8> {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, segment, _] = v4.octets();
            ((a, b) == (10, 77) && segment < segments).then_some(segment)
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            let segment = (0..segments).find(|segment| reads_like(*segment) == b)?;
            (a == 0xfd77 && c == 0 && d == 0).then_some(segment)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_alike() {
        assert_eq!(ip6(12, 134).to_string(), "fd77:12::134");
        assert_eq!(ip6(0, HOST).to_string(), "fd77::1");
        assert_eq!(router_ip6(200).to_string(), "fd77:200::fe");
        assert_eq!(mac(1, 11).to_string(), "52:54:00:77:01:0b");
    }

    #[test]
    fn each_address_belongs_to_its_own_segment_only() {
        for segment in 0..=200_u8 {
            for address in [IpAddr::V4(ip(segment, 11)), IpAddr::V6(router_ip6(segment))] {
                assert_eq!(segment_of(address, 201), Some(segment));
                assert_eq!(segment_of(address, segment), None);
            }
        }
        for other in [
            "10.78.0.1",
            "127.0.0.1",
            "fd78::1",
            "fd77:0:1::1",
            "fe80::1",
            "fd77:a::1",
        ] {
            assert_eq!(segment_of(other.parse().unwrap(), 201), None, "{other}");
        }
    }
}
