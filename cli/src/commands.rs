//! The commands: each takes its arguments, asks the controller, makes a view and hands it to `out`.

mod approvals;
mod audit;
mod breakglass;
mod direct;
mod keys;
mod kit;
mod login;
mod node;
mod order;
mod people;
mod press;
mod restore;
mod rollout;
mod shell;
mod site;
mod slice;
mod tokens;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use clap::error::ErrorKind;
use proto::Identity;
use tokio::time::Instant;

pub(crate) use kit::KitView;

use crate::args::{AuditCommand, Cli, Command, Global, KitCommand};
use crate::bundle::{self, BundleFileError};
use crate::client::{Client, Dialer};
use crate::credentials::Credentials;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;

/// Runs one command line (with the program's name first) and returns the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error, &args),
    };
    let out = Out {
        json: cli.global.json,
        quiet: cli.global.quiet,
    };
    let exit = match dispatch(cli, out) {
        Ok(exit) => exit,
        Err(failure) => {
            out.failure(&failure);
            failure.exit()
        }
    };
    exit.code()
}

/// Help and version are results; everything else is a usage error, as JSON if JSON was asked for.
fn not_parsed(error: &clap::Error, args: &[OsString]) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed pipe: `redbutton --help | head`.
            let _ = error.print();
            Exit::Done.code()
        }
        _ if args.iter().any(|arg| arg == "--json") => {
            let text = error.render().to_string();
            let message = text
                .lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned();
            Out {
                json: true,
                quiet: true,
            }
            .failure(&Failure::Usage(message));
            Exit::Usage.code()
        }
        _ => {
            let _ = error.print();
            Exit::Usage.code()
        }
    }
}

fn dispatch(cli: Cli, out: Out) -> Result<Exit, Failure> {
    let Cli { global, command } = cli;
    match command {
        // What needs no controller needs no bundle either.
        Command::Completions { shell } => shell::completions(shell).map(|()| Exit::Done),
        Command::Man { directory } => shell::man(&directory, out).map(|()| Exit::Done),
        Command::Audit(AuditCommand::Verify(args)) => audit::verify(&args, out),
        Command::SignRestore { backup, out: file } => restore::sign(&backup, &file, &global, out),
        Command::Breakglass(command) => breakglass::run(command, out),
        Command::Kit(KitCommand::Show) => kit::show(&global, out),
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|source| Failure::File {
                    what: "starting".to_owned(),
                    source,
                })?;
            runtime.block_on(Box::pin(connected(command, global, out)))
        }
    }
}

async fn connected(command: Command, global: Global, out: Out) -> Result<Exit, Failure> {
    if let Command::Login(args) = command {
        let exit = login::login(args, &global, out).await?;
        kit::after_login(&global, out).await;
        return Ok(exit);
    }
    let context = Context::new(global, out)?;
    if context.global.direct.is_some() {
        direct::announce(&context).await?;
    }
    let done = Box::pin(online(command, &context)).await;
    // At the end: a press waits for nothing.
    context.dialer.renew_by_the_way().await;
    done
}

async fn online(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::KillSlice(target) => slice::kill(target, context).await,
        Command::KillAll(args) => approvals::kill_all(args, context).await,
        Command::StopAll(args) => approvals::stop_all(args, context).await,
        Command::Approve(args) => approvals::approve(args, context).await,
        Command::Approvals(command) => approvals::run(command, context).await,
        Command::Slice(command) => slice::run(command, context).await,
        Command::Node(command) => node::run(command, context).await,
        Command::Order(command) => order::run(command, context).await,
        Command::Invite(args) => keys::invite(args, context).await,
        Command::Kit(command) => kit::run(command, context).await,
        Command::Whoami => people::whoami(context).await,
        Command::Site(command) => site::run(command, context).await,
        Command::People(command) => people::run(command, context).await,
        Command::Rollout(command) => rollout::run(command, context).await,
        Command::Audit(command) => audit::run(command, context).await,
        Command::Completions { .. }
        | Command::Man { .. }
        | Command::Login(_)
        | Command::Breakglass(_)
        | Command::SignRestore { .. } => Ok(Exit::Done),
    }
}

