//! Tests of textual inversion files in all supported formats, and of files that are refused.

use std::fs;

use latentd::weights::{
    FileContent, LoadError,
    textual_inversion::{EmbeddingOutline, TextualInversion, Vectors},
};
use safetensors::Dtype;

use crate::files::{Raw, Tensors, parity, read_at, write};

/// The tensors of a file.
fn of(entries: &[(&str, Raw)]) -> Tensors {
    entries.iter().map(|(key, raw)| ((*key).to_owned(), raw.clone())).collect()
}

fn numbers(shape: &[usize]) -> Raw {
    Raw::floats(shape, |i| i as f32 - 3.5)
}

fn load(entries: &[(&str, Raw)], widths: [Option<usize>; 2]) -> Result<TextualInversion, LoadError> {
    TextualInversion::read("word.safetensors", &write(&of(entries)), widths)
}

fn vectors(count: usize, width: usize) -> Vectors {
    Vectors { count, width, values: (0..count * width).map(|i| i as f32 - 3.5).collect() }
}

#[test]
fn all_fixtures_are_read() {
    for (name, word, count) in [("ti_mug", "<mug>", 3), ("ti_one", "<one>", 1)] {
        let path = parity().join("adapters").join(format!("{name}.safetensors"));
        let read = TextualInversion::read(name, &fs::read(&path).unwrap(), [Some(32), None]).unwrap();
        assert_eq!(read.word.as_deref(), Some(word));
        let vectors = read.text_encoder.unwrap();
        assert_eq!((vectors.count, vectors.width, read.text_encoder_2), (count, 32, None));
        let bytes: Vec<u8> = vectors.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(bytes, read_at(&path)[word].bytes);
    }
}

#[test]
fn every_format_is_read() {
    let [sd, sdxl, refiner] = [[Some(4), None], [Some(4), Some(6)], [None, Some(6)]];
    for (entries, widths, word, first, second) in [
        (vec![("emb_params", numbers(&[2, 4]))], sd, None, Some(vectors(2, 4)), None),
        (vec![("emb_params", numbers(&[4]))], sd, None, Some(vectors(1, 4)), None),
        (vec![("a cat", numbers(&[75, 4]))], sd, Some("a cat"), Some(vectors(75, 4)), None),
        (vec![("<x>", numbers(&[2, 6]))], sdxl, Some("<x>"), None, Some(vectors(2, 6))),
        (
            vec![("clip_l", numbers(&[2, 4])), ("clip_g", numbers(&[2, 6]))],
            sdxl,
            None,
            Some(vectors(2, 4)),
            Some(vectors(2, 6)),
        ),
        (vec![("clip_g", numbers(&[1, 6]))], refiner, None, None, Some(vectors(1, 6))),
        // The format of pivotal tuning.
        (
            vec![("text_encoders_0", numbers(&[2, 4])), ("text_encoders_1", numbers(&[2, 6]))],
            sdxl,
            None,
            Some(vectors(2, 4)),
            Some(vectors(2, 6)),
        ),
        (vec![("text_encoders_0", numbers(&[3, 4]))], sd, None, Some(vectors(3, 4)), None),
    ] {
        let read = load(&entries, widths).unwrap();
        let expected = TextualInversion { word: word.map(str::to_owned), text_encoder: first, text_encoder_2: second };
        assert_eq!(read, expected);
    }
}

