//! Faults: what an error says about the device that computed.

/// What an error says about the device that computed. All errors of networks are classified here; see [`Fault::of`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// The device had too little free memory. It can still compute, perhaps a batch of fewer rows.
    OutOfMemory,
    /// The device is lost: it fails every later call of this process as well. A new process may be able to use it
    /// again.
    Lost,
    /// The call failed for another reason. The device can still compute.
    #[default]
    Call,
}

/// An error whose fault is known, such as the errors that a [`Script`](super::Script) causes.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{detail}")]
pub struct FaultError {
    pub fault: Fault,
    pub detail: String,
}

/// Names and texts of the errors with which drivers report too little memory.
const OUT_OF_MEMORY: [&str; 4] =
    ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "out of memory"];

/// Names and texts of errors after which a device fails every call of this process. CUDA calls such errors sticky.
/// Other devices of the process can still compute.
const LOST: [&str; 21] = [
    "CUDA_ERROR_ASSERT",
    "CUDA_ERROR_CONTAINED",
    "CUDA_ERROR_CONTEXT_IS_DESTROYED",
    "CUDA_ERROR_DEINITIALIZED",
    "CUDA_ERROR_DEVICE_UNAVAILABLE",
    "CUDA_ERROR_ECC_UNCORRECTABLE",
    "CUDA_ERROR_EXTERNAL_DEVICE",
    "CUDA_ERROR_HARDWARE_STACK_ERROR",
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION",
    "CUDA_ERROR_INVALID_ADDRESS_SPACE",
    "CUDA_ERROR_INVALID_PC",
    "CUDA_ERROR_LAUNCH_FAILED",
    "CUDA_ERROR_LAUNCH_TIMEOUT",
    "CUDA_ERROR_MISALIGNED_ADDRESS",
    "CUDA_ERROR_NVLINK_UNCORRECTABLE",
    "CUDA_ERROR_UNKNOWN",
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "an illegal memory access was encountered",
    "unspecified launch failure",
    "device lost",
];

impl Fault {
    /// Classifies an error of candle by its text. candle boxes the errors of drivers and may wrap them in other errors,
    /// but the text always contains the name or the text of the driver's error.
    pub fn of(error: &candle_core::Error) -> Fault {
        Fault::of_text(&error.to_string())
    }

    /// Classifies an error by its text.
    pub fn of_text(text: &str) -> Fault {
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        match (has(&LOST), has(&OUT_OF_MEMORY)) {
            (true, _) => Fault::Lost,
            (false, true) => Fault::OutOfMemory,
            (false, false) => Fault::Call,
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Error;

    use super::*;

    /// The texts of cudarc 0.19, which candle 0.11 boxes or wraps.
    #[test]
    fn errors_of_drivers_are_found_however_candle_wraps_them() {
        let out = r#"DriverError(CUDA_ERROR_OUT_OF_MEMORY, "out of memory")"#;
        let lost = r#"DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered")"#;
        for (text, fault) in [
            (out, Fault::OutOfMemory),
            ("CublasError(CUBLAS_STATUS_ALLOC_FAILED)", Fault::OutOfMemory),
            (lost, Fault::Lost),
            (r#"DriverError(CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure")"#, Fault::Lost),
            ("shape mismatch in conv2d, lhs: [1, 4, 8, 8], rhs: [320, 9, 3, 3]", Fault::Call),
        ] {
            let boxed = || Error::Cuda(Box::new(FaultError { fault: Fault::Call, detail: text.to_owned() }));
            for error in [boxed(), Error::wrap(text.to_owned()), Error::msg(text), boxed().context("in a layer")] {
                assert_eq!(Fault::of(&error), fault, "{error}");
            }
            let within = Error::WithPath { inner: Box::new(boxed()), path: "unet".into() };
            assert_eq!(Fault::of(&within), fault, "{within}");
        }
    }

    #[test]
    fn a_lost_device_is_lost_although_memory_is_named_too() {
        let text = "out of memory after CUDA_ERROR_ECC_UNCORRECTABLE";
        assert_eq!(Fault::of_text(text), Fault::Lost);
        assert_eq!(Fault::of_text(""), Fault::Call);
    }
}
