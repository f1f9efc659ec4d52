//! The content effects: blobs are opened, indexes read, frames decoded, steps taken. All of it
//! blocks or burns a core, so it runs beside the loop, a bounded number at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use node_core::contract::{
    Event, Failure, FailureClass, FrameMap, FrameOutcome, OnDisk, Step, StepOutcome, Ticket,
    Warrant,
};
use protocol::carrier::FrameTable;
use protocol::index::CheckedIndex;
use protocol::manifest::ReleaseManifest;
use protocol::pieces::PieceSet;
use protocol::{BlobRef, Hash, Verified};
use tokio::sync::Semaphore;

use crate::content::{ReadError, frames, read_index, reuse};
use crate::handover::Courier;
use crate::install::{Content, Installer};
use crate::store::blobs::{Blob, Blobs};

/// Checked indexes that are kept in memory, and as many frame tables; what was used longest ago
/// falls out.
const KEPT_MAX: usize = 4;
/// Effects that read or write blobs at the same time.
const WORKERS: usize = 4;

/// What was read of a blob about a pack, the one used last at the end.
type Kept<T> = VecDeque<((BlobRef, BlobRef), Arc<T>)>;

/// The blobs of a node and what is known of their insides. Clones share it.
#[derive(Clone)]
pub struct Shelf {
    blobs: Blobs,
    installer: Installer,
    courier: Option<Courier>,
    indexes: Arc<Mutex<Kept<CheckedIndex>>>,
    tables: Arc<Mutex<Kept<FrameTable>>>,
    workers: Arc<Semaphore>,
}

impl Shelf {
    /// A shelf over a store and an install directory.
    pub fn new(blobs: Blobs, installer: Installer) -> Shelf {
        Shelf {
            blobs,
            installer,
            courier: None,
            indexes: Arc::default(),
            tables: Arc::default(),
            workers: Arc::new(Semaphore::new(WORKERS)),
        }
    }

    /// Has steps taken by another process, except those of the agent's own releases.
    pub fn with_courier(self, courier: Option<Courier>) -> Shelf {
        Shelf { courier, ..self }
    }

    /// Why steps wait for the other process, if they do.
    pub fn installer_away(&self) -> Option<String> {
        self.courier.as_ref()?.away()
    }

    /// The blob, if it is open or complete.
    pub fn blob(&self, name: BlobRef) -> Option<Arc<Blob>> {
        self.blobs
            .get(&name.root)
            .filter(|blob| blob.name() == name)
    }

    /// Opens (or makes) a blob's files.
    pub async fn open(self, ticket: Ticket, blob: BlobRef) -> Event {
        let opened = self.work(move |shelf| shelf.blobs.open_blob(blob)).await;
        let found = match opened {
            Some(Ok(open)) => Some(OnDisk {
                have: open.pieces(),
                begun: open.begun_pieces(),
            }),
            Some(Err(e)) => {
                tracing::warn!(event = "storage", "blob {blob} cannot be kept: {e}");
                None
            }
            None => None,
        };
        Event::BlobOpened { ticket, found }
    }

    /// Drops a blob's files. The loop waits for it, so it does not stand in line behind other work.
    pub async fn drop_blob(self, blob: BlobRef) {
        let done = tokio::task::spawn_blocking(move || self.blobs.drop_blob(&blob.root)).await;
        if let Ok(Err(e)) = done {
            tracing::warn!(event = "storage", "blob {blob} cannot be dropped: {e}");
        }
    }

    /// Reads and checks an index.
    pub async fn read_index(self, ticket: Ticket, index: BlobRef, pack: BlobRef) -> Event {
        let read = self.work(move |shelf| shelf.index(index, pack)).await;
        Event::IndexRead {
            ticket,
            index: read.flatten(),
        }
    }

    /// Copies chunks of older releases into a pack.
    pub async fn reuse(
        self,
        ticket: Ticket,
        index: BlobRef,
        pack: BlobRef,
        donors: Vec<(BlobRef, BlobRef)>,
    ) -> Event {
        let nothing = PieceSet::empty(protocol::pieces::Geometry::of(pack.length).pieces());
        let copied = self
            .work(move |shelf| {
                let index = shelf.index(index, pack)?;
                let pack = shelf.blob(pack)?;
                let donors: Vec<_> = donors
                    .into_iter()
                    .filter_map(|(index, pack)| {
                        let checked = shelf.index(index, pack)?;
                        Some(((*checked).clone(), shelf.blob(pack)?))
                    })
                    .collect();
                let bytes = reuse::reuse(&index, &pack, &donors).unwrap_or_else(|e| {
                    tracing::warn!(event = "storage", "reuse ended early: {e}");
                    0
                });
                Some((pack.pieces(), bytes))
            })
            .await;
        let (have, bytes) = copied.flatten().unwrap_or((nothing, 0));
        Event::Reused {
            ticket,
            have,
            bytes,
        }
    }

    /// Reads and checks a carrier's frame table.
    pub async fn read_frames(self, ticket: Ticket, carrier: BlobRef, pack: BlobRef) -> Event {
        let read = self
            .work(move |shelf| {
                let table = frames::read_table(&*shelf.blob(carrier)?, pack)
                    .inspect_err(|e| tracing::warn!(event = "malformed", "{e}"))
                    .ok()?;
                let coded = table.frame_ranges().into_iter();
                Some(FrameMap {
                    coded: coded.map(|r| (r.start, r.end)).collect(),
                    frame_plain: table.frame_plain,
                })
            })
            .await;
        Event::FramesRead {
            ticket,
            frames: read.flatten().map(Arc::new),
        }
    }

