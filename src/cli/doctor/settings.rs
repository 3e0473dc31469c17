//! Probe 1: the settings, every fault of them, and who may read the secrets.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use super::report::{Probe, Verdict};
use crate::{
    cli::config::check,
    config::{AuthId, ConfigErrors, Credential, Settings},
};

/// A secret's file, and the bits of its mode.
pub(super) struct SecretFile {
    pub(super) path: PathBuf,
    /// What kept it from being looked at, else the mode.
    pub(super) mode: Result<u32, String>,
}

/// The files that the settings name as secrets.
pub(super) fn secret_files(settings: &Settings) -> Vec<SecretFile> {
    let named = settings.tenants.iter().flat_map(|tenant| match &tenant.credential {
        Credential::SecretFile(path) | Credential::FederatedTokenFile(path) => vec![path.clone()],
        Credential::Certificate { file, password } => [file].into_iter().chain(password).cloned().collect(),
        Credential::Secret(_) => Vec::new(),
    });
    // Kafka's own: librdkafka reads the key of TLS from a file.
    let keys = settings.kafka.properties.get("ssl.key.location").map(PathBuf::from);
    let webhook = &settings.webhook;
    let auth_id = match &webhook.auth_id {
        Some(AuthId::File(path)) => Some(path.clone()),
        Some(AuthId::Text(_)) | None => None,
    };
    let hooks = auth_id.into_iter().chain(webhook.tls.as_ref().map(|tls| tls.key_file.clone()));
    // Where nothing is received they need not be there.
    let hooks = hooks.filter(|path| webhook.enabled || path.exists());
    let look = |path: PathBuf| {
        let mode = fs::metadata(&path).map(|file| file.permissions().mode() & 0o777).map_err(|why| why.to_string());
        SecretFile { path, mode }
    };
    named.chain(keys).chain(hooks).map(look).collect()
}

pub(super) fn judge(settings: &Result<Settings, ConfigErrors>, files: &[SecretFile]) -> Probe {
    let settings = match settings {
        Ok(settings) => settings,
        Err(faults) => {
            let advice = "`o365feed config example` prints a file with every key; `o365feed config check` tells these faults again";
            return faults
                .to_string()
                .lines()
                .fold(Probe::of(1), |probe, fault| probe.find(Verdict::Failure, fault, advice));
        }
    };
    files.iter().fold(Probe::of(1).see(check(settings).trim_start_matches("ok: ").trim_end()), |probe, file| {
        let path = file.path.display();
        match &file.mode {
            Err(why) => probe.find(
                Verdict::Failure,
                format!("{path}: could not be looked at ({why})"),
                format!("check that {path} exists and that this user may read it"),
            ),
            // Kubernetes mounts secrets for the group of the pod (fsGroup): others are the danger, groups a smaller one.
            Ok(mode) if mode & 0o077 != 0 => probe.find(
                Verdict::Warning,
                format!("{path}: mode {mode:03o}, so that more than its owner may read or write it"),
                format!("chmod 600 {path}"),
            ),
            Ok(mode) => probe.see(format!("{path}: mode {mode:03o}")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Tls, load};

    fn settings() -> Result<Settings, ConfigErrors> {
        let guid = "7f3c1f6e-5a0b-4d5e-9c7a-0c0a17e50001";
        let env = [("AZURE_TENANT_ID", guid), ("AZURE_CLIENT_ID", guid), ("AZURE_CLIENT_SECRET", "x")];
        load(None, env.map(|(name, text)| (name.to_owned(), text.to_owned())), "feed-0")
    }

    #[test]
    fn a_secret_that_more_than_its_owner_reads_is_a_warning() {
        let file = |mode| SecretFile { path: "/run/secret".into(), mode };
        let verdict = |mode| judge(&settings(), &[file(mode)]).verdict;
        assert_eq!(verdict(Ok(0o600)), Verdict::Ok);
        assert_eq!(verdict(Ok(0o400)), Verdict::Ok);
        assert_eq!(verdict(Ok(0o640)), Verdict::Warning);
        assert_eq!(verdict(Ok(0o604)), Verdict::Warning);
        assert_eq!(verdict(Err("no such file".to_owned())), Verdict::Failure);
    }

    #[test]
    fn every_fault_of_the_settings_is_a_line() {
        let faults = load(None, [("AZURE_TENANT_ID".to_owned(), "me".to_owned())], "feed-0");
        let probe = judge(&faults, &[]);
        assert_eq!((probe.verdict, probe.advice.len()), (Verdict::Failure, 1));
        assert!(probe.evidence.len() >= 2, "{:?}", probe.evidence);
    }

    #[test]
    fn what_the_receiver_keeps_secret_is_looked_at_too() {
        let (auth_id, key) = (std::path::Path::new("/nowhere/auth-id"), std::path::Path::new("/nowhere/tls.key"));
        let mut settings = settings().unwrap();
        settings.webhook.auth_id = Some(AuthId::File(auth_id.to_owned()));
        settings.webhook.tls = Some(Tls { certificate_file: "/nowhere/tls.crt".into(), key_file: key.to_owned() });
        let looked = |settings: &Settings| secret_files(settings).into_iter().map(|file| file.path).collect::<Vec<_>>();
        assert_eq!(looked(&settings), Vec::<PathBuf>::new(), "nothing is received");
        settings.webhook.enabled = true;
        assert_eq!(looked(&settings), [auth_id, key]);
    }
}
