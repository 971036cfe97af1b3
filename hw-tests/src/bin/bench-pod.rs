//! `cargo xtask bench pod`: from the packet to the reboot decision, with the CPU taken and under a forged flood.
//!
//! A dry-run goes through every check of a reboot, so its round trip is the decision and the way back. Four hogs run
//! for each processor throughout. Flood: forged packets that pass the kernel's filter, as fast as one thread sends
//! them. Peers in the same run: a plain thread that verifies the signature of every packet and answers (what one would
//! write first), and what people do today: a new ssh login that runs a command.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ed25519_dalek::SigningKey;
use hw_tests::fleet::{program, wait_for};
use hw_tests::measure::{cpu_time, median, percentile};
use hw_tests::ssh::SshPeer;
use pod_sender::key_id;
use pod_wire::{Action, Answer, Received, Request, Status, TagSecret};
use socket2::{Domain, Protocol, Socket, Type};

const SAMPLES: usize = 1_000;
const FLOODED: usize = 300;
/// Forged packets whose cost is measured.
const FORGED: u64 = 100_000;
const LOGINS: usize = 10;
/// How long one answer may take before it counts as lost.
const LOST: Duration = Duration::from_secs(5);

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn secret() -> TagSecret {
    TagSecret::new([0x11; 16])
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    if let Some("naive") = arguments.next().as_deref() {
        return naive();
    }
    let folder = tempfile::tempdir()?;
    let boot = boot_id()?;
    let hogs: Vec<Ended> = (0..4 * std::thread::available_parallelism()?.get())
        .map(|_| {
            let hog = Command::new("sh").args(["-c", "while :; do :; done"]).spawn();
            hog.map(Ended).context("sh")
        })
        .collect::<Result<_>>()?;

    let listener = listener(folder.path())?;
    let pid = listener.0.id();
    let mut quiet = round_trips(1, boot, SAMPLES)?;
    let cost = forged_cost(pid, 1)?;
    let flooded = flooded(1, boot)?;
    let rss = locked_kib(pid)?;
    drop(listener);

    let naive = Ended(Command::new(std::env::current_exe()?).arg("naive").spawn()?);
    // It answers as soon as it listens.
    let mut naive_quiet = round_trips(2, boot, SAMPLES)?;
    let naive_cost = forged_cost(naive.0.id(), 2)?;
    drop(naive);

    let ssh = SshPeer::start(folder.path())?;
    let mut logins = Vec::new();
    for _ in 0..LOGINS {
        let victim = Ended(Command::new("sleep").arg("1000").spawn().context("sleep")?);
        logins.push(ssh.kill_by_hand(&[victim.0.id()])?.as_secs_f64() * 1e6);
    }
    drop(hogs);

    let p50 = percentile(&mut quiet, 0.5);
    let p99 = percentile(&mut quiet, 0.99);
    let max = percentile(&mut quiet, 1.0);
    let mut under = flooded;
    let (flood_p50, flood_p99) = (percentile(&mut under, 0.5), percentile(&mut under, 0.99));
    println!(
        "{:<34} {:>10} {:>10} {:>10}",
        "round trip with CPU hogs, us", "p50", "p99", "max"
    );
    println!("{:<34} {p50:>10.0} {p99:>10.0} {max:>10.0}", "pod-listener");
    println!(
        "{:<34} {flood_p50:>10.0} {flood_p99:>10.0} {:>10.0}",
        "pod-listener, forged flood",
        percentile(&mut under, 1.0)
    );
    println!(
        "{:<34} {:>10.0} {:>10.0} {:>10.0}",
        "plain thread, verifies every packet",
        percentile(&mut naive_quiet, 0.5),
        percentile(&mut naive_quiet, 0.99),
        percentile(&mut naive_quiet, 1.0)
    );
    println!(
        "{:<34} {:>10.0}   ({:.0} times slower)",
        "ssh login and a command",
        median(&mut logins),
        median(&mut logins) / p50
    );
    println!(
        "CPU a forged packet: {:.2} us, a plain thread that verifies {:.2} us",
        cost * 1e6,
        naive_cost * 1e6
    );
    println!(
        "pod: p50_us={p50:.0} p99_us={p99:.0} max_us={max:.0} flood_delay_ratio={:.2} flood_cpu_ratio={:.3} rss_kib={rss}",
        flood_p50 / p50,
        cost / naive_cost
    );
    Ok(())
}

fn boot_id() -> Result<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(*uuid::Uuid::parse_str(text.trim())?.as_bytes())
}

fn node(number: u8) -> [u8; 16] {
    [number; 16]
}

/// The real program, release build, with its process prepared and the host left alone.
fn listener(folder: &Path) -> Result<Ended> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let keys = folder.join("pod.toml");
    std::fs::write(
        &keys,
        format!(
            "format = 1\nnode = \"{}\"\nsecrets = [\"{}\"]\n[[keys]]\npublic = \"{}\"\nactions = [\"dry-run\"]\n",
            uuid::Uuid::from_bytes(node(1)),
            hex(&[0x11; 16]),
            hex(key().verifying_key().as_bytes())
        ),
    )?;
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600))?;
    let log = folder.join("pod.log");
    let child = Command::new(program("redbutton-pod-listener")?)
        .args(["run", "--leave-host", "--keys"])
        .arg(&keys)
        .arg("--state")
        .arg(folder.join("pod"))
        .arg("--slivers")
        .arg(folder.join("none"))
        .stderr(Stdio::from(std::fs::File::create(&log)?))
        .spawn()
        .context("redbutton-pod-listener")?;
    let child = Ended(child);
    wait_for("an armed listener", || {
        std::fs::read_to_string(&log)
            .ok()
            .filter(|text| text.contains("armed: "))
            .map(drop)
    })?;
    Ok(child)
}

