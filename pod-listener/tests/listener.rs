//! The real program, real packets over loopback. Nothing here can restart the machine: the program gets a `/proc` of
//! plain files, and where it may call reboot(2) it does so in a PID namespace of its own, which is what ends. Every
//! listener on a machine sees every packet, so each test has a node of its own, and only the one in that namespace
//! trusts a key that may reboot.

use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use pod_wire::{Action, Answer, Counter, Refusal, Request, Status, TagSecret};
use sha2::{Digest, Sha256};
use socket2::{Domain, Protocol, Socket, Type};

const CAP: Duration = Duration::from_secs(20);

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn secret() -> TagSecret {
    TagSecret::new([0x11; 16])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn boot() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot id");
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    let mut boot = [0; 16];
    for (byte, at) in boot.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
    }
    boot
}

fn request(node: u8, action: Action, nonce: u8) -> Request {
    let mut id = [0; 8];
    id.copy_from_slice(&Sha256::digest(key().verifying_key().as_bytes())[..8]);
    Request {
        action,
        key: id,
        node: [node; 16],
        boot: boot(),
        issued_at_ms: 0,
        nonce: [nonce; 16],
    }
}

/// A listener with its folder; ends with it.
struct Running {
    child: Child,
    dir: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `None` (and says so) where raw sockets may not be had.
fn start(node: u8, in_a_namespace: bool) -> Option<Running> {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: raw ICMP sockets need root");
        return None;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    for (name, text) in [
        ("proc/sysrq-trigger", ""),
        ("proc/sys/kernel/panic", "0\n"),
        ("proc/self/mounts", ""),
        ("proc/self/cgroup", "0::/\n"),
        ("proc/self/oom_score_adj", ""),
        ("slivers/cgroup.kill", ""),
        ("watchdog", ""),
    ] {
        fs::create_dir_all(path(name).parent().expect("below")).expect("made");
        fs::write(path(name), text).expect("written");
    }
    let digits = hex(&[node; 16]);
    let keys = format!(
        "format = 1\nnode = \"{}-{}-{}-{}-{}\"\nsecrets = [\"{}\"]\n[[keys]]\npublic = \"{}\"\n\
         actions = [\"dry-run\", \"crash\", \"kill-slivers\"{}]\n",
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..],
        hex(&[0x11; 16]),
        hex(key().verifying_key().as_bytes()),
        if in_a_namespace { ", \"reboot\"" } else { "" },
    );
    fs::write(path("keys.toml"), keys).expect("written");
    fs::set_permissions(path("keys.toml"), fs::Permissions::from_mode(0o600)).expect("set");
    let program = env!("CARGO_BIN_EXE_redbutton-pod-listener");
    let line = match in_a_namespace {
        true => vec!["unshare", "--pid", "--fork", program],
        false => vec![program],
    };
    let child = Command::new(line[0])
        .args(&line[1..])
        .args(["run", "--leave-host", "--keys"])
        .arg(path("keys.toml"))
        .arg("--state")
        .arg(path("state"))
        .arg("--slivers")
        .arg(path("slivers"))
        .arg("--watchdog")
        .arg(path("watchdog"))
        .arg("--proc")
        .arg(path("proc"))
        .stderr(Stdio::from(fs::File::create(path("log")).expect("made")))
        .spawn()
        .expect("started");
    let running = Running { child, dir };
    running.until("armed", |running| running.log().contains("armed: "));
    Some(running)
}

