use std::sync::Arc;

use proptest::prelude::*;
use protocol::limits::{GROUP_BYTES, UNVERIFIED_MAX_BYTES};
use protocol::pieces::PieceSet;
use protocol::wire::{Class, Contact};
use protocol::{BlobRef, NodeId};
use tempfile::TempDir;
use tokio::io::duplex;

use super::super::buffers::{Copying, SENDING_BYTES};
use super::super::credit::Credit;
use super::super::pace::Paces;
use super::*;
use crate::store::blobs::{Blob, Blobs, Decoder};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn request() -> DataRequest {
    DataRequest {
        blob: BlobRef::of(b"some blob"),
        groups: (0..40).map(|i| (i * 1000, i * 1000 + 7)).collect(),
        class: Class::Emergency,
        max_bytes_per_s: 12_345,
        spurned: vec![NodeId([7; 32])],
    }
}

fn replies() -> [DataReply; 6] {
    let holder = Contact {
        node: NodeId([9; 32]),
        control: [].into(),
        data: Some(([10, 2, 0, 7], 4_433).into()),
    };
    let referral = Referral {
        holders: vec![holder],
        max_bytes_per_s: 1_250_000,
    };
    [
        DataReply::Sending,
        DataReply::NotHeld,
        DataReply::Busy,
        DataReply::Refused,
        DataReply::Queued,
        DataReply::Referred(referral),
    ]
}

#[test]
fn a_referral_that_is_too_long_or_names_too_many_is_not_taken() {
    runtime().block_on(async {
        let DataReply::Referred(mut referral) = replies()[5].clone() else {
            panic!("the last one is a referral");
        };
        let one = referral.holders[0].clone();
        referral.holders = vec![one; REFERRALS_MAX + 1];
        let (mut a, mut b) = duplex(100_000);
        let many = DataReply::Referred(referral);
        write_reply(&mut a, many).await.unwrap();
        assert!(read_reply(&mut b).await.is_err());
        let long = [&[5][..], &(REFERRAL_MAX_BYTES as u16 + 1).to_le_bytes()].concat();
        let (mut a, mut b) = duplex(100_000);
        a.write_all(&long).await.unwrap();
        assert!(matches!(
            read_reply(&mut b).await,
            Err(ExchangeError::TooLong(_))
        ));
    });
}

fn mutate(bytes: &mut Vec<u8>, at: usize, with: u8, kind: u8) {
    let at = at % bytes.len();
    match kind {
        0 => bytes[at] ^= with,
        1 => bytes.truncate(at),
        2 => drop(bytes.remove(at)),
        3 => bytes.insert(at, with),
        _ => bytes
            .iter_mut()
            .skip(at)
            .for_each(|byte| *byte = byte.wrapping_mul(with).wrapping_add(3)),
    }
}

#[test]
fn requests_and_replies_come_out_as_they_went_in() {
    runtime().block_on(async {
        let (mut a, mut b) = duplex(100_000);
        write_request(&mut a, &request()).await.unwrap();
        assert_eq!(read_request(&mut b).await.unwrap(), request());
        for reply in replies() {
            write_reply(&mut a, reply.clone()).await.unwrap();
            assert_eq!(read_reply(&mut b).await.unwrap(), reply);
        }
        // One byte each before anything else, as the wire format writes them.
        for (byte, reply) in replies().iter().enumerate() {
            assert_eq!(postcard::to_stdvec(reply).unwrap()[0], byte as u8);
        }
    });
}

crate::golden::variants!(every_reply_of of DataReply: Sending, NotHeld, Busy, Refused, Queued, Referred);

#[test]
fn framed_requests_and_reply_bytes_are_read_and_written_as_ever() {
    let runtime = runtime();
    let framed = |request: &DataRequest| {
        let mut wire = Vec::new();
        runtime.block_on(write_request(&mut wire, request)).unwrap();
        wire
    };
    let request = [("request.bin".to_owned(), framed(&request()))];
    crate::golden::check("data-request", &request, |mut bytes| {
        let request = runtime
            .block_on(read_request(&mut bytes))
            .map_err(|e| e.to_string())?;
        Ok(framed(&request))
    });

    let byte = |reply: DataReply| {
        let mut wire = Vec::new();
        runtime.block_on(write_reply(&mut wire, reply)).unwrap();
        wire
    };
    let replies = replies();
    every_reply_of(&replies);
    let samples = replies.map(|reply| {
        let name = format!("{reply:?}");
        let name = name.split(['(', ' ']).next().unwrap_or_default();
        (format!("{name}.bin"), byte(reply.clone()))
    });
    crate::golden::check("data-reply", &samples, |mut bytes| {
        let reply = runtime
            .block_on(read_reply(&mut bytes))
            .map_err(|e| e.to_string())?;
        Ok(byte(reply))
    });
}

