//! Frames that wait to be written to one peer in one lane.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::transport::Sent;

/// A bounded queue that many fill and one empties.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    frames_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Whether frames are let in.
    open: bool,
    /// Who empties the queue, if it waits.
    waiting: Option<Waker>,
    dropped_full: u64,
    dropped_down: u64,
}

/// A queue in numbers.
pub(super) struct QueueStatus {
    pub(super) frames: u64,
    pub(super) bytes: u64,
    pub(super) dropped_full: u64,
    pub(super) dropped_down: u64,
}

impl Queue {
    /// An open queue.
    pub(super) fn new(frames_max: usize, bytes_max: usize) -> Self {
        let state = Mutex::new(State { open: true, ..State::default() });
        Self { state, frames_max, bytes_max }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, frame: Bytes) -> Sent {
        let mut state = self.state();
        if !state.open {
            state.dropped_down += 1;
            return Sent::Down;
        }
        if state.frames.len() >= self.frames_max || state.bytes >= self.bytes_max {
            state.dropped_full += 1;
            return Sent::Full;
        }
        state.bytes += frame.len();
        state.frames.push_back(frame);
        let waiting = state.waiting.take();
        drop(state);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
        Sent::Queued
    }

    /// Moves frames of at most `bytes_max` bytes, but at least one, to `out`, which is empty.
    pub(super) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        bytes_max: usize,
        out: &mut VecDeque<Bytes>,
    ) -> Poll<()> {
        let mut state = self.state();
        if state.frames.is_empty() {
            match &mut state.waiting {
                Some(waiting) => waiting.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        if state.bytes <= bytes_max {
            std::mem::swap(&mut state.frames, out);
            state.bytes = 0;
            return Poll::Ready(());
        }
        let mut taken = 0;
        while let Some(frame) = state.frames.front()
            && (taken == 0 || taken + frame.len() <= bytes_max)
        {
            taken += frame.len();
            out.extend(state.frames.pop_front());
        }
        state.bytes -= taken;
        Poll::Ready(())
    }

    /// Lets frames in.
    pub(super) fn open(&self) {
        self.state().open = true;
    }

    /// Drops all frames and lets none in.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.open = false;
        state.dropped_down += state.frames.len() as u64;
        state.frames.clear();
        state.bytes = 0;
    }

    /// Frames that were taken out were lost.
    pub(super) fn count_lost(&self, frames: usize) {
        self.state().dropped_down += frames as u64;
    }

    pub(super) fn status(&self) -> QueueStatus {
        let state = self.state();
        QueueStatus {
            frames: state.frames.len() as u64,
            bytes: state.bytes as u64,
            dropped_full: state.dropped_full,
            dropped_down: state.dropped_down,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(len: usize) -> Bytes {
        Bytes::from(vec![0; len])
    }

    fn take(queue: &Queue, bytes_max: usize) -> Vec<usize> {
        let mut out = VecDeque::new();
        let mut cx = Context::from_waker(Waker::noop());
        let _ = queue.poll_take(&mut cx, bytes_max, &mut out);
        out.iter().map(Bytes::len).collect()
    }

    #[test]
    fn bounded_by_frames_and_by_bytes() {
        let queue = Queue::new(3, 100);
        assert_eq!([0; 4].map(|len| queue.push(frame(len))), {
            [Sent::Queued, Sent::Queued, Sent::Queued, Sent::Full]
        });
        assert_eq!(take(&queue, 10), [0, 0, 0]);
        assert_eq!([99, 50, 1].map(|len| queue.push(frame(len))), {
            [Sent::Queued, Sent::Queued, Sent::Full]
        });
        assert_eq!(queue.status().bytes, 149);
        assert_eq!(queue.status().dropped_full, 2);
    }

    #[test]
    fn taken_in_order_and_in_bounds() {
        let queue = Queue::new(100, 10_000);
        for len in [500, 30, 40, 50, 10] {
            queue.push(frame(len));
        }
        assert_eq!(take(&queue, 100), [500]);
        assert_eq!(take(&queue, 100), [30, 40]);
        assert_eq!(take(&queue, 100), [50, 10]);
        assert_eq!(take(&queue, 100), [0; 0]);
        assert_eq!(queue.status().bytes, 0);
    }

    #[test]
    fn closed_it_drops() {
        let queue = Queue::new(100, 10_000);
        queue.push(frame(1));
        queue.close();
        assert_eq!(queue.push(frame(1)), Sent::Down);
        queue.open();
        assert_eq!(queue.push(frame(2)), Sent::Queued);
        assert_eq!(take(&queue, 100), [2]);
        assert_eq!(queue.status().dropped_down, 2);
    }
}
