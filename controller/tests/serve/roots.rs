//! A new root, step by step, while everybody is at work.

use controller::admin::AdminError;
use controller::admin::rotation::{RotationError, Step, status, step_offline};
use proto::bundle::{Bundle, SecretPem};
use proto::v1::enrol_client::EnrolClient;
use proto::v1::{self, RenewRequest};
use rcgen::{KeyPair, PublicKeyData};
use time::OffsetDateTime;

use crate::world::*;

const GRACE: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);

impl World {
    async fn step(&self, step: Step) -> Result<String, AdminError> {
        step_offline(&self.state(), step, GRACE, OffsetDateTime::now_utc()).await
    }

    /// What `redbutton login` does for somebody who has a key.
    async fn renew(&self, person: &str) {
        let bundle = self.load(person, self.people);
        let key = KeyPair::from_pem(bundle.key.expose()).expect("a key");
        let channel = connect(&bundle, self.people).await.expect("connects");
        let request = RenewRequest {
            public_key: key.subject_public_key_info(),
        };
        let reply = EnrolClient::new(channel)
            .renew(request)
            .await
            .expect("renewed")
            .into_inner();
        let renewed = Bundle {
            ca: reply.roots,
            certificate: reply.certificate,
            key: SecretPem::new(key.serialize_pem()),
            ..bundle
        };
        std::fs::write(self.bundle_of(person), renewed.to_text()).expect("written");
    }

    /// Until what root did in another process counts at the ports.
    async fn settled(&self, what: &str, expected: &str) {
        until(what, || async {
            let shown = status(&self.state(), GRACE, OffsetDateTime::now_utc())
                .await
                .expect("a status")
                .to_string();
            shown.contains(expected).then_some(())
        })
        .await;
    }
}

fn cut_off(done: Result<String, AdminError>) -> String {
    match done {
        Err(AdminError::Rotation(RotationError::CutsOff { names, .. })) => names,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_root_takes_over_and_nobody_is_cut_off() {
    let mut world = World::empty().await;
    world.start().await;
    // The bundles of init are half a year old, and their keys past renewal: they hold up nobody.
    world.person("otto").await;
    let alice = world.person("alice").await;
    let site = v1::CreateSiteRequest {
        name: "princeton".into(),
        ..Default::default()
    };
    alice.sites().create(site).await.expect("a site");
    world.enrol("n1@princeton").await;
    let node = world.node("n1").with_keys(&world.dir.path().join("n1"));
    node.dial();
    node.attached(1).await;

    // At any time, and nobody notices.
    world.step(Step::RotateIssuing).await.expect("rotated");
    world.renew("alice").await;

    world.step(Step::AddRoot).await.expect("added");
    world
        .settled("the node to have it", "1 of 3 trust the newest root")
        .await;
    assert_eq!(node.syncs().len(), 1, "over the link that stood");
    assert_eq!(
        cut_off(world.step(Step::SwitchRoot).await),
        "person alice, person otto"
    );
    world.renew("alice").await;
    assert_eq!(cut_off(world.step(Step::SwitchRoot).await), "person otto");
    world.renew("otto").await;
    let done = world.step(Step::SwitchRoot).await.expect("switched");
    assert!(done.contains("issuing") && done.contains("retiring"), "{done}");

    world
        .settled("the node to be below it", "1 of 3 have a certificate below")
        .await;
    assert_eq!(
        cut_off(world.step(Step::RetireRoot).await),
        "person alice, person otto"
    );
    let left_behind = world.load("alice", world.people);
    for person in ["alice", "otto"] {
        world.renew(person).await;
    }
    world.step(Step::RetireRoot).await.expect("retired");
    // Everybody still gets in, also who dials anew; and the old root opens nothing any more.
    world.stop().await;
    world.start().await;
    node.attached(2).await;
    let alice = world.person("alice").await;
    alice
        .people()
        .who_am_i(v1::WhoAmIRequest {})
        .await
        .expect("known");
    let refused = async {
        let channel = connect(&left_behind, world.people).await.ok()?;
        v1::people_client::PeopleClient::new(channel)
            .who_am_i(v1::WhoAmIRequest {})
            .await
            .ok()
    };
    assert!(refused.await.is_none(), "below the old root");
    let steps: Vec<String> = world
        .audit()
        .await
        .into_iter()
        .map(|entry| entry.action)
        .filter(|action| action.starts_with("ca-"))
        .collect();
    assert_eq!(
        steps,
        [
            "ca-rotate-issuing",
            "ca-root-add",
            "ca-root-switch",
            "ca-root-retire"
        ]
    );
}
