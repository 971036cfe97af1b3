//! Files that nobody can hold in their head: over 800 lines, or a program's `src/main.rs` over 130 (STYLE.md).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const FILE: usize = 800;
const MAIN: usize = 130;

/// Folders with code that nobody writes by hand, or with no code of ours.
const SKIPPED: &[&str] = &["gen", "target", ".git"];

/// The files that are too long.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    descend(root, root, &mut complaints)?;
    Ok(complaints)
}

fn descend(root: &Path, folder: &Path, complaints: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let path = entry.path();
        let kind = entry
            .file_type()
            .with_context(|| format!("cannot look at {}", path.display()))?;
        if kind.is_dir() {
            if !SKIPPED.iter().any(|name| *name == entry.file_name()) {
                descend(root, &path, complaints)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let program = path.ends_with("src/main.rs");
            let (lines, limit) = (text.lines().count(), if program { MAIN } else { FILE });
            if lines > limit {
                let shown = path.strip_prefix(root).unwrap_or(&path).display();
                complaints.push(format!("{shown} has {lines} lines, at most {limit} are allowed"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_named_and_generated_ones_are_not() {
        let root = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir_all(root.path().join("a/src/gen")).expect("folders");
        fs::create_dir_all(root.path().join("a/tests")).expect("folders");
        let write = |name: &str, lines: usize| {
            fs::write(root.path().join(name), "//\n".repeat(lines)).expect("a file");
        };
        write("a/src/lib.rs", 800);
        write("a/src/long.rs", 801);
        write("a/src/main.rs", 131);
        write("a/tests/main.rs", 131);
        write("a/src/gen/huge.rs", 5000);
        let mut complaints = check(root.path()).expect("a readable tree");
        complaints.sort();
        assert_eq!(
            complaints,
            [
                "a/src/long.rs has 801 lines, at most 800 are allowed",
                "a/src/main.rs has 131 lines, at most 130 are allowed"
            ]
        );
    }
}
