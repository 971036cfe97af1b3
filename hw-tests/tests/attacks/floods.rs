//! Floods over an authenticated connection: it is somebody's careless or stolen key. The flood ends its own
//! connection or waits; the controller neither grows nor stops serving the others.

use anyhow::{Result, ensure};
use hw_tests::fleet::Fleet;

use crate::wire::*;

/// A developer without any role: every certificate that the controller has signed opens the port.
fn nora(fleet: &Fleet) -> Result<rustls::ClientConfig> {
    fleet.person("nora", &[])?;
    honest(&bundle(fleet, "nora")?)
}

const ENHANCE_YOUR_CALM: u32 = 11;

/// What a flood must come to.
#[derive(Clone, Copy)]
enum End {
    /// The connection is ended by the controller.
    Closed,
    /// Ended or borne, as long as nobody else is concerned.
    Any,
}

fn flood(end: End, times: usize, one: impl Fn(u32) -> Vec<u8>) -> Result<()> {
    let mut fleet = controller()?;
    let config = nora(&fleet)?;
    let address = fleet.people();
    let memory = Memory::of(&mut fleet)?;
    let runtime = runtime();
    let mut wire = runtime.block_on(Wire::client(config, &address))?;
    let borne = runtime.block_on(async {
        let mut stream = 1;
        // Streams have growing odd numbers; as many as fit into a burst are made at once.
        let mut sent = 0;
        while sent < times {
            let mut burst = Vec::new();
            while burst.len() < 16 << 10 && sent < times {
                burst.extend(one(stream));
                stream += 2;
                sent += 1;
            }
            if !wire.flood(&burst, 1).await {
                return false;
            }
        }
        true
    });
    // While the connection stands, as the flood left it.
    support_presses(&fleet)?;
    memory.grew_less_than(48)?;
    if matches!(end, End::Closed) {
        let code = runtime.block_on(wire.goodbye())?;
        ensure!(
            code.is_none_or(|code| code != 0),
            "the flood ended in peace (all taken: {borne}), goodbye {code:?}"
        );
    }
    support_presses(&fleet)
}

#[test]
fn rapid_reset_ends_its_own_connection() -> Result<()> {
    flood(End::Closed, 20_000, |stream| {
        let mut both = frame(HEADERS, END_HEADERS, stream, &head(WHO));
        both.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        both
    })
}

/// The later trick: frames that make *us* reset the stream, so that the client never says RST_STREAM.
#[test]
fn resets_that_we_are_made_to_send_end_the_connection() -> Result<()> {
    flood(End::Closed, 20_000, |stream| {
        let mut both = frame(HEADERS, END_HEADERS, stream, &head(WHO));
        both.extend(frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes()));
        both
    })
}

#[test]
fn calls_beyond_the_allowed_number_are_refused_one_by_one() -> Result<()> {
    flood(End::Any, 5_000, |stream| {
        frame(HEADERS, END_HEADERS, stream, &head(WHO))
    })
}

#[test]
fn continuation_without_end_ends_the_connection() -> Result<()> {
    let mut fleet = controller()?;
    let config = nora(&fleet)?;
    let address = fleet.people();
    let memory = Memory::of(&mut fleet)?;
    runtime().block_on(async {
        let mut wire = Wire::client(config, &address).await?;
        wire.say(&frame(HEADERS, 0, 1, &head(WHO))).await?;
        let more = frame(CONTINUATION, 0, 1, &header("x", &"v".repeat(1_000)).repeat(16));
        let borne = wire.flood(&more, 4_000).await;
        ensure!(!borne, "64 MiB of one head were taken");
        Ok(())
    })?;
    memory.grew_less_than(32)?;
    support_presses(&fleet)
}

/// A small block that unpacks to a large list: one long header in the table, named again and again.
#[test]
fn a_head_that_grows_when_unpacked_is_refused() -> Result<()> {
    let mut fleet = controller()?;
    let config = nora(&fleet)?;
    let address = fleet.people();
    let memory = Memory::of(&mut fleet)?;
    runtime().block_on(async {
        let mut wire = Wire::client(config, &address).await?;
        let mut block = head(WHO);
        let mut long = header("x-long", &"v".repeat(3_000));
        // With incremental indexing: it becomes number 62.
        long[0] = 0x40;
        block.extend(long);
        block.extend([0x80 | 62].repeat(10_000));
        wire.say(&frame(HEADERS, END_HEADERS, 1, &block)).await?;
        let _ = wire.say(&frame(DATA, END_STREAM, 1, &EMPTY)).await;
        while let Some(next) = wire.next().await? {
            ensure!(next.kind != DATA, "30 MB of headers were taken");
            if next.kind == GOAWAY
                || next.kind == RST_STREAM
                || next.flags & END_STREAM != 0 && next.stream == 1
            {
                break;
            }
        }
        Ok(())
    })?;
    memory.grew_less_than(32)?;
    support_presses(&fleet)
}

#[test]
fn settings_and_pings_that_nobody_reads_the_answers_of_are_not_kept() -> Result<()> {
    for one in [
        frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
        frame(PING, 0, 0, &[7; 8]),
    ] {
        flood(End::Any, 1_000_000, |_| one.clone())?;
    }
    Ok(())
}

