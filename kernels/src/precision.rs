//! How exactly products are computed.

use std::cell::Cell;

thread_local! {
    static CURRENT: Cell<Precision> = const { Cell::new(Precision::Exact) };
}

/// How exactly a thread computes the products of linear layers, convolutions and attention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// With the accuracy of float32.
    #[default]
    Exact,
    /// With numbers that are rounded before they are multiplied, where the machine multiplies these numbers faster.
    Fast,
}

impl Precision {
    /// The precision of the operations that this thread begins.
    pub fn current() -> Self {
        CURRENT.get()
    }

    /// Calls `work`, whose operations on this thread have this precision. An operation divides its work among other
    /// threads only after it has read the precision.
    pub fn during<R>(self, work: impl FnOnce() -> R) -> R {
        /// Sets the precision back, also after a panic.
        struct Before(Precision);
        impl Drop for Before {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _before = Before(CURRENT.replace(self));
        work()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn a_precision_lasts_as_long_as_its_work_also_if_it_panics() {
        assert_eq!(Precision::current(), Precision::Exact);
        Precision::Fast.during(|| {
            assert_eq!(Precision::current(), Precision::Fast);
            Precision::Exact.during(|| assert_eq!(Precision::current(), Precision::Exact));
            assert_eq!(Precision::current(), Precision::Fast);
            let other = std::thread::spawn(Precision::current).join();
            assert_eq!(other.expect("the thread ends"), Precision::Exact, "another thread has its own");
        });
        assert!(catch_unwind(|| Precision::Fast.during(|| panic!("on purpose"))).is_err());
        assert_eq!(Precision::current(), Precision::Exact);
    }
}
