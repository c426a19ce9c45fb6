//! What pictures and prompts may show: the policy for flagged pictures, the safety checkers, and the prompts that are
//! refused.

mod block_list;
mod checkers;
mod meanings;

use std::{path::PathBuf, sync::Arc};

use crate::{
    catalogue::{Catalogue, embedded_folder},
    config,
    generation::{SafetyPolicy, Work},
    metrics::Metrics,
    models::SafetyChecker,
    pipelines::Frame,
    weights::{LoadError, ModelFolder},
};
use block_list::BlockList;
pub use block_list::BlockListError;
use checkers::Checkers;
pub use checkers::most_bytes;
use meanings::Meanings;

/// The rules for pictures and prompts. Cheap to clone. With the default settings, nothing is loaded or checked.
#[derive(Clone, Debug)]
pub struct Safety(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    policy: SafetyPolicy,
    block_list: BlockList,
    /// The meanings of the refused words, if they are compared.
    meanings: Option<Meanings>,
    /// The checker of the setting `safety.checker`, which checks the pictures of all models.
    common: Option<ModelFolder>,
    checkers: Checkers,
    metrics: Metrics,
}

/// Why the settings of `[safety]` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SafetyError {
    #[error("safety.checker = {path}: {source}")]
    Checker { path: PathBuf, source: Box<LoadError> },
    #[error("safety.blocked_prompts = {path}: {source}")]
    BlockList { path: PathBuf, source: BlockListError },
    #[error("safety.blocked_similarity: {0}")]
    Meanings(Box<LoadError>),
    #[error("safety.blocked_similarity needs at most {most} lines in safety.blocked_prompts, which has {lines}")]
    TooManyMeanings { lines: usize, most: usize },
}

/// The name that the checker of `safety.checker` has in the cache. Keys of models are not empty.
const COMMON: &str = "";

impl Safety {
    /// Reads the list of refused prompts, and the headers of the checker that the settings name.
    ///
    /// # Errors
    /// A file is missing or broken.
    pub fn open(settings: &config::Safety, metrics: Metrics) -> Result<Safety, SafetyError> {
        let config::Safety { policy, checker, blocked_prompts, blocked_similarity } = settings;
        let of_checker = |source| SafetyError::Checker { path: checker.clone(), source: Box::new(source) };
        let common = match checker.as_os_str().is_empty() {
            true => None,
            false => {
                let folder = ModelFolder::open(checker).map_err(of_checker)?;
                SafetyChecker::check(&folder).map_err(of_checker)?;
                Some(folder)
            }
        };
        let block_list = match blocked_prompts.as_os_str().is_empty() {
            true => BlockList::default(),
            false => BlockList::read(blocked_prompts)
                .map_err(|source| SafetyError::BlockList { path: blocked_prompts.clone(), source })?,
        };
        let meanings = match block_list.lines() {
            [] => None,
            _ if *blocked_similarity == 0.0 => None,
            lines if lines.len() > Meanings::MOST_ENTRIES => {
                return Err(SafetyError::TooManyMeanings { lines: lines.len(), most: Meanings::MOST_ENTRIES });
            }
            lines => {
                let of_meanings = |error| SafetyError::Meanings(Box::new(error));
                Some(Meanings::load(&embedded_folder(), lines, *blocked_similarity).map_err(of_meanings)?)
            }
        };
        let checkers = Checkers::default();
        Ok(Safety(Arc::new(Rules { policy: *policy, block_list, meanings, common, checkers, metrics })))
    }

    /// The policy for a request whose key has the policy `of_key`.
    pub fn policy(&self, of_key: Option<SafetyPolicy>) -> SafetyPolicy {
        of_key.unwrap_or(self.0.policy)
    }

