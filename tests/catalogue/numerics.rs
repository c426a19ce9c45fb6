//! Tests of the digest that says which saved states of a generation can be used.

use latentd::{
    catalogue::Numerics,
    device::{Device, Precision},
    kernels::{Kernels, Rows, winograd},
};

use super::*;

#[test]
fn a_saved_state_is_used_only_with_the_same_kernels_rows_and_precision() {
    let (catalogue, _) = catalogue(&["sd1"]);
    let limits = Limits {
        max_side_pixels: 1024,
        max_pixels: 1 << 20,
        max_images: 1,
        max_steps: 50,
        max_seconds: 30.0,
        max_frames: 121,
        max_prompt_chars: 1000,
    };
    let rules = CatalogueRules { catalogue: &catalogue, limits: &limits };
    let job = |seed: u32| {
        let Value::Object(body) = json!({"model": "sd1", "prompt": "a fox", "seed": seed}) else { unreachable!() };
        resolve(Fields::new(body), &rules).unwrap()
    };
    let with = |kernels| Device::host().with_kernels(kernels);
    let devices = [
        with(Kernels::default()),
        with(Kernels::Packed(winograd::Use::Off)),
        with(Kernels::Reference(Rows::Apart)),
        with(Kernels::Reference(Rows::Together)),
        with(Kernels::Reference(Rows::Apart)).with_precision(Some(Precision::F16)).unwrap(),
    ];
    let digests: Vec<_> = devices.iter().map(|device| Numerics::of(&job(1), &catalogue, device)).collect();
    for (i, digest) in digests.iter().enumerate() {
        assert_eq!(*digest, Numerics::of(&job(2), &catalogue, &devices[i]), "device {i}");
        assert!(!digests[..i].contains(digest), "device {i} has the digest of another one");
    }
}
