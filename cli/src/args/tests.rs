use clap::{CommandFactory, Parser};

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("redbutton").chain(line.split_whitespace()))
}

fn refused(line: &str) -> String {
    match parse(line) {
        Ok(cli) => panic!("{line:?} was accepted: {:?}", cli.command),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_parses() {
    for line in [
        "kill-slice princeton_codeen",
        "kill-slice princeton_codeen --reason x --no-wait",
        "audit witness --out heads",
        "audit verify file --witness heads --ca ca.pem",
        "kill-all --reason x",
        "stop-all --no-way-back -r x",
        "approve 0193e0a0-0000-7000-8000-000000000001",
        "approve 0193e0a0-0000-7000-8000-000000000001 --digest 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef --yes --wait 5",
        "approvals ls --all",
        "approvals show 0193e0a0-0000-7000-8000-000000000001",
        "approvals withdraw 0193e0a0-0000-7000-8000-000000000001 -r x",
        "slice ls",
        "slice ls --site princeton --json",
        "--direct n1 node show n1",
        "--direct n1@192.0.2.7:7445 slice kill princeton_codeen -r x",
        "kit export --out /tmp/kit --passphrase-file /tmp/p",
        "kit show --kit /tmp/kit",
        "slice show princeton_codeen",
        "slice add princeton_codeen --description x --contact a@x --contact b@x",
        "slice kill princeton_codeen --node n1.example.org -r x",
        "slice kill princeton_codeen --site princeton",
        "slice freeze princeton_codeen",
        "slice release princeton_codeen",
        "slice release --hold 6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "slice holds princeton_codeen",
        "node ls --site princeton --slice princeton_codeen",
        "node show n1",
        "node ps 6ba7b810-9dad-11d1-80b4-00c04fd430c8 --slice princeton_codeen --limit 10",
        "node logs n1 -n 10 --unit ssh.service",
        "node kill n1",
        "node freeze n1",
        "node release n1",
        "node reboot n1 --reason x",
        "node stop n1 --no-way-back",
        "order ls --open",
        "order show 6ba7b810-9dad-11d1-80b4-00c04fd430c8 --all",
        "order watch 6ba7b810-9dad-11d1-80b4-00c04fd430c8 --until-settled --wait 5",
        "login",
        "login alice.invite --force",
        "login alice.invite --ssh-agent SHA256:x",
        "invite bob --role developer --slice princeton_codeen --out bob.invite --hours 24",
        "invite bob --rekey -o bob.invite",
        "people keys",
        "people keys bob",
        "people revoke-keys",
        "people revoke-keys bob --key 0123abcd --reason stolen",
        "people remove bob --reason left",
        "people invites",
        "people void-invite 6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "whoami",
        "site ls",
        "site show princeton",
        "site add princeton --full-name x --abuse-contact x",
        "people ls",
        "people show alice",
        "people add alice --email x --role developer --slice princeton_codeen",
        "people add alice",
        "people grant alice --role site-admin --site princeton",
        "people revoke alice --role support",
        "audit log --person alice -n 3",
        "audit verify file --witness 0:0000000000000000000000000000000000000000000000000000000000000000",
        "audit export --from 3 -o file",
        "completions bash",
        "man directory",
        "--no-wait --quiet --timeout 3 --controller [::1]:9 kill-slice princeton_codeen",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line:?}: {error}");
        }
    }
}

#[test]
fn names_are_checked_before_anything_is_sent() {
    for (line, says) in [
        (
            "kill-slice Princeton_codeen",
            "slice name \"Princeton_codeen\" is malformed",
        ),
        ("slice kill codeen", "expected site_name of lower-case"),
        (
            "slice kill princeton_codeen --site Princeton",
            "site name \"Princeton\" is malformed",
        ),
        (
            "slice kill princeton_codeen --node Up",
            "node name \"Up\" is malformed",
        ),
        ("order show 1", "order id \"1\" is malformed"),
        ("people show Alice", "person name \"Alice\" is malformed"),
        ("slice release --hold 1", "hold id \"1\" is malformed"),
        ("slice release", "required"),
        (
            "slice release princeton_codeen --hold 6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "cannot be used with",
        ),
        (
            "slice kill princeton_codeen --node n1 --site princeton",
            "cannot be used with",
        ),
        ("whoami --controller x:y", "address \"x:y\" is malformed"),
        ("whoami --timeout 0", "expected seconds from 0.1 to 86400"),
        ("whoami --timeout inf", "expected seconds from 0.1 to 86400"),
        ("kill-slice princeton_codeen --key a\u{7}b", "visible ASCII"),
        ("node ps n1 --limit 10001", "10001 is not in"),
        ("audit verify file --witness 1:xyz", "audit head"),
        ("nonsense", "unrecognized subcommand"),
    ] {
        let error = refused(line);
        assert!(error.contains(says), "{line:?} says {error:?}");
    }
    let empty = Cli::try_parse_from(["redbutton", "kill-slice", "princeton_codeen", "--reason", "  "]);
    assert!(empty.is_err(), "an empty reason was accepted");
    let long = "x".repeat(1_001);
    let long = Cli::try_parse_from(["redbutton", "kill-slice", "princeton_codeen", "--reason", &long]);
    assert!(long.is_err(), "an oversized reason was accepted");
}

#[test]
fn commands_of_later_issues_are_absent() {
    for line in ["pod n1", "node power n1"] {
        refused(line);
    }
}

#[test]
fn addresses() {
    for (text, host, port) in [
        ("localhost", "localhost", 7443),
        ("c.example.org:9", "c.example.org", 9),
        ("192.0.2.1:7443", "192.0.2.1", 7443),
        ("[2001:db8::1]:9", "2001:db8::1", 9),
        ("[::1]", "::1", 7443),
        ("::1", "::1", 7443),
    ] {
        let address: Address = text.parse().expect(text);
        assert_eq!((address.host.as_str(), address.port), (host, port), "{text}");
        assert_eq!(address.to_string().parse::<Address>().as_ref(), Ok(&address));
    }
    for bad in [
        "", ":1", "x:", "x:0", "x:65536", "x:y", "[::1", "[x]:1", "[::1]x", "a b", "a/b", "a@b", "x:1:2",
        "a\u{1b}",
    ] {
        assert!(bad.parse::<Address>().is_err(), "{bad:?} was accepted");
    }
}

#[test]
fn a_role_has_its_place_and_no_other() {
    let grant = |line: &str| match parse(&format!("people grant alice {line}")).map(|cli| cli.command) {
        Ok(Command::People(PeopleCommand::Grant { grant, .. })) => grant.check(),
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(grant("--role developer --slice princeton_codeen"), Ok(()));
    assert_eq!(grant("--role pi --site princeton"), Ok(()));
    assert_eq!(grant("--role site-admin --site princeton"), Ok(()));
    assert_eq!(grant("--role support"), Ok(()));
    for (line, says) in [
        ("--role developer", "role developer needs --slice"),
        (
            "--role developer --site princeton",
            "role developer needs --slice",
        ),
        ("--role pi", "role pi needs --site"),
        (
            "--role site-admin --slice princeton_codeen",
            "role site-admin takes no --slice",
        ),
        ("--role support --site princeton", "role support takes no --site"),
    ] {
        assert_eq!(grant(line), Err(says.to_owned()));
    }
}
