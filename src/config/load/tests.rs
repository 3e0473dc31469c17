use std::time::Duration;

use secrecy::ExposeSecret;

use super::*;
use crate::{
    config::{Cloud, Credential, Kafka, StartFrom, example, table},
    domain::ContentType,
};

const ID: &str = "7f3c1f6e-5a0b-4d5e-9c7a-0c0a17e50001";
const PAGE_HEAD: &str = "\
# Settings

Printed from `src/config/keys.rs` by a test. `o365feed config example` prints a commented file with all of them,
`o365feed config check` tells every fault at once. Each key is also an environment variable, which wins over the file:
`O365FEED_` and the key in upper case, `__` between groups, `__0` for the first tenant
(`O365FEED_KAFKA__GROUP`, `O365FEED_TENANTS__0__NAME`, `O365FEED_KAFKA__PROPERTIES__SASL_PASSWORD` for `sasl.password`).
Without tenants in either, `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET` and `AZURE_AUTHORITY_HOST` make one.

";
const OTHER: &str = "7f3c1f6e-5a0b-4d5e-9c7a-0c0a17e50002";

#[test]
fn the_example_is_valid_and_says_the_defaults() {
    insta::assert_snapshot!(example());
    let read = from(&example(), &[]).unwrap();
    assert_eq!(read.tenants.len(), 1);
    let defaults = Settings::with_defaults(read.tenants.clone(), "host-1");
    assert_eq!(format!("{read:?}"), format!("{defaults:?}"));
    assert_eq!(format!("{defaults:?}").matches("host-1").count(), 1, "the slot");
}

/// Run with INSTA_UPDATE=always to bring the page up to date.
#[test]
fn the_settings_table_in_the_documentation_is_up_to_date() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    let expected = format!("{PAGE_HEAD}{}", table());
    if std::env::var("INSTA_UPDATE").is_ok_and(|mode| mode == "always") {
        fs::write(&page, &expected).unwrap();
    }
    assert_eq!(fs::read_to_string(&page).unwrap(), expected);
}

#[test]
fn the_azure_variables_alone_make_a_tenant() {
    let settings =
        read(None, azure(&[("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/")]), "pod-0").unwrap();
    let [tenant] = settings.tenants.as_slice() else { panic!("{:?}", settings.tenants) };
    assert_eq!((tenant.id.to_string().as_str(), tenant.client_id.as_str()), (ID, OTHER));
    assert_eq!(tenant.authority.as_str(), "https://login.microsoftonline.us/");
    assert_eq!((tenant.name.as_str(), tenant.publisher_identifier), (ID, tenant.id.0));
    assert_eq!(tenant.content_types, ContentType::ALL);
    let Credential::Secret(secret) = &tenant.credential else { panic!("{:?}", tenant.credential) };
    assert_eq!(secret.expose_secret(), "s3cr3t");
    assert_eq!(settings.kafka.slot, "pod-0");
    assert!(!format!("{settings:?}").contains("s3cr3t"));
}

#[test]
fn the_azure_variables_yield_to_what_is_written_for_us() {
    let with = |more: &[(&str, &str)]| read(None, azure(more), "h").unwrap().tenants;
    let tenants = with(&[("O365FEED_TENANTS__0__NAME", "contoso"), ("O365FEED_TENANTS__0__CLOUD", "gcc_high")]);
    assert_eq!((tenants.len(), tenants[0].name.as_str(), tenants[0].cloud), (1, "contoso", Cloud::GccHigh));
    assert_eq!(tenants[0].api_root.as_str(), "https://manage.office365.us/");
    let tenants = with(&[("O365FEED_TENANTS__0__CREDENTIAL__SECRET_FILE", "/run/s")]);
    assert!(matches!(&tenants[0].credential, Credential::SecretFile(path) if path == Path::new("/run/s")));

    let file = format!("tenants:\n- {{id: {OTHER}, client_id: {ID}, credential: {{secret_file: /s}}}}\n");
    let tenants = read(Some(("f", &file)), azure(&[]), "h").unwrap().tenants;
    assert_eq!((tenants.len(), tenants[0].id.to_string().as_str()), (1, OTHER));
}

#[test]
fn credentials_that_are_not_built_yet_are_refused_and_not_passed_over() {
    let faults = from(&tenant("managed_identity: {client_id: x}"), &[]).unwrap_err().to_string();
    assert_eq!(faults, format!("f.yaml:5: tenants[0].credential.managed_identity: {LATER}"));
}

