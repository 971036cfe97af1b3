//! What goes wrong between here and a controller, sorted by what a person can do about it.

use std::error::Error;
use std::fmt::Write as _;
use std::io;

use rustls::CertificateError;

use super::OtherNode;

/// Why a connection could not be made, or broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// Nothing came in time.
    #[error("no answer in time")]
    TooLate,
    /// The network, the name service, or nobody listens.
    #[error("{0}")]
    Network(String),
    /// The controller's certificate is not of the bundle's CA: a stale bundle, or not our controller.
    #[error("its certificate is not signed by the CA in the bundle")]
    WrongCa,
    /// The controller's certificate does not carry the name that was dialled.
    #[error("its certificate is for another name than the one dialled")]
    WrongName,
    /// The controller's certificate has run out (or our clock is wrong).
    #[error("its certificate is not valid now")]
    ControllerExpired,
    /// Our certificate has run out.
    #[error("your certificate has expired")]
    Expired,
    /// Our certificate has run out, and the controller gives us no other.
    #[error("your certificate has expired and is not renewed: {0}")]
    NotRenewed(String),
    /// Our certificate has run out, and a node renews none.
    #[error("your certificate has expired, and only the controller renews it")]
    ExpiredAtNode,
    /// The node's certificate is another's.
    #[error("{0}")]
    OtherNode(String),
    /// The controller does not accept our certificate.
    #[error("it does not accept your certificate ({0})")]
    NotAccepted(String),
    /// Some other fault of TLS.
    #[error("TLS: {0}")]
    Tls(String),
}

impl Trouble {
    /// Sorts an error by looking through all its causes.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut last = error.to_string();
        let mut cause = Some(error);
        while let Some(this) = cause {
            if let Some(trouble) = of_tls(this).or_else(|| this.downcast_ref::<io::Error>().and_then(of_io)) {
                return trouble;
            }
            last = this.to_string();
            // HTTP/2 keeps only the text of what broke the connection under it.
            if let Some((_, alert)) = last.split_once("received fatal alert: ") {
                return of_alert(alert);
            }
            cause = this.source();
        }
        Trouble::Network(last)
    }

    /// For programs.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Trouble::TooLate => "timeout",
            Trouble::Network(_) => "unreachable",
            Trouble::WrongCa => "wrong-ca",
            Trouble::WrongName => "wrong-name",
            Trouble::ControllerExpired => "controller-certificate-expired",
            Trouble::Expired | Trouble::NotRenewed(_) | Trouble::ExpiredAtNode => "certificate-expired",
            Trouble::OtherNode(_) => "other-node",
            Trouble::NotAccepted(_) => "certificate-not-accepted",
            Trouble::Tls(_) => "tls",
        }
    }

    /// Whether trying again may help.
    pub(crate) const fn may_pass(&self) -> bool {
        matches!(self, Trouble::TooLate | Trouble::Network(_))
    }

    /// As it is to be told when the other end is a node.
    pub(crate) fn at_node(self) -> Self {
        match self {
            Trouble::Expired => Trouble::ExpiredAtNode,
            Trouble::WrongName => Trouble::OtherNode(
                "its certificate is for another node than the one that was asked for".to_owned(),
            ),
            other => other,
        }
    }

    /// What to do about it.
    pub(crate) fn next(&self) -> String {
        match self {
            Trouble::TooLate | Trouble::Network(_) => {
                "check that the controller runs and that this machine reaches it; --controller HOST:PORT dials another"
            }
            Trouble::WrongCa => {
                "the bundle is stale or this is not your controller: ask support for an invite (redbutton invite NAME)"
            }
            Trouble::ExpiredAtNode => {
                "a breakglass bundle is good without the controller: --bundle FILE; `redbutton breakglass request` begins one, beforehand"
            }
            Trouble::OtherNode(_) => "check the address: --direct NODE@HOST names both; `redbutton kit show` lists them",
            Trouble::WrongName => "dial the name that the certificate carries, or pass --server-name NAME",
            Trouble::ControllerExpired => "check this machine's clock; otherwise the controller needs a new certificate",
            Trouble::NotRenewed(_) => "ask support for an invite (redbutton invite NAME), then redbutton login FILE",
            Trouble::Expired | Trouble::NotAccepted(_) => {
                "redbutton login renews a certificate that ended less than 30 days ago; otherwise ask support for an invite (redbutton invite NAME)"
            }
            Trouble::Tls(_) => "check that HOST:PORT is the controller's port for people (7443)",
        }
        .to_owned()
    }
}

