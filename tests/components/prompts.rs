//! Tests of hostile prompts, textual inversions, and tokenizers with added tokens.

use std::{collections::HashSet, fs, sync::Arc, thread};

use latentd::{
    models::{
        StableDiffusion,
        pause::ToEnd,
        text_encoders::{LearnedToken, LearnedTokens},
    },
    weights::textual_inversion::LARGEST_VALUE,
};
use serde_json::{Value, json};

use crate::fixtures::{Copy, ids_of, load, parity};

/// Textual inversions for sd1. Each has a name and a number of vectors.
fn learned(names: &[(&str, usize)]) -> LearnedTokens {
    let token = |(name, count): &(&str, usize)| LearnedToken {
        trigger: format!("<{name}>"),
        vectors: vec![vec![vec![0.5; 32]; *count]],
    };
    LearnedTokens::new(names.iter().map(token).collect())
}

/// The ids of a prompt without the beginning and end tokens.
fn words(sd: &StableDiffusion, prompt: &str, learned: &LearnedTokens) -> Vec<u32> {
    let ids = sd.tokenize(&[prompt], learned).ids.remove(0);
    ids[1..].iter().copied().take_while(|id| *id != ids[76]).collect()
}

/// The prompts are ten times as long as `limits.max_prompt_chars` allows. Deep recursion would overflow the stack here,
/// and quadratic time would not end.
#[test]
fn long_prompts_are_read_with_little_stack_in_linear_time() {
    const CHARS: usize = 100_000;
    let sd = Arc::new(load(&parity().join("pipelines/sd1")).unwrap());
    let read = move || {
        let learned = learned(&[("a", 1), ("b", 3)]);
        let shapes = [
            "<a>",
            "<b>",
            "<A><b> ",
            "<a",
            "<",
            "<>",
            ">",
            "<a<a>",
            "(",
            "[",
            "(a",
            "[(a",
            "((<a>",
            ")",
            "]",
            ":",
            "(:1",
            "(<a>:1.1)",
            "a:1.1)",
            "\\",
            "\\(",
            "BREAK ",
            "BREAK",
            "<a>BREAK",
            ",",
            " ",
            "\n\t",
            "a",
            "a ",
            "é",
            "e\u{301}",
            "狐",
            "🦊",
            "'s",
            "1",
            "<lora:a:",
            "<|endoftext|>",
            "İ",
            "\u{301}",
        ];
        for shape in shapes {
            let prompt = shape.repeat(CHARS / shape.chars().count());
            let plain = sd.tokenize(&[&prompt], &learned);
            assert_eq!(plain.ids[0].len(), 77, "{shape}");
            let chunks = sd.tokenize_weighted(&[&prompt], &learned);
            assert!((1..=8).contains(&chunks.len()) && chunks.iter().all(|chunk| chunk.ids[0].len() == 77), "{shape}");
        }
    };
    let reader = thread::Builder::new().stack_size(192 << 10).spawn(read).unwrap();
    reader.join().unwrap();
}

#[test]
fn words_of_textual_inversions_are_found_in_any_letter_case() {
    let sd = load(&parity().join("pipelines/sd1")).unwrap();
    let of = |names: &[(&str, usize)], prompt: &str| words(&sd, prompt, &learned(names));
    for prompt in ["a <my-cat>", "a <My-Cat>", "A<MY-CAT>", "a  <my-cat>"] {
        assert_eq!(of(&[("My-Cat", 2)], prompt), [320, 994, 995], "{prompt}");
    }
    // If words differ only in letter case, the first one is used for every spelling.
    let two = [("Cat", 1), ("cat", 1)];
    assert_eq!(of(&two, "<cat><Cat><CAT>"), [994, 994, 994]);
    // A composed name with a decomposed prompt, and the reverse.
    for (name, prompt) in [("caf\u{e9}", "<cafe\u{301}>"), ("cafe\u{301}", "<CAF\u{c9}>")] {
        assert_eq!(of(&[(name, 1)], prompt), [994], "{name}");
    }
    assert_eq!(of(&[("a b", 1)], "<a \n b>"), [994]);
    assert!(!of(&[("a", 1)], "< a>").contains(&994));
}

