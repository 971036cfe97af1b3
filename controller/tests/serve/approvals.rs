//! Two people: stop-every-slice and stop-every-node are proposed by one and agreed to by another, once.

use proto::v1::approvals_client::ApprovalsClient;
use proto::v1::command::Action;
use proto::v1::press_request::Wish;
use proto::v1::{self, HoldKind, Outcome, Proposal, ProposalState};
use tonic::Status;
use tonic::transport::Channel;

use crate::world::*;

pub(crate) fn kill_all() -> Wish {
    Wish::Hold(v1::HoldWish {
        slice: String::new(),
        scope: Some(fleet()),
        kind: HoldKind::Suspend.into(),
    })
}

fn stop_all(no_way_back: bool) -> Wish {
    Wish::Stop(v1::StopWish {
        node: String::new(),
        no_way_back,
        fleet: true,
    })
}

impl Person {
    fn approvals(&self) -> ApprovalsClient<Channel> {
        ApprovalsClient::new(self.channel.clone())
    }

    pub(crate) async fn propose(&self, key: &str, wish: Wish) -> Proposal {
        let reply = self.press(key, wish).await.expect("a proposal");
        assert!(reply.order.is_none(), "one person made an order");
        reply.proposal.expect("a proposal")
    }

    pub(crate) async fn approve(&self, proposal: &Proposal) -> Result<v1::ApproveReply, Status> {
        let request = v1::ApproveRequest {
            id: proposal.id.clone(),
            digest: proposal.digest.clone(),
        };
        Ok(self.approvals().approve(request).await?.into_inner())
    }

    pub(crate) async fn proposal(&self, id: &str) -> Proposal {
        let request = v1::GetProposalRequest { id: id.into() };
        self.approvals()
            .get(request)
            .await
            .expect("a proposal")
            .into_inner()
    }

    async fn make_support(&self, person: &str) {
        let request = v1::CreatePersonRequest {
            name: person.into(),
            grants: vec![support()],
            ..Default::default()
        };
        self.people().create(request).await.expect("a person");
    }

    async fn take_support(&self, person: &str) {
        let request = v1::RevokeRequest {
            person: person.into(),
            grant: Some(support()),
        };
        self.people().revoke(request).await.expect("taken");
    }
}

fn support() -> v1::Grant {
    v1::Grant {
        role: v1::Role::Support.into(),
        ..Default::default()
    }
}

