//! When the rooms of a blob have their turn.
//!
//! An event touches little: whoever takes it in marks the rooms whose conclusions may change, and
//! a room that waits for a time says so. The others are left alone.

use protocol::Time;

/// The next turn of one room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Turn {
    /// Something changed that it looks at.
    pub due: bool,
    /// It wants its turn then, whatever happens.
    pub wake: Option<Time>,
}

impl Turn {
    /// Whether it is its turn.
    pub fn has_come(&self, now: Time) -> bool {
        self.due || self.wake.is_some_and(|wake| wake <= now)
    }
}

/// The rooms of one blob.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Turns {
    /// Opening the files.
    pub open: Turn,
    /// Meeting the neighbours.
    pub introduce: Turn,
    /// Taking pieces inside the site.
    pub lan: Turn,
    /// Bringing pieces into the site.
    pub wan: Turn,
    /// Telling what was won.
    pub tell: Turn,
}

impl Turns {
    /// Everything is looked at anew.
    pub fn all(&mut self) {
        let Turns {
            open,
            introduce,
            lan,
            wan,
            tell,
        } = self;
        for turn in [open, introduce, lan, wan, tell] {
            turn.due = true;
        }
    }

    /// Nothing is wanted: what is here is served, and that is all.
    pub fn rest(&mut self) {
        (self.introduce, self.lan, self.wan) = (Turn::default(), Turn::default(), Turn::default());
    }

    /// Whether it is the turn of any.
    pub fn is_due(&self, now: Time) -> bool {
        [self.open, self.introduce, self.lan, self.wan, self.tell]
            .iter()
            .any(|turn| turn.has_come(now))
    }

    /// The earliest wake.
    pub fn wake(&self) -> Option<Time> {
        [self.open, self.introduce, self.lan, self.wan, self.tell]
            .into_iter()
            .filter_map(|turn| turn.wake)
            .min()
    }
}
