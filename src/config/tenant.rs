//! One tenant: its cloud, its addresses, its credential.

use std::{collections::BTreeSet, path::PathBuf};

use secrecy::SecretString;
use url::Url;

use super::{
    kind::{Value, is_loopback},
    reader::Reader,
    settings::{Cloud, Credential, Tenant},
};
use crate::domain::{ContentType, TenantId};

impl Cloud {
    /// Where the API is; also what a token is asked for.
    ///
    /// Source: docs/api/contract.md, section 1.
    #[must_use]
    pub fn api_root(self) -> &'static str {
        match self {
            Self::Worldwide => "https://manage.office.com",
            Self::Gcc => "https://manage-gcc.office.com",
            Self::GccHigh => "https://manage.office365.us",
            Self::Dod => "https://manage.protection.apps.mil",
            Self::China => "https://manage.office365.cn",
        }
    }

    /// Where tokens come from.
    ///
    /// Source: docs/api/contract.md, section 1.
    #[must_use]
    pub fn authority(self) -> &'static str {
        match self {
            Self::Worldwide | Self::Gcc => "https://login.microsoftonline.com",
            Self::GccHigh | Self::Dod => "https://login.microsoftonline.us",
            Self::China => "https://login.partner.microsoftonline.cn",
        }
    }
}

/// Every tenant that is written well enough; at least one, or there is a fault.
pub(super) fn tenants(reader: &mut Reader) -> Vec<Tenant> {
    let places: Vec<usize> = reader.written.tenants.keys().copied().collect();
    if places.is_empty() {
        reader.refuse(
            &["tenants"],
            "there is none; list one in the file, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
        );
    }
    let tenants: Vec<(usize, Tenant)> = places.into_iter().filter_map(|at| Some((at, tenant(reader, at)?))).collect();
    let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (at, tenant) in &tenants {
        if !ids.insert(tenant.id) {
            reader.refuse(&[&format!("tenants[{at}].id")], format!("`{}` stands here twice", tenant.id));
        } else if !names.insert(tenant.name.clone()) {
            let path = format!("tenants[{at}].name");
            reader.refuse(&[&path], "is another tenant's name too; metrics tell tenants apart by it");
        }
    }
    tenants.into_iter().map(|(_, tenant)| tenant).collect()
}

fn tenant(reader: &mut Reader, at: usize) -> Option<Tenant> {
    let path = |key: &str| format!("tenants[{at}].{key}");
    let cloud = match reader.value(&path("cloud")).text().as_str() {
        "gcc" => Cloud::Gcc,
        "gcc_high" => Cloud::GccHigh,
        "dod" => Cloud::Dod,
        "china" => Cloud::China,
        _ => Cloud::Worldwide,
    };
    let allow_http = reader.value(&path("allow_http")).flag();
    let api_root = origin(reader, &path("api_root"), cloud.api_root(), allow_http);
    let authority = origin(reader, &path("authority"), cloud.authority(), allow_http);
    let audience = reader.option(&path("audience")).map_or_else(|| cloud.api_root().to_owned(), Value::text);
    let asked: BTreeSet<ContentType> =
        reader.list(&path("content_types")).into_iter().map(Value::content_type).collect();
    let publisher = reader.option("publisher_identifier").map(Value::guid);
    let name = reader.option(&path("name")).map(Value::text);
    // All is read before the first `?`, so that all faults of a tenant are told at once.
    let (id, client_id) = (reader.option(&path("id")), reader.option(&path("client_id")));
    let credential = credential(reader, &path("credential"));
    let (id, client_id) = (TenantId(id?.guid()), client_id?.guid());
    Some(Tenant {
        id,
        name: name.unwrap_or_else(|| id.to_string()),
        cloud,
        api_root,
        authority,
        audience,
        client_id: client_id.to_string(),
        credential: credential?,
        content_types: ContentType::ALL.into_iter().filter(|kind| asked.contains(kind)).collect(),
        publisher_identifier: publisher.unwrap_or(id.0),
    })
}

fn origin(reader: &mut Reader, path: &str, preset: &str, allow_http: bool) -> Url {
    let preset = || Url::parse(preset).expect("the addresses of the clouds are good, as a test shows");
    let url = reader.option(path).map_or_else(preset, Value::origin);
    if url.scheme() != "https" && !allow_http && !is_loopback(&url) {
        reader.refuse(
            &[path],
            format!("`{url}` is plain http, and tokens would travel unencrypted; use https, or allow_http: true"),
        );
    }
    url
}

fn credential(reader: &mut Reader, group: &str) -> Option<Credential> {
    let path = |key: &str| format!("{group}.{key}");
    let later = path("managed_identity");
    reader.option(&later); // whatever is written there is a fault of its own
    let ways = ["secret_file", "secret_env", "federated_token_file", "certificate_file"].map(path);
    let [secret, variable, token, certificate] = &ways;
    let password = path("password_file");
    if reader.is_written(&password) && !reader.is_written(certificate) {
        reader.refuse(&[&password], "is the password of a certificate's key, and there is no certificate_file");
    }
    let written: Vec<&String> = ways.iter().filter(|key| reader.is_written(key)).collect();
    let mut file = |key: &str| Some(PathBuf::from(reader.option(key)?.text()));
    match written[..] {
        [key] if key == secret => return Some(Credential::SecretFile(file(key)?)),
        [key] if key == token => return Some(Credential::FederatedTokenFile(file(key)?)),
        [key] if key == certificate => {
            return Some(Credential::Certificate { file: file(key)?, password: file(&password) });
        }
        [_] => {
            let name = reader.option(variable)?.text();
            match reader.env.get(&name).map(|secret| secret.trim()).filter(|secret| !secret.is_empty()) {
                Some(secret) => return Some(Credential::Secret(SecretString::from(secret))),
                None => reader.refuse(&[variable], format!("the environment variable `{name}` is not set")),
            }
        }
        [] if reader.is_written(&later) => {}
        [] => {
            let ways = "one of secret_file, secret_env, certificate_file and federated_token_file will do";
            reader.refuse(&[secret], format!("is missing; {ways}"));
        }
        [first, second, ..] => {
            let beside = first.rsplit('.').next().unwrap_or(first);
            reader.refuse(&[second], format!("stands beside {beside}; give exactly one of them"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_every_cloud_are_https() {
        for cloud in [Cloud::Worldwide, Cloud::Gcc, Cloud::GccHigh, Cloud::Dod, Cloud::China] {
            for address in [cloud.api_root(), cloud.authority()] {
                assert_eq!(Url::parse(address).unwrap().scheme(), "https");
            }
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (address, expected) in [
            ("http://127.0.0.1:8365", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:1", true),
            ("http://localhost:1", true),
            ("http://localhost.example.com", false),
            ("http://10.0.0.1", false),
            ("http://127.0.0.1.example.com", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(address).unwrap()), expected, "{address}");
        }
    }
}
