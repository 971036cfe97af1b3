//! `redbutton-controller`: log, configuration, runtime, run, signals.
//!
//! Exit codes: 0 done, 1 failed, 64 the command line or the configuration is wrong.

mod args;
mod offline;

use std::io::IsTerminal;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use args::{Cli, Command, ServeArgs};
use clap::Parser;
use controller::{Config, Handle};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to tell it to when standard error is gone.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let config = match cli.configuration() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("redbutton-controller: {error:#}");
            return ExitCode::from(64);
        }
    };
    let done = start_log(&config).and_then(|()| {
        controller::harden();
        let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
        runtime.block_on(run(cli.command, config))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("redbutton-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(config: &Config) -> anyhow::Result<()> {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| config.log.filter.clone());
    let filter =
        tracing_subscriber::EnvFilter::try_new(&filter).with_context(|| format!("log.filter {filter:?}"))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = if config.log.json {
        log.json().try_init()
    } else {
        log.try_init()
    };
    started.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))
}

async fn run(command: Command, config: Config) -> anyhow::Result<()> {
    match command {
        Command::Init(args) => println!("{}", offline::init(args, config.state).await?),
        Command::Invite(args) => println!("{}", offline::invite(args, config.state).await?),
        Command::Ca(wish) => println!(
            "{}",
            offline::ca(wish, config.state, config.keys.renew_grace()).await?
        ),
        Command::Issue(issue) => println!("{}", offline::issue(issue, config.state).await?),
        Command::Backup { out, secrets } => {
            println!("{}", offline::backup(out, secrets, config.state).await?)
        }
        Command::Restore(args) => println!("{}", offline::restore(args, config.state).await?),
        Command::Software(which) => println!("{}", offline::software(which, config.state).await?),
        Command::Serve(ServeArgs { ready_file, .. }) => serve(config, ready_file.as_deref()).await?,
    }
    Ok(())
}

async fn serve(config: Config, ready_file: Option<&Path>) -> anyhow::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = CancellationToken::new();
    let handle = controller::serve(config, shutdown.clone()).await?;
    let Handle {
        people_addr,
        daemons_addr,
        ..
    } = &handle;
    let line = format!("ready people={people_addr} daemons={daemons_addr}\n");
    std::io::stdout()
        .write_all(line.as_bytes())
        .context("standard output")?;
    if let Some(path) = ready_file {
        // Renamed into place, so that whoever waits for it never reads half a line.
        let new = path.with_extension("new");
        std::fs::write(&new, &line)
            .and_then(|()| std::fs::rename(&new, path))
            .with_context(|| path.display().to_string())?;
    }
    tell_systemd(NotifyState::Ready);
    // The ping comes from the runtime that serves: if that hangs, systemd starts us again.
    let watchdog = sd_notify::watchdog_enabled().map(|period| period / 2);
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            () = tokio::time::sleep(watchdog.unwrap_or_default()), if watchdog.is_some() => {
                tell_systemd(NotifyState::Watchdog);
            }
        }
    }
    tracing::info!("going down");
    tell_systemd(NotifyState::Stopping);
    shutdown.cancel();
    handle.finished().await;
    Ok(())
}

/// Does nothing when systemd did not start us.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell systemd");
    }
}
