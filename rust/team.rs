//! A team of threads that work on one thing at a time: the caller and `threads - 1` helpers.
//!
//! ```text
//! run(work):   write the work down, raise the round, wake the helpers that are parked
//!              the caller does part 0, helper i part i
//!              wait until every helper has counted down
//! a helper:    watch the round: spin a bounded while, then park
//! ```
//!
//! Decoding a model crosses such a barrier some hundred times a token, so a helper that parked at once would cost more
//! than it gives; but one that spun for ever would take the CPU from whoever needs it on a busy machine (a second
//! process, the other side of a comparison). Hence the bound, after which it sleeps. Running allocates nothing.
//! Which part computes what is the caller's business, and so are the same bits for any number of threads.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle, Thread};

/// Looks at the round before a thread parks: some tens of microseconds.
const SPINS: u32 = 10_000;

/// The work of a round, its lifetime erased.
type Work = *const (dyn Fn(usize) + Sync);

struct Round {
    work: Work,
    caller: Thread,
}

struct Shared {
    /// Counts rounds; a change is the signal to start.
    number: AtomicU32,
    /// What the round is; written by the caller before it raises the number.
    round: UnsafeCell<Option<Round>>,
    /// Helpers that have not finished the round.
    busy: AtomicUsize,
    /// A helper's part panicked.
    panicked: AtomicBool,
    /// Helpers park at once.
    quiet: AtomicBool,
    ended: AtomicBool,
    /// For each helper, whether it is parked or about to.
    parked: Box<[AtomicBool]>,
}

// SAFETY: `round` is written by the one caller that holds the turn while no helper is busy, and read by helpers between
// the raise of the number and their count-down; the work it points to is Sync and outlives the round, see `run`.
unsafe impl Send for Shared {}
// SAFETY: as above; every other field is atomic.
unsafe impl Sync for Shared {}

/// What is done with a row of two slices: `(part, index, row of a, row of b)`.
pub type RowPairWork<'w, A, B> = dyn Fn(usize, usize, &mut [A], &mut [B]) + Sync + 'w;

