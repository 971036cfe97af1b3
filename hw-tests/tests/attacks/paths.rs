//! Header and path tricks: whatever is not exactly a known call by a known person is not carried out.

use anyhow::{Result, ensure};

use crate::wire::*;

#[test]
fn paths_that_only_look_like_a_call_reach_nothing() -> Result<()> {
    let fleet = controller()?;
    let address = fleet.people();
    let config = honest(&bundle(&fleet, "alice")?)?;
    runtime().block_on(async {
        let mut http2 = Http2::begin(config, &address).await?;
        let good = http2.call(request(WHO).body(())?, &[]).await?;
        ensure!(good.succeeded(), "the control does not work: {good:?}");
        for path in [
            "//redbutton.v1.People/WhoAmI",
            "/redbutton.v1.People//WhoAmI",
            "/redbutton.v1.People/WhoAmI/",
            "/redbutton.v1.People/./WhoAmI",
            "/x/../redbutton.v1.People/WhoAmI",
            "/redbutton.v1.Sites/../redbutton.v1.People/WhoAmI",
            "/redbutton.v1.People%2fWhoAmI",
            "/redbutton.v1.People/WhoAm%49",
            "/%72edbutton.v1.People/WhoAmI",
            "/redbutton.v1.people/WhoAmI",
            "/redbutton.v1.People/whoami",
            "/redbutton.v1.People/WhoAmI;x=1",
            "/redbutton.v1.People",
            "/",
            "/grpc.reflection.v1.ServerReflection%2fServerReflectionInfo",
            "//grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.health.v1.Health/../grpc.health.v1.Health/Check",
            // Services of daemons: the controller calls them, nobody calls them here.
            "/redbutton.v1.Slivers/Report",
            "/redbutton.v1.Slivers/Obey",
        ] {
            let answer = http2.call(request(path).body(())?, &[]).await?;
            ensure!(!answer.succeeded(), "{path}: {answer:?}");
        }
        Ok(())
    })?;
    support_presses(&fleet)
}

#[test]
fn heads_that_only_look_like_a_call_reach_nothing() -> Result<()> {
    let fleet = controller()?;
    let address = fleet.people();
    let config = honest(&bundle(&fleet, "alice")?)?;
    runtime().block_on(async {
        let mut http2 = Http2::begin(config, &address).await?;
        let plain = || {
            http::Request::builder()
                .method("POST")
                .uri(format!("https://localhost{WHO}"))
        };
        let tricks = [
            (
                "GET",
                plain().method("GET").header("content-type", "application/grpc"),
            ),
            (
                "PUT",
                plain().method("PUT").header("content-type", "application/grpc"),
            ),
            (
                "CONNECT to itself",
                http::Request::builder().method("CONNECT").uri("localhost:443"),
            ),
            ("no content type", plain()),
            ("JSON", plain().header("content-type", "application/json")),
            (
                "a form",
                plain().header("content-type", "application/x-www-form-urlencoded"),
            ),
            ("gRPC-Web", plain().header("content-type", "application/grpc-web")),
            ("text", plain().header("content-type", "text/plain")),
        ];
        for (case, head) in tricks {
            let answer = http2.call(head.body(())?, &[]).await;
            // An error of the stream will do as well; the connection may be given up.
            ensure!(
                !answer.as_ref().is_ok_and(Answer::succeeded),
                "{case}: {answer:?}"
            );
        }
        // What is odd and harms nobody: the certificate says who calls, whatever the head says.
        let odd = [
            ("no te", plain().header("content-type", "application/grpc")),
            (
                "another authority",
                http::Request::builder()
                    .method("POST")
                    .uri(format!("https://node.invalid{WHO}"))
                    .header("content-type", "application/grpc"),
            ),
            (
                "names of others",
                request(WHO)
                    .header("x-forwarded-client-cert", "redbutton://person/bob")
                    .header("authorization", "Bearer bob")
                    .header("x-forwarded-for", "127.0.0.1"),
            ),
        ];
        for (case, head) in odd {
            let answer = http2.call(head.body(())?, &[]).await?;
            ensure!(answer.http == 200, "{case}: {answer:?}");
            // alice's name is in the answer's few bytes; bob's would be as well, so it is compared below.
            let again = http2.call(request(WHO).body(())?, &[]).await?;
            ensure!(
                answer.body == again.body,
                "{case}: {answer:?} instead of {again:?}"
            );
        }
        Ok(())
    })?;
    support_presses(&fleet)
}

#[test]
fn a_body_that_claims_to_be_compressed_or_huge_is_refused_before_it_is_kept() -> Result<()> {
    let mut fleet = controller()?;
    let memory = Memory::of(&mut fleet)?;
    let address = fleet.people();
    let config = honest(&bundle(&fleet, "alice")?)?;
    runtime().block_on(async {
        let mut http2 = Http2::begin(config, &address).await?;
        for encoding in ["gzip", "deflate", "zstd", "br", "snappy", "identity,gzip", ""] {
            let head = request(WHO).header("grpc-encoding", encoding).body(())?;
            let mut sender = http2.0.clone().ready().await?;
            let (response, mut body) = sender.send_request(head, false)?;
            // The flag says compressed; the bytes are a bomb's beginning to some decoder.
            body.send_data(
                bytes::Bytes::from_static(&[1, 0, 0, 0, 4, 0x1f, 0x8b, 8, 0]),
                true,
            )?;
            let answer = Http2::read(response).await?;
            ensure!(!answer.succeeded(), "{encoding}: {answer:?}");
        }
        for declared in [
            u32::MAX,
            1 << 31,
            (1 << 31) - 1,
            u32::try_from(proto::MAX_MESSAGE_BYTES)? + 1,
        ] {
            let mut sender = http2.0.clone().ready().await?;
            let (response, mut body) = sender.send_request(request(WHO).body(())?, false)?;
            let mut bytes = vec![0];
            bytes.extend(declared.to_be_bytes());
            bytes.extend([0; 1_000]);
            // The stream stays open: the answer must not wait for bytes that never come.
            body.send_data(bytes.into(), false)?;
            let answer = Http2::read(response).await?;
            ensure!(!answer.succeeded(), "{declared} bytes: {answer:?}");
        }
        let good = http2.call(request(WHO).body(())?, &[]).await?;
        ensure!(good.succeeded(), "the same connection after all that: {good:?}");
        Ok(())
    })?;
    memory.grew_less_than(32)?;
    support_presses(&fleet)
}

