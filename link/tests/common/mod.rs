//! One certificate authority, one node, one relay: what every test of the link starts from.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "each test program uses a part of it"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use link::{Acceptor, ListenConfig, Peer};
use proto::bundle::{Bundle, SecretPem};
use proto::v1;
use proto::v1::slivers_server::{Slivers, SliversServer};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType, date_time_ymd,
};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::client::TlsStream;
use tonic::{Request, Response, Status, Streaming};

pub const CONTROLLER: &str = "redbutton://controller";
pub const ALICE: &str = "redbutton://person/alice";
pub const NODE: &str = "redbutton://node/6ba7b810-9dad-11d1-80b4-00c04fd430c8/nodemgr";

/// Nothing in these tests may take longer.
pub const CAP: Duration = Duration::from_secs(60);
/// An interval or deadline that is never reached inside a test.
pub const NEVER: Duration = Duration::from_secs(3600);

pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(CAP, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {CAP:?}"),
    }
}

pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

pub struct Issued {
    pub certificate: String,
    pub key: SecretPem,
}

impl Issued {
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .map(|c| c.expect("own PEM"))
            .collect()
    }
}

/// A certificate authority for `localhost` and 127.0.0.1.
pub struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self {
            ca: CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("CA"),
        }
    }

    pub fn ca(&self) -> String {
        self.ca.pem()
    }

    pub fn issue_with(&self, uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, "leaf");
        for uri in uris {
            params
                .subject_alt_names
                .push(SanType::URI((*uri).try_into().expect("ASCII")));
        }
        change(&mut params);
        let key = KeyPair::generate().expect("key");
        let certificate = params.signed_by(&key, &self.ca).expect("signature").pem();
        Issued {
            certificate,
            key: SecretPem::new(key.serialize_pem()),
        }
    }

    pub fn issue(&self, uri: &str) -> Issued {
        self.issue_with(&[uri], |_| {})
    }

    pub fn expired(&self, uri: &str) -> Issued {
        self.issue_with(&[uri], |params| params.not_after = date_time_ymd(2020, 1, 1))
    }

    pub fn bundle(&self, issued: &Issued, identity: &str, controllers: &[&str]) -> Bundle {
        Bundle {
            format: Bundle::FORMAT,
            identity: identity.to_owned(),
            name: "test".to_owned(),
            controllers: controllers.iter().map(|text| (*text).to_owned()).collect(),
            ca: self.ca(),
            certificate: issued.certificate.clone(),
            key: issued.key.clone(),
        }
    }

    pub fn node_bundle(&self, controller: SocketAddr) -> Bundle {
        self.bundle(
            &self.issue(NODE),
            NODE,
            &[&format!("localhost:{}", controller.port())],
        )
    }

    pub fn server(&self, issued: &Issued) -> Arc<ServerConfig> {
        link::server_config(&self.ca(), &issued.certificate, &issued.key).expect("server config")
    }

    /// A listener with the controller's certificate.
    pub fn controller(&self, config: ListenConfig) -> Acceptor {
        let tls = self.server(&self.issue(CONTROLLER));
        Acceptor::bind(local(), tls, config).expect("listener")
    }

    /// A client that checks nothing about itself, unlike `link::client_config`.
    pub fn raw_client(&self, own: Option<&Issued>) -> ClientConfig {
        self.raw_client_of(own, rustls::DEFAULT_VERSIONS)
    }

    pub fn raw_client_of(
        &self,
        own: Option<&Issued>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).expect("CA");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match own {
            Some(own) => {
                let key = PrivateKeyDer::from_pem_slice(own.key.expose().as_bytes()).expect("key");
                builder
                    .with_client_auth_cert(own.chain(), key)
                    .expect("certificate")
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

pub fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub async fn tls_connect(config: ClientConfig, to: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    let name = ServerName::try_from("localhost").expect("name");
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// A node that counts what runs on it. `Report` says who asked, `Processes` hangs until `release`, `Obey` answers each command.
#[derive(Clone)]
pub struct Node(pub Arc<NodeState>);

pub struct NodeState {
    pub name: String,
    /// `Processes` calls that have begun, that run now, and the most at one time.
    pub begun: AtomicUsize,
    pub running: AtomicUsize,
    pub most: AtomicUsize,
    pub release: Semaphore,
    pub obeying: AtomicUsize,
}

impl Node {
    pub fn new(name: &str) -> Self {
        Self(Arc::new(NodeState {
            name: name.to_owned(),
            begun: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            release: Semaphore::new(0),
            obeying: AtomicUsize::new(0),
        }))
    }

    pub fn routes(&self) -> tonic::service::Routes {
        tonic::service::Routes::new(SliversServer::new(self.clone()))
    }

    pub fn running(&self) -> usize {
        self.0.running.load(Ordering::SeqCst)
    }

    pub fn obeying(&self) -> usize {
        self.0.obeying.load(Ordering::SeqCst)
    }
}

struct Running(Arc<NodeState>, fn(&NodeState) -> &AtomicUsize);

impl Running {
    fn start(state: &Arc<NodeState>, which: fn(&NodeState) -> &AtomicUsize) -> Self {
        let now = which(state).fetch_add(1, Ordering::SeqCst) + 1;
        state.most.fetch_max(now, Ordering::SeqCst);
        Self(state.clone(), which)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::SeqCst);
    }
}

#[tonic::async_trait]
impl Slivers for Node {
    async fn merge(&self, _: Request<v1::MergeRequest>) -> Result<Response<v1::MergeReply>, Status> {
        Err(Status::unimplemented("this node tells nothing"))
    }

    type ObeyStream = tokio_stream::wrappers::ReceiverStream<Result<v1::Answer, Status>>;
    type WatchStream = tokio_stream::Empty<Result<v1::NodeReport, Status>>;
    type JournalStream = tokio_stream::Empty<Result<v1::JournalLines, Status>>;

    async fn report(&self, request: Request<v1::ReportRequest>) -> Result<Response<v1::NodeReport>, Status> {
        let peer = request
            .extensions()
            .get::<Peer>()
            .ok_or_else(|| Status::internal("no peer"))?;
        let report = v1::NodeReport {
            node: self.0.name.clone(),
            hostname: peer.identity.to_string(),
            restart_means: peer.address.to_string(),
            ..Default::default()
        };
        Ok(Response::new(report))
    }

    async fn obey(
        &self,
        request: Request<Streaming<v1::Command>>,
    ) -> Result<Response<Self::ObeyStream>, Status> {
        let mut commands = request.into_inner();
        let (answers, stream) = tokio::sync::mpsc::channel(16);
        let running = Running::start(&self.0, |state| &state.obeying);
        tokio::spawn(async move {
            let _running = running;
            while let Ok(Some(command)) = commands.message().await {
                let answer = v1::Answer {
                    order: command.order,
                    ..Default::default()
                };
                if answers.send(Ok(answer)).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(tokio_stream::wrappers::ReceiverStream::new(stream)))
    }

    async fn watch(&self, _: Request<v1::WatchNodeRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn processes(
        &self,
        _: Request<v1::ProcessesRequest>,
    ) -> Result<Response<v1::ProcessesReply>, Status> {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        let _running = Running::start(&self.0, |state| &state.running);
        let permit = self
            .0
            .release
            .acquire()
            .await
            .map_err(|_| Status::cancelled("closed"))?;
        permit.forget();
        Ok(Response::new(v1::ProcessesReply::default()))
    }

    async fn journal(&self, _: Request<v1::JournalRequest>) -> Result<Response<Self::JournalStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

/// Forwards connections until told to freeze: then it keeps the sockets and moves nothing, as a swallowed path does.
pub struct Relay {
    pub address: SocketAddr,
    frozen_below: watch::Sender<usize>,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    pub async fn to(upstream: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind(local()).await.expect("relay");
        let address = listener.local_addr().expect("address");
        let (frozen_below, frozen) = watch::channel(0);
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let task = tokio::spawn(async move {
            let mut pipes = tokio::task::JoinSet::new();
            while let Ok((here, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let Ok(there) = TcpStream::connect(upstream).await else {
                    continue;
                };
                let mut frozen = frozen.clone();
                pipes.spawn(async move {
                    let (mut here, mut there) = (here, there);
                    let freeze = async {
                        let _ = frozen.wait_for(|below| number < *below).await;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut here, &mut there) => return,
                        () = freeze => {}
                    }
                    std::future::pending::<()>().await;
                });
            }
        });
        Self {
            address,
            frozen_below,
            connections,
            task,
        }
    }

    /// Freezes what goes through it now; later connections pass.
    pub fn freeze(&self) {
        self.frozen_below
            .send_replace(self.connections.load(Ordering::SeqCst));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