/// The refusal stands in the audit, too.
async fn refused(world: &World, result: Result<v1::ApproveReply, Status>, words: &str) {
    let status = result.expect_err(words);
    assert_eq!(code(&status), "refused", "{status}");
    assert!(status.message().contains(words), "{status}");
    let audit = world.audit().await;
    let last = audit
        .iter()
        .rev()
        .find(|entry| entry.action == "approve")
        .expect("an entry");
    assert_eq!(last.outcome, "refused");
    assert!(last.detail.contains(words), "{}", last.detail);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_slice_is_stopped_by_two_people_and_released_by_one() {
    let world = World::new(&["n1@princeton", "n2@mit"]).await;
    let (n1, n2) = (world.node("n1"), world.node("n2"));
    n1.dial();
    n1.attached(1).await;
    let (alice, otto) = (world.person("alice").await, world.person("otto").await);
    let proposal = alice.propose("k", kill_all()).await;
    assert_eq!(proposal.state(), ProposalState::Open);
    assert_eq!(
        (proposal.action.as_str(), proposal.person.as_str()),
        ("stop-every-slice", "alice")
    );
    assert_eq!(proposal.may_approve, ["otto"]);
    let reach = proposal.reach.clone().expect("a reach");
    assert_eq!((reach.nodes, reach.attached), (2, 1));
    assert!(
        n1.orders().is_empty(),
        "nothing happens before a second person agrees"
    );
    // The same key is the same proposal.
    assert_eq!(alice.propose("k", kill_all()).await.id, proposal.id);

    let mut watching = alice
        .approvals()
        .watch(v1::GetProposalRequest {
            id: proposal.id.clone(),
        })
        .await
        .expect("watches")
        .into_inner();
    let first = watching.message().await.expect("an event").expect("an event");
    assert_eq!(first.state(), ProposalState::Open);

    let reply = otto.approve(&proposal).await.expect("approved");
    assert!(reply.durable);
    let done = reply.proposal.expect("the proposal");
    assert_eq!(
        (done.state(), done.approver.as_str()),
        (ProposalState::Done, "otto")
    );
    let told = n1.told(1).await;
    let Some(Action::Impose(hold)) = &told[0].action else {
        panic!("{told:?}")
    };
    assert_eq!((hold.slice.as_str(), hold.holder.as_str()), ("", "alice"));
    assert_eq!(hold.scope, Some(fleet()));
    let mut last = first;
    while let Some(event) = watching.message().await.expect("an event") {
        last = event;
    }
    assert_eq!((last.state(), &last.order), (ProposalState::Done, &done.order));

    // A node that is away obeys when it returns; one that is enrolled later is sent the hold.
    n2.dial();
    assert_eq!(n2.told(1).await.len(), 1);
    world.enrol("n3@mit").await;
    let n3 = world.node("n3");
    n3.dial();
    n3.attached(1).await;
    assert_eq!(n3.syncs()[0].holds.len(), 1);
    let order = alice.order_in(&done.order, v1::OrderState::Closed).await;
    assert_eq!(order.nodes.len(), 2, "only who was enrolled then");
    // The press with the same key now leads to the order.
    let again = alice.press("k", kill_all()).await.expect("the same");
    assert_eq!(again.order.expect("the order").id, done.order);

    // Released by one person, of support alone.
    let id = order.order.expect("the order").holds[0].id.clone();
    let lift = || release(v1::release_wish::What::Hold(id.clone()));
    for person in ["paula", "ada", "dan"] {
        let status = world
            .person(person)
            .await
            .press("r", lift())
            .await
            .expect_err(person);
        assert_eq!(code(&status), "refused", "{person}");
    }
    otto.press("r", lift()).await.expect("released");
    let told = n3.told(1).await;
    assert!(matches!(told[0].action, Some(Action::Release(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_another_person_who_owes_the_proposer_nothing_may_agree() {
    let world = World::new(&["n1@princeton"]).await;
    let node = world.node("n1");
    node.dial();
    node.attached(1).await;
    let (alice, otto) = (world.person("alice").await, world.person("otto").await);
    let proposal = alice.propose("k", kill_all()).await;
    refused(
        &world,
        alice.approve(&proposal).await,
        "another person must agree",
    )
    .await;
    // The same person with another certificate, of another key.
    let twin = world.other_bundle("alice").await;
    refused(
        &world,
        twin.approve(&proposal).await,
        "another certificate is not enough",
    )
    .await;

    // The proposer's invitee, from before the proposal.
    alice.make_support("ines").await;
    let ines = world.person("ines").await;
    let second = alice.propose("k2", kill_all()).await;
    assert_eq!(second.may_approve, ["otto"]);
    refused(&world, ines.approve(&second).await, "ines less than 7 days ago").await;
    // And the other way round.
    let third = ines.propose("k3", kill_all()).await;
    refused(&world, alice.approve(&third).await, "ines less than 7 days ago").await;
    // Who became support after the proposal was made, by somebody else.
    otto.make_support("olga").await;
    let olga = world.person("olga").await;
    refused(
        &world,
        olga.approve(&second).await,
        "olga was not support when it was proposed",
    )
    .await;
    // The digest of another order.
    let mut mixed = second.clone();
    mixed.digest = proposal.digest.clone();
    refused(&world, otto.approve(&mixed).await, "the digest given").await;
    let status = otto
        .approve(&Proposal {
            digest: Vec::new(),
            ..second.clone()
        })
        .await
        .expect_err("no digest");
    assert_eq!(code(&status), "malformed");
    // Who is no longer support agrees to nothing, and nothing that they proposed is agreed to.
    let fourth = otto.propose("k4", kill_all()).await;
    alice.take_support("otto").await;
    refused(&world, alice.approve(&fourth).await, "otto is not support now").await;
    let status = otto.approve(&proposal).await.expect_err("no support");
    assert_eq!(code(&status), "refused", "{status}");
    for person in ["paula", "ada", "dan", "nora"] {
        let person = world.person(person).await;
        assert_eq!(
            code(&person.approve(&proposal).await.expect_err("refused")),
            "refused"
        );
        let status = person.press("p", kill_all()).await.expect_err("refused");
        assert_eq!(code(&status), "refused");
    }
    assert!(node.orders().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_is_over() {
    let world = World::new(&["n1@princeton"]).await;
    let (alice, otto) = (world.person("alice").await, world.person("otto").await);
    let proposal = alice.propose("k", kill_all()).await;
    let withdraw = v1::WithdrawRequest {
        id: proposal.id.clone(),
        reason: "false alarm".into(),
    };
    let gone = alice
        .approvals()
        .withdraw(withdraw.clone())
        .await
        .expect("withdrawn")
        .into_inner();
    assert_eq!(
        (gone.state(), gone.outcome.as_str()),
        (ProposalState::Withdrawn, "by alice: false alarm")
    );
    refused(
        &world,
        otto.approve(&proposal).await,
        "was withdrawn (by alice: false alarm)",
    )
    .await;
    let status = alice.approvals().withdraw(withdraw).await.expect_err("twice");
    assert_eq!(code(&status), "precondition");

    let second = alice.propose("k2", kill_all()).await;
    otto.approve(&second).await.expect("approved");
    refused(
        &world,
        otto.approve(&second).await,
        "carried out already (by otto",
    )
    .await;
    let waiting = |all| {
        let otto = otto.clone();
        async move {
            let request = v1::ListProposalsRequest { all };
            otto.approvals()
                .list(request)
                .await
                .expect("a list")
                .into_inner()
                .proposals
        }
    };
    assert_eq!(waiting(false).await.len(), 0);
    assert_eq!(waiting(true).await.len(), 2);
    // Eight approvals at once make one order.
    let third = alice.propose("k3", kill_all()).await;
    let tries = (0..8).map(|_| {
        let (otto, third) = (otto.clone(), third.clone());
        async move { otto.approve(&third).await.is_ok() }
    });
    let agreed = futures_util::future::join_all(tries).await;
    assert_eq!(agreed.into_iter().filter(|agreed| *agreed).count(), 1);
    let orders = alice
        .orders()
        .list(v1::ListOrdersRequest::default())
        .await
        .expect("a list")
        .into_inner()
        .orders;
    assert_eq!(
        orders
            .iter()
            .filter(|order| order.kind == "stop-every-slice")
            .count(),
        2
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_is_halted_in_the_boot_that_it_is_in() {
    let world = World::new(&["n1@princeton", "n2@mit", "n3@mit"]).await;
    let (n1, mut n2, n3) = (world.node("n1"), world.node("n2"), world.node("n3"));
    let boots = [n1.boot(), n2.boot()];
    for node in [&n1, &n2] {
        node.dial();
        node.attached(1).await;
    }
    let (alice, otto) = (world.person("alice").await, world.person("otto").await);
    let status = alice.press("k", stop_all(false)).await.expect_err("no way back");
    assert_eq!(code(&status), "precondition");
    assert!(
        status.message().contains("3 nodes have no commissioned outlet"),
        "{status}"
    );
    assert!(status.message().contains("n1, n2, n3"), "{status}");
    let proposal = alice.propose("k2", stop_all(true)).await;
    let reach = proposal.reach.clone().expect("a reach");
    assert_eq!((reach.no_way_back, reach.no_way_back_names.len()), (3, 3));
    // n2 is away when it is approved, and comes back in another boot.
    n2.hang_up();
    until("n2 to be away", || async {
        let nodes = alice
            .nodes()
            .list(v1::ListNodesRequest::default())
            .await
            .expect("nodes")
            .into_inner()
            .nodes;
        (nodes.iter().filter(|node| node.attached).count() == 1).then_some(())
    })
    .await;
    let done = otto
        .approve(&proposal)
        .await
        .expect("approved")
        .proposal
        .expect("the proposal");
    let halted = |told: &[v1::Command]| match &told[0].action {
        Some(Action::Halt(halt)) => halt.boot_id.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(halted(&n1.told(1).await), boots[0]);
    n2.reboot();
    n2.dial();
    n2.attached(2).await;
    // Never seen before: it is halted when it is first seen.
    n3.dial();
    assert_eq!(halted(&n3.told(1).await), n3.boot());
    let order = alice.order_in(&done.order, v1::OrderState::Closed).await;
    let outcome = |name: &str| {
        order
            .nodes
            .iter()
            .find(|node| node.node_name == name)
            .expect(name)
            .outcome()
    };
    assert_eq!(outcome("n1"), Outcome::Accepted);
    assert_eq!(
        outcome("n2"),
        Outcome::Rebooted,
        "its old boot has ended by itself"
    );
    assert_eq!(outcome("n3"), Outcome::Accepted);
    assert!(n2.orders().is_empty());
}
