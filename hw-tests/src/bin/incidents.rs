//! `incidents [NUMBER…] [--list]`: replays incidents in order, one after the other, and sums up. `cargo xtask incidents` builds it and
//! runs it isolated from the machine.
//!
//! The last line is `incidents: passed=… partial=… failed=… skipped=…`; exit code 1 when one failed, 64 for usage.

use std::process::ExitCode;

use anyhow::{Result, bail};
use hw_tests::incident::{Counts, Incident, Outcome, artefacts, replays, run};

const USAGE: u8 = 64;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let chosen = match chosen(&words) {
        Ok(chosen) => chosen,
        Err(error) => {
            eprintln!("incidents: {error:#}");
            return ExitCode::from(USAGE);
        }
    };
    if words.iter().any(|word| word == "--list") {
        chosen.iter().for_each(|incident| list(incident));
        return ExitCode::SUCCESS;
    }
    match replay(&chosen) {
        Ok(counts) => {
            println!("{counts}");
            ExitCode::from(u8::from(!counts.is_good()))
        }
        Err(error) => {
            eprintln!("incidents: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// All, or those with these numbers.
fn chosen(words: &[String]) -> Result<Vec<&'static Incident>> {
    let mut numbers = Vec::new();
    for word in words.iter().filter(|word| *word != "--list") {
        match word.parse::<u8>() {
            Ok(number) if replays::all().iter().any(|known| known.number == number) => numbers.push(number),
            Ok(number) => bail!("no replay has the number {number}; --list shows those that there are"),
            Err(_) => bail!("{word:?} is neither a number nor --list"),
        }
    }
    Ok(replays::all()
        .iter()
        .filter(|incident| numbers.is_empty() || numbers.contains(&incident.number))
        .collect())
}

fn list(incident: &Incident) {
    println!("{:>3}  “{}” ({})", incident.number, incident.title, incident.date);
    for ask in incident.asks {
        let claim = ask.claim();
        match ask.lacks() {
            None => println!("       {claim}"),
            Some(lacks) => println!("       {claim} (not yet: {lacks})"),
        }
    }
    let needs: Vec<&str> = incident.needs.iter().map(|need| need.name).collect();
    println!("       needs {}", needs.join(", "));
}

fn replay(chosen: &[&Incident]) -> Result<Counts> {
    let folder = artefacts()?;
    let mut counts = Counts::default();
    let mut rows = Vec::new();
    for incident in chosen {
        let outcome = run(incident, &folder);
        println!("  {}", sentence(&outcome));
        counts.add(&outcome);
        rows.push(format!(
            "{:>3}  {:<24} {:<8} {}",
            incident.number,
            incident.title,
            outcome.word(),
            shortened(&outcome.reason())
        ));
    }
    println!("── sum");
    for row in rows {
        println!("{}", row.trim_end());
    }
    Ok(counts)
}

/// For a line of the table; all of it has been said above.
fn shortened(reason: &str) -> String {
    const ENOUGH: usize = 160;
    match reason.char_indices().nth(ENOUGH) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_owned(),
    }
}

fn sentence(outcome: &Outcome) -> String {
    match outcome.reason() {
        reason if reason.is_empty() => outcome.word().to_owned(),
        reason => format!("{}: {reason}", outcome.word()),
    }
}
