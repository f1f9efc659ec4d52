//! One blob: what is here, what is wanted of it, and what the site knows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use litemap::LiteMap;
use protocol::pieces::{Geometry, PieceSet};
use protocol::wire::Class;
use protocol::{BlobRef, NodeId, Time};

use super::desk::Desk;
use super::flights::Flight;
use super::holders::Holders;
use super::news::News;
use super::owners::Owners;
use super::site::Circle;
use super::standing::Standing;
use super::turns::Turns;
use crate::contract::{Action, FetchReason, Ticket};

/// Whether the blob's files can be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Files {
    /// Asked for.
    Opening(Ticket),
    /// Open.
    Open,
    /// Could not be opened; asked for again then.
    Failed(Time),
}

/// What the releases need of a blob now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Need {
    /// Pieces to have, those that are here included.
    pub pieces: PieceSet,
    /// They may come over the WAN.
    pub wan: bool,
    /// The choice is made: what is not in it is not going to be wanted soon.
    pub settled: bool,
    /// Neighbours shall tell of every new piece; else what they have is asked for now and then.
    pub follow: bool,
    pub class: Class,
}

impl Need {
    /// Two releases need the same blob.
    pub fn join(&mut self, other: Need) {
        self.pieces.union(&other.pieces);
        self.wan |= other.wan;
        self.settled &= other.settled;
        self.follow |= other.follow;
        self.class = self.class.max(other.class);
    }
}

/// What I told a peer of my interest in a blob.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    pub at: Time,
    /// How often.
    pub times: u32,
    /// It shall tell me of every new piece.
    pub follow: bool,
}

/// One blob in this node's view.
pub(super) struct Blob {
    pub name: BlobRef,
    pub cut: Geometry,
    pub files: Files,
    pub have: PieceSet,
    /// Pieces of which some groups are here, and nothing is under way.
    pub begun: BTreeSet<u32>,
    /// Pieces of which a fetch is under way and counted on.
    pub flying: PieceSet,
    /// Pieces wanted and not here.
    pub lack: PieceSet,
    /// `None`: nothing is wanted of it (any more).
    pub need: Option<Need>,
    pub holders: Holders,
    pub owners: Owners,
    /// Who is told of new pieces.
    pub interested: BTreeSet<NodeId>,
    /// Whom I told of my interest.
    pub asked: LiteMap<NodeId, Asked>,
    /// To whom I turn; `None` when the members changed.
    pub near: Option<Circle>,
    /// From then on I may judge what my neighbours have.
    pub met_at: Option<Time>,
    pub met: bool,
    pub turns: Turns,
    /// How long a piece takes inside the site, milliseconds, lately.
    pub lan_ms: u64,
    /// Pieces won that not everybody has heard of, and when I last told of some.
    pub news: News,
    pub told_at: Time,
    /// When I last gossiped a claim, and who else should hear my claims.
    pub gossiped_at: Time,
    pub announced: bool,
    pub remind: BTreeSet<NodeId>,
    pub reminded_at: Time,
    /// Pieces that I brought over the WAN lately, and when.
    pub brought: VecDeque<(Time, u32)>,
    /// Whether that is of use to anybody.
    pub standing: Standing,
    /// Fetchers that still have something to bring: they share the cap.
    pub sharers: usize,
    /// Pieces that I own and told the others not to expect of me.
    pub declined: PieceSet,
    /// There may be more to tell of that kind.
    pub decline_due: bool,
    /// To whom the origin referred in vain, for pieces that are still to come.
    pub spurned: BTreeMap<u32, Vec<NodeId>>,
    /// Pieces that came wrong.
    pub tainted: BTreeSet<u32>,
    pub bytes: BTreeMap<FetchReason, u64>,
    /// Writing failed: nothing is fetched until then.
    pub paused_until: Time,
    pub storage_fails: u32,
}

impl Blob {
    pub fn open(desk: &mut Desk, name: BlobRef) -> Blob {
        let cut = desk.grain.cut(name.length);
        let pieces = cut.pieces();
        let ticket = desk.ticket();
        desk.act(Action::OpenBlob { ticket, blob: name });
        Blob {
            name,
            cut,
            files: Files::Opening(ticket),
            have: PieceSet::empty(pieces),
            begun: BTreeSet::new(),
            flying: PieceSet::empty(pieces),
            lack: PieceSet::empty(pieces),
            need: None,
            holders: Holders::new(pieces),
            owners: Owners::new(name.root, pieces),
            interested: BTreeSet::new(),
            asked: LiteMap::new(),
            near: None,
            met_at: None,
            met: false,
            lan_ms: 0,
            turns: Turns::default(),
            news: News::default(),
            told_at: Time(0),
            gossiped_at: Time(0),
            announced: false,
            remind: BTreeSet::new(),
            reminded_at: Time(0),
            brought: VecDeque::new(),
            standing: Standing::default(),
            sharers: 1,
            declined: PieceSet::empty(pieces),
            decline_due: true,
            spurned: BTreeMap::new(),
            tainted: BTreeSet::new(),
            bytes: BTreeMap::new(),
            paused_until: Time(0),
            storage_fails: 0,
        }
    }

