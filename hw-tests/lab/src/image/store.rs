//! The cache of images: a folder for each, named after the digest of what it is made from.
//!
//! ```text
//! CACHE/.lock-small            flock: two builders of a kind wait for each other
//! CACHE/.new-small             an image being built; removed by the next builder
//! CACHE/small-DIGEST/          a finished image, put here by one rename, never changed
//! CACHE/small.RECIPE           names the image last built by that recipe
//! ```
//! The digest covers the recipe (programs, scripts, lists) and the exact packages. The recipe alone is known without
//! apt and without a network: so a test finds its image by the pointer, and a checkout with other scripts does not
//! get an image that it would not have built.
//!
//! A folder appears by a rename after everything in it is on the disk, so what has its final name is whole. Not
//! here: guarding an image in use against removal. QEMU has read or opened its files by then, and an open file stays.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest as _, Sha256};

use super::Kind;

/// How many images of a kind stay.
const KEPT: usize = 2;

/// Hexadecimal digits of a digest in the name of a file.
const DIGITS: usize = 16;

/// SHA-256 in hexadecimal.
pub(super) fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The cache folder: `$REDBUTTON_LAB_CACHE`, else `/var/cache/redbutton-lab`.
pub fn cache() -> PathBuf {
    std::env::var_os("REDBUTTON_LAB_CACHE").map_or_else(|| "/var/cache/redbutton-lab".into(), PathBuf::from)
}

fn short(digest: &str) -> &str {
    digest.get(..DIGITS).unwrap_or(digest)
}

fn pointer(cache: &Path, kind: Kind, recipe: &str) -> PathBuf {
    cache.join(format!("{}.{}", kind.name(), short(recipe)))
}

/// The folder of the image that this recipe built last.
///
/// # Errors
/// When there is none.
pub(super) fn find(cache: &Path, kind: Kind, recipe: &str) -> Result<PathBuf> {
    let pointer = pointer(cache, kind, recipe);
    let name = match fs::read_to_string(&pointer) {
        Ok(name) => name,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = kind.name();
            bail!(
                "{}: no {name} image of this recipe was built yet: run `lab-image {name}`",
                cache.display()
            )
        }
        Err(error) => return Err(error).with_context(|| format!("read {}", pointer.display())),
    };
    let name = name.trim();
    if !name.starts_with(kind.name()) || name.contains('/') {
        bail!(
            "{}: expected the name of a folder, got {name:?}",
            pointer.display()
        );
    }
    let folder = cache.join(name);
    if !folder.join("manifest").is_file() {
        bail!(
            "{}: names {name}, which is gone: run `lab-image {}`",
            pointer.display(),
            kind.name()
        );
    }
    Ok(folder)
}

/// Held by the one who builds images of a kind.
#[derive(Debug)]
pub(super) struct Builder {
    cache: PathBuf,
    kind: Kind,
    _lock: Flock<File>,
}

impl Builder {
    /// Waits until nobody else builds this kind in this cache.
    pub(super) fn wait(cache: &Path, kind: Kind, say: &mut dyn FnMut(&str)) -> Result<Self> {
        fs::create_dir_all(cache).with_context(|| format!("make folder {}", cache.display()))?;
        let path = cache.join(format!(".lock-{}", kind.name()));
        let open = || File::options().create(true).append(true).open(&path);
        let file = open().with_context(|| format!("open {}", path.display()))?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => {
                say("waiting for another builder");
                Flock::lock(file, FlockArg::LockExclusive)
                    .map_err(|(_, error)| error)
                    .with_context(|| format!("lock {}", path.display()))?
            }
            Err((_, error)) => return Err(error).with_context(|| format!("lock {}", path.display())),
        };
        Ok(Self {
            cache: cache.to_owned(),
            kind,
            _lock: lock,
        })
    }

    /// The image made from exactly this manifest: the one that is there, or one that `make` now builds in the empty
    /// folder it is given. Afterwards the recipe's pointer names it and older images are gone.
    pub(super) fn image(
        &self,
        recipe: &str,
        manifest: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let name = format!("{}-{}", self.kind.name(), short(&digest(manifest)));
        let folder = self.cache.join(&name);
        if !folder.is_dir() {
            let new = self.cache.join(format!(".new-{}", self.kind.name()));
            if new.exists() {
                fs::remove_dir_all(&new).with_context(|| format!("remove {}", new.display()))?;
            }
            fs::create_dir(&new).with_context(|| format!("make folder {}", new.display()))?;
            let made = make(&new).and_then(|()| write(&new.join("manifest"), manifest.as_bytes()));
            if let Err(error) = made {
                // The first error counts; the next builder removes what stays.
                let _ = fs::remove_dir_all(&new);
                return Err(error);
            }
            sync(&new)?;
            fs::rename(&new, &folder).with_context(|| format!("rename to {}", folder.display()))?;
        }
        // Used now, so not among the old ones.
        File::open(&folder)
            .and_then(|open| open.set_modified(SystemTime::now()))
            .with_context(|| format!("touch {}", folder.display()))?;
        let pointer = pointer(&self.cache, self.kind, recipe);
        let new = self.cache.join(format!(".new-{}-pointer", self.kind.name()));
        write(&new, format!("{name}\n").as_bytes())?;
        fs::rename(&new, &pointer).with_context(|| format!("rename to {}", pointer.display()))?;
        File::open(&self.cache)
            .and_then(|open| open.sync_all())
            .context("sync the cache's folder")?;
        self.prune()?;
        Ok(folder)
    }

    /// Removes all but the last images of this kind, and pointers that lead nowhere.
    fn prune(&self) -> Result<()> {
        let (mut images, mut pointers) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.cache).with_context(|| format!("read {}", self.cache.display()))? {
            let entry = entry.with_context(|| format!("read {}", self.cache.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("{}-", self.kind.name())) {
                let used = entry.metadata().and_then(|meta| meta.modified());
                images.push((used.with_context(|| format!("stat {name}"))?, entry.path()));
            } else if name.starts_with(&format!("{}.", self.kind.name())) {
                pointers.push(entry.path());
            }
        }
        images.sort();
        for (_, old) in images.iter().rev().skip(KEPT) {
            fs::remove_dir_all(old).with_context(|| format!("remove {}", old.display()))?;
        }
        for pointer in pointers {
            let name = fs::read_to_string(&pointer).with_context(|| format!("read {}", pointer.display()))?;
            if !self.cache.join(name.trim()).is_dir() {
                fs::remove_file(&pointer).with_context(|| format!("remove {}", pointer.display()))?;
            }
        }
        Ok(())
    }
}

