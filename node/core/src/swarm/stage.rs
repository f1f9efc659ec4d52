//! One release on its way to disk: index, reuse, frame table, frames, done.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::limits::{STORAGE_PATIENCE, STORAGE_RETRY_MAX};
use protocol::manifest::Artifact;
use protocol::pieces::PieceSet;
use protocol::{BlobRef, Time};

use super::blob::{Blob, Need};
use super::desk::Desk;
use super::form::{self, Form, Holding};
use super::{Output, Progress, Want};
use crate::contract::{Action, Failure, FailureClass, FrameMap, FrameOutcome, Ticket};

/// A question about content that the body answers once.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Step<T> {
    /// Its bytes are not all here, or it is not its turn.
    Due,
    /// The body is at it.
    Asked(Ticket),
    /// Answered.
    Known(T),
}

/// How a staging ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Open,
    Staged,
    /// The release broke its rules.
    Refused,
}

pub(super) struct Staging {
    pub want: Want,
    /// Earlier wants of one class come first.
    pub order: u64,
    pub end: End,
    index: Step<()>,
    reuse: Step<()>,
    table: Step<Arc<FrameMap>>,
    decoding: Option<(Ticket, u32)>,
    /// Decodes in a row that were wrong, and when the next may be tried.
    decode_fails: u32,
    /// Decodes in a row that failed for this machine's disk.
    unfold_fails: u32,
    decode_at: Time,
    missing_bytes: u64,
    told: Progress,
    told_storage: bool,
}

type Blobs = BTreeMap<BlobRef, Box<Blob>>;

/// The blobs of an artifact, as the swarm uses them.
pub(super) fn blobs_of(artifact: &Artifact) -> Vec<BlobRef> {
    let mut blobs = vec![artifact.index, artifact.pack];
    blobs.extend(artifact.full_carrier());
    blobs.dedup();
    blobs
}

fn has_met(desk: &Desk, now: Time, blob: &Blob) -> bool {
    let heard = blob.met_at.is_some_and(|met| now >= met) || desk.site.members.is_empty();
    blob.is_open() && (heard || blob.have.is_full())
}

impl Staging {
    pub fn new(want: Want, order: u64) -> Staging {
        Staging {
            want,
            order,
            end: End::Open,
            index: Step::Due,
            reuse: Step::Due,
            table: Step::Due,
            decoding: None,
            decode_fails: 0,
            unfold_fails: 0,
            decode_at: Time(0),
            missing_bytes: 0,
            told: Progress::default(),
            told_storage: false,
        }
    }

    /// Asks the body for whatever has become possible, and says when it is done.
    pub fn advance(&mut self, desk: &mut Desk, now: Time, blobs: &Blobs) {
        if self.end != End::Open {
            return;
        }
        let Artifact { index, pack, .. } = self.want.artifact;
        self.report_storage(desk, blobs);
        let (Some(index_blob), Some(pack_blob)) = (blobs.get(&index), blobs.get(&pack)) else {
            return;
        };
        if self.index == Step::Due && index_blob.is_complete() {
            let ticket = desk.ticket();
            self.index = Step::Asked(ticket);
            desk.act(Action::ReadIndex {
                ticket,
                index,
                pack,
            });
        }
        if self.index != Step::Known(()) || !pack_blob.is_open() {
            return;
        }
        if self.reuse == Step::Due {
            if self.want.donors.is_empty() || pack_blob.is_complete() {
                self.reuse = Step::Known(());
            } else {
                let ticket = desk.ticket();
                self.reuse = Step::Asked(ticket);
                desk.act(Action::Reuse {
                    ticket,
                    index,
                    pack,
                    donors: self.want.donors.clone(),
                });
            }
        }
        if pack_blob.is_complete() {
            self.end = End::Staged;
            self.missing_bytes = 0;
            self.tell_progress(desk, blobs);
            desk.outputs.push_back(Output::Staged(self.want.release));
            return;
        }
        if let Some(carrier) = self
            .want
            .artifact
            .full_carrier()
            .and_then(|name| blobs.get(name))
        {
            self.read_table(desk, carrier, pack_blob);
            self.decode(desk, now, carrier, pack_blob);
        }
    }

    fn read_table(&mut self, desk: &mut Desk, carrier: &Blob, pack: &Blob) {
        let head = form::head_pieces(carrier.cut, pack.cut);
        if self.table == Step::Due
            && carrier.is_open()
            && head.into_iter().all(|piece| carrier.have.contains(piece))
        {
            let ticket = desk.ticket();
            self.table = Step::Asked(ticket);
            desk.act(Action::ReadFrames {
                ticket,
                carrier: carrier.name,
                pack: pack.name,
            });
        }
    }

