//! Two people, and a controller that dies on the way, a database that somebody edits, and one that was restored.

use controller::approvals::{Act, OPEN_FOR_MS, Terms};
use proto::v1::command::Action;
use proto::v1::{self, ProposalState};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::approvals::kill_all;
use crate::crash::{is_over, start};
use crate::world::*;

/// Support with root on the controller's machine: every guard of the schema is gone, then these statements.
pub(crate) async fn by_hand(world: &World, statements: &[&str]) {
    let options = SqliteConnectOptions::new().filename(world.state().join("redbutton.db"));
    let mut conn = options.connect().await.expect("the database");
    let guards: Vec<(String,)> = sqlx::query_as("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        .fetch_all(&mut conn)
        .await
        .expect("triggers");
    for (guard,) in guards {
        let drop = format!("DROP TRIGGER {guard}");
        sqlx::query(sqlx::AssertSqlSafe(drop))
            .execute(&mut conn)
            .await
            .expect("dropped");
    }
    for statement in statements {
        let statement = (*statement).to_owned();
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(&mut conn)
            .await
            .expect("edited");
    }
    conn.close().await.expect("closed");
}

async fn crashed_at(point: &str) {
    let mut world = World::new(&["n1@princeton"]).await;
    world.stop().await;
    let mut program = start(&world, Some(point)).await;
    let node = world.node("n1");
    node.dial();
    node.attached(1).await;
    let (alice, otto) = (world.person("alice").await, world.person("otto").await);
    let proposal = alice.propose("k", kill_all()).await;
    let _ = otto.approve(&proposal).await;
    is_over(&mut program).await;
    drop(program);

    let _program = start(&world, None).await;
    node.attached(2).await;
    let (alice, otto) = (world.person("alice").await, world.person("otto").await);
    let mut now = alice.proposal(&proposal.id).await;
    if point == "controller.before-approval" {
        assert_eq!(now.state(), ProposalState::Open, "the approval never was");
        now = otto
            .approve(&proposal)
            .await
            .expect("approved")
            .proposal
            .expect("the proposal");
    } else {
        let status = otto.approve(&proposal).await.expect_err("approved before");
        assert!(status.message().contains("approved"), "{status}");
    }
    assert_eq!(now.state(), ProposalState::Done, "{point}");
    let order = alice.order_in(&now.order, v1::OrderState::Closed).await;
    assert_eq!(order.nodes[0].outcome(), v1::Outcome::Killed);
    let orders = alice
        .orders()
        .list(v1::ListOrdersRequest::default())
        .await
        .expect("a list")
        .into_inner()
        .orders;
    assert_eq!(orders.len(), 1, "{point}: carried out once");
    let holds = alice
        .orders()
        .holds(v1::ListHoldsRequest::default())
        .await
        .expect("holds")
        .into_inner()
        .holds;
    assert_eq!(holds.len(), 1, "{point}");
    let imposed = |command: &v1::Command| match &command.action {
        Some(Action::Impose(hold)) => hold.id.clone(),
        other => panic!("{other:?}"),
    };
    let told = node.told(1).await;
    assert!(
        told.iter().all(|command| imposed(command) == holds[0].id),
        "{point}: {told:?}"
    );
    let audit = world.audit().await;
    for (action, count) in [("propose", 1), ("stop-every-slice", 1), ("approve", 1)] {
        let allowed = audit
            .iter()
            .filter(|entry| entry.action == action && entry.outcome == "allowed")
            .count();
        assert_eq!(allowed, count, "{point}: {action}");
    }
}

macro_rules! crashes {
    ($($test:ident = $point:literal,)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            crashed_at($point).await;
        }
    )* };
}

