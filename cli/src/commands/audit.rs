//! `redbutton audit …`

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use audit::{Draft, Entry, Hash, Head, lines};
use proto::v1;
use serde::Serialize;

use super::{Context, PAGE};
use crate::args::{AuditCommand, VerifyArgs, WitnessArg};
use crate::client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;
use crate::render;
use crate::text;
use crate::view;
use crate::when::Time;
use crate::witness::{self, Heads};

const EXPORTING: &str = "exporting the audit";

/// `audit verify --json`
#[derive(Serialize)]
struct Verified {
    verified: bool,
    entries: u64,
    /// Where the chain ends, for the next `--witness`.
    head: String,
    witnesses: usize,
    witnesses_before_start: usize,
    /// Whose signature was checked.
    witnesses_signed: usize,
}

/// Checks an exported file; needs no controller.
pub(super) fn verify(args: &VerifyArgs, out: Out) -> Result<Exit, Failure> {
    let VerifyArgs {
        file,
        witnesses,
        ca,
        start,
    } = args;
    let roots = match ca {
        None => None,
        Some(path) => {
            let what = || format!("roots {}", path.display());
            let pem =
                std::fs::read_to_string(path).map_err(|source| Failure::File { what: what(), source })?;
            let roots = trust::Roots::from_pem(&pem);
            Some(roots.map_err(|error| Failure::Usage(format!("{}: {error}", what())))?)
        }
    };
    let mut heads = Heads::default();
    let mut from_files = 0;
    for one in witnesses {
        match one {
            WitnessArg::Head(head) => heads.heads.push(*head),
            WitnessArg::File(path) => {
                let before = heads.heads.len();
                witness::read(path, roots.as_ref(), &mut heads)?;
                from_files += heads.heads.len() - before;
            }
        }
    }
    let what = || format!("audit file {}", file.display());
    let opened = File::open(file).map_err(|source| Failure::File { what: what(), source })?;
    let found =
        audit::verify_lines(BufReader::new(opened), *start, &heads.heads).map_err(|error| match error {
            lines::LinesError::Read { line, source } => Failure::File {
                what: format!("{}, line {line}", what()),
                source,
            },
            broken => Failure::Audit(format!("{}: {broken}", what())),
        })?;
    let view = Verified {
        verified: true,
        entries: found.entries,
        head: found.head.to_string(),
        witnesses: found.witnesses,
        witnesses_before_start: found.before_start,
        witnesses_signed: heads.signed,
    };
    out.result(&view, |_| {
        let mut page = format!(
            "{} form one chain\nhead: {}\n",
            text::count(view.entries, "entry", "entries"),
            view.head
        );
        if view.witnesses > 0 {
            page.push_str(&format!(
                "{} in it\n",
                text::count(view.witnesses as u64, "witness is", "witnesses are")
            ));
            if view.witnesses_signed > 0 {
                page.push_str(&format!(
                    "{} of them signed by the controller\n",
                    view.witnesses_signed
                ));
            }
            if from_files > view.witnesses_signed {
                page.push_str("the signatures of the witness file were not checked (--ca)\n");
            }
        } else {
            page.push_str(
                "no witness: a tail cut off, or a chain rewritten to its end, would not show (--witness)\n",
            );
        }
        page
    })?;
    Ok(Exit::Done)
}

pub(super) async fn run(command: AuditCommand, context: &Context) -> Result<Exit, Failure> {
    match command {
        AuditCommand::Verify(args) => verify(&args, context.out),
        AuditCommand::Log {
            limit,
            person,
            target,
            order,
        } => {
            let filter = v1::ListAuditRequest {
                person: person.map(String::from).unwrap_or_default(),
                target: target.unwrap_or_default(),
                order: order.map(String::from).unwrap_or_default(),
                ..Default::default()
            };
            log(limit, filter, context).await?;
            Ok(Exit::Done)
        }
        AuditCommand::Witness { out } => collect(out.as_deref(), context).await,
        AuditCommand::Export { from, output } => {
            export(from, output.as_deref(), context).await?;
            Ok(Exit::Done)
        }
    }
}

/// Newest first, page by page: each page comes oldest first.
async fn log(limit: u32, filter: v1::ListAuditRequest, context: &Context) -> Result<(), Failure> {
    let out = context.out;
    let client = context.client().await?;
    let now = Time::now();
    let mut missing = limit;
    let mut before = 0;
    loop {
        let request = v1::ListAuditRequest {
            page_size: missing.min(PAGE),
            before,
            ..filter.clone()
        };
        let reply = client
            .call("reading the audit", client.audit().list(request))
            .await?;
        for entry in reply.entries.into_iter().rev().take(missing as usize) {
            let entry = view::audit::Entry::from(entry);
            missing -= 1;
            if out.json {
                out.json_line(&entry)?;
            } else {
                out.text_line(&render::audit::entry(&entry, now))?;
            }
        }
        // A page must lead further back, or it would lead in a circle.
        let further = reply.next_before > 0 && (before == 0 || reply.next_before < before);
        if missing == 0 || !further {
            return Ok(());
        }
        before = reply.next_before;
    }
}

