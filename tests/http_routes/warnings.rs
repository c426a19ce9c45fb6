//! Tests of the warnings about accepted requests.

use serde_json::{Value, json};

use crate::{
    PNG,
    api::{TestApi, post},
};

/// Code, pointer and detail of each warning of the request.
async fn warnings(api: &TestApi, body: Value) -> Vec<(String, String, String)> {
    let answer = api.ask(post(&body, &[])).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let generation = answer.json();
    let text = |warning: &Value, name: &str| warning[name].as_str().unwrap().to_owned();
    let all = generation["warnings"].as_array().unwrap();
    // They are stored with the generation, and are no part of what is drawn.
    let again = api.get(&format!("/v1/images/{}", generation["id"].as_str().unwrap())).await.json();
    assert_eq!(again["warnings"], generation["warnings"]);
    assert!(again["params"].get("warnings").is_none());
    all.iter().map(|warning| (text(warning, "code"), text(warning, "pointer"), text(warning, "detail"))).collect()
}

async fn codes(api: &TestApi, body: Value) -> Vec<(String, String)> {
    warnings(api, body).await.into_iter().map(|(code, pointer, _)| (code, pointer)).collect()
}

fn pair(code: &str, pointer: &str) -> (String, String) {
    (code.to_owned(), pointer.to_owned())
}

#[tokio::test]
async fn a_prompt_that_is_cut_says_how_many_tokens_are_left_out() {
    let api = TestApi::open(&[]).await;
    // The embedded model reads 30 tokens.
    let words = |count: usize| vec!["fox"; count].join(" ");
    assert_eq!(warnings(&api, json!({"prompt": words(30)})).await, []);
    let cut = warnings(&api, json!({"prompt": words(37)})).await;
    assert_eq!((&*cut[0].0, &*cut[0].1, cut.len()), ("prompt_cut", "/prompt", 1));
    for part in ["37 tokens", "reads 30", "last 7 "] {
        assert!(cut[0].2.contains(part), "{cut:?}");
    }
    let negative = json!({"prompt": "a fox", "negative_prompt": words(31)});
    assert_eq!(codes(&api, negative).await, [pair("prompt_cut", "/negative_prompt")]);
    let unguided = json!({"prompt": "a fox", "negative_prompt": words(31), "guidance_scale": 1});
    assert_eq!(codes(&api, unguided).await, [], "the model does not read it");
    // Weighted prompts have up to eight chunks.
    let weighted = |count: usize| json!({"prompt": words(count), "prompt_syntax": "weighted"});
    assert_eq!(codes(&api, weighted(240)).await, []);
    let cut = warnings(&api, weighted(241)).await;
    assert!(cut[0].2.contains("241 tokens") && cut[0].2.contains("reads 240"), "{cut:?}");
}

#[tokio::test]
async fn an_unknown_word_names_the_most_similar_one() {
    let api = TestApi::open(&[]).await;
    let listed = api.get("/v1/embeddings").await.json();
    let name = listed["data"][0]["name"].as_str().or(listed["data"][0]["id"].as_str()).unwrap().to_owned();
    assert_eq!(warnings(&api, json!({"prompt": format!("a <{name}> fox, <{}>", name.to_uppercase())})).await, []);
    let near = warnings(&api, json!({"prompt": format!("a <{name}x> fox, again <{name}x>")})).await;
    assert_eq!((&*near[0].0, &*near[0].1, near.len()), ("unknown_word", "/prompt", 1));
    assert!(
        near[0].2.contains(&format!("<{name}x>")) && near[0].2.contains(&format!("did you mean <{name}>?")),
        "{near:?}"
    );
    let far = warnings(&api, json!({"prompt": "a fox", "negative_prompt": "<something else>"})).await;
    assert_eq!((&*far[0].0, &*far[0].1), ("unknown_word", "/negative_prompt"));
    assert!(!far[0].2.contains("did you mean"), "{far:?}");
    // These are no words of textual inversions.
    for prompt in ["a < b > c", "<lora:emoji-flat:1>", "1 <2> 3", "<|startoftext|>", "<3"] {
        assert_eq!(codes(&api, json!({"prompt": prompt, "prompt_syntax": "plain"})).await, [], "{prompt}");
    }
    // A prompt of unknown words does not make a long answer.
    let many: String = (0..20).map(|at| format!("<nothing{at}>")).collect();
    let many = codes(&api, json!({"prompt": many, "prompt_syntax": "weighted"})).await;
    assert_eq!(many.iter().filter(|(code, _)| code == "unknown_word").count(), 8);
}

#[tokio::test]
async fn a_size_that_is_not_the_models_own_is_named() {
    let api = TestApi::open(&[]).await;
    assert_eq!(warnings(&api, json!({"prompt": "a fox", "width": 128, "height": 128})).await, []);
    let wide = warnings(&api, json!({"prompt": "a fox", "size": "192x128"})).await;
    assert_eq!((&*wide[0].0, &*wide[0].1, wide.len()), ("size_not_native", "/width", 1));
    assert!(wide[0].2.contains("made for 128x128") && wide[0].2.contains("is 192x128"), "{wide:?}");
    assert_eq!(codes(&api, json!({"prompt": "a fox", "height": 192})).await, [pair("size_not_native", "/height")]);
}

#[tokio::test]
async fn an_answer_that_is_a_picture_has_its_warnings_in_a_header() {
    let api = TestApi::open(&[]).await;
    for (body, expected) in [
        (json!({"prompt": "a fox", "size": "128x128"}), ""),
        (json!({"prompt": "a fox", "size": "192x128"}), r#""size_not_native";pointer="/width""#),
        (
            json!({"prompt": "fox ".repeat(37), "size": "192x128"}),
            r#""size_not_native";pointer="/width", "prompt_cut";pointer="/prompt""#,
        ),
    ] {
        let work = async { api.succeed(api.begin_next().await, PNG).await };
        let (answer, ()) = tokio::join!(api.ask(post(&body, &[("accept", "image/png")])), work);
        assert_eq!((answer.status, answer.header("latentd-warnings")), (200, expected), "{body}");
    }
}
