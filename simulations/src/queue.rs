//! The queue of what will happen: by time, then in the order in which it was put in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use protocol::Time;

/// What will happen, soonest first.
pub struct Queue<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    count: u64,
}

struct Entry<T> {
    at: Time,
    number: u64,
    what: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl<T> Eq for Entry<T> {}
impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue {
            heap: BinaryHeap::new(),
            count: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Puts something in.
    pub fn push(&mut self, at: Time, what: T) {
        self.count += 1;
        let number = self.count;
        self.heap.push(Reverse(Entry { at, number, what }));
    }

    /// When the next thing happens.
    pub fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// Takes the next thing out, if it happens by then.
    pub fn pop_until(&mut self, until: Time) -> Option<T> {
        self.next_at().filter(|at| *at <= until)?;
        self.heap.pop().map(|Reverse(entry)| entry.what)
    }

    /// What waits.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_come_by_time_and_then_as_they_were_put_in() {
        let mut queue = Queue::default();
        for (at, what) in [(5, 'c'), (3, 'a'), (5, 'd'), (3, 'b')] {
            queue.push(Time(at), what);
        }
        assert_eq!(queue.next_at(), Some(Time(3)));
        let out: String = std::iter::from_fn(|| queue.pop_until(Time(5))).collect();
        assert_eq!(out, "abcd");
        queue.push(Time(9), 'e');
        assert_eq!(queue.pop_until(Time(8)), None);
        assert_eq!(queue.len(), 1);
    }
}
