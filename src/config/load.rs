//! File and environment, merged and checked.

use std::{collections::BTreeMap, fs, io, path::Path};

use super::{
    build, environment,
    fault::{ConfigErrors, Faults, Place},
    reader::Reader,
    settings::{Settings, Tenant},
    tenant,
    written::Written,
    yaml,
};

/// The file that is read when none is named.
const DEFAULT_FILE: &str = "o365feed.yaml";

/// Reads the settings: the file at `path` (or `o365feed.yaml`, if it is there), then `env`, which wins.
/// Without tenants in either, the variables of the Azure SDKs make one. `host_name` is the default of `kafka.slot`.
///
/// # Errors
/// Every fault there is, each with its line or variable, and none with a secret.
pub fn load(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    host_name: &str,
) -> Result<Settings, ConfigErrors> {
    let file = path.unwrap_or(Path::new(DEFAULT_FILE));
    let name = file.display().to_string();
    match fs::read_to_string(file) {
        Ok(text) => read(Some((&name, &text)), env, host_name),
        Err(absent) if absent.kind() == io::ErrorKind::NotFound && path.is_none() => read(None, env, host_name),
        Err(unread) => {
            let mut faults = Faults::default();
            faults.add(&Place::File(name.into()), "", format!("could not be read: {unread}"));
            faults.verdict(None)
        }
    }
}

impl Settings {
    /// The defaults, for these tenants.
    #[must_use]
    pub fn with_defaults(tenants: Vec<Tenant>, host_name: &str) -> Self {
        let (written, faults) = (Written::default(), Faults::default());
        build::settings(&mut Reader { written, faults, env: BTreeMap::new() }, tenants, host_name)
    }
}

/// `file` is its name and its text.
fn read(
    file: Option<(&str, &str)>,
    env: impl IntoIterator<Item = (String, String)>,
    host_name: &str,
) -> Result<Settings, ConfigErrors> {
    let (env, mut faults): (BTreeMap<_, _>, _) = (env.into_iter().collect(), Faults::default());
    let file = file.map(|(name, text)| yaml::written(name, text, &mut faults)).unwrap_or_default();
    let variables = environment::written(&env, &mut faults);
    let nobody = file.tenants.is_empty() && variables.get("tenants[0].id").is_none();
    let written = file.overridden_by(variables);
    let written = if nobody { environment::azure(&env, &written).overridden_by(written) } else { written };

    let mut reader = Reader { written, faults, env };
    let tenants = tenant::tenants(&mut reader);
    let settings = build::settings(&mut reader, tenants, host_name);
    reader.faults.verdict(Some(settings))
}

#[cfg(test)]
mod tests;
