//! One controller with its people and nodes, in a directory of its own.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use controller::admin::{self, Init, IssueNode, IssuePerson};
use controller::{Config, Handle};
use futures_util::{Stream, StreamExt, stream};
use hyper_util::rt::TokioIo;
use nodemgr::keys::NodeKeys;
use proto::NodeId;
use proto::bundle::Bundle;
use proto::v1::audit_client::AuditClient;
use proto::v1::command::Action;
use proto::v1::nodes_client::NodesClient;
use proto::v1::orders_client::OrdersClient;
use proto::v1::people_client::PeopleClient;
use proto::v1::press_request::Wish;
use proto::v1::sites_client::SitesClient;
use proto::v1::slices_client::SlicesClient;
use proto::v1::slivers_server::{Slivers, SliversServer};
use proto::v1::{self, Answer, Command, HoldKind, NodeReport, Outcome};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

/// Longest that a test waits for anything.
pub(crate) const CAP: Duration = Duration::from_secs(20);

pub(crate) fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect(text)
}

/// Waits until `look` finds something.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(CAP, found)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for: {what}"))
}

/// A controller's directory and, while it serves, the controller.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) people: SocketAddr,
    pub(crate) daemons: SocketAddr,
    /// How long nodes' certificates are good, seconds.
    pub(crate) node_life: u64,
    running: Option<(Handle, CancellationToken)>,
}

impl World {
    /// Sites princeton and mit, a slice each, alice and otto for support, paula and peter PIs, dan a developer of
    /// princeton_codeen, ada admin of princeton; `nodes` as `name@site`.
    pub(crate) async fn new(nodes: &[&str]) -> Self {
        let mut world = Self::empty().await;
        world.start().await;
        world.furnish(nodes).await;
        world
    }

    pub(crate) async fn empty() -> Self {
        Self::empty_in(&std::env::temp_dir()).await
    }

