//! Tests of the choice of the family that reads a folder.

use std::collections::BTreeSet;

use latentd::families::{FAMILIES, ModelIndex};
use serde_json::{Value, json};

#[test]
fn every_family_has_a_unique_name_and_classes() {
    let names: BTreeSet<&str> = FAMILIES.iter().map(|family| family.name()).collect();
    assert_eq!(names.len(), FAMILIES.len());
    assert!(FAMILIES.iter().all(|family| !family.classes().is_empty()));
}

#[test]
fn the_index_decides_which_family_reads_a_folder() {
    let family = |index: Value| {
        let index = ModelIndex { keys: index.as_object().unwrap().clone() };
        let reading: Vec<&str> = FAMILIES.iter().filter(|of| of.reads(&index)).map(|of| of.name()).collect();
        assert!(reading.len() <= 1, "{reading:?}");
        reading.first().copied()
    };
    let xl = |text_encoder: Option<&str>, score: Option<bool>| {
        let mut index = json!({
            "_class_name": "StableDiffusionXLImg2ImgPipeline",
            "text_encoder": [text_encoder.map(|_| "transformers"), text_encoder],
        });
        score.into_iter().for_each(|score| index["requires_aesthetics_score"] = score.into());
        family(index)
    };
    let clip = Some("CLIPTextModel");
    assert_eq!(xl(clip, None), Some("stable_diffusion_xl"));
    assert_eq!(xl(clip, Some(false)), Some("stable_diffusion_xl"));
    assert_eq!(xl(None, None), Some("stable_diffusion_xl_refiner"));
    assert_eq!(xl(clip, Some(true)), Some("stable_diffusion_xl_refiner"));
    assert_eq!(family(json!({"_class_name": "LatentConsistencyModelPipeline"})), Some("stable_diffusion"));
    assert_eq!(family(json!({"_class_name": "StableDiffusion3Img2ImgPipeline"})), Some("stable_diffusion_3"));
    assert_eq!(family(json!({"_class_name": "ScoreSdeVePipeline"})), Some("score_sde_ve"));
    assert_eq!(family(json!({"_class_name": "ScoreSdeVpPipeline"})), Some("score_sde_vp"));
    assert_eq!(family(json!({"_class_name": "ZImageInpaintPipeline"})), Some("z_image"));
    assert_eq!(family(json!({"_class_name": "Flux2KleinPipeline"})), Some("flux2_klein"));
    assert_eq!(family(json!({"_class_name": "DreamLiteMobilePipeline"})), Some("dream_lite"));
    assert_eq!(family(json!({"_class_name": "StableDiffusionUpscalePipeline"})), None);
    assert_eq!(family(json!({})), None);
}
