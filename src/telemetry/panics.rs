//! Logs panics as log lines, with the ids of the request or generation, and without data: the standard library's own
//! message would quote the text in which code has failed, such as a prompt.

use std::{any::Any, backtrace::Backtrace};

/// Replaces the hook that writes panics to standard error. With `RUST_BACKTRACE=1`, the line contains the stack.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let (place, stack) = (panic.location().map(ToString::to_string), Backtrace::capture());
        let stack = (stack.status() == std::backtrace::BacktraceStatus::Captured).then(|| stack.to_string());
        let thread = std::thread::current();
        let (thread, said) = (thread.name(), constant_of(panic.payload()));
        tracing::error!(place, thread, said, stack, "a thread panicked");
    }));
}

/// The message of a panic if it is a constant of the program; `None` if it was made of data.
fn constant_of(payload: &(dyn Any + Send)) -> Option<&'static str> {
    payload.downcast_ref::<&'static str>().copied()
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::constant_of;

    #[test]
    fn a_message_made_of_data_is_not_logged() {
        let prompt = "é canarybird".to_owned();
        let quoting = catch_unwind(|| prompt[1..].len()).unwrap_err();
        assert!(quoting.downcast_ref::<String>().unwrap().contains("canarybird"), "the standard message quotes");
        assert_eq!(constant_of(quoting.as_ref()), None);
        let constant = catch_unwind(|| panic!("the lock is never poisoned")).unwrap_err();
        assert_eq!(constant_of(constant.as_ref()), Some("the lock is never poisoned"));
    }
}