    pub(crate) async fn empty_in(place: &Path) -> Self {
        let dir = tempfile::tempdir_in(place).expect("a directory");
        let init = Init {
            dir: dir.path().join("state"),
            names: vec!["localhost".into(), "127.0.0.1".into()],
            support: vec![name("alice"), name("otto")],
            people: Vec::new(),
            daemons: Vec::new(),
            bundles: true,
        };
        // Half a year old, so that certificates can have ended months ago.
        admin::init(&init, OffsetDateTime::now_utc() - time::Duration::days(180))
            .await
            .expect("a new controller");
        let nowhere = "127.0.0.1:0".parse().expect("an address");
        Self {
            dir,
            people: nowhere,
            daemons: nowhere,
            node_life: 86_400,
            running: None,
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config {
            state: self.state(),
            ..Config::default()
        };
        config.people.listen = self.people;
        config.daemons.listen = self.daemons;
        config.nodes.attach_deadline_ms = 2_000;
        config.keys.node_certificate_s = self.node_life;
        config
    }

    /// Serves, on the same ports as before.
    pub(crate) async fn start(&mut self) {
        let shutdown = CancellationToken::new();
        let handle = controller::serve(self.config(), shutdown.clone())
            .await
            .expect("serves");
        self.people = handle.people_addr;
        self.daemons = handle.daemons_addr;
        self.running = Some((handle, shutdown));
    }

    pub(crate) async fn stop(&mut self) {
        if let Some((handle, shutdown)) = self.running.take() {
            shutdown.cancel();
            tokio::time::timeout(CAP, handle.finished())
                .await
                .expect("ends soon");
        }
    }

    pub(crate) async fn furnish(&self, nodes: &[&str]) {
        let alice = self.person("alice").await;
        for site in ["princeton", "mit"] {
            let request = v1::CreateSiteRequest {
                name: site.into(),
                ..Default::default()
            };
            alice.sites().create(request).await.expect("a site");
        }
        for slice in ["princeton_codeen", "mit_chord"] {
            let request = v1::CreateSliceRequest {
                name: slice.into(),
                ..Default::default()
            };
            alice.slices().create(request).await.expect("a slice");
        }
        let grant = |role: v1::Role, slice: &str, site: &str| v1::Grant {
            role: role.into(),
            slice: slice.into(),
            site: site.into(),
        };
        for (person, grants) in [
            ("dan", vec![grant(v1::Role::Developer, "princeton_codeen", "")]),
            ("paula", vec![grant(v1::Role::Pi, "", "princeton")]),
            ("peter", vec![grant(v1::Role::Pi, "", "mit")]),
            ("ada", vec![grant(v1::Role::SiteAdmin, "", "princeton")]),
            ("nora", vec![]),
        ] {
            let request = v1::CreatePersonRequest {
                name: person.into(),
                grants,
                ..Default::default()
            };
            alice.people().create(request).await.expect("a person");
        }
        for node in nodes {
            self.enrol(node).await;
        }
    }

    pub(crate) fn bundle_of(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.bundle"))
    }

    /// Enrols `name@site`.
    pub(crate) async fn enrol(&self, node: &str) {
        let (node, site) = node.split_once('@').expect("name@site");
        let wish = IssueNode {
            dir: self.state(),
            name: name(node),
            site: Some(name(site)),
            out: self.bundle_of(node),
            addresses: Vec::new(),
            life: None,
        };
        admin::issue_node(&wish, OffsetDateTime::now_utc())
            .await
            .expect("a node");
    }

    pub(crate) fn load(&self, name: &str, address: SocketAddr) -> Bundle {
        let text = std::fs::read_to_string(self.bundle_of(name)).expect("a bundle");
        let mut bundle = Bundle::parse(&text).expect("a good bundle");
        bundle.controllers = vec![format!("localhost:{}", address.port())];
        bundle
    }

    /// A simulated node that has not dialled yet.
    pub(crate) fn node(&self, name: &str) -> Sim {
        let bundle = self.load(name, self.daemons);
        let id = match bundle.identity().expect("an identity") {
            proto::Identity::Daemon(id, _) => id,
            other => panic!("{other} is no node"),
        };
        Sim::new(id, bundle)
    }

    /// A connection of a person.
    pub(crate) async fn person(&self, person: &str) -> Person {
        let out = self.bundle_of(person);
        if !out.exists() {
            let wish = IssuePerson {
                dir: self.state(),
                name: name(person),
                out,
                addresses: Vec::new(),
                life: None,
            };
            admin::issue_person(&wish, OffsetDateTime::now_utc())
                .await
                .expect("a bundle");
        }
        Person {
            channel: connect(&self.load(person, self.people), self.people)
                .await
                .expect("connects"),
        }
    }

    /// The same person with another key and certificate.
    pub(crate) async fn other_bundle(&self, person: &str) -> Person {
        let out = self.dir.path().join(format!("{person}.other"));
        let wish = IssuePerson {
            dir: self.state(),
            name: name(person),
            out: out.clone(),
            addresses: Vec::new(),
            life: None,
        };
        admin::issue_person(&wish, OffsetDateTime::now_utc())
            .await
            .expect("a bundle");
        let text = std::fs::read_to_string(out).expect("a bundle");
        let bundle = Bundle::parse(&text).expect("a good bundle");
        Person {
            channel: connect(&bundle, self.people).await.expect("connects"),
        }
    }

    pub(crate) async fn audit(&self) -> Vec<v1::AuditEntry> {
        let alice = self.person("alice").await;
        let mut stream = alice
            .audit()
            .export(v1::ExportAuditRequest { from: 1 })
            .await
            .expect("exports")
            .into_inner();
        let mut entries = Vec::new();
        while let Some(entry) = stream.message().await.expect("an entry") {
            entries.push(entry);
        }
        entries
    }
}

/// An mTLS channel with the certificate of a bundle.
pub(crate) async fn connect(
    bundle: &Bundle,
    address: SocketAddr,
) -> Result<Channel, tonic::transport::Error> {
    let tls = tokio_rustls::TlsConnector::from(link::client_config(bundle).expect("a good bundle"));
    let connector = tower::service_fn(move |_: http::Uri| {
        let tls = tls.clone();
        async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            let server = rustls_pki_types::ServerName::try_from("localhost").expect("a name");
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(server, stream).await?))
        }
    });
    Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
}

/// A person at the keyboard.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) channel: Channel,
}

