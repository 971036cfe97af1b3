//! Whether the processor may run guests itself. `/dev/kvm` may exist and refuse, or hang (LAB.md): only a kernel that
//! really said something counts, and the answer is kept for this boot of the machine.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Accel, Boot, Config, Guest};

/// What the first kernel line has; it comes within a second where it comes at all.
const FIRST_LINE: &str = "Linux version";
const CAP: Duration = Duration::from_secs(10);

impl Accel {
    /// The best that works here: `$REDBUTTON_LAB_ACCEL` (`tcg` or `kvm`) when it is set, else KVM where a probe boot
    /// of this kernel succeeds, else emulation. The finding is kept in `cache` until the next boot.
    ///
    /// # Errors
    /// When the variable is something else.
    pub fn choose(kernel: &Path, cache: &Path) -> Result<Self> {
        match std::env::var("REDBUTTON_LAB_ACCEL").as_deref() {
            Ok("tcg") => return Ok(Accel::Tcg),
            Ok("kvm") => return Ok(Accel::Kvm),
            Ok(other) => anyhow::bail!("REDBUTTON_LAB_ACCEL={other}: expected tcg or kvm"),
            Err(_) => {}
        }
        if !Path::new("/dev/kvm").exists() {
            return Ok(Accel::Tcg);
        }
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let kept = cache.join("accel");
        let text = fs::read_to_string(&kept).unwrap_or_default();
        if let Some(found) = text.strip_prefix(boot_id.trim()) {
            return Ok(if found.trim() == "kvm" {
                Accel::Kvm
            } else {
                Accel::Tcg
            });
        }
        let found = if probe(kernel).is_ok() {
            Accel::Kvm
        } else {
            Accel::Tcg
        };
        let word = if found == Accel::Kvm { "kvm" } else { "tcg" };
        // A cache that cannot be written costs another probe, nothing else.
        let _ = fs::write(&kept, format!("{} {word}\n", boot_id.trim()));
        Ok(found)
    }
}

fn probe(kernel: &Path) -> Result<()> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let initrd = folder.path().join("initrd");
    fs::write(&initrd, []).context("cannot write an empty initrd")?;
    let config = Config {
        boot: Some(Boot {
            kernel: kernel.to_owned(),
            initrd,
            append: "console=ttyS0".into(),
        }),
        memory: 256,
        accel: Accel::Kvm,
        ..Config::bare("probe", folder.path())
    };
    let recording = config.recording(0);
    let _guest = Guest::start(config)?;
    let deadline = Instant::now() + CAP;
    while !fs::read_to_string(&recording)
        .unwrap_or_default()
        .contains(FIRST_LINE)
    {
        anyhow::ensure!(Instant::now() < deadline, "KVM: no kernel within {CAP:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}
