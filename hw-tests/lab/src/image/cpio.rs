//! Archives for a guest's first root: the kernel unpacks `newc` cpio archives into its initramfs, any number of them
//! one behind the other, where a later one replaces what an earlier one brought. So a node's own files are a second
//! archive, appended to the image's.
//!
//! The same entries give the same bytes: entries are sorted by path, inode numbers count from 1, times are 0, the
//! owner is root. Folders that nobody added are made, with the mode that such a folder usually has. Format:
//! Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`.
//!
//! Not here: reading archives, hard links, compression (the guest would pay for it with its slow processor).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// File-type bits of a mode (`S_IFMT` and its values, `inode(7)`).
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// File type and permission bits.
    mode: u32,
    /// A file's content or a link's target.
    content: Vec<u8>,
    /// Major and minor number of a device node.
    device: (u32, u32),
}

/// An archive being put together. Paths are absolute or not, which makes no difference.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// An archive with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// A regular file; `mode` is its permission bits. Like all of these, it replaces what was at that path.
    pub fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> &mut Self {
        self.put(path, FILE | (mode & 0o7777), content.into(), (0, 0))
    }

    /// A folder with these permission bits.
    pub fn folder(&mut self, path: &str, mode: u32) -> &mut Self {
        self.put(path, FOLDER | (mode & 0o7777), Vec::new(), (0, 0))
    }

    /// A symbolic link at `path` that leads to `target`.
    pub fn link(&mut self, path: &str, target: &str) -> &mut Self {
        self.put(path, LINK | 0o777, target.as_bytes().to_vec(), (0, 0))
    }

    /// A device node. `mode` has its kind too (`S_IFCHR`, `S_IFBLK`).
    pub fn node(&mut self, path: &str, mode: u32, major: u32, minor: u32) -> &mut Self {
        self.put(path, mode, Vec::new(), (major, minor))
    }

    /// A file or link of this machine, with its own permission bits; a link stays a link.
    ///
    /// # Errors
    /// When it cannot be read, or is neither a file nor a link.
    pub fn copy(&mut self, path: &str, from: &Path) -> Result<&mut Self> {
        let meta = fs::symlink_metadata(from).with_context(|| format!("stat {}", from.display()))?;
        if meta.file_type().is_symlink() {
            let target = fs::read_link(from).with_context(|| format!("read link {}", from.display()))?;
            let target = target.as_os_str().as_bytes().to_vec();
            return Ok(self.put(path, LINK | 0o777, target, (0, 0)));
        }
        if !meta.is_file() {
            bail!("{}: neither a file nor a link", from.display());
        }
        let content = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        Ok(self.file(path, meta.permissions().mode(), content))
    }

    /// All files, links and folders under a folder of this machine, below `path`.
    ///
    /// # Errors
    /// When something cannot be read, has a name that is not UTF-8, or is a device, pipe or socket.
    pub fn copy_tree(&mut self, path: &str, from: &Path) -> Result<&mut Self> {
        for entry in fs::read_dir(from).with_context(|| format!("read folder {}", from.display()))? {
            let entry = entry.with_context(|| format!("read folder {}", from.display()))?;
            let Ok(name) = entry.file_name().into_string() else {
                bail!("{}: a name that is not UTF-8", entry.path().display());
            };
            let inside = format!("{path}/{name}");
            if entry
                .file_type()
                .with_context(|| format!("stat {}", entry.path().display()))?
                .is_dir()
            {
                let mode = entry
                    .metadata()
                    .with_context(|| format!("stat {}", entry.path().display()))?
                    .mode();
                self.folder(&inside, mode);
                self.copy_tree(&inside, &entry.path())?;
            } else {
                self.copy(&inside, &entry.path())?;
            }
        }
        Ok(self)
    }

    /// What was put into it, sorted, without `/` in front.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether something was put at this path.
    pub fn has(&self, path: &str) -> bool {
        self.entries.contains_key(&clean(path))
    }

    /// The archive. A multiple of 512 bytes long, so that another one may follow at once.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut all = self.entries.clone();
        for path in self.entries.keys() {
            for (at, _) in path.match_indices('/') {
                all.entry(path[..at].to_owned())
                    .or_insert_with(|| implied(&path[..at]));
            }
        }
        let mut out = Vec::new();
        for (inode, (path, entry)) in all.iter().enumerate() {
            // An inode number fits: an archive of four thousand million entries fits nowhere.
            write_entry(
                &mut out,
                u32::try_from(inode + 1).unwrap_or(u32::MAX),
                path,
                entry,
            );
        }
        let end = Entry {
            mode: 0,
            content: Vec::new(),
            device: (0, 0),
        };
        write_entry(&mut out, 0, "TRAILER!!!", &end);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }

    fn put(&mut self, path: &str, mode: u32, content: Vec<u8>, device: (u32, u32)) -> &mut Self {
        self.entries.insert(
            clean(path),
            Entry {
                mode,
                content,
                device,
            },
        );
        self
    }
}

