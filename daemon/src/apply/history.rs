//! `ringctl history`, `show` and `diff`: generations on disk.

use ringfence_api::{Diff, DiffQuery, Generation, GenerationState, GenerationText, PolicyText};

use super::diff;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::state::generations::Record;

/// Which generations stand out.
#[derive(Clone, Copy, Debug, Default)]
struct Roles {
    running: Option<u64>,
    previous: Option<u64>,
    pending: bool,
}

impl Daemon {
    fn roles(&self) -> Roles {
        let control = self.control();
        Roles {
            running: control.running.as_ref().map(|running| running.number()),
            previous: match &control.pending {
                Some(pending) => Some(pending.previous.number()),
                None => control.standing.get().previous,
            },
            pending: control.pending.is_some(),
        }
    }

    /// All that are kept, newest first.
    pub fn history(&self) -> Result<Vec<Generation>> {
        let roles = self.roles();
        Ok(self.store.records()?.into_iter().map(|record| shown(record, roles)).collect())
    }

    /// One of them: a number, `running`, `previous` or `pending`.
    pub fn generation(&self, which: &str) -> Result<GenerationText> {
        let roles = self.roles();
        let number = match which {
            "running" => roles.running,
            "previous" => roles.previous,
            "pending" => roles.running.filter(|_| roles.pending),
            number => Some(number.parse().map_err(|_| {
                Error::BadInput(format!("`{number}` is no generation: a number, `running`, `previous` or `pending`"))
            })?),
        };
        let number = number.ok_or_else(|| Error::No(format!("there is no {which} generation")))?;
        let record = self.store.record(number)?;
        let texts = self.store.texts(number)?;
        let texts = texts.into_iter().map(|text| PolicyText { name: text.name, text: text.text, base: text.base });
        Ok(GenerationText { about: shown(record, roles), texts: texts.collect() })
    }

    /// What differs between two.
    pub fn diff(&self, query: DiffQuery) -> Result<Diff> {
        let roles = self.roles();
        let missing = |what: &str| Error::No(format!("there is no {what} generation"));
        let from = query.from.or(roles.previous).ok_or_else(|| missing("previous"))?;
        let to = query.to.or(roles.running).ok_or_else(|| missing("running"))?;
        Ok(Diff {
            from: Some(from),
            to: Some(to),
            rules: diff::rules(&self.store.lines(from)?, &self.store.lines(to)?),
            files: diff::files(&self.store.texts(from)?, &self.store.texts(to)?),
        })
    }
}

fn shown(record: Record, roles: Roles) -> Generation {
    let number = Some(record.generation);
    let state = if number == roles.running {
        if roles.pending { GenerationState::Pending } else { GenerationState::Running }
    } else if number == roles.previous {
        GenerationState::Previous
    } else if record.confirmed {
        GenerationState::Kept
    } else {
        GenerationState::Unconfirmed
    };
    Generation {
        generation: record.generation,
        state,
        applied: record.applied / 1000,
        by: record.by,
        policy: record.policy,
        rules: record.rules,
        digest: record.digest,
    }
}
