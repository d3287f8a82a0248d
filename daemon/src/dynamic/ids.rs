//! The kernel ids that sets have.

use std::collections::{BTreeMap, BTreeSet};

use ringfence_abi::dynamic::MAX_SETS;
use ringfence_policy::model::DynamicSet;
use serde::{Deserialize, Serialize};

use super::sets::SetError;

/// Ids in the order of the sets, and the sets that lost theirs.
pub type Assigned = (Vec<u16>, Vec<(String, u16)>);

/// The kernel id of every set that was ever named, kept so that elements outlive generations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SetIds(BTreeMap<String, u16>);

impl SetIds {
    /// The id of a set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u16> {
        self.0.get(name).copied()
    }

    /// The set that has an id.
    #[must_use]
    pub fn name(&self, id: u16) -> Option<&str> {
        self.iter().find(|(_, known)| *known == id).map(|(name, _)| name)
    }

    /// Every set with its id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u16)> {
        self.0.iter().map(|(name, id)| (name.as_str(), *id))
    }

    /// Ids for the sets of a policy, in the order they come. When the ids run out, those of sets that
    /// are not in `keep` are given again; the second list names the sets that lost theirs, whose elements must go first.
    pub fn assign(&mut self, sets: &[DynamicSet], keep: &BTreeSet<String>) -> Result<Assigned, SetError> {
        let named: BTreeSet<&str> = sets.iter().map(|set| set.name.as_str()).collect();
        let mut lost = Vec::new();
        let mut ids = Vec::with_capacity(sets.len());
        for set in sets {
            if let Some(id) = self.get(&set.name) {
                ids.push(id);
                continue;
            }
            let used: BTreeSet<u16> = self.0.values().copied().collect();
            let id = if let Some(id) = (0..MAX_SETS as u16).find(|id| !used.contains(id)) {
                id
            } else {
                let free = |name: &&String| !named.contains(name.as_str()) && !keep.contains(*name);
                let victim = self.0.keys().find(free).cloned().ok_or(SetError::TooMany)?;
                let id = self.0.remove(&victim).ok_or(SetError::TooMany)?;
                lost.push((victim, id));
                id
            };
            self.0.insert(set.name.clone(), id);
            ids.push(id);
        }
        Ok((ids, lost))
    }
}

#[cfg(test)]
mod tests {
    use ringfence_policy::model::DynamicKind;

    use super::*;

    #[test]
    fn ids_are_stable_and_taken_from_forgotten_sets_when_they_run_out() {
        let mut ids = SetIds::default();
        let set = |name: &String| DynamicSet { name: name.clone(), at: None, kind: DynamicKind::Local };
        let sets = |names: &[String]| names.iter().map(set).collect::<Vec<_>>();
        let none = BTreeSet::new();
        let first: Vec<String> = (0..MAX_SETS).map(|i| format!("s{i:03}")).collect();
        let (given, lost) = ids.assign(&sets(&first), &none).unwrap();
        assert_eq!((given, lost), ((0..MAX_SETS as u16).collect(), vec![]));
        let (given, lost) =
            ids.assign(&sets(&["s005".into(), "new".into()]), &BTreeSet::from(["s000".into()])).unwrap();
        assert_eq!(given, [5, 1]);
        assert_eq!(lost, [("s001".to_owned(), 1)]);
    }
}
