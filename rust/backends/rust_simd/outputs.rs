//! Results that several threads write at once, each its own part: the only place where a slice is shared for that.

use std::marker::PhantomData;
use std::ops::Range;

/// A slice of which several threads write disjoint parts.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a, T> {
    first: *mut T,
    len: usize,
    borrowed: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]` that can be taken apart; whoever takes a part vouches that nobody else has it.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// All of `slice`.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { first: slice.as_mut_ptr(), len: slice.len(), borrowed: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// While they are borrowed nobody else reads or writes any of them.
    pub unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: within the slice that was borrowed for 'a, and the caller's alone.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(range.start), range.len()) }
    }
}

/// `[n, rows]` results: some of the rows of each of `n` results that are `stride` elements apart.
pub(super) struct Outputs<'a, T> {
    all: Shared<'a, T>,
    stride: usize,
    rows: Range<usize>,
}

impl<'a, T> Outputs<'a, T> {
    /// All `rows` of every result.
    #[cfg(test)]
    pub fn whole(out: &'a mut [T], rows: usize) -> Self {
        Self { all: Shared::new(out), stride: rows, rows: 0..rows }
    }

    /// The rows `rows` of results of `stride` each.
    ///
    /// # Safety
    /// While they are borrowed nobody else reads or writes these rows of any result.
    pub unsafe fn part(all: Shared<'a, T>, stride: usize, rows: Range<usize>) -> Self {
        // Whether a result lies within the slice is looked at when it is lent out.
        assert!(rows.end <= stride);
        Self { all, stride, rows }
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
        let shared = Shared::new(&mut all);
        // SAFETY: the parts are disjoint.
        let (mut left, mut right) =
            unsafe { (Outputs::part(shared, 5, 0..2), Outputs::part(shared, 5, 2..5)) };
        for index in 0..3 {
            left.of(index).fill(1);
            right.of(index).fill(2);
            assert_eq!((left.of(index).len(), right.of(index).len()), (2, 3));
        }
        assert_eq!(all, [1, 1, 2, 2, 2].repeat(3)[..]);
        Outputs::whole(&mut all, 5).of(1).fill(7);
        assert_eq!(all[5..10], [7; 5]);
    }

    #[test]
    #[should_panic(expected = "range.end <= self.len")]
    fn nothing_beyond_the_end() {
        let mut all = [0; 4];
        // SAFETY: the only part; it is refused.
        unsafe { Shared::new(&mut all).part(2..5) };
    }
}
