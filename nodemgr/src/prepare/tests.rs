use super::*;

#[test]
fn real_time_only_where_it_blocks_nobody() {
    for rt_groups in [None, Some(false), Some(true)] {
        for v2_cpu in [false, true] {
            for in_root in [false, true] {
                let chosen = choose_schedule(&ScheduleFacts {
                    rt_groups,
                    v2_cpu,
                    in_root,
                });
                let trap = rt_groups != Some(false) && v2_cpu && !in_root;
                assert_eq!(
                    matches!(chosen, Schedule::Nice(_)),
                    trap,
                    "{rt_groups:?} {v2_cpu} {in_root}"
                );
            }
        }
    }
}

#[test]
fn spare_descriptors_come_back() {
    let mut spare = Spare::keep(3);
    assert_eq!(spare.count(), 3);
    spare.release();
    assert_eq!(spare.count(), 0);
    spare.refill();
    assert_eq!(spare.count(), 3);
}

#[test]
fn a_step_becomes_a_capability() {
    let step = Step::new("kill.memory", Assurance::Bounded, "why");
    let capability = proto::v1::Capability::from(step);
    assert_eq!(
        (capability.name.as_str(), capability.reason.as_str()),
        ("kill.memory", "why")
    );
    assert_eq!(capability.assurance(), proto::v1::Assurance::Bounded);
}

/// What was asked for is looked up where the kernel shows it. In a process of its own: see `kill::tests::helper`.
pub(crate) fn prepare_and_look() {
    let root = Path::new("/proc");
    let steps = process(root);
    let mount = Mount::discover("/proc/self/mountinfo".as_ref()).expect("a mount");
    let steps = [steps, kill_thread(&mount, root)].concat();
    for step in &steps {
        match (step.name, step.assurance) {
            (_, Assurance::NotEnforced) => assert!(!step.reason.is_empty()),
            ("kill.memory", _) => assert!(field("VmLck:") >= (HEAP >> 10) as u64, "{steps:?}"),
            ("kill.oom", _) => {
                assert_eq!(
                    fs::read_to_string("/proc/self/oom_score_adj")
                        .expect("read")
                        .trim(),
                    "-1000"
                );
            }
            ("kill.descriptors", Assurance::Exact) => {
                assert!(getrlimit(Resource::RLIMIT_NOFILE).expect("limits").0 >= DESCRIPTORS);
            }
            ("secrets.memory", Assurance::Exact) => {
                assert!(!nix::sys::prctl::get_dumpable().expect("prctl"));
                assert_eq!(getrlimit(Resource::RLIMIT_CORE).expect("limits"), (0, 0));
            }
            ("kill.priority", Assurance::Exact) => {
                assert_eq!(sys::schedule().expect("policy"), libc::SCHED_FIFO)
            }
            _ => {}
        }
    }
    assert_eq!(steps.len(), 5);
    // What was grown is there to be used: a quarter of it, and the kernel is not asked for memory.
    sys::allow_only(&[libc::SYS_sigaltstack, libc::SYS_munmap, libc::SYS_exit_group]).expect("a filter");
    let mut used = Vec::new();
    for _ in 0..64 {
        used.push(black_box(vec![1_u8; HEAP / 256]));
    }
    crate::kill::tests::helper::leave(if used.len() == 64 { 42 } else { 1 });
}

fn field(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
