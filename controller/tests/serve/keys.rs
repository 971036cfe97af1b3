//! People's keys on the wire: invites, renewal, revocation, and who may do which.

use controller::admin::{self, IssuePerson};
use proto::bundle::{Bundle, SecretPem};
use proto::v1::access_client::AccessClient;
use proto::v1::enrol_client::EnrolClient;
use proto::v1::{self, AcceptRequest, CertifiedReply, InviteRequest, RenewRequest};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use time::OffsetDateTime;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::world::*;

impl Person {
    fn access(&self) -> AccessClient<Channel> {
        AccessClient::new(self.channel.clone())
    }

    fn enrol(&self) -> EnrolClient<Channel> {
        EnrolClient::new(self.channel.clone())
    }

    async fn whoami(&self) -> Result<v1::WhoAmIReply, Status> {
        Ok(self.people().who_am_i(v1::WhoAmIRequest {}).await?.into_inner())
    }

    async fn invite(&self, person: &str, grants: &[v1::Grant]) -> Result<Bundle, Status> {
        self.invite_as(InviteRequest {
            person: person.into(),
            grants: grants.to_vec(),
            ..InviteRequest::default()
        })
        .await
    }

    async fn invite_as(&self, request: InviteRequest) -> Result<Bundle, Status> {
        let reply = self.access().invite(request).await?.into_inner();
        Ok(Bundle::parse(&reply.bundle).expect("a good bundle"))
    }

    async fn accept(&self, key: &KeyPair) -> Result<CertifiedReply, Status> {
        let request = CertificateParams::default().serialize_request(key).expect("made");
        let request = AcceptRequest {
            request: request.der().to_vec(),
        };
        Ok(self.enrol().accept(request).await?.into_inner())
    }

    async fn keys_of(&self, person: &str) -> Result<Vec<v1::Key>, Status> {
        let person = person.into();
        let reply = self.access().list_keys(v1::ListKeysRequest { person }).await?;
        Ok(reply.into_inner().keys)
    }

    async fn revoke_keys(&self, person: &str, key: &str) -> Result<Vec<v1::Key>, Status> {
        let request = v1::RevokeKeysRequest {
            person: person.into(),
            key: key.into(),
            reason: "laptop stolen".into(),
        };
        Ok(self.access().revoke_keys(request).await?.into_inner().revoked)
    }

    /// A stream that says nothing more until it is cut.
    async fn watch(&self, order: &str) -> Result<tonic::Streaming<v1::OrderEvent>, Status> {
        let request = v1::WatchOrderRequest {
            id: order.into(),
            until_settled: false,
        };
        let mut stream = self.orders().watch(request).await?.into_inner();
        tokio::time::timeout(CAP, stream.message())
            .await
            .expect("in time")?;
        Ok(stream)
    }
}

/// Waits until a stream or its connection is cut. The cap is what “within a second” needs on a slow machine.
async fn cut(mut stream: tonic::Streaming<v1::OrderEvent>) {
    let ended = async {
        while let Ok(Some(event)) = stream.message().await {
            assert!(!event.last, "the order ended instead");
        }
    };
    tokio::time::timeout(CAP, ended).await.expect("the stream is cut");
}

fn key() -> KeyPair {
    KeyPair::generate().expect("randomness")
}

fn role(role: v1::Role, slice: &str, site: &str) -> v1::Grant {
    v1::Grant {
        role: role.into(),
        slice: slice.into(),
        site: site.into(),
    }
}

fn codeen() -> v1::Grant {
    role(v1::Role::Developer, "princeton_codeen", "")
}

impl World {
    async fn come_in(&self, bundle: &Bundle) -> Person {
        Person {
            channel: connect(bundle, self.people).await.expect("connects"),
        }
    }

    /// What `redbutton login` does.
    async fn log_in(&self, invite: &Bundle) -> (Bundle, Person) {
        let key = key();
        let reply = self.come_in(invite).await.accept(&key).await.expect("accepted");
        let bundle = bundle_of(invite, &key, reply);
        let person = self.come_in(&bundle).await;
        (bundle, person)
    }