    pub fn is_open(&self) -> bool {
        self.files == Files::Open
    }

    pub fn is_complete(&self) -> bool {
        self.is_open() && self.have.is_full()
    }

    pub fn class(&self) -> Class {
        self.need
            .as_ref()
            .map_or(Class::Background, |need| need.class)
    }

    pub fn wants(&self, piece: u32) -> bool {
        self.lack.contains(piece)
    }

    /// Whether any way to more of this blob is of interest to this node, also one that its present
    /// choice does not take.
    pub fn is_active(&self) -> bool {
        self.is_open() && self.need.is_some() && !self.have.is_full()
    }

    /// Bytes of these pieces that are not here.
    pub fn missing_bytes(&self, pieces: impl Iterator<Item = u32>) -> u64 {
        pieces
            .filter(|piece| !self.have.contains(*piece))
            .map(|piece| self.piece_bytes(piece))
            .sum()
    }

    pub fn piece_bytes(&self, piece: u32) -> u64 {
        let range = self.cut.piece_range(piece);
        range.end - range.start
    }

    /// `piece` is on disk now, whatever way it came. Others are told at the next beat.
    pub fn gain(&mut self, desk: &mut Desk, piece: u32) {
        if !self.have.insert(piece) {
            return;
        }
        self.lack.remove(piece);
        self.begun.remove(&piece);
        self.news.add(piece);
        self.owners.let_go(piece);
        self.owners.arrived(piece);
        self.tainted.remove(&piece);
        self.spurned.remove(&piece);
        if self.flying.remove(piece) {
            let name = self.name;
            desk.cancel(|flight: &Flight| flight.blob == name && flight.piece == piece);
        }
        self.turns.tell.due = true;
        self.turns.wan.due = true;
        desk.content_changed = true;
        if self.have.is_full() {
            self.forget_who_brings();
        }
    }

    /// Nothing is to come any more: whom this node turned to, and who brings what, takes much room at
    /// every node that holds the blob for weeks.
    fn forget_who_brings(&mut self) {
        self.owners = Owners::new(self.name.root, 0);
        self.asked = LiteMap::new();
        self.near = None;
        self.remind.clear();
        self.spurned.clear();
        self.tainted.clear();
    }

    /// A fetch of `piece` ended before its end. What came of it is kept.
    pub fn begin(&mut self, piece: u32) {
        if !self.have.contains(piece) {
            self.begun.insert(piece);
            self.turns.wan.due = true;
        }
    }

    /// A fetch of `piece` is not counted on any more; another one may be.
    pub fn lands(&mut self, desk: &Desk, piece: u32) {
        if !desk.flights.live(self.name).any(|(_, f)| f.piece == piece) {
            self.flying.remove(piece);
        }
    }

    /// Cancels fetches of this blob.
    pub fn cancel(&mut self, desk: &mut Desk, which: impl Fn(&Flight) -> bool) {
        let name = self.name;
        desk.cancel(|flight| flight.blob == name && which(flight));
        self.count_flying(desk);
    }

    /// Looks at every fetch anew.
    pub fn count_flying(&mut self, desk: &Desk) {
        self.flying = PieceSet::empty(self.have.len());
        for (_, flight) in desk.flights.live(self.name) {
            self.flying.insert(flight.piece);
        }
    }

    /// What is wanted and not here, after the wish or the disk changed.
    pub fn count_lack(&mut self) {
        self.lack = match &self.need {
            Some(need) => need.pieces.clone(),
            None => PieceSet::empty(self.have.len()),
        };
        self.lack.subtract(&self.have);
    }

    /// Takes what the releases need now. Claims and fetches over the WAN for what is not needed any
    /// more end; what is on its way inside the site may come.
    pub fn take_need(&mut self, desk: &mut Desk, need: Option<Need>) {
        if self.need == need {
            return;
        }
        let after = need.as_ref();
        let wanted = |piece: u32| after.is_some_and(|need| need.pieces.contains(piece));
        let ended: Vec<u32> = self
            .owners
            .mine()
            .keys()
            .copied()
            .filter(|piece| !wanted(*piece))
            .collect();
        for piece in ended {
            self.owners.let_go(piece);
        }
        let all = after.is_none();
        self.cancel(desk, |flight| all || flight.wan && !wanted(flight.piece));
        if all {
            self.announced = false;
            self.met_at = None;
            self.met = false;
            self.asked = LiteMap::new();
        }
        self.need = need;
        self.decline_due = true;
        self.count_lack();
        self.turns.all();
        if all {
            self.turns.rest();
        }
    }
}