    /// One frame at a time: a decoder may need 64 MiB.
    fn decode(&mut self, desk: &mut Desk, now: Time, carrier: &Blob, pack: &Blob) {
        let Step::Known(frames) = &self.table else {
            return;
        };
        if self.decoding.is_some() || self.reuse != Step::Known(()) || !carrier.is_open() {
            return;
        }
        if now < self.decode_at {
            desk.wake_at(self.decode_at);
            return;
        }
        let whole = |frame: &usize| {
            form::pack_pieces(frames, *frame, pack.cut).any(|piece| !pack.have.contains(piece))
                && form::carrier_pieces(frames, *frame, carrier.cut)
                    .all(|piece| carrier.have.contains(piece))
        };
        let Some(frame) = (0..frames.coded.len()).find(whole) else {
            return;
        };
        let (ticket, frame, index) = (desk.ticket(), frame as u32, self.want.artifact.index);
        self.decoding = Some((ticket, frame));
        desk.act(Action::Decode {
            ticket,
            carrier: carrier.name,
            index,
            pack: pack.name,
            frame,
        });
    }

    /// What this release needs of its blobs now.
    pub fn needs(&mut self, desk: &Desk, now: Time, blobs: &Blobs) -> Vec<(BlobRef, Need)> {
        if self.end != End::Open {
            return Vec::new();
        }
        let Artifact { index, pack, .. } = self.want.artifact;
        let class = self.want.class;
        let (Some(index_blob), Some(pack_blob)) = (blobs.get(&index), blobs.get(&pack)) else {
            return Vec::new();
        };
        let all = PieceSet::full(index_blob.cut.pieces());
        let mut missing = index_blob.missing_bytes(all.iter());
        let mut needs = vec![(
            index,
            Need {
                pieces: all,
                wan: true,
                settled: true,
                follow: true,
                class,
            },
        )];
        let carrier = self
            .want
            .artifact
            .full_carrier()
            .and_then(|name| blobs.get(name));
        let (form, settled) = self.form(desk, now, blobs, pack_blob);
        missing += pack_blob.missing_bytes(form.pack.iter());
        if let Some(carrier) = carrier {
            let whole = self.table == Step::Due && form.pack.is_empty();
            let pieces = if whole {
                PieceSet::full(carrier.cut.pieces())
            } else {
                form.carrier.clone()
            };
            missing += carrier.missing_bytes(pieces.iter());
            needs.push((
                carrier.name,
                Need {
                    pieces: form.carrier,
                    wan: true,
                    settled,
                    follow: true,
                    class,
                },
            ));
        }
        needs.push((
            pack,
            Need {
                follow: carrier.is_none() || !form.pack.is_empty(),
                pieces: form.pack,
                wan: carrier.is_none(),
                settled,
                class,
            },
        ));
        self.missing_bytes = missing;
        needs
    }

    /// The form chosen now, and whether it is a choice and not just a beginning.
    fn form(&self, desk: &Desk, now: Time, blobs: &Blobs, pack: &Blob) -> (Form, bool) {
        let carrier = self
            .want
            .artifact
            .full_carrier()
            .and_then(|name| blobs.get(name));
        let reused = self.reuse == Step::Known(());
        let nothing = |blob: &Blob| PieceSet::empty(blob.cut.pieces());
        let Some(carrier) = carrier else {
            // With donors at hand, what must be fetched is known only after they were copied from.
            let all = reused || self.want.donors.is_empty();
            let pieces = if all {
                PieceSet::full(pack.cut.pieces())
            } else {
                nothing(pack)
            };
            return (
                Form {
                    carrier: PieceSet::empty(0),
                    pack: pieces,
                },
                all,
            );
        };
        // The index comes first and alone: it is small, and its fetcher uses the whole link. And what
        // the site has is not known before the neighbours had time to answer.
        let index_is_here = blobs
            .get(&self.want.artifact.index)
            .is_some_and(|blob| blob.is_complete());
        if !index_is_here || [carrier, pack].iter().any(|blob| !has_met(desk, now, blob)) {
            return (
                Form {
                    carrier: nothing(carrier),
                    pack: nothing(pack),
                },
                false,
            );
        }
        let coded = Holding {
            cut: carrier.cut,
            have: &carrier.have,
            near: carrier.holders.any(),
            flying: &carrier.flying,
        };
        let plain = Holding {
            cut: pack.cut,
            have: &pack.have,
            near: pack.holders.any(),
            flying: &pack.flying,
        };
        match &self.table {
            Step::Known(frames) if reused => (form::by_frame(frames, coded, plain), true),
            _ if reused || self.want.donors.is_empty() => {
                let eager = pack.have.is_empty();
                let form = form::without_table(coded, plain, eager);
                let settled = eager || !form.pack.is_empty();
                (form, settled)
            }
            _ => {
                let mut form = Form {
                    carrier: nothing(carrier),
                    pack: nothing(pack),
                };
                form::head_pieces(carrier.cut, pack.cut).for_each(|piece| {
                    form.carrier.insert(piece);
                });
                (form, false)
            }
        }
    }

    // ---- answers -----------------------------------------------------------------------------

    /// The index was read. True if the ticket is this release's.
    pub fn index_read(&mut self, desk: &mut Desk, ticket: Ticket, sound: bool) -> bool {
        let mine = self.index == Step::Asked(ticket);
        if mine {
            self.index = Step::Known(());
            if !sound {
                self.refuse(desk, "its index breaks its rules");
            }
        }
        mine
    }

