//! What takes a node time: reading, decoding, the steps of an installation.

use std::collections::BTreeMap;

use node_core::contract::{Event, FrameOutcome, OnDisk, Step, Ticket};
use protocol::pieces::PieceSet;
use protocol::{BlobRef, Hash, Span};

use crate::checks::findings::Rule;
use crate::island::{Happening, Island};
use crate::machine::Stored;
use crate::scenario::below;

/// An effect that takes time.
pub(crate) enum Effect {
    /// See [`Action::OpenBlob`].
    Open(BlobRef),
    /// See [`Action::ReadIndex`].
    ReadIndex(BlobRef),
    /// See [`Action::Reuse`]: nothing is ever copied here.
    Reuse(BlobRef),
    /// See [`Action::ReadFrames`].
    ReadFrames(BlobRef),
    /// See [`Action::Decode`]: pack and frame.
    Decode(BlobRef, u32),
    /// See [`Action::Step`]: release, what was before, step.
    Step(Hash, Option<Hash>, Step),
}

impl Island {
    pub(crate) fn takes(&mut self, n: usize, ticket: Ticket, millis: u64, effect: Effect) {
        let jitter = below(&mut self.draws.effects, millis / 4 + 1);
        let process = self.machines[n].process();
        self.after(
            Span(millis + jitter),
            Happening::Effect(n, process, ticket, Box::new(effect)),
        );
    }

    pub(crate) fn effect_ends(&mut self, n: usize, ticket: Ticket, effect: Effect) {
        let now = self.time();
        let machine = &mut self.machines[n];
        let contents = &self.shared.contents;
        let content = |blob: &BlobRef| contents.iter().find(|c| c.blobs().contains(blob));
        let event = match effect {
            Effect::Open(blob) => {
                let pieces = machine.config.grain.cut(blob.length).pieces();
                let empty = || Stored {
                    have: PieceSet::empty(pieces),
                    partial: BTreeMap::new(),
                };
                let found = match machine.traits.full_disk {
                    true => None,
                    false => {
                        let stored = machine.disk.entry(blob).or_insert_with(empty);
                        Some(OnDisk {
                            have: stored.have.clone(),
                            begun: stored.partial.keys().copied().collect(),
                        })
                    }
                };
                Event::BlobOpened { ticket, found }
            }
            Effect::ReadIndex(index) => {
                if !machine.holds(&index) {
                    self.watch
                        .violated(now, Rule::Body, n, "it reads an index that it lacks");
                }
                Event::IndexRead {
                    ticket,
                    index: content(&index).map(|c| c.checked.clone()),
                }
            }
            Effect::Reuse(pack) => {
                let none = || PieceSet::empty(machine.config.grain.cut(pack.length).pieces());
                let have = machine
                    .disk
                    .get(&pack)
                    .map_or_else(none, |s| s.have.clone());
                Event::Reused {
                    ticket,
                    have,
                    bytes: 0,
                }
            }
            Effect::ReadFrames(carrier) => {
                if !machine.holds_pieces(&carrier, &[0]) {
                    self.watch
                        .violated(now, Rule::Body, n, "it reads a table that it lacks");
                }
                Event::FramesRead {
                    ticket,
                    frames: content(&carrier).map(|c| c.frames.clone()),
                }
            }
            Effect::Decode(pack, frame) => {
                let Some(content) = content(&pack) else {
                    return;
                };
                let coded: Vec<u32> = content.carrier_pieces_of_frame(frame).collect();
                if !machine.holds_pieces(&content.carrier, &coded) {
                    self.watch
                        .violated(now, Rule::Body, n, "it decodes a frame that it lacks");
                }
                if let Some(stored) = machine.disk.get_mut(&pack) {
                    for piece in content.pieces_of_frame(frame) {
                        stored.have.insert(piece);
                    }
                }
                let outcome = FrameOutcome::Decoded;
                Event::FrameDecoded { ticket, outcome }
            }
            Effect::Step(release, before, step) => {
                let Some(outcome) = self.step_ends(n, release, before, step) else {
                    return;
                };
                Event::StepEnded { ticket, outcome }
            }
        };
        if let Event::FrameDecoded { .. } = &event {
            self.look_for_staged(n);
        }
        self.tell(n, event);
    }
}
