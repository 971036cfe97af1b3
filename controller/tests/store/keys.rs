//! Keys and invites: what an invite gives, once, and how keys come and go.

use authz::Grant;
use controller::store::{
    Holder, InviteSelection, InviteUse, Invitee, KeySelection, KeyStore, NewInvite, NewKey, NewPerson,
    SqliteStore, Store, StoreError, TieKind,
};
use proto::{DaemonRole, InviteId, NodeId, PersonName};
use trust::Spki;

use crate::common::*;

pub(crate) const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

pub(crate) fn spki(n: u8) -> Spki {
    Spki::new([n; 32])
}

pub(crate) fn newcomer(person: &str, grants: &[Grant]) -> Invitee {
    Invitee::NewPerson {
        name: name(person),
        full_name: "N".into(),
        email: "n@site.example".into(),
        grants: grants.to_vec(),
    }
}

/// `n` is the invite's own key.
pub(crate) fn invite(n: u8, by: Option<&str>, invitee: Invitee) -> NewInvite {
    NewInvite {
        id: InviteId::from_uuid(uuid::Uuid::from_bytes([n; 16])),
        spki: spki(n),
        invitee,
        created_by: by.map(name),
        expires_at_ms: NOW + DAY,
    }
}

/// Shown with its own key; `key` is to be enrolled.
pub(crate) fn using(invite: &NewInvite, key: u8) -> InviteUse {
    InviteUse {
        id: invite.id,
        shown: invite.spki,
        key: spki(key),
        certificate_expires_at_ms: NOW + DAY,
        now_ms: NOW,
    }
}

pub(crate) async fn create(store: &SqliteStore, invite: &NewInvite) {
    store
        .create_invite(invite, note("invite", &invite.id))
        .await
        .expect("kept");
}

async fn accept(store: &SqliteStore, wish: &InviteUse) -> Result<Vec<Spki>, StoreError> {
    let used = store.use_invite(wish, note("accept-invite", &wish.id)).await?;
    assert_eq!(used.key.spki, wish.key);
    Ok(used.revoked)
}

async fn people(store: &SqliteStore) {
    add_site(store, "princeton").await;
    add_slice(store, "princeton_codeen").await;
    add_person(store, "alice", vec![Grant::Support]).await;
}

fn codeen() -> Grant {
    Grant::Developer(name("princeton_codeen"))
}

