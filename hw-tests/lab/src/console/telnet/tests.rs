use proptest::prelude::*;

use super::*;

fn telnet() -> Telnet {
    Telnet::new().0
}

fn with_com_port() -> Telnet {
    let mut telnet = telnet();
    let agreed = [
        &[IAC, DO, COM_PORT, IAC, WILL, BINARY, IAC, DO, BINARY][..],
        &com(&[107, 0]),
    ]
    .concat();
    assert_eq!(telnet.receive(&[IAC, WILL, COM_PORT]).reply, agreed);
    telnet
}

/// A sub-negotiation of COM-PORT.
fn com(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    sub_negotiation(body, &mut out);
    out
}

#[test]
fn text_mode_takes_nul_and_line_feed_from_a_return_and_binary_mode_does_not() {
    let mut telnet = telnet();
    assert_eq!(telnet.receive(b"root\r\0ls\r\nx\n\0").data, b"root\rls\rx\n\0");
    assert_eq!(telnet.receive(b"a\r").data, b"a\r");
    assert_eq!(telnet.receive(b"\0b").data, b"b");
    assert_eq!(telnet.receive(&[b'x', IAC, IAC, b'y']).data, b"x\xffy");
    assert_eq!(telnet.receive(&[IAC, WILL, BINARY]).reply, [IAC, DO, BINARY]);
    assert_eq!(telnet.receive(b"\r\0\r\n").data, b"\r\0\r\n");
}

#[test]
fn output_doubles_iac_and_pads_a_lone_return() {
    let mut telnet = telnet();
    let mut out = Vec::new();
    telnet.encode(b"a\r\nb\rc\xff\r", &mut out);
    telnet.encode(b"\nd\r", &mut out);
    telnet.encode(b"e", &mut out);
    assert_eq!(out, b"a\r\nb\r\0c\xff\xff\r\nd\r\0e");
    out.clear();
    assert_eq!(telnet.receive(&[IAC, DO, BINARY]).reply, [IAC, WILL, BINARY]);
    telnet.encode(b"\rx\xff", &mut out);
    assert_eq!(out, b"\rx\xff\xff");
}

#[test]
fn negotiation_ends() {
    let (mut telnet, offer) = Telnet::new();
    assert_eq!(offer, [IAC, WILL, ECHO, IAC, WILL, SUPPRESS_GO_AHEAD]);
    // The answers to our offers, and what holds already, are not answered.
    assert_eq!(
        telnet
            .receive(&[IAC, DO, ECHO, IAC, DO, SUPPRESS_GO_AHEAD, IAC, DO, ECHO])
            .reply,
        [0_u8; 0]
    );
    assert_eq!(telnet.receive(&[IAC, DONT, ECHO]).reply, [IAC, WONT, ECHO]);
    assert_eq!(telnet.receive(&[IAC, DONT, ECHO]).reply, [0_u8; 0]);
    // A refusal of an offer is not answered either.
    assert_eq!(Telnet::new().0.receive(&[IAC, DONT, ECHO]).reply, [0_u8; 0]);
    // Binary was proposed with the serial line's option; each side has its own answer.
    let mut serial = with_com_port();
    assert_eq!(serial.receive(&[IAC, DO, COM_PORT]).reply, [IAC, WILL, COM_PORT]);
    assert_eq!(
        serial.receive(&[IAC, DONT, BINARY, IAC, WILL, BINARY]).reply,
        [0_u8; 0]
    );
    assert_eq!(serial.receive(b"\r\n").data, b"\r\n");
    let mut out = Vec::new();
    serial.encode(b"\rx", &mut out);
    assert_eq!(out, b"\r\0x");
    // Terminal type, window size, linemode: no.
    assert_eq!(
        telnet.receive(&[IAC, WILL, 24, IAC, DO, 31]).reply,
        [IAC, DONT, 24, IAC, WONT, 31]
    );
    assert_eq!(telnet.receive(&[IAC, WONT, 24, IAC, DONT, 31]).reply, [0_u8; 0]);
}

#[test]
fn a_break_is_told_and_the_client_hears_that_we_are_there() {
    let received = telnet().receive(&[b'a', IAC, BREAK, b'b', IAC, 241, IAC, ARE_YOU_THERE]);
    assert_eq!((received.breaks, received.data.as_slice()), (1, &b"ab"[..]));
    assert!(received.reply.ends_with(b"\r\n"));
}

