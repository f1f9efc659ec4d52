//! Releases without bytes: index, frame table and names are well-formed, the content is a length.

use std::sync::Arc;

use anyhow::Result;
use node_core::contract::{FrameMap, Grain};
use protocol::carrier::{Coding, FrameTable};
use protocol::index::{CheckedIndex, Chunk, Entry, EntryKind, Index};
use protocol::limits::{CHUNK_AVG_BYTES, GROUP_LOG2};
use protocol::manifest::{
    Artifact, Carrier, CarrierKind, HealthCheck, Install, ReleaseManifest, Severity,
};
use protocol::pieces::Geometry;
use protocol::trust::Statement;
use protocol::versioned::Versioned;
use protocol::{BlobRef, FleetId, Hash, Span};

use crate::fleet::{BEGINNING, EXPIRES};
use crate::scenario::{GrainSpec, ReleaseSpec};

/// A release as the world keeps it.
pub struct Content {
    /// As signed.
    pub manifest: ReleaseManifest,
    /// Its name.
    pub digest: Hash,
    /// The index blob.
    pub index: BlobRef,
    /// The pack blob.
    pub pack: BlobRef,
    /// The carrier blob.
    pub carrier: BlobRef,
    /// What the index says.
    pub checked: Arc<CheckedIndex>,
    /// Where the carrier's frames lie.
    pub frames: Arc<FrameMap>,
    /// How its blobs are cut.
    pub grain: Grain,
}

impl Content {
    /// Makes release number `number` up.
    ///
    /// # Errors
    /// When a name is malformed or the index breaks its own rules.
    pub fn make(
        fleet: FleetId,
        number: usize,
        spec: &ReleaseSpec,
        grain: &GrainSpec,
    ) -> Result<Content> {
        let name = |what: &str, length| BlobRef {
            root: Hash::of(format!("{what} of simulated release {number}").as_bytes()),
            length,
        };
        let pack = name("pack", spec.pack_mib << 20);
        let table = frame_table(pack.length, spec.carrier_mib << 20, grain.frame_plain());
        let ranges = table.frame_ranges();
        let carrier_length = ranges.last().map_or(table.head_bytes(), |r| r.end);
        let carrier = name("carrier", carrier_length);
        let index = make_index(pack, number);
        let index_blob = BlobRef::of(&index.to_bytes());
        let manifest = ReleaseManifest {
            spec_version: 1,
            fleet,
            product: spec.product.parse()?,
            version: spec.version.parse()?,
            release_counter: number as u64 + 1,
            vendor_severity: Severity::Moderate,
            applicability: None,
            artifacts: vec![Artifact {
                os: "any".into(),
                arch: "any".into(),
                index: index_blob,
                pack,
                carriers: vec![Carrier {
                    kind: CarrierKind::Full,
                    blob: carrier,
                }],
                group_log2: GROUP_LOG2,
                disk_bytes: pack.length,
            }],
            install: Install::Tree,
            hooks: Default::default(),
            restart: Default::default(),
            relations: Default::default(),
            health_check: Some(HealthCheck {
                argv: vec!["./healthy".into()],
                soak: Span::from_secs(spec.health_soak_s),
                attempts: 1,
                timeout: Span::from_secs(10),
            }),
            created: BEGINNING,
            expires: EXPIRES,
        };
        Ok(Content {
            digest: manifest.to_envelope().digest(),
            manifest,
            index: index_blob,
            pack,
            carrier,
            checked: Arc::new(index.check()?),
            frames: Arc::new(FrameMap {
                coded: ranges.iter().map(|r| (r.start, r.end)).collect(),
                frame_plain: table.frame_plain,
            }),
            grain: grain.grain(),
        })
    }

    /// All its blobs.
    pub fn blobs(&self) -> [BlobRef; 3] {
        [self.index, self.pack, self.carrier]
    }

    /// Pieces of the pack that lie whole or in part in a frame.
    pub fn pieces_of_frame(&self, frame: u32) -> core::ops::Range<u32> {
        let start = u64::from(frame) * self.frames.frame_plain;
        let end = (start + self.frames.frame_plain).min(self.pack.length);
        self.grain.cut(self.pack.length).pieces_of_bytes(start..end)
    }

    /// Pieces of the carrier that a frame's coded bytes touch.
    pub fn carrier_pieces_of_frame(&self, frame: u32) -> core::ops::Range<u32> {
        let Some((start, end)) = self.frames.coded.get(frame as usize) else {
            return 0..0;
        };
        self.grain
            .cut(self.carrier.length)
            .pieces_of_bytes(*start..*end)
    }
}

fn frame_table(plain: u64, coded: u64, frame_plain: u64) -> FrameTable {
    let frames = plain.div_ceil(frame_plain);
    let each = (coded / frames.max(1)).clamp(1, frame_plain);
    FrameTable {
        coding: Coding::Zstd,
        frame_plain,
        plain,
        coded: vec![each as u32; frames as usize],
    }
}

fn make_index(pack: BlobRef, number: usize) -> Index {
    let count = pack.length.div_ceil(u64::from(CHUNK_AVG_BYTES));
    let chunk = |n: u64| Chunk {
        hash: Hash::of(format!("chunk {n} of simulated release {number}").as_bytes()),
        length: (pack.length - n * u64::from(CHUNK_AVG_BYTES)).min(u64::from(CHUNK_AVG_BYTES))
            as u32,
    };
    let kind = EntryKind::File {
        mode: 0o755,
        length: pack.length,
        chunks: (0..count as u32).collect(),
    };
    Index {
        pack,
        chunks: (0..count).map(chunk).collect(),
        entries: vec![Entry {
            path: "app".into(),
            kind,
        }],
        piece_cvs: vec![Hash([0; 32]); Geometry::of(pack.length).pieces() as usize],
    }
}
