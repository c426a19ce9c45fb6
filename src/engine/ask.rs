//! What a run waits for, and where it leaves its ask and finds its answers.

use std::{cell::RefCell, rc::Rc, sync::Arc, task::Poll};

use super::recording::Recording;
use crate::{
    diffusion::Latents,
    generation::Phase,
    imaging::RgbImage,
    models::{demand::Demand, stable_diffusion::Part, text_encoders::Tokens},
    pipelines::{
        Activation, Compute, Control, DecodeCall, DenoiseRow, Denoised, Depth, Model, NetworkError, PipelineError,
        Posterior, TextEmbedding, decode,
    },
};

/// Latent pixels of the pictures that are decoded at the same time. An activation is as large as the picture and much
/// deeper, so there is one picture of 512 × 512 on its way at a time, or many small ones.
pub(super) const DECODING: usize = 64 * 64;

/// Rows with equal keys can run as one batch: the same network of the same model, at the same shapes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub model: Arc<str>,
    pub network: Network,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    TextEncoder {
        clip_skip: u32,
    },
    /// (C, h, w) and the context's (L, D).
    Denoiser {
        shape: [usize; 3],
        context: [usize; 2],
        depth: Depth,
    },
    /// (H, W) of the picture.
    Encoder {
        shape: [usize; 2],
    },
    /// (C, h, w) of the latents, and the stage.
    Decoder {
        shape: [usize; 3],
        stage: usize,
    },
    /// (C, h, w)
    TinyDecoder {
        shape: [usize; 3],
    },
}

impl Network {
    pub fn as_str(&self) -> &'static str {
        match self {
            Network::TextEncoder { .. } => "text_encoder",
            Network::Denoiser { depth: Depth::Full | Depth::Keeping, .. } => "denoiser",
            Network::Denoiser { depth: Depth::Shallow, .. } => "denoiser_shallow",
            Network::Encoder { .. } => "encoder",
            Network::Decoder { .. } => "decoder",
            Network::TinyDecoder { .. } => "tiny_decoder",
        }
    }

    /// Latent pixels of `rows` pictures on their way through a decoder, by which the memory that they hold is bounded.
    pub(super) fn decoding(&self, rows: usize) -> usize {
        match self {
            Network::Decoder { shape: [_, h, w], .. } => rows * h * w,
            Network::TextEncoder { .. }
            | Network::Denoiser { .. }
            | Network::Encoder { .. }
            | Network::TinyDecoder { .. } => 0,
        }
    }
}

/// One sample of an ask.
#[derive(Clone, Debug)]
pub(super) enum Row {
    Text(Tokens),
    Denoise(DenoiseRow),
    /// Pixels, (3, H, W).
    Encode(Vec<f32>),
    Decode(Activation),
    /// Latents, (C, h, w).
    DecodeTiny(Vec<f32>),
}

/// The answer to one row.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Text(TextEmbedding),
    Denoised(Denoised),
    Encoded(Posterior),
    Decoded(Activation),
    Picture(RgbImage),
}

/// The network answers with its own kind, so each of these finds what it looks for.
impl Answer {
    fn text(self) -> Option<TextEmbedding> {
        if let Answer::Text(embedding) = self { Some(embedding) } else { None }
    }

    fn denoised(self) -> Option<Denoised> {
        if let Answer::Denoised(denoised) = self { Some(denoised) } else { None }
    }

    fn encoded(self) -> Option<Posterior> {
        if let Answer::Encoded(posterior) = self { Some(posterior) } else { None }
    }

    fn decoded(self) -> Option<Activation> {
        if let Answer::Decoded(activation) = self { Some(activation) } else { None }
    }

    fn picture(self) -> Option<RgbImage> {
        if let Answer::Picture(picture) = self { Some(picture) } else { None }
    }
}

/// An ask and the answers it has so far: its rows may be served over several batches, in order.
#[derive(Debug)]
pub(super) struct Ask {
    pub key: Key,
    pub rows: Vec<Row>,
    pub answers: Vec<Answer>,
    /// What each of the rows asks for, at most.
    pub demand: Demand,
    /// Rows that a call has taken up and not answered yet.
    pub in_call: usize,
}

impl Ask {
    pub fn open_rows(&self) -> usize {
        self.rows.len() - self.answers.len()
    }

