use std::net::Ipv4Addr;
use std::process::{Command, Output};

use super::*;

const CAP: Duration = Duration::from_secs(30);

fn sink() -> Sink {
    Sink::start(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).unwrap()
}

/// What Python's smtplib says of a mail to `sink`; `None` if there is no Python here.
fn smtplib(sink: &Sink, timeout: &str) -> Option<Output> {
    let program = "import smtplib, sys
from email.message import EmailMessage
m = EmailMessage()
m['Subject'], m['From'], m['To'] = 'node n1 is down', 'rb@lab.invalid', 'noc@lab.invalid'
m.set_content('since 12:00\\n.\\n..two dots\\nend\\n')
with smtplib.SMTP('127.0.0.1', int(sys.argv[1]), timeout=float(sys.argv[2])) as s:
    s.send_message(m, to_addrs=['noc@lab.invalid', 'pi@lab.invalid'])
    print(s.noop()[0], s.has_extn('size'))";
    let port = sink.address().port().to_string();
    match Command::new("python3")
        .args(["-c", program, &port, timeout])
        .output()
    {
        Ok(output) => Some(output),
        Err(error) => {
            println!("skipped: python3: {error}");
            None
        }
    }
}

fn errors(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn smtplib_delivers() {
    let sink = sink();
    let Some(output) = smtplib(&sink, "30") else {
        return;
    };
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "250 True\n",
        "{output:?}"
    );
    let mail = sink
        .wait_for(|mail| mail.header("subject") == Some("node n1 is down"), CAP)
        .unwrap();
    assert_eq!(mail.from, "rb@lab.invalid");
    assert_eq!(mail.to, ["noc@lab.invalid", "pi@lab.invalid"]);
    assert_eq!(mail.body, "since 12:00\n.\n..two dots\nend\n");
    assert_eq!((sink.mails().len(), sink.connections()), (1, 1));
    let error = sink
        .wait_for(|mail| mail.from.is_empty(), Duration::from_millis(20))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("from rb@lab.invalid to noc@lab.invalid, pi@lab.invalid: node n1 is down"),
        "{error}"
    );
}

#[test]
fn smtplib_meets_each_fault() {
    let sink = sink();
    sink.set_fault(Fault::Refuse(Stage::Sender, 451));
    let Some(output) = smtplib(&sink, "30") else {
        return;
    };
    assert!(errors(&output).contains("SMTPSenderRefused: (451"), "{output:?}");
    sink.set_fault(Fault::Refuse(Stage::Recipient, 550));
    assert!(errors(&smtplib(&sink, "30").unwrap()).contains("SMTPRecipientsRefused"));
    sink.set_fault(Fault::Refuse(Stage::Data, 554));
    assert!(errors(&smtplib(&sink, "30").unwrap()).contains("SMTPDataError: (554"));
    sink.set_fault(Fault::Refuse(Stage::Greeting, 421));
    assert!(errors(&smtplib(&sink, "30").unwrap()).contains("SMTPConnectError: (421"));
    sink.set_fault(Fault::Hang(Stage::Greeting));
    assert!(errors(&smtplib(&sink, "0.3").unwrap()).contains("timed out"));
    assert!(sink.mails().is_empty());
    sink.set_fault(Fault::CloseAfterData);
    assert!(errors(&smtplib(&sink, "30").unwrap()).contains("SMTPServerDisconnected"));
    assert_eq!(sink.mails().len(), 1);
    sink.set_fault(None);
    assert!(smtplib(&sink, "30").unwrap().status.success());
    assert_eq!((sink.mails().len(), sink.connections()), (2, 7));
}

#[test]
fn curl_delivers_while_another_sender_does_nothing() {
    let sink = sink();
    let mut idle = TcpStream::connect(sink.address()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mail");
    std::fs::write(&file, "Subject: by curl\n\n.hidden\n").unwrap();
    let url = format!("smtp://{}/me.invalid", sink.address());
    let sent = Command::new("curl")
        .args([
            "-s",
            "-m",
            "30",
            &url,
            "--mail-from",
            "a@x.invalid",
            "--mail-rcpt",
            "b@y.invalid",
            "--crlf",
            "-T",
        ])
        .arg(&file)
        .output();
    let Ok(sent) = sent else {
        println!("skipped: no curl here");
        return;
    };
    assert!(sent.status.success(), "{sent:?}");
    let mail = sink
        .wait_for(|mail| mail.header("Subject") == Some("by curl"), CAP)
        .unwrap();
    assert_eq!(mail.body, ".hidden\n");
    // Dropping ends whoever is still there.
    drop(sink);
    let mut rest = String::new();
    idle.set_read_timeout(Some(CAP)).unwrap();
    idle.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("220 "), "{rest}");
}