    /// Decodes one frame into the pack.
    pub async fn decode(
        self,
        ticket: Ticket,
        carrier: BlobRef,
        index: BlobRef,
        pack: BlobRef,
        frame: u32,
    ) -> Event {
        let decoded = self
            .work(move |shelf| {
                let index = shelf.index(index, pack)?;
                let (carrier, pack) = (shelf.blob(carrier)?, shelf.blob(pack)?);
                let decoded = shelf
                    .table(&carrier, pack.name())
                    .and_then(|table| frames::decode_with(&table, &carrier, &index, &pack, frame));
                Some(match decoded {
                    Ok(()) => FrameOutcome::Decoded,
                    Err(e) if e.is_local() => {
                        tracing::warn!(event = "storage", "frame {frame}: {e}");
                        FrameOutcome::Storage
                    }
                    Err(e) => {
                        tracing::warn!(event = "malformed", "frame {frame}: {e}");
                        FrameOutcome::Wrong
                    }
                })
            })
            .await;
        // What was here when it was asked for and is not now is this machine's loss.
        let outcome = decoded.flatten().unwrap_or(FrameOutcome::Storage);
        Event::FrameDecoded { ticket, outcome }
    }

    /// Takes one step of an installation.
    pub async fn step(
        self,
        ticket: Ticket,
        install_id: Hash,
        release: Box<Verified<ReleaseManifest>>,
        before: Option<Box<Verified<ReleaseManifest>>>,
        warrant: Option<Box<Warrant>>,
        step: Step,
    ) -> Event {
        if let Some(courier) = &self.courier
            && !self.installer.is_agents(&release)
        {
            let outcome = courier.step(&release, before.as_deref(), warrant.as_deref(), step);
            let outcome = outcome.await;
            return Event::StepEnded { ticket, outcome };
        }
        let needed = step == Step::WriteSlot;
        let content = if needed || step == Step::RollBack {
            match self.content(&release).await {
                Ok(content) => Some(content),
                Err(_) if !needed => None,
                Err(reason) => {
                    let outcome = StepOutcome::Failed(Failure {
                        reason,
                        exit_code: None,
                        output_tail: String::new(),
                        class: FailureClass::Machine,
                    });
                    return Event::StepEnded { ticket, outcome };
                }
            }
        } else {
            None
        };
        let outcome = self
            .installer
            .step(install_id, &release, before.as_deref(), content, step)
            .await;
        Event::StepEnded { ticket, outcome }
    }

    /// Waits until nothing reads or writes blobs any more, and takes no further work.
    pub async fn at_rest(&self, patience: std::time::Duration) {
        let all = self.workers.acquire_many(WORKERS as u32);
        let _ = tokio::time::timeout(patience, all).await;
        self.workers.close();
    }

    async fn content(&self, release: &ReleaseManifest) -> Result<Content, String> {
        let (index, pack) = crate::install::blobs_of(release)?;
        self.clone()
            .work(move |shelf| {
                Some(Content {
                    index: shelf.index(index, pack)?,
                    pack: shelf.blob(pack)?,
                })
            })
            .await
            .flatten()
            .ok_or_else(|| "the release's content is not complete on this disk".into())
    }

    fn index(&self, index: BlobRef, pack: BlobRef) -> Option<Arc<CheckedIndex>> {
        kept(&self.indexes, (index, pack), || {
            let blob = self.blob(index).ok_or(ReadError::Missing(index))?;
            read_index(&blob, pack)
        })
        .inspect_err(|e| tracing::warn!(event = "malformed", "index {index} refused: {e}"))
        .ok()
    }

    fn table(&self, carrier: &Blob, pack: BlobRef) -> Result<Arc<FrameTable>, ReadError> {
        kept(&self.tables, (carrier.name(), pack), || {
            frames::read_table(carrier, pack)
        })
    }

    /// Runs `work` on a thread that may block; `None` if it panicked.
    async fn work<T: Send + 'static>(
        self,
        work: impl FnOnce(&Shelf) -> T + Send + 'static,
    ) -> Option<T> {
        let room = self.workers.clone().acquire_owned().await.ok()?;
        let working = tokio::task::spawn_blocking(move || {
            let _room = room;
            work(&self)
        });
        working.await.ok()
    }
}

/// What is kept under a name, or is read now and kept.
fn kept<T>(
    all: &Mutex<Kept<T>>,
    name: (BlobRef, BlobRef),
    read: impl FnOnce() -> Result<T, ReadError>,
) -> Result<Arc<T>, ReadError> {
    let lock = || all.lock().unwrap_or_else(PoisonError::into_inner);
    let found = {
        let mut kept = lock();
        let at = kept.iter().position(|(other, _)| *other == name);
        at.and_then(|at| kept.remove(at))
    };
    // Not under the lock: others may be reading something else.
    let one = match found {
        Some((_, one)) => one,
        None => Arc::new(read()?),
    };
    let mut kept = lock();
    kept.retain(|(other, _)| *other != name);
    while kept.len() >= KEPT_MAX {
        kept.pop_front();
    }
    kept.push_back((name, one.clone()));
    Ok(one)
}