    /// The rows that a call has taken up.
    pub fn taken_up(&self) -> &[Row] {
        let first = self.answers.len();
        &self.rows[first..first + self.in_call]
    }

    /// Latent pixels of the pictures whose activations it holds: all of its rows from the moment that the first one enters
    /// the first stage, for then the others will follow.
    pub fn holds(&self) -> usize {
        match self.key.network {
            Network::Decoder { stage: 0, .. } if self.answers.is_empty() && self.in_call == 0 => 0,
            ref network => network.decoding(self.rows.len()),
        }
    }
}

/// Shared by a run's future and the engine, both on the engine's thread.
pub(super) struct Mailbox {
    pub ask: Option<Ask>,
    /// The engine gives up on the ask.
    pub failure: Option<NetworkError>,
    /// What to tell the observer: the phase, and the steps done of all.
    pub phase: Option<Phase>,
    pub step: (u32, u32),
    /// Previews that were not yet handed to the observer: image, step, picture.
    pub previews: Vec<(u32, u32, RgbImage)>,
    pub recording: Recording,
}

impl Mailbox {
    /// For a run of so many steps.
    pub fn new(steps: u32, recording: Recording) -> Mailbox {
        Mailbox { ask: None, failure: None, phase: None, step: (0, steps), previews: Vec::new(), recording }
    }
}

/// The [`Compute`] of one run: every await leaves an ask in the mailbox.
pub(super) struct Station {
    pub mailbox: Rc<RefCell<Mailbox>>,
    pub model: Arc<Model>,
    pub name: Arc<str>,
    /// The refiner of the generation.
    pub refiner: Option<Arc<Model>>,
    /// How many previews the generation wants.
    pub previews: u32,
}