#[test]
fn metadata_without_end_is_refused() -> Result<()> {
    let mut fleet = controller()?;
    let memory = Memory::of(&mut fleet)?;
    let address = fleet.people();
    let config = honest(&bundle(&fleet, "alice")?)?;
    runtime().block_on(async {
        let mut http2 = Http2::begin(config.clone(), &address).await?;
        for (count, length) in [(1, 17 << 10), (1_000, 1), (128, 250)] {
            let mut head = request(WHO);
            for number in 0..count {
                head = head.header(format!("x-{number}"), "v".repeat(length));
            }
            let answer = http2.call(head.body(())?, &[]).await;
            ensure!(
                !answer.as_ref().is_ok_and(Answer::succeeded),
                "{count} headers of {length} bytes: {answer:?}"
            );
            if answer.is_err() {
                http2 = Http2::begin(config.clone(), &address).await?;
            }
        }
        Ok(())
    })?;
    memory.grew_less_than(32)?;
    support_presses(&fleet)
}

/// What a good library refuses to send.
#[test]
fn malformed_heads_are_refused_by_the_frame() -> Result<()> {
    let fleet = controller()?;
    let address = fleet.people();
    let config = honest(&bundle(&fleet, "alice")?)?;
    let call = |more: &[(&str, &str)]| {
        let mut block = head(WHO);
        block.extend(more.iter().flat_map(|(name, value)| header(name, value)));
        block
    };
    let without = |name: &str| -> Vec<u8> {
        [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", WHO),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        .iter()
        .filter(|(known, _)| *known != name)
        .flat_map(|(name, value)| header(name, value))
        .collect()
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("two methods", call(&[(":method", "POST")])),
        ("two paths", call(&[(":path", "/redbutton.v1.Orders/Press")])),
        ("two authorities", call(&[(":authority", "node.invalid")])),
        ("a pseudo header behind ordinary ones", call(&[(":path", WHO)])),
        (
            "an unknown pseudo header",
            call(&[(":peer", "redbutton://person/bob")]),
        ),
        ("a status in a request", call(&[(":status", "200")])),
        ("capitals in a name", call(&[("X-Name", "v")])),
        ("a connection header", call(&[("connection", "keep-alive")])),
        ("transfer-encoding", call(&[("transfer-encoding", "chunked")])),
        ("te other than trailers", call(&[("te", "gzip")])),
        ("a line end in a value", call(&[("x-name", "v\r\nx-other: w")])),
        ("a NUL in a value", call(&[("x-name", "v\0w")])),
        ("a name of nothing", call(&[("", "v")])),
        ("no path", without(":path")),
        ("no method", without(":method")),
        (
            "an empty path",
            header(":path", "").into_iter().chain(without(":path")).collect(),
        ),
        (
            "a path without a slash",
            header(":path", &WHO[1..])
                .into_iter()
                .chain(without(":path"))
                .collect(),
        ),
        (
            "a path with a NUL",
            header(":path", "/redbutton.v1.People/WhoAmI\0")
                .into_iter()
                .chain(without(":path"))
                .collect(),
        ),
        ("HPACK that ends too early", vec![0x10, 0x7f]),
        ("an index that is not there", vec![0xff, 0xff, 0x7f]),
        ("a table larger than agreed", vec![0x3f, 0xe1, 0xff, 0x7f]),
    ];
    runtime().block_on(async {
        // The control: the same frames with a good head are answered.
        let mut wire = Wire::client(config.clone(), &address).await?;
        wire.say(&frame(HEADERS, END_HEADERS, 1, &call(&[]))).await?;
        wire.say(&frame(DATA, END_STREAM, 1, &EMPTY)).await?;
        let mut answered = None;
        while let Some(next) = wire.next().await? {
            if next.stream == 1 && next.kind == DATA {
                answered = Some(next);
                break;
            }
        }
        ensure!(answered.is_some(), "the control does not work");
        for (case, block) in cases {
            let mut wire = Wire::client(config.clone(), &address).await?;
            wire.say(&frame(HEADERS, END_HEADERS, 1, &block)).await?;
            // May fail: it was refused at once.
            let _ = wire.say(&frame(DATA, END_STREAM, 1, &EMPTY)).await;
            while let Some(next) = wire.next().await? {
                ensure!(
                    !(next.stream == 1 && next.kind == DATA),
                    "{case}: a message came back"
                );
                let over = next.kind == GOAWAY || next.kind == RST_STREAM || next.flags & END_STREAM != 0;
                if over && (next.stream == 1 || next.kind == GOAWAY) {
                    break;
                }
            }
        }
        anyhow::Ok(())
    })?;
    support_presses(&fleet)
}
