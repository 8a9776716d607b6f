//! Results that several threads write at once, each its own part: the only place where a slice is shared for that.

use std::marker::PhantomData;
use std::ops::Range;

/// A slice of which several threads write disjoint parts.
#[derive(Clone, Copy)]
struct Shared<'a, T> {
    first: *mut T,
    len: usize,
    borrowed: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]` that can be taken apart; whoever takes a part vouches that nobody else has it.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    fn new(slice: &'a mut [T]) -> Self {
        Self { first: slice.as_mut_ptr(), len: slice.len(), borrowed: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// While they are borrowed nobody else reads or writes any of them.
    unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: within the slice that was borrowed for 'a, and the caller's alone.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(range.start), range.len()) }
    }
}

/// A matrix `[n, width]` whose columns are divided into parts.
pub struct Divided<'a, T> {
    all: Shared<'a, T>,
    width: usize,
    ends: &'a [usize],
}

impl<'a, T: Copy> Divided<'a, T> {
    /// Part i has the columns before `ends[i]` that the parts before it have not.
    ///
    /// # Panics
    /// Where the ends do not ascend, or lie beyond `width`.
    pub fn new(matrix: &'a mut [T], width: usize, ends: &'a [usize]) -> Self {
        assert!(ends.is_sorted() && ends.last().is_none_or(|&end| end <= width));
        Self { all: Shared::new(matrix), width, ends }
    }

    pub(super) fn n_parts(&self) -> usize {
        self.ends.len()
    }

    /// # Safety
    /// While it is borrowed nobody else has this part.
    pub(super) unsafe fn part(&self, index: usize) -> Outputs<'a, T> {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Outputs { all: self.all, stride: self.width, rows: start..self.ends[index] }
    }
}

/// `[n, rows]` results: some of the rows of each of `n` results that are `stride` elements apart.
pub struct Outputs<'a, T> {
    all: Shared<'a, T>,
    stride: usize,
    rows: Range<usize>,
}

impl<'a, T> Outputs<'a, T> {
    /// All `rows` of every result.
    pub fn whole(out: &'a mut [T], rows: usize) -> Self {
        Self { all: Shared::new(out), stride: rows, rows: 0..rows }
    }

    /// How many rows of each result.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The rows of result `index`.
    #[inline]
    pub fn of(&mut self, index: usize) -> &mut [T] {
        let start = index * self.stride;
        // SAFETY: this value has these rows of every result to itself, and lends them out one at a time.
        unsafe { self.all.part(start + self.rows.start..start + self.rows.end) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_rows_of_every_result() {
        let mut all = [0; 3 * 5];
        let divided = Divided::new(&mut all, 5, &[2, 5]);
        // SAFETY: the parts are disjoint, and each is taken once.
        let (mut left, mut right) = unsafe { (divided.part(0), divided.part(1)) };
        for index in 0..3 {
            left.of(index).fill(1);
            right.of(index).fill(2);
            assert_eq!((left.rows(), right.rows()), (2, 3));
        }
        assert_eq!(all, [1, 1, 2, 2, 2].repeat(3)[..]);
        Outputs::whole(&mut all, 5).of(1).fill(7);
        assert_eq!(all[5..10], [7; 5]);
    }

    #[test]
    #[should_panic(expected = "range.end <= self.len")]
    fn nothing_beyond_the_end() {
        Outputs::whole(&mut [0; 4], 4).of(1);
    }

    #[test]
    #[should_panic(expected = "ends.is_sorted()")]
    fn parts_do_not_overlap() {
        Divided::new(&mut [0; 4], 4, &[3, 2, 4]);
    }
}
