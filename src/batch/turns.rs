//! Whose batch a device runs next: lanes take turns, by what their batches cost.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1996): of the lanes that wait, the one goes first that has had the least
//! of the device, in seconds. A lane that was idle begins where the others are, so that it gets no credit for it. Lanes with
//! work that nobody waits for (shadow) go when no other lane waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::queue::Priority;

/// One device, and how many batches it runs at once. Clones are the same device.
#[derive(Debug, Clone)]
pub struct Turns {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    at_once: usize,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    /// What the lane that was let in last had had until then.
    reached: f64,
    next_id: u64,
    seats: BTreeMap<u64, SeatState>,
}

#[derive(Debug)]
struct SeatState {
    /// Seconds of the device, with the head start of a lane that came later.
    had: f64,
    waits: Option<Priority>,
}

impl State {
    /// Who is to go next. Of two that had the same, the one that came first.
    fn next(&self) -> Option<u64> {
        let waiting = self.seats.iter().filter_map(|(&id, seat)| Some((id, seat.waits?, seat.had)));
        let first = waiting.min_by(|one, other| {
            let shadow = |priority: Priority| priority == Priority::Shadow;
            shadow(one.1).cmp(&shadow(other.1)).then(one.2.total_cmp(&other.2)).then(one.0.cmp(&other.0))
        });
        first.map(|(id, ..)| id)
    }
}

impl Turns {
    /// A device that runs `at_once` batches at once, at least one.
    pub fn new(at_once: usize) -> Self {
        let inner = Inner { at_once: at_once.max(1), state: Mutex::default(), freed: Condvar::new() };
        Self { inner: Arc::new(inner) }
    }

    /// Another lane of the device.
    pub(super) fn join(&self) -> Seat {
        let mut state = self.inner.lock();
        let id = state.next_id;
        state.next_id += 1;
        let had = state.reached;
        state.seats.insert(id, SeatState { had, waits: None });
        drop(state);
        Seat { inner: Arc::clone(&self.inner), id }
    }
}

impl Inner {
    /// No code that can panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lane's place at a device; given up when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    inner: Arc<Inner>,
    id: u64,
}

