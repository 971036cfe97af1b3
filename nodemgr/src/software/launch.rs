//! What the packaged program does first: becomes the program that the ledger names.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::place::Place;
use super::{PACKAGED, SELF, guard, version};
use crate::Config;

/// Becomes the program that is to run here, if it is not this one. Before any thread exists and before anything is
/// opened: what follows is another program with our pid, our arguments and nothing else of ours.
///
/// Returns when this program is to run itself: nothing else was chosen, or nothing else can be run.
pub fn launch(config: &Config) {
    if std::env::var_os(SELF).is_some() {
        return;
    }
    let place = Place::below(&config.state_dir);
    if !place.exists() {
        return;
    }
    loop {
        let started = place.change(|ledger| ledger.start(version(), |program| place.whole(program)));
        let (program, ledger) = match started {
            Ok((Some(program), ledger)) => (program, ledger),
            Ok((None, _)) => return,
            Err(error) => {
                eprintln!("redbutton-nodemgr: the packaged program runs: {error}");
                return;
            }
        };
        if let Some(trial) = &ledger.trial
            && let Err(error) = guard::leave_behind(config, ledger.attempt, trial.deadline_ms)
        {
            // Its starts are still counted; only a program that hangs would not be noticed here.
            eprintln!(
                "redbutton-nodemgr: no guard for version {}: {error}",
                program.version
            );
        }
        eprintln!(
            "redbutton-nodemgr: version {} ({:.12}) runs instead of the package's {}",
            program.version,
            program.sha256,
            version()
        );
        let error = Command::new(place.program(&program.sha256))
            .args(std::env::args_os().skip(1))
            .env(SELF, &program.sha256)
            .env(PACKAGED, version())
            .exec();
        let why = format!("it cannot be run: {error}");
        eprintln!("redbutton-nodemgr: version {}: {why}", program.version);
        if let Err(error) = place.change(|ledger| ledger.leave(&why)) {
            eprintln!("redbutton-nodemgr: the packaged program runs: {error}");
            return;
        }
    }
}