/// Vectors with the largest allowed numbers give finite states.
#[test]
fn the_largest_learned_vectors_are_encoded() {
    for (model, widths) in [("sd1", vec![32]), ("sdxl", vec![32, 48])] {
        let sd = load(&parity().join("pipelines").join(model)).unwrap();
        let number = |i: usize| if i.is_multiple_of(3) { LARGEST_VALUE } else { -LARGEST_VALUE };
        let vectors = widths.iter().map(|width| vec![(0..*width).map(number).collect()]).collect();
        let word = LearnedTokens::new(vec![LearnedToken { trigger: "<x>".to_owned(), vectors }]);
        let states = sd.encode_text(&[sd.tokenize(&["a <x>"], &word)], 0).to_end().unwrap().hidden;
        let states = states.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(states.iter().all(|state| state.is_finite()), "{model}");
    }
}

/// A copy of sd1 with these tokenizer files changed, and with `rows` more embeddings.
fn with_tokens(files: &[(&str, Value)], rows: usize) -> Copy {
    let copy = Copy::of("sd1");
    fs::remove_file(copy.path("tokenizer/tokenizer.json")).unwrap();
    for (file, json) in files {
        match copy.path(file).exists() {
            true => copy.edit(file, |old| {
                json.as_object().unwrap().iter().for_each(|(key, value)| old[key] = value.clone());
            }),
            false => fs::write(copy.path(file), json.to_string()).unwrap(),
        }
    }
    copy.edit("text_encoder/config.json", |config| config["vocab_size"] = json!(994 + rows));
    copy.edit_tensors("text_encoder/model.safetensors", |tensors| {
        let name = "text_model.embeddings.token_embedding.weight";
        let new = (tensors[name].narrow(0, 320, rows).unwrap() * 1.5).unwrap();
        tensors.insert(name.to_owned(), candle_core::Tensor::cat(&[&tensors[name], &new], 0).unwrap());
    });
    copy
}

/// A `tokenizer_config.json` with these added tokens: id, content, and other options.
fn decoder(tokens: &[(&str, &str, Value)]) -> (&'static str, Value) {
    let entry = |(id, content, more): &(&str, &str, Value)| {
        let mut entry = json!({"content": content, "lstrip": false, "normalized": true, "rstrip": false,
            "single_word": false, "special": false});
        more.as_object().unwrap().iter().for_each(|(key, value)| entry[key] = value.clone());
        ((*id).to_owned(), entry)
    };
    let entries: serde_json::Map<String, Value> = tokens.iter().map(entry).collect();
    ("tokenizer/tokenizer_config.json", json!({"added_tokens_decoder": entries}))
}

fn added(tokens: Value) -> (&'static str, Value) {
    ("tokenizer/added_tokens.json", tokens)
}

/// The expected ids come from transformers 5.23 for these files.
#[test]
fn added_tokens_are_read_as_in_transformers() {
    let ids = |copy: &Copy, prompt: &str| words(&copy.load().unwrap(), prompt, &LearnedTokens::default());
    let cat = || ("994", "<my-cat>", json!({}));
    for files in [
        vec![decoder(&[cat()]), added(json!({"<my-cat>": 994}))],
        vec![decoder(&[cat()])],
        vec![added(json!({"<my-cat>": 994}))],
        vec![decoder(&[("994", "<My-Cat>", json!({}))])],
    ] {
        let copy = with_tokens(&files, 1);
        assert_eq!(ids(&copy, "a photo of <my-cat>"), [320, 876, 524, 994], "{files:?}");
        assert_eq!(ids(&copy, "a<My-Cat>b"), [320, 994, 321], "{files:?}");
        assert_eq!(ids(&copy, "<MY-CAT><my-cat>"), [994, 994], "{files:?}");
        assert_eq!(ids(&copy, "x<my -cat>"), [343, 283, 76, 344, 268, 66, 571, 285], "{files:?}");
    }
    // Special tokens and tokens that are not normalized must match exactly.
    let special = ("tokenizer/special_tokens_map.json", json!({"additional_special_tokens": ["<my-cat>"]}));
    for files in [
        vec![decoder(&[("994", "<my-cat>", json!({"normalized": false}))])],
        vec![decoder(&[("994", "<my-cat>", json!({"special": true, "normalized": false}))])],
        vec![added(json!({"<my-cat>": 994})), special],
    ] {
        let copy = with_tokens(&files, 1);
        assert_eq!(ids(&copy, "a <my-cat>"), [320, 994], "{files:?}");
        assert_eq!(ids(&copy, "<My-Cat>b"), [283, 76, 344, 268, 66, 571, 285, 321], "{files:?}");
    }
    let single = with_tokens(&[decoder(&[("994", "<my-cat>", json!({"single_word": true}))])], 1);
    assert_eq!(ids(&single, "a <my-cat> b"), [320, 994, 321]);
    assert_eq!(ids(&single, "a<my-cat>b"), [320, 283, 76, 344, 268, 66, 571, 285, 321]);
    assert_eq!(ids(&single, "x,<my-cat>."), [343, 267, 994, 269]);
}

