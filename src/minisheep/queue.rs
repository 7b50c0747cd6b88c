//! The bounded queue between the connections and the pool of workers.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Jobs that wait for a worker. When it is full, connections stop reading.
#[derive(Debug)]
pub struct Queue<T> {
    jobs: Mutex<VecDeque<T>>,
    len_max: usize,
    filled: Condvar,
    drained: Condvar,
}

impl<T> Queue<T> {
    /// A queue of at most `len_max` jobs.
    #[must_use]
    pub fn new(len_max: usize) -> Self {
        let jobs = Mutex::new(VecDeque::with_capacity(len_max));
        Self { jobs, len_max, filled: Condvar::new(), drained: Condvar::new() }
    }

    /// Puts a job in; waits while the queue is full.
    pub fn push(&self, job: T) {
        let mut jobs = self.lock();
        while jobs.len() >= self.len_max {
            jobs = self.drained.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
        jobs.push_back(job);
        drop(jobs);
        self.filled.notify_one();
    }

    /// Takes the oldest job; waits while there is none.
    pub fn pop(&self) -> T {
        let mut jobs = self.lock();
        loop {
            if let Some(job) = jobs.pop_front() {
                let was_full = jobs.len() + 1 == self.len_max;
                drop(jobs);
                if was_full {
                    self.drained.notify_all();
                }
                return job;
            }
            jobs = self.filled.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn all_jobs_come_out_although_the_queue_is_short() {
        let queue = Arc::new(Queue::new(2));
        let source = Arc::clone(&queue);
        let pusher = thread::spawn(move || (0..100).for_each(|job| source.push(job)));
        let sum: u32 = (0..100).map(|_| queue.pop()).sum();
        pusher.join().unwrap();
        assert_eq!(sum, 99 * 100 / 2);
    }
}