/// A path without `/` at its ends, doubled `/` or `.` steps: what two callers write for the same file is one entry.
fn clean(path: &str) -> String {
    path.split('/')
        .filter(|step| !step.is_empty() && *step != ".")
        .collect::<Vec<_>>()
        .join("/")
}

/// A folder that nobody added. The kernel sets the mode of a folder that exists already, so an appended archive with
/// a file in `/tmp` or `/root` would change these; hence the modes that they have in the image.
fn implied(path: &str) -> Entry {
    // A full guest's files come below `overlay/` (`guest/full/init`).
    let mode = match path.strip_prefix("overlay/").unwrap_or(path) {
        "root" | "root/.ssh" => 0o700,
        "tmp" | "var/tmp" => 0o1777,
        _ => 0o755,
    };
    Entry {
        mode: FOLDER | mode,
        content: Vec::new(),
        device: (0, 0),
    }
}

/// A header of 13 numbers of 8 hexadecimal digits behind the magic, the name with a final NUL, the content; name and
/// content each padded to 4 bytes.
fn write_entry(out: &mut Vec<u8>, inode: u32, path: &str, entry: &Entry) {
    let links = if entry.mode & FOLDER != 0 && entry.mode & FILE == 0 {
        2
    } else {
        1
    };
    let (major, minor) = entry.device;
    let numbers = [
        inode as usize,
        entry.mode as usize,
        0, // owner
        0, // group
        links,
        0, // time
        entry.content.len(),
        0, // device it lies on, major
        0, // and minor
        major as usize,
        minor as usize,
        path.len() + 1,
        0, // checksum: not used by this format
    ];
    out.extend_from_slice(b"070701");
    for number in numbers {
        out.extend_from_slice(format!("{number:08X}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(&entry.content);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks an archive as the kernel does: (mode, path, content) of each entry.
    fn read(bytes: &[u8]) -> Vec<(u32, String, Vec<u8>)> {
        let mut at = 0;
        let mut found = Vec::new();
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let number = |n: usize| {
                let digits = &bytes[at + 6 + n * 8..at + 14 + n * 8];
                usize::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            };
            let (mode, size, name) = (number(1), number(6), number(11));
            let path = String::from_utf8(bytes[at + 110..at + 110 + name - 1].to_vec()).unwrap();
            if path == "TRAILER!!!" {
                return found;
            }
            let start = (at + 110 + name).next_multiple_of(4);
            found.push((
                u32::try_from(mode).unwrap(),
                path,
                bytes[start..start + size].to_vec(),
            ));
            at = (start + size).next_multiple_of(4);
        }
    }

    #[test]
    fn entries_come_sorted_with_their_folders_first() {
        let mut archive = Archive::new();
        archive
            .file("/etc/x/name", 0o640, "n")
            .link("bin/sh", "busybox")
            .file("/root/.ssh/keys", 0o600, "k");
        let found = read(&archive.to_bytes());
        let listed: Vec<_> = found
            .iter()
            .map(|(mode, path, _)| (*mode, path.as_str()))
            .collect();
        assert_eq!(
            listed,
            [
                (0o040_755, "bin"),
                (0o120_777, "bin/sh"),
                (0o040_755, "etc"),
                (0o040_755, "etc/x"),
                (0o100_640, "etc/x/name"),
                (0o040_700, "root"),
                (0o040_700, "root/.ssh"),
                (0o100_600, "root/.ssh/keys"),
            ]
        );
        assert_eq!(found[1].2, b"busybox");
        assert_eq!(found[4].2, b"n");
    }

    #[test]
    fn the_same_entries_in_another_order_are_the_same_bytes() {
        let (mut one, mut two) = (Archive::new(), Archive::new());
        one.file("a", 0o644, "1")
            .folder("d", 0o700)
            .node("dev/null", 0o020_666, 1, 3);
        two.node("/dev//null", 0o020_666, 1, 3)
            .folder("./d/", 0o700)
            .file("/a", 0o644, "1");
        assert_eq!(one.to_bytes(), two.to_bytes());
        assert_eq!(one.to_bytes().len() % 512, 0);
    }

    #[test]
    fn a_later_entry_replaces_an_earlier_one() {
        let mut archive = Archive::new();
        archive.file("a", 0o644, "old").file("/a", 0o600, "new");
        assert_eq!(
            read(&archive.to_bytes()),
            [(0o100_600, "a".to_owned(), b"new".to_vec())]
        );
    }

    #[test]
    fn a_tree_is_copied_with_modes_and_links() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("sub")).unwrap();
        fs::write(tree.path().join("sub/run"), "#!").unwrap();
        fs::set_permissions(tree.path().join("sub/run"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("sub/run", tree.path().join("link")).unwrap();
        let mut archive = Archive::new();
        archive.copy_tree("opt", tree.path()).unwrap();
        let found = read(&archive.to_bytes());
        assert!(found.contains(&(0o120_777, "opt/link".to_owned(), b"sub/run".to_vec())));
        assert!(found.contains(&(0o100_755, "opt/sub/run".to_owned(), b"#!".to_vec())));
    }
}
