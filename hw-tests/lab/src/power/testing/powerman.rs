//! The real powerman, as a stranger's opinion on our simulators.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::super::process::Process;
use super::eventually;

const SERVER: &str = "/usr/sbin/powermand";
const CLIENT: &str = "/usr/bin/powerman";

/// A powermand with one device, whose plugs 1 and 2 are n1 and n2.
pub(in super::super) struct Powerman {
    _server: Process,
    _folder: TempDir,
    address: SocketAddr,
}

impl Powerman {
    /// `None`, and a line that says why, when it is not installed.
    pub(in super::super) fn start(kind: &str, device: &str) -> Option<Self> {
        if !Path::new(SERVER).exists() {
            println!("skipped: {SERVER} is missing (apt-get install powerman)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        // Its own port must be known: it cannot say which one it took.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let config = folder.path().join("powerman.conf");
        let text = format!(
            "include \"/etc/powerman/{kind}.dev\"\nlisten \"{address}\"\n\
             device \"d\" \"{kind}\" \"{device}\"\nnode \"n1\" \"d\" \"1\"\nnode \"n2\" \"d\" \"2\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(SERVER);
        command.args(["--foreground", "--conf"]).arg(&config);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let server = Process::new(command.spawn().unwrap());
        let powerman = Self {
            _server: server,
            _folder: folder,
            address,
        };
        eventually("powermand listens", || {
            std::net::TcpStream::connect(address).is_ok()
        });
        Some(powerman)
    }

    /// What it says, on one line.
    pub(in super::super) fn ask(&self, arguments: &str) -> String {
        let mut command = Command::new(CLIENT);
        command.args(["-h", &self.address.to_string()]);
        let output = command.args(arguments.split(' ')).output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        // It lists what it does not know as an empty group, and breaks lines.
        let words: Vec<&str> = said.split_whitespace().collect();
        words
            .join(" ")
            .replace(" off: unknown:", "")
            .replace(" unknown:", "")
    }
}
