use proptest::prelude::*;

use super::*;

const HELLO: &str = "EHLO me\r\nMAIL FROM:<a@x> SIZE=10\r\nRCPT TO:<b@y>\r\nRCPT to: <c@z>\r\nDATA\r\n";

fn talk(text: &str, fault: Option<Fault>) -> Step {
    Session::open(fault).0.receive(text.as_bytes(), fault, 10)
}

fn codes(step: &Step) -> Vec<String> {
    let text = String::from_utf8(step.replies.clone()).unwrap();
    text.lines()
        .filter(|line| line.as_bytes()[3] == b' ')
        .map(|line| line[..3].to_owned())
        .collect()
}

#[test]
fn a_pipelined_mail_is_taken_with_its_dots_and_folded_headers() {
    let data = "Subject: a\r\n\tlong one\r\nX-Y:z\r\nno header\r\n\r\nhi\r\n..\r\n...x\r\na bare\n.\nis text\r\n.\r\nQUIT\r\n";
    let step = talk(&format!("{HELLO}{data}"), None);
    assert_eq!(codes(&step), ["250", "250", "250", "250", "354", "250", "221"]);
    assert!(step.close);
    let [mail] = step.mails.as_slice() else {
        panic!("{step:?}")
    };
    assert_eq!(
        (mail.from.as_str(), mail.to.as_slice()),
        ("a@x", &["b@y".to_owned(), "c@z".to_owned()][..])
    );
    assert_eq!(mail.header("SUBJECT"), Some("a long one"));
    assert_eq!(mail.headers.len(), 2);
    assert_eq!(mail.body, "hi\n.\n..x\na bare\n.\nis text\n");
}

#[test]
fn a_mail_may_be_empty_and_have_no_sender() {
    let step = talk("HELO me\r\nMAIL FROM:<>\r\nRCPT TO:<b@y>\r\nDATA\r\n.\r\n", None);
    assert_eq!(codes(&step), ["250", "250", "250", "354", "250"]);
    assert_eq!(
        (step.mails[0].from.as_str(), step.mails[0].body.as_str()),
        ("", "")
    );
}

#[test]
fn what_comes_out_of_order_is_refused() {
    for (text, code) in [
        ("MAIL FROM:<a@x>\r\n", "503"),
        ("RCPT TO:<a@x>\r\n", "503"),
        ("DATA\r\n", "503"),
        ("EHLO me\r\nMAIL FROM:<a@x>\r\nMAIL FROM:<a@x>\r\n", "503"),
        ("EHLO me\r\nMAIL FROM:<a@x>\r\nRSET\r\nRCPT TO:<b@y>\r\n", "503"),
        ("EHLO me\r\nMAIL FROM:<a@x>\r\nRCPT TO:<>\r\n", "501"),
        ("EHLO me\r\nMAIL a@x\r\n", "501"),
        ("EHLO me\r\nMAIL FROM:<a@x> SIZE=9999999\r\n", "552"),
        ("EHLO me\r\nMAIL FROM:<a@x> BODY=8BITMIME\r\n", "250"),
        ("STARTTLS\r\n", "500"),
        ("noop\n", "250"),
        ("VRFY root\r\n", "252"),
    ] {
        assert_eq!(codes(&talk(text, None)).last().unwrap(), code, "{text}");
    }
    assert_eq!(
        codes(&talk(&format!("{}\r\nNOOP\r\n", "x".repeat(5000)), None)),
        ["500", "250"]
    );
}

#[test]
fn too_big_too_many_recipients_and_no_room_are_refused_and_the_conversation_goes_on() {
    let (mut session, _) = Session::open(None);
    session.receive(HELLO.as_bytes(), None, 10);
    let big = format!("{}\r\n.\r\nNOOP\r\n", "x..\r\n".repeat(MAIL_BOUND / 4));
    let step = session.receive(big.as_bytes(), None, 10);
    assert_eq!(
        (codes(&step), step.mails.len()),
        (vec!["552".to_owned(), "250".to_owned()], 0)
    );
    assert!(session.held.capacity() <= 4 * MAIL_BOUND);

    let many = format!(
        "EHLO me\r\nMAIL FROM:<a@x>\r\n{}",
        "RCPT TO:<b@y>\r\n".repeat(101)
    );
    assert_eq!(codes(&talk(&many, None)).last().unwrap(), "452");

    let step = Session::open(None)
        .0
        .receive(format!("{HELLO}x\r\n.\r\n").as_bytes(), None, 0);
    assert_eq!(
        (codes(&step).last().unwrap().as_str(), step.mails.len()),
        ("452", 0)
    );
}

#[test]
fn faults_strike_where_they_are_set() {
    let whole = format!("{HELLO}x\r\n.\r\n");
    let refused = |stage| codes(&talk(&whole, Some(Fault::Refuse(stage, 451))));
    assert_eq!(refused(Stage::Sender)[..2], ["250", "451"]);
    assert_eq!(refused(Stage::Recipient)[..4], ["250", "250", "451", "451"]);
    assert_eq!(refused(Stage::Data), ["250", "250", "250", "250", "354", "451"]);
    let (_, step) = Session::open(Some(Fault::Refuse(Stage::Greeting, 554)));
    assert_eq!((codes(&step), step.close), (vec!["554".to_owned()], true));

    let hung = talk(&whole, Some(Fault::Hang(Stage::Data)));
    assert_eq!((codes(&hung).len(), hung.mails.len(), hung.close), (5, 0, false));
    let (_, step) = Session::open(Some(Fault::Hang(Stage::Greeting)));
    assert_eq!(step, Step::default());

    let closed = talk(&whole, Some(Fault::CloseAfterData));
    assert_eq!(
        (codes(&closed).len(), closed.mails.len(), closed.close),
        (5, 1, true)
    );
}

proptest! {
    #[test]
    fn smtp_never_panics_and_cuts_make_no_difference(
        pieces in prop::collection::vec(prop_oneof![
            Just(HELLO.as_bytes().to_vec()),
            Just(b"\r\n.\r\n".to_vec()),
            Just(b".".to_vec()),
            Just(b"MAIL FROM:".to_vec()),
            Just(b"RCPT TO:<".to_vec()),
            Just(b"\r\n".to_vec()),
            prop::collection::vec(any::<u8>(), 0..20),
        ], 0..20),
        cut in 0usize..400,
    ) {
        let bytes = pieces.concat();
        let whole = Session::open(None).0.receive(&bytes, None, 10);
        let (head, tail) = bytes.split_at(cut.min(bytes.len()));
        let (mut session, _) = Session::open(None);
        let (head, tail) = (session.receive(head, None, 10), session.receive(tail, None, 10));
        prop_assert_eq!(whole.replies, [head.replies, tail.replies].concat());
        prop_assert_eq!(whole.mails, [head.mails, tail.mails].concat());
    }

    #[test]
    fn a_body_that_is_dotted_comes_out_as_it_was(lines in prop::collection::vec("[.a ]{0,4}", 0..8)) {
        let mut text = format!("{HELLO}\r\n");
        for line in &lines {
            let dot = if line.starts_with('.') { "." } else { "" };
            text.push_str(&format!("{dot}{line}\r\n"));
        }
        let step = talk(&format!("{text}.\r\n"), None);
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        prop_assert_eq!(&step.mails[0].body, &body);
    }
}
