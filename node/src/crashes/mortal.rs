//! A disk that dies, and loses what was not flushed.
//!
//! Changes are carried out by [`System`] until the one at which the process is to die; from then on
//! every change fails. Nothing is really flushed: what each change replaced is kept until the flush
//! that would make it durable, and a power cut takes back what has none.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::disk::{Change, Io, Place, System};

/// How it dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Death {
    /// `kill -9` before the change.
    Killed,
    /// `kill -9` in the middle of a write or of the removal of a tree.
    Torn,
    /// A power cut before the change; this is lost of what was not flushed.
    PowerCut(Lost),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lost {
    Everything,
    /// Names stay, files are empty or old.
    Bytes,
    /// Bytes stay where the old names lead.
    Names,
    /// Some writes and not others, whatever their order.
    SomeWrites,
}

/// The disk of a process that dies at a change.
#[derive(Debug)]
pub(crate) struct Mortal {
    how: Death,
    dies_at: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    done: u64,
    dead: bool,
    /// Writes that were not flushed, by file.
    bytes: BTreeMap<Inode, Vec<Written>>,
    /// Changes of names that were not flushed, with the directory whose flush makes them durable.
    names: Vec<(Inode, Undo)>,
    /// Where removed things lie until their removal is durable.
    graveyard: PathBuf,
    graves: u64,
}

type Inode = (u64, u64);

/// One write, and what stood there before.
#[derive(Debug)]
struct Written {
    file: File,
    offset: u64,
    old: Vec<u8>,
    new: Vec<u8>,
    old_length: u64,
}

#[derive(Debug)]
enum Undo {
    Remove(PathBuf),
    Rename { from: PathBuf, to: PathBuf },
    Exchange(PathBuf, PathBuf),
}

impl Mortal {
    /// Dies at change `dies_at`, counted from 0; never for `u64::MAX`.
    pub(crate) fn new(graveyard: PathBuf, dies_at: u64, how: Death) -> Mortal {
        std::fs::create_dir_all(&graveyard).expect("a graveyard");
        let state = State {
            done: 0,
            dead: false,
            bytes: BTreeMap::new(),
            names: Vec::new(),
            graveyard,
            graves: 0,
        };
        Mortal {
            how,
            dies_at,
            state: Mutex::new(state),
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state.lock().unwrap().dead
    }

    /// Changes that were carried out.
    pub(crate) fn done(&self) -> u64 {
        self.state.lock().unwrap().done
    }

    /// Takes back what a power cut loses. The process is gone.
    pub(crate) fn forget(&self) {
        let Death::PowerCut(lost) = self.how else {
            return;
        };
        let mut state = self.state.lock().unwrap();
        assert!(state.dead);
        // Names first: a file that is gone with its name may be lost by its bytes as well.
        let names = std::mem::take(&mut state.names);
        if matches!(lost, Lost::Everything | Lost::Names) {
            for (_, undo) in names.into_iter().rev() {
                undo.carry_out();
            }
        }
        let bytes = std::mem::take(&mut state.bytes);
        if lost != Lost::Names {
            for written in bytes.into_values() {
                lose(&written, lost, self.dies_at);
            }
        }
    }

    /// Counts a change; an error if it is the one at which it dies, or it is dead.
    fn live(&self, state: &mut State) -> io::Result<()> {
        state.dead |= state.done >= self.dies_at;
        if state.dead {
            return Err(io::Error::other("the process has died"));
        }
        state.done += 1;
        Ok(())
    }
}

/// Undoes writes of one file, all of them or those that chance takes.
fn lose(written: &[Written], lost: Lost, seed: u64) {
    for write in written.iter().rev() {
        write.file.write_all_at(&write.old, write.offset).unwrap();
        let length = write.file.metadata().unwrap().len();
        if lost != Lost::SomeWrites && write.old_length < length {
            write.file.set_len(write.old_length).unwrap();
        }
    }
    if lost == Lost::SomeWrites {
        for (number, write) in written.iter().enumerate() {
            let draw = blake3::hash(&[seed.to_le_bytes(), (number as u64).to_le_bytes()].concat());
            if draw.as_bytes()[0].is_multiple_of(2) {
                write.file.write_all_at(&write.new, write.offset).unwrap();
            }
        }
    }
}

impl Undo {
    fn carry_out(self) {
        // What it would change may be gone with a directory that was lost before it.
        match self {
            Undo::Remove(path) => drop(crate::content::tree::remove(&path)),
            Undo::Rename { from, to } => drop(std::fs::rename(from, to)),
            Undo::Exchange(one, other) => {
                let (one, other) = (one.as_path(), other.as_path());
                drop(System.change(Change::Exchange { one, other }));
            }
        }
    }
}

impl State {
    /// Bytes of this range are about to be replaced, or cut off.
    fn remember_write(&mut self, file: &File, range: Range<u64>, new: Vec<u8>) {
        let metadata = file.metadata().unwrap();
        let file = reopened(file);
        let there = metadata.len().clamp(range.start, range.end) - range.start;
        let mut old = vec![0; there as usize];
        file.read_exact_at(&mut old, range.start).unwrap();
        let write = Written {
            file,
            offset: range.start,
            old,
            new,
            old_length: metadata.len(),
        };
        let inode = (metadata.dev(), metadata.ino());
        self.bytes.entry(inode).or_default().push(write);
    }