fn why(error: &StoreError) -> String {
    assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn whoever_uses_an_invite_gets_what_it_says_and_nothing_more_once() {
    let place = Place::new();
    let store = place.create().await;
    people(&store).await;
    let bob: PersonName = name("bob");
    let invite = invite(1, Some("alice"), newcomer("bob", &[codeen()]));
    create(&store, &invite).await;
    assert_eq!(store.open_invites(NOW).await.expect("read").len(), 1);
    assert!(store.open_invites(NOW + DAY).await.expect("read").is_empty());
    assert!(store.person(&bob).await.is_err(), "not before it is used");

    let before = verified_audit(&store).await.len();
    let used = store
        .use_invite(&using(&invite, 2), note("accept-invite", "bob"))
        .await
        .expect("used");
    assert!(!used.again && used.revoked.is_empty());
    assert_eq!(used.key.holder, Holder::Person(bob.clone()));
    assert_eq!(used.key.enrolled_by, Some(name("alice")));
    assert_eq!(used.invite.used, Some((NOW, spki(2))));
    let person = store.person(&bob).await.expect("made");
    assert_eq!(
        (person.grants, person.email.as_str()),
        (vec![codeen()], "n@site.example")
    );
    assert_eq!(verified_audit(&store).await.len(), before + 1);
    let ties = store.ties(&bob, &name("alice"), NOW).await.expect("read");
    assert_eq!((ties.len(), ties[0].kind), (1, TieKind::Invited));
    assert_eq!(store.ties(&name("alice"), &bob, NOW).await.expect("read"), ties);
    assert!(
        store
            .ties(&bob, &name("alice"), NOW + 1)
            .await
            .expect("read")
            .is_empty()
    );
    assert!(store.open_invites(NOW).await.expect("read").is_empty());

    // Replayed: by somebody else, by the invite's own key, with another key shown.
    let error = accept(&store, &using(&invite, 3)).await.expect_err("used");
    assert!(why(&error).contains("used already, by another key"), "{error}");
    let foreign = InviteUse {
        shown: spki(9),
        ..using(&invite, 2)
    };
    let error = accept(&store, &foreign).await.expect_err("another's");
    assert!(why(&error).contains("another key than its own"), "{error}");
    // The same key: its certificate was lost on the way.
    let again = store
        .use_invite(&using(&invite, 2), note("accept-invite", "bob"))
        .await
        .expect("again");
    assert!(again.again);
    assert_eq!(
        store
            .keys_of(&Holder::Person(bob.clone()))
            .await
            .expect("read")
            .len(),
        1
    );
    // But not once it is revoked.
    store
        .revoke_keys(&KeySelection::Key(spki(2)), "stolen", note("revoke-keys", "bob"))
        .await
        .expect("revoked");
    let error = accept(&store, &using(&invite, 2)).await.expect_err("revoked");
    assert!(why(&error).contains("revoked"), "{error}");
    verified_audit(&store).await;
}

#[tokio::test]
async fn an_invite_that_is_too_old_void_or_of_another_life_lets_nobody_in() {
    let place = Place::new();
    let store = place.create().await;
    people(&store).await;
    let late = invite(1, Some("alice"), newcomer("bob", &[]));
    create(&store, &late).await;
    let wish = InviteUse {
        now_ms: NOW + DAY,
        ..using(&late, 21)
    };
    let error = accept(&store, &wish).await.expect_err("expired");
    assert!(why(&error).contains("expired"), "{error}");
    // The last moment is good.
    let wish = InviteUse {
        now_ms: NOW + DAY - 1,
        ..using(&late, 21)
    };
    accept(&store, &wish).await.expect("in time");

    let void = invite(2, Some("alice"), newcomer("carol", &[]));
    create(&store, &void).await;
    let which = InviteSelection::Invite(void.id);
    let voided = store.void_invites(&which, "a typo", note("void", "carol")).await;
    assert_eq!(voided.expect("void"), [void.id]);
    let error = accept(&store, &using(&void, 22)).await.expect_err("void");
    assert!(why(&error).contains("made void"), "{error}");

    // A restored database is another life.
    let old = invite(3, Some("alice"), newcomer("dave", &[]));
    create(&store, &old).await;
    store.close().await.expect("closed");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(place.path());
    let mut raw = sqlx::ConnectOptions::connect(&options).await.expect("open");
    sqlx::query("UPDATE meta SET incarnation = 2")
        .execute(&mut raw)
        .await
        .expect("restored");
    sqlx::Connection::close(raw).await.expect("closed");
    let store = place.open().await;
    let error = accept(&store, &using(&old, 23)).await.expect_err("another life");
    assert!(why(&error).contains("restored"), "{error}");
    // The used one is no way in either, not for its own key.
    let error = accept(&store, &using(&late, 21)).await.expect_err("another life");
    assert!(why(&error).contains("restored"), "{error}");
    assert!(store.open_invites(NOW).await.expect("read").is_empty());
    assert!(store.person(&name("dave")).await.is_err());
}

#[tokio::test]
async fn an_invite_gives_a_person_no_roles_and_no_roles_that_came_later() {
    let place = Place::new();
    let store = place.create().await;
    people(&store).await;
    add_person(&store, "eve", vec![codeen()]).await;
    let eve: PersonName = name("eve");
    let other = |rekey| Invitee::Person {
        name: name("eve"),
        at_most: vec![codeen()],
        rekey,
    };
    let second = invite(1, Some("alice"), other(false));
    let third = invite(2, Some("alice"), other(true));
    let fourth = invite(3, Some("alice"), other(false));
    for invite in [&second, &third, &fourth] {
        create(&store, invite).await;
    }
    accept(&store, &using(&second, 11)).await.expect("one more key");
    assert_eq!(
        accept(&store, &using(&third, 12)).await.expect("a new key"),
        [spki(11)]
    );
    let keys = store.keys_of(&Holder::Person(eve.clone())).await.expect("read");
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0].revoked.as_ref().map(|r| r.why.as_str()), Some("re-keyed"));
    assert!(keys[1].revoked.is_none());
    let ties = store.ties(&eve, &name("alice"), 0).await.expect("read");
    assert_eq!(
        ties.iter().map(|tie| tie.kind).collect::<Vec<_>>(),
        [TieKind::Rekeyed, TieKind::Rekeyed, TieKind::Invited]
    );
    // Whoever may hand out a developer's key may not hand out a supporter's.
    store
        .grant(&eve, &Grant::Support, note("set-role", "eve"))
        .await
        .expect("promoted");
    let error = accept(&store, &using(&fourth, 13))
        .await
        .expect_err("more than it may give");
    assert!(why(&error).contains("more roles"), "{error}");
    assert_eq!(
        store.ties(&eve, &name("alice"), 0).await.expect("read")[0].kind,
        TieKind::Promoted
    );
    // Somebody who came in by another door is not taken over by an invite for a newcomer.
    let newcomer = invite(4, Some("alice"), newcomer("frank", &[codeen()]));
    create(&store, &newcomer).await;
    add_person(&store, "frank", vec![Grant::Support]).await;
    let error = accept(&store, &using(&newcomer, 14))
        .await
        .expect_err("there already");
    assert!(matches!(error, StoreError::Exists { .. }), "{error}");
    assert!(store.key(spki(14)).await.is_err(), "nothing of it is left");
}

