//! What several tests need of this machine.

use std::io::Write;
use std::path::Path;

/// A tmpfs of a given size, unmounted on every way out.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, with the reason printed, when this machine lets us mount nothing.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        let dir = tempfile::tempdir().expect("temp dir");
        let flags = nix::mount::MsFlags::MS_NOSUID | nix::mount::MsFlags::MS_NODEV;
        let options = format!("size={bytes}");
        match nix::mount::mount(
            Some("redbutton-test"),
            dir.path(),
            Some("tmpfs"),
            flags,
            Some(options.as_str()),
        ) {
            Ok(()) => Some(Self(dir)),
            Err(error) => {
                println!("skipped: cannot mount a tmpfs: {error}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves no byte free.
    pub(crate) fn fill(&self) {
        let mut file = std::fs::File::create(self.path().join("full")).expect("a file");
        let piece = [0; 4096];
        while file.write_all(&piece).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}
