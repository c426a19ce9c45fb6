//! The sender of a request: its tenant, its key, and what the key allows.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{ANONYMOUS, Access, ServiceError};
use crate::generation::{Allowance, Job, KeyTerms, Scope, TraceContext};

/// The sender of a request.
#[derive(Clone, Debug)]
pub struct Caller {
    pub tenant: Arc<str>,
    /// `None` for a request without a key, which may do everything that clients do.
    pub key: Option<Arc<CallerKey>>,
    /// The SHA-256 of the whole key, as the request presented it.
    pub digest: Option<[u8; 32]>,
    pub allowances: Allowances,
    /// The trace of the request, which its generation continues.
    pub trace: Option<TraceContext>,
}

/// The key of a request.
#[derive(Clone, Debug)]
pub struct CallerKey {
    /// The public part.
    pub id: String,
    pub terms: KeyTerms,
}

/// What the key of a request has left of its limits; empty until the service has read it. Clones share the contents.
#[derive(Clone, Debug, Default)]
pub struct Allowances(Arc<Mutex<Vec<Allowance>>>);

impl Allowances {
    pub fn get(&self) -> Vec<Allowance> {
        self.0.lock().clone()
    }

    pub(super) fn set(&self, allowances: Vec<Allowance>) {
        *self.0.lock() = allowances;
    }
}

impl Caller {
    /// A sender without a key.
    pub fn anonymous() -> Caller {
        Caller { tenant: ANONYMOUS.into(), key: None, digest: None, allowances: Allowances::default(), trace: None }
    }

    /// The access of this tenant to generations.
    pub fn access(&self) -> Access<'_> {
        Access::Tenant(&self.tenant)
    }

    /// Checks that the key has this scope.
    ///
    /// # Errors
    /// [`ServiceError::ScopeMissing`] if the key does not have the scope.
    pub fn require(&self, scope: Scope) -> Result<(), ServiceError> {
        match &self.key {
            Some(key) if !key.terms.scopes.contains(&scope) => Err(ServiceError::ScopeMissing(scope)),
            _ => Ok(()),
        }
    }

    /// Whether the key may use this model.
    pub fn may_use(&self, model: &str) -> bool {
        self.key.as_ref().is_none_or(|key| key.terms.may_use(model))
    }

    /// Checks that the key may use the models of a job, and lowers the job's priority if it is higher than the key
    /// allows.
    ///
    /// # Errors
    /// [`ServiceError::ModelForbidden`].
    pub(super) fn restrict(&self, job: &mut Job) -> Result<(), ServiceError> {
        let Some(CallerKey { terms, .. }) = self.key.as_deref() else { return Ok(()) };
        let refiner = job.work.draw().and_then(|draw| draw.refiner.as_ref()).map(|refiner| &refiner.model);
        if let Some(model) = [Some(&job.model), refiner].into_iter().flatten().find(|model| !terms.may_use(model)) {
            return Err(ServiceError::ModelForbidden { model: model.clone(), allowed: terms.models.clone() });
        }
        job.priority = job.priority.min(terms.max_priority);
        Ok(())
    }

    /// The key, if it has limits that accepting a generation uses up.
    pub(super) fn limited_key(&self) -> Option<&CallerKey> {
        self.key.as_deref().filter(|key| key.terms.has_limits())
    }
}
