//! Words in every form that files have.

use std::fs;

use latentd::weights::{
    FileContent, LoadError,
    textual_inversion::{EmbeddingOutline, TextualInversion, Vectors},
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
        // Pivotal tuning.
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
            Err(LoadError::BadKey { key: named, reason: said, .. }) => {
                assert_eq!(named, key);
                assert!(said.contains(reason), "{key:?}: {said}");
            }
            other => panic!("{key:?}: {other:?}"),
        }
    }
}

#[test]
fn the_header_alone_tells_what_a_file_fits() {
    let [sd, wide, sdxl, refiner] = [[Some(4), None], [Some(5), None], [Some(4), Some(6)], [None, Some(6)]];
    let read = |entries: &[(&str, Raw)]| {
        EmbeddingOutline::read("word.safetensors", &FileContent::Held(write(&of(entries)).into())).unwrap()
    };
    let single = read(&[("<x>", numbers(&[2, 6]))]);
    assert_eq!((single.vectors(), single.widths(), single.word.as_deref()), (2, [Some(6), None], Some("<x>")));
    assert_eq!([sdxl, refiner].map(|widths| single.fits(widths)), [Ok(()), Ok(())]);
    assert_eq!(single.fits(sd).unwrap_err(), "<x>: vectors of 6, where the text encoder has 4");
    assert_eq!(single.fits([Some(4), Some(7)]).unwrap_err(), "<x>: vectors of 6, where the text encoder has 4 or 7");

    let pair = read(&[("clip_l", numbers(&[1, 4])), ("clip_g", numbers(&[1, 6]))]);
    assert_eq!((pair.vectors(), pair.widths()), (1, [Some(4), Some(6)]));
    assert_eq!(pair.fits(sdxl), Ok(()));
    assert_eq!(pair.fits(sd).unwrap_err(), "clip_g: vectors of 6 for a text encoder that the model does not have");
    assert_eq!(pair.fits(wide).unwrap_err(), "clip_l: vectors of 4, where the text encoder has 5");

    // Numbers are not looked at, and none of what is wrong with names, shapes and types is missed.
    let nan = [("a", Raw::floats(&[1, 4], |_| f32::NAN))];
    assert_eq!(read(&nan).fits(sd), Ok(()));
    let many = write(&of(&[("a", numbers(&[76, 4]))]));
    let error =
        EmbeddingOutline::read("word.safetensors", &FileContent::Held(many.clone().into())).unwrap_err().to_string();
    assert!(error.contains("76 vectors are not between 1 and 75"), "{error}");
}

proptest::proptest! {
    /// What the header lets pass is read, but for numbers that are not finite.
    #[test]
    fn an_outline_that_fits_is_read(
        keys in proptest::collection::btree_map(
            proptest::sample::select(vec!["clip_l", "clip_g", "text_encoders_0", "text_encoders_1", "emb_params", "w",
                "emb_params_out"]),
            proptest::collection::vec(0usize..9, 0..4),
            0..3,
        ),
        widths in proptest::sample::select(vec![[Some(4), None], [Some(4), Some(6)], [None, Some(6)], [Some(6), Some(6)]]),
    ) {
        let entries: Vec<(&str, Raw)> = keys.iter().map(|(key, shape)| (*key, numbers(shape))).collect();
        let file = write(&of(&entries));
        let fits = EmbeddingOutline::read("w", &FileContent::Held(file.clone().into())).is_ok_and(|outline| outline.fits(widths).is_ok());
        proptest::prop_assert_eq!(TextualInversion::read("w", &file, widths).is_ok(), fits);
    }
}
