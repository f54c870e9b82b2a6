//! State that lives on over a reload: a directive of the new plan takes what its predecessor holds.

use parking_lot::Mutex;
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// Shared state of directives by key, held weakly: what no plan uses any longer is gone.
#[derive(Default)]
pub struct ReloadState(Mutex<HashMap<String, Weak<dyn Any + Send + Sync>>>);

impl ReloadState {
    /// The state under `key` if it lives and is a `T`; else a new one. Keys begin with the directive's keyword and name
    /// its zone and whatever makes the state unfit for another configuration.
    pub fn adopt_or<T: Any + Send + Sync>(&self, key: &str, new: impl FnOnce() -> T) -> Arc<T> {
        let mut map = self.0.lock();
        map.retain(|_, state| state.strong_count() > 0);
        if let Some(found) = map.get(key).and_then(Weak::upgrade).and_then(|state| state.downcast::<T>().ok()) {
            return found;
        }
        let state = Arc::new(new());
        let erased: Arc<dyn Any + Send + Sync> = state.clone();
        map.insert(key.to_owned(), Arc::downgrade(&erased));
        state
    }

    /// The state under `key`, if it lives and is a `T`.
    pub fn find<T: Any + Send + Sync>(&self, key: &str) -> Option<Arc<T>> {
        self.0.lock().get(key)?.upgrade()?.downcast().ok()
    }

    /// All state that lives and is a `T`, with its keys.
    pub fn all<T: Any + Send + Sync>(&self) -> Vec<(String, Arc<T>)> {
        let map = self.0.lock();
        map.iter().filter_map(|(key, state)| Some((key.clone(), state.upgrade()?.downcast().ok()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::ReloadState;

    #[test]
    fn state_is_adopted_while_somebody_holds_it_and_made_anew_after() {
        let reload_state = ReloadState::default();
        let first = reload_state.adopt_or("cache .", || 1_u32);
        assert_eq!(*reload_state.adopt_or("cache .", || 2_u32), 1);
        assert_eq!(*reload_state.adopt_or("cache example.", || 3_u32), 3);
        drop(first);
        assert_eq!(*reload_state.adopt_or("cache .", || 4_u32), 4);
    }

    #[test]
    fn state_that_lives_is_found_by_its_key_and_by_its_type() {
        let reload_state = ReloadState::default();
        let first = reload_state.adopt_or("cache .", || 1_u32);
        let _of_another_type = reload_state.adopt_or("forward .", || 2_u64);
        assert_eq!(reload_state.find::<u32>("cache ."), Some(first.clone()));
        assert_eq!((reload_state.find::<u64>("cache ."), reload_state.find::<u32>("cache example.")), (None, None));
        assert_eq!(reload_state.all::<u32>(), [("cache .".to_owned(), first.clone())]);
        drop(first);
        assert_eq!((reload_state.find::<u32>("cache ."), reload_state.all::<u32>().len()), (None, 0));
    }

    #[test]
    fn state_of_another_type_is_not_adopted() {
        let reload_state = ReloadState::default();
        let _first = reload_state.adopt_or("cache .", || 1_u32);
        assert_eq!(*reload_state.adopt_or("cache .", || 2_u64), 2);
    }
}
