//! Which kernel modules an image takes, in which order they load, and the index files that `modprobe` reads
//! (`modules.dep(5)`). A kernel package ships the modules but no index (its installation runs `depmod`), and an image
//! takes a tenth of them, so both are worked out here from what each module says about itself. Pure but for
//! [`index`], which walks the folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// A module's `key=value` facts.
pub(super) type Facts = Vec<(String, String)>;

/// A module that goes into the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    /// Below `/lib/modules/VERSION`, such as `kernel/drivers/net/veth.ko`.
    pub(super) path: String,
    /// Names of the modules that it uses directly.
    depends: Vec<String>,
    /// What else `modprobe` is asked for by the kernel or by udev.
    aliases: Vec<String>,
}

/// `-` and `_` are the same in the name of a module.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.trim_end_matches(".ko").replace('-', "_")
}

/// All modules under `/lib/modules/VERSION`, by name.
///
/// # Errors
/// When the folder cannot be read.
pub(super) fn index(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec!["kernel".to_owned()];
    while let Some(inside) = waiting.pop() {
        let path = folder.join(&inside);
        for entry in fs::read_dir(&path).with_context(|| format!("read folder {}", path.display()))? {
            let entry = entry.with_context(|| format!("read folder {}", path.display()))?;
            let inside = format!("{inside}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                waiting.push(inside);
            } else if inside.ends_with(".ko") {
                found.insert(name_of(&inside), inside);
            }
        }
    }
    Ok(found)
}

/// The wanted modules and all that they use, each behind what it uses: the order in which they load.
///
/// `index` gives a module's path by its name, `builtin` is the text of `modules.builtin` (a wanted module that is part
/// of the kernel itself is fine), `facts` reads the `.modinfo` of the module at a path.
///
/// # Errors
/// When there is no such module, or its facts cannot be read.
pub(super) fn choose(
    wanted: &[&str],
    index: &BTreeMap<String, String>,
    builtin: &str,
    facts: &dyn Fn(&str) -> Result<Facts>,
) -> Result<Vec<Module>> {
    let mut chosen = Vec::new();
    for name in wanted {
        let name = name.replace('-', "_");
        if index.contains_key(&name) {
            add(&name, index, facts, &mut chosen)?;
        } else if !builtin.lines().any(|line| name_of(line) == name) {
            bail!("module {name}: neither in the kernel's package nor part of the kernel");
        }
    }
    Ok(chosen)
}

/// The kernel's build refuses modules that use each other in a circle, so this ends.
fn add(
    name: &str,
    index: &BTreeMap<String, String>,
    facts: &dyn Fn(&str) -> Result<Facts>,
    chosen: &mut Vec<Module>,
) -> Result<()> {
    if chosen.iter().any(|module| name_of(&module.path) == name) {
        return Ok(());
    }
    let path = index
        .get(name)
        .with_context(|| format!("module {name}: not in the kernel's package"))?;
    let facts_here = facts(path).with_context(|| format!("module {name}"))?;
    let values = |key: &'static str| {
        facts_here
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, value)| value.as_str())
    };
    let depends: Vec<String> = values("depends")
        .flat_map(|list| list.split(','))
        .filter(|used| !used.is_empty())
        .map(|used| used.replace('-', "_"))
        .collect();
    for used in &depends {
        add(used, index, facts, chosen)?;
    }
    let aliases = values("alias").map(str::to_owned).collect();
    chosen.push(Module {
        path: path.clone(),
        depends,
        aliases,
    });
    Ok(())
}

/// `modules.dep` for modules in loading order: behind each module all that it uses, what loads first at the end.
pub(super) fn dep_text(chosen: &[Module]) -> String {
    let mut text = String::new();
    for (at, module) in chosen.iter().enumerate() {
        // What it uses stands before it; going backwards finds users before what they use.
        let mut used = module.depends.clone();
        let mut paths = Vec::new();
        for earlier in chosen[..at].iter().rev() {
            if used.contains(&name_of(&earlier.path)) {
                used.extend(earlier.depends.iter().cloned());
                paths.push(earlier.path.as_str());
            }
        }
        let gap = if paths.is_empty() { "" } else { " " };
        text.push_str(&format!("{}:{gap}{}\n", module.path, paths.join(" ")));
    }
    text
}

/// `modules.alias`: by these the kernel asks for a file system, a traffic class or a device's driver.
pub(super) fn alias_text(chosen: &[Module]) -> String {
    let of_one = |module: &Module| {
        let name = name_of(&module.path);
        module
            .aliases
            .iter()
            .map(|alias| format!("alias {alias} {name}\n"))
            .collect::<String>()
    };
    chosen.iter().map(of_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(path: &str) -> Result<Vec<(String, String)>> {
        let depends = match path {
            "kernel/net.ko" => "failover,virt-io",
            "kernel/failover.ko" => "ring",
            "kernel/virt-io.ko" => "ring",
            _ => "",
        };
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        Ok(vec![
            pair("depends", depends),
            pair("alias", &format!("for:{path}")),
            pair("license", "GPL"),
        ])
    }

    fn all() -> BTreeMap<String, String> {
        let paths = [
            "kernel/net.ko",
            "kernel/failover.ko",
            "kernel/virt-io.ko",
            "kernel/ring.ko",
            "kernel/other.ko",
        ];
        paths
            .iter()
            .map(|path| (name_of(path), (*path).to_owned()))
            .collect()
    }

    #[test]
    fn what_a_module_uses_loads_before_it_and_once() {
        let chosen = choose(
            &["net", "virt-io", "inside"],
            &all(),
            "kernel/inside.ko\n",
            &facts,
        )
        .unwrap();
        let paths: Vec<_> = chosen.iter().map(|module| module.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "kernel/ring.ko",
                "kernel/failover.ko",
                "kernel/virt-io.ko",
                "kernel/net.ko"
            ]
        );
        assert_eq!(
            dep_text(&chosen),
            "kernel/ring.ko:\n\
             kernel/failover.ko: kernel/ring.ko\n\
             kernel/virt-io.ko: kernel/ring.ko\n\
             kernel/net.ko: kernel/virt-io.ko kernel/failover.ko kernel/ring.ko\n"
        );
        assert!(alias_text(&chosen).contains("alias for:kernel/virt-io.ko virt_io\n"));
    }

    #[test]
    fn a_module_that_is_nowhere_is_an_error_with_its_name() {
        let error = choose(&["gone"], &all(), "kernel/inside.ko\n", &facts).unwrap_err();
        assert!(format!("{error:#}").contains("module gone"), "{error:#}");
    }
}