#[tokio::test]
async fn invites_fall_with_their_maker() {
    let place = Place::new();
    let store = place.create().await;
    people(&store).await;
    add_person(&store, "pia", vec![Grant::Pi(name("princeton"))]).await;
    add_person(&store, "bob", vec![codeen()]).await;
    let by_pia = invite(1, Some("pia"), newcomer("carol", &[codeen()]));
    let for_bob = invite(
        2,
        Some("alice"),
        Invitee::Person {
            name: name("bob"),
            at_most: vec![codeen()],
            rekey: false,
        },
    );
    create(&store, &by_pia).await;
    create(&store, &for_bob).await;
    store
        .revoke(
            &name("pia"),
            &Grant::Pi(name("princeton")),
            note("set-role", "pia"),
        )
        .await
        .expect("taken");
    let error = accept(&store, &using(&by_pia, 11))
        .await
        .expect_err("its maker is no PI");
    assert!(why(&error).contains("void"), "{error}");
    for key in [20, 21] {
        let key = NewKey {
            spki: spki(key),
            holder: Holder::Person(name("bob")),
            enrolled_by: None,
            certificate_expires_at_ms: NOW + DAY,
        };
        store
            .enrol_key(&key, note("enrol", "bob"))
            .await
            .expect("enrolled");
    }
    let removed = store
        .remove_person(&name("bob"), "laptop stolen", note("remove", "bob"))
        .await
        .expect("removed");
    assert_eq!(removed.keys.len(), 2);
    assert_eq!(removed.invites, [for_bob.id]);
    assert!(removed.person.grants.is_empty());
    assert!(accept(&store, &using(&for_bob, 12)).await.is_err());
    assert_eq!(store.revoked_keys(NOW).await.expect("read").len(), 2);
    assert!(
        store.revoked_keys(NOW + DAY).await.expect("read").is_empty(),
        "certificates ended"
    );
    assert!(
        store
            .remove_person(&name("nobody"), "x", note("remove", "x"))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn nodes_join_once_and_a_rekey_revokes_the_older_key() {
    let place = Place::new();
    let store = place.create().await;
    people(&store).await;
    let id = NodeId::random();
    let join = invite(
        1,
        Some("alice"),
        Invitee::NewNode {
            id,
            name: name("a.example"),
            site: name("princeton"),
        },
    );
    create(&store, &join).await;
    accept(&store, &using(&join, 11)).await.expect("joined");
    assert_eq!(store.node(id).await.expect("made").name, name("a.example"));
    let error = accept(&store, &using(&join, 12)).await.expect_err("once");
    assert!(why(&error).contains("used already"), "{error}");
    let taken = invite(
        2,
        Some("alice"),
        Invitee::NewNode {
            id: NodeId::random(),
            name: name("a.example"),
            site: name("princeton"),
        },
    );
    let error = store
        .create_invite(&taken, note("invite", "a"))
        .await
        .expect_err("taken");
    assert!(matches!(error, StoreError::Exists { .. }), "{error}");
    let rekey = invite(
        3,
        Some("alice"),
        Invitee::Node {
            id,
            name: name("a.example"),
            site: name("princeton"),
            rekey: true,
        },
    );
    create(&store, &rekey).await;
    assert_eq!(
        accept(&store, &using(&rekey, 13)).await.expect("re-keyed"),
        [spki(11)]
    );
    let holder = Holder::Node(id, DaemonRole::NodeManager);
    let keys = store.keys_of(&holder).await.expect("read");
    assert_eq!(
        keys.iter().map(|key| key.revoked.is_some()).collect::<Vec<_>>(),
        [true, false]
    );
    let revoked = store
        .revoke_keys(&KeySelection::Node(id), "stolen", note("revoke", "a"))
        .await
        .expect("revoked");
    assert_eq!(revoked.iter().map(|key| key.spki).collect::<Vec<_>>(), [spki(13)]);
    let error = store
        .renew_key(spki(13), NOW + 2 * DAY, note("renew", "a"))
        .await
        .expect_err("revoked");
    assert!(why(&error).contains("revoked"), "{error}");
}

#[tokio::test]
async fn a_key_has_one_holder_is_renewed_touched_and_never_an_invites_own() {
    let place = Place::new();
    let store = place.create().await;
    people(&store).await;
    add_person(&store, "bob", vec![]).await;
    let key = |n, holder: &str| NewKey {
        spki: spki(n),
        holder: Holder::Person(name(holder)),
        enrolled_by: None,
        certificate_expires_at_ms: NOW + DAY,
    };
    store
        .enrol_key(&key(1, "alice"), note("enrol", "alice"))
        .await
        .expect("new");
    store
        .enrol_key(&key(1, "alice"), note("enrol", "alice"))
        .await
        .expect("idempotent");
    let error = store
        .enrol_key(&key(1, "bob"), note("enrol", "bob"))
        .await
        .expect_err("another's");
    assert!(why(&error).contains("enrolled already"), "{error}");
    let renewed = store
        .renew_key(spki(1), NOW + 2 * DAY, note("renew", "alice"))
        .await
        .expect("good");
    assert_eq!(renewed.certificate_expires_at_ms, NOW + 2 * DAY);
    let shorter = store
        .renew_key(spki(1), NOW, note("renew", "alice"))
        .await
        .expect("good");
    assert_eq!(
        shorter.certificate_expires_at_ms,
        NOW + 2 * DAY,
        "the latest counts"
    );
    store
        .touch_keys(&[(spki(1), NOW + 5), (spki(99), NOW)])
        .await
        .expect("noted");
    store.touch_keys(&[(spki(1), NOW + 4)]).await.expect("noted");
    assert_eq!(
        store.key(spki(1)).await.expect("there").last_used_ms,
        Some(NOW + 5)
    );

    let invite = invite(7, Some("alice"), newcomer("carol", &[]));
    create(&store, &invite).await;
    let error = accept(&store, &using(&invite, 7)).await.expect_err("travelled");
    assert!(why(&error).contains("made where it is used"), "{error}");
    let error = accept(&store, &using(&invite, 1)).await.expect_err("alice's");
    assert!(why(&error).contains("enrolled already"), "{error}");
    assert!(
        store.person(&name("carol")).await.is_err(),
        "nothing of it is left"
    );

    store
        .enrol_key(&key(2, "alice"), note("enrol", "alice"))
        .await
        .expect("second");
    let which = KeySelection::Person {
        name: name("alice"),
        except: Some(spki(2)),
    };
    let revoked = store
        .revoke_keys(&which, "lost", note("revoke", "alice"))
        .await
        .expect("revoked");
    assert_eq!(revoked.iter().map(|key| key.spki).collect::<Vec<_>>(), [spki(1)]);
    assert!(store.key(spki(2)).await.expect("there").revoked.is_none());
    let error = store
        .enrol_key(&key(1, "alice"), note("enrol", "alice"))
        .await
        .expect_err("revoked");
    assert!(why(&error).contains("revoked"), "{error}");

    let root = NewPerson {
        name: name("root-made"),
        full_name: String::new(),
        email: String::new(),
        grants: vec![Grant::Support],
    };
    store
        .create_person_with_key(&root, &key(3, "root-made"), note("init", "x"))
        .await
        .expect("both");
    assert!(
        store
            .ties(&name("root-made"), &name("alice"), 0)
            .await
            .expect("read")
            .is_empty()
    );
}

#[tokio::test]
async fn of_two_who_use_an_invite_at_once_one_gets_in() {
    for round in 0..8 {
        let place = Place::new();
        let store = place.create().await;
        people(&store).await;
        let second = place.open().await; // Another process would have its own connection.
        let invite = invite(1, Some("alice"), newcomer("bob", &[codeen()]));
        create(&store, &invite).await;
        let (one, two) = (using(&invite, 11), using(&invite, 12));
        let (one, two) = tokio::join!(accept(&store, &one), accept(&second, &two));
        assert_eq!(
            [one.is_ok(), two.is_ok()].iter().filter(|ok| **ok).count(),
            1,
            "round {round}: {one:?} {two:?}"
        );
        let keys = store.keys_of(&Holder::Person(name("bob"))).await.expect("read");
        assert_eq!(keys.len(), 1);
        verified_audit(&store).await;
    }
}

#[tokio::test]
async fn nothing_about_keys_is_ever_deleted_or_brought_back_also_by_hand() {
    let place = Place::new();
    let store = place.create().await;
    people(&store).await;
    let invite = invite(1, Some("alice"), newcomer("bob", &[]));
    create(&store, &invite).await;
    accept(&store, &using(&invite, 2)).await.expect("used");
    store
        .revoke_keys(&KeySelection::Key(spki(2)), "x", note("revoke", "bob"))
        .await
        .expect("revoked");
    store.close().await.expect("closed");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(place.path());
    let mut raw = sqlx::ConnectOptions::connect(&options).await.expect("open");
    for sql in [
        "DELETE FROM keys",
        "DELETE FROM invites",
        "DELETE FROM ties",
        "UPDATE ties SET by = 'carol'",
        "UPDATE keys SET revoked_at_ms = NULL, revoked_why = NULL",
        "UPDATE keys SET person = 'alice'",
        "UPDATE invites SET used_at_ms = NULL, used_spki = NULL",
        "UPDATE invites SET used_spki = zeroblob(32)",
    ] {
        assert!(
            sqlx::query(sql).execute(&mut raw).await.is_err(),
            "{sql} was allowed"
        );
    }
}