impl Person {
    pub(crate) fn orders(&self) -> OrdersClient<Channel> {
        OrdersClient::new(self.channel.clone())
    }
    pub(crate) fn nodes(&self) -> NodesClient<Channel> {
        NodesClient::new(self.channel.clone())
    }
    pub(crate) fn people(&self) -> PeopleClient<Channel> {
        PeopleClient::new(self.channel.clone())
    }
    pub(crate) fn sites(&self) -> SitesClient<Channel> {
        SitesClient::new(self.channel.clone())
    }
    pub(crate) fn slices(&self) -> SlicesClient<Channel> {
        SlicesClient::new(self.channel.clone())
    }
    pub(crate) fn audit(&self) -> AuditClient<Channel> {
        AuditClient::new(self.channel.clone())
    }

    pub(crate) async fn press(&self, key: &str, wish: Wish) -> Result<v1::PressReply, Status> {
        let request = v1::PressRequest {
            idempotency_key: key.into(),
            reason: "floods a bank".into(),
            evidence: String::new(),
            wish: Some(wish),
        };
        Ok(self.orders().press(request).await?.into_inner())
    }

    pub(crate) async fn order(&self, id: &str) -> v1::OrderDetail {
        self.orders()
            .get(v1::GetOrderRequest { id: id.into() })
            .await
            .expect("an order")
            .into_inner()
    }

    /// Waits until the order has this state.
    pub(crate) async fn order_in(&self, id: &str, state: v1::OrderState) -> v1::OrderDetail {
        until(&format!("order {id} to be {state:?}"), || async {
            let detail = self.order(id).await;
            (detail.order.as_ref().expect("the order").state() == state).then_some(detail)
        })
        .await
    }
}

pub(crate) fn fleet() -> v1::Scope {
    v1::Scope {
        reach: Some(v1::scope::Reach::Fleet(true)),
    }
}

pub(crate) fn at_site(site: &str) -> v1::Scope {
    v1::Scope {
        reach: Some(v1::scope::Reach::Site(site.into())),
    }
}

pub(crate) fn on_node(node: &str) -> v1::Scope {
    v1::Scope {
        reach: Some(v1::scope::Reach::Node(node.into())),
    }
}

pub(crate) fn kill(slice: &str, scope: v1::Scope) -> Wish {
    Wish::Hold(v1::HoldWish {
        slice: slice.into(),
        scope: Some(scope),
        kind: HoldKind::Suspend.into(),
    })
}

pub(crate) fn freeze(slice: &str, scope: v1::Scope) -> Wish {
    Wish::Hold(v1::HoldWish {
        slice: slice.into(),
        scope: Some(scope),
        kind: HoldKind::Freeze.into(),
    })
}

pub(crate) fn release(what: v1::release_wish::What) -> Wish {
    Wish::Release(v1::ReleaseWish { what: Some(what) })
}

/// The machine code of a refusal.
pub(crate) fn code(status: &Status) -> &str {
    status
        .metadata()
        .get(controller::CODE_HEADER)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("")
}

type Reply<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answering = Arc<dyn Fn(&Command) -> Vec<Answer> + Send + Sync>;

/// A simulated node manager. It answers as `answering` says and remembers what it was told.
#[derive(Clone)]
pub(crate) struct Sim {
    pub(crate) id: NodeId,
    bundle: Arc<Bundle>,
    told: Arc<watch::Sender<Vec<Command>>>,
    report: Arc<Mutex<NodeReport>>,
    /// What it tells a controller that asks, and what it was asked; `None`: it knows no such call.
    knows: Arc<Mutex<Option<v1::MergeReply>>>,
    asked: Arc<Mutex<Vec<v1::MergeRequest>>>,
    answering: Answering,
    links: CancellationToken,
    keys: Option<NodeKeys>,
}

/// A good node: dead at once, proven at once.
pub(crate) fn obedient(command: &Command) -> Vec<Answer> {
    let outcome = match &command.action {
        Some(Action::Impose(hold)) if hold.kind() == HoldKind::Freeze => Outcome::Frozen,
        Some(Action::Impose(_)) => Outcome::Killed,
        Some(Action::Release(_)) => Outcome::Released,
        Some(Action::Reboot(_) | Action::Halt(_)) => Outcome::Accepted,
        Some(Action::Witness(_)) => return Vec::new(),
        _ => Outcome::AlreadyDead,
    };
    vec![answer(command, outcome, true)]
}

