//! The environment: our own variables, and those that the Azure SDKs read.

use std::collections::BTreeMap;

use super::{
    fault::{Faults, Place},
    keys,
    kind::Kind,
    written::{Written, refuse_unknown},
};

/// What our variables begin with. Then the path in upper case: `__` between groups, `__0` for the first tenant.
pub(super) const PREFIX: &str = "O365FEED_";

/// What the Azure SDKs' variables set, but for the credential.
const AZURE: [(&str, &str); 3] = [
    ("AZURE_TENANT_ID", "tenants[0].id"),
    ("AZURE_CLIENT_ID", "tenants[0].client_id"),
    ("AZURE_AUTHORITY_HOST", "tenants[0].authority"),
];
const AZURE_SECRET: &str = "AZURE_CLIENT_SECRET";

/// What the `O365FEED_…` variables say. An empty variable counts as not set.
pub(super) fn written(env: &BTreeMap<String, String>, faults: &mut Faults) -> Written {
    let mut found = Written::default();
    for (name, text) in env.range(PREFIX.to_owned()..).take_while(|(name, _)| name.starts_with(PREFIX)) {
        let rest = &name[PREFIX.len()..];
        if is_not_ours(rest) {
            continue;
        }
        let (path, place) = (path(rest), Place::Variable(name.clone()));
        let known = keys::find(&path).is_some_and(|key| !matches!(key.kind, Kind::Properties));
        match path.strip_prefix("kafka.properties.") {
            // Properties have dots and no underscores, variables the reverse.
            Some(property) if text.is_empty() || property.is_empty() => {}
            Some(property) => {
                found.properties.insert(property.replace('_', "."), (text.clone(), place));
            }
            None if text.is_empty() && known => {}
            None if keys::find(&path).is_some_and(|key| matches!(key.kind, Kind::Routes)) => {
                faults.add(&place, &path, "stands in the file only, because the order of its topics counts");
            }
            None if !known => refuse_unknown(faults, &place, &path, keys::variable),
            None => {
                if let Some(tenant) = tenant_of(&path) {
                    found.tenants.insert(tenant, place.clone());
                }
                found.put(&path, vec![(text.clone(), place.clone())], place);
            }
        }
    }
    found
}

/// The one tenant that the Azure SDKs' variables describe, as `tenants[0]`; nothing when they name none.
/// `other` is all that was written elsewhere: a credential there stands in the place of theirs.
///
/// Source: docs/api/contract.md 2.2.
pub(super) fn azure(env: &BTreeMap<String, String>, other: &Written) -> Written {
    let mut found = Written::default();
    let set = |name: &str| env.get(name).filter(|text| !text.is_empty());
    let mut take = |name: &str, path: &str, text: &str| {
        let place = Place::Variable(name.to_owned());
        found.tenants.entry(0).or_insert_with(|| place.clone());
        found.put(path, vec![(text.to_owned(), place.clone())], place);
    };
    if set("AZURE_TENANT_ID").is_none() {
        return found;
    }
    for (name, path) in AZURE {
        if let Some(text) = set(name) {
            take(name, path, text);
        }
    }
    let credentials = [
        (AZURE_SECRET, "tenants[0].credential.secret_env"),
        ("AZURE_CLIENT_CERTIFICATE_PATH", "tenants[0].credential.certificate_file"),
        ("AZURE_FEDERATED_TOKEN_FILE", "tenants[0].credential.federated_token_file"),
    ];
    let credential = credentials.into_iter().find_map(|(name, path)| Some((name, path, set(name)?)));
    if let Some((name, path, text)) = credential.filter(|_| !other.has_below("tenants[0].credential")) {
        // The secret itself stays where it is.
        take(name, path, if name == AZURE_SECRET { name } else { text });
    }
    found
}

/// The variable that sets `path`, in the family of the variable `beside`.
pub(super) fn variable_beside(beside: &str, path: &str) -> String {
    let azure = AZURE.iter().find(|(_, set)| *set == path).map(|(name, _)| *name);
    let azure = azure.or(path.contains(".credential.").then_some(AZURE_SECRET));
    azure.filter(|_| !beside.starts_with(PREFIX)).map_or_else(|| keys::variable(path), str::to_owned)
}

/// Variables that only look like ours. Kubernetes puts the address of every Service of the namespace into each pod's
/// environment (`O365FEED_SERVICE_HOST`, `O365FEED_METRICS_PORT_9365_TCP_ADDR`), so a Service named like us must not stop us.
fn is_not_ours(rest: &str) -> bool {
    let service =
        ["SERVICE_HOST", "SERVICE_PORT", "PORT"].iter().any(|end| rest == *end || rest.ends_with(&format!("_{end}")));
    service
        || rest.contains("SERVICE_PORT_")
        || rest.split_once("PORT_").is_some_and(is_port_link)
        || rest.starts_with("TEST_")
}

/// Whether what follows `PORT_` is a number and a protocol: `9365_TCP_ADDR`.
fn is_port_link((_, rest): (&str, &str)) -> bool {
    let mut parts = rest.split('_');
    parts.next().is_some_and(|port| port.parse::<u16>().is_ok())
        && parts.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol))
}

/// `tenants[0].client_id` for `TENANTS__0__CLIENT_ID`.
fn path(rest: &str) -> String {
    let mut path = String::new();
    for part in rest.to_lowercase().split("__") {
        match part.parse::<usize>() {
            Ok(at) => path.push_str(&format!("[{at}]")),
            Err(_) if path.is_empty() => path.push_str(part),
            Err(_) => path.push_str(&format!(".{part}")),
        }
    }
    path
}

fn tenant_of(path: &str) -> Option<usize> {
    path.strip_prefix("tenants[")?.split_once(']')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_can_be_set_by_its_variable_and_none_looks_like_a_service() {
        for key in keys::KEYS {
            let variable = keys::variable(key.path);
            let rest = variable.strip_prefix(PREFIX).unwrap();
            assert_eq!(path(rest), key.path.replace("[]", "[0]"));
            assert!(!is_not_ours(rest), "{variable}");
        }
    }

    #[test]
    fn the_variables_of_kubernetes_services_are_passed_over() {
        for name in
            ["SERVICE_HOST", "PORT", "PORT_9365_TCP", "METRICS_PORT_9365_TCP_ADDR", "SERVICE_PORT_HTTP", "TEST_KAFKA"]
        {
            assert!(is_not_ours(name), "{name}");
        }
        for name in ["KAFKA__PORTS", "PORT_X", "SERVICE", "REPORT_1", "KAFKA__GROUP"] {
            assert!(!is_not_ours(name), "{name}");
        }
    }
}
