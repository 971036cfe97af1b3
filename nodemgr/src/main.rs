//! `redbutton-nodemgr`: the daemon on every node, and how unit files start slivers.

mod args;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use args::{Arguments, Command};
use clap::Parser;
use nodemgr::{Config, exec, keys, prepare, software};
use proto::SliceName;
use tokio_util::sync::CancellationToken;

/// Wrong arguments or a wrong configuration (sysexits.h).
const USAGE: u8 = 64;
/// Threads of the runtime. All work that blocks has threads of its own.
const THREADS: usize = 2;
/// Stack of each: all memory is locked, so what is asked for is what it costs.
const STACK: usize = 1 << 20;

fn main() -> ExitCode {
    let Arguments { config, command } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    match command {
        Command::Run => with_config(&config, daemon),
        Command::Join { token } => with_config(&config, |config| join(&token, &config)),
        Command::Guard(arguments) => {
            software::guard(&arguments).map_or_else(|e| fail(1, &e), |()| ExitCode::SUCCESS)
        }
        Command::Check => with_config(&config, |config| Ok(nodemgr::check(&config)?)),
        Command::Exec {
            socket,
            slice,
            command,
        } => match exec::socket(socket, &config) {
            Ok(socket) => start(&socket, &slice, &command),
            Err(error) => fail(USAGE, &error),
        },
    }
}

fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("redbutton-nodemgr: {error}");
    ExitCode::from(code)
}

fn with_config(path: &Path, then: impl FnOnce(Config) -> anyhow::Result<()>) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => return fail(USAGE, &error),
    };
    match then(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &format!("{error:#}")),
    }
}

fn join(token: &Path, config: &Config) -> anyhow::Result<()> {
    println!("{}", keys::join_blocking(token, &config.bundle)?);
    Ok(())
}

fn start(socket: &Path, slice: &SliceName, command: &[OsString]) -> ExitCode {
    let Some((program, arguments)) = command.split_first() else {
        return fail(USAGE, &"no command");
    };
    let error = exec::run(socket, slice, program, arguments);
    fail(error.exit_code(), &error)
}

fn daemon(config: Config) -> anyhow::Result<()> {
    software::launch(&config);
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("REDBUTTON_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // Before the first thread: it is for all of them.
    let prepared = prepare::process(Path::new("/proc"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_stack_size(STACK)
        // Only names are looked up there. Made now and kept, because a fork bomb lets nobody make any later.
        .max_blocking_threads(1)
        .thread_keep_alive(Duration::from_secs(u64::from(u32::MAX)))
        .on_thread_start(nodemgr::prepare_link_thread)
        .enable_all()
        .build()?;
    nodemgr::prepare_link_thread();
    runtime.block_on(async {
        tokio::task::spawn_blocking(|| ()).await?;
        let shutdown = CancellationToken::new();
        let _on_signal = tokio::spawn(nodemgr::stop_on_signal(shutdown.clone())?);
        Ok(nodemgr::run(config, prepared, shutdown).await?)
    })
}
