//! `redbutton kit …`

use proto::v1;
use serde::Serialize;

use super::{Context, bundle_path};
use crate::args::{Global, KitCommand};
use crate::bundle;
use crate::client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::kit::{self, Kit, Passphrase};
use crate::out::Out;
use crate::render;
use crate::when::Time;

/// What `kit show` prints. The secrets that a kit will hold are not among it.
#[derive(Debug, Serialize)]
pub(crate) struct KitView {
    pub(crate) person: String,
    pub(crate) exported_at: Time,
    pub(crate) policy_issued_at: Time,
    pub(crate) nodes: Vec<KitNodeView>,
}

/// One node in it.
#[derive(Debug, Serialize)]
pub(crate) struct KitNodeView {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) site: String,
    pub(crate) direct_address: String,
    pub(crate) boot_id: String,
    pub(crate) last_seen_at: Time,
}

impl From<Kit> for KitView {
    fn from(kit: Kit) -> Self {
        let node = |node: kit::KitNode| KitNodeView {
            name: node.name,
            id: node.id,
            site: node.site,
            direct_address: node.direct_address,
            boot_id: node.boot_id,
            last_seen_at: Time(node.last_seen_ms),
        };
        Self {
            person: kit.person,
            exported_at: Time(kit.exported_at_ms),
            policy_issued_at: Time(kit.policy_issued_at_ms),
            nodes: kit.nodes.into_iter().map(node).collect(),
        }
    }
}

pub(super) async fn run(command: KitCommand, context: &Context) -> Result<Exit, Failure> {
    let KitCommand::Export(args) = command else {
        return show(&context.global, context.out);
    };
    let path = match args.out {
        Some(path) => path,
        None => kit::path(&context.global)?,
    };
    // Asked for before the fleet is listed: whoever mistypes it has not waited.
    let passphrase = Passphrase::new_one(&context.global)?;
    let kit = fetch(context).await?;
    kit::write(&path, &kit, &passphrase, context.out)?;
    print(kit, context.out)
}

/// `kit show` needs nobody.
pub(super) fn show(global: &Global, out: Out) -> Result<Exit, Failure> {
    let path = kit::path(global)?;
    let passphrase = Passphrase::of(global, "passphrase of the kit: ")?;
    print(kit::open(&path, &passphrase)?, out)
}

fn print(kit: Kit, out: Out) -> Result<Exit, Failure> {
    let view = KitView::from(kit);
    out.result(&view, |width| render::kit::kit(&view, Time::now(), width))?;
    Ok(Exit::Done)
}

async fn fetch(context: &Context) -> Result<Kit, Failure> {
    const DOING: &str = "fetching the kit";
    let client = context.client().await?;
    let mut parts = client
        .call(DOING, client.kits().export(v1::KitRequest {}))
        .await?;
    let mut kit = Kit::of(bundle::read(&bundle_path(&context.global)?)?.name);
    loop {
        let part = tokio::time::timeout(client.timeout(), parts.message())
            .await
            .map_err(|_| Failure::Broken {
                doing: DOING.to_owned(),
                trouble: client::Trouble::TooLate,
            })?;
        match part.map_err(|status| client::failure(DOING, status))? {
            Some(part) => kit.add(part),
            None => return Ok(kit),
        }
    }
}

/// After a login: the kit that is there is fetched anew if its passphrase stands in a file; otherwise a note. A kit
/// that cannot be refreshed is no reason to fail.
pub(super) async fn after_login(global: &Global, out: Out) {
    let Ok(path) = kit::path(global) else { return };
    if path.symlink_metadata().is_err() {
        return;
    }
    if global.passphrase_file.is_none() {
        out.note(&format!(
            "your kit {} is as old as before: redbutton kit export refreshes it",
            path.display()
        ));
        return;
    }
    let refreshed = async {
        // With its own passphrase, so that a mistyped one does not make a kit that nobody opens.
        let passphrase = Passphrase::of(global, "")?;
        kit::open(&path, &passphrase)?;
        let context = Context::new(global.clone(), out)?;
        let kit = Box::pin(fetch(&context)).await?;
        kit::write(&path, &kit, &passphrase, out)
    };
    if let Err(failure) = refreshed.await {
        out.note(&format!("the kit was not refreshed: {}", failure.message()));
    }
}
