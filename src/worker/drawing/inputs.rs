//! Loads the uploaded pictures of a claimed generation from the blob store.

use bytes::Bytes;

use super::Drawing;
use crate::{
    generation::{Draw, ImageField, InputImage},
    imaging::decode,
    ledger::{Outcome, blobs::path_of_input},
    pipelines::Inputs,
    worker::executor::{Claimed, failed},
};

impl Drawing {
    /// All pictures of the request. The error is the outcome of a generation whose pictures cannot be loaded.
    pub(super) async fn load_inputs(&self, claimed: &Claimed, draw: &Draw) -> Result<Inputs, Outcome> {
        let mut inputs = Inputs::default();
        if let Some(source) = &draw.source {
            self.load_input(claimed, &mut inputs, ImageField::Image, &source.image).await?;
            for (i, image) in (1..).zip(&source.further_images) {
                self.load_input(claimed, &mut inputs, ImageField::Reference(i), image).await?;
            }
            if let Some(mask) = &source.mask {
                self.load_input(claimed, &mut inputs, ImageField::Mask, &mask.mask).await?;
            }
        }
        for (i, control) in draw.controls.iter().enumerate() {
            self.load_input(claimed, &mut inputs, ImageField::Control(i), &control.image).await?;
        }
        Ok(inputs)
    }

    async fn load_input(
        &self,
        claimed: &Claimed,
        inputs: &mut Inputs,
        place: ImageField,
        input: &InputImage,
    ) -> Result<(), Outcome> {
        let file = self.blobs.get(&path_of_input(claimed.id(), &input.upload)).await;
        let file = file.map_err(|error| claimed.retry(format!("a picture cannot be read: {error}")))?;
        let missing = || failed("input_missing", format!("the picture {} is missing", input.upload), false);
        let file: Bytes = file.ok_or_else(missing)?;
        // Stored pictures have neither transparency nor a rotation, so the background color has no effect.
        let decoded = tokio::task::spawn_blocking(move || decode(&file, 255)).await;
        let decoded = decoded.map_err(|error| failed("internal", format!("decoding a picture: {error}"), true))?;
        let decoded = decoded.map_err(|error| failed("internal", format!("a stored picture {error}"), false))?;
        inputs.put(place, decoded);
        Ok(())
    }
}