/// The bytes behind `Sending`: bao's encoding of a blob's ranges, as it was when this was written.
#[test]
fn an_encoding_is_sent_and_taken_as_ever() {
    let runtime = runtime();
    let pair = pair();
    let groups = [(1, 2), (6, 7)];
    let sent = |blob: Arc<Blob>| {
        let mut wire = Vec::new();
        runtime
            .block_on(send(
                &mut Copying(&mut wire),
                Encoder::new(blob, &groups),
                &Buffers::of(SENDING_BYTES),
                &Free,
                |_| {},
            ))
            .unwrap();
        wire
    };
    let sample = [("ranges.bin".to_owned(), sent(pair.full.clone()))];
    crate::golden::check("data-encoding", &sample, |mut bytes| {
        let blob = pair.blobs.open_blob(pair.full.name()).unwrap();
        let (result, _) = runtime.block_on(transfer(&mut bytes, blob.clone(), &groups));
        let again = match result {
            Ok(()) => Ok(sent(blob.clone())),
            Err(stopped) => Err(format!("{stopped:?}")),
        };
        drop(blob);
        pair.blobs.drop_blob(&pair.full.name().root).unwrap();
        again
    });
}

#[test]
fn an_endless_notice_is_cut() {
    runtime().block_on(async {
        let mut endless = tokio::io::repeat(b'T');
        assert!(matches!(
            read_notice(&mut endless).await,
            Err(ExchangeError::Malformed(_))
        ));
        let mut announced = &[0xff, 0xff, 0xff, 0x7f][..];
        assert!(matches!(
            read_request(&mut announced).await,
            Err(ExchangeError::TooLong(_))
        ));
    });
}

/// A complete blob, its encoding, and an empty one beside it.
struct Pair {
    _dir: TempDir,
    full: Arc<Blob>,
    blobs: Blobs,
    bytes: Vec<u8>,
}

fn pair() -> Pair {
    let dir = tempfile::tempdir().unwrap();
    let bytes = noise(100_000);
    std::fs::write(dir.path().join("source"), &bytes).unwrap();
    let seed = Blobs::open(&dir.path().join("a")).unwrap();
    let name = seed.import_file(&dir.path().join("source")).unwrap();
    let full = seed.get(&name.root).unwrap();
    let blobs = Blobs::open(&dir.path().join("b")).unwrap();
    Pair {
        _dir: dir,
        full,
        blobs,
        bytes,
    }
}

struct Free;

impl Gate for Free {
    fn write_bytes(&self) -> usize {
        10_000
    }
    async fn open(&self, _: usize) {}
}

async fn transfer(
    from: &mut (impl AsyncRead + Unpin),
    into: Arc<Blob>,
    ranges: &[(u64, u64)],
) -> (Result<(), Stopped>, u64) {
    let (_keep, mut cancel) = watch::channel(false);
    let (result, won) = transfer_until(from, into, ranges, &mut cancel).await;
    (result.map_err(|cut| cut.why), won)
}

async fn transfer_until(
    from: &mut (impl AsyncRead + Unpin),
    into: Arc<Blob>,
    ranges: &[(u64, u64)],
    cancel: &mut watch::Receiver<bool>,
) -> (Result<(), Cut>, u64) {
    let terms = Terms {
        buffers: &Buffers::of(SENDING_BYTES),
        patience: Patience {
            bytes: 1,
            window: Duration::from_secs(5),
        },
        credit: &Credit::new(),
        pace: &Paces::new(Arc::default()).own(false).down.clone(),
        class: Class::Normal,
    };
    let decoder = Decoder::new(into, ranges);
    let mut won = 0;
    let result = receive(from, decoder, &terms, cancel, |new| won += new.payload).await;
    let room = terms.credit.try_take(UNVERIFIED_MAX_BYTES as usize);
    let lied = |cut: &Cut| matches!(cut.why, Stopped::Fault(_) | Stopped::Spoiled);
    let forfeit = result.as_ref().is_err_and(lied);
    assert!(
        room.is_some() || forfeit,
        "all credit is given back but to who lied"
    );
    (result, won)
}

/// The story: a fetch that was cancelled, or cut for being slow, threw away up to a megabyte that had come
/// and was not verified yet, and it was fetched again.
#[test]
fn what_came_before_a_fetch_ends_early_is_kept() {
    runtime().block_on(async {
        let pair = pair();
        let blob = pair.blobs.open_blob(pair.full.name()).unwrap();
        let mut encoding = Vec::new();
        let (encoder, buffers) = (
            Encoder::new(pair.full.clone(), &[(0, 7)]),
            Buffers::of(SENDING_BYTES),
        );
        send(
            &mut Copying(&mut encoding),
            encoder,
            &buffers,
            &Free,
            |_| {},
        )
        .await
        .unwrap();
        let (mut a, mut b) = duplex(16);
        let (cancel, mut cancelled) = watch::channel(false);
        let sending = async {
            // Three groups, their pairs, and a part of the fourth.
            a.write_all(&encoding[..60_000]).await.unwrap();
            cancel.send_replace(true);
        };
        let receiving = transfer_until(&mut b, blob.clone(), &[(0, 7)], &mut cancelled);
        let ((), (result, won)) = tokio::join!(sending, receiving);
        let cut = result.unwrap_err();
        assert!(matches!(cut.why, Stopped::Cancelled), "{cut:?}");
        assert!(blob.holds(0..3) && !blob.holds(3..4));
        assert_eq!(won, 3 * GROUP_BYTES);
        assert!(cut.wasted < GROUP_BYTES, "{cut:?}");
    });
}

