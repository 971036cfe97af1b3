//! Lists hold what the caller may see, page by page.

use proto::v1;

use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_sees_their_own() {
    let world = World::new(&["n1@princeton", "n2@mit"]).await;
    let (alice, dan, peter, ada) = (
        world.person("alice").await,
        world.person("dan").await,
        world.person("peter").await,
        world.person("ada").await,
    );
    alice
        .press("1", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed");
    alice
        .press("2", kill("mit_chord", fleet()))
        .await
        .expect("pressed");
    alice.press("3", kill("", on_node("n1"))).await.expect("pressed");
    let orders = async |who: &Person| {
        let list = who
            .orders()
            .list(v1::ListOrdersRequest::default())
            .await
            .expect("orders")
            .into_inner()
            .orders;
        list.into_iter()
            .map(|order| order.kind + " " + &order.slice)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        orders(&alice).await,
        [
            "kill-node ",
            "kill-slice mit_chord",
            "kill-slice princeton_codeen"
        ]
    );
    assert_eq!(orders(&dan).await, ["kill-slice princeton_codeen"]);
    assert_eq!(orders(&peter).await, ["kill-slice mit_chord"]);
    assert_eq!(orders(&ada).await, ["kill-node "]);
    let nodes = async |who: &Person| {
        let list = who
            .nodes()
            .list(v1::ListNodesRequest::default())
            .await
            .expect("nodes")
            .into_inner()
            .nodes;
        list.into_iter().map(|node| node.name).collect::<Vec<_>>()
    };
    assert_eq!(nodes(&alice).await, ["n1", "n2"]);
    assert_eq!(nodes(&ada).await, ["n1"]);
    assert!(nodes(&dan).await.is_empty());
    let slices = async |who: &Person| {
        let list = who
            .slices()
            .list(v1::ListSlicesRequest::default())
            .await
            .expect("slices")
            .into_inner()
            .slices;
        list.into_iter()
            .map(|slice| (slice.name, slice.holds))
            .collect::<Vec<_>>()
    };
    assert_eq!(slices(&dan).await, [("princeton_codeen".to_owned(), 1)]);
    assert_eq!(slices(&peter).await, [("mit_chord".to_owned(), 1)]);
    let holds = async |who: &Person, slice: &str| {
        let request = v1::ListHoldsRequest {
            slice: slice.into(),
            node: String::new(),
        };
        who.orders()
            .holds(request)
            .await
            .expect("holds")
            .into_inner()
            .holds
            .len()
    };
    assert_eq!(holds(&alice, "").await, 3);
    assert_eq!(holds(&dan, "").await, 1);
    assert_eq!(holds(&dan, "mit_chord").await, 0);
    assert_eq!(holds(&ada, "").await, 1);
    let audit = async |who: &Person| {
        let list = who
            .audit()
            .list(v1::ListAuditRequest::default())
            .await
            .expect("audit")
            .into_inner()
            .entries;
        list.into_iter()
            .filter(|entry| entry.action.starts_with("kill"))
            .map(|entry| entry.target)
            .collect::<Vec<_>>()
    };
    assert_eq!(audit(&dan).await, ["princeton_codeen"]);
    assert_eq!(audit(&ada).await, ["node n1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_bounded_and_whole() {
    let world = World::new(&[]).await;
    let alice = world.person("alice").await;
    for n in 0..30 {
        let request = v1::PressRequest {
            idempotency_key: format!("k{n}"),
            reason: "ä".repeat(1_000),
            evidence: "ö".repeat(1_000),
            wish: Some(kill("mit_chord", fleet())),
        };
        alice.orders().press(request).await.expect("pressed");
    }
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListOrdersRequest {
            page_size: 7,
            page_token,
            ..Default::default()
        };
        let page = alice.orders().list(request).await.expect("a page").into_inner();
        assert!(page.orders.len() <= 7);
        seen.extend(page.orders.into_iter().map(|order| order.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    seen.dedup();
    assert_eq!(seen.len(), 30);
    let bad = v1::ListOrdersRequest {
        page_token: "nonsense".into(),
        ..Default::default()
    };
    assert_eq!(
        code(&alice.orders().list(bad).await.expect_err("no token")),
        "malformed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_are_given_and_taken_by_whom_they_are_to_give() {
    let world = World::new(&[]).await;
    let (alice, paula, dan) = (
        world.person("alice").await,
        world.person("paula").await,
        world.person("dan").await,
    );
    let developer = |slice: &str| {
        Some(v1::Grant {
            role: v1::Role::Developer.into(),
            slice: slice.into(),
            site: String::new(),
        })
    };
    let grant = |slice: &str| v1::GrantRequest {
        person: "nora".into(),
        grant: developer(slice),
    };
    let nora = paula
        .people()
        .grant(grant("princeton_codeen"))
        .await
        .expect("a PI's own slice")
        .into_inner();
    assert_eq!(nora.grants.len(), 1);
    assert_eq!(
        code(
            &paula
                .people()
                .grant(grant("mit_chord"))
                .await
                .expect_err("another's")
        ),
        "refused"
    );
    assert_eq!(
        code(
            &dan.people()
                .grant(grant("princeton_codeen"))
                .await
                .expect_err("a developer")
        ),
        "refused"
    );
    let support = v1::GrantRequest {
        person: "paula".into(),
        grant: Some(v1::Grant {
            role: v1::Role::Support.into(),
            ..Default::default()
        }),
    };
    assert_eq!(
        code(
            &paula
                .people()
                .grant(support)
                .await
                .expect_err("oneself to support")
        ),
        "refused"
    );
    let wrong = v1::GrantRequest {
        person: "nora".into(),
        grant: Some(v1::Grant {
            role: 77,
            ..Default::default()
        }),
    };
    assert_eq!(
        code(&alice.people().grant(wrong).await.expect_err("no role")),
        "malformed"
    );
    // The new developer may press at once, and not after the role is gone.
    let nora = world.person("nora").await;
    nora.press("1", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed");
    let revoke = v1::RevokeRequest {
        person: "nora".into(),
        grant: developer("princeton_codeen"),
    };
    alice.people().revoke(revoke).await.expect("taken");
    assert_eq!(
        code(
            &nora
                .press("2", kill("princeton_codeen", fleet()))
                .await
                .expect_err("no role")
        ),
        "refused"
    );
    let twice = v1::CreatePersonRequest {
        name: "dan".into(),
        ..Default::default()
    };
    assert_eq!(
        code(&alice.people().create(twice).await.expect_err("exists")),
        "exists"
    );
    let actions: Vec<_> = world
        .audit()
        .await
        .into_iter()
        .map(|e| (e.action, e.outcome, e.person))
        .collect();
    assert!(actions.contains(&("set-role".into(), "allowed".into(), "paula".into())));
    assert!(actions.contains(&("set-role".into(), "refused".into(), "dan".into())));
}