    /// A bundle of somebody who is there, of root's making.
    async fn issue(&self, person: &str, file: &str, life: time::Duration) -> Bundle {
        self.issue_at(person, file, life, OffsetDateTime::now_utc()).await
    }

    async fn issue_at(&self, person: &str, file: &str, life: time::Duration, now: OffsetDateTime) -> Bundle {
        let out = self.dir.path().join(file);
        let wish = IssuePerson {
            dir: self.state(),
            name: name(person),
            out: out.clone(),
            addresses: Vec::new(),
            life: Some(life),
        };
        admin::issue_person(&wish, now).await.expect("a bundle");
        Bundle::parse(&std::fs::read_to_string(out).expect("a file")).expect("a bundle")
    }

    /// An order that stays open: its node never comes.
    async fn open_order(&self, by: &Person) -> String {
        let pressed = by
            .press("open", kill("princeton_codeen", fleet()))
            .await
            .expect("pressed");
        pressed.order.expect("one").id
    }
}

fn bundle_of(invite: &Bundle, key: &KeyPair, reply: CertifiedReply) -> Bundle {
    Bundle {
        identity: reply.identity,
        name: reply.name,
        ca: reply.roots,
        certificate: reply.certificate,
        key: SecretPem::new(key.serialize_pem()),
        ..invite.clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitee_makes_a_key_and_gets_what_the_invite_says_and_nothing_more() {
    let world = World::new(&[]).await;
    let alice = world.person("alice").await;
    let invite = alice.invite("bob", &[codeen()]).await.expect("invited");
    assert!(invite.identity.starts_with("redbutton://invite/"));
    assert!(
        !world
            .audit()
            .await
            .iter()
            .any(|entry| entry.detail.contains("PRIVATE"))
    );

    // The invite reaches nothing but its acceptance.
    let with_invite = world.come_in(&invite).await;
    for error in [
        with_invite.whoami().await.expect_err("not a person yet"),
        with_invite
            .invite("carol", &[])
            .await
            .expect_err("not a person yet"),
        with_invite
            .press("k", kill("princeton_codeen", fleet()))
            .await
            .expect_err("not a person yet"),
    ] {
        assert_eq!(error.code(), Code::Unimplemented, "{error}");
    }
    let renew = RenewRequest {
        public_key: key().subject_public_key_info(),
    };
    let error = with_invite.enrol().renew(renew).await.expect_err("no person");
    assert_eq!(code(&error), "refused", "{error}");
    let garbage = AcceptRequest {
        request: vec![0x30; 90],
    };
    let error = with_invite.enrol().accept(garbage).await.expect_err("no request");
    assert_eq!(code(&error), "malformed", "{error}");

    let mine = key();
    let reply = with_invite.accept(&mine).await.expect("accepted");
    assert_eq!(
        (reply.identity.as_str(), reply.name.as_str()),
        ("redbutton://person/bob", "bob")
    );
    assert_eq!(reply.roots, invite.ca);
    let bob = world.come_in(&bundle_of(&invite, &mine, reply)).await;
    let who = bob.whoami().await.expect("known");
    assert_eq!(who.person.expect("bob").grants, [codeen()]);
    let day = 24 * 3_600_000;
    let left = who.certificate_expires_at_ms - controller::fleet::now_ms();
    assert!((day - 600_000..=day).contains(&left), "{left} ms are left");

    // Replayed by somebody else: over the same connection, over another, and after the first asked again.
    let again = with_invite
        .accept(&mine)
        .await
        .expect("the same key may ask again");
    assert_eq!(again.name, "bob");
    for thief in [with_invite, world.come_in(&invite).await] {
        let error = thief.accept(&key()).await.expect_err("used");
        assert_eq!(code(&error), "refused");
        assert!(error.message().contains("used already"), "{error}");
    }
    let keys = bob.keys_of("").await.expect("own keys");
    assert_eq!(keys.len(), 1);
    assert!(keys[0].yours && keys[0].enrolled_by == "alice");

    let entries = world.audit().await;
    let of = |action: &str, outcome: &str| {
        let fits =
            |e: &&v1::AuditEntry| e.action == action && e.outcome == outcome && e.target.contains("bob");
        entries.iter().filter(fits).count()
    };
    assert_eq!(of("invite", "allowed"), 1);
    assert_eq!(of("accept-invite", "allowed"), 2);
    assert_eq!(of("accept-invite", "refused"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_use_an_invite_at_once_one_gets_in() {
    let world = World::new(&[]).await;
    let alice = world.person("alice").await;
    for round in 0..5 {
        let invite = alice
            .invite(&format!("new{round}"), &[codeen()])
            .await
            .expect("invited");
        let (one, two) = (world.come_in(&invite).await, world.come_in(&invite).await);
        let (a, b) = (key(), key());
        let (one, two) = tokio::join!(one.accept(&a), two.accept(&b));
        let refused = match (one, two) {
            (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
            (one, two) => panic!("round {round}: {one:?} {two:?}"),
        };
        assert_eq!(code(&refused), "refused", "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_hand_a_role_out_invites_nobody_into_it_also_not_themselves() {
    let world = World::new(&[]).await;
    let (dan, paula, ada, nora) = (
        world.person("dan").await,
        world.person("paula").await,
        world.person("ada").await,
        world.person("nora").await,
    );
    let support = role(v1::Role::Support, "", "");
    let pi = role(v1::Role::Pi, "", "princeton");
    let chord = role(v1::Role::Developer, "mit_chord", "");
    for (who, person, grants) in [
        // Below a PI, nobody invites.
        (&dan, "new", vec![codeen()]),
        (&ada, "new", vec![codeen()]),
        (&nora, "new", vec![]),
        // A PI invites developers into slices of the own site.
        (&paula, "new", vec![]),
        (&paula, "new", vec![support.clone()]),
        (&paula, "new", vec![pi.clone()]),
        (&paula, "new", vec![chord.clone()]),
        (&paula, "new", vec![codeen(), chord.clone()]),
        // Nobody promotes themselves, or takes somebody over who has more.
        (&paula, "paula", vec![support]),
        (&paula, "paula", vec![]),
        (&paula, "alice", vec![]),
        (&paula, "alice", vec![codeen()]),
        (&paula, "peter", vec![]),
        (&paula, "nora", vec![]),
        (&dan, "dan", vec![pi]),
        (&dan, "dan", vec![]),
    ] {
        let error = who.invite(person, &grants).await.expect_err("refused");
        assert_eq!(code(&error), "refused", "{person} {grants:?}: {error}");
    }
    // An invite for a slice that is not there, or a person who is: told at once.
    let alice = world.person("alice").await;
    let nothing = role(v1::Role::Developer, "princeton_nothing", "");
    assert_eq!(
        code(&alice.invite("new", &[nothing]).await.expect_err("absent")),
        "not-found"
    );
    assert_eq!(
        code(&alice.invite("dan", &[chord]).await.expect_err("there")),
        "exists"
    );
    let rekey = InviteRequest {
        person: "new".into(),
        rekey: true,
        ..InviteRequest::default()
    };
    assert_eq!(
        code(&alice.invite_as(rekey).await.expect_err("absent")),
        "not-found"
    );
    let long = InviteRequest {
        person: "new".into(),
        life_hours: 721,
        ..InviteRequest::default()
    };
    assert_eq!(
        code(&alice.invite_as(long).await.expect_err("too long")),
        "malformed"
    );

    // What a PI may do: a newcomer, and another key of a developer who is nothing else.
    let (_, new) = world
        .log_in(&paula.invite("new", &[codeen()]).await.expect("a PI's to give"))
        .await;
    assert_eq!(
        new.whoami().await.expect("known").person.expect("new").grants,
        [codeen()]
    );
    paula
        .invite("dan", &[])
        .await
        .expect("one more key of a developer");
    // Another PI sees neither the invites nor the keys.
    let peter = world.person("peter").await;
    let mine = paula
        .access()
        .list_invites(v1::ListInvitesRequest {})
        .await
        .expect("hers")
        .into_inner()
        .invites;
    assert_eq!(
        mine.iter().map(|i| i.person.as_str()).collect::<Vec<_>>(),
        ["dan"]
    );
    let his = peter
        .access()
        .list_invites(v1::ListInvitesRequest {})
        .await
        .expect("his")
        .into_inner();
    assert!(his.invites.is_empty());
    let void = v1::VoidInviteRequest {
        id: mine[0].id.clone(),
    };
    let foreign = peter
        .access()
        .void_invite(void.clone())
        .await
        .expect_err("not his");
    assert_eq!(code(&foreign), "refused");
    assert!(
        paula
            .access()
            .void_invite(void)
            .await
            .expect("hers")
            .into_inner()
            .voided
    );
    assert_eq!(code(&peter.keys_of("dan").await.expect_err("not his")), "refused");
    assert_eq!(
        code(&peter.revoke_keys("dan", "").await.expect_err("not his")),
        "refused"
    );
    assert_eq!(
        code(&dan.revoke_keys("paula", "").await.expect_err("not his")),
        "refused"
    );
    let remove = v1::RemovePersonRequest {
        person: "alice".into(),
        reason: String::new(),
    };
    for who in [&dan, &paula, &ada] {
        let error = who
            .access()
            .remove_person(remove.clone())
            .await
            .expect_err("refused");
        assert_eq!(code(&error), "refused", "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invite_from_before_a_restore_lets_nobody_in() {
    let mut world = World::new(&[]).await;
    let alice = world.person("alice").await;
    let (open, used) = (
        alice.invite("bob", &[codeen()]).await.expect("invited"),
        alice.invite("carol", &[codeen()]).await.expect("invited"),
    );
    let carols = key();
    world
        .come_in(&used)
        .await
        .accept(&carols)
        .await
        .expect("accepted");
    world.stop().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.state().join("redbutton.db"));
    let mut raw = sqlx::ConnectOptions::connect(&options).await.expect("open");
    // What `restore` does to the database; as if it came from before carol came.
    sqlx::query("UPDATE meta SET incarnation = incarnation + 1")
        .execute(&mut raw)
        .await
        .expect("restored");
    sqlx::Connection::close(raw).await.expect("closed");
    world.start().await;
    for (invite, key) in [(&open, &key()), (&used, &carols)] {
        let error = world.come_in(invite).await.accept(key).await.expect_err("void");
        assert_eq!(code(&error), "refused");
        assert!(error.message().contains("restored"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_laptop_is_locked_out_by_one_command_and_its_streams_are_cut() {
    let world = World::new(&["n1@princeton"]).await;
    let (alice, dan) = (world.person("alice").await, world.person("dan").await);
    let order = world.open_order(&dan).await;
    let (stream, of_alice) = (
        dan.watch(&order).await.expect("watches"),
        alice.watch(&order).await,
    );
    let revoked = alice.revoke_keys("dan", "").await.expect("revoked");
    assert_eq!(revoked.len(), 1);
    assert_eq!(revoked[0].revoked_why, "laptop stolen");
    cut(stream).await;
    // It comes back, and is told.
    let again = world.person("dan").await;
    let error = again.whoami().await.expect_err("revoked");
    assert_eq!(code(&error), "refused");
    assert!(error.message().contains("revoked"), "{error}");
    let error = again
        .press("x", kill("princeton_codeen", fleet()))
        .await
        .expect_err("revoked");
    assert_eq!(code(&error), "refused");
    let bundle = world.load("dan", world.people);
    let public_key = KeyPair::from_pem(bundle.key.expose())
        .expect("a key")
        .subject_public_key_info();
    let error = again
        .enrol()
        .renew(RenewRequest { public_key })
        .await
        .expect_err("revoked");
    assert!(error.message().contains("revoked"), "{error}");
    // It may knock as often as it likes: the audit does not grow with it.
    for _ in 0..40 {
        assert_eq!(code(&again.whoami().await.expect_err("revoked")), "refused");
    }
    let refused = |e: &&v1::AuditEntry| e.action == "call" && e.outcome == "refused";
    assert!(world.audit().await.iter().filter(refused).count() <= 10);
    // Nobody else was cut, and dan comes back by an invite.
    drop(of_alice.expect("still there"));
    alice.whoami().await.expect("still there");
    let (_, dan) = world
        .log_in(&alice.invite("dan", &[]).await.expect("invited"))
        .await;
    dan.watch(&order).await.expect("the same roles as before");
    let entries = world.audit().await;
    let revoking = entries
        .iter()
        .find(|e| e.action == "revoke-keys")
        .expect("audited");
    assert_eq!(
        (revoking.person.as_str(), revoking.reason.as_str()),
        ("alice", "laptop stolen")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_revokes_one_s_own_other_keys_and_keeps_the_one_in_hand() {
    let world = World::new(&["n1@princeton"]).await;
    let dan = world.person("dan").await;
    let order = world.open_order(&dan).await;
    let stolen = dan.watch(&order).await.expect("watches");
    let second = world
        .come_in(&world.issue("dan", "second", time::Duration::DAY).await)
        .await;
    assert_eq!(second.keys_of("").await.expect("own").len(), 2);
    let error = second.revoke_keys("", "abc").await.expect_err("too short");
    assert_eq!(code(&error), "malformed");
    let error = second.revoke_keys("", "00000000").await.expect_err("none such");
    assert_eq!(code(&error), "not-found");
    assert_eq!(second.revoke_keys("", "").await.expect("the other one").len(), 1);
    cut(stolen).await;
    second.whoami().await.expect("the one in hand stays");
    // Also that one, by its name; the answer still arrives.
    let watching = second.watch(&order).await.expect("watches");
    let mine = second
        .keys_of("")
        .await
        .expect("own")
        .into_iter()
        .find(|key| key.yours)
        .expect("one");
    assert_eq!(
        second
            .revoke_keys("", &mine.fingerprint[..12])
            .await
            .expect("it too")
            .len(),
        1
    );
    cut(watching).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_is_taken_away_takes_the_open_streams_with_it() {
    let world = World::new(&["n1@princeton"]).await;
    let (alice, dan) = (world.person("alice").await, world.person("dan").await);
    let order = world.open_order(&dan).await;
    let stream = dan.watch(&order).await.expect("watches");
    let request = v1::RevokeRequest {
        person: "dan".into(),
        grant: Some(codeen()),
    };
    alice.people().revoke(request).await.expect("taken");
    cut(stream).await;
    // The key is good; what it may see is not what it was.
    let again = world.person("dan").await;
    assert!(
        again
            .whoami()
            .await
            .expect("still known")
            .person
            .expect("dan")
            .grants
            .is_empty()
    );
    assert_eq!(
        code(&again.watch(&order).await.expect_err("no longer")),
        "refused"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_who_is_removed_has_nothing_left_at_once() {
    let world = World::new(&["n1@princeton"]).await;
    let (alice, paula) = (world.person("alice").await, world.person("paula").await);
    let by_paula = paula.invite("newcomer", &[codeen()]).await.expect("invited");
    let order = world.open_order(&paula).await;
    let stream = paula.watch(&order).await.expect("watches");
    let request = v1::RemovePersonRequest {
        person: "paula".into(),
        reason: "left".into(),
    };
    let removed = alice
        .access()
        .remove_person(request)
        .await
        .expect("removed")
        .into_inner();
    assert_eq!((removed.revoked.len(), removed.voided.len()), (1, 1));
    assert!(removed.person.expect("paula").grants.is_empty());
    cut(stream).await;
    assert_eq!(
        code(&world.person("paula").await.whoami().await.expect_err("gone")),
        "refused"
    );
    let error = world
        .come_in(&by_paula)
        .await
        .accept(&key())
        .await
        .expect_err("void");
    assert!(error.message().contains("void"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_for_the_key_of_the_connection_alone() {
    let world = World::new(&[]).await;
    let dan = world.person("dan").await;
    let bundle = world.load("dan", world.people);
    let mine = KeyPair::from_pem(bundle.key.expose()).expect("a key");
    let renew = async |public_key: Vec<u8>| dan.enrol().renew(RenewRequest { public_key }).await;
    let error = renew(key().subject_public_key_info())
        .await
        .expect_err("another's");
    assert!(error.message().contains("needs an invite"), "{error}");
    assert_eq!(
        code(&renew(vec![1, 2, 3]).await.expect_err("no key")),
        "malformed"
    );
    let error = dan.accept(&key()).await.expect_err("no invite");
    assert_eq!(code(&error), "refused", "{error}");
    let reply = renew(mine.subject_public_key_info())
        .await
        .expect("renewed")
        .into_inner();
    let fresh = Bundle {
        certificate: reply.certificate,
        ..bundle
    };
    let who = world.come_in(&fresh).await.whoami().await.expect("known");
    assert_eq!(who.certificate_expires_at_ms, reply.expires_at_ms);
    assert_eq!(dan.keys_of("").await.expect("own").len(), 1, "no new key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_ours_with_a_key_that_nobody_enrolled_opens_nothing() {
    let world = World::new(&[]).await;
    let authority =
        controller::pki::Authority::open(&world.state(), OffsetDateTime::now_utc()).expect("opens");
    let ca = authority.ca();
    let forged = ca
        .person(&name("alice"), time::Duration::HOUR, OffsetDateTime::now_utc())
        .expect("made");
    let bundle = Bundle {
        certificate: forged.certificate,
        key: forged.key,
        ..world.issue("alice", "true", time::Duration::HOUR).await
    };
    let error = world.come_in(&bundle).await.whoami().await.expect_err("unknown");
    assert_eq!(code(&error), "refused");
    assert!(error.message().contains("not enrolled"), "{error}");
}

/// TLS looks at the end of a certificate once, at the handshake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_with_its_certificate() {
    let world = World::new(&["n1@princeton"]).await;
    let order = world.open_order(&world.person("dan").await).await;
    let bundle = world.issue("dan", "short", time::Duration::seconds(3)).await;
    let dan = world.come_in(&bundle).await;
    cut(dan.watch(&order).await.expect("watches")).await;
}

/// It came back from a long journey: it may have its certificate renewed, for so long, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_certificate_of_an_enrolled_key_may_only_be_renewed_and_not_for_ever() {
    let world = World::new(&[]).await;
    let alice = world.person("alice").await;
    let days_ago = |days| OffsetDateTime::now_utc() - time::Duration::days(days);
    let day = time::Duration::DAY;
    let ended = world.issue_at("dan", "ended", day, days_ago(30)).await;
    let dan = world.come_in(&ended).await;
    for error in [
        dan.whoami().await.expect_err("ended"),
        dan.press("k", kill("princeton_codeen", fleet()))
            .await
            .expect_err("ended"),
        dan.keys_of("").await.expect_err("ended"),
    ] {
        assert_eq!(error.code(), Code::Unimplemented, "{error}");
    }
    let renew = async |bundle: &Bundle| {
        let public_key = KeyPair::from_pem(bundle.key.expose())
            .expect("a key")
            .subject_public_key_info();
        let person = world.come_in(bundle).await;
        Ok::<_, Status>(
            person
                .enrol()
                .renew(RenewRequest { public_key })
                .await?
                .into_inner(),
        )
    };
    let reply = renew(&ended).await.expect("renewed");
    let fresh = Bundle {
        certificate: reply.certificate,
        ..ended.clone()
    };
    let who = world.come_in(&fresh).await.whoami().await.expect("known");
    assert_eq!(who.person.expect("dan").grants, [codeen()]);

    let too_old = world.issue_at("dan", "too-old", day, days_ago(32)).await;
    let error = renew(&too_old).await.expect_err("too long ago");
    assert_eq!(code(&error), "refused");
    assert!(error.message().contains("more than 30 days ago"), "{error}");

    // Revoked meanwhile: neither this nor its younger certificate.
    alice.revoke_keys("dan", "").await.expect("revoked");
    let error = renew(&ended).await.expect_err("revoked");
    assert!(error.message().contains("revoked"), "{error}");
}
