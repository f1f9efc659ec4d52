//! Who may write next under a cap: tasks wait here, and `node_core::turns` says whose turn it is.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use node_core::turns::{CLASSES, Turns};
use protocol::wire::Class;
use tokio::sync::oneshot;

/// One turn at a time.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    taken: bool,
    turns: Turns,
    waiting: [VecDeque<oneshot::Sender<Turn>>; CLASSES.len()],
}

/// The turn; the next begins when it is dropped.
#[derive(Debug)]
pub(super) struct Turn(Arc<Queue>);

impl Queue {
    /// Waits for a turn; within a class first come, first served.
    pub(super) async fn turn(self: &Arc<Self>, class: Class) -> Turn {
        let waits = {
            let mut state = self.state();
            if !state.taken {
                state.taken = true;
                None
            } else {
                let (sender, receiver) = oneshot::channel();
                state.waiting[class as usize].push_back(sender);
                Some(receiver)
            }
        };
        match waits {
            None => Turn(self.clone()),
            // The queue lives as long as the turn that is out, and that one passes it on.
            Some(waits) => waits.await.expect("a turn is passed on"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic under this lock")
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = self.0.state();
            // Who gave up waiting is not asked.
            for waiting in &mut state.waiting {
                waiting.retain(|sender| !sender.is_closed());
            }
            let waits = [0, 1, 2].map(|n: usize| !state.waiting[n].is_empty());
            let next = state.turns.next(waits);
            let next = next.and_then(|class| state.waiting[class as usize].pop_front());
            state.taken = next.is_some();
            next
        };
        if let Some(next) = next {
            // If it gave up just now, the turn that comes back is dropped and goes to the one after it.
            drop(next.send(Turn(self.0.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_more_urgent_goes_first_and_who_gave_up_is_skipped() {
        let queue = Arc::new(Queue::default());
        let first = queue.turn(Class::Background).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let waits = |class: Class| {
            let (queue, order) = (queue.clone(), order.clone());
            tokio::spawn(async move {
                let _turn = queue.turn(class).await;
                order.lock().unwrap().push(class);
            })
        };
        let mut tasks = Vec::new();
        for class in [
            Class::Background,
            Class::Normal,
            Class::Emergency,
            Class::Emergency,
        ] {
            tasks.push(waits(class));
            while queue.state().waiting[class as usize].is_empty() {
                tokio::task::yield_now().await;
            }
        }
        tokio::task::yield_now().await;
        tasks[2].abort();
        assert!((&mut tasks[2]).await.unwrap_err().is_cancelled());
        drop(first);
        tasks.remove(2);
        for task in tasks {
            task.await.unwrap();
        }
        use Class::{Background, Emergency, Normal};
        assert_eq!(*order.lock().unwrap(), [Emergency, Normal, Background]);
        // and it is free again
        drop(queue.turn(Background).await);
    }
}
