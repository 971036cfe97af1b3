//! Completions and manual pages.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::Failure;
use crate::out::Out;

/// Prints the completions for a shell.
pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "redbutton", &mut script);
    // As it is: these are our own words, and a shell's script needs its tabs.
    match std::io::stdout().write_all(&script) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(Failure::Output),
    }
}

/// Writes one manual page for each command.
pub(super) fn man(directory: &Path, out: Out) -> Result<(), Failure> {
    let failed = |source| Failure::File {
        what: format!("directory {}", directory.display()),
        source,
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(failed)?;
    out.note(&format!("manual pages are in {}", directory.display()));
    Ok(())
}
