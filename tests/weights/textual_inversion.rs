//! Words in every form that files have.

use std::fs;

use latentd::weights::{
    LoadError,
    textual_inversion::{TextualInversion, Vectors},
};
use safetensors::Dtype;

use crate::files::{Raw, Tensors, parity, read_at, write};

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
fn fixtures() {
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
fn every_form() {
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
    ] {
        let read = load(&entries, widths).unwrap();
        let expected = TextualInversion { word: word.map(str::to_owned), text_encoder: first, text_encoder_2: second };
        assert_eq!(read, expected);
    }
}

#[test]
fn whatever_is_none_is_named() {
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
        (vec![("a", Raw::floats(&[1, 4], |_| f32::NAN))], sd, "a", "not finite"),
        (vec![("", numbers(&[1, 4]))], sd, "", "blank"),
        (vec![("a\nb", numbers(&[1, 4]))], sd, "a\nb", "control"),
        (vec![(long.as_str(), numbers(&[1, 4]))], sd, long.as_str(), "longer than 128"),
        (vec![("clip_g", numbers(&[1, 6]))], sd, "clip_g", "does not have"),
        (vec![("clip_l", numbers(&[1, 6]))], sdxl, "clip_l", "vectors of 6"),
        (vec![("clip_l", numbers(&[1, 4])), ("clip_g", numbers(&[2, 6]))], sdxl, "clip_g", "2 vectors beside the 1"),
    ] {
        match load(&entries, widths) {
            Err(LoadError::BadKey { key: named, reason: said, .. }) => {
                assert_eq!(named, key);
                assert!(said.contains(reason), "{key:?}: {said}");
            }
            other => panic!("{key:?}: {other:?}"),
        }
    }
}
