//! Socket options that both ends of a link want.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};

/// Data that the peer's kernel has not acknowledged for this long: the connection is dead. Without it Linux
/// retransmits for about 15 minutes.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// No delay (a press is one small frame), and the kernel's own probes for dead peers; HTTP/2 pings come on top
/// and are faster, but begin only after the handshakes.
pub(crate) fn tune(socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// The next close resets the connection, so that the kernel keeps nothing of it.
pub(crate) fn reset_on_close(socket: &impl std::os::fd::AsFd) {
    // Failing only means a slower goodbye.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Connects, from an own address if one is given.
pub(crate) async fn connect(source: Option<IpAddr>, address: SocketAddr) -> io::Result<TcpStream> {
    let Some(source) = source else {
        return TcpStream::connect(address).await;
    };
    let socket = match source {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(address).await
}

/// A listening socket. `[::]` takes IPv4 peers as well.
pub(crate) fn listen(address: SocketAddr, backlog: i32) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let IpAddr::V6(ip) = address.ip() {
        socket.set_only_v6(!ip.is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}