    /// The field of the first prompt that contains a refused word or phrase, or words of a similar meaning if the model
    /// is the embedded one. Negative prompts are not compared, because they list what a picture must not show. A key
    /// with its own policy `off` may use every prompt. Blocks for a while if [`Safety::compares_meanings`] returns
    /// true.
    pub fn refused_prompt(&self, of_key: Option<SafetyPolicy>, is_embedded: bool, work: &Work) -> Option<&'static str> {
        if of_key == Some(SafetyPolicy::Off) {
            return None;
        }
        let further = work.draw().into_iter().flat_map(|draw| draw.further_prompts.named());
        let further = further.filter(|(name, _)| !name.starts_with("negative"));
        let mut prompts = [("prompt", work.prompt())].into_iter().chain(further);
        let meanings = self.0.meanings.as_ref().filter(|_| is_embedded);
        let is_similar = |text: &str| {
            let found = meanings.map_or(Ok(false), |meanings| meanings.has_similar_in(text));
            // A prompt that cannot be compared is not accepted.
            found.unwrap_or_else(|error| {
                tracing::error!(%error, "the meaning of a prompt cannot be compared");
                true
            })
        };
        let refused = prompts.find(|(_, text)| self.0.block_list.has_entry_in(text) || is_similar(text));
        if refused.is_some() {
            self.count(self.policy(of_key), "prompt", 1);
        }
        refused.map(|(name, _)| name)
    }

    /// Whether [`Safety::refused_prompt`] computes a network for a model.
    pub fn compares_meanings(&self, is_embedded: bool) -> bool {
        is_embedded && self.0.meanings.is_some()
    }

    /// Whether the pictures of this model can be checked.
    pub fn can_check(&self, catalogue: &Catalogue, model: &str) -> bool {
        self.0.common.is_some() || catalogue.safety_checker(model).is_some()
    }

    /// Whether each of the frames is flagged: for a clip, whether one of its pictures is. `None` if there is no checker
    /// for this model. Loads the checker at the first call, and blocks meanwhile and while it computes.
    ///
    /// # Errors
    /// The checker cannot be loaded, or fails.
    pub fn flags(
        &self,
        policy: SafetyPolicy,
        catalogue: &Catalogue,
        model: &str,
        frames: &[Frame],
    ) -> Result<Option<Vec<bool>>, String> {
        let common = self.0.common.as_ref().map(|folder| (Arc::from(COMMON), folder.clone()));
        let Some((key, folder)) = common.or_else(|| catalogue.safety_checker(model)) else { return Ok(None) };
        let checker = self.0.checkers.get(key, &folder, &catalogue.first_device());
        let checker = checker.map_err(|error| folder.told(&error))?;
        let is_flagged = |frame: &Frame| -> Result<bool, String> {
            for picture in frame.pictures() {
                if checker.scores(picture).map_err(|error| error.to_string())?.is_flagged() {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        let flags = frames.iter().map(is_flagged).collect::<Result<Vec<bool>, String>>()?;
        self.count(policy, "picture", flags.iter().filter(|flagged| **flagged).count());
        Ok(Some(flags))
    }

    fn count(&self, policy: SafetyPolicy, kind: &str, hits: usize) {
        self.0.metrics.safety_hits.with_label_values(&[policy.as_str(), kind]).inc_by(hits as u64);
    }

    /// Logs the models whose pictures the policy of the settings cannot check.
    pub fn warn(&self, catalogue: &Catalogue) {
        if self.0.policy.is_off() {
            return;
        }
        for model in catalogue.names().into_iter().filter(|model| catalogue.card(model).is_some()) {
            if !self.can_check(catalogue, &model) {
                let (policy, consequence) = match self.0.policy {
                    SafetyPolicy::Block => ("block", "requests for it are refused"),
                    SafetyPolicy::Flag | SafetyPolicy::Off => ("flag", "its pictures are not checked"),
                };
                tracing::warn!(
                    model,
                    "safety.policy is {policy}, and the model has no safety checker: {consequence}; see safety.checker"
                );
            }
        }
    }
}
