//! The network with real kernels at its ends: namespaces and taps in place of QEMU.

mod faults;
mod guest;
mod talk;

use tempfile::TempDir;

use super::{Net, unable};

/// `None` where this machine cannot; it has said so.
fn net(sites: &[&str]) -> Option<(Net, TempDir)> {
    if let Some(reason) = unable() {
        println!("skipped: {reason}");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let net = Net::start(folder.path(), sites).unwrap();
    Some((net, folder))
}

#[test]
fn bad_names_and_doubles_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for sites in [&["a", "a"][..], &["centre"], &["a/b"], &[""]] {
        assert!(Net::start(folder.path(), sites).is_err(), "{sites:?}");
    }
    let Some((net, _folder)) = net(&["a"]) else { return };
    net.port("a", "n1").unwrap();
    for (site, name) in [("a", "n1"), ("a", "host"), ("a", "../n"), ("b", "n2")] {
        assert!(net.port(site, name).is_err(), "{site} {name}");
    }
}

#[test]
fn a_net_may_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Net>();
}

#[test]
fn nothing_is_left_behind() {
    let Some((net, folder)) = net(&["a"]) else { return };
    let socket = net.port("a", "n1").unwrap().socket;
    let path = net.netns_path();
    assert!(socket.exists() && path.exists());
    let output = std::process::Command::new("nsenter")
        .arg(format!("--net={}", path.display()))
        .args(["ip", "-o", "link"])
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("lab0"),
        "{output:?}"
    );
    drop(net);
    assert!(!socket.exists());
    assert!(folder.path().join("capture.pcapng").exists(), "the capture stays");
}
