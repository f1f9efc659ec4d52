//! Somebody on the line: hands on everything between an address of his own and another, and keeps it.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

/// No more than this is kept of one direction of one flow.
const KEPT_MAX_BYTES: usize = 64 << 20;
/// More than any datagram.
const DATAGRAM_MAX_BYTES: usize = 1 << 16;

/// What passed: one run of bytes for each direction of each flow.
#[derive(Clone, Default)]
pub struct Tape(Arc<Mutex<Vec<Track>>>);

type Track = Arc<Mutex<Vec<u8>>>;

impl Tape {
    /// Listens on `at` and hands each connection on to `to`.
    ///
    /// # Panics
    /// When the address cannot be had.
    pub fn relay_tcp(&self, at: SocketAddr, to: SocketAddr) {
        let listener = TcpListener::bind(at).expect("the address is free");
        let tape = self.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(to) else {
                    continue;
                };
                let ends = (client.try_clone(), server.try_clone());
                if let (Ok(client_too), Ok(server_too)) = ends {
                    tape.pump(client, server);
                    tape.pump(server_too, client_too);
                }
            }
        });
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let track = self.track();
        thread::spawn(move || {
            let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                keep(&track, &buffer[..n]);
                if to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
    }

    /// Listens on `at` and hands each datagram on to `to`, from the asker's own address with a port of
    /// its own, so that `to` sees who it is.
    ///
    /// # Panics
    /// When the address cannot be had.
    pub fn relay_udp(&self, at: SocketAddr, to: SocketAddr) {
        let socket = UdpSocket::bind(at).expect("the address is free");
        let tape = self.clone();
        thread::spawn(move || {
            let mut flows: HashMap<SocketAddr, (UdpSocket, Track)> = HashMap::new();
            let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
            while let Ok((n, from)) = socket.recv_from(&mut buffer) {
                let (onward, track) = flows
                    .entry(from)
                    .or_insert_with(|| (tape.back(&socket, from, to), tape.track()));
                keep(track, &buffer[..n]);
                let _ = onward.send(&buffer[..n]);
            }
        });
    }

    /// The way back of a flow of datagrams.
    fn back(&self, socket: &UdpSocket, from: SocketAddr, to: SocketAddr) -> UdpSocket {
        let onward = UdpSocket::bind((from.ip(), 0)).expect("a free port");
        onward.connect(to).expect("an address of this machine");
        let track = self.track();
        let (answers, socket) = (
            onward.try_clone().expect("a second handle"),
            socket.try_clone().expect("a second handle"),
        );
        thread::spawn(move || {
            let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
            // A datagram that nobody took comes back as an error of the next call.
            loop {
                if let Ok(n) = answers.recv(&mut buffer) {
                    keep(&track, &buffer[..n]);
                    let _ = socket.send_to(&buffer[..n], from);
                }
            }
        });
        onward
    }

    fn track(&self) -> Track {
        let track = Track::default();
        self.tracks().push(track.clone());
        track
    }

    fn tracks(&self) -> std::sync::MutexGuard<'_, Vec<Track>> {
        self.0.lock().expect("no panic under this lock")
    }

    /// Bytes that passed.
    ///
    /// # Panics
    /// Never, unless a thread of the tape did.
    pub fn bytes(&self) -> usize {
        let length = |track: &Track| track.lock().expect("no panic under this lock").len();
        self.tracks().iter().map(length).sum()
    }

    /// Which of `needles`, each of eight bytes or more, stand on the tape.
    ///
    /// # Panics
    /// When a needle is shorter.
    pub fn find<'a>(&self, needles: &'a [Vec<u8>]) -> Vec<&'a [u8]> {
        let mut by_start: HashMap<[u8; 8], Vec<&'a [u8]>> = HashMap::new();
        for needle in needles {
            let start = *needle.first_chunk().expect("eight bytes or more");
            by_start.entry(start).or_default().push(needle);
        }
        let mut found = Vec::new();
        for track in self.tracks().iter() {
            let bytes = track.lock().expect("no panic under this lock");
            for (at, window) in bytes.windows(8).enumerate() {
                let start: [u8; 8] = window.try_into().expect("eight bytes");
                let here = by_start.get(&start).into_iter().flatten();
                found.extend(here.filter(|needle| bytes[at..].starts_with(needle)));
            }
        }
        found
    }

    /// Puts bytes on the tape as if they had passed: a searcher that never finds anything proves nothing.
    pub fn plant(&self, bytes: &[u8]) {
        keep(&self.track(), bytes);
    }
}

fn keep(track: &Track, bytes: &[u8]) {
    let mut track = track.lock().expect("no panic under this lock");
    let room = KEPT_MAX_BYTES - track.len();
    track.extend_from_slice(&bytes[..bytes.len().min(room)]);
}
