//! State that lives on over a reload: a directive of the new plan takes what its predecessor holds.

use parking_lot::Mutex;
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// Shared state of directives by key, held weakly: what no plan uses any longer is gone.
#[derive(Default)]
pub struct Carry(Mutex<HashMap<String, Weak<dyn Any + Send + Sync>>>);

impl Carry {
    /// The state under `key` if it lives and is a `T`; else a new one. Keys begin with the directive's keyword and name its zone and
    /// whatever makes the state unfit for another configuration.
    pub fn adopt_or<T: Any + Send + Sync>(&self, key: &str, new: impl FnOnce() -> T) -> Arc<T> {
        let mut map = self.0.lock();
        map.retain(|_, state| state.strong_count() > 0);
        if let Some(found) = map.get(key).and_then(Weak::upgrade).and_then(|state| state.downcast::<T>().ok()) {
            return found;
        }
        let made = Arc::new(new());
        let erased: Arc<dyn Any + Send + Sync> = made.clone();
        map.insert(key.to_owned(), Arc::downgrade(&erased));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::Carry;

    #[test]
    fn state_is_adopted_while_somebody_holds_it_and_made_anew_after() {
        let carry = Carry::default();
        let first = carry.adopt_or("cache .", || 1_u32);
        assert_eq!(*carry.adopt_or("cache .", || 2_u32), 1);
        assert_eq!(*carry.adopt_or("cache example.", || 3_u32), 3);
        drop(first);
        assert_eq!(*carry.adopt_or("cache .", || 4_u32), 4);
    }

    #[test]
    fn state_of_another_type_is_not_adopted() {
        let carry = Carry::default();
        let _first = carry.adopt_or("cache .", || 1_u32);
        assert_eq!(*carry.adopt_or("cache .", || 2_u64), 2);
    }
}