/// Collects what the nodes have kept of the audit. A node that has kept something else than the controller's chain
/// makes it fail, after everything is written: the file is the evidence.
async fn collect(path: Option<&Path>, context: &Context) -> Result<Exit, Failure> {
    const DOING: &str = "collecting audit heads";
    let out = context.out;
    let failed = |source| Failure::File {
        what: format!("file {}", path.unwrap_or(Path::new("-")).display()),
        source,
    };
    let client = context.client().await?;
    let mut stream = client
        .call(DOING, client.audit().witnesses(v1::WitnessesRequest {}))
        .await?;
    let mut file = match path {
        None => None,
        Some(path) => {
            let opened = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path);
            Some(BufWriter::new(opened.map_err(failed)?))
        }
    };
    let (mut nodes, mut heads, mut troubled) = (0_u64, 0_u64, 0_u64);
    loop {
        let next = tokio::time::timeout(client.timeout(), stream.message()).await;
        let late = || Failure::Broken {
            doing: DOING.to_owned(),
            trouble: client::Trouble::TooLate,
        };
        let next = next
            .map_err(|_| late())?
            .map_err(|status| client::failure(DOING, status))?;
        let Some(witness) = next else { break };
        nodes += 1;
        if !witness.trouble.is_empty() {
            troubled += 1;
            out.warn(&format!("node {}: {}", witness.node_name, witness.trouble));
        }
        for line in witness::lines(&witness) {
            heads += 1;
            match &mut file {
                None => out.json_line(&line)?,
                Some(file) => {
                    let json = serde_json::to_string(&line).map_err(|error| Failure::Output(error.into()))?;
                    writeln!(file, "{json}").map_err(failed)?;
                }
            }
        }
    }
    if let Some(file) = file {
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
    }
    out.note(&format!(
        "{} of {}",
        text::count(heads, "head", "heads"),
        text::count(nodes, "node", "nodes")
    ));
    Ok(if troubled > 0 { Exit::Failed } else { Exit::Done })
}

async fn export(from: u64, output: Option<&Path>, context: &Context) -> Result<(), Failure> {
    let out = context.out;
    let Some(path) = output else {
        let mut line = Vec::new();
        let summary = entries(from, context, |entry| {
            line.clear();
            lines::write(&mut line, entry).map_err(Failure::Output)?;
            out.formed_json(&String::from_utf8_lossy(&line))
        })
        .await?;
        out.note(&summary);
        return Ok(());
    };
    let failed = |source| Failure::File {
        what: format!("file {}", path.display()),
        source,
    };
    // The audit names people and reasons: for its owner alone.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let mut to = BufWriter::new(file);
    let written = entries(from, context, |entry| {
        lines::write(&mut to, entry).map_err(failed)
    })
    .await;
    let kept = written.and_then(|summary| to.flush().map(|()| summary).map_err(failed));
    if kept.is_err() {
        // Half an audit would verify as a whole one. What cannot be removed is named by the error all the same.
        let _ = std::fs::remove_file(path);
    }
    out.note(&format!("{} in {}", kept?, path.display()));
    Ok(())
}

/// Hands every entry from `from` on to `each`; returns how many there were, and the last head.
async fn entries(
    from: u64,
    context: &Context,
    mut each: impl FnMut(&Entry) -> Result<(), Failure>,
) -> Result<String, Failure> {
    let client = context.client().await?;
    let request = v1::ExportAuditRequest { from };
    let mut stream = client.call(EXPORTING, client.audit().export(request)).await?;
    let mut head: Option<Head> = None;
    let mut count = 0;
    loop {
        let next = tokio::time::timeout(client.timeout(), stream.message()).await;
        let late = || Failure::Broken {
            doing: EXPORTING.to_owned(),
            trouble: client::Trouble::TooLate,
        };
        let next = next
            .map_err(|_| late())?
            .map_err(|status| client::failure(EXPORTING, status))?;
        let Some(entry) = next else { break };
        let entry = checked(entry)?;
        each(&entry)?;
        head = Some(entry.head());
        count += 1;
    }
    let head = head.map(|head| format!("; head {head}")).unwrap_or_default();
    Ok(format!("{}{head}", text::count(count, "entry", "entries")))
}

/// From the wire, exactly: what does not fit cannot be hashed again and is an error, never a guess.
fn checked(wire: v1::AuditEntry) -> Result<Entry, Failure> {
    let sequence = wire.sequence;
    let bad = |field: &str| {
        Failure::Audit(format!(
            "audit entry {sequence} from the controller has a malformed {field}"
        ))
    };
    let hash = |bytes: &[u8], field: &str| <[u8; 32]>::try_from(bytes).map(Hash::new).map_err(|_| bad(field));
    let role = match wire.role {
        0 => None,
        number => Some(
            v1::Role::try_from(number)
                .map_err(|_| bad("role"))?
                .checked()
                .map_err(|_| bad("role"))?,
        ),
    };
    Ok(Entry {
        sequence,
        previous: hash(&wire.previous, "previous")?,
        hash: hash(&wire.hash, "hash")?,
        said: Draft {
            at_ms: wire.at_ms,
            version: wire.version.ok_or_else(|| bad("version"))?.into(),
            person: match wire.person.as_str() {
                "" => None,
                name => Some(name.parse().map_err(|_| bad("person"))?),
            },
            role,
            action: wire.action,
            target: wire.target,
            reason: wire.reason,
            evidence: wire.evidence,
            outcome: wire.outcome.parse().map_err(|_| bad("outcome"))?,
            detail: wire.detail,
            order: match wire.order.as_str() {
                "" => None,
                id => Some(id.parse().map_err(|_| bad("order"))?),
            },
        },
    })
}
