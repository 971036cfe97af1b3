//! The signed ping of death in the lab: every node's listener trusts this lab's key, and the centre sends.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use ed25519_dalek::SigningKey;
use pod_sender::{Campaign, FileKey, Patience, Report, Target};
use pod_wire::{Action, TagSecret};
use proto::bundle::Bundle;
use proto::{Identity, NodeId};

use super::{Lab, Spec};

/// Keys of one lab; in the real house each node has a secret of its own.
pub(super) struct PodKeys {
    seed: [u8; 32],
    secret: [u8; 16],
}

impl PodKeys {
    pub(super) fn random() -> Self {
        Self {
            seed: rand::random(),
            secret: rand::random(),
        }
    }

    fn key(&self) -> SigningKey {
        SigningKey::from_bytes(&self.seed)
    }

    /// The listener's file.
    pub(super) fn file(&self, node: NodeId) -> String {
        let hex = |bytes: &[u8]| {
            bytes.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
        };
        format!(
            "format = 1\nnode = \"{node}\"\nsecrets = [\"{}\"]\n[[keys]]\npublic = \"{}\"\n\
             actions = [\"dry-run\", \"reboot\", \"crash\", \"kill-slivers\"]\n",
            hex(&self.secret),
            hex(self.key().verifying_key().as_bytes()),
        )
    }
}

/// The node that a bundle speaks for.
pub(super) fn node_of(bundle: &Path) -> Result<NodeId> {
    let text = std::fs::read_to_string(bundle).with_context(|| bundle.display().to_string())?;
    match Bundle::parse(&text)?.identity()? {
        Identity::Daemon(node, _) => Ok(node),
        other => anyhow::bail!("{}: a bundle of {other}", bundle.display()),
    }
}

/// What a listener is started with: slivers live where the node manager puts them.
pub(super) fn command(spec: &Spec) -> String {
    format!(
        "pod /usr/bin/redbutton-pod-listener run --keys /etc/redbutton/pod.toml --slivers /sys/fs/cgroup/{}\n",
        spec.shape.slivers_root()
    )
}

impl Lab {
    /// Sends a packet from the centre to one node until its course has ended.
    ///
    /// # Errors
    /// When there is no socket for it.
    pub fn pod(&self, index: usize, action: Action, patience: Patience) -> Result<Report> {
        self.pod_to(index, IpAddr::V4(self.at(index).ip()), action, patience)
    }

    /// The same to another address of the node.
    ///
    /// # Errors
    /// When there is no socket for it.
    pub fn pod_to(&self, index: usize, to: IpAddr, action: Action, patience: Patience) -> Result<Report> {
        let target = Target {
            node: *self.at(index).id().uuid().as_bytes(),
            boot: None,
            secret: TagSecret::new(self.pod_keys.secret),
        };
        let key = FileKey::new(self.pod_keys.key());
        let mut report = None;
        let mut campaign = self.net().enter(|| Campaign::open([to]))??;
        campaign.run(vec![(target, vec![to])], action, &key, patience, &mut |told| {
            report = Some(told);
        })?;
        report.context("a course without an end")
    }
}
