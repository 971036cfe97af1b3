//! Connections as attackers make them: TLS with any certificate, HTTP/2 by the library or frame by frame.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use hw_tests::fleet::Fleet;
use hw_tests::measure::resident_kib;
use proto::bundle::Bundle;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Nothing of an attack may take longer.
pub(crate) const CAP: Duration = Duration::from_secs(60);

pub(crate) type Tls = TlsStream<TcpStream>;

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// A controller with a slice and no node, quiet in its log.
pub(crate) fn controller() -> Result<Fleet> {
    let fleet = Fleet::start_with("[log]\nfilter = \"warn\"\n")?;
    fleet.site("princeton")?;
    fleet.slice("princeton_codeen")?;
    Ok(fleet)
}

/// The question that ends every attack. An order comes of it and the audit has it.
pub(crate) fn support_presses(fleet: &Fleet) -> Result<()> {
    let press = [
        "kill-slice",
        "princeton_codeen",
        "--reason",
        "support presses all the same",
    ];
    let (code, said) = fleet.json("alice", &press)?;
    // 2: nodes that are away obey when they return.
    anyhow::ensure!(
        [0, 2].contains(&code) && said["durable"] == true,
        "exit code {code}: {said}"
    );
    Ok(())
}

/// Memory of the controller grew by less than this over an attack.
pub(crate) struct Memory(u32, u64);

impl Memory {
    pub(crate) fn of(fleet: &mut Fleet) -> Result<Self> {
        let pid = fleet.controller().pid();
        Ok(Self(pid, resident_kib(pid)?))
    }

    pub(crate) fn grew_less_than(&self, mib: u64) -> Result<()> {
        let grown = resident_kib(self.0)?.saturating_sub(self.1) >> 10;
        anyhow::ensure!(
            grown < mib,
            "the controller grew by {grown} MiB, allowed are {mib}"
        );
        Ok(())
    }
}

pub(crate) fn bundle(fleet: &Fleet, person: &str) -> Result<Bundle> {
    read(&fleet.bundle(person))
}

pub(crate) fn read(path: &std::path::Path) -> Result<Bundle> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(Bundle::parse(&text)?)
}

pub(crate) fn honest(bundle: &Bundle) -> Result<ClientConfig> {
    Ok(Arc::unwrap_or_clone(link::client_config(bundle)?))
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(CAP, future)
        .await
        .with_context(|| format!("{what}: not within {CAP:?}"))
}

pub(crate) async fn tls(config: ClientConfig, address: &str) -> Result<Tls> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    Ok(within("TLS", connecting).await??)
}

/// Whether the other end refuses before it says a word of HTTP/2. In TLS 1.3 the dialler is through before its
/// certificate is looked at: what counts is the first read.
pub(crate) async fn refused(config: ClientConfig, address: &str) -> Result<bool> {
    let Ok(mut stream) = tls(config, address).await else {
        return Ok(true);
    };
    let mut word = [0; 9];
    Ok(matches!(
        within("a first word", stream.read(&mut word)).await?,
        Ok(0) | Err(_)
    ))
}

/// One call by the library.
pub(crate) struct Http2(pub(crate) h2::client::SendRequest<Bytes>);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) http: u16,
    pub(crate) grpc: Option<String>,
    pub(crate) body: usize,
}

impl Answer {
    /// The call was understood and carried out.
    pub(crate) fn succeeded(&self) -> bool {
        self.http == 200 && self.grpc.as_deref() == Some("0")
    }
}

impl Http2 {
    pub(crate) async fn begin(config: ClientConfig, address: &str) -> Result<Self> {
        let stream = tls(config, address).await?;
        let (sender, connection) = within("HTTP/2", h2::client::handshake(stream)).await??;
        drop(tokio::spawn(async move {
            let _ = connection.await;
        }));
        Ok(Self(sender))
    }

    /// Sends a head and, framed as gRPC does, a message; reads to the end.
    pub(crate) async fn call(&mut self, head: http::Request<()>, message: &[u8]) -> Result<Answer> {
        let mut sender = self.0.clone().ready().await?;
        let (response, mut body) = sender.send_request(head, false)?;
        let mut framed = vec![0];
        framed.extend(u32::try_from(message.len())?.to_be_bytes());
        framed.extend(message);
        body.send_data(framed.into(), true)?;
        Self::read(response).await
    }

