//! Tests of the catalogue: which models are in memory, which requests wait, and which files are listed with a fault.

#[path = "catalogue/bounds.rs"]
mod bounds;
#[path = "catalogue/families.rs"]
mod families;
#[path = "catalogue/numerics.rs"]
mod numerics;
#[path = "support/scripted_device.rs"]
mod scripted_device;
#[path = "catalogue/words.rs"]
mod words;

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use candle_core::{DType, Device, Tensor};
use latentd::{
    catalogue::{Acquired, Adapters, Catalogue, CatalogueError, ControlNets, ModelLease, Ticket},
    generation::{Fields, ImageField, InputImage, Limits, Work, resolve},
    metrics::Metrics,
    pipelines::LatentDiffusion,
    service::CatalogueRules,
};
use scripted_device::Scripted;
use serde_json::{Value, json};

type AcquireResult = Result<Acquired, CatalogueError>;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/pipelines")
}

/// A catalogue of the fixtures' models. The memory bound is the sum of the models in `fit`.
fn catalogue(fit: &[&str]) -> (Catalogue, Metrics) {
    let metrics = Metrics::new();
    let catalogue = Catalogue::open(&fixtures(), "sd1").unwrap().counted_in(metrics.clone());
    let bytes = fit.iter().map(|name| catalogue.bytes(name).unwrap()).sum();
    (catalogue.within(bytes), metrics)
}

/// Polls an acquisition once.
fn poll_once(future: Pin<&mut (impl Future<Output = AcquireResult> + ?Sized)>) -> Poll<AcquireResult> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Acquires a model with a single poll. Returns `None` if the request would wait.
fn at_once(catalogue: &Catalogue, name: &str) -> Option<Acquired> {
    match poll_once(pin!(catalogue.acquire(name))) {
        Poll::Ready(acquired) => Some(acquired.unwrap()),
        Poll::Pending => None,
    }
}

fn ticket(acquired: Option<Acquired>) -> Ticket {
    match acquired {
        Some(Acquired::Cold(ticket)) => ticket,
        other => panic!("not a ticket: {other:?}"),
    }
}

fn lease(acquired: Option<Acquired>) -> ModelLease {
    match acquired {
        Some(Acquired::Ready(lease)) => lease,
        other => panic!("not a lease: {other:?}"),
    }
}

fn ready(poll: Poll<AcquireResult>) -> Option<Acquired> {
    match poll {
        Poll::Ready(acquired) => Some(acquired.unwrap()),
        Poll::Pending => None,
    }
}

/// Each number counts four bytes. Only weights of at least 2¹⁸ numbers count two bytes if the file stores them so, as
/// the file of sd2 does, with the outputs rounded up to panels of 16.
#[test]
fn a_model_takes_four_bytes_for_each_number_or_two_in_large_weights() {
    let (catalogue, _) = catalogue(&[]);
    for name in ["sd1", "sd2", "ip2p"] {
        let mut bytes = 0;
        for file in ["text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"] {
            let file = std::fs::read(fixtures().join(name).join(format!("{file}.safetensors"))).unwrap();
            let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
            let of = |tensor: &safetensors::tensor::TensorView<'_>| {
                let (shape, count) = (tensor.shape(), tensor.shape().iter().product::<usize>());
                match tensor.dtype() {
                    safetensors::Dtype::F16 if count >= 1 << 18 && [2, 4].contains(&shape.len()) => {
                        2 * count / shape[0] * shape[0].next_multiple_of(16)
                    }
                    _ => 4 * count,
                }
            };
            bytes += tensors.iter().map(|(_, tensor)| of(&tensor) as u64).sum::<u64>();
        }
        assert_eq!(catalogue.bytes(name), Some(bytes), "{name}");
    }
    assert_eq!(catalogue.bytes("none"), None);
}

