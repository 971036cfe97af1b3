//! One controller of a bundle: `host:port`, `192.0.2.1:7444`, `[2001:db8::1]:7444`.

use rustls_pki_types::ServerName;

use super::DialError;

#[derive(Debug, Clone)]
pub(super) struct Target {
    /// As in the bundle.
    pub(super) text: String,
    pub(super) host: String,
    pub(super) port: u16,
    /// What its certificate has to be valid for.
    pub(super) name: ServerName<'static>,
}

impl Target {
    pub(super) fn parse(text: &str) -> Result<Self, DialError> {
        let wrong = || DialError::Address(text.chars().take(300).collect());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host)
            .to_owned();
        let port = port.parse().map_err(|_| wrong())?;
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
        Ok(Self {
            text: text.to_owned(),
            host,
            port,
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for (text, host, port) in [
            ("localhost:7444", "localhost", 7444),
            ("192.0.2.1:1", "192.0.2.1", 1),
            ("[2001:db8::1]:7444", "2001:db8::1", 7444),
        ] {
            let target = Target::parse(text).expect(text);
            assert_eq!((target.host.as_str(), target.port), (host, port));
        }
        for text in [
            "",
            "localhost",
            "localhost:",
            ":7444",
            "localhost:70000",
            "a b:1",
            "http://x:1",
        ] {
            let error = Target::parse(text).expect_err(text).to_string();
            assert!(error.contains("not host:port"), "{error}");
        }
    }
}
