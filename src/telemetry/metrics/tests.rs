use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::*;

#[test]
fn every_metric_is_registered_and_named_after_its_field() {
    let metrics = Metrics::new();
    let described: Vec<String> = metrics.registry.gather().iter().map(|family| family.name().to_owned()).collect();
    assert!(described.contains(&"o365feed_build_info".to_owned()));
    assert!(described.contains(&"o365feed_transactions_total".to_owned()));
    let text = metrics.render();
    assert!(text.contains("# TYPE o365feed_transaction_commit_seconds histogram"));
    assert!(text.contains("o365feed_transactions_total{outcome=\"unknown\"} 0\n"));
    assert!(text.contains(&format!("o365feed_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"))));
    assert!(!cfg!(target_os = "linux") || text.contains("\nprocess_resident_memory_bytes "));
}

#[test]
fn a_source_starts_with_its_counters_at_zero() {
    let metrics = Metrics::new();
    metrics.init_source("contoso", ContentType::Exchange);
    insta::assert_snapshot!(series_of(&metrics, "contoso"));
}

#[test]
fn without_its_state_a_tenant_keeps_what_was_counted() {
    let metrics = Metrics::new();
    for tenant in ["contoso", "fabrikam"] {
        touch_all(&metrics, tenant);
    }
    let (before, other) = (series_of(&metrics, "contoso"), series_of(&metrics, "fabrikam"));
    metrics.forget_state("contoso");
    metrics.forget_state("contoso");
    assert_eq!(series_of(&metrics, "fabrikam"), other);
    let after = series_of(&metrics, "contoso");
    let is_counter = |line: &&str| line.split('{').next().is_some_and(|name| name.ends_with("_total"));
    let counters: Vec<&str> = before.lines().filter(is_counter).collect();
    assert_eq!(after.lines().collect::<Vec<_>>(), counters);
    assert!(counters.len() < before.lines().count());
}

/// One series in every family: this is the list of names, labels and help texts that people build dashboards on.
#[test]
fn names_labels_and_help() {
    let metrics = Metrics::new();
    touch_all(&metrics, "contoso");
    let families = metrics.registry.gather();
    let lines = families.iter().filter(|family| family.name().starts_with("o365feed_")).map(|family| {
        let labels: Vec<&str> = family.get_metric()[0].get_label().iter().map(|l| l.name()).collect();
        format!("{}{{{}}}: {}", family.name(), labels.join(","), family.help())
    });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
}

/// The table is the last thing of the page. Run with INSTA_UPDATE=always to bring it up to date.
#[test]
fn the_table_in_the_documentation_is_up_to_date() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let written = fs::read_to_string(&page).unwrap();
    let head = &written[..written.find(TABLE_HEAD).unwrap()];
    let expected = format!("{head}{}", table());
    if std::env::var("INSTA_UPDATE").is_ok_and(|mode| mode == "always") {
        fs::write(&page, &expected).unwrap();
    }
    assert_eq!(fs::read_to_string(&page).unwrap(), expected);
}

#[test]
fn every_alert_has_its_row_its_section_in_the_runbook_and_its_link_there() {
    let (page, runbook) = (read("docs/metrics.md"), read("docs/runbook.md"));
    let (_, alarms) = page.split_once("## Alarms").unwrap();
    let (alarms, _) = alarms.split_once("## All metrics").unwrap();
    let rows = alarms.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let rows: BTreeSet<&str> = rows.filter(|name| *name != "Name").collect();
    let rules = read("deploy/prometheus/alerts.yaml");
    let mut names = BTreeSet::new();
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap();
        names.insert(name);
        assert!(runbook.contains(&format!("\n### {name}\n")), "{name}");
        let link = format!("runbook_url: https://o365feed.example/docs/runbook.md#{}", name.to_lowercase());
        for line in [link.as_str(), "summary: ", "description: "] {
            assert!(rule.contains(line), "{name}: {line}");
        }
        let severity = rule.split("severity: ").nth(1).unwrap().split(' ').next().unwrap();
        assert!(["info", "warning", "critical"].contains(&severity), "{name}: {severity}");
    }
    assert!(names.len() > 8, "{names:?}");
    assert_eq!(names, rows);
}

