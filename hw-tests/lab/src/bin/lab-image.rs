//! `lab-image small|full [--cache DIR]`: the image of the packages that are current now, built if it is not in the
//! cache. Progress goes to standard error, the image's folder to standard output.

use std::path::PathBuf;
use std::process::ExitCode;

use lab::image::{self, Kind};

fn main() -> ExitCode {
    let Some((kind, cache)) = arguments(std::env::args().skip(1)) else {
        eprintln!("usage: lab-image small|full [--cache DIR]");
        return ExitCode::from(64);
    };
    match image::build(&cache, kind, &mut |line| {
        eprintln!("lab-image {}: {line}", kind.name())
    }) {
        Ok(image) => {
            println!("{}", image.folder.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("lab-image {}: {error:#}", kind.name());
            ExitCode::FAILURE
        }
    }
}

fn arguments(mut words: impl Iterator<Item = String>) -> Option<(Kind, PathBuf)> {
    let kind = match words.next()?.as_str() {
        "small" => Kind::Small,
        "full" => Kind::Full,
        _ => return None,
    };
    let cache = match words.next().as_deref() {
        None => image::cache(),
        Some("--cache") => PathBuf::from(words.next()?),
        Some(_) => return None,
    };
    words.next().is_none().then_some((kind, cache))
}
