//! A map of few entries: a list in the order of its keys, which costs no more than it holds.
//!
//! Keys rise as they come (calls and threads are numbered), so most entries are added at the end.

/// A map of few entries.
pub(super) struct Few<K, V>(Vec<(K, V)>);

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord, V> Few<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let place = self.place(key).ok()?;
        self.0.get(place).map(|(_, value)| value)
    }

    /// Sets a value, and gives the one that was there.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.place(&key) {
            Ok(place) => {
                let (_, known) = self.0.get_mut(place)?;
                Some(std::mem::replace(known, value))
            }
            Err(place) => {
                self.0.insert(place, (key, value));
                None
            }
        }
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.place(key).ok()?;
        Some(self.0.remove(place).1)
    }

    fn place(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(key))
    }
}

#[cfg(test)]
mod tests {
    use super::Few;

    #[test]
    fn entries_are_found_whatever_the_order_in_which_they_come() {
        let mut few = Few::default();
        for key in [3, 1, 2] {
            assert_eq!(few.insert(key, key * 10), None);
        }
        assert_eq!(few.insert(2, 21), Some(20));
        assert_eq!(
            (few.get(&1), few.get(&2), few.get(&4)),
            (Some(&10), Some(&21), None)
        );
        assert_eq!((few.remove(&1), few.remove(&1)), (Some(10), None));
        assert_eq!((few.get(&2), few.get(&3)), (Some(&21), Some(&30)));
    }
}
