//! `lab-hog fds|forks|memory|cpu|disk …`: a slice that runs away, for lab guests. See [`lab::hog`].

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::hog;

const USAGE: &str = "usage: lab-hog fds AT_MOST | forks COUNT SECONDS | memory MIB | cpu THREADS SECONDS [real-time] | disk PATH MIB [root]";

fn number(word: &str) -> Result<u64> {
    word.parse()
        .with_context(|| format!("{word:?} is no number; {USAGE}"))
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let seconds = |word: &str| number(word).map(Duration::from_secs);
    match words.as_slice() {
        ["fds", at_most] => hog::descriptors(number(at_most)?),
        ["forks", count, life] => hog::forks(u32::try_from(number(count)?)?, seconds(life)?),
        ["memory", mib] => hog::memory(usize::try_from(number(mib)?)?),
        ["cpu", threads, life] => hog::cpu(u32::try_from(number(threads)?)?, seconds(life)?, false),
        ["cpu", threads, life, "real-time"] => {
            hog::cpu(u32::try_from(number(threads)?)?, seconds(life)?, true)
        }
        ["disk", path, mib] => hog::disk(Path::new(path), number(mib)?, false),
        ["disk", path, mib, "root"] => hog::disk(Path::new(path), number(mib)?, true),
        _ => bail!("{USAGE}"),
    }
}