    pub(crate) async fn read(response: h2::client::ResponseFuture) -> Result<Answer> {
        let response = within("an answer", response).await??;
        let (head, mut body) = response.into_parts();
        let status = |headers: &http::HeaderMap| {
            let value = headers.get("grpc-status")?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let mut bytes = 0;
        while let Some(chunk) = within("a body", body.data()).await? {
            let chunk = chunk?;
            bytes += chunk.len();
            body.flow_control().release_capacity(chunk.len())?;
        }
        let trailers = within("trailers", body.trailers()).await??;
        Ok(Answer {
            http: head.status.as_u16(),
            grpc: status(&head.headers).or_else(|| status(&trailers.unwrap_or_default())),
            body: bytes,
        })
    }
}

/// A call as a good client makes it.
pub(crate) fn request(path: &str) -> http::request::Builder {
    http::Request::builder()
        .method("POST")
        .uri(format!("https://localhost{path}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
}

// Frame types and flags of RFC 9113.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// HTTP/2 frame by frame.
pub(crate) struct Wire<S = Tls> {
    pub(crate) stream: S,
}

/// One frame that came back.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header in HPACK: a literal, never indexed, nothing compressed.
pub(crate) fn header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0x10];
    for text in [name, value] {
        integer(&mut bytes, text.len());
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// RFC 7541, 5.1, with a prefix of seven bits that is otherwise zero.
fn integer(bytes: &mut Vec<u8>, value: usize) {
    if value < 127 {
        bytes.push(u8::try_from(value).expect("below 127"));
        return;
    }
    bytes.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).expect("seven bits") | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).expect("seven bits"));
}

/// The head of a good gRPC call.
pub(crate) fn head(path: &str) -> Vec<u8> {
    [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    .iter()
    .flat_map(|(name, value)| header(name, value))
    .collect()
}

pub(crate) const WHO: &str = "/redbutton.v1.People/WhoAmI";
/// A gRPC message of no bytes.
pub(crate) const EMPTY: [u8; 5] = [0; 5];

impl Wire {
    /// As a client: the preface and our settings have been said.
    pub(crate) async fn client(config: ClientConfig, address: &str) -> Result<Self> {
        let mut stream = tls(config, address).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        let mut wire = Self { stream };
        wire.say(&frame(SETTINGS, 0, 0, &[])).await?;
        Ok(wire)
    }

    /// As a daemon, which dials and is the server then: the controller's preface has been read.
    pub(crate) async fn daemon(config: ClientConfig, address: &str) -> Result<Self> {
        let mut stream = tls(config, address).await?;
        let mut preface = [0; 24];
        within("the controller's preface", stream.read_exact(&mut preface)).await??;
        anyhow::ensure!(preface.starts_with(b"PRI * HTTP/2.0"), "{preface:?}");
        let mut wire = Self { stream };
        wire.say(&frame(SETTINGS, 0, 0, &[])).await?;
        Ok(wire)
    }
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Wire<S> {
    pub(crate) async fn say(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// Says it so many times, or until the other end has had enough; `false`: it takes no more, or is gone.
    pub(crate) async fn flood(&mut self, bytes: &[u8], times: usize) -> bool {
        // What nobody reads for so long is not taken.
        const STUCK: Duration = Duration::from_millis(500);
        let many = bytes.repeat((16 << 10) / bytes.len().min(16 << 10));
        let in_one = many.len() / bytes.len();
        for _ in 0..times.div_ceil(in_one) {
            match tokio::time::timeout(STUCK, self.say(&many)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return false,
            }
        }
        true
    }

    /// The next frame; `None` when the connection has ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>> {
        let mut head = [0; 9];
        let read = async {
            if self.stream.read_exact(&mut head).await.is_err() {
                return None;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some(Frame {
                kind: head[3],
                flags: head[4],
                stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
                payload,
            })
        };
        within("a frame", read).await
    }

    /// Reads until the answer to this stream begins, the stream is reset, or the connection ends (`None`).
    pub(crate) async fn fate(&mut self, stream: u32) -> Result<Option<Frame>> {
        while let Some(frame) = self.next().await? {
            if frame.kind == GOAWAY {
                return Ok(None);
            }
            if frame.stream == stream && [HEADERS, RST_STREAM].contains(&frame.kind) {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// Reads until the connection ends; the error code of the goodbye, if there was one.
    pub(crate) async fn goodbye(&mut self) -> Result<Option<u32>> {
        let mut code = None;
        while let Some(frame) = self.next().await? {
            if frame.kind == GOAWAY {
                let bytes = frame.payload.get(4..8).unwrap_or(&[0; 4]);
                code = Some(u32::from_be_bytes(bytes.try_into()?));
            }
        }
        Ok(code)
    }
}
