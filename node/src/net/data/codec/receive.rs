//! Taking the reply to a request: bytes are read on the peer's credit, verified and written beside the
//! network's tasks, and what came before a fetch ends early is kept.

use std::io;
use std::pin::pin;
use std::time::Duration;

use protocol::limits::GROUP_BYTES;
use protocol::wire::Class;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use super::cancelled;
use crate::net::data::buffers::{Buffer, Buffers};
use crate::net::data::credit::{Credit, Taken};
use crate::net::data::pace::SitePace;
use crate::store::blobs::{Decoder, Fault, Ruler};

/// What is verified at once when nothing lags: it fits a processor's own cache.
const BATCH_BYTES: u64 = 256 << 10;

/// What counts as too slow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// At least so many bytes ...
    pub(crate) bytes: u64,
    /// ... in so long.
    pub(crate) window: Duration,
}

/// How a reply is taken.
pub(crate) struct Terms<'a> {
    pub(crate) buffers: &'a Buffers,
    pub(crate) patience: Patience,
    pub(crate) credit: &'a Credit,
    /// What this node itself takes at most.
    pub(crate) pace: &'a SitePace,
    pub(crate) class: Class,
}

/// Why receiving ended before everything was there.
#[derive(Debug)]
pub(crate) enum Stopped {
    Cancelled,
    Slow,
    Broken(io::Error),
    Fault(Fault),
    /// Another stream showed that the peer lies.
    Spoiled,
}

/// How it ended then.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) why: Stopped,
    /// Bytes that came and did not verify, or could not.
    pub(crate) wasted: u64,
}

/// How far may be read: to the end of the last group for which there was credit, and never past the last
/// group, because a connection that carries more exchanges stays open behind it.
struct Reach<'a> {
    credit: &'a Credit,
    ahead: Ruler,
    next: Option<usize>,
    behind: Ruler,
    granted: u64,
    freed: u64,
    held: Option<Taken>,
}

impl<'a> Reach<'a> {
    fn new(credit: &'a Credit, decoder: &Decoder) -> Reach<'a> {
        let mut ahead = decoder.ruler();
        Reach {
            credit,
            next: ahead.next_group(),
            ahead,
            behind: decoder.ruler(),
            granted: 0,
            freed: 0,
            held: None,
        }
    }

    fn grant(&mut self, taken: Taken) {
        self.granted += taken.num_permits() as u64;
        match &mut self.held {
            Some(held) => held.merge(taken),
            None => self.held = Some(taken),
        }
        self.next = self.ahead.next_group();
    }

    /// Takes credit for groups up to about `aim` bytes and no more than `most`, as far as there is any now.
    fn extend(&mut self, aim: u64, most: usize) {
        let begin = self.granted;
        while let Some(bytes) = self.next.filter(|_| self.granted - begin < aim) {
            if (self.granted - begin) as usize + bytes > most {
                return;
            }
            match self.credit.try_take(bytes) {
                Some(taken) => self.grant(taken),
                None => return,
            }
        }
    }

    /// What is held is never given back: whoever lied gets no more out of it.
    fn forfeit(&mut self) {
        if let Some(held) = self.held.take() {
            held.forget();
        }
    }

    /// Gives back the credit of whole groups among the first `verified` bytes.
    fn free(&mut self, verified: u64) {
        let mut now = 0;
        while self.freed + now < verified {
            let mut after = self.behind.clone();
            let Some(bytes) = after.next_group() else {
                break;
            };
            if self.freed + now + bytes as u64 > verified {
                break;
            }
            self.behind = after;
            now += bytes as u64;
        }
        self.freed += now;
        drop(self.held.as_mut().and_then(|held| held.split(now as usize)));
    }
}

type Work = JoinHandle<(Decoder, Buffer, Result<u64, Fault>)>;

fn verify(mut decoder: Decoder, mut batch: Buffer, bytes: usize) -> Work {
    spawn_blocking(move || {
        let result = decoder.feed(&batch.room()[..bytes]);
        (decoder, batch, result)
    })
}

/// What verified and was written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Won {
    /// Payload bytes.
    pub(crate) payload: u64,
    /// Of them those that were here already, in whole groups.
    pub(crate) again: u64,
}

impl Won {
    /// What is new since the last call.
    fn since(&mut self, decoder: &Decoder) -> Won {
        let before = *self;
        *self = Won {
            payload: decoder.payload_bytes(),
            again: decoder.again_bytes(),
        };
        Won {
            payload: self.payload - before.payload,
            again: self.again - before.again,
        }
    }
}

