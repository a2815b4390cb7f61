//! One slice written by several threads at once, each in its own places.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice that threads share on the promise that they touch disjoint parts of it.
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: sharing a `Disjoint` hands out `&mut` parts of the slice to other threads, which `T: Send` allows; that the
// parts do not overlap is what callers of `part` promise.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}
// SAFETY: as a `&mut [T]`.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The elements of `range`.
    ///
    /// # Panics
    /// If `range` is not within the slice.
    ///
    /// # Safety
    /// While the returned part lives, no other part that overlaps it does.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "{range:?} is outside {} elements",
            self.len
        );
        // SAFETY: the range is within the slice that `self` borrows mutably, and the caller promises that nothing
        // else refers to it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
