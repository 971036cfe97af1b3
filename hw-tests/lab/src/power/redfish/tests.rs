//! The Redfish service, driven by the real curl.

use super::super::model::{Point, Switch};
use super::super::spawn;
use super::super::testing::{Fixture, fixture, qemu::Qemu};
use super::super::{Machine as _, model};
use super::*;

const NOTHING: [&str; 0] = [];
const CURL: &str = "/usr/bin/curl";

/// `None`, and a line that says why, when something is missing.
fn python() -> Option<PathBuf> {
    if !Path::new(CURL).exists() {
        println!("skipped: {CURL} is missing (apt-get install curl)");
        return None;
    }
    let python = RedfishBmc::python();
    if python.is_none() {
        println!(
            "skipped: no Python with {:?}; set REDBUTTON_LAB_PYTHON",
            super::super::PYTHON
        );
    }
    python
}

fn start(room: &Arc<Room>, machine: MachineId, python: &Path) -> RedfishBmc {
    let front = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    RedfishBmc::start(
        room,
        machine,
        &Login::new("admin", "sekret"),
        front,
        python,
        &spawn,
    )
    .unwrap()
}

struct Client {
    folder: TempDir,
    root: String,
}

impl Client {
    fn new(bmc: &RedfishBmc, password: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!("user = \"admin:{password}\"\n");
        write_private(&folder.path().join("curlrc"), &config, 0o600).unwrap();
        Self {
            folder,
            root: format!("http://{}/redfish/v1/Systems", bmc.address()),
        }
    }

    /// The status and the body; an error when there was no answer at all.
    fn run(&self, path: &str, body: Option<&str>, patience: &str) -> Result<(u16, String), i32> {
        let mut command = Command::new(CURL);
        command.args([
            "--silent",
            "--show-error",
            "--max-time",
            patience,
            "--write-out",
            "\n%{http_code}",
        ]);
        command.arg("--config").arg(self.folder.path().join("curlrc"));
        if let Some(body) = body {
            command.args(["--header", "Content-Type: application/json", "--data", body]);
        }
        let output = command.arg(format!("{}{path}", self.root)).output().unwrap();
        if !output.status.success() {
            return Err(output.status.code().unwrap());
        }
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        Ok((status.parse().unwrap(), body.to_owned()))
    }

    fn state(&self) -> String {
        let (status, body) = self.run("/n1", None, "30").unwrap();
        assert_eq!(status, 200, "{body}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        body["PowerState"].as_str().unwrap().to_owned()
    }

    fn reset(&self, kind: &str) -> u16 {
        let body = format!("{{\"ResetType\": \"{kind}\"}}");
        let path = "/n1/Actions/ComputerSystem.Reset";
        self.run(path, Some(&body), "30").unwrap().0
    }
}

fn bmc(f: &Fixture, python: &Path) -> RedfishBmc {
    start(&f.room, f.ids[0], python)
}

#[test]
fn curl_does_everything_to_one_machine_and_nothing_to_the_other() {
    let Some(python) = python() else {
        return;
    };
    let f = fixture();
    let bmc = bmc(&f, &python);
    let client = Client::new(&bmc, "sekret");
    let (status, systems) = client.run("", None, "30").unwrap();
    assert_eq!(status, 200);
    assert!(systems.contains("\"Members@odata.count\": 1"), "{systems}");
    assert_eq!(client.state(), "On");
    for (kind, did) in [
        ("ForceRestart", vec!["reset"]),
        ("Nmi", vec!["nmi"]),
        ("ForceOff", vec!["off"]),
        ("Nmi", vec![]),
        ("On", vec!["on"]),
        ("On", vec![]),
        ("PowerCycle", vec!["off", "on"]),
        ("PushPowerButton", vec!["soft off"]),
        ("PushPowerButton", vec!["on"]),
        ("GracefulShutdown", vec!["soft off"]),
    ] {
        assert_eq!(client.reset(kind), 204, "{kind}");
        assert_eq!(f.machines[0].took(), did, "{kind}");
    }
    assert_eq!(client.state(), "Off");
    assert_eq!(client.reset("Explode"), 400);
    let other = client.run("/n2", None, "30").unwrap();
    assert_eq!(other.0, 404);
    assert_eq!(f.machines[1].took(), NOTHING);
}

#[test]
fn a_wrong_login_an_unwilling_a_mute_and_a_broken_service_are_told_apart() {
    let Some(python) = python() else {
        return;
    };
    let f = fixture();
    let bmc = bmc(&f, &python);
    assert_eq!(Client::new(&bmc, "wrong").reset("ForceOff"), 401);
    let client = Client::new(&bmc, "sekret");
    f.bmc(|device| device.refuses_login = true);
    assert_eq!(client.reset("ForceOff"), 401);
    f.bmc(|device| device.mute = true);
    assert_eq!(client.run("/n1", None, "1"), Err(28), "curl's time-out");
    f.bmc(|device| device.garbage = true);
    assert_eq!(
        client.run("/n1", None, "30"),
        Err(1),
        "curl's unsupported protocol"
    );
    f.bmc(|device| device.drops_after = Some(0));
    assert_eq!(client.run("/n1", None, "30"), Err(52), "curl's empty answer");
    f.bmc(|_| {});
    assert_eq!(client.state(), "On");
    f.room.outlet(f.strip.outlet(1), Switch::Off).unwrap();
    assert_eq!(client.run("/n1", None, "1"), Err(28), "a BMC without mains");
    assert_eq!(f.machines[0].took(), ["off"]);
}

#[test]
fn a_slow_bmc_says_what_it_is_about_to_do() {
    let Some(python) = python() else {
        return;
    };
    let f = fixture();
    let bmc = bmc(&f, &python);
    let client = Client::new(&bmc, "sekret");
    let slow = |time| {
        let point = Point::Bmc(f.ids[0]);
        f.room.faults(|faults| faults.at(point).slow = time).unwrap();
    };
    slow(Duration::from_secs(3600));
    assert_eq!(client.reset("ForceOff"), 204);
    assert_eq!(client.state(), "PoweringOff");
    assert_eq!(f.machines[0].took(), NOTHING);
    // A new command takes the place of the one that is still to come.
    slow(Duration::ZERO);
    assert_eq!(client.reset("ForceRestart"), 204);
    assert_eq!(client.state(), "On");
    assert_eq!(f.machines[0].took(), ["reset"]);
}

#[test]
fn curl_switches_a_real_machine() {
    let Some(python) = python() else {
        return;
    };
    let Some(qemu) = Qemu::start() else {
        return;
    };
    let mut wiring = model::Wiring::default();
    let id = wiring.machine("n1", &[], model::Restore::StayOff).unwrap();
    let room = Room::new(wiring, vec![qemu.clone()]).unwrap();
    let bmc = start(&room, id, &python);
    let client = Client::new(&bmc, "sekret");
    assert_eq!(client.state(), "Off");
    assert_eq!(client.reset("On"), 204);
    assert!(qemu.is_on().unwrap());
    let before = qemu.resets();
    assert_eq!(client.reset("Nmi"), 204);
    assert_eq!(client.reset("PowerCycle"), 204);
    assert!(qemu.is_on().unwrap());
    assert!(qemu.resets() > before);
    assert_eq!(client.reset("ForceOff"), 204);
    assert!(!qemu.is_on().unwrap());
}
