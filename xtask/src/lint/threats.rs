//! Every test that `docs/threat-model.md` names is there, so that the table cannot rot. Lines that say `no test yet`
//! are listed: they are known, not forgotten.
//!
//! A test is named as `` `path/of/file.rs::name` ``. Whether it runs is `cargo xtask test`'s business.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

const DOCUMENT: &str = "docs/threat-model.md";
const NONE: &str = "no test yet";

/// What the document says of its tests.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said<'a> {
    /// File and function, with the line of the document.
    tests: Vec<(usize, &'a str, &'a str)>,
    /// Lines that have none, with what is tried.
    untested: Vec<(usize, &'a str)>,
    /// Rows of a table that name neither.
    silent: Vec<usize>,
}

fn read(text: &str) -> Said<'_> {
    let mut said = Said::default();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let is_row = line.starts_with('|') && !line.starts_with("|---") && cells.first() != Some(&"tries");
        if !is_row {
            continue;
        }
        let before = said.tests.len();
        // Every second part lies between backticks.
        for quoted in line.split('`').skip(1).step_by(2) {
            if let Some((file, name)) = quoted.split_once("::").filter(|(file, _)| file.ends_with(".rs")) {
                said.tests.push((number, file, name));
            }
        }
        if line.contains(NONE) {
            said.untested
                .push((number, cells.first().copied().unwrap_or_default()));
        } else if said.tests.len() == before {
            said.silent.push(number);
        }
    }
    said
}

/// Whether a file's text defines this function.
fn defines(text: &str, name: &str) -> bool {
    let word = format!("fn {name}(");
    text.lines()
        .any(|line| line.trim_start().trim_start_matches("async ").starts_with(&word))
}

/// Complaints; prints what has no test.
///
/// # Errors
/// When the document cannot be read, or names no test at all.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(root.join(DOCUMENT)).context(DOCUMENT)?;
    let said = read(&text);
    if said.tests.is_empty() {
        bail!("{DOCUMENT} names no test");
    }
    for (line, tries) in &said.untested {
        println!("{DOCUMENT}:{line}: {NONE}: {tries}");
    }
    let mut complaints: Vec<String> = said
        .silent
        .iter()
        .map(|line| format!("{DOCUMENT}:{line}: names no test, and does not say `{NONE}`"))
        .collect();
    for (line, file, name) in &said.tests {
        let found = fs::read_to_string(root.join(file)).is_ok_and(|text| defines(&text, name));
        if !found {
            complaints.push(format!("{DOCUMENT}:{line}: there is no {file}::{name}"));
        }
    }
    Ok(complaints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_name_tests_or_say_that_there_is_none() {
        let text = "# Words with `a.rs::not_in_a_row`\n\
                    | tries | what stops it | what does not | test |\n\
                    |---|---|---|---|\n\
                    | knocks | a `lock` | | `link/tests/it/door.rs::shut`, `b.rs::too` |\n\
                    | floods | | all of it | no test yet |\n\
                    | lies | | | |\n";
        let said = read(text);
        assert_eq!(
            said.tests,
            [(4, "link/tests/it/door.rs", "shut"), (4, "b.rs", "too")]
        );
        assert_eq!(said.untested, [(5, "floods")]);
        assert_eq!(said.silent, [6]);
    }

    #[test]
    fn a_function_is_found_by_its_whole_name() {
        let text = "#[test]\nfn shut() {}\n    async fn shut_again() {}\n// fn commented()";
        assert!(defines(text, "shut") && defines(text, "shut_again"));
        assert!(!defines(text, "shu") && !defines(text, "again") && !defines(text, "commented"));
    }
}
