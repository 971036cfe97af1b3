//! `redbutton`: press the button, and see what became of it.

use std::process::ExitCode;

use rustls::crypto::aws_lc_rs;

fn main() -> ExitCode {
    // First of all: the whole workspace uses this one provider, and a second one would panic at first use. An
    // error means that it is installed already.
    let _ = aws_lc_rs::default_provider().install_default();
    ExitCode::from(cli::run(std::env::args_os()))
}
