//! The connection to a controller: mutual TLS with what the bundle carries, and what can go wrong on the way.
//!
//! Each attempt dials anew: a channel that reconnects by itself would hide from us whether a press was sent.
//! TLS is our own connector's and not tonic's, which takes a key only as a text: ours may be in an ssh-agent.
//! A certificate that has ended is renewed before dialling (`renew.rs`).

mod direct;
mod probe;
mod renew;
mod trouble;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::v1;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

pub(crate) use direct::{OnlyNode, OtherNode, Wanted};
pub(crate) use trouble::{ConnectError, Trouble};

use crate::args::Address;
use crate::credentials::Credentials;
use crate::failure::Failure;
use crate::when::Time;
use probe::Probe;

/// Largest answer that we accept. The contract's bound holds for one message of a node; the first event of an
/// order over thousands of nodes comes from our own, authenticated controller and may be larger.
const MAX_REPLY_BYTES: usize = 64 << 20;

/// Whom to dial, as whom.
pub(crate) struct Dialer {
    addresses: Vec<Address>,
    server_name: Option<String>,
    own: Mutex<Credentials>,
    /// Where the bundle lies, if it may be renewed there.
    path: Option<PathBuf>,
    /// The node that is dialled itself.
    node: Option<String>,
}

/// A connection to one controller.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    address: Address,
    name: String,
    probe: Probe,
    timeout: Duration,
    /// It is a node, not a controller.
    direct: bool,
}

impl Dialer {
    /// Takes the bundle's credentials and its addresses, or the one address that was asked for.
    pub(crate) fn new(
        own: Credentials,
        path: Option<PathBuf>,
        controller: Option<Address>,
        server_name: Option<String>,
    ) -> Result<Self, Failure> {
        let addresses = match controller {
            Some(address) => vec![address],
            None => own
                .bundle
                .controllers
                .iter()
                .map(|text| {
                    text.parse::<Address>()
                        .map_err(|e| Failure::Usage(format!("bundle: controller {e}")))
                })
                .collect::<Result<_, _>>()?,
        };
        Ok(Self {
            addresses,
            server_name,
            own: Mutex::new(own),
            path,
            node: None,
        })
    }

    /// Dials a node itself. `own` insists on that node ([`Credentials::toward`]), and nothing is renewed there.
    pub(crate) fn direct(own: Credentials, address: Address, node: String) -> Self {
        Self {
            addresses: vec![address],
            server_name: Some(node.clone()),
            own: Mutex::new(own),
            path: None,
            node: Some(node),
        }
    }

    fn own(&self) -> MutexGuard<'_, Credentials> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Dials the controllers in their order until one answers; each gets its share of the time that is left.
    /// `call` bounds each later call on the connection.
    pub(crate) async fn connect(&self, deadline: Instant, call: Duration) -> Result<Client, ConnectError> {
        if self.node.is_none() && self.own().validity.has_ended(Time::now().0) {
            match self.renew(deadline, call).await {
                Err(Failure::Status { status }) if status.code() == tonic::Code::PermissionDenied => {
                    let address = self
                        .addresses
                        .first()
                        .map(ToString::to_string)
                        .unwrap_or_default();
                    let trouble = Trouble::NotRenewed(status.message().to_owned());
                    return Err(ConnectError::new(vec![(address, trouble)], None));
                }
                // Anything else is told by what comes next.
                _ => {}
            }
        }
        self.connect_as_we_are(deadline, call).await
    }

