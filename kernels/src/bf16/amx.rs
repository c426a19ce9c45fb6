//! The instructions of AMX. The stable compiler has no functions for them, so they are written in assembly.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod instructions {
    use std::{arch::asm, marker::PhantomData};

    /// Whether the processor has the unit and the system lets this process use it.
    pub fn is_available() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_long = 18;
        const BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
        let has_unit = std::arch::x86_64::__cpuid_count(7, 0).edx & BF16_AND_TILE == BF16_AND_TILE;
        // SAFETY: the call asks for room in the saved state of threads, and changes nothing else.
        has_unit && unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) } == 0
    }

    /// The layout of the tile registers that LDTILECFG reads: palette 1, eight registers of 16 lines and 64 bytes.
    #[repr(C, align(64))]
    struct Layout([u8; 64]);

    const LAYOUT: Layout = {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        let mut register = 0;
        while register < 8 {
            bytes[16 + 2 * register] = 64;
            bytes[48 + register] = 16;
            register += 1;
        }
        Layout(bytes)
    };

    /// The use of the tile registers by this thread. Without a session the system need not save the registers when
    /// it switches between threads.
    pub struct Session(PhantomData<*const ()>);

    impl Session {
        /// Begins to use the registers. The caller has checked that [`is_available`] returned true.
        pub fn begin() -> Self {
            // SAFETY: the layout is valid. The compiler itself uses no tile registers.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &LAYOUT, options(nostack, preserves_flags, readonly)) };
            Self(PhantomData)
        }

        #[inline(always)]
        pub fn zero<const T: u8>(&self) {
            // SAFETY: changes one tile register.
            unsafe { asm!("tilezero tmm{}", const T, options(nostack, preserves_flags, nomem)) };
        }

        /// Loads 16 lines of 64 bytes that begin `stride` bytes apart.
        ///
        /// # Safety
        /// The lines are readable.
        #[inline(always)]
        pub unsafe fn load<const T: u8>(&self, from: *const u8, stride: usize) {
            // SAFETY: the caller promises it.
            unsafe {
                asm!("tileloadd tmm{t}, [{from} + {stride}]", t = const T, from = in(reg) from, stride = in(reg) stride,
                    options(nostack, preserves_flags, readonly));
            }
        }

        /// Stores 16 lines of 64 bytes that begin `stride` bytes apart.
        ///
        /// # Safety
        /// The lines are writable.
        #[inline(always)]
        pub unsafe fn store<const T: u8>(&self, to: *mut u8, stride: usize) {
            // SAFETY: the caller promises it.
            unsafe {
                asm!("tilestored [{to} + {stride}], tmm{t}", t = const T, to = in(reg) to, stride = in(reg) stride,
                    options(nostack, preserves_flags));
            }
        }

        /// Adds the product of the tiles A and B to the float32 sums in C.
        #[inline(always)]
        pub fn dot<const C: u8, const A: u8, const B: u8>(&self) {
            // SAFETY: changes one tile register.
            unsafe {
                asm!("tdpbf16ps tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
                    options(nostack, preserves_flags, nomem));
            }
        }
    }

    impl Drop for Session {
        fn drop(&mut self) {
            // SAFETY: changes only the tile registers.
            unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod instructions {
    /// The unit exists on x86-64 only, and latentd asks only Linux for it.
    pub fn is_available() -> bool {
        false
    }

    /// Never begins.
    pub struct Session(std::convert::Infallible);

    impl Session {
        pub fn begin() -> Self {
            unreachable!("the machine has no matrix unit")
        }

        pub fn zero<const T: u8>(&self) {
            match self.0 {}
        }

        /// # Safety
        /// None is needed.
        pub unsafe fn load<const T: u8>(&self, _: *const u8, _: usize) {
            match self.0 {}
        }

        /// # Safety
        /// None is needed.
        pub unsafe fn store<const T: u8>(&self, _: *mut u8, _: usize) {
            match self.0 {}
        }

        pub fn dot<const C: u8, const A: u8, const B: u8>(&self) {
            match self.0 {}
        }
    }
}

pub(super) use instructions::{Session, is_available};
