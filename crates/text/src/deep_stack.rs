//! Work on hostile nesting, on a stack of its own.
//!
//! minijinja bounds the nesting of blocks and brackets, but not of operator chains (`a.b.b.b…`) in a source nor of values
//! (`[[[…]]]` built by a loop) in a rendering; both are walked recursively, and an overflow would end the process. The
//! limits on source length and steps bound the depth, and this stack is larger than the deepest walk needs: 64 MiB was
//! measured to carry 90,000 levels of values and 100,000 operators. Its pages cost nothing until they are touched.

use std::thread;

use crate::TextError;

const STACK_BYTES: usize = 256 * 1024 * 1024;

/// Runs `work` on a large stack and waits for it. A panic becomes an error.
pub(crate) fn on_deep_stack<T: Send>(
    work: impl FnOnce() -> Result<T, TextError> + Send,
) -> Result<T, TextError> {
    let failed = |reason: String| TextError::TemplateFailed { reason };
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("chat-template".to_owned()).stack_size(STACK_BYTES);
        let thread = builder
            .spawn_scoped(scope, work)
            .map_err(|error| failed(format!("no thread for it: {error}")))?;
        thread.join().unwrap_or_else(|_| Err(failed("it panicked".to_owned())))
    })
}