    async fn connect_as_we_are(&self, deadline: Instant, call: Duration) -> Result<Client, ConnectError> {
        let tls = self.own().tls.clone();
        let mut tried = Vec::new();
        for (done, address) in self.addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let waiting = u32::try_from(self.addresses.len() - done).unwrap_or(1);
            let name = self.server_name.clone().unwrap_or_else(|| address.host.clone());
            let probe = Probe::new(tls.clone());
            match dial(tls.clone(), address, &name, Instant::now() + left / waiting).await {
                Ok(channel) => {
                    return Ok(Client {
                        channel,
                        address: address.clone(),
                        name,
                        probe,
                        timeout: call,
                        direct: self.node.is_some(),
                    });
                }
                Err(trouble) => {
                    let trouble = explain(&probe, address, &name, trouble).await;
                    tried.push((address.to_string(), trouble));
                }
            }
        }
        Err(ConnectError::new(tried, self.node.clone()))
    }
}

async fn dial(
    tls: Arc<ClientConfig>,
    address: &Address,
    name: &str,
    deadline: Instant,
) -> Result<Channel, Trouble> {
    let origin = format!("https://{address}");
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Trouble::of(&error))?
        .origin(origin.parse().map_err(|_| Trouble::WrongName)?)
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    let name = ServerName::try_from(name.to_owned()).map_err(|_| Trouble::WrongName)?;
    let (address, tls) = (address.clone(), TlsConnector::from(tls));
    let connector = tower::service_fn(move |_: http::Uri| {
        let (address, tls, name) = (address.clone(), tls.clone(), name.clone());
        async move {
            let wire = TcpStream::connect((address.host.as_str(), address.port)).await?;
            wire.set_nodelay(true)?;
            let stream = tls.connect(name, wire).await?;
            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it does not speak HTTP/2",
                ));
            }
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    match timeout_at(deadline, endpoint.connect_with_connector(connector)).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(Trouble::of(&error)),
        Err(_) => Err(Trouble::TooLate),
    }
}

macro_rules! services {
    ($($method:ident: $module:ident :: $client:ident),* $(,)?) => {
        impl Client {
            $(
                /// A client of the service.
                pub(crate) fn $method(&self) -> v1::$module::$client<Channel> {
                    v1::$module::$client::new(self.channel.clone()).max_decoding_message_size(MAX_REPLY_BYTES)
                }
            )*
        }
    };
}

services! {
    access: access_client::AccessClient,
    approvals: approvals_client::ApprovalsClient,
    audit: audit_client::AuditClient,
    direct: direct_client::DirectClient,
    enrol: enrol_client::EnrolClient,
    kits: kits_client::KitsClient,
    nodes: nodes_client::NodesClient,
    orders: orders_client::OrdersClient,
    people: people_client::PeopleClient,
    rollouts: rollouts_client::RolloutsClient,
    sites: sites_client::SitesClient,
    slices: slices_client::SlicesClient,
}

impl Client {
    /// How long a call may take.
    pub(crate) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The same connection with another bound on each call.
    pub(crate) fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Waits for the answer of one call, at most as long as `--timeout` says. A stream's messages are not bounded.
    pub(crate) async fn call<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => match failure(doing, status) {
                Failure::Broken { doing, trouble } => {
                    let trouble = explain(&self.probe, &self.address, &self.name, trouble).await;
                    let trouble = if self.direct { trouble.at_node() } else { trouble };
                    Err(Failure::Broken { doing, trouble })
                }
                failure => Err(failure),
            },
            Err(_) => Err(Failure::Broken {
                doing: doing.to_owned(),
                trouble: Trouble::TooLate,
            }),
        }
    }
}

/// A connection that was cut may have been cut because we are not trusted: asks.
async fn explain(probe: &Probe, address: &Address, name: &str, trouble: Trouble) -> Trouble {
    match &trouble {
        Trouble::Network(_) => probe.ask(address, name).await.unwrap_or(trouble),
        _ => trouble,
    }
}

/// Sorts an error of a call: said by the controller, or made by the connection on the way.
pub(crate) fn failure(doing: &str, status: Status) -> Failure {
    match std::error::Error::source(&status) {
        Some(_) => Failure::Broken {
            doing: doing.to_owned(),
            trouble: Trouble::of(&status),
        },
        None => Failure::Status {
            status: Box::new(status),
        },
    }
}
