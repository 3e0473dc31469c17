//! What the operator wrote, before it is read: texts by key, each with its place.

use std::collections::BTreeMap;

use super::{
    fault::{Faults, Place, nearest},
    keys::{self, GROUPS, KEYS},
    kind::Kind,
};

/// One source of settings, or several merged.
#[derive(Clone, Default)]
pub(super) struct Written {
    /// By path: `kafka.group`, `tenants[0].id`.
    values: BTreeMap<String, Given>,
    /// librdkafka's own names.
    pub(super) properties: BTreeMap<String, Item>,
    /// Topics and the expressions of what goes there, in the order in which they were written.
    pub(super) routes: Vec<(String, Item)>,
    /// Where each tenant begins.
    pub(super) tenants: BTreeMap<usize, Place>,
}

/// A text and where it stands.
pub(super) type Item = (String, Place);

/// The value of one key: one item, or any number for a list.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) items: Vec<Item>,
    pub(super) place: Place,
}

impl Written {
    /// Takes `items` for `path`; a key that is no list takes one. Texts of lists are cut at commas.
    pub(super) fn put(&mut self, path: &str, items: Vec<Item>, place: Place) {
        let list = keys::find(path).is_some_and(|key| key.kind.is_list());
        let cut = |(text, place): Item| {
            let parts: Vec<&str> = if list { text.split(',').map(str::trim).collect() } else { vec![&text] };
            parts.into_iter().map(|part| (part.to_owned(), place.clone())).collect::<Vec<_>>()
        };
        self.values.insert(path.to_owned(), Given { items: items.into_iter().flat_map(cut).collect(), place });
    }

    pub(super) fn get(&self, path: &str) -> Option<&Given> {
        self.values.get(path)
    }

    /// Whether anything is written below `group`.
    pub(super) fn has_below(&self, group: &str) -> bool {
        let below = format!("{group}.");
        self.values.range(below.clone()..).next().is_some_and(|(path, _)| path.starts_with(&below))
    }

    /// Both; where both wrote a key, `stronger` holds.
    pub(super) fn overridden_by(mut self, stronger: Self) -> Self {
        self.values.extend(stronger.values);
        self.properties.extend(stronger.properties);
        self.routes.extend(stronger.routes); // of a file there is one
        for (tenant, place) in stronger.tenants {
            self.tenants.entry(tenant).or_insert(place); // the file's line says more than a variable's name
        }
        self
    }
}

/// Refuses a path that is no key. `spell` is how its source writes a path.
pub(super) fn refuse_unknown(faults: &mut Faults, place: &Place, path: &str, spell: impl Fn(&str) -> String) {
    let usable = KEYS.iter().filter(|key| !matches!(key.kind, Kind::Later)).map(|key| key.path);
    let known = usable.chain(GROUPS.iter().map(|(path, _)| *path));
    let last = path.rsplit('.').next().unwrap_or_default();
    let hint = match nearest(path, known) {
        // Nearest to it would be client_id, which is the last place where a secret should go next.
        _ if ["client_secret", "secret", "password"].contains(&last) => {
            format!("secrets stay out of the settings: name one by {}", spell("tenants[].credential.secret_file"))
        }
        Some(near) => format!("did you mean {}?", spell(near)),
        None => "`o365feed config example` shows them all".to_owned(),
    };
    faults.add(place, path, format!("is no setting; {hint}"));
}
