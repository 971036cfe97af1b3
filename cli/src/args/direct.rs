//! `--direct NODE[@HOST[:PORT]]`, kits and breakglass.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use proto::{DIRECT_PORT, PEOPLE_PORT};

use super::values::{Address, NodeRef};

/// A node, and where it is if that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectTarget {
    /// Its certificate must be this node's.
    pub node: NodeRef,
    /// Where to dial.
    pub address: Option<Address>,
}

impl FromStr for DirectTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (node, address) = match text.split_once('@') {
            Some((node, address)) => (node, Some(address)),
            None => (text, None),
        };
        let node = node.parse::<NodeRef>().map_err(|e| e.to_string())?;
        let address = match address {
            None => None,
            Some(address) => Some(with_port(address)?),
        };
        Ok(Self { node, address })
    }
}

/// An address whose port is a node's unless it says another.
pub(crate) fn with_port(text: &str) -> Result<Address, String> {
    let mut address = text.parse::<Address>().map_err(|e| e.to_string())?;
    let says_it = text.ends_with(&format!(":{PEOPLE_PORT}"));
    if address.port == PEOPLE_PORT && !says_it {
        address.port = DIRECT_PORT;
    }
    Ok(address)
}

/// `redbutton breakglass …`
#[derive(Debug, Subcommand)]
pub enum BreakglassCommand {
    /// Make a key, which stays here, and a request for its certificate
    Request {
        /// Where the bundle will be. The key waits in FILE.pending, the request is FILE.request
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
    },
    /// Put the certificate that came back and the key that waits together
    Accept {
        /// As `issue breakglass` made it of the request
        certificate: PathBuf,
        /// As in `breakglass request`
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
    },
}

/// `redbutton kit …`
#[derive(Debug, Subcommand)]
pub enum KitCommand {
    /// Fetch the kit, or refresh it: the nodes on which you may act, encrypted with a passphrase
    Export(KitExport),
    /// Show what is in the kit
    Show,
}

/// `redbutton kit export …`
#[derive(Debug, Args)]
pub struct KitExport {
    /// Where it goes [default: ~/.config/redbutton/kit]
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_and_may_be_located() {
        let parse = |text: &str| text.parse::<DirectTarget>();
        let located = parse("n1.example.org@192.0.2.7").expect("good");
        assert_eq!(located.node.to_string(), "n1.example.org");
        assert_eq!(located.address.expect("located").to_string(), "192.0.2.7:7445");
        for (text, address) in [
            ("n1@host:9", "host:9"),
            ("n1@host:7443", "host:7443"),
            ("n1@[2001:db8::7]", "[2001:db8::7]:7445"),
            ("n1@[2001:db8::7]:7443", "[2001:db8::7]:7443"),
            ("n1@2001:db8::7", "[2001:db8::7]:7445"),
        ] {
            assert_eq!(parse(text).expect(text).address.expect(text).to_string(), address);
        }
        assert_eq!(parse("n1").expect("good").address, None);
        assert!(parse("6ba7b810-9dad-11d1-80b4-00c04fd430c8").is_ok());
        for bad in ["", "@host", "N 1", "n1@", "n1@host:0", "n1@a b"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
