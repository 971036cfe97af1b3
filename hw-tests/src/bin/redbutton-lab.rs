//! `redbutton-lab serve N` keeps a lab that a person plays with; `redbutton-lab ask WORDS…` talks to it. Started by
//! `cargo xtask lab`, which puts it where it cannot reach this machine. See [`hw_tests::resident`].

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use hw_tests::resident;

/// Exit code when this machine has not what it takes, as automake and meson have it.
const CANNOT: u8 = 77;

fn run(words: &[&str]) -> Result<u8> {
    match words {
        ["serve", "--folder", folder, nodes] => {
            let nodes = nodes
                .parse()
                .with_context(|| format!("{nodes:?} is no number of nodes"))?;
            resident::serve(Path::new(folder), nodes)
        }
        ["ask", "--folder", folder, words @ ..] => resident::ask(Path::new(folder), words),
        ["demo"] => match hw_tests::lab::unable() {
            Some(reason) => {
                println!("skipped: {reason}");
                Ok(CANNOT)
            }
            None => hw_tests::story::play().map(|()| 0),
        },
        _ => bail!("usage: redbutton-lab serve --folder FOLDER NODES | ask --folder FOLDER WORDS… | demo"),
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("redbutton-lab: {error:#}");
            ExitCode::from(1)
        }
    }
}
