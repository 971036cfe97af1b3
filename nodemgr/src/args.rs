//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use nodemgr::{config, software};
use proto::SliceName;

/// Keeps a node's slivers in hand: starts, freezes and kills them as the holds say.
#[derive(Debug, Parser)]
#[command(name = "redbutton-nodemgr", version = software::version())]
pub(crate) struct Arguments {
    /// The configuration. `exec` takes only the socket's place from it, and the default without such a file.
    #[arg(long, global = true, default_value = config::DEFAULT_PATH)]
    pub(crate) config: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon.
    Run,
    /// Start a command as part of a slice: `exec princeton_codeen -- /usr/bin/codeen`.
    Exec {
        /// The daemon's socket, instead of the configured one.
        #[arg(long)]
        socket: Option<PathBuf>,
        /// The slice.
        slice: SliceName,
        /// What to run, with its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Make this machine the node that a join token is for.
    Join {
        /// The token's file, from `redbutton node enroll` or `rekey`; - reads it from standard input.
        #[arg(value_name = "FILE|-")]
        token: PathBuf,
    },
    /// Check the configuration and say what this kernel gives.
    Check,
    /// Watch a new version until it is attached.
    #[command(hide = true)]
    Guard(software::GuardArgs),
}
