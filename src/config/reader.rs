//! Reading a key: what was written, else its default; what cannot be read is a fault.

use std::collections::BTreeMap;

use super::{
    environment,
    fault::{Faults, Place},
    keys::{self, Key, Otherwise},
    kind::Value,
    written::{Item, Written},
};

pub(super) struct Reader {
    pub(super) written: Written,
    pub(super) faults: Faults,
    /// For secrets, which are named and never written.
    pub(super) env: BTreeMap<String, String>,
}

impl Reader {
    /// The value of a key that has a default.
    pub(super) fn value(&mut self, path: &str) -> Value {
        self.option(path).expect("a key that is read like this has a default, as any test of the defaults shows")
    }

    /// The value of a key, if it is written and good, or has a default. A required key that is missing is a fault.
    pub(super) fn option(&mut self, path: &str) -> Option<Value> {
        self.list(path).into_iter().next()
    }

    /// All values of a list; one bad item does not hide the others.
    pub(super) fn list(&mut self, path: &str) -> Vec<Value> {
        let key = keys::find(path).expect("only keys of the table are read");
        let items = self.written.get(path).map(|given| given.items.clone()).unwrap_or_default();
        let good: Vec<Value> = items.iter().filter_map(|item| self.read(key, path, item)).collect();
        if !good.is_empty() {
            return good;
        }
        match (key.otherwise, self.written.get(path).map(|given| (given.items.is_empty(), given.place.clone()))) {
            (Otherwise::Required(_), None) => {
                let place = self.tenant_place(path);
                self.faults.add(&place, path, format!("is missing; it must be {}", key.kind.describe()));
            }
            (_, Some((true, place))) => self.faults.add(&place, path, "must not be empty"),
            _ => {}
        }
        default(key)
    }

    /// Whether the operator wrote the key, well or badly.
    pub(super) fn is_written(&self, path: &str) -> bool {
        self.written.get(path).is_some()
    }

    /// A fault about several keys, told where the first one that is written stands.
    pub(super) fn refuse(&mut self, paths: &[&str], text: impl Into<String>) {
        let found = paths.iter().find_map(|path| Some((*path, self.written.get(path)?.place.clone())));
        let (path, place) = found.unwrap_or_else(|| (paths[0], self.tenant_place(paths[0])));
        self.faults.add(&place, path, text);
    }

    fn read(&mut self, key: &Key, path: &str, (text, place): &Item) -> Option<Value> {
        key.kind.read(text).map_err(|fault| self.faults.add(place, path, fault)).ok()
    }

    /// Where a key that is missing in a tenant should have stood: the tenant's first line, or the variable that would set it.
    fn tenant_place(&self, path: &str) -> Place {
        let at = path.strip_prefix("tenants[").and_then(|rest| rest.split_once(']')?.0.parse().ok());
        match at.and_then(|at: usize| self.written.tenants.get(&at)) {
            Some(Place::Variable(beside)) => Place::Variable(environment::variable_beside(beside, path)),
            Some(place) => place.clone(),
            None => Place::Nowhere,
        }
    }
}

fn default(key: &Key) -> Vec<Value> {
    let Otherwise::Default(text) = key.otherwise else { return Vec::new() };
    let parts: Vec<&str> = if key.kind.is_list() { text.split(',').map(str::trim).collect() } else { vec![text] };
    parts.into_iter().map(|part| key.kind.read(part).expect("a test reads every default of the table")).collect()
}