#[test]
fn a_certificate_may_have_a_password_and_a_password_needs_a_certificate() {
    let settings = from(&tenant("{certificate_file: /c.pem, password_file: /p}"), &[]).unwrap();
    let is_certificate = |credential: &Credential, with: Option<&str>| {
        matches!(credential,
        Credential::Certificate { file, password } if file == Path::new("/c.pem") && password.as_deref() == with.map(Path::new))
    };
    assert!(is_certificate(&settings.tenants[0].credential, Some("/p")));
    let env = azure(&[("AZURE_CLIENT_SECRET", ""), ("AZURE_CLIENT_CERTIFICATE_PATH", "/c.pem")]);
    assert!(is_certificate(&read(None, env, "h").unwrap().tenants[0].credential, None));
    let faults = from(&tenant("{secret_file: /s, password_file: /p}"), &[]).unwrap_err().to_string();
    assert!(faults.ends_with("is the password of a certificate's key, and there is no certificate_file"), "{faults}");
}

const LATER: &str = "is not supported yet; use secret_file, secret_env, certificate_file or federated_token_file";

#[test]
fn what_kubernetes_injects_for_workload_identity_is_a_credential() {
    let injected = [("AZURE_CLIENT_SECRET", ""), ("AZURE_FEDERATED_TOKEN_FILE", "/run/token")];
    let tenants = read(None, azure(&injected), "h").unwrap().tenants;
    assert!(matches!(&tenants[0].credential, Credential::FederatedTokenFile(path) if path == Path::new("/run/token")));

    let settings = from(&tenant("federated_token_file: /run/token"), &[]).unwrap();
    assert!(matches!(&settings.tenants[0].credential, Credential::FederatedTokenFile(_)));
    let faults = from(&tenant("{secret_file: /s, federated_token_file: /run/token}"), &[]).unwrap_err().to_string();
    assert_eq!(
        faults,
        "f.yaml:5: tenants[0].credential.federated_token_file: stands beside secret_file; give exactly one of them"
    );
}

#[test]
fn the_environment_wins_over_the_file_key_by_key() {
    let file = format!("{}kafka:\n  group: from-file\n  topic_prefix: from-file\n", tenant("secret_file: /s"));
    let settings = from(
        &file,
        &[
            ("O365FEED_KAFKA__GROUP", "from-env"),
            ("O365FEED_KAFKA__TOPIC_PREFIX", ""),
            ("O365FEED_KAFKA__BOOTSTRAP_SERVERS", "a:1, b:2"),
            ("O365FEED_KAFKA__PROPERTIES__SASL_PASSWORD", "s3cr3t"),
            ("O365FEED_TENANTS__0__CONTENT_TYPES", "dlp.all,Audit.Exchange,Audit.Exchange"),
            ("O365FEED_LISTING__START_FROM", "now"),
            ("O365FEED_SERVICE_HOST", "10.0.0.1"),
        ],
    )
    .unwrap();
    let Kafka { group, topic_prefix, bootstrap_servers, properties, .. } = &settings.kafka;
    assert_eq!(
        (group.as_str(), topic_prefix.as_str(), bootstrap_servers.as_str()),
        ("from-env", "from-file", "a:1,b:2")
    );
    assert_eq!(properties["sasl.password"], "s3cr3t");
    assert_eq!(settings.tenants[0].content_types, [ContentType::Exchange, ContentType::Dlp]);
    assert_eq!(settings.listing.start_from, StartFrom::Now);
    assert!(!format!("{settings:?}").contains("s3cr3t"));
}

#[test]
fn all_faults_are_told_at_once_each_with_its_place() {
    let file = "\
tenants:
  - id: contoso.onmicrosoft.com
    name: contoso
    client_id: abc8Q~s3cr3t
    cloud: wordwide
    content_types:
      - Audit.Exchange
      - Audit.Sharepiont
    credential: s3cr3t
  - id: 7f3c1f6e-5a0b-4d5e-9c7a-0c0a17e50001
    client_id: 0c0a17e5-5a0b-4d5e-9c7a-7f3c1f6e0002
    api_root: http://10.0.0.1:8365
    content_types: []
    credential:
      secret_file: /run/secret
      secret_env: SECRET
  - name: nobody
    client_secret: s3cr3t
fetch:
  concurrency: zero
  memory: 128
listing: [window, 1h]
quota: {requests_per_minute: 010}
dedupe:
  window: 23h
kafka:
  gruop: o365feed
  commit_interval: 5s
  session_timeout: 10m
  replication_factor: 0
  topic_template: '{prefix}.feed.ledger'
  properties:
    acks: 1
    group.id: mine
    isolation.level: read_uncommitted
concurrency: 3
";
    let env = [("O365FEED_KAFKA__GROUPS", "x"), ("O365FEED_HTTP__LISTEN", "9365"), ("O365FEED_LOG__LEVEL", "inof")];
    let faults = from(file, &env).unwrap_err();
    assert!(!faults.to_string().contains("s3cr3t"));
    insta::assert_snapshot!(faults);
}