fn socket() -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).context("a raw socket")?;
    socket.set_read_timeout(Some(LOST))?;
    socket.set_recv_buffer_size(4 << 20)?;
    Ok(socket)
}

fn loopback() -> socket2::SockAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0).into()
}

fn ping(payload: &[u8]) -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, 0x77, 0x77, 0, 1];
    message.extend_from_slice(payload);
    message
}

fn dry_run(node_number: u8, boot: [u8; 16], nonce: u64) -> Request {
    let mut fresh = [0; 16];
    fresh[..8].copy_from_slice(&nonce.to_be_bytes());
    Request {
        action: Action::DryRun,
        key: key_id(&key().verifying_key()),
        node: node(node_number),
        boot,
        issued_at_ms: 0,
        nonce: fresh,
    }
}

/// Microseconds from sending a signed dry-run to its answer, one after the other. Slower than the listener's bound on
/// signatures lets through is waited for, not counted.
fn round_trips(node_number: u8, boot: [u8; 16], samples: usize) -> Result<Vec<f64>> {
    let socket = socket()?;
    let mut taken = Vec::with_capacity(samples);
    let mut buffer = [0; 2_048];
    let mut nonce = u64::from(node_number) << 32;
    let give_up = Instant::now() + Duration::from_secs(100);
    while taken.len() < samples {
        ensure!(Instant::now() < give_up, "only {} answers came", taken.len());
        nonce += 1;
        let request = dry_run(node_number, boot, nonce);
        let packet = ping(&request.sign(&key(), &secret()));
        let sent = Instant::now();
        socket.send_to(&packet, &loopback())?;
        let answer = loop {
            let length = match (&socket).read(&mut buffer) {
                Ok(length) => length,
                // Lost in a flooded queue: asked again.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break None,
                Err(error) => return Err(error.into()),
            };
            let message = &buffer[20.min(length)..length];
            if let Some(payload) = message.get(8..)
                && let Ok(answer) = Answer::open(payload, &secret())
                && answer.nonce == request.nonce
            {
                break Some(answer);
            }
        };
        let took = sent.elapsed();
        match answer.map(|answer| answer.status) {
            Some(Status::Armed) => taken.push(took.as_secs_f64() * 1e6),
            // Its budget of signatures is 20 a second: a pause as a sender would make it.
            Some(_) => std::thread::park_timeout(Duration::from_millis(60)),
            None => {}
        }
    }
    Ok(taken)
}

/// CPU seconds of the process for each forged packet that passes the kernel's filter.
fn forged_cost(pid: u32, node_number: u8) -> Result<f64> {
    let socket = socket()?;
    let forged = ping(
        &dry_run(node_number, [9; 16], 1).sign(&SigningKey::from_bytes(&[1; 32]), &TagSecret::new([1; 16])),
    );
    let before = cpu_time(pid)?;
    for sent in 0..FORGED {
        socket.send_to(&forged, &loopback())?;
        // Slow enough that its queue does not overflow: every packet counts.
        if sent % 64 == 63 {
            std::thread::park_timeout(Duration::from_micros(500));
        }
    }
    std::thread::park_timeout(Duration::from_millis(200));
    Ok((cpu_time(pid)? - before).as_secs_f64() / FORGED as f64)
}

/// Round trips while one thread sends forged packets as fast as it can.
fn flooded(node_number: u8, boot: [u8; 16]) -> Result<Vec<f64>> {
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let flood = {
        let (stop, sent) = (stop.clone(), sent.clone());
        let socket = socket()?;
        let forged = ping(
            &dry_run(node_number, [9; 16], 1)
                .sign(&SigningKey::from_bytes(&[1; 32]), &TagSecret::new([1; 16])),
        );
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if socket.send_to(&forged, &loopback()).is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    };
    let begun = Instant::now();
    let taken = round_trips(node_number, boot, FLOODED);
    stop.store(true, Ordering::Relaxed);
    let _ = flood.join();
    println!(
        "flood: {:.0} forged packets a second",
        sent.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
    );
    taken
}

/// Resident and locked.
fn locked_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .trim()
                    .strip_suffix(" kB")?
                    .trim()
                    .parse::<u64>()
                    .ok()
            })
            .with_context(|| format!("{name} of {pid}"))
    };
    let (resident, locked) = (field("VmRSS:")?, field("VmLck:")?);
    println!("resident {resident} KiB, locked {locked} KiB");
    Ok(resident)
}

/// What one would write first: a thread that reads pings, verifies each and answers.
fn naive() -> Result<()> {
    let socket = socket()?;
    socket.set_read_timeout(None)?;
    let verifying = key().verifying_key();
    let mut buffer = [0; 2_048];
    loop {
        let length = (&socket).read(&mut buffer)?;
        let message = &buffer[20.min(length)..length];
        let Some(payload) = message.get(8..).filter(|_| message[0] == 8) else {
            continue;
        };
        let Ok(received) = Received::parse(payload) else {
            continue;
        };
        if received.request().node != node(2) || !received.is_signed(&verifying) {
            continue;
        }
        let request = received.request();
        let answer = Answer {
            action: request.action,
            status: Status::Armed,
            uptime_ms: 0,
            node: request.node,
            boot: request.boot,
            clock_ms: 0,
            nonce: request.nonce,
        };
        let mut reply = ping(&answer.seal(&secret()));
        reply[0] = 0;
        reply[4..8].copy_from_slice(&message[4..8]);
        socket.send_to(&reply, &loopback())?;
    }
}