impl Station {
    /// Posts the ask and waits until every row is answered.
    async fn ask(
        &self,
        phase: Phase,
        network: Network,
        demand: Demand,
        rows: Vec<Row>,
    ) -> Result<Vec<Answer>, PipelineError> {
        {
            let mut mailbox = self.mailbox.borrow_mut();
            mailbox.phase = Some(phase);
            mailbox.ask = Some(Ask {
                key: Key { model: self.name.clone(), network },
                answers: Vec::with_capacity(rows.len()),
                rows,
                demand,
                in_call: 0,
            });
        }
        std::future::poll_fn(|_| {
            let mut mailbox = self.mailbox.borrow_mut();
            if let Some(error) = mailbox.failure.take() {
                mailbox.ask = None;
                return Poll::Ready(Err(PipelineError::Network(error)));
            }
            match mailbox.ask.take_if(|ask| ask.open_rows() == 0) {
                Some(ask) => Poll::Ready(Ok(ask.answers)),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl Compute for Station {
    fn refiner(&self) -> Option<Station> {
        let model = self.refiner.clone()?;
        let (mailbox, name) = (self.mailbox.clone(), model.key.clone());
        Some(Station { mailbox, model, name, refiner: None, previews: self.previews })
    }

    async fn text(&self, prompts: Vec<Tokens>, clip_skip: u32) -> Result<Vec<TextEmbedding>, PipelineError> {
        let rows = prompts.into_iter().map(Row::Text).collect();
        let demand = self.model.networks.demand(Part::Text);
        let answers = self.ask(Phase::Encoding, Network::TextEncoder { clip_skip }, demand, rows).await?;
        Ok(answers.into_iter().filter_map(Answer::text).collect())
    }

    async fn denoise(
        &self,
        shape: [usize; 3],
        depth: Depth,
        rows: Vec<DenoiseRow>,
    ) -> Result<Vec<Denoised>, PipelineError> {
        let values = self.model.networks.spec().latent_channels * shape[1] * shape[2];
        if let Some(known) = self.mailbox.borrow_mut().recording.next(rows.len(), values) {
            let denoised = |prediction| Denoised { prediction, features: None };
            return Ok(known.into_iter().map(denoised).collect());
        }
        let context = rows.first().map(|row| row.context.dims()).unwrap_or_default();
        let part = Part::Denoise { size: [shape[1], shape[2]], tokens: context[0], shallow: depth == Depth::Shallow };
        let controls = rows.iter().map(|row| control_demand(&row.controls, [shape[1], shape[2]], context[0]));
        let controls = controls.max_by(|a, b| a.work.total_cmp(&b.work)).unwrap_or_default();
        let demand = self.model.networks.demand(part).and(controls);
        let rows = rows.into_iter().map(Row::Denoise).collect();
        let answers = self.ask(Phase::Denoising, Network::Denoiser { shape, context, depth }, demand, rows).await?;
        Ok(answers.into_iter().filter_map(Answer::denoised).collect())
    }

    async fn encode(&self, shape: [usize; 2], pixels: Vec<Vec<f32>>) -> Result<Vec<Posterior>, PipelineError> {
        let demand = self.model.networks.demand(Part::Encode { size: shape });
        let rows = pixels.into_iter().map(Row::Encode).collect();
        let answers = self.ask(Phase::Encoding, Network::Encoder { shape }, demand, rows).await?;
        Ok(answers.into_iter().filter_map(Answer::encoded).collect())
    }

    async fn decode(&self, latents: &Latents) -> Result<Vec<RgbImage>, PipelineError> {
        decode(self.model.networks.as_ref(), latents, DECODING, async |call: DecodeCall, rows| {
            let DecodeCall { shape: [_, h, w], stage, share } = call;
            let whole = self.model.networks.demand(Part::Decode { size: [h, w] });
            let demand = Demand { work: share * whole.work, ..whole };
            let network = Network::Decoder { shape: call.shape, stage };
            let rows = rows.into_iter().map(Row::Decode).collect();
            let answers = self.ask(Phase::Decoding, network, demand, rows).await?;
            Ok(answers.into_iter().filter_map(Answer::decoded).collect())
        })
        .await
    }

    async fn decode_tiny(&self, latents: &Latents) -> Result<Vec<RgbImage>, PipelineError> {
        let [b, c, h, w] = latents.shape();
        let rows = (0..b).map(|row| Row::DecodeTiny(latents.row(row).to_vec())).collect();
        let demand = self.model.networks.demand(Part::DecodeTiny { size: [h, w] });
        let answers = self.ask(Phase::Decoding, Network::TinyDecoder { shape: [c, h, w] }, demand, rows).await?;
        Ok(answers.into_iter().filter_map(Answer::picture).collect())
    }

    /// After the last step the picture itself is near, and nobody waits for one that is a little like it; nor for those of
    /// steps that are done already.
    fn wants_sketch(&self, step: usize, steps: usize) -> bool {
        let ahead = step < steps && !self.mailbox.borrow().recording.replays();
        ahead && self.is_preview_due(step, steps) && self.model.networks.spec().tiny_decoder
    }

    async fn sketch(&self, step: usize, denoised: &Latents) -> Result<(), PipelineError> {
        let [b, c, h, w] = denoised.shape();
        let rows = (0..b).map(|row| Row::DecodeTiny(denoised.row(row).to_vec())).collect();
        let demand = self.model.networks.demand(Part::DecodeTiny { size: [h, w] });
        let answers = self.ask(Phase::Denoising, Network::TinyDecoder { shape: [c, h, w] }, demand, rows).await?;
        let pictures = answers.into_iter().filter_map(Answer::picture).enumerate();
        let previews = pictures.map(|(image, picture)| (image as u32, step as u32, picture));
        self.mailbox.borrow_mut().previews.extend(previews);
        Ok(())
    }

    fn stepped(&self, step: usize, steps: usize, denoised: &Latents) {
        let sketches_here = self.is_preview_due(step, steps) && !self.wants_sketch(step, steps);
        let mut mailbox = self.mailbox.borrow_mut();
        mailbox.step = (step as u32, steps as u32);
        if sketches_here {
            let [b, c, h, w] = denoised.shape();
            for image in 0..b {
                let picture = self.model.latent_rgb.picture(denoised.row(image), [c, h, w]);
                mailbox.previews.push((image as u32, step as u32, picture));
            }
        }
    }
}

impl Station {
    fn is_preview_due(&self, step: usize, steps: usize) -> bool {
        previews_by(step, steps, self.previews) > previews_by(step - 1, steps, self.previews)
    }
}

/// What the ControlNets of a row need in addition to the denoiser.
fn control_demand(controls: &[Control], size: [usize; 2], tokens: usize) -> Demand {
    controls.iter().map(|control| control.net.demand(size, tokens)).fold(Demand::default(), Demand::and)
}

/// How many of the previews are due after `step` of `steps`, spread evenly with the last one after the last step.
fn previews_by(step: usize, steps: usize, previews: u32) -> usize {
    step * previews as usize / steps.max(1)
}
