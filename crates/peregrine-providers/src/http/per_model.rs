//! What the models of an entry have learnt about it, kept with the entry: a circuit, latencies.
//!
//! A layer that learns must outlive the model that was made for one request, and must not be shared by models that have
//! nothing to do with each other. So it is kept by model, beside the connections.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// How many models of one entry are remembered. Further ones get a layer of their own.
const MAX_MODELS: usize = 256;

/// A layer of type `L` for each model, made by a policy of type `P`.
#[derive(Debug)]
pub(super) struct PerModel<P, L>(Mutex<BTreeMap<String, (P, L)>>);

impl<P, L> Default for PerModel<P, L> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<P: Clone + PartialEq, L: Clone> PerModel<P, L> {
    /// The layer of a model. Another policy than before begins anew.
    pub(super) fn get(&self, model: &str, policy: &P, make: impl FnOnce(P) -> L) -> L {
        let mut layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match layers.get(model) {
            Some((known, layer)) if known == policy => return layer.clone(),
            None if layers.len() >= MAX_MODELS => return make(policy.clone()),
            Some(_) | None => {}
        }
        let layer = make(policy.clone());
        layers.insert(model.to_owned(), (policy.clone(), layer.clone()));
        layer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_model_keeps_its_layer_until_the_policy_changes_and_there_are_not_too_many() {
        let layers = PerModel::default();
        let get = |model: &str, policy| layers.get(model, &policy, Arc::new);
        let one = get("m", 1);
        assert!(Arc::ptr_eq(&one, &get("m", 1)) && !Arc::ptr_eq(&one, &get("n", 1)));
        assert!(!Arc::ptr_eq(&one, &get("m", 2)) && Arc::ptr_eq(&get("m", 2), &get("m", 2)));
        (0..MAX_MODELS).for_each(|n| drop(get(&n.to_string(), 1)));
        assert!(!Arc::ptr_eq(&get("late", 1), &get("late", 1)));
    }
}
