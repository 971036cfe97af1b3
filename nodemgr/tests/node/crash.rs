//! The real program over the real link, cut down in the middle of a kill: nothing is lost, nothing comes back.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use link::{Acceptor, Link, LinkConfig, ListenConfig};
use proto::bundle::{Bundle, SecretPem};
use proto::v1::slivers_client::SliversClient;
use proto::v1::{self, NodeReport, Outcome};
use proto::{Hold, HoldKind};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::support::{CAP, Lab, Started, eventually, exec_command, frozen, populated, program};

/// A controller of the barest kind: a CA, a listener, and the calls that a test makes.
struct Controller {
    ca: CertifiedIssuer<'static, KeyPair>,
    acceptor: Acceptor,
}

impl Controller {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("CA");
        let (certificate, key) = issue(&ca, "redbutton://controller");
        let tls = link::server_config(&ca.pem(), &certificate, &key).expect("server config");
        let local = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let acceptor = Acceptor::bind(local, tls, ListenConfig::default()).expect("binds");
        Self { ca, acceptor }
    }

    /// Everything that a daemon needs to run in this lab.
    fn equip(&self, lab: &Lab) {
        let identity = format!("redbutton://node/{}/nodemgr", lab.id);
        let (certificate, key) = issue(&self.ca, &identity);
        let bundle = Bundle {
            format: Bundle::FORMAT,
            identity,
            name: "lab".into(),
            controllers: vec![format!("localhost:{}", self.acceptor.local_addr().port())],
            ca: self.ca.pem(),
            certificate,
            key,
        };
        let path = lab.dir.path().join("bundle");
        let mut file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .expect("a file");
        std::io::Write::write_all(&mut file, bundle.to_text().as_bytes()).expect("writable");
        let config = lab.config();
        let text = format!(
            "bundle = {path:?}\nstate_dir = {:?}\nstate_bytes = {}\nsocket = {:?}\nslivers_root = {:?}\n",
            config.state_dir, config.state_bytes, config.socket, config.slivers_root
        );
        fs::write(lab.dir.path().join("nodemgr.toml"), text).expect("writable");
    }

    async fn attached(&mut self) -> Attached {
        let accept = async {
            loop {
                let accepted = self.acceptor.accept().await.expect("listens");
                let Ok(link) = link::attach(accepted, LinkConfig::default()).await else {
                    continue;
                };
                let mut client = SliversClient::with_origin(link, Link::origin());
                let Ok(report) = client.report(v1::ReportRequest {}).await else {
                    continue;
                };
                return Attached {
                    client,
                    report: report.into_inner(),
                };
            }
        };
        tokio::time::timeout(CAP, accept).await.expect("attaches in time")
    }
}

fn issue(ca: &CertifiedIssuer<'static, KeyPair>, uri: &str) -> (String, SecretPem) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("name");
    params
        .subject_alt_names
        .push(SanType::URI(uri.try_into().expect("ASCII")));
    let key = KeyPair::generate().expect("key");
    let certificate = params.signed_by(&key, ca).expect("signed").pem();
    (certificate, SecretPem::new(key.serialize_pem()))
}

/// A node that is attached.
struct Attached {
    client: SliversClient<Link>,
    report: NodeReport,
}

impl Attached {
    async fn obey(&mut self) -> (mpsc::Sender<v1::Command>, Streaming<v1::Answer>) {
        let (commands, stream) = mpsc::channel(16);
        let answers = self
            .client
            .obey(ReceiverStream::new(stream))
            .await
            .expect("accepted")
            .into_inner();
        (commands, answers)
    }
}

/// The program. Killed when it goes out of scope.
struct Daemon(Child);

impl Daemon {
    fn start(lab: &Lab, crash_at: Option<&str>) -> Self {
        let mut command = Command::new(program());
        command
            .args(["run", "--config"])
            .arg(lab.dir.path().join("nodemgr.toml"))
            .stderr(Stdio::null());
        if let Some(point) = crash_at {
            command.env("REDBUTTON_CRASH_AT", point);
        }
        Self(command.spawn().expect("spawns"))
    }

