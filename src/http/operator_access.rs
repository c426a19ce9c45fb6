//! Who may use the operator's listener. Probes and metrics are open. If there is an operator's token, everything else
//! requires this token or an API key with the scope `admin`.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use super::{caller, error::ApiError, origin::PROBES};
use crate::{
    config::Operator,
    generation::Scope,
    service::{ApiKey, Service, same},
};

/// The right to use the operator's listener.
#[derive(Clone)]
pub struct OperatorAccess {
    service: Service,
    /// SHA-256 of the token. Comparing digests takes the same time whatever the request has sent as the token. `None`
    /// if no token is required.
    token: Option<Arc<[u8; 32]>>,
}

impl OperatorAccess {
    /// Requires `operator.token` unless it is empty.
    pub fn new(service: Service, operator: &Operator) -> OperatorAccess {
        let token = (!operator.token.is_empty()).then(|| Arc::new(Sha256::digest(operator.token.expose()).into()));
        OperatorAccess { service, token }
    }

    /// `shown` is the token or the key in the request's `Authorization`.
    async fn check(&self, path: &str, shown: Option<String>) -> Result<(), ApiError> {
        let Some(token) = self.token.as_ref().filter(|_| !PROBES.contains(&path)) else { return Ok(()) };
        let shown = shown.ok_or(ApiError::MissingToken)?;
        if same(token, &Sha256::digest(&shown).into()) {
            return Ok(());
        }
        if !ApiKey::is_like(&shown) {
            return Err(ApiError::InvalidToken);
        }
        match self.service.caller(Some(&shown)).await.map_err(ApiError::from) {
            Err(ApiError::InvalidKey) => Err(ApiError::InvalidToken),
            caller => Ok(caller?.require(Scope::Admin)?),
        }
    }
}

/// Middleware: runs the handler if the request has the right to use its path, and otherwise answers with an error.
pub async fn check(State(access): State<OperatorAccess>, request: Request, next: Next) -> Response {
    let (path, shown) = (request.uri().path().to_owned(), caller::key(request.headers()));
    match access.check(&path, shown).await {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}
