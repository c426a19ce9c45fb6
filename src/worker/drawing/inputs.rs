//! Loads the uploaded pictures of a claimed generation from the blob store.

use bytes::Bytes;

use super::Drawing;
use crate::{
    generation::{ImageField, InputImage, Work},
    imaging::decode,
    ledger::{
        Outcome,
        blobs::{path_of_credentials, path_of_input},
    },
    pipelines::Inputs,
    provenance::Input,
    worker::executor::{Claimed, failed},
};

impl Drawing {
    /// All pictures of the request. The error is the outcome of a generation whose pictures cannot be loaded.
    pub(super) async fn load_inputs(&self, claimed: &Claimed, work: &Work) -> Result<Inputs, Outcome> {
        let mut inputs = Inputs::default();
        for (place, input) in work.placed_inputs() {
            self.load_input(claimed, &mut inputs, place, input).await?;
        }
        Ok(inputs)
    }

    /// The pictures of the request as the content credentials of a result name them, with the credentials that the
    /// uploaded files had. The error is the outcome of a generation whose credentials cannot be loaded.
    pub(super) async fn credited_inputs(&self, claimed: &Claimed, work: &Work) -> Result<Vec<Input>, Outcome> {
        let mut inputs = Vec::new();
        for (place, input) in work.placed_inputs() {
            let kept = self.blobs.get(&path_of_credentials(claimed.id(), &input.upload)).await;
            let credentials = kept.map_err(|error| claimed.retry(format!("credentials cannot be read: {error}")))?;
            inputs.push(Input { title: place.path().join("."), sha256: input.upload.clone(), credentials });
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
