//! A team of threads that work on one thing at a time: the caller and `threads - 1` helpers.
//!
//! ```text
//! share(n, work):  write the work down, give each thread an even share of the n pieces, open the round, wake who is parked
//!                  the caller and every helper that comes: the own pieces, then those that others have not begun
//!                  close the round, wait until nobody is in it
//! a helper:        watch for an open round: spin a bounded while, then park
//! ```
//!
//! Decoding a model crosses such a barrier some hundred times a token, so a helper that parked at once would cost more
//! than it gives; but one that spun for ever would take the CPU from whoever needs it on a busy machine (a second
//! process, the other side of a comparison). Hence the bound, after which it sleeps. And a helper that the machine lets
//! wait is not waited for: the others do its pieces, and it finds the round closed. Running allocates nothing.
//! Which piece computes what is the caller's business, and so are the same bits for any number of threads.

mod outputs;

pub use outputs::{Divided, Outputs};

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle, Thread};

/// Looks at the round before a thread parks: some tens of microseconds, a hundred where the CPU's pause is long.
const SPINS: u32 = 2_000;

/// What opens a round, or closes it, in [`Shared::state`].
const ROUND: u64 = 1 << 32;

/// The work of a round, its lifetime erased: `(thread, piece)`.
type Work = *const (dyn Fn(usize, usize) + Sync);

struct Round {
    work: Work,
    n: usize,
    caller: Thread,
}

/// The first piece of a thread's share that nobody has begun; on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Next(AtomicUsize);

struct Shared {
    /// The number of the round, odd while it is open, times [`ROUND`], and helpers that are in it: so that none enters one
    /// that was closed.
    state: AtomicU64,
    /// What the round is; written by the caller before it opens it.
    round: UnsafeCell<Option<Round>>,
    /// For each thread, of the round.
    next: Box<[Next]>,
    /// A helper's piece panicked.
    panicked: AtomicBool,
    /// Helpers park at once.
    quiet: AtomicBool,
    ended: AtomicBool,
    /// For each helper, whether it is parked or about to.
    parked: Box<[AtomicBool]>,
}

// SAFETY: `round` is written by the one caller that holds the turn while the round is closed and nobody inside, and read
// by helpers that are inside an open one; the work it points to is Sync and outlives the round, see `share`.
unsafe impl Send for Shared {}
// SAFETY: as above; every other field is atomic.
unsafe impl Sync for Shared {}

/// What is done with a row of two slices: `(thread, index, row of a, row of b)`.
pub type RowPairWork<'w, A, B> = dyn Fn(usize, usize, &mut [A], &mut [B]) + Sync + 'w;

/// What is done with a part of a matrix: `(thread, which matrix, which part, its columns of every row)`.
pub type PartWork<'w, T> = dyn Fn(usize, usize, usize, &mut Outputs<'_, T>) + Sync + 'w;

/// The caller and its helpers. One round at a time; a second caller waits.
pub struct Team {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    turn: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of the work leaves nothing half changed behind these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The teams in use, by size.
static SHARED: Mutex<BTreeMap<usize, Weak<Team>>> = Mutex::new(BTreeMap::new());

/// Returns when every helper of every shared team is parked: none spins during somebody else's turn.
pub fn quiesce() {
    // Copied first: a team that ends while it is waited for would need the lock.
    let teams: Vec<Arc<Team>> = lock(&SHARED).values().filter_map(Weak::upgrade).collect();
    teams.iter().for_each(|team| team.quiesce());
}

impl Team {
    /// The team of `threads` in all, shared by everybody in this process who asks for that many; it ends with its last
    /// user. Fails where the operating system refuses a thread.
    pub fn shared(threads: usize) -> std::io::Result<Arc<Self>> {
        let mut teams = lock(&SHARED);
        if let Some(team) = teams.get(&threads).and_then(Weak::upgrade) {
            return Ok(team);
        }
        let team = Arc::new(Self::new(threads)?);
        teams.insert(threads, Arc::downgrade(&team));
        Ok(team)
    }

