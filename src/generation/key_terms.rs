//! What an API key may do, and how much.

use serde::{Deserialize, Serialize};

use super::{Allowance, Exceeded, Priority, RateLimit, SafetyPolicy, Spent};

/// A right of an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Creates, cancels and deletes generations and webhook endpoints: every method except `GET` and `HEAD`.
    Generate,
    /// Reads generations, models and usage: every `GET` and `HEAD`.
    Read,
    /// Uses the operator's routes, like the operator's token.
    Admin,
}

impl Scope {
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Generate => "generate",
            Scope::Read => "read",
            Scope::Admin => "admin",
        }
    }
}

/// The terms of an API key. The default is a key of a client without limits of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyTerms {
    /// A name by which people tell keys apart.
    pub name: String,
    pub scopes: Vec<Scope>,
    /// The models that the key may use; empty means every model.
    pub models: Vec<String>,
    /// Higher priorities are lowered to this priority.
    pub max_priority: Priority,
    pub rate_limit: Option<RateLimit>,
    /// Maximum work of the generations of one day (UTC), in 10⁹ multiplications.
    pub max_cost_per_day: Option<u64>,
    /// How long the key is valid after its creation.
    pub expires_in_s: Option<u64>,
    /// What happens to flagged pictures of the key's generations; `None` means the setting `safety.policy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safety: Option<SafetyPolicy>,
}

impl Default for KeyTerms {
    fn default() -> KeyTerms {
        KeyTerms {
            name: String::new(),
            scopes: vec![Scope::Generate, Scope::Read],
            models: Vec::new(),
            max_priority: Priority::High,
            rate_limit: None,
            max_cost_per_day: None,
            expires_in_s: None,
            safety: None,
        }
    }
}

impl KeyTerms {
    pub fn may_use(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|allowed| allowed == model)
    }

    /// Whether accepting a generation uses up a part of a limit of the key.
    pub fn has_limits(&self) -> bool {
        self.rate_limit.is_some() || self.max_cost_per_day.is_some()
    }

    /// Checks that one more generation of this cost stays within the limits.
    ///
    /// # Errors
    /// The limit that the generation would exceed.
    pub fn check(&self, spent: &Spent, cost: f64) -> Result<(), Exceeded> {
        if let Some(limit) = self.rate_limit {
            limit.take(spent.window, spent.now).map_err(|reset_s| Exceeded::Rate { limit, reset_s })?;
        }
        match self.max_cost_per_day {
            Some(quota) if spent.cost + cost > quota as f64 => {
                Err(Exceeded::Quota { cost, spent: spent.cost, quota, reset_s: spent.until_next_day_s() })
            }
            _ => Ok(()),
        }
    }

    /// What is left of each limit.
    pub fn allowances(&self, spent: &Spent) -> Vec<Allowance> {
        let rate = self.rate_limit.map(|limit| limit.allowance(spent.window, spent.now));
        let quota = self.max_cost_per_day.map(|quota| Allowance {
            policy: Allowance::DAY,
            quota,
            window_s: 86_400,
            left: (quota as f64 - spent.cost).max(0.0) as u64,
            reset_s: spent.until_next_day_s(),
        });
        rate.into_iter().chain(quota).collect()
    }
}