    fn remember_name(&mut self, path: &Path, undo: Undo) {
        let directory = std::fs::metadata(path.parent().unwrap()).unwrap();
        self.names.push(((directory.dev(), directory.ino()), undo));
    }

    fn grave(&mut self) -> PathBuf {
        self.graves += 1;
        self.graveyard.join(self.graves.to_string())
    }

    /// What stands at `path` is about to be replaced or removed.
    fn bury(&mut self, path: &Path) {
        let grave = self.grave();
        if std::fs::hard_link(path, &grave).is_ok() {
            let to = path.to_owned();
            self.remember_name(path, Undo::Rename { from: grave, to });
        }
    }

    fn flushed(&mut self, of: BorrowedFd<'_>) {
        let stat = rustix::fs::fstat(of).unwrap();
        let inode = (stat.st_dev, stat.st_ino);
        self.bytes.remove(&inode);
        self.names.retain(|(directory, _)| *directory != inode);
    }
}

/// The same file, opened once more for reading and writing.
fn reopened(file: &File) -> File {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::options().read(true).write(true).open(path).unwrap()
}

fn path_of(place: Place<'_>) -> PathBuf {
    if place.name.is_absolute() {
        return place.name.to_owned();
    }
    let at = format!("/proc/self/fd/{}", place.at.as_raw_fd());
    std::fs::read_link(at).unwrap().join(place.name)
}

fn joined(runs: &[IoSlice<'_>]) -> Vec<u8> {
    let mut all = Vec::with_capacity(runs.iter().map(|run| run.len()).sum());
    runs.iter().for_each(|run| all.extend_from_slice(run));
    all
}

/// Half of it.
fn tear(change: Change<'_>) {
    match change {
        Change::Write {
            file,
            bytes,
            offset,
        } => {
            let all = joined(bytes);
            file.write_all_at(&all[..all.len() / 2], offset).unwrap();
        }
        Change::RemoveTree(path) => {
            for entry in std::fs::read_dir(path).into_iter().flatten().step_by(2) {
                crate::content::tree::remove(&entry.unwrap().path()).unwrap();
            }
        }
        _ => {}
    }
}

impl Io for Mortal {
    fn change(&self, change: Change<'_>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let was_dead = state.dead;
        if let Err(dead) = self.live(&mut state) {
            if self.how == Death::Torn && !was_dead {
                tear(change);
            }
            return Err(dead);
        }
        match &change {
            Change::Write {
                file,
                bytes,
                offset,
            } => {
                let new = joined(bytes);
                let end = *offset + new.len() as u64;
                state.remember_write(file, *offset..end, new);
            }
            Change::SetLength { file, length } => {
                let cut = *length..file.metadata()?.len().max(*length);
                state.remember_write(file, cut, Vec::new());
            }
            Change::Sync(of) => {
                state.flushed(*of);
                return Ok(());
            }
            Change::SyncData(file) => {
                state.flushed(file.as_fd());
                return Ok(());
            }
            Change::SyncAll(_) => {
                state.bytes.clear();
                state.names.clear();
                return Ok(());
            }
            Change::Rename { to, .. } => state.bury(to),
            Change::Remove(path) => state.bury(path),
            Change::RemoveTree(path) => {
                let grave = state.grave();
                std::fs::rename(path, &grave)?;
                let to = path.to_path_buf();
                state.remember_name(path, Undo::Rename { from: grave, to });
                return Ok(());
            }
            _ => {}
        }
        let undone = match &change {
            Change::MakeDirectory { place, .. } | Change::MakeLink { place, .. } => {
                let path = path_of(*place);
                Some((path.clone(), Undo::Remove(path)))
            }
            Change::Rename { from, to } => {
                let (from, to) = (to.to_path_buf(), from.to_path_buf());
                Some((from.clone(), Undo::Rename { from, to }))
            }
            Change::Exchange { one, other } => {
                let (one, other) = (one.to_path_buf(), other.to_path_buf());
                Some((other.clone(), Undo::Exchange(one, other)))
            }
            _ => None,
        };
        System.change(change)?;
        if let Some((path, undo)) = undone {
            state.remember_name(&path, undo);
        }
        Ok(())
    }

    fn make_file(&self, place: Place<'_>, mode: u32) -> io::Result<File> {
        let mut state = self.state.lock().unwrap();
        self.live(&mut state)?;
        let file = System.make_file(place, mode)?;
        let path = path_of(place);
        state.remember_name(&path.clone(), Undo::Remove(path));
        Ok(file)
    }
}