/// diffusers stores a word of three vectors as three tokens, and replaces the first one in a prompt by all three.
#[test]
fn the_other_tokens_of_a_word_follow_its_first() {
    let tokens = [("994", "<cat>", json!({})), ("995", "<cat>_1", json!({})), ("996", "<cat>_2", json!({}))];
    let copy = with_tokens(&[decoder(&tokens)], 3);
    let sd = copy.load().unwrap();
    let none = LearnedTokens::default();
    assert_eq!(words(&sd, "a <Cat> b", &none), [320, 994, 995, 996, 321]);
    assert_eq!(words(&sd, "<cat>_1", &none), [995]);
    // A word from a file takes precedence over the same word of the model. Its ids follow the ids of the model.
    assert_eq!(words(&sd, "a <cat> b", &learned(&[("cat", 2)])), [320, 997, 998, 321]);
    // A chunk never ends within a word.
    let chunks = sd.tokenize_weighted(&[&format!("{}<cat>", "a ".repeat(74))], &none);
    let rows: Vec<HashSet<u32>> = chunks.iter().map(|chunk| chunk.ids[0].iter().copied().collect()).collect();
    assert!(rows.len() == 2 && !rows[0].contains(&994) && (994..997).all(|id| rows[1].contains(&id)), "{rows:?}");
}

/// The same vector gives the same states, from the vocabulary of a model or from the file of a textual inversion.
#[test]
fn words_in_the_vocabulary_and_from_files_are_encoded_equally() {
    let copy = with_tokens(&[added(json!({"<my-cat>": 994}))], 1);
    let own = copy.load().unwrap();
    let plain = load(&parity().join("pipelines/sd1")).unwrap();
    let embedding = "text_model.embeddings.token_embedding.weight";
    let tensors = crate::fixtures::tensors(&copy.path("text_encoder/model.safetensors"));
    let vector = tensors[embedding].get(994).unwrap().to_vec1::<f32>().unwrap();
    let file = LearnedToken { trigger: "<my-cat>".to_owned(), vectors: vec![vec![vector]] };
    let file = plain.tokenize(&["a photo of <my-cat>"], &LearnedTokens::new(vec![file]));
    let own_tokens = own.tokenize(&["a photo of <my-cat>"], &LearnedTokens::default());
    let states = |sd: &StableDiffusion, tokens| sd.encode_text(&[tokens], 0).to_end().unwrap().hidden;
    assert_eq!(crate::fixtures::bits(&states(&own, own_tokens)), crate::fixtures::bits(&states(&plain, file)));
    assert_ne!(ids_of(&own, "<my-cat>"), ids_of(&plain, "<my-cat>"));
}

#[test]
fn invalid_added_tokens_are_refused() {
    for (files, said) in [
        // After a gap in the ids, versions of transformers use different ids for the token.
        (vec![added(json!({"<my-cat>": 1000}))], "\"<my-cat>\" has the id 1000, but the next free id is 994"),
        (vec![added(json!({"<my-cat>": "994"}))], "must be the id of the token"),
        (vec![added(json!({"<my-cat>": -1}))], "must be the id of the token"),
        (vec![decoder(&[("x", "<my-cat>", json!({}))])], "added_tokens_decoder"),
        (vec![decoder(&[("994", "<my-cat>", json!({"content": 7}))])], "added_tokens_decoder"),
        (vec![added(json!({"<a>": 994, "<b>": 995}))], "vocab_size = 995"),
    ] {
        let error = with_tokens(&files, 1).load().unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