    /// The signal that ended it.
    fn ended(&mut self) -> Option<i32> {
        let mut status = None;
        eventually(CAP, || {
            status = self.0.try_wait().expect("waits");
            status.is_some()
        });
        status.expect("ends in time").signal()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime")
}

/// Gives the order again, as the controller does with everything that was not answered, and checks how it ends.
async fn redeliver(lab: &Lab, controller: &mut Controller, hold: &Hold, order: &v1::Command) {
    let mut node = controller.attached().await;
    let (commands, mut answers) = node.obey().await;
    commands
        .send(v1::Command {
            now: Some(lab.next().into()),
            ..order.clone()
        })
        .await
        .expect("open");
    let answer = tokio::time::timeout(CAP, answers.message())
        .await
        .expect("in time")
        .expect("no error")
        .expect("some");
    assert!(
        matches!(answer.outcome(), Outcome::Killed | Outcome::AlreadyDead),
        "{answer:?}"
    );
    assert!(
        answer.durable && answer.proven && answer.order == order.order,
        "{answer:?}"
    );
    assert!(!populated(&lab.sliver("a_b")));
    let report = node
        .client
        .report(v1::ReportRequest {})
        .await
        .expect("reports")
        .into_inner();
    assert_eq!(report.holds, [hold.id.to_string()]);
    assert_eq!(
        exec_command(lab, "a_b", "true")
            .output()
            .expect("runs")
            .status
            .code(),
        Some(5),
        "nothing comes back"
    );
}

fn cut_down_at(point: &str, check: impl FnOnce(&Lab, &NodeReport, &Hold)) {
    let Some(lab) = Lab::new() else { return };
    runtime().block_on(async {
        let mut controller = Controller::new();
        controller.equip(&lab);
        let mut daemon = Daemon::start(&lab, Some(point));
        let mut node = controller.attached().await;
        let mut started = Started::sleeper(&lab, "a_b");
        let hold = lab.hold("a_b", HoldKind::Suspend);
        let order = lab.impose(&hold);
        let (commands, mut answers) = node.obey().await;
        commands.send(order.clone()).await.expect("open");
        let answer = tokio::time::timeout(CAP, answers.message())
            .await
            .expect("in time");
        assert!(
            !matches!(answer, Ok(Some(_))),
            "no answer: it was not done: {answer:?}"
        );
        assert_eq!(daemon.ended(), Some(6), "it aborted at {point}");

        let _again = Daemon::start(&lab, None);
        let node = controller.attached().await;
        check(&lab, &node.report, &hold);
        drop(node);
        redeliver(&lab, &mut controller, &hold, &order).await;
        assert_eq!(started.signal(), Some(9));
    });
}

#[test]
fn cut_down_after_the_freeze() {
    cut_down_at("nodemgr.after-freeze", |lab, report, hold| {
        match report.holds.as_slice() {
            // Whether the write came first is chance; both are safe.
            [] => assert!(
                !frozen(&lab.sliver("a_b")),
                "without a hold nobody would ever thaw it"
            ),
            [id] => assert!(*id == hold.id.to_string() && !populated(&lab.sliver("a_b"))),
            more => panic!("{more:?}"),
        }
    });
}

#[test]
fn cut_down_after_the_kill() {
    cut_down_at("nodemgr.after-kill", |lab, report, hold| {
        assert!(report.holds.is_empty() || report.holds == [hold.id.to_string()]);
        assert!(!populated(&lab.sliver("a_b")));
    });
}

/// The hold is on disk: the daemon that comes after obeys it before it talks to anybody. The point is also passed
/// when the uid of a new slice is written, so the slice is given one before.
#[test]
fn cut_down_after_the_write() {
    let Some(lab) = Lab::new() else { return };
    runtime().block_on(async {
        let mut controller = Controller::new();
        controller.equip(&lab);
        {
            let _first = Daemon::start(&lab, None);
            controller.attached().await;
            assert!(
                exec_command(&lab, "a_b", "true")
                    .status()
                    .expect("runs")
                    .success()
            );
        }
        let mut daemon = Daemon::start(&lab, Some("nodemgr.after-write"));
        let mut node = controller.attached().await;
        let mut started = Started::sleeper(&lab, "a_b");
        let hold = lab.hold("a_b", HoldKind::Suspend);
        let order = lab.impose(&hold);
        let (commands, _answers) = node.obey().await;
        commands.send(order.clone()).await.expect("open");
        assert_eq!(daemon.ended(), Some(6));
        let _again = Daemon::start(&lab, None);
        let node = controller.attached().await;
        assert_eq!(node.report.holds, [hold.id.to_string()]);
        assert!(!populated(&lab.sliver("a_b")), "obeyed at boot");
        drop(node);
        redeliver(&lab, &mut controller, &hold, &order).await;
        assert_eq!(started.signal(), Some(9));
    });
}

#[test]
fn cut_down_before_the_answer() {
    cut_down_at("nodemgr.before-answer", |lab, report, hold| {
        assert_eq!(report.holds, [hold.id.to_string()]);
        assert!(!populated(&lab.sliver("a_b")));
    });
}

#[test]
fn a_kill_9_loses_no_hold_and_slivers_outlive_the_daemon() {
    let Some(lab) = Lab::new() else { return };
    runtime().block_on(async {
        let mut controller = Controller::new();
        controller.equip(&lab);
        let mut daemon = Daemon::start(&lab, None);
        let mut node = controller.attached().await;
        let mut other = Started::sleeper(&lab, "a_c");
        let (commands, mut answers) = node.obey().await;
        let hold = lab.hold("a_b", HoldKind::Suspend);
        commands.send(lab.impose(&hold)).await.expect("open");
        let answer = tokio::time::timeout(CAP, answers.message())
            .await
            .expect("in time")
            .expect("no error")
            .expect("some");
        assert!(answer.durable);
        daemon.0.kill().expect("ours");
        assert_eq!(daemon.ended(), Some(9));
        assert!(populated(&lab.sliver("a_c")) && other.child.try_wait().expect("waits").is_none());
        let _again = Daemon::start(&lab, None);
        let node = controller.attached().await;
        assert_eq!(node.report.holds, [hold.id.to_string()]);
        assert_eq!(
            exec_command(&lab, "a_b", "true")
                .output()
                .expect("runs")
                .status
                .code(),
            Some(5)
        );
        assert!(other.child.try_wait().expect("waits").is_none());
    });
}

#[test]
fn it_ends_on_sigterm_and_leaves_slivers_and_no_socket() {
    let Some(lab) = Lab::new() else { return };
    runtime().block_on(async {
        let mut controller = Controller::new();
        controller.equip(&lab);
        let mut daemon = Daemon::start(&lab, None);
        controller.attached().await;
        let mut started = Started::sleeper(&lab, "a_b");
        let status = Command::new("kill")
            .args(["-TERM", &daemon.0.id().to_string()])
            .status()
            .expect("runs");
        assert!(status.success());
        assert_eq!(daemon.ended(), None, "by itself");
        assert!(!lab.config().socket.exists());
        assert!(started.child.try_wait().expect("waits").is_none());
    });
}

#[test]
fn what_is_wrong_with_the_files_is_said_by_name() {
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("nodemgr.toml");
    let run = |text: &str| {
        fs::write(&file, text).expect("writable");
        let out = Command::new(program())
            .args(["run", "--config"])
            .arg(&file)
            .output()
            .expect("runs");
        (
            out.status.code(),
            String::from_utf8_lossy(&out.stderr).into_owned(),
        )
    };
    let (code, said) = run("bundel = \"/x\"");
    assert_eq!(code, Some(64));
    assert!(
        said.contains(&format!("{}:1: bundel: unknown field `bundel`", file.display())),
        "{said}"
    );
    let bundle = dir.path().join("bundle");
    let with_bundle = format!("bundle = {bundle:?}");
    let (code, said) = run(&with_bundle);
    assert_eq!(code, Some(1));
    assert!(said.contains("bundle") && said.contains("No such file"), "{said}");
    fs::write(&bundle, "key = \"very secret\"").expect("writable");
    let (_, said) = run(&with_bundle);
    assert!(said.contains("chmod 600"), "{said}");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&bundle, fs::Permissions::from_mode(0o600)).expect("ours");
    let (_, said) = run(&with_bundle);
    assert!(
        said.contains("malformed at line") && !said.contains("very secret"),
        "{said}"
    );
}