/// Where the bundle lies.
fn bundle_path(global: &Global) -> Result<PathBuf, Failure> {
    Ok(match &global.bundle {
        Some(path) => path.clone(),
        None => bundle::default_path(std::env::var_os("HOME").map(PathBuf::from).as_deref())?,
    })
}

/// What every command that talks to the controller has.
struct Context {
    global: Global,
    dialer: Dialer,
    out: Out,
}

impl Context {
    fn new(global: Global, out: Out) -> Result<Self, Failure> {
        let path = bundle_path(&global)?;
        let bundle = bundle::read(&path)?;
        if matches!(bundle.identity(), Ok(Identity::Invite(_))) {
            return Err(BundleFileError::Invite { path }.into());
        }
        let own = Credentials::new(bundle)?;
        direct::check_reach(&own, global.direct.is_some())?;
        let dialer = match &global.direct {
            Some(target) => direct::dialer(target, own, &global)?,
            None => Dialer::new(
                own,
                Some(path),
                global.controller.clone(),
                global.server_name.clone(),
            )?,
        };
        Ok(Self { global, dialer, out })
    }

    async fn client(&self) -> Result<Client, Failure> {
        let deadline = Instant::now() + self.global.timeout;
        Ok(self.dialer.connect(deadline, self.global.timeout).await?)
    }
}

/// The largest page that is asked for.
const PAGE: u32 = 500;
/// More pages than any fleet has: a controller that never ends its list must not keep us for ever.
const MOST_PAGES: usize = 10_000;

/// All pages of a list, or the first `limit` items; the flag says that more exist. `fetch` gets a page's token
/// and returns its items and the next token.
async fn pages<T>(
    limit: usize,
    mut fetch: impl AsyncFnMut(String, u32) -> Result<(Vec<T>, String), Failure>,
) -> Result<(Vec<T>, bool), Failure> {
    let mut all = Vec::new();
    let mut token = String::new();
    for _ in 0..MOST_PAGES {
        let missing = u32::try_from(limit - all.len()).unwrap_or(u32::MAX);
        let (items, next) = fetch(token, missing.min(PAGE)).await?;
        all.extend(items);
        if all.len() > limit || (all.len() == limit && !next.is_empty()) {
            all.truncate(limit);
            return Ok((all, true));
        }
        if next.is_empty() {
            return Ok((all, false));
        }
        token = next;
    }
    Ok((all, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn numbers(limit: usize, total: u32) -> (Vec<u32>, bool) {
        pages(limit, async |token: String, size: u32| {
            let from: u32 = token.parse().unwrap_or(0);
            let to = total.min(from + size.min(7));
            let next = if to < total { to.to_string() } else { String::new() };
            Ok(((from..to).collect(), next))
        })
        .await
        .expect("numbers")
    }

    #[tokio::test]
    async fn every_page_is_fetched_up_to_the_limit() {
        assert_eq!(numbers(usize::MAX, 20).await, ((0..20).collect(), false));
        assert_eq!(numbers(20, 20).await, ((0..20).collect(), false));
        assert_eq!(numbers(10, 20).await, ((0..10).collect(), true));
        assert_eq!(numbers(7, 20).await, ((0..7).collect(), true));
        assert_eq!(numbers(5, 0).await, (vec![], false));
    }

    #[tokio::test]
    async fn a_list_without_end_ends() {
        let endless = pages(usize::MAX, async |_, _| Ok((vec![()], "again".to_owned()))).await;
        assert_eq!(
            endless.map(|(items, more)| (items.len(), more)).ok(),
            Some((MOST_PAGES, true))
        );
    }
}