#[test]
fn priorities_and_empty_frames_are_borne() -> Result<()> {
    flood(End::Any, 200_000, |stream| {
        frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 200])
    })?;
    let mut fleet = controller()?;
    let config = nora(&fleet)?;
    let address = fleet.people();
    let memory = Memory::of(&mut fleet)?;
    runtime().block_on(async {
        let mut wire = Wire::client(config, &address).await?;
        wire.say(&frame(HEADERS, END_HEADERS, 1, &head(WHO))).await?;
        wire.flood(&frame(DATA, 0, 1, &[]), 500_000).await;
        anyhow::Ok(())
    })?;
    memory.grew_less_than(48)?;
    support_presses(&fleet)
}

#[test]
fn windows_may_not_run_over() -> Result<()> {
    let fleet = controller()?;
    let config = nora(&fleet)?;
    let address = fleet.people();
    let most = 0x7fff_ffff_u32.to_be_bytes();
    runtime().block_on(async {
        for stream in [0, 1] {
            let mut wire = Wire::client(config.clone(), &address).await?;
            wire.say(&frame(HEADERS, END_HEADERS, 1, &head(WHO))).await?;
            wire.say(&frame(WINDOW_UPDATE, 0, stream, &most).repeat(2))
                .await?;
            if stream == 1 {
                let fate = wire.fate(1).await?;
                ensure!(
                    fate.as_ref().is_none_or(|fate| fate.kind == RST_STREAM),
                    "{fate:?}"
                );
            } else {
                ensure!(wire.goodbye().await?.is_some_and(|code| code != 0), "borne");
            }
        }
        // A frame longer than was agreed, and one for a stream that cannot be.
        for wrong in [
            [&[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1][..], &[0; 64]].concat(),
            frame(DATA, 0, 2, &[0; 8]),
            frame(HEADERS, END_HEADERS, 0, &head(WHO)),
            frame(SETTINGS, 0, 1, &[]),
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
            frame(PING, 0, 0, &[0; 7]),
        ] {
            let mut wire = Wire::client(config.clone(), &address).await?;
            wire.say(&wrong).await?;
            ensure!(wire.goodbye().await?.is_some_and(|code| code != 0), "{wrong:?}");
        }
        Ok(())
    })?;
    support_presses(&fleet)
}

/// Whoever reads nothing gets no more than the windows hold: 128 calls, each with the largest answer that there is.
#[test]
fn answers_that_nobody_reads_are_bounded() -> Result<()> {
    let mut fleet = controller()?;
    let config = nora(&fleet)?;
    let address = fleet.people();
    let memory = Memory::of(&mut fleet)?;
    let runtime = runtime();
    let wires = runtime.block_on(async {
        let mut wires = Vec::new();
        for _ in 0..8 {
            let mut wire = Wire::client(config.clone(), &address).await?;
            // No window at all for any answer.
            wire.say(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await?;
            // file_containing_symbol: redbutton.v1.Orders
            let symbol = b"redbutton.v1.Orders";
            let mut message = vec![0x22, u8::try_from(symbol.len())?];
            message.extend(symbol);
            let mut body = vec![0];
            body.extend(u32::try_from(message.len())?.to_be_bytes());
            body.extend(message);
            for stream in (1..).step_by(2).take(100) {
                let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
                let mut call = frame(HEADERS, END_HEADERS, stream, &head(path));
                call.extend(frame(DATA, 0, stream, &body).repeat(50));
                // What is not taken any more need not be said.
                if !wire.flood(&call, 1).await {
                    break;
                }
            }
            wires.push(wire);
        }
        anyhow::Ok(wires)
    })?;
    support_presses(&fleet)?;
    memory.grew_less_than(192)?;
    drop(wires);
    support_presses(&fleet)
}

/// Calls that never end, byte for byte: they take room that is theirs, and nobody else's.
#[test]
fn a_slow_drip_delays_nobody() -> Result<()> {
    let mut fleet = controller()?;
    let config = nora(&fleet)?;
    let address = fleet.people();
    let memory = Memory::of(&mut fleet)?;
    let runtime = runtime();
    let mut wires = runtime.block_on(async {
        let mut wires = Vec::new();
        // As many as one identity may have.
        for _ in 0..64 {
            let mut wire = Wire::client(config.clone(), &address).await?;
            for stream in (1..).step_by(2).take(100) {
                wire.say(&frame(HEADERS, END_HEADERS, stream, &head(WHO))).await?;
                // The beginning of a message that never comes.
                wire.say(&frame(DATA, 0, stream, &[0, 0])).await?;
            }
            wires.push(wire);
        }
        anyhow::Ok(wires)
    })?;
    for _ in 0..3 {
        support_presses(&fleet)?;
        // A byte more for every call.
        runtime.block_on(async {
            for wire in &mut wires {
                for stream in (1..).step_by(2).take(100) {
                    wire.say(&frame(DATA, 0, stream, &[0])).await?;
                }
            }
            anyhow::Ok(())
        })?;
    }
    memory.grew_less_than(192)
}

#[test]
fn the_goodbye_of_a_rapid_reset_says_why() -> Result<()> {
    let fleet = controller()?;
    let config = nora(&fleet)?;
    let address = fleet.people();
    let code = runtime().block_on(async {
        let mut wire = Wire::client(config, &address).await?;
        let mut all = Vec::new();
        for stream in (1..).step_by(2).take(200) {
            all.extend(frame(HEADERS, END_HEADERS, stream, &head(WHO)));
            all.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        }
        wire.say(&all).await?;
        wire.goodbye().await
    })?;
    ensure!(code == Some(ENHANCE_YOUR_CALM), "{code:?}");
    support_presses(&fleet)
}