#[test]
fn filters_keep_their_order_and_topics_are_filled_in() {
    let lines = "\
filter:
  drop: >
    operation in (FilePreviewed, \"Page Viewed\")
    and not user ~ \"*@contoso.example\"
  route:
    zebra: operation = SharingSet
    \"{prefix}.apple\": workload = Exchange
    mango: 'record_type = 15'
redact: {sensitive_information_detections: true}
kafka: {topic_prefix: p}
";
    let file = format!("{}{lines}", tenant("secret_file: /s"));
    let settings = from(&file, &[("O365FEED_FILTER__ROUTE", "")]).unwrap();
    let topics: Vec<_> = settings.filter.routes.iter().map(|route| route.topic.as_str()).collect();
    assert_eq!(topics, ["zebra", "p.apple", "mango"]);
    assert_eq!(
        settings.filter.drop.as_ref().unwrap().to_string(),
        r#"operation in ("FilePreviewed", "Page Viewed") and not user ~ "*@contoso.example""#
    );
    assert!(settings.redact.sensitive_information_detections);
    let env = [("O365FEED_FILTER__DROP", "user = a")];
    assert_eq!(from(&file, &env).unwrap().filter.drop.unwrap().to_string(), "user = \"a\"");

    let alone = "filter: {route: {zebra: operation = SharingSet}}";
    assert_eq!(read(Some(("f", alone)), azure(&[]), "h").unwrap().filter.routes.len(), 1);
    assert!(from(&tenant("secret_file: /s"), &[]).unwrap().filter.is_off());
}

#[test]
fn the_page_about_filters_begins_with_settings_that_are_good() {
    let page = include_str!("../../../docs/filters.md");
    let (_, rest) = page.split_once("```yaml\n").unwrap();
    let (lines, _) = rest.split_once("```").unwrap();
    let settings = from(&format!("{}{lines}", tenant("secret_file: /s")), &[]).unwrap();
    assert!(settings.filter.drop.is_some() && settings.redact.sensitive_information_detections);
    assert_eq!(settings.filter.routes.len(), 2);
    assert!(settings.record_topics().contains("o365.sharing"));
}

#[test]
fn faults_of_filters_name_the_line_and_the_column() {
    let lines = "\
filter:
  drop: operation = Page Viewed
  route:
    a topic: operation = SharingSet
    o365.feed.ledger: operation = SharingSet
    \"{tenant}.x\": operation = SharingSet
    twice: operation = SharingSet
    \"{prefix}.b\": operation == SharingSet
    \"{prefix}.c\": user = ada
    o365.c: user = ada
    twice: user = ada
    empty:
    list: [a, b]
redact:
  sensitive_information_detections: maybe
";
    let env = [("O365FEED_FILTER__ROUTE", "x: user = a"), ("O365FEED_FILTER__ROUTES__X", "user = a")];
    let twice = from(&format!("{}{lines}", tenant("secret_file: /s")), &env).unwrap_err();
    let once = lines.replace("    twice: user = ada\n", "");
    let rest = from(&format!("{}{once}", tenant("secret_file: /s")), &env).unwrap_err();
    insta::assert_snapshot!(format!("{twice}\n----\n{rest}"));
}

#[test]
fn yaml_that_cannot_be_read_names_the_line() {
    for (text, line) in [
        ("kafka:\n  group: a\n  group: b\n", 3),
        ("kafka:\n  group: [a\n", 3),
        ("a: 1\n---\nb: 2\n", 3),
        ("kafka: !x {}\n", 1),
        ("- a\n", 1),
    ] {
        let faults = from(text, &[]).unwrap_err().to_string();
        assert!(faults.contains(&format!("f.yaml:{line}: ")), "{text:?}: {faults}");
    }
}

#[test]
fn a_group_or_a_key_without_a_value_is_as_if_it_were_not_there() {
    let file = format!("{}kafka:\nfetch:\n  memory:\nlisting: ~\n", tenant("secret_file: /s"));
    let settings = from(&file, &[]).unwrap();
    assert_eq!(settings.fetch.memory_bytes, 128 << 20);
    assert_eq!(settings.listing.plan.poll_interval, Duration::from_secs(60));
}

#[test]
fn plain_http_needs_this_machine_or_a_word() {
    let with = |lines: &str| {
        from(&format!("{}{lines}", tenant("secret_file: /s")), &[])
            .map(|settings| settings.tenants[0].api_root.to_string())
    };
    assert_eq!(with("  api_root: http://127.0.0.1:8365\n").unwrap(), "http://127.0.0.1:8365/");
    assert!(
        with("  api_root: http://simulator:8365\n")
            .unwrap_err()
            .to_string()
            .starts_with("f.yaml:6: tenants[0].api_root: ")
    );
    assert_eq!(with("  api_root: http://simulator:8365\n  allow_http: true\n").unwrap(), "http://simulator:8365/");
}

#[test]
fn two_tenants_must_differ_in_id_and_name() {
    let one = "{client_id: 7f3c1f6e-5a0b-4d5e-9c7a-0c0a17e50001, credential: {secret_file: /s}";
    let twice = format!("tenants:\n- {one}, id: {ID}}}\n- {one}, id: {}}}\n", ID.to_uppercase());
    assert_eq!(
        from(&twice, &[]).unwrap_err().to_string(),
        format!("f.yaml:3: tenants[1].id: `{ID}` stands here twice")
    );
    let named = format!("tenants:\n- {one}, id: {ID}, name: a}}\n- {one}, id: {OTHER}, name: a}}\n");
    assert!(from(&named, &[]).unwrap_err().to_string().starts_with("f.yaml:3: tenants[1].name: "));
}

#[test]
fn a_secret_that_is_not_there_is_named_by_its_variable() {
    let file = tenant("secret_env: CONTOSO_SECRET");
    let faults = from(&file, &[]).unwrap_err().to_string();
    assert_eq!(
        faults,
        "f.yaml:5: tenants[0].credential.secret_env: the environment variable `CONTOSO_SECRET` is not set"
    );
    assert!(from(&file, &[("CONTOSO_SECRET", "x")]).is_ok());
}

#[test]
fn a_named_file_must_be_there_and_nothing_at_all_says_how_to_begin() {
    let missing = load(Some(Path::new("/nowhere/o365feed.yaml")), [], "h").unwrap_err();
    assert!(missing.to_string().starts_with("/nowhere/o365feed.yaml: could not be read: "));
    let nothing = read(None, [], "h").unwrap_err().to_string();
    assert!(nothing.contains("AZURE_TENANT_ID"), "{nothing}");
}

#[test]
fn a_receiver_needs_a_secret_that_cannot_be_guessed_and_both_or_neither_of_the_tls_files() {
    let with = |lines: &str, env: &[(&str, &str)]| from(&format!("{}{lines}", tenant("secret_file: /s")), env);
    let told = |lines: &str, env: &[(&str, &str)]| with(lines, env).unwrap_err().to_string();
    let off = with("", &[]).unwrap().webhook;
    assert!(!off.enabled && off.auth_id.is_none() && off.public_url.is_none() && off.tls.is_none());
    assert!(told("webhook: {enabled: true}\n", &[]).starts_with("f.yaml:6: webhook."));
    let named = "webhook: {enabled: true, auth_id_env: HOOK}\n";
    assert!(with(named, &[("HOOK", "0123456789abcdef")]).unwrap().webhook.auth_id.is_some());
    for (bad, why) in [("", "not set"), ("s3cr3t", "shorter"), ("0123456789abcd\u{e9}f", "header")] {
        let told = told(named, &[("HOOK", bad)]);
        assert!(told.contains("`HOOK`") && told.contains(why), "{told}");
        assert!(bad.is_empty() || !told.contains(bad), "{told}");
    }
    let two = "webhook: {enabled: true, auth_id_env: HOOK, auth_id_file: /x}\n";
    assert!(told(two, &[("HOOK", "0123456789abcdef")]).contains("exactly one"));
    assert!(told("webhook: {key_file: /k}\n", &[]).contains("belong together"));
    assert!(told("webhook: {public_url: 'http://feed.example.com/'}\n", &[]).contains("https"));
}

proptest::proptest! {
    #[test]
    fn no_file_panics(text in "[a-z0-9:\\[\\]{}\\-&*!|> \n.'\"#~]{0,80}") {
        let _ = from(&text, &[]);
        let _ = from(&format!("tenants:\n - {text}\nkafka: {text}"), &[]);
    }
}

fn from(text: &str, env: &[(&str, &str)]) -> Result<Settings, ConfigErrors> {
    read(Some(("f.yaml", text)), owned(env), "host-1")
}

/// Five lines.
fn tenant(credential: &str) -> String {
    format!("tenants:\n- id: {ID}\n  client_id: {OTHER}\n  credential:\n    {credential}\n")
}

fn azure(more: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut env = owned(&[("AZURE_TENANT_ID", ID), ("AZURE_CLIENT_ID", OTHER), ("AZURE_CLIENT_SECRET", "s3cr3t")]);
    env.extend(owned(more));
    env
}

fn owned(env: &[(&str, &str)]) -> Vec<(String, String)> {
    env.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}
