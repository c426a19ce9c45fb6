//! A scripted device: computes on the CPU, with the faults that a test sets.

#![allow(dead_code, reason = "each test target uses its part")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use latentd::device::{Device, Fault, FaultError, GpuMemory, Layer, Script};
use parking_lot::Mutex;

/// The faults and delays of a device. All fields may be set while the device computes.
#[derive(Debug)]
pub struct Scripted {
    /// Batches with more bytes of activations run out of memory.
    pub bytes: AtomicU64,
    /// Batches with more rows run out of memory.
    pub rows: AtomicUsize,
    /// The batches, counted from 0, that run out of memory once.
    pub out_of_memory_at: Mutex<Vec<usize>>,
    /// The layer, counted over all batches, at which the device is lost.
    pub lost_at: AtomicUsize,
    /// A batch with more bytes of activations for each row loses the device.
    pub lost_above: AtomicU64,
    /// The layer, counted over all batches, at which the device is lost. The call reports another error.
    pub secretly_lost_at: AtomicUsize,
    /// The layer, counted over all batches, at which the device hangs for ever.
    pub hangs_at: AtomicUsize,
    /// Microseconds that each layer takes in addition.
    pub delay_us: AtomicU64,
    is_lost: AtomicBool,
    /// How many batches and layers have begun.
    pub batches: AtomicUsize,
    pub layers: AtomicUsize,
    /// How many batches ran out of memory.
    pub refused: AtomicUsize,
    /// Layers that were requested after the device was lost.
    pub after_loss: AtomicUsize,
    /// The largest number of bytes per row of any batch.
    pub bytes_per_row: AtomicU64,
    /// The device's own memory in bytes, all of it free for a batch; `u64::MAX`: the device does not report its memory.
    pub memory: AtomicU64,
    /// Whether weights are in the device's own memory.
    is_gpu: bool,
}

impl Scripted {
    /// A device without faults.
    pub fn new() -> Arc<Scripted> {
        Arc::new(Scripted::plain())
    }

    /// A device without faults, with memory of its own.
    pub fn gpu(memory: u64) -> Arc<Scripted> {
        Arc::new(Scripted { memory: memory.into(), is_gpu: true, ..Scripted::plain() })
    }

    fn plain() -> Scripted {
        Scripted {
            bytes: u64::MAX.into(),
            rows: usize::MAX.into(),
            out_of_memory_at: Mutex::default(),
            lost_at: usize::MAX.into(),
            lost_above: u64::MAX.into(),
            secretly_lost_at: usize::MAX.into(),
            hangs_at: usize::MAX.into(),
            delay_us: 0.into(),
            is_lost: false.into(),
            batches: 0.into(),
            layers: 0.into(),
            refused: 0.into(),
            after_loss: 0.into(),
            bytes_per_row: 0.into(),
            memory: u64::MAX.into(),
            is_gpu: false,
        }
    }

    /// The device of this script, with one thread.
    pub fn device(self: &Arc<Scripted>, name: &str) -> Device {
        Device::cpu(name, None, 1).unwrap().with_script(self.clone())
    }

    /// Counts batches and layers from 0 again, and removes the faults that depend on these numbers.
    pub fn restart(&self) {
        self.out_of_memory_at.lock().clear();
        for number in [&self.batches, &self.layers, &self.refused] {
            number.store(0, SeqCst);
        }
    }

    /// The device is lost at its next layer.
    pub fn lose(&self) {
        self.lost_at.store(0, SeqCst);
    }

    pub fn is_lost(&self) -> bool {
        self.is_lost.load(SeqCst)
    }
}

impl Script for Scripted {
    fn is_gpu(&self) -> bool {
        self.is_gpu
    }

    fn memory(&self) -> Option<GpuMemory> {
        let total = self.memory.load(SeqCst);
        (total < u64::MAX).then_some(GpuMemory { total, free: total })
    }

    fn waited(&self) -> Result<(), FaultError> {
        let lost = FaultError { fault: Fault::Lost, detail: "the scripted device is lost".to_owned() };
        if self.is_lost() { Err(lost) } else { Ok(()) }
    }

    fn before(&self, layer: Layer) -> Result<(), FaultError> {
        let at = self.layers.fetch_add(1, SeqCst);
        let fault = |fault, detail: String| Err(FaultError { fault, detail });
        if self.is_lost() {
            self.after_loss.fetch_add(1, SeqCst);
            return fault(Fault::Lost, "the scripted device is lost".to_owned());
        }
        let bytes_per_row = layer.bytes / layer.rows.max(1) as u64;
        if at >= self.lost_at.load(SeqCst) || bytes_per_row > self.lost_above.load(SeqCst) {
            self.is_lost.store(true, SeqCst);
            return fault(Fault::Lost, format!("the scripted device is lost at layer {at}"));
        }
        if at >= self.secretly_lost_at.load(SeqCst) {
            self.is_lost.store(true, SeqCst);
            return fault(Fault::Call, format!("a library fails at layer {at}"));
        }
        while at >= self.hangs_at.load(SeqCst) {
            std::thread::park_timeout(Duration::from_secs(60));
        }
        std::thread::sleep(Duration::from_micros(self.delay_us.load(SeqCst)));
        if layer.index > 0 {
            return Ok(());
        }
        let batch = self.batches.fetch_add(1, SeqCst);
        self.bytes_per_row.fetch_max(bytes_per_row, SeqCst);
        let once = self.out_of_memory_at.lock().contains(&batch);
        if once || layer.bytes > self.bytes.load(SeqCst) || layer.rows > self.rows.load(SeqCst) {
            self.refused.fetch_add(1, SeqCst);
            return fault(Fault::OutOfMemory, format!("the scripted device has no memory for {} bytes", layer.bytes));
        }
        Ok(())
    }
}