pub(crate) fn answer(command: &Command, outcome: Outcome, proven: bool) -> Answer {
    Answer {
        order: command.order.clone(),
        version: command.given,
        outcome: outcome.into(),
        proven,
        durable: true,
        ..Answer::default()
    }
}

impl Sim {
    pub(crate) fn new(id: NodeId, bundle: Bundle) -> Self {
        let report = NodeReport {
            node: id.to_string(),
            protocol: proto::PROTOCOL,
            boot_id: uuid::Uuid::new_v4().to_string(),
            kernel: "6.18-simulated".into(),
            ..NodeReport::default()
        };
        Self {
            id,
            bundle: Arc::new(bundle),
            told: Arc::new(watch::Sender::new(Vec::new())),
            report: Arc::new(Mutex::new(report)),
            knows: Arc::default(),
            asked: Arc::default(),
            answering: Arc::new(obedient),
            links: CancellationToken::new(),
            keys: None,
        }
    }

    /// It keeps its key as a real node does, below a directory of its own.
    pub(crate) fn with_keys(mut self, state: &Path) -> Self {
        std::fs::create_dir_all(state).expect("a directory");
        let keys = NodeKeys::load((*self.bundle).clone(), state.to_owned()).expect("a good bundle");
        self.keys = Some(keys);
        self
    }

    pub(crate) fn keys(&self) -> &NodeKeys {
        self.keys.as_ref().expect("a node with keys")
    }

    pub(crate) fn answering(mut self, how: impl Fn(&Command) -> Vec<Answer> + Send + Sync + 'static) -> Self {
        self.answering = Arc::new(how);
        self
    }

    pub(crate) fn reporting(self, change: impl FnOnce(&mut NodeReport)) -> Self {
        change(&mut self.report.lock().expect("the report"));
        self
    }

    /// From now on it knows this, and says so in its report.
    pub(crate) fn knowing(self, known: v1::MergeReply) -> Self {
        {
            let mut report = self.report.lock().expect("the report");
            report.holds = known.holds.iter().map(|hold| hold.id.clone()).collect();
            report.tombstones = known.tombstones.len() as u32;
            report.local_entries = known.entries.last().map_or(0, |entry| entry.sequence);
        }
        *self.knows.lock().expect("what it knows") = Some(known);
        self
    }

    /// What it was asked to tell.
    pub(crate) fn asked(&self) -> Vec<v1::MergeRequest> {
        self.asked.lock().expect("the requests").clone()
    }

    /// Dials until it is dropped or hangs up.
    pub(crate) fn dial(&self) -> tokio::task::JoinHandle<()> {
        let backoff = link::Backoff {
            base: Duration::from_millis(20),
            cap: Duration::from_millis(200),
        };
        let config = link::DialConfig {
            backoff,
            ..link::DialConfig::default()
        };
        let mut routes = Routes::new(SliversServer::new(self.clone()));
        let dialer = match &self.keys {
            None => link::Dialer::new(&self.bundle, config).expect("a good bundle"),
            Some(keys) => {
                let dialer =
                    link::Dialer::with_floor(&keys.bundle(), config, keys.floor()).expect("a good bundle");
                keys.renews(dialer.credentials());
                routes = routes.add_service(keys.service());
                dialer
            }
        };
        let links = self.links.clone();
        tokio::spawn(async move { dialer.run(routes, links, |_| {}).await })
    }

    /// Cuts the link and stays away.
    pub(crate) fn hang_up(&mut self) {
        self.links.cancel();
        self.links = CancellationToken::new();
    }

    /// The boot that it is in.
    pub(crate) fn boot(&self) -> String {
        self.report.lock().expect("the report").boot_id.clone()
    }

    /// Another boot.
    pub(crate) fn reboot(&mut self) {
        self.hang_up();
        self.report.lock().expect("the report").boot_id = uuid::Uuid::new_v4().to_string();
    }

    /// Everything that it was told.
    pub(crate) fn commands(&self) -> Vec<Command> {
        self.told.borrow().clone()
    }

