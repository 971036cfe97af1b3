//! The connection to a controller: mutual TLS with what the bundle carries, and what can go wrong on the way.
//!
//! Each attempt dials anew: a channel that reconnects by itself would hide from us whether a press was sent.

mod probe;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use proto::bundle::Bundle;
use proto::v1;
use tokio::time::{Instant, timeout_at};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Response, Status};

pub(crate) use trouble::{ConnectError, Trouble};

use crate::args::Address;
use crate::failure::Failure;
use probe::Probe;

/// Largest answer that we accept. The contract's bound holds for one message of a node; the first event of an
/// order over thousands of nodes comes from our own, authenticated controller and may be larger.
const MAX_REPLY_BYTES: usize = 64 << 20;

/// Whom to dial, as whom.
pub(crate) struct Dialer {
    addresses: Vec<Address>,
    tls: ClientTlsConfig,
    server_name: Option<String>,
    probe: Option<Arc<Probe>>,
}

/// A connection to one controller.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    address: Address,
    name: String,
    probe: Option<Arc<Probe>>,
    timeout: Duration,
}

impl Dialer {
    /// Takes the bundle's credentials and its addresses, or the one address that was asked for.
    pub(crate) fn new(
        bundle: &Bundle,
        controller: Option<Address>,
        server_name: Option<String>,
    ) -> Result<Self, Failure> {
        let addresses = match controller {
            Some(address) => vec![address],
            None => bundle
                .controllers
                .iter()
                .map(|text| {
                    text.parse::<Address>()
                        .map_err(|e| Failure::Usage(format!("bundle: controller {e}")))
                })
                .collect::<Result<_, _>>()?,
        };
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&bundle.ca))
            .identity(Identity::from_pem(&bundle.certificate, bundle.key.expose()));
        Ok(Self {
            addresses,
            tls,
            server_name,
            probe: Probe::new(bundle).map(Arc::new),
        })
    }

    /// Dials the controllers in their order until one answers; each gets its share of the time that is left.
    /// `call` bounds each later call on the connection.
    pub(crate) async fn connect(&self, deadline: Instant, call: Duration) -> Result<Client, ConnectError> {
        let mut tried = Vec::new();
        for (done, address) in self.addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let waiting = u32::try_from(self.addresses.len() - done).unwrap_or(1);
            let name = self.server_name.clone().unwrap_or_else(|| address.host.clone());
            match self.dial(address, &name, Instant::now() + left / waiting).await {
                Ok(channel) => {
                    return Ok(Client {
                        channel,
                        address: address.clone(),
                        name,
                        probe: self.probe.clone(),
                        timeout: call,
                    });
                }
                Err(trouble) => {
                    let trouble = explain(self.probe.as_deref(), address, &name, trouble).await;
                    tried.push((address.to_string(), trouble));
                }
            }
        }
        Err(ConnectError::new(tried))
    }

    async fn dial(&self, address: &Address, name: &str, deadline: Instant) -> Result<Channel, Trouble> {
        let endpoint = Endpoint::from_shared(format!("https://{address}"))
            .and_then(|endpoint| endpoint.tls_config(self.tls.clone().domain_name(name)))
            .map_err(|error| Trouble::of(&error))?
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true);
        match timeout_at(deadline, endpoint.connect()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(Trouble::of(&error)),
            Err(_) => Err(Trouble::TooLate),
        }
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
    approvals: approvals_client::ApprovalsClient,
    audit: audit_client::AuditClient,
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
                    let trouble = explain(self.probe.as_deref(), &self.address, &self.name, trouble).await;
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
async fn explain(probe: Option<&Probe>, address: &Address, name: &str, trouble: Trouble) -> Trouble {
    match (&trouble, probe) {
        (Trouble::Network(_), Some(probe)) => probe.ask(address, name).await.unwrap_or(trouble),
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