#[test]
fn every_metric_that_a_page_a_dashboard_or_a_deployment_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    ["docs", "dashboards", "deploy"].iter().for_each(|folder| add_all(&root.join(folder), &mut files));
    let mut naming = 0;
    for file in files {
        let bytes = fs::read(&file).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let unknown: Vec<&str> = unknown_metrics(&text).into_iter().filter(|word| *word != PACKAGE).collect();
        assert_eq!(unknown, [""; 0], "{}", file.display());
        naming += usize::from(text.contains("o365feed_"));
    }
    assert!(naming > 15, "{naming} files name metrics");
}

/// As the name of the Debian package begins.
const PACKAGE: &str = "o365feed_0";

/// Adds all files under `folder`.
fn add_all(folder: &Path, files: &mut Vec<PathBuf>) {
    for found in fs::read_dir(folder).unwrap() {
        let path = found.unwrap().path();
        if path.is_dir() { add_all(&path, files) } else { files.push(path) }
    }
}

#[test]
fn every_link_on_the_dashboards_leads_somewhere() {
    let anchors: Vec<String> = read("docs/runbook.md").lines().filter_map(anchor).collect();
    for board in ["overview", "throttling", "kafka", "tenant"] {
        let text = read(&format!("dashboards/{board}.json"));
        let links: Vec<&str> = text.split("/runbook.md#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(links.len() > 5, "{board}");
        for link in links {
            assert!(anchors.iter().any(|anchor| anchor == link), "{board}: {link}");
        }
    }
}

/// What leads to a heading.
fn anchor(line: &str) -> Option<String> {
    let heading = line.strip_prefix('#')?.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    Some(kept.map(|c| if c == ' ' { '-' } else { c }).collect())
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|fault| panic!("{file}: {fault}"))
}

/// The metrics that `text` names and that do not exist.
fn unknown_metrics(text: &str) -> Vec<&str> {
    let known = table();
    let is_named = |name: &str| known.contains(&format!("`{name}`"));
    let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c| !name(c)).filter(|word| word.starts_with("o365feed_"));
    let words = words.map(|word| word.trim_end_matches("_bucket").trim_end_matches("_count"));
    words.filter(|word| !is_named(word)).collect()
}

const TABLE_HEAD: &str = "| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n";

fn table() -> String {
    let metrics = Metrics::new();
    touch_all(&metrics, "contoso");
    let families = metrics.registry.gather();
    let ours = families.iter().filter(|family| family.name().starts_with("o365feed_"));
    let rows = ours.map(|family| {
        let kind = format!("{:?}", family.get_field_type()).to_lowercase();
        let labels: Vec<String> =
            family.get_metric()[0].get_label().iter().map(|l| format!("`{}`", l.name())).collect();
        format!("| `{}` | {kind} | {} | {} |\n", family.name(), labels.join(", "), family.help())
    });
    format!("{TABLE_HEAD}{}", rows.collect::<String>())
}

fn touch_all(m: &Metrics, tenant: &str) {
    m.init_source(tenant, ContentType::Dlp);
    let source = [tenant, ContentType::Dlp.as_str()];
    for gauges in
        [&m.freshness_seconds, &m.watermark_age_seconds, &m.delivered_age_seconds, &m.oldest_backlog_expires_in_seconds]
    {
        gauges.with_label_values(&source).set(1.0);
    }
    for gauges in [&m.quota_used_ratio, &m.pace_ratio, &m.token_expires_in_seconds] {
        gauges.with_label_values(&[tenant]).set(0.5);
    }
    for gauges in [&m.backlog_contents, &m.ledger_ids, &m.ledger_bytes] {
        gauges.with_label_values(&source).set(1);
    }
    m.webhook_certificate_expires_in_seconds.with_label_values::<&str>(&[]).set(86_400.0);
    m.quota_requests_per_minute.with_label_values(&[tenant]).set(2_000);
    m.event_delay_seconds.with_label_values(&[source[1]]).observe(61.0);
    m.api_requests_total.with_label_values(&[tenant, "list", "200"]).inc();
    m.api_request_seconds.with_label_values(&["list"]).observe(0.2);
    m.api_errors_total.with_label_values(&[tenant, "AF429"]).inc();
}

fn series_of(metrics: &Metrics, tenant: &str) -> String {
    let text = metrics.render();
    let label = format!("tenant=\"{tenant}\"");
    text.lines().filter(|line| line.contains(&label)).collect::<Vec<_>>().join("\n")
}
