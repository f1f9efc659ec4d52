//! A long line in user space: two TUN devices, and between them rate, delay and random loss, which
//! `tc netem` would give where the kernel has it.

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::inside::inside;

/// Packets that can be on a line at once, each way; more are lost.
const PACKETS_MAX: usize = 65_536;
/// Largest packet.
const MTU: u16 = 1500;

/// One direction of a line.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Bits a second; none: no limit.
    pub bits: Option<u64>,
    /// From one end to the other.
    pub delay: Duration,
    /// Of a million packets, so many are lost.
    pub loss_ppm: u32,
    /// A packet that would wait longer than this for its turn is lost.
    pub buffer: Duration,
}

/// One end: a namespace, and the device to be made in it.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The namespace's name.
    pub namespace: &'a str,
    /// The device's name.
    pub device: &'a str,
}

/// Lays a line between two namespaces; packets that enter at `a` cross by `there`. It carries until
/// the process ends.
///
/// # Errors
/// When a device cannot be made.
pub fn lay(a: End<'_>, b: End<'_>, there: Way, back: Way) -> Result<()> {
    let (a_in, a_out) = open(a)?.split();
    let (b_in, b_out) = open(b)?.split();
    carry(a_in, b_out, there, 1);
    carry(b_in, a_out, back, 2);
    Ok(())
}

fn open(end: End<'_>) -> Result<tun::Device> {
    inside(end.namespace, || {
        let mut wanted = tun::Configuration::default();
        wanted.tun_name(end.device).mtu(MTU).up();
        tun::create(&wanted)
            .with_context(|| format!("failed to make the TUN device {}", end.device))
    })
}

fn carry(from: tun::Reader, to: tun::Writer, way: Way, seed: u64) {
    let (sender, receiver) = sync_channel(PACKETS_MAX);
    std::thread::spawn(move || take_in(from, &sender, way, seed));
    std::thread::spawn(move || give_out(to, &receiver));
}

fn take_in(mut from: tun::Reader, line: &SyncSender<(Instant, Vec<u8>)>, way: Way, seed: u64) {
    let mut draws = ChaCha8Rng::seed_from_u64(seed);
    let mut free_at = Instant::now();
    let mut buffer = [0; MTU as usize + 64];
    while let Ok(length) = from.read(&mut buffer) {
        let now = Instant::now();
        let turn = free_at.max(now);
        if turn - now > way.buffer || draws.next_u64() % 1_000_000 < u64::from(way.loss_ppm) {
            continue;
        }
        let takes = way.bits.map_or(Duration::ZERO, |bits| {
            Duration::from_secs_f64(length as f64 * 8.0 / bits as f64)
        });
        free_at = turn + takes;
        // a full line loses the packet, as a router does
        let _ = line.try_send((free_at + way.delay, buffer[..length].to_vec()));
    }
}

fn give_out(mut to: tun::Writer, line: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((due, packet)) = line.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // refused while the other end is down: lost
        let _ = to.write(&packet);
    }
}