    /// Everything that it was told, without the syncs.
    pub(crate) fn orders(&self) -> Vec<Command> {
        self.told
            .borrow()
            .iter()
            .filter(|command| !command.order.is_empty())
            .cloned()
            .collect()
    }

    pub(crate) fn syncs(&self) -> Vec<v1::Sync> {
        let sync = |command: &Command| match &command.action {
            Some(Action::Sync(sync)) => Some(sync.clone()),
            _ => None,
        };
        self.told.borrow().iter().filter_map(sync).collect()
    }

    /// The audit heads that it was sent.
    pub(crate) fn heads(&self) -> Vec<v1::SignedStatement> {
        let head = |command: &Command| match &command.action {
            Some(Action::Witness(head)) => Some(head.clone()),
            _ => None,
        };
        self.told.borrow().iter().filter_map(head).collect()
    }

    /// Waits until it is attached, counted in syncs.
    pub(crate) async fn attached(&self, times: usize) {
        until(&format!("node {} to attach", self.id), || async {
            (self.syncs().len() >= times).then_some(())
        })
        .await;
    }

    /// Waits until it was told this many orders.
    pub(crate) async fn told(&self, orders: usize) -> Vec<Command> {
        until(
            &format!("node {} to be told {orders} orders", self.id),
            || async {
                let told = self.orders();
                (told.len() >= orders).then_some(told)
            },
        )
        .await
    }
}

#[tonic::async_trait]
impl Slivers for Sim {
    type ObeyStream = Reply<Answer>;
    type WatchStream = Reply<NodeReport>;
    type JournalStream = Reply<v1::JournalLines>;

    async fn report(&self, _: Request<v1::ReportRequest>) -> Result<Response<NodeReport>, Status> {
        Ok(Response::new(self.report.lock().expect("the report").clone()))
    }

    async fn merge(&self, request: Request<v1::MergeRequest>) -> Result<Response<v1::MergeReply>, Status> {
        let request = request.into_inner();
        self.asked.lock().expect("the requests").push(request.clone());
        let Some(mut known) = self.knows.lock().expect("what it knows").clone() else {
            return Err(Status::unimplemented("from before there was such a call"));
        };
        known.holds.retain(|hold| request.holds.contains(&hold.id));
        known
            .entries
            .retain(|entry| entry.sequence > request.entries_after);
        if !request.tombstones {
            known.tombstones.clear();
        }
        Ok(Response::new(known))
    }

    async fn obey(
        &self,
        commands: Request<Streaming<Command>>,
    ) -> Result<Response<Self::ObeyStream>, Status> {
        let sim = self.clone();
        let answers = commands.into_inner().map(move |command| match command {
            Ok(command) => {
                let answers = match command.action {
                    // Kept, never answered.
                    Some(Action::Witness(_)) => Vec::new(),
                    _ => (sim.answering)(&command),
                };
                sim.told.send_modify(|told| told.push(command));
                answers.into_iter().map(Ok).collect()
            }
            Err(status) => vec![Err(status)],
        });
        Ok(Response::new(Box::pin(answers.flat_map(stream::iter))))
    }

    async fn watch(&self, _: Request<v1::WatchNodeRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let now = self.report.lock().expect("the report").clone();
        Ok(Response::new(Box::pin(
            stream::iter([Ok(now)]).chain(stream::pending()),
        )))
    }

    async fn processes(
        &self,
        request: Request<v1::ProcessesRequest>,
    ) -> Result<Response<v1::ProcessesReply>, Status> {
        let one = |slice: &str| v1::Process {
            pid: 7,
            comm: "x".into(),
            slice: slice.into(),
            ..Default::default()
        };
        let slice = request.into_inner().slice;
        // A node that says more than it was asked for.
        Ok(Response::new(v1::ProcessesReply {
            processes: vec![one(&slice), one("other_slice")],
            truncated: false,
        }))
    }

    async fn journal(&self, _: Request<v1::JournalRequest>) -> Result<Response<Self::JournalStream>, Status> {
        let lines = v1::JournalLines {
            lines: vec!["a line".into()],
            source: "a file".into(),
        };
        Ok(Response::new(Box::pin(stream::iter([Ok(lines)]))))
    }
}
