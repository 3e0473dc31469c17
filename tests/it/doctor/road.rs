//! Probes 1 to 3: settings, the way to the hosts, and the clocks.

use std::{fs, os::unix::fs::PermissionsExt};

use jiff::SignedDuration;
use o365feed::simulator::Scenario;
use serde_json::Value;

use super::{Verdicts, but, expect, healthy, json_of, probe, set, told, verdicts, well, world};
use crate::{
    process::{Launch, Process},
    scratch::Scratch,
    tls::TlsHost,
    world::{PATIENCE, Ran, nowhere},
};

#[test]
fn settings_that_cannot_be_used_are_told_in_full_and_a_readable_secret_is_warned_of() {
    let mut world = world(healthy());
    world.set("kafka.partitions", "none");
    world.set("listing.window", "3");
    let mut broken = Verdicts::new();
    set(&mut broken, &(2..=25).map(|number| (number, "skipped")).collect::<Vec<_>>());
    set(&mut broken, &[(1, "failure")]);
    let report = expect("two faults", &world, &[], &broken);
    assert_eq!(probe(&report, 1)["evidence"].as_array().unwrap().len(), 2);
    assert_eq!(report["requests"], 0);

    drop(world);
    let scratch = Scratch::new("secret");
    let file = scratch.path().join("secret");
    fs::write(&file, "a secret").unwrap();
    let root = format!("http://{}", nowhere());
    let yaml = lonely(&root, &format!("secret_file: {}", file.display()));
    for (mode, verdict) in [(0o600, "ok"), (0o640, "warning"), (0o604, "warning")] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let report = alone(&yaml, &[]);
        assert_eq!(verdicts(&report)[&1], verdict, "{mode:o}: {}", told(&report, 1));
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(verdicts(&alone(&yaml, &[]))[&1], "failure", "the file is gone");
}

#[test]
fn who_opens_the_tls_is_named_and_a_trusted_host_is_well() {
    let host = TlsHost::start("localhost", None);
    let yaml = lonely(&format!("https://localhost:{}", host.port), "secret_env: SOME_SECRET");
    let secret = ("SOME_SECRET", "words");
    let report = alone(&yaml, &[secret]);
    assert_eq!(verdicts(&report)[&2], "failure");
    assert!(told(&report, 2).contains("it was issued by `Contoso Inspection`"), "{}", told(&report, 2));
    assert_eq!(verdicts(&report)[&3], "skipped", "no answer, no clock");
    let report = alone(&yaml, &[secret, host.trusted()]);
    assert_eq!(verdicts(&report)[&2], "ok", "{}", told(&report, 2));
    assert!(told(&report, 2).contains("TLS trusted"), "{}", told(&report, 2));
    assert_eq!(verdicts(&report)[&3], "failure", "its clock is years off: {}", told(&report, 3));
    assert_eq!(verdicts(&report)[&4], "failure", "it is no login authority");
}

#[test]
fn a_proxy_is_named_without_its_password_and_gone_through() {
    let through = TlsHost::start("login.example.invalid", Some("HTTP/1.1 200 fine\r\n\r\n"));
    let yaml = lonely("https://login.example.invalid", "secret_env: SOME_SECRET");
    let secret = ("SOME_SECRET", "words");
    let proxy = |host: &TlsHost| format!("http://user:hidden-word@127.0.0.1:{}", host.port);
    let report = alone(&yaml, &[secret, through.trusted(), ("HTTPS_PROXY", &proxy(&through))]);
    assert_eq!(verdicts(&report)[&2], "ok", "{}", told(&report, 2));
    assert!(told(&report, 2).contains(&format!("through the proxy 127.0.0.1:{}", through.port)));
    assert!(!report.to_string().contains("hidden-word"));

    let refuses = TlsHost::start("login.example.invalid", Some("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"));
    let report = alone(&yaml, &[secret, ("HTTPS_PROXY", &proxy(&refuses))]);
    assert_eq!(verdicts(&report)[&2], "failure");
    assert!(told(&report, 2).contains("407 Proxy Authentication Required"), "{}", told(&report, 2));
    assert!(!report.to_string().contains("hidden-word"));

    let plain = lonely(&format!("https://localhost:{}", refuses.port), "secret_env: SOME_SECRET");
    let report = alone(&plain, &[secret]);
    assert!(told(&report, 2).contains("no TLS"), "{}", told(&report, 2));

    let socks = format!("socks5://127.0.0.1:{}", refuses.port);
    let report = alone(&yaml, &[secret, ("HTTPS_PROXY", &socks)]);
    assert_eq!(verdicts(&report)[&2], "note", "{}", told(&report, 2));
}

#[test]
fn the_network_and_the_clock() {
    let mut world = world(healthy());
    let report = expect("well", &world, &[], &well());
    assert!(told(&report, 2).contains("no proxy"), "{}", told(&report, 2));
    world.set("tenants[0].api_root", format!("http://{}", nowhere()));
    let report = expect("nobody there", &world, &[], &but(&[(2, "failure"), (3, "ok")], 4..=24));
    assert!(told(&report, 2).contains("allow https to 127.0.0.1"), "{}", told(&report, 2));

    drop(world);
    let mut world = self::world(healthy());
    world.set("tenants[0].api_root", "https://no-such-host.invalid");
    let report = expect("no such name", &world, &[], &but(&[(2, "failure"), (3, "ok")], 4..=24));
    assert!(told(&report, 2).contains("no-such-host.invalid"), "{}", told(&report, 2));

    drop(world);
    for (skew_s, verdict) in [(90, "warning"), (-90, "warning"), (900, "failure")] {
        let world = self::world(Scenario { date_skew: SignedDuration::from_secs(skew_s), ..healthy() });
        let report = expect("a wrong clock", &world, &[], &but(&[(3, verdict)], []));
        assert!(told(&report, 3).contains("NTP"), "{}", told(&report, 3));
    }
}

/// Settings of a tenant on `root`, and of a Kafka that nobody runs.
fn lonely(root: &str, credential: &str) -> String {
    format!(
        "\
tenants:
  - id: 7f3c1f6e-5a0b-4d5e-9c7a-0c0a17e50001
    client_id: 3d1b6a4e-0f4c-4a56-8a3e-51a0c0a17e02
    api_root: {root}
    authority: {root}
    credential:
      {credential}
kafka:
  bootstrap_servers: {}
",
        nowhere()
    )
}

/// The report of doctor without a world around it.
fn alone(yaml: &str, env: &[(&str, &str)]) -> Value {
    let launch = Launch::o365feed(["doctor", "--json"]);
    let launch = env.iter().fold(launch, |launch, (name, value)| launch.env(name, value));
    let mut process = Process::start(launch, yaml);
    let code = process.wait_exit(PATIENCE);
    json_of(&Ran { code, stdout: process.stdout(), stderr: process.stderr() })
}