#[test]
fn ranges_travel_over_any_pair_of_streams() {
    runtime().block_on(async {
        let pair = pair();
        let blob = pair.blobs.open_blob(pair.full.name()).unwrap();
        for ranges in [&[(1, 2), (4, 6)][..], &[(0, 1), (2, 4), (6, 7)]] {
            let (mut a, mut b) = duplex(3_000);
            let mut sent = 0;
            let sending = async {
                send(
                    &mut Copying(&mut a),
                    Encoder::new(pair.full.clone(), ranges),
                    &Buffers::of(SENDING_BYTES),
                    &Free,
                    |bytes| sent += bytes,
                )
                .await
                .unwrap();
                drop(a);
            };
            let ((), (result, won)) = tokio::join!(sending, transfer(&mut b, blob.clone(), ranges));
            result.unwrap();
            assert_eq!(sent, won);
            assert!(ranges.iter().all(|(start, end)| blob.holds(*start..*end)));
        }
        let mut found = vec![0; 100_000];
        blob.read_at(0, &mut found).unwrap();
        assert!(found == pair.bytes);
    });
}

/// The last bytes of an encoding, too few for a batch, were not looked at before the stream ended; over
/// TCP it does not end, and a fetch waited until the source closed the idle connection.
#[test]
fn the_last_bytes_count_though_the_stream_stays_open() {
    runtime().block_on(async {
        let pair = pair();
        let blob = pair.blobs.open_blob(pair.full.name()).unwrap();
        let ranges = [(0, 2), (6, 7)];
        let (mut a, mut b) = duplex(1 << 20);
        let encoder = Encoder::new(pair.full.clone(), &ranges);
        let buffers = Buffers::of(SENDING_BYTES);
        send(&mut Copying(&mut a), encoder, &buffers, &Free, |_| {})
            .await
            .unwrap();
        let receiving = transfer(&mut b, blob.clone(), &ranges);
        let (result, _won) = timeout(Duration::from_secs(60), receiving).await.unwrap();
        result.unwrap();
        assert!(blob.holds(0..2) && blob.holds(6..7));
        drop(a);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutated_requests_are_refused_or_sound(at in 0usize..10_000, with: u8, kind in 0u8..5) {
        let body = request().to_bytes();
        let mut bytes = [&(body.len() as u32).to_le_bytes()[..], &body].concat();
        mutate(&mut bytes, at, with, kind);
        runtime().block_on(async {
            if let Ok(request) = read_request(&mut &bytes[..]).await {
                let _ = is_sound(&request);
            }
        });
    }

    #[test]
    fn mutated_notices_are_refused_or_read(at in 0usize..10_000, with: u8, kind in 0u8..5) {
        let notice = Notice::Have { blob: BlobRef::of(b"x"), pieces: PieceSet::full(777) };
        let mut bytes = notice.to_bytes();
        mutate(&mut bytes, at, with, kind);
        runtime().block_on(async { drop(read_notice(&mut &bytes[..]).await) });
    }
}

#[test]
fn a_mutated_transfer_never_writes_what_is_wrong() {
    let runtime = runtime();
    let pair = pair();
    let groups = [(0, 7)];
    let mut encoding = Vec::new();
    runtime
        .block_on(send(
            &mut Copying(&mut encoding),
            Encoder::new(pair.full.clone(), &groups),
            &Buffers::of(SENDING_BYTES),
            &Free,
            |_| {},
        ))
        .unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(1000));
    let cases = (0usize..200_000, 1u8.., 0u8..5);
    let outcome = runner.run(&cases, |(at, with, kind)| {
        let mut bytes = encoding.clone();
        mutate(&mut bytes, at, with, kind);
        let blob = pair.blobs.open_blob(pair.full.name()).unwrap();
        let (result, _) = runtime.block_on(transfer(&mut &bytes[..], blob.clone(), &groups));
        prop_assert!(result.is_err() || bytes.starts_with(&encoding));
        for group in (0..7).filter(|group| blob.holds(*group..*group + 1)) {
            let start = (group * GROUP_BYTES) as usize;
            let mut found = vec![0; (pair.bytes.len() - start).min(GROUP_BYTES as usize)];
            blob.read_at(start as u64, &mut found).unwrap();
            prop_assert!(found == pair.bytes[start..start + found.len()]);
        }
        drop(blob);
        pair.blobs.drop_blob(&pair.full.name().root).unwrap();
        Ok(())
    });
    outcome.unwrap();
}