/// Writes a file and waits until it is on the disk.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<()> {
    let written =
        File::create(path).and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()));
    written.with_context(|| format!("write {}", path.display()))
}

/// Waits until the files of a folder, and their names, are on the disk.
fn sync(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read folder {}", folder.display()))? {
        let path = entry
            .with_context(|| format!("read folder {}", folder.display()))?
            .path();
        File::open(&path)
            .and_then(|file| file.sync_all())
            .with_context(|| format!("sync {}", path.display()))?;
    }
    File::open(folder)
        .and_then(|open| open.sync_all())
        .with_context(|| format!("sync {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(cache: &Path, recipe: &str, manifest: &str) -> Result<PathBuf> {
        let builder = Builder::wait(cache, Kind::Small, &mut |_| ()).unwrap();
        builder.image(recipe, manifest, |folder| {
            write(&folder.join("made"), manifest.as_bytes())
        })
    }

    #[test]
    fn an_image_is_found_by_its_recipe_only() {
        let cache = tempfile::tempdir().unwrap();
        assert!(find(cache.path(), Kind::Small, "r1").is_err());
        let built = build(cache.path(), "r1", "packages").unwrap();
        assert_eq!(find(cache.path(), Kind::Small, "r1").unwrap(), built);
        assert!(find(cache.path(), Kind::Small, "r2").is_err());
        assert!(find(cache.path(), Kind::Full, "r1").is_err());
        assert_eq!(fs::read_to_string(built.join("manifest")).unwrap(), "packages");
    }

    #[test]
    fn what_is_there_is_not_built_again() {
        let cache = tempfile::tempdir().unwrap();
        let built = build(cache.path(), "r1", "packages").unwrap();
        let builder = Builder::wait(cache.path(), Kind::Small, &mut |_| ()).unwrap();
        assert_eq!(
            builder.image("r1", "packages", |_| bail!("built again")).unwrap(),
            built
        );
    }

    #[test]
    fn a_build_that_fails_leaves_the_old_image_in_use() {
        let cache = tempfile::tempdir().unwrap();
        let built = build(cache.path(), "r1", "packages").unwrap();
        let builder = Builder::wait(cache.path(), Kind::Small, &mut |_| ()).unwrap();
        let failed = builder.image("r1", "newer packages", |folder| {
            write(&folder.join("half"), b"")?;
            bail!("no network")
        });
        assert_eq!(failed.unwrap_err().to_string(), "no network");
        assert_eq!(find(cache.path(), Kind::Small, "r1").unwrap(), built);
    }

    #[test]
    fn what_a_dead_builder_left_is_built_anew() {
        let cache = tempfile::tempdir().unwrap();
        fs::create_dir(cache.path().join(".new-small")).unwrap();
        fs::write(cache.path().join(".new-small/half"), "").unwrap();
        let built = build(cache.path(), "r1", "packages").unwrap();
        assert!(built.join("made").exists() && !built.join("half").exists());
    }

    #[test]
    fn the_last_two_stay_and_no_pointer_leads_nowhere() {
        let cache = tempfile::tempdir().unwrap();
        let built: Vec<_> = (0..3)
            .map(|n| build(cache.path(), &format!("r{n}"), &format!("p{n}")).unwrap())
            .collect();
        assert!(!built[0].exists() && built[1].exists() && built[2].exists());
        assert!(!pointer(cache.path(), Kind::Small, "r0").exists());
        assert!(find(cache.path(), Kind::Small, "r1").is_ok());
    }

    #[test]
    fn a_second_builder_waits_for_the_first() {
        let cache = tempfile::tempdir().unwrap();
        let first = Builder::wait(cache.path(), Kind::Small, &mut |_| ()).unwrap();
        let (said, hears) = std::sync::mpsc::channel();
        let path = cache.path().to_owned();
        let second = std::thread::spawn(move || {
            Builder::wait(&path, Kind::Small, &mut |_| said.send("waits").unwrap()).unwrap();
        });
        assert_eq!(
            hears.recv_timeout(std::time::Duration::from_secs(20)).unwrap(),
            "waits"
        );
        assert!(!second.is_finished());
        drop(first);
        second.join().unwrap();
    }
}
