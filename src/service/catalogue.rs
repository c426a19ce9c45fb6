//! Operations on the catalogue: models, LoRAs, textual inversions and ControlNets.

use std::sync::Arc;

use serde_json::Value;

use super::{CatalogueRules, Parts, Service, ServiceError};
use crate::{
    catalogue::{Catalogue, CompatibleModels, ControlKind, Reloaded},
    diffusion::names,
    generation::{self, Bounds, ModelCard, Rules, SchedulerChoice, WorkKind},
};

/// A model as the catalogue lists it.
#[derive(Clone, Debug)]
pub struct ModelView {
    pub name: String,
    /// `ready`, `loading`, `cold` or `failed`.
    pub state: &'static str,
    /// Why the model cannot be used.
    pub error: Option<String>,
    /// Bytes of memory that the weights take when they are loaded.
    pub bytes: Option<u64>,
    pub card: Option<Arc<ModelCard>>,
    /// Remarks for people about how the files of the model were read.
    pub notes: Vec<String>,
}

impl ModelView {
    /// Whether requests for pictures can use the model.
    pub fn draws(&self) -> bool {
        self.card.as_ref().is_some_and(|card| card.work_kind() == WorkKind::Draw)
    }
}

/// A LoRA, a textual inversion, a ControlNet or a motion adapter.
#[derive(Clone, Debug)]
pub struct AddOn {
    pub name: String,
    /// Size of the file in bytes; `None` for a ControlNet, which may have several files.
    pub bytes: Option<u64>,
    /// Why no model can use the file.
    pub error: Option<String>,
    /// Names of the models that can use the file.
    pub models: Vec<String>,
    /// Whether this is a motion adapter, which makes films.
    pub moves: bool,
}

impl AddOn {
    fn of(name: &str, bytes: Option<u64>, CompatibleModels { models, error }: CompatibleModels) -> AddOn {
        AddOn { name: name.to_owned(), bytes, error, models, moves: false }
    }
}

impl Service {
    /// Lists the models.
    pub fn models(&self) -> Vec<ModelView> {
        self.0.catalogue.names().into_iter().map(|name| self.model_view(name)).collect()
    }

    /// The JSON Schema of a request for work of this kind by the model of this card, with the defaults of this server.
    pub fn request_schema(&self, kind: WorkKind, card: &ModelCard) -> Value {
        let Parts { limits, accept_policy, .. } = &self.0.parts;
        let mut schema = generation::request_schema(kind, &Bounds { card, limits }, card.name == self.default_model());
        for (field, seconds) in
            [("start_timeout_s", accept_policy.start_timeout_s), ("run_timeout_s", accept_policy.run_timeout_s)]
        {
            schema["properties"][field]["default"] = seconds.into();
        }
        schema
    }

    /// The names of the schedulers that can draw with the model of this card.
    pub fn schedulers_of(&self, card: &ModelCard) -> Vec<String> {
        let Parts { catalogue, limits, .. } = &self.0.parts;
        let rules = CatalogueRules { catalogue, limits };
        let takes_all = card.flow.is_none() && card.work_kind() != WorkKind::Film && !card.own_scheduler_class_only;
        // A scheduler that fits may still need another number of steps.
        let fits = |name: &String| {
            let choice = SchedulerChoice::Name(name.clone());
            let checked = rules.check_scheduler(card, &choice, card.default_steps, None);
            !checked.is_err_and(|(key, _)| key != "steps")
        };
        names().map(|scheduler| scheduler.name).filter(|name| takes_all || fits(name)).collect()
    }

    /// The model of this name, even if it cannot be used.
    pub fn model(&self, name: &str) -> Option<ModelView> {
        self.0.catalogue.names().into_iter().find(|known| known == name).map(|name| self.model_view(name))
    }

    /// The model card of a model that can be used, if its folder has one.
    ///
    /// # Errors
    /// The thread that reads the file fails.
    pub async fn model_card(&self, name: String) -> Result<Option<String>, ServiceError> {
        self.look(move |catalogue| catalogue.model_card(&name)).await
    }

    fn model_view(&self, name: String) -> ModelView {
        let (catalogue, (state, error)) = (&self.0.catalogue, self.0.catalogue.state(&name));
        let (bytes, card, notes) = (catalogue.bytes(&name), catalogue.card(&name), catalogue.notes(&name));
        ModelView { name, state, error, bytes, card, notes }
    }

    /// Lists the LoRAs.
    ///
    /// # Errors
    /// The thread that reads the files fails.
    pub async fn loras(&self) -> Result<Vec<AddOn>, ServiceError> {
        self.look(|catalogue| {
            let adapters = catalogue.adapters();
            let loras = adapters.loras();
            loras.map(|(name, file)| AddOn::of(name, Some(file.bytes), catalogue.users_of_lora(name))).collect()
        })
        .await
    }

    /// Lists the textual inversions.
    ///
    /// # Errors
    /// The thread that reads the files fails.
    pub async fn embeddings(&self) -> Result<Vec<AddOn>, ServiceError> {
        self.look(|catalogue| {
            let adapters = catalogue.adapters();
            let words = adapters.embeddings();
            words.map(|(name, file)| AddOn::of(name, Some(file.bytes), catalogue.users_of_embedding(name))).collect()
        })
        .await
    }

    /// Lists the ControlNets and the motion adapters.
    pub fn control_nets(&self) -> Vec<AddOn> {
        let (catalogue, control_nets) = (&self.0.catalogue, self.0.catalogue.control_nets());
        let add_on = |name| AddOn {
            moves: control_nets.kind(name) == Some(ControlKind::MotionAdapter),
            ..AddOn::of(name, None, catalogue.users_of_control_net(name))
        };
        control_nets.names().map(|(name, _)| add_on(name)).collect()
    }

    pub fn default_model(&self) -> &str {
        self.0.catalogue.default_name()
    }

    /// Reads the folders of models, LoRAs, textual inversions and ControlNets again.
    ///
    /// # Errors
    /// A folder cannot be read; then nothing changes.
    pub async fn reload(&self) -> Result<Reloaded, ServiceError> {
        self.look(Catalogue::reload).await?.map_err(|error| ServiceError::Catalogue(error.to_string()))
    }

    /// Calls a function that reads files, on a thread for blocking work.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Catalogue) -> T + Send + 'static,
    ) -> Result<T, ServiceError> {
        let catalogue = self.0.catalogue.clone();
        let looked = tokio::task::spawn_blocking(move || look(&catalogue)).await;
        looked.map_err(|error| ServiceError::Catalogue(error.to_string()))
    }
}
