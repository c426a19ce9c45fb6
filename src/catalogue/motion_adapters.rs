//! Which models of pictures make films with which motion adapters.

use std::sync::Arc;

use super::ControlNets;
use crate::{
    generation::{FilmCard, ModelCard, MotionAdapterCard, Task},
    models::motion_adapter::MotionAdapterConfig,
};

/// The default number of frames of diffusers' pipeline, if the adapter can make as many.
const FRAMES: u32 = 16;
/// The frames per second of the films on which the published adapters were trained.
const FPS: u32 = 8;

impl ControlNets {
    /// The card of a model, extended by what the model can do with the motion adapters that fit it.
    pub(super) fn moving(&self, card: Arc<ModelCard>) -> Arc<ModelCard> {
        if card.motion_groups.is_none() {
            return card;
        }
        let fitting = self.motion_adapters().filter(|(_, config)| misfit(&card, config).is_none());
        let adapter = |(name, config): (&str, &MotionAdapterConfig)| MotionAdapterCard {
            name: name.to_owned(),
            max_frames: u32::try_from(config.motion_max_seq_length).unwrap_or(u32::MAX),
        };
        let motion_adapters: Vec<MotionAdapterCard> = fitting.map(adapter).collect();
        let default = match (&card.default_motion_adapter, &motion_adapters[..]) {
            (_, []) => return Arc::new(ModelCard { default_motion_adapter: None, ..ModelCard::clone(&card) }),
            (None, [only]) => Some(only),
            (named, all) => all.iter().find(|adapter| Some(&adapter.name) == named.as_ref()),
        };
        let most = motion_adapters.iter().map(|adapter| adapter.max_frames).min();
        let film = FilmCard {
            default_frames: default.map(|adapter| adapter.max_frames).or(most).unwrap_or(FRAMES).min(FRAMES),
            frames_multiple: 1,
            default_fps: FPS,
            motion: None,
            decodes_in_chunks: false,
            has_second_guidance: false,
        };
        let mut tasks = card.tasks.clone();
        tasks.push(Task::TextToVideo);
        let default_motion_adapter = default.map(|adapter| adapter.name.clone());
        let film = Some(film);
        Arc::new(ModelCard { tasks, film, motion_adapters, default_motion_adapter, ..ModelCard::clone(&card) })
    }

    /// Checks whether the model can make films with the motion adapter. The error is a code and a reason.
    pub fn check_motion(&self, card: &ModelCard, name: &str) -> Result<(), (&'static str, String)> {
        let unusable = |reason: String| ("unsupported_for_model", format!("{name:?} {reason}"));
        match self.motion_adapters().find(|(known, _)| *known == name) {
            Some((_, config)) => misfit(card, config).map_or(Ok(()), |reason| Err(unusable(reason))),
            None => Err(match (self.key(name), self.fault(name)) {
                (_, Some(fault)) => unusable(format!("cannot be used: {fault}")),
                (Some(_), None) => unusable("is a ControlNet and no motion adapter".to_owned()),
                (None, None) => {
                    let hint = "GET /v1/controlnets lists the motion adapters, too";
                    ("unknown_motion_adapter", format!("{name:?} is not in the catalogue; {hint}"))
                }
            }),
        }
    }
}

/// Why an adapter does not fit a model, as the end of a sentence about it; `None` if it fits.
fn misfit(card: &ModelCard, config: &MotionAdapterConfig) -> Option<String> {
    let Some(groups) = card.motion_groups else {
        return Some(format!("cannot be used with {:?}, which motion adapters cannot extend", card.name));
    };
    let of_adapter = config.motion_norm_num_groups;
    if config.maps() != card.maps {
        let maps = "block_out_channels and motion_layers_per_block differ from its U-Net";
        Some(format!("was not made for models like {:?}: {maps}", card.name))
    } else if of_adapter != groups {
        let norms = format!("motion_norm_num_groups is {of_adapter}, and its U-Net has {groups} groups");
        Some(format!("was not made for models like {:?}: {norms}", card.name))
    } else {
        None
    }
}