/// The caller and its helpers. One [`Team::run`] at a time; a second caller waits.
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
            number: AtomicU32::new(0),
            round: UnsafeCell::new(None),
            busy: AtomicUsize::new(0),
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
        Ok(team)
    }

    /// Threads of the team, the caller included.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `work(part)` once for each part below [`Team::threads`], each on its own thread, part 0 on the caller's, and
    /// returns when all are done. `work` must not run the same team.
    ///
    /// # Panics
    /// When a part panicked, after all are done.
    pub fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        if self.helpers.is_empty() {
            return work(0);
        }
        let _turn = lock(&self.turn);
        // SAFETY: only the lifetime is erased. Helpers use the pointer until they count `busy` down, and this function
        // leaves, by return or by panic, only after `busy` is 0.
        let work_of_round = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Work>(work) };
        // SAFETY: this thread holds the turn and no helper is busy, so nobody reads the cell.
        unsafe { *self.shared.round.get() = Some(Round { work: work_of_round, caller: thread::current() }) };
        self.shared.busy.store(self.helpers.len(), Ordering::Relaxed);
        self.shared.quiet.store(false, Ordering::Relaxed);
        self.raise();
        let own = catch_unwind(AssertUnwindSafe(|| work(0)));
        let mut spins = 0;
        while self.shared.busy.load(Ordering::Acquire) != 0 {
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
        assert!(!theirs, "a part that a helper of the team worked on panicked");
    }

    /// Calls `work(part, index, row)` once for each row of `width` elements of `rows`, row `index` on part
    /// `index mod threads`; a single row on the caller's. What is left behind the last whole row is left alone.
    ///
    /// # Panics
    /// As [`Team::run`].
    pub fn for_each_row<T: Send>(
        &self,
        rows: &mut [T],
        width: usize,
        work: &(dyn Fn(usize, usize, &mut [T]) + Sync),
    ) {
        let rows = Rows::new(rows, width);
        self.for_each(rows.n, &|part, index| {
            // SAFETY: `for_each` gives every index below n to one part, once.
            work(part, index, unsafe { rows.row(index) });
        });
    }

    /// The same with the row of that index of both; as many as the shorter one has.
    ///
    /// # Panics
    /// As [`Team::run`].
    pub fn for_each_row_pair<A: Send, B: Send>(
        &self,
        (a, a_width): (&mut [A], usize),
        (b, b_width): (&mut [B], usize),
        work: &RowPairWork<'_, A, B>,
    ) {
        let (a, b) = (Rows::new(a, a_width), Rows::new(b, b_width));
        self.for_each(a.n.min(b.n), &|part, index| {
            // SAFETY: as above, for both.
            let (a, b) = unsafe { (a.row(index), b.row(index)) };
            work(part, index, a, b);
        });
    }

    /// Calls `work(part, index)` once for each index below `n`, on part `index mod threads`.
    fn for_each(&self, n: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        let threads = self.threads();
        match n {
            0 => (),
            // Not worth waking anybody.
            1 => work(0, 0),
            _ => self.run(&|part| (part..n).step_by(threads).for_each(|index| work(part, index))),
        }
    }

    /// Starts a round, or the end: sequentially consistent against a helper that marks itself parked and then looks at
    /// the number once more, so that one of the two sees the other.
    fn raise(&self) {
        self.shared.number.fetch_add(1, Ordering::SeqCst);
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
        self.raise();
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

/// What a helper does all its life.
fn help(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while shared.number.load(Ordering::Acquire) == seen {
            if spins < SPINS && !shared.quiet.load(Ordering::Relaxed) {
                spins += 1;
                std::hint::spin_loop();
                continue;
            }
            shared.parked[index].store(true, Ordering::SeqCst);
            while shared.number.load(Ordering::SeqCst) == seen {
                thread::park();
            }
            shared.parked[index].store(false, Ordering::SeqCst);
        }
        seen = seen.wrapping_add(1);
        if shared.ended.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: the number was raised for this round after the cell was written, and the caller does not write it again
        // before this helper has counted down.
        let Some(Round { work, caller }) = (unsafe { &*shared.round.get() }) else { continue };
        let caller = caller.clone();
        // SAFETY: `run` keeps the work alive until every helper has counted down.
        let work = unsafe { &**work };
        if catch_unwind(AssertUnwindSafe(|| work(index + 1))).is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        if shared.busy.fetch_sub(1, Ordering::AcqRel) == 1 {
            caller.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_done_once_in_every_round() {
        for threads in 1..=5 {
            let team = Team::new(threads).unwrap();
            assert_eq!(team.threads(), threads);
            let counts: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            for round in 1..=300 {
                team.run(&|part| {
                    counts[part].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == round));
                if round % 50 == 0 {
                    team.quiesce();
                }
            }
        }
    }

    #[test]
    fn a_quiet_team_is_parked_and_wakes_for_the_next_round() {
        let team = Team::new(3).unwrap();
        team.run(&|_| {});
        team.quiesce();
        assert!(team.shared.parked.iter().all(|parked| parked.load(Ordering::SeqCst)));
        let sum = AtomicUsize::new(0);
        team.run(&|part| {
            sum.fetch_add(part, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 3);
    }

    #[test]
    fn a_panic_of_any_part_reaches_the_caller_and_the_team_goes_on() {
        let team = Team::new(3).unwrap();
        for bad in 0..3 {
            let answer = catch_unwind(AssertUnwindSafe(|| team.run(&|part| assert_ne!(part, bad))));
            assert!(answer.is_err(), "part {bad}");
        }
        team.run(&|_| {});
    }

    #[test]
    fn every_row_is_worked_on_once_by_its_part() {
        for threads in 1..=3 {
            let team = Team::new(threads).unwrap();
            for (n, width, rest) in [(0, 3, 2), (1, 4, 0), (7, 1, 0), (5, 3, 2)] {
                let mut rows = vec![0; n * width + rest];
                let mut sums = vec![0; n + 1];
                team.for_each_row(&mut rows, width, &|part, index, row| {
                    assert!(index % threads == part && row.len() == width);
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
    fn callers_take_turns_and_share_one_team_of_a_size() {
        let team = Team::shared(2).unwrap();
        assert!(Arc::ptr_eq(&team, &Team::shared(2).unwrap()));
        let sum = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        team.run(&|part| {
                            sum.fetch_add(part + 1, Ordering::Relaxed);
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