/// Takes everything that `decoder` expects; `won` hears of what is verified and written. Stops when
/// `cancel` turns true (not when it is dropped).
pub(crate) async fn receive(
    from: &mut (impl AsyncRead + Unpin),
    decoder: Decoder,
    terms: &Terms<'_>,
    cancel: &mut watch::Receiver<bool>,
    mut won: impl FnMut(Won),
) -> Result<(), Cut> {
    let Terms {
        buffers,
        patience,
        credit,
        pace,
        class,
    } = terms;
    let begin = Instant::now();
    let size = decoder.buffer_bytes(buffers.bytes());
    let mut reach = Reach::new(credit, &decoder);
    let mut reader = buffers.take(size);
    let mut filled = 0;
    let mut ended = false;
    let (mut arrived, mut told) = (0, Won::default());
    let mut verified = 0;
    let mut idle = Some((decoder, buffers.take(size)));
    let mut work: Option<Work> = None;
    let (mut window_end, mut window_base) = (begin + patience.window, 0);
    let mut spoiled = pin!(credit.spoiled());

    let mut why = loop {
        let batch = batch_bytes(arrived, begin.elapsed());
        if arrived == reach.granted {
            reach.extend(batch, size - filled);
        }
        // Nothing more may be read before something is verified.
        let stuck = arrived == reach.granted;
        if let Some((decoder, spare)) = idle.take() {
            if filled > 0 && (ended || stuck || filled as u64 >= batch) {
                let batch = std::mem::replace(&mut reader, spare);
                work = Some(verify(decoder, batch, std::mem::take(&mut filled)));
                if stuck {
                    // The other buffer has room again.
                    continue;
                }
            } else {
                idle = Some((decoder, spare));
                if ended {
                    break Stopped::Broken(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        let awaited = reach
            .next
            .filter(|_| stuck && filled == 0 && work.is_none());
        let room = (reach.granted - arrived) as usize;
        let room = room.min(pace.write_bytes().unwrap_or(usize::MAX));
        tokio::select! {
            biased;
            () = cancelled(cancel) => break Stopped::Cancelled,
            () = &mut spoiled => break Stopped::Spoiled,
            read = from.read(&mut reader.room()[filled..][..room]), if !ended && !stuck => {
                match read {
                    Ok(0) => ended = true,
                    Ok(n) => {
                        filled += n;
                        arrived += n as u64;
                        // A thirty-second of a second at most; the peer is not to blame for it.
                        let paused = Instant::now();
                        pace.take(n, false, *class).await;
                        window_end += paused.elapsed();
                    }
                    // What came before the break is still worth verifying.
                    Err(_) if filled > 0 || work.is_some() => ended = true,
                    Err(e) => break Stopped::Broken(e),
                }
            }
            taken = credit.take(awaited.unwrap_or_default()), if awaited.is_some() => match taken {
                Some(taken) => {
                    reach.grant(taken);
                    // Until now it was not the peer that we waited for.
                    (window_end, window_base) = (Instant::now() + patience.window, arrived);
                }
                None => break Stopped::Spoiled,
            },
            worked = async { work.as_mut().expect("guarded").await }, if work.is_some() => {
                work = None;
                let (mut decoder, spare, result) = match worked {
                    Ok(worked) => worked,
                    Err(e) => break Stopped::Broken(io::Error::other(e)),
                };
                verified = decoder.verified_bytes();
                let new = told.since(&decoder);
                credit.prove(new.payload);
                reach.free(verified);
                won(new);
                let done = decoder.is_done();
                idle = Some((decoder, spare));
                match result {
                    Err(fault) => break Stopped::Fault(fault),
                    Ok(_) if done => return Ok(()),
                    Ok(_) => {}
                }
            }
            () = sleep_until(window_end) => {
                // While we are busy ourselves the peer is not to blame.
                let busy = work.is_some() || awaited.is_some();
                if arrived - window_base < patience.bytes && !busy {
                    break Stopped::Slow;
                }
                (window_end, window_base) = (Instant::now() + patience.window, arrived);
            }
        }
    };

    // Whatever the reason, what came already need not come again.
    let lies = |why: &Stopped| matches!(why, Stopped::Fault(_) | Stopped::Spoiled);
    loop {
        if let Some(worked) = work.take() {
            let Ok((decoder, spare, result)) = worked.await else {
                break;
            };
            verified = decoder.verified_bytes();
            let new = told.since(&decoder);
            credit.prove(new.payload);
            won(new);
            idle = Some((decoder, spare));
            if let Err(fault) = result {
                why = Stopped::Fault(fault);
            }
        }
        let rest = std::mem::take(&mut filled);
        let Some((decoder, spare)) = idle.take().filter(|_| rest > 0 && !lies(&why)) else {
            break;
        };
        work = Some(verify(decoder, std::mem::replace(&mut reader, spare), rest));
    }
    if lies(&why) {
        reach.forfeit();
    }
    Err(Cut {
        why,
        wasted: arrived - verified,
    })
}

/// How much is gathered before it is verified: a fiftieth of a second's worth, at least a group with
/// a few pairs.
fn batch_bytes(arrived: u64, elapsed: Duration) -> u64 {
    let per_tick = arrived as u128 * 20 / elapsed.as_millis().max(1);
    u64::try_from(per_tick)
        .unwrap_or(u64::MAX)
        .clamp(GROUP_BYTES + 512, BATCH_BYTES)
}