impl Running {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = fs::File::open(self.path("log")) {
            let _ = file.read_to_string(&mut text);
        }
        text
    }

    fn until(&self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + CAP;
        while !is(self) {
            assert!(Instant::now() < end, "never {what}: {}", self.log());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn counted(&self, what: Counter) -> u64 {
        let head = fs::read(self.path("state/seen")).expect("the state");
        pod_wire::read_state_head(&head).expect("its head").1[what as usize]
    }
}

/// Sends pings and reads what comes back.
struct Pinger {
    socket: Socket,
    to: SocketAddr,
}

impl Pinger {
    fn to(address: IpAddr) -> Self {
        let (domain, protocol) = match address {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol)).expect("a raw socket");
        socket.set_read_timeout(Some(CAP)).expect("set");
        Self {
            socket,
            to: SocketAddr::new(address, 0),
        }
    }

    fn send(&self, payload: &[u8]) {
        let v4 = self.to.is_ipv4();
        let mut message = vec![if v4 { 8 } else { 128 }, 0, 0, 0, 0x12, 0x34, 0, 1];
        message.extend_from_slice(payload);
        if v4 {
            let mut sum: u32 = message
                .chunks(2)
                .map(|p| u32::from(p[0]) << 8 | u32::from(*p.get(1).unwrap_or(&0)))
                .sum();
            while sum >> 16 != 0 {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            message[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        }
        self.socket.send_to(&message, &self.to.into()).expect("sent");
    }

    /// The next answer of a listener; the kernel's echoes are passed over.
    fn answer(&self) -> Answer {
        loop {
            let mut buffer = [0; 2_048];
            let length = (&self.socket).read(&mut buffer).expect("an answer in time");
            let packet = &buffer[..length];
            let begin = if self.to.is_ipv4() {
                usize::from(packet[0] & 0xf) * 4
            } else {
                0
            };
            let message = &packet[begin..];
            let reply = if self.to.is_ipv4() { 0 } else { 129 };
            if message[0] == reply
                && message[4..8] == [0x12, 0x34, 0, 1]
                && let Ok(answer) = Answer::open(&message[8..], &secret())
            {
                return answer;
            }
        }
    }

    fn ask(&self, payload: &[u8]) -> Answer {
        self.send(payload);
        self.answer()
    }
}

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

#[test]
fn over_ipv4_and_ipv6_it_is_here_armed_and_refuses() {
    let Some(running) = start(1, false) else { return };
    for to in [V4, V6] {
        let pinger = Pinger::to(to);
        let here = pinger.ask(&Request::probe([1; 16], 0, [to.is_ipv4().into(); 16], &secret()));
        assert_eq!(
            (here.status, here.boot, here.node),
            (Status::Here, boot(), [1; 16])
        );
        assert!(here.uptime_ms > 0);
        let armed = pinger.ask(&request(1, Action::DryRun, 9).sign(&key(), &secret()));
        assert_eq!(armed.status, Status::Armed);
        let other = Request {
            boot: [3; 16],
            ..request(1, Action::Reboot, 9)
        };
        let refused = pinger.ask(&other.sign(&key(), &secret()));
        assert_eq!(refused.status, Status::Refused(Refusal::Boot));
    }
    assert_eq!(running.counted(Counter::Probes), 2);
    assert_eq!(running.counted(Counter::OtherBoot), 2);
    assert!(
        running.log().contains("refused reboot: other boot"),
        "{}",
        running.log()
    );
    assert_eq!(
        fs::read_to_string(running.path("proc/sysrq-trigger")).expect("there"),
        ""
    );
}

#[test]
fn slivers_are_killed_and_a_crash_comes_back_once_a_packet() {
    let Some(running) = start(2, false) else { return };
    let pinger = Pinger::to(V4);
    let kill = request(2, Action::KillSlivers, 1).sign(&key(), &secret());
    for _ in 0..3 {
        assert_eq!(pinger.ask(&kill).status, Status::Accepted);
    }
    running.until("killed", |running| {
        fs::read_to_string(running.path("slivers/cgroup.kill")).is_ok_and(|text| text == "1")
    });
    assert_eq!(running.counted(Counter::KillSlivers), 1);
    assert_eq!(running.counted(Counter::Repeats), 2);
    assert_eq!(
        pinger
            .ask(&request(2, Action::Crash, 2).sign(&key(), &secret()))
            .status,
        Status::Accepted
    );
    running.until("crashed", |running| {
        fs::read_to_string(running.path("proc/sysrq-trigger")).is_ok_and(|text| text == "c")
    });
    assert_eq!(
        fs::read_to_string(running.path("proc/sys/kernel/panic")).expect("there"),
        "10\n".replace('\n', "")
    );
}

#[test]
fn a_reboot_ends_the_namespace_and_is_answered_before() {
    let Some(mut running) = start(3, true) else {
        return;
    };
    let accepted = Pinger::to(V4).ask(&request(3, Action::Reboot, 3).sign(&key(), &secret()));
    assert_eq!(accepted.status, Status::Accepted);
    let end = Instant::now() + CAP;
    let status = loop {
        if let Some(status) = running.child.try_wait().expect("asked") {
            break status;
        }
        assert!(
            Instant::now() < end,
            "reboot(2) was not called: {}",
            running.log()
        );
        std::thread::park_timeout(Duration::from_millis(5));
    };
    // pid_namespaces(7): reboot(2) with RESTART ends the namespace's init with SIGHUP.
    assert_eq!(
        status.signal(),
        Some(libc::SIGHUP),
        "{status:?} {}",
        running.log()
    );
}

#[test]
fn a_restarted_listener_remembers_what_it_obeyed_and_a_second_one_is_refused() {
    let Some(mut running) = start(4, false) else {
        return;
    };
    let kill = request(4, Action::KillSlivers, 4).sign(&key(), &secret());
    assert_eq!(Pinger::to(V4).ask(&kill).status, Status::Accepted);
    running.until("killed", |running| running.counted(Counter::KillSlivers) == 1);
    let program = env!("CARGO_BIN_EXE_redbutton-pod-listener");
    let again = |running: &Running| {
        let mut command = Command::new(program);
        command
            .args(["run", "--leave-host", "--keys"])
            .arg(running.path("keys.toml"))
            .arg("--state")
            .arg(running.path("state"))
            .arg("--slivers")
            .arg(running.path("slivers"))
            .arg("--proc")
            .arg(running.path("proc"));
        command
    };
    let second = again(&running).output().expect("run");
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{words}");
    assert!(words.contains("another pod-listener runs"), "{words}");
    let check = Command::new(program)
        .args(["check", "--keys"])
        .arg(running.path("keys.toml"))
        .arg("--state")
        .arg(running.path("state"))
        .output()
        .expect("run");
    let told = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(
        told.contains("listener  runs") && told.contains("pod.seccomp"),
        "{told}"
    );
    assert!(
        told.contains("kill-slivers") && told.contains("firewall"),
        "{told}"
    );
    running.child.kill().expect("killed");
    running.child.wait().expect("ended");
    fs::write(running.path("slivers/cgroup.kill"), "").expect("cleared");
    running.child = again(&running)
        .stderr(Stdio::from(fs::File::create(running.path("log")).expect("made")))
        .spawn()
        .expect("started");
    running.until("armed", |running| running.log().contains("armed: "));
    assert_eq!(Pinger::to(V4).ask(&kill).status, Status::Accepted);
    running.until("repeated", |running| running.counted(Counter::Repeats) == 1);
    assert_eq!(
        fs::read_to_string(running.path("slivers/cgroup.kill")).expect("there"),
        ""
    );
}

#[test]
fn keys_that_others_can_read_stop_the_start_with_64() {
    let dir = tempfile::tempdir().expect("a directory");
    let keys = dir.path().join("keys.toml");
    fs::write(&keys, "format = 1\n").expect("written");
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o644)).expect("set");
    let output = Command::new(env!("CARGO_BIN_EXE_redbutton-pod-listener"))
        .args(["run", "--keys"])
        .arg(&keys)
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("mode 644"));
}
