//! Which failures are tried again, how often and when: one table.
//!
//! | class | attempts | first pause | longest pause |
//! |---|---|---|---|
//! | `release` | 1 | | |
//! | `machine` | 3 | 5 s | 1 min |
//! | `disk_full` | 6 | 1 min | 30 min |
//! | `download` | the swarm's own: for ever | | |
//! | `pre_hook` | 3 | 1 min | 30 min |
//! | `installer_busy` | 12 | 15 s | 5 min |
//! | `installer`, `post_hook`, `timeout`, `health` | 1 | | |
//! | `restart` | 3 | 1 min | 10 min |
//! | `interrupted` | 3 | 5 s | 1 min |
//!
//! A pause doubles with each failure of its class in a row. What has one attempt, and what has none left,
//! is taken back. All classes together have [`INSTALL_ATTEMPTS_MAX`] attempts. Attempts and the time of the
//! next one are journalled, so that a crash neither forgets nor hurries them.

use protocol::limits::INSTALL_ATTEMPTS_MAX;
use protocol::status::State;
use protocol::{Span, Time};

use crate::contract::{Boundary, Failure, FailureClass};
use crate::task::{Rooms, Task};

use super::{Awaits, Install};

/// Tries of the way back that failed for another reason than a class that has more of them.
const WAY_BACK_TRIES: Retries = Retries::new(3, 10, 60);

/// Who is due while another installation is under way looks again after this.
const LOOK_AGAIN: Span = Span::from_secs(5);

/// How often, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Retries {
    attempts: u32,
    first: Span,
    most: Span,
}

impl Retries {
    const fn new(attempts: u32, first_s: u64, most_s: u64) -> Retries {
        Retries {
            attempts,
            first: Span::from_secs(first_s),
            most: Span::from_secs(most_s),
        }
    }

    const fn of(class: FailureClass) -> Retries {
        use FailureClass as C;
        match class {
            C::Machine | C::Interrupted => Retries::new(3, 5, 60),
            C::DiskFull => Retries::new(6, 60, 1800),
            C::PreHook => Retries::new(3, 60, 1800),
            C::InstallerBusy => Retries::new(12, 15, 300),
            C::Restart => Retries::new(3, 60, 600),
            // The swarm tries by itself, and never gives up.
            C::Download => Retries::new(1, 0, 0),
            C::Release | C::Installer | C::PostHook | C::Timeout | C::Health => {
                Retries::new(1, 0, 0)
            }
        }
    }

    fn pause(self, failures: u32) -> Option<Span> {
        let doubled = self.first.0 << failures.saturating_sub(1).min(16);
        (failures < self.attempts).then(|| Span(doubled.min(self.most.0)))
    }
}

/// The pause after so many failures of a class in a row, if another attempt is due.
pub(super) fn pause(class: FailureClass, failures: u32) -> Option<Span> {
    Retries::of(class).pause(failures)
}

/// The same on the way back, which is tried again whatever failed.
pub(super) fn pause_of_the_way_back(class: FailureClass, failures: u32) -> Option<Span> {
    pause(class, failures).or_else(|| WAY_BACK_TRIES.pause(failures))
}

impl Install {
    /// Another attempt from `from` on, after the pause that the failure's class has, or the way back.
    pub(super) fn retry(
        mut self,
        failure: Failure,
        from: Boundary,
        task: &Task,
        rooms: &mut Rooms<'_>,
    ) -> Install {
        let class = failure.class;
        let last = self.journal.more.failed.filter(|(held, _)| *held == class);
        let failures = last.map_or(0, |(_, failures)| failures) + 1;
        let pause = pause(class, failures);
        if !from.is_switched() {
            self.journal.switched_at = None;
        }
        let Some(pause) = pause.filter(|_| self.journal.attempt < INSTALL_ATTEMPTS_MAX) else {
            return self.go_back(failure, task, rooms);
        };
        let at = rooms.now.wall + pause;
        self.journal.attempt += 1;
        self.journal.more.failed = Some((class, failures));
        self.journal.more.retry_at = Some(at);
        let attempt = self.journal.attempt;
        let install = self.journalled(from, rooms);
        let why = format!(
            "attempt {attempt} comes in {} s, at {}, after {}",
            pause.0.div_ceil(1000),
            rooms.offers.machine().clock().tells(at),
            failure.line()
        );
        let state = match from {
            Boundary::PostHooked => State::PendingRestart,
            _ => State::Installing,
        };
        task.say_with(state, &why, attempt, Some(&failure), rooms);
        install.with(Awaits::NextAttempt(Time(rooms.now.boot.0 + pause.0)))
    }

    /// The time of the next attempt has come.
    pub(super) fn due(mut self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        if rooms.busy && self.pauses() {
            let again = rooms.now.boot + LOOK_AGAIN;
            return self.with(Awaits::NextAttempt(again));
        }
        self.journal.more.retry_at = None;
        self.next_attempt(task, rooms)
    }

    /// Goes on from the journal's boundary, or waits for the time of the next attempt.
    pub(super) fn next_attempt(mut self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        if let Some(at) = self.journal.more.retry_at.take()
            && at > rooms.now.wall
        {
            // A wall clock that was set back must not make it sleep for ever.
            let class = self.journal.more.failed.map(|(class, _)| class);
            let longest = class.map_or(Span::ZERO, |class| Retries::of(class).most);
            let pause = at.since(rooms.now.wall).min(longest);
            return self.with(Awaits::NextAttempt(Time(rooms.now.boot.0 + pause.0)));
        }
        match self.journal.at {
            Boundary::StagedVerified => self.write_slot(task, rooms),
            Boundary::SlotWritten | Boundary::PreHooked => self.with(Awaits::Leave),
            Boundary::Switched => self.after_switch(task, rooms),
            _ => self.take_up(task, rooms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(class: FailureClass) -> Vec<u64> {
        let pauses = (1..).map_while(|failures| pause(class, failures));
        pauses.map(|pause| pause.0 / 1000).collect()
    }

    #[test]
    fn each_class_has_its_attempts_and_pauses() {
        use FailureClass as C;
        assert_eq!(pauses(C::Machine), [5, 10]);
        assert_eq!(pauses(C::Interrupted), [5, 10]);
        assert_eq!(pauses(C::DiskFull), [60, 120, 240, 480, 960]);
        assert_eq!(pauses(C::PreHook), [60, 120]);
        let busy = [15, 30, 60, 120, 240, 300, 300, 300, 300, 300, 300];
        assert_eq!(pauses(C::InstallerBusy), busy);
        assert_eq!(pauses(C::Restart), [60, 120]);
        let never = [C::Release, C::Installer, C::PostHook, C::Timeout, C::Health];
        for class in never.into_iter().chain([C::Download]) {
            assert_eq!(pauses(class), [0; 0], "{class:?}");
        }
    }

    #[test]
    fn the_way_back_is_tried_again_whatever_failed() {
        for class in FailureClass::ALL {
            let tries = (1..).map_while(|n| pause_of_the_way_back(class, n)).count();
            assert!((2..12).contains(&tries), "{class:?}: {tries}");
        }
    }

    #[test]
    fn no_class_has_more_attempts_than_all_together() {
        for class in FailureClass::ALL {
            let row = Retries::of(class);
            assert!((1..=INSTALL_ATTEMPTS_MAX).contains(&row.attempts));
            assert!(row.first <= row.most, "{class:?}");
        }
    }
}