#[test]
fn com_port_settings_are_remembered_and_told() {
    let mut telnet = with_com_port();
    let ask = |telnet: &mut Telnet, body: &[u8]| telnet.receive(&com(body)).reply;
    assert_eq!(ask(&mut telnet, &[1, 0, 0, 0, 0]), com(&[101, 0, 1, 0xc2, 0]));
    assert_eq!(
        ask(&mut telnet, &[1, 0, 0, 0x25, 0x80]),
        com(&[101, 0, 0, 0x25, 0x80])
    );
    assert_eq!(ask(&mut telnet, &[1, 0, 0, 0, 255]), com(&[101, 0, 0, 0, 255]));
    assert_eq!(ask(&mut telnet, &[2, 7]), com(&[102, 7]));
    assert_eq!(ask(&mut telnet, &[2, 77]), com(&[102, 7]));
    assert_eq!(ask(&mut telnet, &[3, 3]), com(&[103, 3]));
    assert_eq!(ask(&mut telnet, &[4, 2]), com(&[104, 2]));
    assert_eq!(ask(&mut telnet, &[5, 8]), com(&[105, 8]));
    assert_eq!(ask(&mut telnet, &[0]), com(b"\x64lab"));
    assert_eq!(ask(&mut telnet, &[77, 1]), [0_u8; 0]);
    assert_eq!(ask(&mut telnet, &[2]), [0_u8; 0]);
}

#[test]
fn com_port_breaks_once_per_break_and_purges() {
    let mut telnet = with_com_port();
    let on = telnet.receive(&com(&[5, 5]));
    assert_eq!((on.breaks, on.reply), (1, com(&[105, 5])));
    let off = telnet.receive(&com(&[5, 6]));
    assert_eq!((off.breaks, off.reply), (0, com(&[105, 6])));
    let purged = telnet.receive(&com(&[12, 1]));
    assert!(purged.purge);
    assert_eq!(purged.reply, com(&[112, 1]));
    assert!(!telnet.receive(&com(&[12, 2])).purge);
}

#[test]
fn com_port_tells_carrier_and_overrun_as_masked() {
    let mut telnet = with_com_port();
    let line = |telnet: &mut Telnet, guest, lost| {
        let mut out = Vec::new();
        telnet.line(guest, lost, &mut out);
        out
    };
    // Of lost bytes nothing, until they are asked for; nothing at all to a client without the option.
    assert_eq!(line(&mut telnet, true, true), com(&[107, 0xbb]));
    assert_eq!(line(&mut Telnet::new().0, true, true), [0_u8; 0]);
    assert_eq!(telnet.receive(&com(&[10, 2])).reply, com(&[110, 2]));
    assert_eq!(
        telnet.receive(&com(&[11, 0x88])).reply,
        [com(&[111, 0x88]), com(&[107, 0x80])].concat()
    );
    assert_eq!(line(&mut telnet, false, false), com(&[107, 0x08]));
    assert_eq!(line(&mut telnet, false, true), com(&[106, 0x02]));
    assert_eq!(line(&mut telnet, true, false), com(&[107, 0x88]));
    assert_eq!(line(&mut telnet, true, false), [0_u8; 0]);
}

#[test]
fn com_port_is_silent_until_it_is_agreed_and_over_long_ones_are_dropped() {
    let mut telnet = telnet();
    assert_eq!(telnet.receive(&com(&[5, 5])), Received::default());
    let mut telnet = with_com_port();
    let mut long = vec![IAC, SB, COM_PORT, 2, 7];
    long.resize(10_000, 7);
    long.extend([IAC, SE, b'x']);
    assert_eq!(
        telnet.receive(&long),
        Received {
            data: b"x".to_vec(),
            ..Received::default()
        }
    );
    assert_eq!(
        telnet.receive(&[IAC, SB, IAC, SE, IAC, SB, COM_PORT, IAC, SE]),
        Received::default()
    );
}

proptest! {
    #[test]
    fn telnet_never_panics_and_cuts_make_no_difference(
        // Many bytes that mean something.
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 240u8..=255, Just(COM_PORT), Just(13), 0u8..13], 0..300),
        cut in 0usize..300,
    ) {
        let whole = with_com_port().receive(&bytes);
        prop_assert!(whole.reply.len() <= 25 * bytes.len() + 20);
        let (head, tail) = bytes.split_at(cut.min(bytes.len()));
        let mut telnet = with_com_port();
        let (head, tail) = (telnet.receive(head), telnet.receive(tail));
        prop_assert_eq!(whole.data, [head.data, tail.data].concat());
        prop_assert_eq!(whole.reply, [head.reply, tail.reply].concat());
        prop_assert_eq!(whole.breaks, head.breaks + tail.breaks);
    }

    #[test]
    fn what_one_encodes_another_receives(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(13), Just(10), Just(255)], 0..100)) {
        let mut out = Vec::new();
        let (mut from, mut to) = (telnet(), telnet());
        from.receive(&[IAC, DO, BINARY]);
        to.receive(&[IAC, WILL, BINARY]);
        from.encode(&bytes, &mut out);
        prop_assert_eq!(to.receive(&out).data, bytes);
    }
}
