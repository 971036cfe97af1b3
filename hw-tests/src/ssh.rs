//! The peer: what people do today. An OpenSSH server of our own on loopback, and many logins that kill by hand.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// A running `sshd` with keys made for it; dropped, it is gone.
pub struct SshPeer {
    server: Child,
    folder: PathBuf,
    port: u16,
}

impl SshPeer {
    /// Starts `sshd` from Debian's `openssh-server` on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When it is not installed or does not listen within 10 s.
    pub fn start(folder: &Path) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        for key in ["host", "user"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.join(key))
                .status()
                .context("ssh-keygen (Debian package openssh-client)")?;
            ensure!(made.success(), "ssh-keygen failed");
        }
        std::fs::copy(folder.join("user.pub"), folder.join("authorized"))?;
        // sshd insists on its privilege separation folder.
        std::fs::create_dir_all("/run/sshd").context("/run/sshd")?;
        let config = folder.join("sshd_config");
        let text = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {host}\nAuthorizedKeysFile {keys}\nPidFile none\nUsePAM no\n\
             PermitRootLogin prohibit-password\nStrictModes no\nMaxStartups 1000\nMaxSessions 1000\nUseDNS no\n",
            host = folder.join("host").display(),
            keys = folder.join("authorized").display(),
        );
        std::fs::write(&config, text)?;
        let server = Command::new("/usr/sbin/sshd")
            .arg("-D")
            .arg("-f")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("/usr/sbin/sshd (Debian package openssh-server)")?;
        let peer = Self {
            server,
            folder: folder.to_owned(),
            port,
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > deadline {
                bail!("sshd does not listen on port {port}");
            }
            std::thread::yield_now();
        }
        Ok(peer)
    }

    /// Logs in once for each process, all in parallel, and kills it by hand. Returns the time until the last
    /// login has ended with success.
    ///
    /// # Errors
    /// When a login or its kill fails.
    pub fn kill_by_hand(&self, victims: &[u32]) -> Result<Duration> {
        let begun = Instant::now();
        let logins: Vec<Child> = victims
            .iter()
            .map(|pid| {
                Command::new("ssh")
                    .args([
                        "-F",
                        "none",
                        "-o",
                        "BatchMode=yes",
                        "-o",
                        "StrictHostKeyChecking=no",
                    ])
                    .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
                    .arg("-i")
                    .arg(self.folder.join("user"))
                    .args([
                        "-p",
                        &self.port.to_string(),
                        "root@127.0.0.1",
                        &format!("kill -9 {pid}"),
                    ])
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .spawn()
                    .context("ssh (Debian package openssh-client)")
            })
            .collect::<Result<_>>()?;
        for mut login in logins {
            ensure!(login.wait()?.success(), "an ssh login failed");
        }
        Ok(begun.elapsed())
    }
}

impl Drop for SshPeer {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
