//! Fuzz target for the readers of weight files: adapters, textual inversions, single-file checkpoints and components of
//! model folders. Readers must accept or reject any input without panicking or allocating much memory (`make fuzz` sets
//! the limit).
//!
//! Only `src/weights` is compiled, with stand-ins for the other modules that it uses, because all of latentd would take
//! much longer to compile.

#![no_main]
#![allow(dead_code, unused_imports)]

#[path = "../../src"]
mod rooms {
    pub mod hex;
    pub mod weights;
}

/// The families' descriptions of their single-file checkpoints.
#[path = "../../src/families"]
mod families {
    #[path = "stable_diffusion"]
    pub mod stable_diffusion {
        pub mod checkpoint;
    }
    #[path = "stable_diffusion_xl"]
    pub mod stable_diffusion_xl {
        pub mod checkpoint;
    }
    #[path = "stable_diffusion_xl_refiner"]
    pub mod stable_diffusion_xl_refiner {
        pub mod checkpoint;
    }
}

/// The part of `src/generation` that messages use.
#[path = "../../src/generation"]
mod generation {
    mod shown;
    pub use shown::Shown;
}

/// Stand-in for `src/transient`: the fuzzer reads no files.
mod transient {
    pub fn is_transient(_: &std::io::Error) -> bool {
        false
    }
}

use latentd_kernels as kernels;

/// Stand-in for `src/device`: the place of tensors.
#[path = "../../src/device"]
mod device {
    mod precision;
    pub use precision::Precision;

    pub const HOST: candle_core::Device = candle_core::Device::Cpu;

    #[derive(Clone, Debug)]
    pub struct Device;

    impl Device {
        pub fn host() -> Device {
            Device
        }

        pub fn candle(&self) -> &candle_core::Device {
            &candle_core::Device::Cpu
        }

        pub fn note_copied(&self, _: u64) {}

        pub fn kernels(&self) -> crate::kernels::Kernels {
            crate::kernels::Kernels::default()
        }
    }
}

use std::{borrow::Cow, cell::RefCell, collections::BTreeMap};

use device::Device;
use libfuzzer_sys::fuzz_target;
use rooms::{hex, weights};
use weights::{
    Checkpoint, ModelFolder, Weights,
    lora::{Lora, Modules},
    textual_inversion::TextualInversion,
};

fuzz_target!(|data: &[u8]| {
    let file = file(data);
    let _ = Lora::read("fuzz", &file, &modules());
    let _ = TextualInversion::read("fuzz", &file, [Some(4), Some(6)]);
    if let Ok(folder) = ModelFolder::single_held("fuzz", file.clone(), CHECKPOINTS) {
        for component in ["unet", "vae", "text_encoder", "text_encoder_2"] {
            read_all(&folder, component);
        }
    }
    FILE.with_borrow_mut(|held| *held = file);
    let files = ["unet/diffusion_pytorch_model.safetensors"].map(Cow::Borrowed);
    let read = |path: &str| path.ends_with(".safetensors").then(|| Cow::Owned(FILE.with_borrow(Vec::clone)));
    read_all(&ModelFolder::embedded("fuzz", files, read), "unet");
    FILE.with_borrow_mut(|held| *held = data.to_vec());
    let read = |path: &str| path.ends_with(".gguf").then(|| Cow::Owned(FILE.with_borrow(Vec::clone)));
    read_all(&ModelFolder::embedded("fuzz", ["transformer/model.gguf"].map(Cow::Borrowed), read), "transformer");
});

const CHECKPOINTS: &[&Checkpoint] = &[
    &families::stable_diffusion::checkpoint::V2,
    &families::stable_diffusion::checkpoint::V1,
    &families::stable_diffusion_xl::checkpoint::CHECKPOINT,
    &families::stable_diffusion_xl_refiner::checkpoint::CHECKPOINT,
];

thread_local! {
    static FILE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The bytes of the file. An input that begins with `{` is a header up to the first zero byte, then the data of the
/// tensors; the length of the header is added, so that the fuzzer need not find lengths that match.
fn file(data: &[u8]) -> Vec<u8> {
    if data.first() != Some(&b'{') {
        return data.to_vec();
    }
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let numbers = data.get(end + 1..).unwrap_or_default();
    [&(end as u64).to_le_bytes(), &data[..end], numbers].concat()
}

/// Reads every tensor of a component in the way in which networks read tensors of its shape.
fn read_all(folder: &ModelFolder, component: &str) {
    let as_it_is = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
    let Ok(weights) = Weights::open(folder, component, "diffusion_pytorch_model", &Device::host(), as_it_is) else {
        return;
    };
    let weights = weights.with_stored_matrices();
    for (name, shape) in weights.stored() {
        match shape[..] {
            [outputs, inputs] => match weights.stored_matrix(&name, outputs, inputs) {
                Some(stored) => drop(stored),
                None => drop(weights.matrix(&name, outputs, inputs)),
            },
            [outputs, inputs, kh, kw] => drop(weights.conv2d(&name, outputs, inputs, (kh, kw))),
            _ => drop(weights.tensor(&name, &shape)),
        }
    }
    let _ = weights.finish();
}

fn modules() -> Modules {
    let mut modules = Modules::default();
    let tensors = [
        ("down_blocks.0.attentions.0.proj_in.weight", vec![6, 5]),
        ("down_blocks.0.resnets.0.conv1.weight", vec![6, 5, 3, 3]),
        ("mid_block.attentions.0.proj_out.weight", vec![6, 5, 1, 1]),
    ];
    modules.add("unet", &tensors.map(|(name, shape)| (name.to_owned(), shape)).into());
    let text = [("text_model.encoder.layers.0.self_attn.q_proj.weight".to_owned(), vec![4, 4])];
    modules.add("text_encoder", &BTreeMap::from(text));
    modules
}
