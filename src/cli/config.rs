//! `o365feed config check`: one line when all is well, else every fault.

use anyhow::anyhow;

use crate::config::{ConfigErrors, Delivery, Settings};

/// What the settings amount to, in one line and without a secret.
pub(super) fn check(settings: &Settings) -> String {
    let (tenants, kafka) = (&settings.tenants, &settings.kafka);
    let sources: usize = tenants.iter().map(|tenant| tenant.content_types.len()).sum();
    let delivery = match kafka.delivery {
        Delivery::ExactlyOnce => "exactly once",
        Delivery::AtLeastOnce => "at least once",
    };
    format!(
        "ok: {}, {}, kafka {} (group {}, slot {}, {delivery})\n",
        counted(tenants.len(), "tenant"),
        counted(sources, "source"),
        kafka.bootstrap_servers,
        kafka.group,
        kafka.slot,
    )
}

/// All faults under one head line.
pub(super) fn told(faults: &ConfigErrors) -> anyhow::Error {
    anyhow!("the settings have {}:\n{faults}", counted(faults.count(), "fault"))
}

/// `1 tenant`, `2 tenants`, of any kind of whole number.
pub(super) fn counted<N: std::fmt::Display + PartialEq + From<bool>>(count: N, noun: &str) -> String {
    if count == N::from(true) { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    const GUID: &str = "7f3c1f6e-5a0b-4d5e-9c7a-0c0a17e50001";

    #[test]
    fn good_settings_are_one_line_without_the_secret() {
        let secret = ("AZURE_CLIENT_SECRET", "s3cr3t");
        let settings = load(None, owned(&[("AZURE_TENANT_ID", GUID), ("AZURE_CLIENT_ID", GUID), secret]), "feed-0");
        assert_eq!(
            check(&settings.unwrap()),
            "ok: 1 tenant, 5 sources, kafka localhost:9092 (group o365feed, slot feed-0, exactly once)\n"
        );
    }

    #[test]
    fn bad_settings_are_counted_and_told() {
        let faults = load(None, owned(&[("AZURE_TENANT_ID", GUID), ("AZURE_CLIENT_ID", "me")]), "feed-0").unwrap_err();
        insta::assert_snapshot!(told(&faults), @r"
        the settings have 2 faults:
        AZURE_CLIENT_ID: `me` is not a GUID such as `7f3c1f6e-5a0b-4d5e-9c7a-0c0a17e50001`
        AZURE_CLIENT_SECRET: is missing; one of secret_file, secret_env, certificate_file and federated_token_file will do
        ");
    }

    fn owned(env: &[(&str, &str)]) -> Vec<(String, String)> {
        env.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }
}