    /// A team of its own.
    ///
    /// # Errors
    /// The operating system's, where it refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let n_helpers = threads.saturating_sub(1);
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            round: UnsafeCell::new(None),
            next: (0..=n_helpers).map(|_| Next::default()).collect(),
            panicked: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            parked: (0..n_helpers).map(|_| AtomicBool::new(false)).collect(),
        });
        let mut team = Self { shared, helpers: Vec::with_capacity(n_helpers), turn: Mutex::new(()) };
        for index in 0..n_helpers {
            let shared = Arc::clone(&team.shared);
            let helper = thread::Builder::new().name(format!("team-{}", index + 1));
            // Refused half-way, the team is dropped here and ends the helpers it has.
            team.helpers.push(helper.spawn(move || help(&shared, index))?);
        }
        // What a thread sets up when it starts is behind everybody before the first round.
        team.quiesce();
        Ok(team)
    }

    /// Threads of the team, the caller included.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `work(thread, piece)` once for each piece below `n` and returns when all are done. Thread 0 is the caller; a
    /// thread begins with its share of neighbouring pieces, and goes on with what others have not begun. A single piece
    /// is the caller's. `work` must not use the same team.
    ///
    /// # Panics
    /// When a piece panicked, after nobody works on any.
    pub fn share(&self, n: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        if self.helpers.is_empty() || n <= 1 {
            return (0..n).for_each(|piece| work(0, piece));
        }
        let _turn = lock(&self.turn);
        // SAFETY: only the lifetime is erased. Helpers use the pointer while they are inside, and this function leaves,
        // by return or by panic, only after the round is closed and nobody inside.
        let work_of_round =
            unsafe { std::mem::transmute::<*const (dyn Fn(usize, usize) + Sync + '_), Work>(work) };
        // SAFETY: this thread holds the turn, the round is closed and nobody inside, so nobody reads the cell.
        unsafe {
            *self.shared.round.get() = Some(Round { work: work_of_round, n, caller: thread::current() })
        };
        let next = &*self.shared.next;
        for (thread, next) in next.iter().enumerate() {
            next.0.store(share_of(n, thread, self.threads()).start, Ordering::Relaxed);
        }
        self.shared.quiet.store(false, Ordering::Relaxed);
        self.open();
        let own = catch_unwind(AssertUnwindSafe(|| do_pieces(next, n, 0, work)));
        self.shared.state.fetch_add(ROUND, Ordering::AcqRel);
        let mut spins = 0;
        while !self.shared.state.load(Ordering::Acquire).is_multiple_of(ROUND) {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                thread::park();
            }
        }
        let theirs = self.shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!theirs, "a piece that a helper of the team worked on panicked");
    }

    /// Calls `work(thread, index, row)` once for each row of `width` elements of `rows`. What is left behind the last
    /// whole row is left alone.
    ///
    /// # Panics
    /// As [`Team::share`].
    pub fn for_each_row<T: Send>(
        &self,
        rows: &mut [T],
        width: usize,
        work: &(dyn Fn(usize, usize, &mut [T]) + Sync),
    ) {
        let rows = Rows::new(rows, width);
        self.share(rows.n, &|thread, index| {
            // SAFETY: `share` gives every index below n to one thread, once.
            work(thread, index, unsafe { rows.row(index) });
        });
    }

    /// The same with the row of that index of both; as many as the shorter one has.
    ///
    /// # Panics
    /// As [`Team::share`].
    pub fn for_each_row_pair<A: Send, B: Send>(
        &self,
        (a, a_width): (&mut [A], usize),
        (b, b_width): (&mut [B], usize),
        work: &RowPairWork<'_, A, B>,
    ) {
        let (a, b) = (Rows::new(a, a_width), Rows::new(b, b_width));
        self.share(a.n.min(b.n), &|thread, index| {
            // SAFETY: as above, for both.
            let (a, b) = unsafe { (a.row(index), b.row(index)) };
            work(thread, index, a, b);
        });
    }

    /// Calls `work(thread, which, part, outputs)` once for each part of each matrix, all in one round.
    ///
    /// # Panics
    /// As [`Team::share`].
    pub fn for_each_part<T: Copy + Send, const N: usize>(
        &self,
        matrices: [Divided<'_, T>; N],
        work: &PartWork<'_, T>,
    ) {
        let n = matrices.iter().map(Divided::n_parts).sum();
        self.share(n, &|thread, piece| {
            let mut part = piece;
            for (which, matrix) in matrices.iter().enumerate() {
                if let Some(beyond) = part.checked_sub(matrix.n_parts()) {
                    part = beyond;
                    continue;
                }
                // SAFETY: `share` gives every piece to one thread, once, and the parts of a matrix are disjoint.
                return work(thread, which, part, &mut unsafe { matrix.part(part) });
            }
        });
    }

    /// Opens a round: sequentially consistent against a helper that marks itself parked and then looks at the state once
    /// more, so that one of the two sees the other.
    fn open(&self) {
        self.shared.state.fetch_add(ROUND, Ordering::SeqCst);
        for (helper, parked) in self.helpers.iter().zip(&self.shared.parked) {
            if parked.load(Ordering::SeqCst) {
                helper.thread().unpark();
            }
        }
    }

    /// Returns when every helper is parked.
    pub fn quiesce(&self) {
        let _turn = lock(&self.turn);
        self.shared.quiet.store(true, Ordering::Relaxed);
        while !self.shared.parked.iter().all(|parked| parked.load(Ordering::SeqCst)) {
            thread::yield_now();
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.open();
        for helper in self.helpers.drain(..) {
            // It does not panic: what the work does is caught.
            let _ = helper.join();
        }
    }
}

/// Rows of one slice, given out to several threads.
struct Rows<'a, T> {
    first: *mut T,
    width: usize,
    n: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for the exclusive slice it was made of, whose elements may be sent.
unsafe impl<T: Send> Sync for Rows<'_, T> {}

impl<'a, T> Rows<'a, T> {
    fn new(slice: &'a mut [T], width: usize) -> Self {
        let n = slice.len().checked_div(width).unwrap_or(0);
        Self { first: slice.as_mut_ptr(), width, n, slice: PhantomData }
    }

    /// # Safety
    /// `index` is below `n`, and the row it names is used by nobody else meanwhile.
    #[allow(clippy::mut_from_ref)]
    unsafe fn row(&self, index: usize) -> &mut [T] {
        // SAFETY: rows lie side by side within the slice, by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(index * self.width), self.width) }
    }
}

/// The pieces that thread `thread` of `threads` begins with.
fn share_of(n: usize, thread: usize, threads: usize) -> Range<usize> {
    n * thread / threads..n * (thread + 1) / threads
}

/// What a thread does in a round.
fn do_pieces(next: &[Next], n: usize, thread: usize, work: &(dyn Fn(usize, usize) + Sync)) {
    let threads = next.len();
    for whose in (thread..threads).chain(0..thread) {
        let end = share_of(n, whose, threads).end;
        // Looked at first: what is done is not written to again.
        while next[whose].0.load(Ordering::Relaxed) < end {
            let piece = next[whose].0.fetch_add(1, Ordering::Relaxed);
            if piece < end {
                work(thread, piece);
            }
        }
    }
}

/// What a helper does all its life.
fn help(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        seen = wait_for_round(shared, index, seen);
        if shared.ended.load(Ordering::Relaxed) {
            return;
        }
        let enter = |state: u64| (state / ROUND == seen).then_some(state + 1);
        if shared.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, enter).is_err() {
            continue;
        }
        // SAFETY: the cell was written before this round was opened, and the caller does not write it again before this
        // helper has left.
        let Some(round) = (unsafe { &*shared.round.get() }) else { unreachable!("a round without work") };
        let caller = round.caller.clone();
        // SAFETY: `share` keeps the work alive while somebody is inside.
        let work = unsafe { &*round.work };
        if catch_unwind(AssertUnwindSafe(|| do_pieces(&shared.next, round.n, index + 1, work))).is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        if shared.state.fetch_sub(1, Ordering::AcqRel) % ROUND == 1 {
            caller.unpark();
        }
    }
}