    /// Chunks were copied. True if the ticket is this release's.
    pub fn reused(&mut self, ticket: Ticket) -> bool {
        let mine = self.reuse == Step::Asked(ticket);
        if mine {
            self.reuse = Step::Known(());
        }
        mine
    }

    /// The frame table was read. True if the ticket is this release's.
    pub fn frames_read(
        &mut self,
        desk: &mut Desk,
        ticket: Ticket,
        frames: Option<&Arc<FrameMap>>,
    ) -> bool {
        let mine = self.table == Step::Asked(ticket);
        if mine {
            match frames {
                Some(frames) if self.fits(frames) => self.table = Step::Known(frames.clone()),
                _ => self.refuse(desk, "its frame table breaks its rules"),
            }
        }
        mine
    }

    /// The frames must cover the pack, or the release would wait for ever.
    fn fits(&self, frames: &FrameMap) -> bool {
        let plain = self.want.artifact.pack.length;
        (frames.coded.len() as u64)
            .checked_mul(frames.frame_plain)
            .is_some_and(|covered| covered >= plain)
    }

    /// A frame was decoded; returns the pack pieces that are complete by it. A wrong one is tried again
    /// a few times, in case it was this machine's memory; a disk that fails, for as long as it does.
    pub fn frame_decoded(
        &mut self,
        desk: &mut Desk,
        now: Time,
        ticket: Ticket,
        outcome: FrameOutcome,
    ) -> Option<core::ops::Range<u32>> {
        let (_, frame) = self.decoding.take_if(|(asked, _)| *asked == ticket)?;
        match outcome {
            FrameOutcome::Decoded => {}
            FrameOutcome::Wrong => {
                self.decode_at = now + protocol::Span(1_000 << self.decode_fails);
                self.decode_fails += 1;
                if self.decode_fails >= STORAGE_PATIENCE {
                    let why = format!("frame {frame} does not unfold to what its index says");
                    self.refuse(desk, &why);
                }
                return None;
            }
            FrameOutcome::Storage => {
                let pause = (1_000 << self.unfold_fails.min(16)).min(STORAGE_RETRY_MAX.0);
                self.decode_at = now + protocol::Span(pause);
                self.unfold_fails += 1;
                return None;
            }
        }
        (self.decode_fails, self.unfold_fails) = (0, 0);
        let Step::Known(frames) = &self.table else {
            return None;
        };
        let pack = desk.grain.cut(self.want.artifact.pack.length);
        Some(form::pack_pieces(frames, frame as usize, pack))
    }

    fn refuse(&mut self, desk: &mut Desk, why: &str) {
        if self.end != End::Open {
            return;
        }
        self.end = End::Refused;
        let reason = format!(
            "release {} cannot be staged: {why}; build and sign it again",
            self.want.release.short()
        );
        let failure = Failure {
            reason,
            exit_code: None,
            output_tail: String::new(),
            class: FailureClass::Release,
        };
        desk.outputs
            .push_back(Output::Failed(self.want.release, failure));
    }

    /// A disk that cannot be written is reported once; the swarm goes on trying, slowly.
    fn report_storage(&mut self, desk: &mut Desk, blobs: &Blobs) {
        let sick = blobs_of(&self.want.artifact).into_iter().find(|name| {
            blobs
                .get(name)
                .is_some_and(|blob| blob.storage_fails >= STORAGE_PATIENCE)
        });
        let full = (self.unfold_fails >= STORAGE_PATIENCE).then_some(self.want.artifact.pack);
        let sick = sick.or(full);
        if let (Some(name), false) = (sick, self.told_storage) {
            let release = self.want.release.short();
            let reason = format!(
                "release {release}: this machine cannot write blob {name}; free or repair its disk"
            );
            let failure = Failure {
                reason,
                exit_code: None,
                output_tail: String::new(),
                class: FailureClass::Download,
            };
            desk.outputs
                .push_back(Output::Failed(self.want.release, failure));
        }
        self.told_storage = sick.is_some();
    }

    // ---- progress ----------------------------------------------------------------------------

    pub fn progress(&self, blobs: &Blobs) -> Progress {
        let mut progress = Progress {
            missing_bytes: self.missing_bytes,
            bytes: BTreeMap::new(),
        };
        for blob in blobs_of(&self.want.artifact)
            .iter()
            .filter_map(|name| blobs.get(name))
        {
            for (reason, bytes) in &blob.bytes {
                *progress.bytes.entry(*reason).or_default() += bytes;
            }
        }
        progress
    }

    /// Tells how far it is, if that is news.
    pub fn tell_progress(&mut self, desk: &mut Desk, blobs: &Blobs) {
        let progress = self.progress(blobs);
        if progress == self.told {
            return;
        }
        self.told = progress.clone();
        desk.outputs.push_back(Output::Progress {
            release: self.want.release,
            progress,
        });
    }
}
