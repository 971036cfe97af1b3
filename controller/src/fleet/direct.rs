//! Where people reach a node without us, as far as we can tell: what the node says, made whole. Pure.

use std::net::{IpAddr, SocketAddr};

use proto::NodeName;

/// `HOST:PORT`; empty: the node listens nowhere, or says nothing that could be dialled. `from`: where it dialled us
/// from.
pub(crate) fn address(said: &str, from: Option<IpAddr>, name: &NodeName) -> String {
    if let Some(port) = said.strip_prefix(':') {
        let Some(port) = port.parse::<u16>().ok().filter(|port| *port > 0) else {
            return String::new();
        };
        return match from {
            Some(ip) => SocketAddr::new(ip.to_canonical(), port).to_string(),
            // It is away and we have not seen it since our start: its name is all there is.
            None => format!("{name}:{port}"),
        };
    }
    if let Ok(address) = said.parse::<SocketAddr>() {
        return if address.port() > 0 {
            said.to_owned()
        } else {
            String::new()
        };
    }
    match said.rsplit_once(':') {
        Some((host, port))
            if host.parse::<NodeName>().is_ok() && port.parse().is_ok_and(|port: u16| port > 0) =>
        {
            said.to_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(said: &str, from: Option<&str>) -> String {
        let from = from.map(|ip| ip.parse().expect("an address"));
        address(said, from, &"node7.example.org".parse().expect("valid"))
    }

    #[test]
    fn what_a_node_says_is_made_whole() {
        assert_eq!(of(":7445", Some("192.0.2.7")), "192.0.2.7:7445");
        assert_eq!(of(":7445", Some("::ffff:192.0.2.7")), "192.0.2.7:7445");
        assert_eq!(of(":7445", Some("2001:db8::7")), "[2001:db8::7]:7445");
        assert_eq!(of(":7445", None), "node7.example.org:7445");
        assert_eq!(of("10.0.0.7:1", Some("192.0.2.7")), "10.0.0.7:1");
        assert_eq!(of("gate.example.org:9", None), "gate.example.org:9");
        for bad in [
            "",
            ":",
            ":0",
            ":x",
            "x:0",
            "a b:1",
            "-x:1",
            "host",
            "../x:1",
            "\u{1b}[2J:1",
        ] {
            assert_eq!(of(bad, Some("192.0.2.7")), "", "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn reading_an_address_never_panics(said in ".{0,80}") {
            let whole = of(&said, None);
            prop_assert!(whole.is_empty() || whole.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()));
        }
    }
}