impl Seat {
    /// Waits for a turn, `patience` long at most where there is one. `cost` is how long it will take, as far as that is known;
    /// where it is not, the turn costs what it takes.
    pub(super) fn turn(&self, priority: Priority, cost: Option<Duration>, patience: Option<Duration>) -> Option<Turn> {
        let began = Instant::now();
        let mut state = self.inner.lock();
        let reached = state.reached;
        let seat = state.seats.get_mut(&self.id)?;
        seat.had = seat.had.max(reached);
        seat.waits = Some(priority);
        while state.running >= self.inner.at_once || state.next() != Some(self.id) {
            let Some(patience) = patience else {
                state = self.inner.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let rest = patience.saturating_sub(began.elapsed());
            if rest.is_zero() {
                state.seats.get_mut(&self.id)?.waits = None;
                self.inner.freed.notify_all();
                return None;
            }
            state = self.inner.freed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        let seat = state.seats.get_mut(&self.id)?;
        seat.waits = None;
        let had = seat.had;
        seat.had += cost.unwrap_or_default().as_secs_f64();
        state.reached = state.reached.max(had);
        state.running += 1;
        let more = state.running < self.inner.at_once && state.next().is_some();
        drop(state);
        if more {
            self.inner.freed.notify_all();
        }
        Some(Turn { inner: Arc::clone(&self.inner), id: self.id, unknown: cost.is_none(), began: Instant::now() })
    }

    /// Is in line no more, where a turn before was given up with the wish for another.
    pub(super) fn leave(&self) {
        if let Some(seat) = self.inner.lock().seats.get_mut(&self.id) {
            seat.waits = None;
        }
        self.inner.freed.notify_all();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.inner.lock().seats.remove(&self.id);
        self.inner.freed.notify_all();
    }
}

/// The right to run one batch; the next lane goes when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    inner: Arc<Inner>,
    id: u64,
    /// What it costs is not known yet.
    unknown: bool,
    began: Instant,
}

impl Turn {
    /// Ends the turn. A lane that has work left is in line again at once: else, of two lanes, the other one would always go
    /// next, whatever it has had. It must come for its turn, or leave.
    pub(super) fn end(self, next: Option<Priority>) {
        if let Some(seat) = self.inner.lock().seats.get_mut(&self.id) {
            seat.waits = next;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        state.running -= 1;
        if let Some(seat) = state.seats.get_mut(&self.id).filter(|_| self.unknown) {
            seat.had += self.began.elapsed().as_secs_f64();
        }
        drop(state);
        self.inner.freed.notify_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::thread;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn waiting(device: &Inner) -> usize {
        device.lock().seats.values().filter(|seat| seat.waits.is_some()).count()
    }

    fn until_waiting(device: &Inner, lanes: usize) {
        while waiting(device) < lanes {
            thread::yield_now();
        }
    }

    /// Lets each of these lanes wait for a turn of its cost again and again, until `turns` were had; whose they were, in order.
    fn overloaded(lanes: &[(Priority, Duration)], turns: usize) -> Vec<usize> {
        let device = Turns::new(1);
        let order = Mutex::new(Vec::new());
        // Held until everybody waits.
        let door = device.join();
        let first = door.turn(Priority::Serving, Some(Duration::ZERO), None).unwrap();
        thread::scope(|scope| {
            for (lane, &(priority, cost)) in lanes.iter().enumerate() {
                let (seat, order, device) = (device.join(), &order, &device);
                scope.spawn(move || {
                    loop {
                        let turn = seat.turn(priority, Some(cost), None).unwrap();
                        let had = {
                            let mut order: MutexGuard<'_, Vec<usize>> = order.lock().unwrap();
                            order.push(lane);
                            order.len()
                        };
                        if had > turns {
                            drop(turn);
                            seat.leave();
                            return;
                        }
                        // The others are in line again before the next one is let in.
                        until_waiting(&device.inner, lanes.len() - 1);
                        turn.end(Some(priority));
                    }
                });
            }
            until_waiting(&device.inner, lanes.len());
            drop(first);
        });
        let mut order = order.into_inner().unwrap();
        order.truncate(turns);
        order
    }

    fn count(order: &[usize], lane: usize) -> usize {
        order.iter().filter(|&&one| one == lane).count()
    }

    #[test]
    fn two_lanes_under_overload_have_as_many_batches_where_these_cost_the_same() {
        let order = overloaded(&[(Priority::Serving, MS), (Priority::Serving, MS)], 100);
        assert!((49..=51).contains(&count(&order, 0)), "{order:?}");
    }

    #[test]
    fn a_lane_of_batches_three_times_as_dear_has_a_third_as_many() {
        let order = overloaded(&[(Priority::Serving, 3 * MS), (Priority::Serving, MS)], 100);
        assert!((23..=27).contains(&count(&order, 0)), "{order:?}");
    }

    #[test]
    fn shadow_work_of_one_lane_waits_for_what_another_serves() {
        let device = Turns::new(1);
        let (shadow, serving) = (device.join(), device.join());
        let running = serving.turn(Priority::Serving, Some(100 * MS), None).unwrap();
        // It has had less, and goes second all the same.
        thread::scope(|scope| {
            let second = scope.spawn(|| shadow.turn(Priority::Shadow, Some(MS), None).map(|_| Instant::now()));
            let first = scope.spawn(|| serving.turn(Priority::Serving, Some(MS), None).map(|_| Instant::now()));
            until_waiting(&device.inner, 2);
            drop(running);
            assert!(first.join().unwrap().unwrap() < second.join().unwrap().unwrap());
        });
        let busy = serving.turn(Priority::Serving, Some(MS), None).unwrap();
        assert!(shadow.turn(Priority::Shadow, Some(MS), Some(MS)).is_none(), "it had a turn beside another");
        drop(busy);
        assert!(shadow.turn(Priority::Shadow, Some(MS), Some(MS)).is_some());
    }

    #[test]
    fn who_was_idle_gets_no_credit_for_it() {
        let device = Turns::new(1);
        let (busy, idle) = (device.join(), device.join());
        for _ in 0..100 {
            assert!(busy.turn(Priority::Serving, Some(MS), None).is_some());
        }
        assert!(idle.turn(Priority::Serving, Some(MS), None).is_some());
        let had = |seat: &Seat| device.inner.lock().seats[&seat.id].had;
        assert!((had(&busy) - had(&idle)).abs() < 2.5e-3, "{} and {}", had(&busy), had(&idle));
    }

    #[test]
    fn a_device_of_two_lets_two_in_and_no_third() {
        let device = Turns::new(2);
        let seats = [device.join(), device.join(), device.join()];
        let one = seats[0].turn(Priority::Serving, None, None).unwrap();
        let two = seats[1].turn(Priority::Serving, None, None).unwrap();
        assert!(seats[2].turn(Priority::Serving, None, Some(MS)).is_none());
        drop(one);
        let three = seats[2].turn(Priority::Serving, None, Some(Duration::from_secs(20)));
        assert!(three.is_some());
        drop((two, three));
        // A lane that ends gives up its place.
        drop(seats);
        assert!(device.inner.lock().seats.is_empty());
    }
}