crashes! {
    before_the_approval = "controller.before-approval",
    after_the_approval = "controller.after-approval",
    before_its_order_is_committed = "controller.before-commit",
    after_its_order_is_committed = "controller.after-commit",
    after_its_order_is_sent = "controller.after-send",
    before_it_is_finished = "controller.before-finish",
    after_it_is_finished = "controller.after-finish",
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_proposed_before_a_restore_happens_after_it() {
    let mut world = World::new(&["n1@princeton"]).await;
    let node = world.node("n1");
    world.stop().await;
    let mut program = start(&world, Some("controller.after-approval")).await;
    node.dial();
    node.attached(1).await;
    let (alice, otto) = (world.person("alice").await, world.person("otto").await);
    let open = alice.propose("k1", kill_all()).await;
    let approved = alice.propose("k2", kill_all()).await;
    let _ = otto.approve(&approved).await;
    is_over(&mut program).await;
    drop(program);
    // What a restore comes to, as far as proposals go: another life of the database.
    by_hand(&world, &["UPDATE meta SET incarnation = incarnation + 1"]).await;
    let _program = start(&world, None).await;
    node.attached(2).await;
    let (alice, otto) = (world.person("alice").await, world.person("otto").await);
    for proposal in [&open, &approved] {
        assert_eq!(alice.proposal(&proposal.id).await.state(), ProposalState::Void);
        let status = otto.approve(proposal).await.expect_err("void");
        assert!(status.message().contains("restored"), "{status}");
    }
    assert!(node.orders().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terms_that_were_changed_in_the_database_are_not_agreed_to() {
    let world = World::new(&["n1@princeton"]).await;
    let (alice, otto) = (world.person("alice").await, world.person("otto").await);
    let proposal = alice.propose("k", kill_all()).await;
    let halt = "UPDATE proposals SET act = '{\"stop-every-node\":{\"no_way_back\":true}}'";
    by_hand(&world, &[halt]).await;
    let status = otto.approve(&proposal).await.expect_err("changed");
    assert!(status.message().contains("changed in the database"), "{status}");
    // The digest is only a hash: who edits the row can make a new one. The signature they cannot make.
    let terms = Terms {
        id: proposal.id.parse().expect("an id"),
        incarnation: proposal.incarnation,
        person: name("alice"),
        role: proto::Role::Support,
        act: Act::StopEveryNode { no_way_back: true },
        reason: proposal.reason.clone(),
        evidence: proposal.evidence.clone(),
        proposed_at_ms: proposal.proposed_at_ms,
        expires_at_ms: proposal.proposed_at_ms + OPEN_FOR_MS,
    };
    let forged = terms.digest();
    by_hand(&world, &[&format!("UPDATE proposals SET digest = x'{forged}'")]).await;
    let mut seen = otto.proposal(&proposal.id).await;
    assert_eq!(seen.digest, forged.as_bytes());
    assert!(seen.may_approve.is_empty(), "{:?}", seen.may_approve);
    for digest in [proposal.digest.clone(), forged.as_bytes().to_vec()] {
        seen.digest = digest;
        let status = otto.approve(&seen).await.expect_err("forged");
        assert!(status.message().contains("changed in the database"), "{status}");
    }
    let audit = world.audit().await;
    let refused = audit
        .iter()
        .filter(|entry| entry.action == "approve" && entry.outcome == "refused");
    assert_eq!(refused.count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_that_was_written_into_the_database_is_none() {
    let mut world = World::new(&["n1@princeton"]).await;
    let node = world.node("n1");
    node.dial();
    node.attached(1).await;
    let alice = world.person("alice").await;
    let proposal = alice.propose("k", kill_all()).await;
    world.stop().await;
    let approve = "UPDATE proposals SET state = 'approved', approver = 'otto', \
                   approved_at_ms = proposed_at_ms + 1, approval = zeroblob(72)";
    by_hand(&world, &[approve]).await;
    world.start().await;
    node.attached(2).await;
    let now = world.person("alice").await.proposal(&proposal.id).await;
    assert_eq!(now.state(), ProposalState::Failed);
    assert!(now.outcome.contains("by hand"), "{}", now.outcome);
    assert!(node.orders().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_five_minutes_it_is_too_late() {
    let world = World::new(&["n1@princeton"]).await;
    let (alice, otto) = (world.person("alice").await, world.person("otto").await);
    let proposal = alice.propose("k", kill_all()).await;
    // The time cannot be waited for: the row is made older, which the signature would tell, so the rule about time
    // has to come before it.
    by_hand(&world, &["UPDATE proposals SET proposed_at_ms = proposed_at_ms - 300000, expires_at_ms = expires_at_ms - 300000"])
        .await;
    assert_eq!(alice.proposal(&proposal.id).await.state(), ProposalState::Expired);
    let status = otto.approve(&proposal).await.expect_err("expired");
    assert!(
        status.message().contains("has expired after 5 minutes"),
        "{status}"
    );
}