#[test]
fn a_model_is_loaded_once_for_concurrent_requests() {
    let (catalogue, metrics) = catalogue(&["sd1"]);
    let first = ticket(at_once(&catalogue, "sd1"));
    assert_eq!(catalogue.state("sd1").0, "loading");
    let mut others: Vec<_> = (0..5).map(|_| Box::pin(catalogue.acquire("sd1"))).collect();
    assert!(others.iter_mut().all(|other| poll_once(other.as_mut()).is_pending()));
    let model = first.read().unwrap();
    for other in &mut others {
        let lease = lease(ready(poll_once(other.as_mut())));
        assert!(Arc::ptr_eq(lease.model(), model.model()));
    }
    assert!(metrics.render().contains(r#"latentd_model_loads_total{model="sd1",result="loaded"} 1"#));
}

#[test]
fn the_default_model_and_preloaded_models_are_awaited_once() {
    let (catalogue, _) = catalogue(&["sd1"]);
    let catalogue = catalogue.preloading(&["sd2".to_owned()]).unwrap();
    assert_eq!(catalogue.awaited(), ["sd1", "sd2"]);
    catalogue.load("sd2").unwrap();
    assert_eq!(catalogue.awaited(), ["sd1"]);
    catalogue.load("sd1").unwrap();
    assert_eq!((catalogue.state("sd2").0, catalogue.awaited().len()), ("cold", 0), "it was loaded before");
    let error = catalogue.preloading(&["none".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("\"none\" of models.preload"), "{error}");
}

/// Loading such a model would make the system end the process.
#[test]
fn a_model_that_exceeds_the_memory_is_refused_with_the_figures_also_after_a_reload() {
    let (catalogue, _) = catalogue(&[]);
    let (small, large) = (catalogue.bytes("sd1").unwrap(), catalogue.bytes("emoji").unwrap());
    assert!(small < large);
    let catalogue = catalogue.in_memory(large).unwrap();
    assert_eq!(catalogue.fault("emoji"), None, "it just fits");

    let catalogue = catalogue.in_memory(large - 1).unwrap();
    let megabytes = |bytes: u64| bytes / 1_000_000;
    let [needed, most] = [large.div_ceil(1_000_000), megabytes(large - 1)];
    let reason = format!("its weights take {needed} MB of memory, but there are only {most} MB for weights");
    assert_eq!(catalogue.fault("emoji").as_deref(), Some(&*reason));
    assert_eq!(catalogue.fault("sd1"), None);
    catalogue.reload().unwrap();
    assert_eq!(catalogue.fault("emoji").as_deref(), Some(&*reason));
    let error = catalogue.load("emoji").unwrap_err().to_string();
    assert!(error.contains(&reason), "{error}");

    let error = catalogue.in_memory(small - 1).unwrap_err().to_string();
    assert!(error.contains("the default model \"sd1\" cannot be used: its weights take"), "{error}");
}

#[test]
fn a_dropped_ticket_goes_to_the_next_request() {
    let (catalogue, metrics) = catalogue(&["sd1"]);
    let first = ticket(at_once(&catalogue, "sd1"));
    let mut second = pin!(catalogue.acquire("sd1"));
    assert!(poll_once(second.as_mut()).is_pending());
    drop(first);
    assert_eq!(metrics.model_bytes.get(), 0);
    ticket(ready(poll_once(second))).read().unwrap();
    assert_eq!(metrics.model_bytes.get() as u64, catalogue.bytes("sd1").unwrap());
}

#[test]
fn two_models_are_loaded_together_only_if_both_fit() {
    let (both, _) = catalogue(&["sd1", "sd2"]);
    let _first = ticket(at_once(&both, "sd1"));
    ticket(at_once(&both, "sd2"));

    let (one, _) = catalogue(&["sd1"]);
    let first = ticket(at_once(&one, "sd1"));
    let mut second = pin!(one.acquire("sd2"));
    assert!(poll_once(second.as_mut()).is_pending());
    let used = first.read().unwrap();
    assert!(poll_once(second.as_mut()).is_pending(), "the first model is in use");
    let another_handle = used.model().clone();
    drop(used);
    assert!(poll_once(second.as_mut()).is_pending(), "the first model is still in use");
    drop(another_handle);
    ticket(ready(poll_once(second))).read().unwrap();
    assert_eq!((one.state("sd1").0, one.state("sd2").0), ("cold", "ready"));
}

#[test]
fn a_model_on_two_devices_takes_its_memory_twice() {
    let (catalogue, metrics) = catalogue(&["sd1", "sd1"]);
    let device = |name: &str| latentd::device::Device::cpu(name, None, 1).unwrap();
    let catalogue = catalogue.on(vec![device("a"), device("b")]);
    let on = |device: usize, name: &str| match poll_once(pin!(catalogue.acquire_on(device, name))) {
        Poll::Ready(acquired) => Some(acquired.unwrap()),
        Poll::Pending => None,
    };
    let standing = |device: usize| {
        let standing = catalogue.standing_on("sd1", device).unwrap();
        (standing.is_there, standing.has_room)
    };
    assert_eq!([standing(0), standing(1)], [(false, true), (false, true)]);
    let first = ticket(on(0, "sd1")).read().unwrap();
    assert_eq!([standing(0), standing(1)], [(true, true), (false, true)]);
    let second = ticket(on(1, "sd1")).read().unwrap();
    assert!(!Arc::ptr_eq(first.model(), second.model()));
    assert!(Arc::ptr_eq(first.model(), lease(on(0, "sd1")).model()));
    assert_eq!(metrics.model_bytes.get() as u64, 2 * catalogue.bytes("sd1").unwrap());
    assert!(on(0, "sd2").is_none(), "both copies are in use");
    drop(second);
    assert_eq!(catalogue.state("sd1").0, "ready");
    drop(ticket(on(0, "sd2")));
    assert_eq!([standing(0).0, standing(1).0], [true, false], "the unused copy is unloaded");
    drop(first);
}

/// Two GPUs with room for two models each: what one GPU holds and uses does not count for the other, nor for the host.
#[test]
fn each_gpu_unloads_its_own_least_recently_used_model() {
    let (catalogue, metrics) = catalogue(&["sd1"]);
    let sizes = ["sd1", "sd2", "sd1-inpaint"].map(|name| catalogue.bytes(name).unwrap());
    let gpu = |name: &str| Scripted::gpu(1 << 40).device(name);
    let catalogue = catalogue.on(vec![gpu("a"), gpu("b")]).within_own(sizes.iter().sum::<u64>() - 1, 0);
    let on = |device: usize, name: &str| match poll_once(pin!(catalogue.acquire_on(device, name))) {
        Poll::Ready(acquired) => acquired.unwrap(),
        Poll::Pending => panic!("{name} waits on {device}"),
    };
    let standing = |device: usize| {
        ["sd1", "sd2", "sd1-inpaint"].map(|name| {
            let standing = catalogue.standing_on(name, device).unwrap();
            (standing.is_there, standing.has_room)
        })
    };
    let held = [0, 1].map(|device| ticket(Some(on(device, "sd1"))).read().unwrap());
    drop(ticket(Some(on(0, "sd2"))).read().unwrap());
    assert_eq!(standing(0), [(true, true), (true, true), (false, false)]);
    assert_eq!(standing(1), [(true, true), (false, true), (false, true)], "the other GPU has room");
    drop(held);
    drop(on(0, "sd2"));
    drop(ticket(Some(on(0, "sd1-inpaint"))).read().unwrap());
    assert_eq!(standing(0).map(|(is_there, _)| is_there), [false, true, true]);
    assert_eq!(standing(1).map(|(is_there, _)| is_there), [true, false, false]);
    let told = ["a", "b"].map(|device| metrics.device_model_bytes.with_label_values(&[device]).get() as u64);
    assert_eq!(told, [sizes[1] + sizes[2], sizes[0]]);
    assert_eq!(metrics.model_bytes.get() as u64, sizes.iter().sum::<u64>());
    assert!(catalogue.check_together(0, "sd1", "sd2").is_ok());
    let error = catalogue.within_own(1, 0).check_together(0, "sd1", "sd2").unwrap_err().to_string();
    assert!(error.contains("models.gpu_max_bytes is"), "{error}");
}

/// By default the bound of a GPU is a part of what is free there when the server starts.
#[test]
fn a_gpu_without_a_setting_has_a_bound_by_its_free_memory() {
    let (catalogue, _) = catalogue(&["sd1"]);
    let bytes = catalogue.bytes("sd1").unwrap();
    let standing = |memory: u64| {
        let (catalogue, _) = self::catalogue(&["sd1"]);
        let catalogue = catalogue.on(vec![Scripted::gpu(memory).device("a")]).within_own(0, 0);
        catalogue.standing_on("sd1", 0).unwrap().has_room
    };
    assert_eq!([standing(8 * bytes / 5 + 8), standing(8 * bytes / 5 - 8)], [true, false]);
}

#[test]
fn the_least_recently_used_model_is_unloaded() {
    let (catalogue, metrics) = catalogue(&["sd1", "sd2"]);
    catalogue.load("sd1").unwrap();
    catalogue.load("sd2").unwrap();
    drop(lease(at_once(&catalogue, "sd1")));
    catalogue.load("sd1-inpaint").unwrap();
    let states = ["sd1", "sd2", "sd1-inpaint"].map(|name| catalogue.state(name).0);
    assert_eq!(states, ["ready", "cold", "ready"]);
    assert!(metrics.render().contains(r#"latentd_model_unloads_total{model="sd2"} 1"#));
    let bytes = ["sd1", "sd1-inpaint"].map(|name| catalogue.bytes(name).unwrap());
    assert_eq!(metrics.model_bytes.get() as u64, bytes.iter().sum::<u64>());
}

#[test]
fn a_model_larger_than_the_bound_is_loaded_alone() {
    let (catalogue, metrics) = catalogue(&["ip2p"]);
    catalogue.load("ip2p").unwrap();
    let large = catalogue.load("sd1").unwrap();
    assert_eq!(catalogue.state("ip2p").0, "cold");
    assert_eq!(metrics.model_bytes.get() as u64, catalogue.bytes("sd1").unwrap());
    assert!(at_once(&catalogue, "ip2p").is_none(), "no other model fits");
    drop(large);
    ticket(at_once(&catalogue, "ip2p"));
}

#[test]
fn a_model_in_steady_use_does_not_block_others_forever() {
    let (catalogue, _) = catalogue(&["sd1", "ip2p"]);
    let mut uses = vec![ticket(at_once(&catalogue, "sd1")).read().unwrap()];
    let beside = ticket(at_once(&catalogue, "ip2p")).read().unwrap();
    let mut other = pin!(catalogue.acquire("sd2"));
    assert!(poll_once(other.as_mut()).is_pending());
    // The uses overlap, so the model is never idle. Some uses overtake the waiting request.
    let mut served = 0;
    while let Some(acquired) = at_once(&catalogue, "sd1") {
        uses.push(lease(Some(acquired)));
        uses.remove(0);
        served += 1;
        assert!(served < 1000, "the waiting request is overtaken forever");
    }
    assert!(served > 4, "others run in the meantime");
    let mut later = pin!(catalogue.acquire("sd1"));
    assert!(poll_once(later.as_mut()).is_pending());
    uses.clear();
    drop(beside);
    let used = ticket(ready(poll_once(other))).read().unwrap();
    assert!(poll_once(later.as_mut()).is_pending());
    drop(used);
    assert!(ready(poll_once(later)).is_some());
}

#[test]
fn a_holder_of_a_model_gets_a_second_model_before_others() {
    let (catalogue, _) = catalogue(&["sd1", "sd2"]);
    let held = ticket(at_once(&catalogue, "sd1")).read().unwrap();
    let other = ticket(at_once(&catalogue, "ip2p")).read().unwrap();
    let mut waits = pin!(catalogue.acquire("sd1-inpaint"));
    assert!(poll_once(waits.as_mut()).is_pending());
    // The least recently used model occupies the room, so requests for both overtake, until the room is reserved.
    while at_once(&catalogue, "sd1").is_some() {
        lease(at_once(&catalogue, "ip2p"));
    }
    assert!(at_once(&catalogue, "sd2").is_none());

    let mut beside = Box::pin(catalogue.acquire_beside(0, "sd2", Some(&held)));
    assert!(poll_once(beside.as_mut()).is_pending(), "the other model is in use");
    drop(other);
    let second = ticket(ready(poll_once(beside.as_mut()))).read().unwrap();
    drop(beside);
    assert_eq!(["sd1", "sd2", "ip2p"].map(|name| catalogue.state(name).0), ["ready", "ready", "cold"]);
    assert!(poll_once(waits.as_mut()).is_pending());
    drop((held, second));
    assert!(ready(poll_once(waits)).is_some());
}

#[test]
fn a_dropped_request_blocks_nobody() {
    let (catalogue, _) = catalogue(&["sd1"]);
    let mut uses = vec![ticket(at_once(&catalogue, "sd1")).read().unwrap()];
    {
        let mut other = pin!(catalogue.acquire("sd2"));
        assert!(poll_once(other.as_mut()).is_pending());
        while let Some(acquired) = at_once(&catalogue, "sd1") {
            uses.push(lease(Some(acquired)));
        }
    }
    lease(at_once(&catalogue, "sd1"));
}

#[test]
fn faults_in_headers_are_found_at_the_listing_and_can_be_repaired() {
    let models = tempfile::tempdir().unwrap();
    copy(&fixtures().join("sd1"), &models.path().join("sd1"));
    let weights = models.path().join("sd1/vae/diffusion_pytorch_model.safetensors");
    let sound = std::fs::read(&weights).unwrap();
    // The header of the file is valid, but the numbers have an unsupported type.
    let mut broken = sound.clone();
    for at in positions(&broken, b"\"F32\"") {
        broken[at..at + 5].copy_from_slice(b"\"I32\"");
    }
    std::fs::write(&weights, &broken).unwrap();
    let catalogue = Catalogue::open(models.path(), "emoji").unwrap();
    let (state, reason) = catalogue.state("sd1");
    assert!(
        state == "failed" && reason.as_ref().is_some_and(|reason| reason.contains("vae") && reason.contains("I32"))
    );
    assert_eq!((catalogue.fault("sd1"), catalogue.bytes("sd1")), (reason, None));
    assert!(matches!(poll_once(pin!(catalogue.acquire("sd1"))), Poll::Ready(Err(CatalogueError::Load { .. }))));
    std::fs::write(&weights, &sound).unwrap();
    assert_eq!(catalogue.reload().unwrap().models.changed, ["sd1"]);
    catalogue.load("sd1").unwrap();
    assert_eq!(catalogue.state("sd1"), ("ready", None));
}

#[test]
fn files_that_change_after_the_listing_fail_all_waiting_requests() {
    let models = tempfile::tempdir().unwrap();
    copy(&fixtures().join("sd1"), &models.path().join("sd1"));
    let weights = models.path().join("sd1/vae/diffusion_pytorch_model.safetensors");
    let sound = std::fs::read(&weights).unwrap();
    let catalogue = Catalogue::open(models.path(), "sd1").unwrap();
    std::fs::write(&weights, &sound[..sound.len() / 2]).unwrap();
    let first = ticket(at_once(&catalogue, "sd1"));
    let mut second = pin!(catalogue.acquire("sd1"));
    assert!(poll_once(second.as_mut()).is_pending());
    let error = first.read().unwrap_err().to_string();
    assert!(error.contains("\"sd1\"") && error.contains("changed"), "{error}");
    match poll_once(second) {
        Poll::Ready(Err(same)) => assert_eq!(same.to_string(), error),
        other => panic!("{other:?}"),
    }
    assert_eq!(catalogue.state("sd1").0, "failed");
    catalogue.reload().unwrap();
    let fault = catalogue.fault("sd1").unwrap();
    assert!(fault.contains("incomplete"), "{fault}");
    std::fs::write(&weights, &sound).unwrap();
    catalogue.reload().unwrap();
    catalogue.load("sd1").unwrap();
    assert_eq!(catalogue.state("sd1"), ("ready", None));
}

/// Running generations keep their model. Later ones get the new files and no cached results of the old files.
#[test]
fn a_replaced_model_is_a_new_model() {
    let models = tempfile::tempdir().unwrap();
    copy(&fixtures().join("sd1"), &models.path().join("mine"));
    let metrics = Metrics::new();
    let catalogue = Catalogue::open(models.path(), "emoji").unwrap().counted_in(metrics.clone());
    let old = ticket(at_once(&catalogue, "mine")).read().unwrap();
    let old_key = old.model().key.clone();
    assert!(catalogue.reload().unwrap().models.is_empty(), "nothing has changed");
    assert!(Arc::ptr_eq(lease(at_once(&catalogue, "mine")).model(), old.model()));

    std::fs::remove_dir_all(models.path().join("mine")).unwrap();
    copy(&fixtures().join("sd2"), &models.path().join("mine"));
    // Two polls must see the same files, so a copy in progress is not read halfway.
    assert!(catalogue.poll().unwrap().is_none());
    let read = catalogue.poll().unwrap().expect("both polls see the same files");
    assert_eq!(read.models.changed, ["mine"]);
    assert!(catalogue.poll().unwrap().is_none() && catalogue.poll().unwrap().is_none());
    assert_eq!(catalogue.state("mine").0, "cold");
    let new = ticket(at_once(&catalogue, "mine")).read().unwrap();
    assert!(new.model().key != old_key && new.model().name == "mine");
    assert_eq!(LatentDiffusion::of(old.model()).unwrap().spec().context_width, catalogue_width("sd1"));
    assert_eq!(LatentDiffusion::of(new.model()).unwrap().spec().context_width, catalogue_width("sd2"));

    // The old model is unloaded as soon as it is unused.
    let both = metrics.model_bytes.get() as u64;
    drop(old);
    assert!((metrics.model_bytes.get() as u64) < both);
    assert_eq!(metrics.model_bytes.get() as u64, catalogue.bytes("mine").unwrap());

    drop(new);
    std::fs::rename(models.path().join("mine"), models.path().join("yours")).unwrap();
    let read = catalogue.reload().unwrap().models;
    assert_eq!((read.added, read.removed, read.changed), (vec!["yours".into()], vec!["mine".into()], vec![]));
    assert_eq!((catalogue.gone(), metrics.model_bytes.get()), (vec!["mine".to_owned()], 0));
    assert!(matches!(poll_once(pin!(catalogue.acquire("mine"))), Poll::Ready(Err(CatalogueError::Unknown(_)))));
    // A folder that cannot be read changes nothing.
    std::fs::remove_dir_all(models.path()).unwrap();
    assert!(catalogue.reload().is_err() && catalogue.poll().is_err());
    assert_eq!(catalogue.names(), ["emoji", "yours"]);
}

/// tar, `cp -p` and `rsync -t` can write a file with the size and modification time of the old file.
#[test]
fn a_replaced_file_with_the_same_size_and_time_is_noticed() {
    let place = tempfile::tempdir().unwrap();
    copy(&fixtures().join("sd1"), &place.path().join("models/sd1"));
    let weights = place.path().join("models/sd1/unet/diffusion_pytorch_model.safetensors");
    let lora = place.path().join("loras/a.safetensors");
    std::fs::create_dir(place.path().join("loras")).unwrap();
    std::fs::write(&lora, [&2u64.to_le_bytes()[..], b"{}"].concat()).unwrap();
    let adapters = Adapters::open(&place.path().join("loras"), Path::new("")).unwrap();
    let catalogue = Catalogue::open(&place.path().join("models"), "emoji").unwrap().with_adapters(adapters);
    let catalogue = catalogue.with_control_nets(ControlNets::open(Path::new("")).unwrap());
    assert!(catalogue.reload().unwrap().is_empty());

    // Replace the file by renaming another one, and overwrite the file.
    for (path, in_place) in [(&weights, false), (&weights, true), (&lora, true)] {
        let before = std::fs::metadata(path).unwrap();
        let content = std::fs::read(path).unwrap();
        let written = if in_place { path.clone() } else { path.with_extension("new") };
        // The clock of the file system has ticks: write until the change time differs.
        for _ in 0..1_000_000 {
            std::fs::write(&written, &content).unwrap();
            let file = std::fs::File::options().write(true).open(&written).unwrap();
            file.set_modified(before.modified().unwrap()).unwrap();
            let ticked =
                |now: std::fs::Metadata| (now.ctime(), now.ctime_nsec()) != (before.ctime(), before.ctime_nsec());
            if ticked(file.metadata().unwrap()) {
                break;
            }
        }
        if !in_place {
            std::fs::rename(&written, path).unwrap();
        }
        let after = std::fs::metadata(path).unwrap();
        assert_eq!((after.len(), after.modified().unwrap()), (before.len(), before.modified().unwrap()));
        let changed = catalogue.reload().unwrap();
        let (models, loras) = if *path == lora { (0, 1) } else { (1, 0) };
        assert_eq!((changed.models.changed.len(), changed.loras.changed.len()), (models, loras), "{path:?}");
        assert!(catalogue.reload().unwrap().is_empty());
    }
}

/// Weights that are not finite are found when they are loaded. The catalogue does not try the same files again before
/// the operator asks for it.
#[test]
fn a_model_whose_weights_are_not_finite_is_unusable_until_its_files_change_or_a_reload() {
    let models = tempfile::tempdir().unwrap();
    copy(&fixtures().join("sd1"), &models.path().join("sd1"));
    let weights = models.path().join("sd1/unet/diffusion_pytorch_model.safetensors");
    let sound = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, with_nan(&sound)).unwrap();
    let metrics = Metrics::new();
    let catalogue = Catalogue::open(models.path(), "emoji").unwrap().counted_in(metrics.clone());
    let failed = || metrics.model_loads.with_label_values(&["sd1", "failed"]).get();
    for tries in 1..=2 {
        assert_eq!((catalogue.state("sd1").0, catalogue.fault("sd1")), ("cold", None));
        let error = catalogue.load("sd1").unwrap_err().to_string();
        assert!(error.contains("unet/diffusion_pytorch_model.safetensors") && error.contains("NaN"), "{error}");
        let (state, reason) = catalogue.state("sd1");
        assert!(state == "failed" && reason.as_ref().is_some_and(|reason| error.contains(reason)), "{state}");
        assert_eq!((catalogue.fault("sd1"), catalogue.card("sd1").is_some()), (reason, false));
        assert_eq!((catalogue.load("sd1").unwrap_err().to_string(), failed()), (error, tries));
        // A change of other files is no reason to try again, and neither is a generation whose model cannot be loaded.
        std::fs::write(models.path().join(format!("{tries}.ckpt")), b"PK").unwrap();
        assert!(catalogue.poll().unwrap().is_none());
        assert_eq!(catalogue.poll().unwrap().unwrap().models.added.len(), 1);
        assert!(catalogue.list_changes().unwrap().is_empty());
        assert_eq!(catalogue.state("sd1").0, "failed");
        assert!(catalogue.reload().unwrap().is_empty());
    }
    assert!(catalogue.load("sd1").is_err());
    std::fs::write(&weights, &sound).unwrap();
    assert!(catalogue.poll().unwrap().is_none() && catalogue.poll().unwrap().is_some());
    catalogue.load("sd1").unwrap();
    assert_eq!(catalogue.state("sd1"), ("ready", None));
}

#[test]
fn a_control_net_whose_weights_are_not_finite_is_unusable_until_its_files_change_or_a_reload() {
    let nets = tempfile::tempdir().unwrap();
    copy(&fixtures().join("../controlnets/canny"), &nets.path().join("mine"));
    let weights = nets.path().join("mine/diffusion_pytorch_model.safetensors");
    let sound = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, with_nan(&sound)).unwrap();
    let control_nets = ControlNets::open(nets.path()).unwrap();
    let adapters = Adapters::open(Path::new(""), Path::new("")).unwrap();
    let catalogue = Catalogue::open(&fixtures(), "sd1").unwrap().with_control_nets(control_nets);
    let catalogue = catalogue.with_adapters(adapters);
    let card = catalogue.card("sd1").unwrap();
    for _ in 0..2 {
        catalogue.control_nets().check(&card, "mine").unwrap();
        let error = catalogue.control_nets().load("mine", &latentd::device::Device::host()).map(drop).unwrap_err();
        assert!(error.contains("diffusion_pytorch_model.safetensors") && error.contains("NaN"), "{error}");
        let (code, reason) = catalogue.control_nets().check(&card, "mine").unwrap_err();
        assert!(code == "unsupported_for_model" && reason.contains("NaN"), "{code}: {reason}");
        let listed = catalogue.users_of_control_net("mine");
        assert!(listed.models.is_empty() && listed.error.is_some_and(|error| error.contains("NaN")));
        assert!(catalogue.list_changes().unwrap().is_empty());
        assert!(catalogue.control_nets().check(&card, "mine").is_err());
        assert!(catalogue.reload().unwrap().is_empty());
    }
    assert!(catalogue.control_nets().load("mine", &latentd::device::Device::host()).is_err());
    std::fs::write(&weights, &sound).unwrap();
    assert!(catalogue.poll().unwrap().is_none() && catalogue.poll().unwrap().is_some());
    catalogue.control_nets().load("mine", &latentd::device::Device::host()).unwrap();
    assert_eq!(catalogue.users_of_control_net("mine").error, None);
}

#[test]
fn a_git_lfs_pointer_beside_a_single_file_is_named_as_such() {
    let nets = tempfile::tempdir().unwrap();
    let file = fixtures().join("../controlnets/canny/diffusion_pytorch_model.safetensors");
    std::fs::copy(file, nets.path().join("one.safetensors")).unwrap();
    let pointer = format!("version https://hawser.github.com/spec/v1\noid sha256:{}\nsize 9\n", "0".repeat(64));
    std::fs::write(nets.path().join("one.json"), pointer).unwrap();
    let control_nets = ControlNets::open(nets.path()).unwrap();
    let fault = control_nets.names().find(|(name, _)| *name == "one").and_then(|(_, fault)| fault).unwrap();
    assert!(fault.contains("one.json: a Git LFS pointer"), "{fault}");
}

/// A safetensors file whose last number is not a number.
fn with_nan(file: &[u8]) -> Vec<u8> {
    [&file[..file.len() - 4], &f32::NAN.to_le_bytes()].concat()
}

#[test]
fn contradictions_in_a_folder_are_noted() {
    let models = tempfile::tempdir().unwrap();
    copy(&fixtures().join("sd1"), &models.path().join("sd1"));
    let index = models.path().join("sd1/model_index.json");
    let text = std::fs::read_to_string(&index).unwrap().replace("PNDMScheduler", "DDIMScheduler");
    std::fs::write(&index, text).unwrap();
    let catalogue = Catalogue::open(models.path(), "emoji").unwrap();
    let notes = catalogue.notes("sd1");
    assert!(notes.len() == 1 && notes[0].contains("makes the scheduler a DDIMScheduler"), "{notes:?}");
    assert_eq!(serde_json::to_value(&catalogue.card("sd1").unwrap().default_scheduler).unwrap(), "ddim");
}

fn catalogue_width(fixture: &str) -> usize {
    let config = std::fs::read_to_string(fixtures().join(fixture).join("unet/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["cross_attention_dim"].as_u64().unwrap() as usize
}

fn positions(bytes: &[u8], word: &[u8]) -> Vec<usize> {
    (0..bytes.len().saturating_sub(word.len())).filter(|at| bytes[*at..].starts_with(word)).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// Tests the entries of a folder of models and their faults.
#[test]
fn everything_in_the_folder_is_listed_with_its_fault() {
    let models = tempfile::tempdir().unwrap();
    let at = |path: &str| models.path().join(path);
    let sd1 = fixtures().join("sd1");
    for name in ["My Model v1", "noindex", "lfs", "lfsjson", "cut", "binonly", "bintext", "nested/sd1", "sd1.5 (héllo)"]
    {
        copy(&sd1, &at(name));
    }
    let unet = "unet/diffusion_pytorch_model";
    let whole = std::fs::read(sd1.join(format!("{unet}.safetensors"))).unwrap();
    std::fs::remove_file(at("noindex/model_index.json")).unwrap();
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 9\n", "0".repeat(64));
    std::fs::write(at(&format!("lfs/{unet}.safetensors")), &pointer).unwrap();
    std::fs::write(at("lfsjson/scheduler/scheduler_config.json"), &pointer).unwrap();
    std::fs::write(at(&format!("cut/{unet}.safetensors")), &whole[..whole.len() / 2]).unwrap();
    std::fs::rename(at(&format!("binonly/{unet}.safetensors")), at(&format!("binonly/{unet}.bin"))).unwrap();
    // The name that transformers gives to its pickles.
    let text = "bintext/text_encoder";
    std::fs::rename(at(&format!("{text}/model.safetensors")), at(&format!("{text}/pytorch_model.bin"))).unwrap();
    std::fs::write(at("broken.safetensors"), &whole[..1000]).unwrap();
    std::fs::write(at("old.ckpt"), b"PK").unwrap();
    std::fs::write(at("emoji.ckpt"), b"PK").unwrap();
    std::fs::write(at("notes.txt"), b"mine").unwrap();
    std::fs::create_dir(at("empty")).unwrap();
    std::fs::create_dir(at(".git")).unwrap();
    std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
    let catalogue = Catalogue::open(models.path(), "emoji").unwrap();
    let usable: Vec<String> = catalogue.names().into_iter().filter(|name| catalogue.card(name).is_some()).collect();
    assert_eq!(usable, ["My Model v1", "emoji", "nested/sd1", "sd1.5 (héllo)"]);
    for (name, reason) in [
        ("noindex", "no model_index.json"),
        ("lfs", "git lfs pull"),
        ("lfsjson", "scheduler/scheduler_config.json: a Git LFS pointer"),
        ("cut", "incomplete"),
        ("binonly", "unet/diffusion_pytorch_model.bin: a pickle"),
        ("bintext", "text_encoder/pytorch_model.bin: a pickle"),
        ("broken", "incomplete"),
        ("old", "pickle"),
        ("emoji (in the folder)", "pickle"),
        ("empty", "empty"),
        ("dangling", "a link to nowhere, which does not exist"),
    ] {
        let fault = catalogue.fault(name).unwrap_or_else(|| panic!("{name} is not listed"));
        assert!(fault.contains(reason), "{name}: {fault}");
        assert_eq!((catalogue.bytes(name), catalogue.state(name)), (None, ("failed", Some(fault))));
    }
    assert_eq!(catalogue.names().len(), usable.len() + 11);

    // The named folder can itself be a model.
    let catalogue = Catalogue::open(&sd1, "sd1").unwrap();
    assert_eq!(catalogue.names(), ["emoji", "sd1"]);
    let note = catalogue.note().unwrap();
    assert!(note.contains("model_index.json"), "{note}");
}

/// huggingface_hub stores models as snapshots of links into a folder of blobs.
#[test]
fn a_hugging_face_cache_is_read() {
    let place = tempfile::tempdir().unwrap();
    let hub = place.path().join("hub");
    let repository = hub.join("models--a--tiny");
    let snapshot = repository.join("snapshots/0123abcd");
    cache(&fixtures().join("sd1"), &repository.join("blobs"), &snapshot);
    std::fs::create_dir_all(repository.join("refs")).unwrap();
    std::fs::write(repository.join("refs/main"), "0123abcd").unwrap();
    std::fs::create_dir_all(repository.join("snapshots/older")).unwrap();
    std::fs::create_dir_all(hub.join("models--b--half/refs")).unwrap();
    std::fs::create_dir_all(hub.join("models--gpt2/snapshots/1")).unwrap();
    std::fs::create_dir_all(hub.join("datasets--a--b/snapshots/1")).unwrap();
    std::fs::create_dir_all(hub.join(".locks")).unwrap();
    let linked = place.path().join("models");
    std::fs::create_dir(&linked).unwrap();
    std::os::unix::fs::symlink(&snapshot, linked.join("tiny")).unwrap();
    for (dir, names, model) in [
        (&hub, &["a/tiny", "b/half", "emoji", "gpt2"][..], "a/tiny"),
        (&repository, &["a/tiny", "emoji"], "a/tiny"),
        (&snapshot, &["a/tiny", "emoji"], "a/tiny"),
        (&repository.join("snapshots"), &["0123abcd", "emoji", "older"], "0123abcd"),
        (&linked, &["emoji", "tiny"], "tiny"),
    ] {
        let catalogue = Catalogue::open(dir, model).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        assert_eq!(catalogue.names(), names);
    }
    let catalogue = Catalogue::open(&hub, "a/tiny").unwrap();
    assert!(catalogue.fault("b/half").unwrap().contains("hf download"));
    assert!(catalogue.fault("gpt2").unwrap().contains("no model_index.json"));
    catalogue.load("a/tiny").unwrap();
}

/// Links within the folder of models are followed. A linked file outside the folder is not read.
#[test]
fn linked_files_outside_the_folder_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let (models, other) = (place.path().join("models"), place.path().join("other"));
    copy(&fixtures().join("sd1"), &models.join("a"));
    copy(&fixtures().join("sd1"), &models.join("b"));
    copy(&fixtures().join("sd1"), &models.join("c"));
    copy(&fixtures().join("sd1"), &other);
    let config = "unet/config.json";
    for (name, target) in [("b", models.join("a").join(config)), ("c", other.join(config))] {
        std::fs::remove_file(models.join(name).join(config)).unwrap();
        std::os::unix::fs::symlink(target, models.join(name).join(config)).unwrap();
    }
    std::os::unix::fs::symlink(&other, models.join("d")).unwrap();
    let catalogue = Catalogue::open(&models, "emoji").unwrap();
    assert_eq!(["a", "b", "d"].map(|name| catalogue.fault(name)), [None, None, None]);
    let fault = catalogue.fault("c").unwrap();
    assert!(fault.contains("is outside the model folder"), "{fault}");
}

/// Copies a folder into a cache: the files go to `blobs`, and `to` contains links to them.
fn cache(from: &Path, blobs: &Path, to: &Path) {
    std::fs::create_dir_all(blobs).unwrap();
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            cache(&entry.path(), blobs, &to);
            continue;
        }
        let blob = blobs.join(format!("{:08x}", std::fs::read_dir(blobs).unwrap().count()));
        std::fs::copy(entry.path(), &blob).unwrap();
        std::os::unix::fs::symlink(blob, to).unwrap();
    }
}

/// Turns a model into a latent consistency model, whose U-Net has the guidance scale as an input.
fn distill(model: &Path) {
    let unet = model.join("unet");
    let config = unet.join("config.json");
    let mut keys: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    keys["time_cond_proj_dim"] = json!(32);
    std::fs::write(&config, keys.to_string()).unwrap();
    let weights = unet.join("diffusion_pytorch_model.safetensors");
    let mut tensors = candle_core::safetensors::load(&weights, &Device::Cpu).unwrap();
    let projection = Tensor::zeros((8, 32), DType::F32, &Device::Cpu).unwrap();
    tensors.insert("time_embedding.cond_proj.weight".to_owned(), projection);
    candle_core::safetensors::save(&tensors, &weights).unwrap();
}

/// The default guidance scale is the same as in `__call__` of each pipeline of diffusers 0.42.1.
#[test]
fn default_guidance_equals_that_of_diffusers() {
    let models = tempfile::tempdir().unwrap();
    let copied = |name: &str, to: &str| {
        let to = models.path().join(to);
        copy(&fixtures().join(name), &to);
        to
    };
    for name in ["sd1", "sd2", "sd1-inpaint", "ip2p", "sdxl"] {
        copied(name, name);
    }
    copied("sd1", "lcm");
    distill(&models.path().join("lcm"));
    std::fs::write(copied("sdxl", "own").join("latentd.json"), r#"{"guidance_scale": 0, "steps": 2}"#).unwrap();

    let catalogue = Catalogue::open(models.path(), "sd1").unwrap();
    let limits = Limits {
        max_side_pixels: 512,
        max_pixels: 1 << 18,
        max_images: 1,
        max_steps: 100,
        max_seconds: 30.0,
        max_frames: 121,
        max_prompt_chars: 100,
    };
    let rules = CatalogueRules { catalogue: &catalogue, limits: &limits };
    let picture = InputImage { upload: "0".repeat(64), width: 64, height: 64 };
    let resolved = |model: &str, places: &[ImageField]| {
        let mut body = json!({"model": model, "prompt": "a"});
        for place in places {
            let name = if *place == ImageField::Mask { "mask" } else { "image" };
            body[name] = json!({"b64": "AAAA"});
        }
        let mut fields = Fields::new(body.as_object().unwrap().clone());
        for (place, _) in fields.pictures() {
            fields.place(place, &picture);
        }
        let job = resolve(fields, &rules).unwrap_or_else(|invalid| panic!("{model}: {invalid:?}"));
        let Work::Draw(draw) = job.work else { panic!("a drawing") };
        draw
    };
    let guidance = |model: &str, places: &[ImageField]| resolved(model, places).guidance_scale;
    let (text, image, mask) = (&[][..], &[ImageField::Image][..], &[ImageField::Image, ImageField::Mask][..]);
    for (model, scales) in [("sd1", [7.5; 3]), ("sd2", [7.5; 3]), ("sdxl", [5.0, 5.0, 7.5]), ("own", [0.0; 3])] {
        assert_eq!([text, image, mask].map(|places| guidance(model, places)), scales, "{model}");
    }
    assert_eq!((guidance("sd1-inpaint", mask), guidance("ip2p", image)), (7.5, 7.5));
    assert_eq!((guidance("lcm", text), resolved("lcm", text).steps, resolved("sdxl", text).steps), (8.5, 4, 25));
}

/// A latent consistency model takes all of its steps at every strength, within a part of the levels. Other models take
/// a share of the steps.
#[test]
fn the_plan_counts_the_calls_that_the_strength_leaves() {
    let models = tempfile::tempdir().unwrap();
    for name in ["sd1", "lcm"] {
        copy(&fixtures().join("sd1"), &models.path().join(name));
    }
    distill(&models.path().join("lcm"));
    let catalogue = Catalogue::open(models.path(), "sd1").unwrap();
    let limits = Limits {
        max_side_pixels: 512,
        max_pixels: 1 << 18,
        max_images: 1,
        max_steps: 100,
        max_seconds: 30.0,
        max_frames: 121,
        max_prompt_chars: 100,
    };
    let rules = CatalogueRules { catalogue: &catalogue, limits: &limits };
    let picture = InputImage { upload: "0".repeat(64), width: 64, height: 64 };
    let cost = |model: &str, strength: f64| {
        let scheduler = if model == "lcm" { "lcm" } else { "ddim" };
        let body = json!({"model": model, "prompt": "a", "steps": 8, "scheduler": scheduler, "strength": strength,
            "image": {"b64": "AAAA"}});
        let mut fields = Fields::new(body.as_object().unwrap().clone());
        for (place, _) in fields.pictures() {
            fields.place(place, &picture);
        }
        let job = resolve(fields, &rules).unwrap_or_else(|invalid| panic!("{model}: {invalid:?}"));
        catalogue.plan(&job).unwrap().cost
    };
    assert_eq!(cost("lcm", 0.5), cost("lcm", 1.0));
    assert!(cost("sd1", 0.5) < 0.9 * cost("sd1", 1.0), "{} of {}", cost("sd1", 0.5), cost("sd1", 1.0));
}
