//! Loops over the lines of a register tile, written out.
//!
//! Sums live in registers only if every index into them is a constant before the compiler first takes arrays apart.
//! It unrolls small loops too late for that: tiles of 4 x 6 ran at 39 instead of 56 GFLOP/s on a busy core.

/// `unrolled!(i < N, body)`: `body` with `i` as each of `0..N`, for a constant `N` of at most 8.
macro_rules! unrolled {
    ($i:ident < $n:expr, $body:expr) => {
        const { assert!($n <= 8) };
        $crate::unroll::unrolled!(@ $i $n, $body, 0 1 2 3 4 5 6 7)
    };
    (@ $i:ident $n:expr, $body:expr, $($index:literal)*) => {
        $(if $index < $n {
            let $i = $index;
            $body;
        })*
    };
}
pub(crate) use unrolled;
