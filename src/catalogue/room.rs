//! Decides which models to unload so that another one fits: a pure function of sizes and uses.

/// A model that takes memory, or will take it when it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub bytes: u64,
    /// Grows with every use: the least recently used model has the smallest value.
    pub used: u64,
    /// Whether a run uses the model, or the model is being loaded.
    pub in_use: bool,
}

/// The decision which models to unload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Indices of the models to unload.
    pub unload: Vec<usize>,
    /// Whether all these models can be unloaded now. If not, some of them are in use or being loaded. Those runs and
    /// loads must end first.
    pub now: bool,
}

/// Decides which of `held` to unload so that `incoming` more bytes fit `bound`. A model that exceeds the bound fits if
/// no other model is loaded.
///
/// Models in use are chosen only if unloading all others is not enough. Both among the models in use and among the
/// others, the least recently used model is chosen first. A model that fits next to the new one stays.
pub fn plan(held: &[Held], incoming: u64, bound: u64) -> Plan {
    let mut order: Vec<usize> = (0..held.len()).collect();
    order.sort_by_key(|i| (held[*i].in_use, held[*i].used));
    let all: u128 = held.iter().map(|model| u128::from(model.bytes)).sum();
    // Bytes of the models that stay, plus the new one.
    let mut total = all + u128::from(incoming);
    let mut unload: Vec<usize> = Vec::new();
    for i in order {
        if total <= u128::from(bound) {
            break;
        }
        total -= u128::from(held[i].bytes);
        unload.push(i);
    }
    // If a large model is unloaded, smaller models that were chosen before it may fit after all. The most recently used
    // of these smaller models are tried first.
    for at in (0..unload.len()).rev() {
        let bytes = u128::from(held[unload[at]].bytes);
        if total + bytes <= u128::from(bound) {
            total += bytes;
            unload.remove(at);
        }
    }
    let now = unload.iter().all(|i| !held[*i].in_use);
    Plan { unload, now }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Held, Plan, plan};

    fn held(bytes: u64, used: u64, in_use: bool) -> Held {
        Held { bytes, used, in_use }
    }

    #[test]
    fn the_least_recently_used_model_is_unloaded_first() {
        let three = [held(4, 30, false), held(4, 10, false), held(4, 20, false)];
        assert_eq!(plan(&three, 4, 16), Plan { unload: vec![], now: true });
        assert_eq!(plan(&three, 4, 12), Plan { unload: vec![1], now: true });
        assert_eq!(plan(&three, 4, 8), Plan { unload: vec![1, 2], now: true });
        assert_eq!(plan(&three, 100, 12), Plan { unload: vec![1, 2, 0], now: true });
    }

    #[test]
    fn models_in_use_are_chosen_last_and_cannot_be_unloaded_now() {
        let used = [held(4, 1, true), held(4, 2, false)];
        assert_eq!(plan(&used, 4, 8), Plan { unload: vec![1], now: true });
        assert_eq!(plan(&used, 8, 8), Plan { unload: vec![1, 0], now: false });
        assert_eq!(plan(&used[..1], 8, 8), Plan { unload: vec![0], now: false });
    }

    #[test]
    fn a_small_model_stays_if_unloading_a_large_one_is_enough() {
        assert_eq!(plan(&[held(1, 1, false), held(10, 2, false)], 10, 11), Plan { unload: vec![1], now: true });
    }

    fn any_held() -> impl Strategy<Value = Vec<Held>> {
        let bytes = prop_oneof![0u64..20, Just(u64::MAX)];
        let used = Just((0..8u64).collect::<Vec<_>>()).prop_shuffle();
        (prop::collection::vec((bytes, any::<bool>()), 0..8), used).prop_map(|(models, used)| {
            models.into_iter().zip(used).map(|((bytes, in_use), used)| Held { bytes, used, in_use }).collect()
        })
    }

    proptest! {
        #[test]
        fn the_new_model_fits_beside_the_models_that_stay(
            held in any_held(),
            incoming in 0u64..40,
            bound in prop_oneof![0u64..60, Just(u64::MAX)],
        ) {
            let plan = plan(&held, incoming, bound);
            let left = |without: &[usize]| -> u128 {
                let stays = (0..held.len()).filter(|i| !without.contains(i));
                stays.map(|i| u128::from(held[i].bytes)).sum::<u128>() + u128::from(incoming)
            };
            prop_assert!(left(&plan.unload) <= u128::from(bound) || plan.unload.len() == held.len());
            prop_assert_eq!(plan.now, plan.unload.iter().all(|i| !held[*i].in_use));
            // Nothing is unloaded that could stay.
            for i in &plan.unload {
                let others: Vec<usize> = plan.unload.iter().copied().filter(|other| other != i).collect();
                prop_assert!(left(&others) > u128::from(bound));
            }
            // No request waits for a run to end if unloading idle models is enough.
            let idle: Vec<usize> = (0..held.len()).filter(|i| !held[*i].in_use).collect();
            prop_assert!(plan.now || left(&idle) > u128::from(bound));
            // If two models have equal size and use, the more recently used model is unloaded only together with the
            // other model.
            for (i, a) in held.iter().enumerate() {
                for (j, b) in held.iter().enumerate() {
                    let alike = a.bytes == b.bytes && a.in_use == b.in_use && a.used < b.used;
                    prop_assert!(!alike || !plan.unload.contains(&j) || plan.unload.contains(&i));
                }
            }
        }
    }
}