#[test]
fn every_invalid_file_has_a_precise_error() {
    let [sd, sdxl] = [[Some(4), None], [Some(4), Some(6)]];
    let integer = Raw { dtype: Dtype::I32, shape: vec![1, 4], bytes: vec![0; 16] };
    let long = "x".repeat(129);
    for (entries, widths, key, reason) in [
        (vec![], sd, "the tensors", "0 tensors"),
        (vec![("a", numbers(&[1, 4])), ("b", numbers(&[1, 4]))], sd, "the tensors", "2 tensors (a, b), expected one"),
        (vec![("emb_params", numbers(&[1, 4])), ("clip_l", numbers(&[1, 4]))], sd, "the tensors", "2 tensors"),
        (vec![("a", numbers(&[0, 4]))], sd, "a", "0 vectors are not between 1 and 75"),
        (vec![("a", numbers(&[76, 4]))], sd, "a", "76 vectors are not between 1 and 75"),
        (vec![("a", numbers(&[1, 5]))], sd, "a", "vectors of 5, where the text encoder has 4"),
        (vec![("a", numbers(&[1, 5]))], sdxl, "a", "4 or 6"),
        (vec![("a", numbers(&[1, 1, 4]))], sd, "a", "shape"),
        (vec![("a", numbers(&[]))], sd, "a", "shape"),
        (vec![("a", integer)], sd, "a", "I32"),
        (vec![("a", Raw::floats(&[1, 4], |_| f32::NAN))], sd, "a", "the number NaN is not between -65536 and 65536"),
        (vec![("a", Raw::floats(&[1, 4], |_| f32::INFINITY))], sd, "a", "the number inf is not between"),
        (vec![("a", Raw::floats(&[2, 4], |i| [0.5, -3e38][i / 7]))], sd, "a", "the number -3e38 is not between"),
        (vec![("", numbers(&[1, 4]))], sd, "", "blank"),
        (vec![("a\nb", numbers(&[1, 4]))], sd, "a\nb", "control"),
        (vec![(long.as_str(), numbers(&[1, 4]))], sd, long.as_str(), "longer than 128"),
        (vec![("clip_g", numbers(&[1, 6]))], sd, "clip_g", "does not have"),
        (vec![("clip_l", numbers(&[1, 6]))], sdxl, "clip_l", "vectors of 6"),
        (vec![("clip_l", numbers(&[1, 4])), ("clip_g", numbers(&[2, 6]))], sdxl, "clip_g", "2 vectors beside the 1"),
        (
            vec![("emb_params", numbers(&[1, 4])), ("emb_params_out", numbers(&[1, 4]))],
            sd,
            "emb_params_out",
            "OneTrainer",
        ),
        (vec![("clip_l", numbers(&[1, 4])), ("text_encoders_0", numbers(&[1, 4]))], sdxl, "the tensors", "2 tensors"),
        (
            vec![("clip_l", numbers(&[1, 4])), ("t5xxl", numbers(&[1, 9]))],
            sdxl,
            "the tensors",
            "2 tensors (clip_l, t5xxl)",
        ),
    ] {
        match load(&entries, widths) {
            Err(LoadError::BadKey { key: named, reason: text, .. }) => {
                assert_eq!(named, key);
                assert!(text.contains(reason), "{key:?}: {text}");
            }
            other => panic!("{key:?}: {other:?}"),
        }
    }
}

#[test]
fn words_and_widths_are_read_from_the_header() {
    let read = |entries: &[(&str, Raw)]| {
        EmbeddingOutline::read("word.safetensors", &FileContent::Held(write(&of(entries)).into()))
    };
    let single = read(&[("<x>", numbers(&[2, 6]))]).unwrap();
    assert_eq!((single.vectors(), single.widths(), single.word.as_deref()), (2, [Some(6), None], Some("<x>")));
    let pair = read(&[("clip_l", numbers(&[1, 4])), ("clip_g", numbers(&[1, 6]))]).unwrap();
    assert_eq!((pair.vectors(), pair.widths()), (1, [Some(4), Some(6)]));
    let error = read(&[("a", numbers(&[76, 4]))]).unwrap_err().to_string();
    assert!(error.contains("76 vectors are not between 1 and 75"), "{error}");
}

/// Checks whether a model with these encoder widths can use the file.
fn check(entries: &[(&str, Raw)], widths: [Option<usize>; 2]) -> Result<(), String> {
    let content = FileContent::Held(write(&of(entries)).into());
    TextualInversion::check("word", &content, widths).map_err(|error| error.to_string())
}

