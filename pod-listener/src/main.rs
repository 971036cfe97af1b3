//! `redbutton-pod-listener`: obeys the signed ping of death.

use std::process::ExitCode;

use pod_listener::{Arguments, HELP, RunError, Task, check, run, undo};

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("redbutton-pod-listener: {message}");
            return ExitCode::from(64);
        }
    };
    let done = match arguments.task {
        Task::Help => {
            print!("{HELP}");
            Ok(true)
        }
        Task::Version => {
            println!("redbutton-pod-listener {}", env!("CARGO_PKG_VERSION"));
            Ok(true)
        }
        Task::Run => run(&arguments).map(|()| true),
        Task::Undo => undo(&arguments).map(|()| true),
        Task::Check => check(&arguments).map(|(text, fine)| {
            print!("{text}");
            fine
        }),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn fail(error: &RunError) -> ExitCode {
    eprintln!("redbutton-pod-listener: {error}");
    ExitCode::from(error.exit_code())
}
