use super::*;
use crate::cgroup::testing::{Fixture, Ground};

/// A node with systemd, as plain files: pid 1 in init.scope, us in a service, our parent in a session.
struct Node {
    cgroups: Fixture,
    proc: tempfile::TempDir,
}

const OWN: i32 = 300;

impl Node {
    fn new() -> Self {
        let node = Self {
            cgroups: Fixture::new(),
            proc: tempfile::tempdir().expect("a directory"),
        };
        for path in [
            "init.scope",
            "system.slice",
            "system.slice/sshd.service",
            "system.slice/docker.service",
            "system.slice/docker.service/inside",
            "system.slice/web.service",
            "system.slice/nm",
            "system.slice/nm/us",
            "user.slice/session-1.scope",
            "machine.slice",
            "machine.slice/evil",
            "machine.slice/evil/sshd.service",
            "operators.slice",
            "operators.slice/backup",
        ] {
            node.cgroups.empty(path);
        }
        node.process(1, 0, "/init.scope");
        node.process(200, 1, "/user.slice/session-1.scope");
        node.process(OWN, 200, "/system.slice/nm/us");
        node
    }

    fn process(&self, pid: i32, parent: i32, home: &str) {
        let directory = self.proc.path().join(pid.to_string());
        fs::create_dir_all(&directory).expect("made");
        let stat = format!("{pid} (x) S {parent} 1 1 0 -1 0 0 0 0 0 1 1 0 0 20 0 1 0 1 1 1 0");
        fs::write(directory.join("stat"), stat).expect("written");
        fs::write(directory.join("cgroup"), format!("4:memory:/\n0::{home}\n")).expect("written");
    }

    fn guard(&self, extra: &[&str]) -> Result<Guard, GuardError> {
        let extra: Vec<PathBuf> = extra.iter().map(PathBuf::from).collect();
        Guard::record(&self.cgroups.mount(), self.proc.path(), OWN, &extra)
    }

    fn adopt(&self, guard: &Guard, path: &str) -> Result<u64, Refusal> {
        guard.check_adoption(&self.cgroups.mount(), Path::new(path))
    }

    fn sliver(&self, path: &str) -> Sliver {
        Sliver::open(&self.cgroups.mount(), path.as_ref()).expect("a sliver")
    }
}

#[test]
fn homes_and_what_contains_them_are_refused() {
    let node = Node::new();
    let guard = node.guard(&[]).expect("a guard");
    for (path, why) in [
        ("", "cgroup / is the root of the hierarchy"),
        ("/", "cgroup / is the root of the hierarchy"),
        ("init.scope", "cgroup init.scope is the home of pid 1"),
        (
            "system.slice",
            "cgroup system.slice contains system.slice/nm/us, the home of this node manager",
        ),
        (
            "system.slice/nm",
            "cgroup system.slice/nm contains system.slice/nm/us, the home of this node manager",
        ),
        (
            "system.slice/nm/us",
            "cgroup system.slice/nm/us is the home of this node manager",
        ),
        (
            "/system.slice/sshd.service/",
            "cgroup system.slice/sshd.service is the home of unit sshd.service",
        ),
        (
            "system.slice/docker.service",
            "cgroup system.slice/docker.service is the home of unit docker.service",
        ),
        (
            "user.slice",
            "cgroup user.slice contains user.slice/session-1.scope, the home of process 200, a parent of this node manager",
        ),
        (
            "machine.slice/../system.slice",
            "cgroup path machine.slice/../system.slice leads out of the hierarchy",
        ),
        ("no/such", "cgroup no/such does not exist"),
    ] {
        assert_eq!(node.adopt(&guard, path).expect_err(path).to_string(), why);
    }
}

#[test]
fn neighbours_and_what_lies_inside_are_not() {
    let node = Node::new();
    let guard = node.guard(&[]).expect("a guard");
    for path in [
        "system.slice/web.service",
        "machine.slice",
        "system.slice/docker.service/inside",
        "operators.slice",
    ] {
        let id = node.adopt(&guard, path).expect(path);
        assert_eq!(id, node.sliver(path).id());
        guard.check_now(&node.sliver(path)).expect(path);
    }
}

/// A slice may call a cgroup of its own `sshd.service`; only the host's manager can make one in system.slice.
#[test]
fn a_name_protects_nobody() {
    let node = Node::new();
    let guard = node.guard(&[]).expect("a guard");
    assert!(node.adopt(&guard, "machine.slice/evil/sshd.service").is_ok());
    assert!(node.adopt(&guard, "machine.slice/evil").is_ok());
    assert!(
        !guard
            .homes()
            .iter()
            .any(|home| home.path.starts_with("machine.slice"))
    );
}

#[test]
fn what_the_operator_protects_is_protected_even_before_it_exists() {
    let node = Node::new();
    let guard = node
        .guard(&["/operators.slice/backup", "later.slice/x"])
        .expect("a guard");
    assert!(matches!(
        node.adopt(&guard, "operators.slice/backup"),
        Err(Refusal::Home { .. })
    ));
    assert!(matches!(
        node.adopt(&guard, "operators.slice"),
        Err(Refusal::Contains { .. })
    ));
    node.cgroups.empty("later.slice/x");
    assert!(matches!(
        node.adopt(&guard, "later.slice"),
        Err(Refusal::Contains { .. })
    ));
    let error = node.guard(&["a/../.."]).expect_err("climbs").to_string();
    assert_eq!(error, "protected path a/../.. leads out of the hierarchy");
}