#[test]
fn a_check_compares_the_widths_with_the_model() {
    let [sd, wide, sdxl, refiner] = [[Some(4), None], [Some(5), None], [Some(4), Some(6)], [None, Some(6)]];
    let single = [("<x>", numbers(&[2, 6]))];
    assert_eq!([sdxl, refiner].map(|widths| check(&single, widths)), [Ok(()), Ok(())]);
    let misfit = |which: &str| Err(format!("word: `<x>`: vectors of 6, where the text encoder has {which}"));
    assert_eq!(check(&single, sd), misfit("4"));
    assert_eq!(check(&single, [Some(4), Some(7)]), misfit("4 or 7"));

    let pair = [("clip_l", numbers(&[1, 4])), ("clip_g", numbers(&[1, 6]))];
    assert_eq!(check(&pair, sdxl), Ok(()));
    let second = "word: `clip_g`: vectors of 6 for a text encoder that the model does not have";
    assert_eq!(check(&pair, sd), Err(second.to_owned()));
    assert_eq!(check(&pair, wide), Err("word: `clip_l`: vectors of 4, where the text encoder has 5".to_owned()));
}

/// Tests numbers of all types. Numbers up to the range of half precision are allowed.
#[test]
fn numbers_that_are_not_finite_or_too_large_are_refused() {
    let of_type = |dtype, bytes: Vec<u8>| [("a", Raw { dtype, shape: vec![1, 1], bytes })];
    let half = half::f16::MAX.to_le_bytes().to_vec();
    for (entries, said) in [
        (of_type(Dtype::F16, half), None),
        (of_type(Dtype::F32, 65536f32.to_le_bytes().to_vec()), None),
        (of_type(Dtype::F32, (-65536f32).to_le_bytes().to_vec()), None),
        (of_type(Dtype::F32, 65537f32.to_le_bytes().to_vec()), Some("6.5537e4 is not between -65536 and 65536")),
        (of_type(Dtype::F32, f32::NAN.to_le_bytes().to_vec()), Some("NaN is not between")),
        (of_type(Dtype::F16, half::f16::INFINITY.to_le_bytes().to_vec()), Some("inf is not between")),
        (of_type(Dtype::F64, (-1e300f64).to_le_bytes().to_vec()), Some("-inf is not between")),
        (of_type(Dtype::BF16, half::bf16::MAX.to_le_bytes().to_vec()), Some("e38 is not between")),
    ] {
        let checked = check(&entries, [Some(1), None]);
        match said {
            None => assert_eq!(checked, Ok(())),
            Some(said) => assert!(checked.as_ref().is_err_and(|error| error.contains(said)), "{said}: {checked:?}"),
        }
    }
}

proptest::proptest! {
    /// The check accepts exactly the files that can be read, and returns the same errors.
    #[test]
    fn a_file_that_passes_the_check_is_read(
        keys in proptest::collection::btree_map(
            proptest::sample::select(vec!["clip_l", "clip_g", "text_encoders_0", "text_encoders_1", "emb_params", "w",
                "emb_params_out"]),
            (proptest::collection::vec(0usize..9, 0..4), proptest::sample::select(vec![1f32, 65536.0, 65537.0, f32::NAN])),
            0..3,
        ),
        widths in proptest::sample::select(vec![[Some(4), None], [Some(4), Some(6)], [None, Some(6)], [Some(6), Some(6)]]),
    ) {
        let entries: Vec<(&str, Raw)> =
            keys.iter().map(|(key, (shape, number))| (*key, Raw::floats(shape, |_| *number))).collect();
        let read = TextualInversion::read("word", &write(&of(&entries)), widths);
        proptest::prop_assert_eq!(read.map(drop).map_err(|error| error.to_string()), check(&entries, widths));
    }
}
