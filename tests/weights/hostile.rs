//! Tests of truncated, malformed and malicious files: each is an error that says what is wrong.

use std::fs;

use latentd::families::checkpoints;
use latentd::weights::{
    LoadError, ModelFolder, Weights,
    lora::{Lora, Modules},
    textual_inversion::TextualInversion,
};

/// A file with this header and `numbers` zero bytes of tensor data.
fn with_header(header: impl AsRef<[u8]>, numbers: usize) -> Vec<u8> {
    let header = header.as_ref();
    [&(header.len() as u64).to_le_bytes(), header, &vec![0; numbers]].concat()
}

/// A file whose first eight bytes state this header length.
fn with_length(length: u64, rest: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes(), rest].concat()
}

/// A header with one tensor, `t`.
fn tensor(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
}

/// Broken files: a description, the bytes, and a part of the expected error.
fn hostile() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let two = |second: &str| {
        format!(
            r#"{{"a":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}},"b":{{"dtype":"F32","shape":[1],"data_offsets":{second}}}}}"#
        )
    };
    let whole = with_header(tensor("F32", "[2]", "[0,8]"), 8);
    let deep = format!(r#"{{"t":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let deep_note = format!(r#"{{"__metadata__":{{"a":{}{}}}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let many_axes = format!("[{}1]", "1,".repeat(1_000_000));
    vec![
        ("empty", vec![], "too few"),
        ("cut within the length", vec![1, 2, 3], "too few"),
        ("cut within the header", whole[..20].to_vec(), "ends within its header"),
        ("cut within the numbers", whole[..whole.len() - 1].to_vec(), "not within its 7"),
        ("a header of 16 EiB", with_length(u64::MAX, b"{}"), "longer than 16777216"),
        ("a header of 17 MiB", with_length(17 << 20, &vec![b' '; 17 << 20]), "longer than 16777216"),
        ("a header longer than the file", with_length(3, b"{}"), "ends within its header"),
        ("no header", with_header("", 0), "the header"),
        ("not UTF-8", with_header(b"{\"\xff\xfe\":1}", 0), "not UTF-8"),
        ("a list", with_header("[]", 0), "expected an object"),
        ("half an object", with_header(r#"{"t":{"dtype":"F32""#, 0), "the header"),
        ("text after the header", with_header("{} {}", 0), "trailing"),
        ("deeply nested lists", with_header(deep, 0), "the header"),
        ("deeply nested metadata", with_header(deep_note, 0), "the header"),
        ("no type", with_header(r#"{"t":{"shape":[1],"data_offsets":[0,4]}}"#, 4), "dtype"),
        ("an unknown type", with_header(tensor("F31", "[1]", "[0,4]"), 4), "t: unknown variant"),
        ("a negative axis", with_header(tensor("F32", "[-1]", "[0,4]"), 4), "t: "),
        ("a fractional axis", with_header(tensor("F32", "[1.5]", "[0,4]"), 4), "t: "),
        ("an axis above 64 bits", with_header(tensor("F32", "[99999999999999999999999]", "[0,4]"), 4), "t: "),
        ("a million axes", with_header(tensor("F32", &many_axes, "[0,4]"), 4), "more than 8"),
        ("a product above 64 bits", with_header(tensor("F32", "[4294967296,4294967296,16]", "[0,4]"), 4), "too large"),
        ("an overflow with a zero", with_header(tensor("F32", "[4294967296,0,4294967296]", "[0,0]"), 0), "too large"),
        (
            "bits above 64 bits",
            with_header(tensor("F32", "[18446744073709551615]", "[0,18446744073709551615]"), 4),
            "too large",
        ),
        (
            "more bytes than memory",
            with_header(tensor("U8", "[2305843009213693951]", "[0,2305843009213693951]"), 4),
            "not within its 4",
        ),
        ("offsets out of range", with_header(tensor("F32", "[2]", "[0,8]"), 4), "not within its 4"),
        (
            "offsets far out of range",
            with_header(tensor("F32", "[1]", "[18446744073709551611,18446744073709551615]"), 4),
            "not within its 4",
        ),
        ("reversed offsets", with_header(tensor("F32", "[0]", "[4,0]"), 4), "not within its 4"),
        ("one offset", with_header(tensor("F32", "[1]", "[4]"), 4), "t: "),
        ("three offsets", with_header(tensor("F32", "[1]", "[0,4,8]"), 4), "t: "),
        ("more bytes than numbers", with_header(tensor("F32", "[1]", "[0,8]"), 8), "are not 8 bytes"),
        ("fewer bytes than numbers", with_header(tensor("F32", "[3]", "[0,8]"), 8), "are not 8 bytes"),
        ("a type of half bytes", with_header(tensor("F4", "[1]", "[0,0]"), 0), "are not 0 bytes"),
        ("overlap", with_header(two("[0,4]"), 8), "overlap"),
        ("partial overlap", with_header(two("[2,6]"), 8), "overlap"),
        ("a gap", with_header(two("[8,12]"), 12), "gap"),
        ("bytes of no tensor", with_header(two("[4,8]"), 9), "1 bytes at the end belong to no tensor"),
        ("bytes without tensors", with_header("{}", 5), "5 bytes at the end"),
        (
            "a name twice",
            with_header(
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
                8,
            ),
            "a occurs twice",
        ),
        (
            "an escaped name twice, the same bytes",
            with_header(
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"\u0061":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
                4,
            ),
            "a occurs twice",
        ),
        (
            "a long name",
            with_header(tensor("F32", "[1]", "[0,4]").replace("\"t\"", &format!("\"{}\"", "t".repeat(1025))), 4),
            "a name of 1025 bytes is longer than 1024",
        ),
        ("metadata with a number", with_header(r#"{"__metadata__":{"a":1}}"#, 0), "the header"),
        ("metadata that is a list", with_header(r#"{"__metadata__":[]}"#, 0), "the header"),
        ("a login page", b"\n<!DOCTYPE html><html><head><title>Log in</title>".to_vec(), "it is a web page"),
        ("a page with a mark", "\u{feff}<html><body>Not found</body></html>".into(), "it is a web page"),
        ("an error message", br#"{"error":"Access to model is restricted"}"#.to_vec(), "it is a JSON text"),
        ("GGUF", [&b"GGUF\x03\0\0\0"[..], &[0; 16]].concat(), "it is a GGUF file"),
        ("a zip archive", [&b"PK\x03\x04\0\0\x08\x08"[..], &[0; 22]].concat(), "it is a zip archive"),
        ("an old pickle", [&b"\x80\x02\x8a\nl\xfc\x9cF\xf9"[..], &[0; 9]].concat(), "it is a pickle"),
        ("gzip", [&b"\x1f\x8b\x08\0\x01\x02\x03\x04"[..], &[0; 9]].concat(), "it is a packed file"),
        ("HDF5", b"\x89HDF\r\n\x1a\n\0\0".to_vec(), "it is an HDF5 file"),
    ]
}

/// The results of all readers for a file.
fn readings(file: &[u8]) -> [(&'static str, Result<(), LoadError>); 4] {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("unet")).unwrap();
    fs::write(place.path().join("unet/diffusion_pytorch_model.safetensors"), file).unwrap();
    let folder = ModelFolder::open(place.path()).unwrap();
    let same = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
    [
        ("adapter", Lora::read("file", file, &Modules::default()).map(drop)),
        ("word", TextualInversion::read("file", file, [Some(4), None]).map(drop)),
        ("checkpoint", ModelFolder::single_held("file", file.to_vec(), &checkpoints()).map(drop)),
        (
            "folder",
            Weights::open(&folder, "unet", "diffusion_pytorch_model", &latentd::device::Device::host(), same).map(drop),
        ),
    ]
}

#[test]
fn every_reader_refuses_every_broken_file() {
    for (what, file, expected) in hostile() {
        for (reader, reading) in readings(&file) {
            match reading {
                Err(LoadError::Safetensors { path, reason }) => {
                    assert!(!path.is_empty());
                    assert!(reason.contains(expected), "{what}, {reader}: {reason}");
                    assert!(reason.len() < 400, "{what}, {reader}: an error of {} bytes", reason.len());
                }
                other => panic!("{what}, {reader}: {other:?}"),
            }
        }
    }
}

#[test]
fn the_error_about_a_git_lfs_pointer_says_what_to_do() {
    for first in [
        "version https://git-lfs.github.com/spec/v1",
        "version https://hawser.github.com/spec/v1",
        "version http://git-media.io/v/2",
        "\u{feff}version https://git-lfs.github.com/spec/v1",
    ] {
        let pointer = format!("{first}\noid sha256:{}\nsize 144000000\n", "0".repeat(64));
        for (reader, reading) in readings(pointer.as_bytes()) {
            let error = reading.unwrap_err().to_string();
            assert!(error.contains("Git LFS") && error.contains("git lfs pull"), "{reader}, {first}: {error}");
        }
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_an_error() {
    let same = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
    let whole = with_header(tensor("F32", "[1000]", "[0,4000]"), 4000);
    type Change = fn(&std::path::Path, &[u8]);
    let changes: [(&str, Change); 4] = [
        ("shortened", |path, whole| fs::write(path, &whole[..100]).unwrap()),
        ("emptied", |path, _| fs::write(path, b"").unwrap()),
        ("overwritten", |path, whole| fs::write(path, [&whole[..whole.len() - 1], &[9]].concat()).unwrap()),
        ("grown", |path, whole| fs::write(path, [whole, &[0]].concat()).unwrap()),
    ];
    for (what, change) in changes {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("unet")).unwrap();
        let path = place.path().join("unet/diffusion_pytorch_model.safetensors");
        fs::write(&path, &whole).unwrap();
        let folder = ModelFolder::open(place.path()).unwrap();
        let open = || {
            Weights::open(&folder, "unet", "diffusion_pytorch_model", &latentd::device::Device::host(), same).unwrap()
        };
        // An old modification time makes the change visible even if both writes happen in one tick of the clock.
        fs::File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        let reopened = open();
        change(&path, &whole);
        reopened.tensor("t", &[1000]);
        let error = reopened.finish().unwrap_err();
        assert!(matches!(error, LoadError::Read { .. }), "{what}: {error:?}");
    }
    // A removed file can still be read by a process that has it open.
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("unet")).unwrap();
    let path = place.path().join("unet/diffusion_pytorch_model.safetensors");
    fs::write(&path, &whole).unwrap();
    let folder = ModelFolder::open(place.path()).unwrap();
    let weights =
        Weights::open(&folder, "unet", "diffusion_pytorch_model", &latentd::device::Device::host(), same).unwrap();
    fs::remove_file(&path).unwrap();
    weights.tensor("t", &[1000]);
    weights.finish().unwrap();
}

#[test]
fn unusual_but_valid_files_are_read() {
    let none = tensor("F32", "[0]", "[0,0]");
    let scalar = tensor("F32", "[]", "[0,4]");
    let spaced = format!("{}{}", tensor("F32", "[1]", "[0,4]"), " ".repeat(1000));
    let noted = r#"{"__metadata__":{"format":"pt"},"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#.to_owned();
    let no_notes = r#"{"__metadata__":null,"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#.to_owned();
    for (header, numbers, shape) in
        [(none, 0, vec![0]), (scalar, 4, vec![]), (spaced, 4, vec![1]), (noted, 4, vec![1]), (no_notes, 4, vec![1])]
    {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("unet")).unwrap();
        fs::write(place.path().join("unet/diffusion_pytorch_model.safetensors"), with_header(&header, numbers))
            .unwrap();
        let folder = ModelFolder::open(place.path()).unwrap();
        let same = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
        let weights =
            Weights::open(&folder, "unet", "diffusion_pytorch_model", &latentd::device::Device::host(), same).unwrap();
        assert_eq!(weights.stored(), [("t".to_owned(), shape.clone())].into(), "{header}");
        assert_eq!(weights.tensor("t", &shape).dims(), shape);
        weights.finish().unwrap();
    }
}

#[test]
fn an_empty_tensor_with_a_long_axis_takes_no_memory() {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("unet")).unwrap();
    let file = with_header(tensor("F16", "[0,1000000000000]", "[0,0]"), 0);
    fs::write(place.path().join("unet/diffusion_pytorch_model.safetensors"), file).unwrap();
    let folder = ModelFolder::open(place.path()).unwrap();
    let same = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
    let weights =
        Weights::open(&folder, "unet", "diffusion_pytorch_model", &latentd::device::Device::host(), same).unwrap();
    assert_eq!(weights.matrix("t", 0, 1_000_000_000_000).dims(), [1_000_000_000_000, 0]);
    weights.finish().unwrap();
}

/// Tests every prefix of a good file, and other values for every byte before the tensor data.
#[test]
fn no_damaged_file_panics() {
    let whole = with_header(tensor("F16", "[2,3]", "[0,12]"), 12);
    for end in 0..whole.len() {
        assert!(readings(&whole[..end]).iter().all(|(_, reading)| reading.is_err()), "{end} bytes");
    }
    for at in 0..whole.len() - 12 {
        for byte in [0, b'"', b'[', b'9', 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] = byte;
            let _ = Lora::read("file", &damaged, &Modules::default());
            let _ = TextualInversion::read("file", &damaged, [Some(3), None]);
            let _ = ModelFolder::single_held("file", damaged, &checkpoints());
        }
    }
}
