//! Client, director and server on a switch, with real TCP.

use super::{FloodError, cannot};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;
use testkit::NetNs;

/// MAC address of the director's link.
pub(super) const DIRECTOR_MAC: &str = "02:00:00:00:00:d1";
const VIP: &str = "192.0.2.10:8080";
/// How long a client waits for its connection: SYNs after 0, 1, 3 and 7 s.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long for an answer.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// The machines.
pub(super) struct World {
    pub(super) client: NetNs,
    pub(super) director: NetNs,
    _server: NetNs,
    _switch: NetNs,
    /// Pass programs at the far ends of the links: without them a veth delivers nothing that XDP sends.
    _pass: Vec<OwnedFd>,
}

impl World {
    pub(super) fn new() -> Result<Self, FloodError> {
        let (switch, client) = (NetNs::new("switch")?, NetNs::new("client")?);
        let (director, server) = (NetNs::new("director")?, NetNs::new("server")?);
        switch.ip("link add br0 type bridge")?;
        switch.set_up("br0")?;
        let mut pass = Vec::new();
        for (number, netns, link) in [(1, &client, "eth0"), (2, &director, "d0"), (3, &server, "eth0")] {
            let port = format!("p{number}");
            switch.veth(&port, netns, link)?;
            switch.ip(&format!("link set {port} master br0"))?;
            netns.ip(&format!("addr add 192.0.2.{number}/24 dev {link}"))?;
            let attached = switch.run(|| kernel::attach_pass(&port))?;
            pass.push(cannot("attach to the switch", attached.map_err(io::Error::other))?.0);
        }
        director.ip(&format!("link set dev d0 address {DIRECTOR_MAC}"))?;
        director.ip("addr add 192.0.2.10/32 dev d0")?;
        director.run(|| {
            write_settings(&[
                ("ip_forward", "1"),
                ("conf/all/send_redirects", "0"),
                ("conf/d0/send_redirects", "0"),
            ])
        })??;
        server.run(|| write_settings(&[("conf/all/arp_ignore", "1"), ("conf/all/arp_announce", "2")]))??;
        server.ip("addr add 192.0.2.10/32 dev lo")?;
        serve_echo(&server)?;
        Ok(Self { client, director, _server: server, _switch: switch, _pass: pass })
    }
}

fn write_settings(settings: &[(&str, &str)]) -> Result<(), FloodError> {
    for (name, value) in settings {
        let path = format!("/proc/sys/net/ipv4/{name}");
        cannot(&format!("write {path}"), std::fs::write(&path, value))?;
    }
    Ok(())
}

/// Answers every byte on any number of connections. The threads end with the process.
fn serve_echo(server: &NetNs) -> Result<(), FloodError> {
    let listener = cannot("listen", server.run(|| TcpListener::bind(VIP))?)?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut byte = [0];
                while matches!(stream.read(&mut byte), Ok(1)) && stream.write_all(&byte).is_ok() {}
            });
        }
    });
    Ok(())
}

/// A client's connection; without one when it was cut.
pub(super) struct Talk(Option<TcpStream>);

/// Connects and says something.
pub(super) fn connect(client: &NetNs) -> Result<Talk, FloodError> {
    let vip: SocketAddr = ([192, 0, 2, 10], 8080).into();
    let stream = cannot("connect", client.run(|| TcpStream::connect_timeout(&vip, CONNECT_WAIT))?)?;
    cannot("set a time-out", stream.set_read_timeout(Some(ANSWER_WAIT)))?;
    let mut talk = Talk(Some(stream));
    talk.say();
    if talk.is_cut() { cannot("hear the server", Err(io::ErrorKind::TimedOut.into())) } else { Ok(talk) }
}

impl Talk {
    /// Says a byte and waits for it to come back. Who is not answered once is cut for good.
    pub(super) fn say(&mut self) {
        let answered = self.0.as_mut().is_some_and(|stream| {
            let mut byte = [b'x'];
            stream.write_all(&byte).is_ok() && stream.read_exact(&mut byte).is_ok()
        });
        if !answered {
            self.0 = None;
        }
    }

    /// Whether it is cut.
    pub(super) fn is_cut(&self) -> bool {
        self.0.is_none()
    }
}