/// The number of a round that is open and not `seen`; parks after a while without one.
fn wait_for_round(shared: &Shared, index: usize, seen: u64) -> u64 {
    let opened = |order| {
        let number = shared.state.load(order) / ROUND;
        (number != seen && number % 2 == 1).then_some(number)
    };
    let mut spins = 0;
    while spins < SPINS && !shared.quiet.load(Ordering::Relaxed) {
        if let Some(number) = opened(Ordering::Acquire) {
            return number;
        }
        spins += 1;
        std::hint::spin_loop();
    }
    shared.parked[index].store(true, Ordering::SeqCst);
    let number = loop {
        match opened(Ordering::SeqCst) {
            Some(number) => break number,
            None => thread::park(),
        }
    };
    shared.parked[index].store(false, Ordering::SeqCst);
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once_in_every_round() {
        for threads in 1..=5 {
            let team = Team::new(threads).unwrap();
            assert_eq!(team.threads(), threads);
            for n in [0, 1, threads - 1, threads, threads + 1, 3 * threads + 1] {
                let counts: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
                for round in 1..=300 {
                    team.share(n, &|thread, piece| {
                        assert!(thread < threads);
                        counts[piece].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == round));
                    if round % 50 == 0 {
                        team.quiesce();
                    }
                }
            }
        }
    }

    #[test]
    fn a_thread_that_does_not_come_is_not_waited_for() {
        let team = Team::new(2).unwrap();
        // The helper is held in the first piece that it begins; everything else is done without it.
        let (held, done) = (AtomicUsize::new(usize::MAX), AtomicUsize::new(0));
        team.share(8, &|thread, piece| {
            if thread == 1 && held.load(Ordering::Relaxed) == usize::MAX {
                held.store(piece, Ordering::Relaxed);
                while done.load(Ordering::Relaxed) < 7 {
                    thread::yield_now();
                }
            }
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 8);
        // Nobody has to come at all.
        let alone = do_alone(&team, 8);
        assert_eq!(alone, (0..8).collect::<Vec<_>>());
    }

    /// The pieces that a caller does where no helper enters the round.
    fn do_alone(team: &Team, n: usize) -> Vec<usize> {
        let done = Mutex::new(Vec::new());
        for (thread, next) in team.shared.next.iter().enumerate() {
            next.0.store(share_of(n, thread, team.threads()).start, Ordering::Relaxed);
        }
        do_pieces(&team.shared.next, n, 0, &|thread, piece| {
            assert_eq!(thread, 0);
            lock(&done).push(piece);
        });
        done.into_inner().unwrap()
    }

    #[test]
    fn a_quiet_team_is_parked_and_wakes_for_the_next_round() {
        let team = Team::new(3).unwrap();
        team.share(3, &|_, _| {});
        team.quiesce();
        assert!(team.shared.parked.iter().all(|parked| parked.load(Ordering::SeqCst)));
        // The caller stays in its piece until a helper, woken, has done another.
        let helped = AtomicUsize::new(0);
        team.share(3, &|thread, _| match thread {
            0 => {
                while helped.load(Ordering::Relaxed) == 0 {
                    thread::yield_now();
                }
            }
            _ => drop(helped.fetch_add(1, Ordering::Relaxed)),
        });
        assert!(helped.into_inner() > 0);
    }

    #[test]
    fn a_panic_of_any_piece_reaches_the_caller_and_the_team_goes_on() {
        let team = Team::new(3).unwrap();
        for bad in 0..3 {
            let answer = catch_unwind(AssertUnwindSafe(|| team.share(3, &|_, piece| assert_ne!(piece, bad))));
            assert!(answer.is_err(), "piece {bad}");
        }
        team.share(3, &|_, _| {});
    }

    #[test]
    fn every_row_is_worked_on_once() {
        for threads in 1..=3 {
            let team = Team::new(threads).unwrap();
            for (n, width, rest) in [(0, 3, 2), (1, 4, 0), (7, 1, 0), (5, 3, 2)] {
                let mut rows = vec![0; n * width + rest];
                let mut sums = vec![0; n + 1];
                team.for_each_row(&mut rows, width, &|thread, index, row| {
                    assert!(thread < threads && row.len() == width);
                    row.iter_mut().for_each(|value| *value += index + 1);
                });
                team.for_each_row_pair((&mut rows, width), (&mut sums, 1), &|_, _, row, sum| {
                    sum[0] += row.iter().sum::<usize>()
                });
                let expected: Vec<usize> =
                    (0..n).flat_map(|index| vec![index + 1; width]).chain(vec![0; rest]).collect();
                assert_eq!(rows, expected, "{n} rows of {width}");
                let expected: Vec<usize> = (0..n).map(|index| (index + 1) * width).chain([0]).collect();
                assert_eq!(sums, expected);
            }
            team.for_each_row(&mut [1, 2], 0, &|_, _, _| panic!("rows of nothing"));
        }
    }

    #[test]
    fn every_part_of_every_matrix_is_worked_on_once() {
        for threads in 1..=3 {
            let team = Team::new(threads).unwrap();
            let (mut a, mut b) = ([0; 2 * 5], [0; 2 * 3]);
            let matrices = [Divided::new(&mut a, 5, &[2, 2, 5]), Divided::new(&mut b, 3, &[3])];
            team.for_each_part(matrices, &|_, which, part, outputs| {
                for row in 0..2 {
                    let columns = outputs.of(row);
                    let expected = [&[2, 0, 3][..], &[3]][which][part];
                    assert_eq!(columns.len(), expected);
                    columns.iter_mut().for_each(|value| *value += 100 * which + 10 * part + row + 1);
                }
            });
            assert_eq!(a, [1, 1, 21, 21, 21, 2, 2, 22, 22, 22]);
            assert_eq!(b, [101, 101, 101, 102, 102, 102]);
        }
    }

    #[test]
    fn callers_take_turns_and_share_one_team_of_a_size() {
        let team = Team::shared(2).unwrap();
        assert!(Arc::ptr_eq(&team, &Team::shared(2).unwrap()));
        let sum = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        team.share(2, &|_, piece| {
                            sum.fetch_add(piece + 1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 4 * 100 * 3);
        quiesce();
        let weak = Arc::downgrade(&team);
        drop(team);
        assert!(weak.upgrade().is_none(), "a team ends with its last user");
    }
}