#[test]
fn an_id_is_refused_under_any_path() {
    let node = Node::new();
    let guard = node.guard(&[]).expect("a guard");
    for home in ["system.slice/sshd.service", "system.slice"] {
        let id = node.sliver(home).id();
        assert!(
            guard.check(Path::new("machine.slice/alias"), id).is_err(),
            "{home} under another name"
        );
    }
    assert_eq!(
        guard.check(Path::new("alias"), node.cgroups.mount().root_id()),
        Err(Refusal::Root)
    );
}

#[test]
fn a_home_that_moves_is_protected_where_it_is_now() {
    let node = Node::new();
    let guard = node.guard(&[]).expect("a guard");
    let sliver = node.sliver("machine.slice");
    guard.check_now(&sliver).expect("nobody lives there");
    node.process(OWN, 200, "/machine.slice/evil");
    let refused = guard.check_now(&sliver).expect_err("we live there").to_string();
    assert_eq!(
        refused,
        "cgroup machine.slice contains machine.slice/evil, the home of this node manager"
    );
    guard
        .check_now(&node.sliver("machine.slice/evil/sshd.service"))
        .expect("that is beside us");
}

#[test]
fn without_knowing_where_pid_1_lives_there_is_no_guard() {
    let node = Node::new();
    fs::remove_file(node.proc.path().join("1/cgroup")).expect("removed");
    assert_eq!(
        node.guard(&[]).expect_err("refused").to_string(),
        "cannot tell the cgroup of process 1 (pid 1)"
    );
}

#[test]
fn a_threaded_cgroup_is_refused_and_its_domain_named() {
    let node = Node::new();
    let guard = node.guard(&[]).expect("a guard");
    node.cgroups
        .write("machine.slice/evil/cgroup.type", "domain threaded\n");
    node.cgroups
        .write("machine.slice/evil/sshd.service/cgroup.type", "threaded\n");
    node.cgroups.empty("machine.slice/evil/invalid");
    node.cgroups
        .write("machine.slice/evil/invalid/cgroup.type", "domain invalid\n");
    for (path, kind) in [
        ("machine.slice/evil/sshd.service", "threaded"),
        ("machine.slice/evil/invalid", "domain invalid"),
    ] {
        let expected =
            format!("cgroup {path} is {kind}: its processes belong to machine.slice/evil, name that one");
        assert_eq!(node.adopt(&guard, path).expect_err(path).to_string(), expected);
    }
    node.adopt(&guard, "machine.slice/evil")
        .expect("the domain may be adopted");
}

#[test]
fn a_cgroup_that_only_v1_knows_is_named() {
    let node = Node::new();
    let v1 = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(v1.path().join("docker/abc")).expect("made");
    let mountinfo = v1.path().join("mountinfo");
    let root = node.cgroups.mount().root().display().to_string();
    let lines = format!(
        "1 1 0:1 / {} rw - cgroup x rw\n2 1 0:2 / {root} rw - cgroup2 x rw\n",
        v1.path().display()
    );
    fs::write(&mountinfo, lines).expect("written");
    let mount = Mount::discover(&mountinfo).expect("a mount");
    let guard = Guard::record(&mount, node.proc.path(), OWN, &[]).expect("a guard");
    let refused = guard
        .check_adoption(&mount, Path::new("docker/abc"))
        .expect_err("v1 only");
    assert_eq!(
        refused,
        Refusal::OnlyV1 {
            path: "docker/abc".into(),
            mount: v1.path().into()
        }
    );
    assert!(refused.to_string().contains("cannot be adopted"));
}

/// The machine that runs this test.
#[test]
fn this_machine_is_protected_from_us() {
    let Some(ground) = Ground::new() else { return };
    let guard = ground.guard(&[]);
    assert!(guard.homes().len() <= 2 || guard.homes().iter().all(|home| home.id.is_some()));
    let own = Proc::at(Path::new("/proc")).home(i32::try_from(std::process::id()).expect("a pid"));
    for above in own.expect("a home").expect("visible").ancestors() {
        assert!(guard.check_adoption(&ground.mount, above).is_err(), "{above:?}");
    }
    let id = guard
        .check_adoption(&ground.mount, ground.path())
        .expect("ours to use");
    assert_ne!(id, ground.mount.root_id());
    let threaded = ground.make("domain/threaded");
    fs::write(
        ground.mount.root().join(&threaded).join("cgroup.type"),
        "threaded",
    )
    .expect("threaded");
    let refused = guard
        .check_adoption(&ground.mount, &threaded)
        .expect_err("threaded");
    let domain = ground.path().join("domain");
    assert_eq!(
        refused,
        Refusal::Threaded {
            path: threaded,
            kind: "threaded".into(),
            domain
        }
    );
}