fn of_io(error: &io::Error) -> Option<Trouble> {
    if let Some(trouble) = error.get_ref().and_then(|inner| of_tls(inner)) {
        return Some(trouble);
    }
    if error.kind() == io::ErrorKind::Other {
        // A wrapper; what it wraps comes next.
        return None;
    }
    Some(Trouble::Network(match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
            "the connection was cut".to_owned()
        }
        _ => error.to_string(),
    }))
}

fn of_tls(error: &(dyn Error + 'static)) -> Option<Trouble> {
    use CertificateError as C;
    let error = error.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            C::UnknownIssuer | C::BadSignature => Trouble::WrongCa,
            C::NotValidForName | C::NotValidForNameContext { .. } => Trouble::WrongName,
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. } => {
                Trouble::ControllerExpired
            }
            C::Other(other) if other.0.is::<OtherNode>() => Trouble::OtherNode(other.0.to_string()),
            other => Trouble::Tls(other.to_string()),
        },
        rustls::Error::AlertReceived(alert) => of_alert(&format!("{alert:?}")),
        other => Trouble::Tls(other.to_string()),
    })
}

fn of_alert(alert: &str) -> Trouble {
    let word: String = alert.chars().take_while(char::is_ascii_alphanumeric).collect();
    match word.as_str() {
        "CertificateExpired" => Trouble::Expired,
        "BadCertificate"
        | "UnsupportedCertificate"
        | "CertificateRevoked"
        | "CertificateUnknown"
        | "UnknownCA"
        | "UnknownCa"
        | "AccessDenied"
        | "CertificateRequired"
        | "DecryptError" => Trouble::NotAccepted(word),
        _ => Trouble::Tls(format!("the controller ended the handshake: {word}")),
    }
}

/// No controller could be reached.
#[derive(Debug, thiserror::Error)]
#[error("{}", told(.tried, .node.as_deref()))]
pub(crate) struct ConnectError {
    /// Each address with what was wrong.
    tried: Vec<(String, Trouble)>,
    /// The node that was dialled itself.
    node: Option<String>,
}

fn told(tried: &[(String, Trouble)], node: Option<&str>) -> String {
    let mut text = match node {
        None => "cannot reach the controller".to_owned(),
        Some(node) => format!("cannot reach node {node} at"),
    };
    for (at, (address, trouble)) in tried.iter().enumerate() {
        let _ = write!(text, "{} {address}: {trouble}", if at == 0 { "" } else { ";" });
    }
    text
}

impl ConnectError {
    pub(crate) fn new(tried: Vec<(String, Trouble)>, node: Option<String>) -> Self {
        let at_node = |(address, trouble): (String, Trouble)| (address, trouble.at_node());
        Self {
            tried: match &node {
                None => tried,
                Some(_) => tried.into_iter().map(at_node).collect(),
            },
            node,
        }
    }

    /// The fault that says most: one of trust before one of the network.
    fn main(&self) -> Option<&Trouble> {
        let trust = self.tried.iter().find(|(_, trouble)| !trouble.may_pass());
        trust.or(self.tried.first()).map(|(_, trouble)| trouble)
    }

    pub(crate) fn code(&self) -> &'static str {
        self.main().map_or("unreachable", Trouble::code)
    }

    pub(crate) fn next(&self) -> String {
        match (self.main().unwrap_or(&Trouble::TooLate), &self.node) {
            (Trouble::TooLate | Trouble::Network(_), Some(node)) => format!(
                "check that the node runs and that this machine reaches it; --direct {node}@HOST:PORT dials another address"
            ),
            (trouble, _) => trouble.next(),
        }
    }

    /// Whether trying again may help.
    pub(crate) fn may_pass(&self) -> bool {
        self.tried.iter().any(|(_, trouble)| trouble.may_pass())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fault_of_trust_is_told_before_the_network() {
        let error = ConnectError::new(
            vec![
                ("a:7443".into(), Trouble::Network("connection refused".into())),
                ("b:7443".into(), Trouble::WrongCa),
            ],
            None,
        );
        assert_eq!(error.code(), "wrong-ca");
        assert_eq!(
            error.to_string(),
            "cannot reach the controller a:7443: connection refused; b:7443: its certificate is not signed by the CA in the bundle"
        );
    }

    #[test]
    fn alerts_survive_as_text() {
        let wrapped = io::Error::other("connection error: received fatal alert: CertificateExpired (x)");
        assert_eq!(Trouble::of(&wrapped), Trouble::Expired);
        let wrapped = io::Error::other("received fatal alert: UnknownCA");
        assert_eq!(Trouble::of(&wrapped), Trouble::NotAccepted("UnknownCA".into()));
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(
            Trouble::of(&refused),
            Trouble::Network("connection refused".into())
        );
    }
}
