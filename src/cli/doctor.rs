//! `o365feed doctor`: 25 probes from the settings to Kafka, each with a verdict, what was seen and what to do about it.
//! Every file below looks at one part and, apart from that, decides; this one says what follows what.

mod content; // 15 to 22: listings, pages, budget, blobs
mod kafka; // 25
mod ledger; // 23 and 24: published, or about to expire
mod network; // 2 and 3: names, connections, TLS, clocks
mod report; // probes, verdicts, the page
mod settings; // 1
mod subscriptions; // 8 to 14
mod token; // 4 to 7: issued, for whom, for what

use std::{collections::HashMap, sync::Arc, time::Duration};

use clap::Args;
use futures_util::future::join_all;
use jiff::Timestamp;
use prometheus::core::Collector;

use self::report::{Probe, Report, Verdict, skip_rest};
use super::{
    Failure, SettingsFrom,
    args::SourceArgs,
    output::{OutputArgs, progress},
    settings_or_faults,
    tool::ToolArgs,
};
use crate::{
    api::{Api, ApiError, TenantApi, Timeouts},
    config::{Settings, Subscriptions, Tenant},
    domain::{ContentType, Listed, TenantId},
    telemetry::Metrics,
};

#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Verdicts: ok; note (worth knowing); warning (costs data or time); failure (does not work); skipped (with the reason).

Examples:
  o365feed doctor
  o365feed doctor --tenant contoso --verbose
  o365feed doctor --fix
  o365feed doctor --json | jq '.probes[] | select(.verdict == \"failure\")'

Exit codes: 0 nothing is worse than a note; 8 warnings; 9 failures; 2 wrong usage.")]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    tool: ToolArgs,
    #[command(flatten)]
    sources: SourceArgs,
    /// Start subscriptions that are missing or disabled, and create missing topics.
    ///
    /// Each subscription is started once at most: the service allows one start in 15 minutes, and says so when that is not yet over.
    #[arg(long)]
    fix: bool,
    /// Show what was seen by the probes that are fine, too.
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    output: OutputArgs,
    /// Short for --output json.
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

/// How long one step of the way to a host, or one answer of Kafka, may take.
const STEP: Duration = Duration::from_secs(10);
/// Shorter than the connector's: a person waits.
const TIMEOUTS: Timeouts =
    Timeouts { connect: STEP, first_byte: Duration::from_secs(20), idle: Duration::from_secs(20) };

/// # Errors
/// [`super::Exit::Ailing`] and [`super::Exit::Ill`] by the worst verdict; wrong usage.
pub(super) async fn run(args: DoctorArgs) -> Result<(), Failure> {
    let report = examine(&args).await?;
    args.output.or_json(args.json).show(&report, |report| report.told(args.verbose))?;
    match report.exit() {
        super::Exit::Fine => Ok(()),
        exit => {
            let (failures, warnings) = (report.count(Verdict::Failure), report.count(Verdict::Warning));
            Err(Failure::new(exit, anyhow::anyhow!("failures: {failures}, warnings: {warnings}")))
        }
    }
}

async fn examine(args: &DoctorArgs) -> Result<Report, Failure> {
    let from: &SettingsFrom = &args.tool.from;
    let settings = settings_or_faults(from);
    let files = settings.as_ref().map(settings::secret_files).unwrap_or_default();
    let mut probes = vec![settings::judge(&settings, &files)];
    let Ok(asked) = settings else {
        skip_rest(&mut probes, 2..=25, "the settings cannot be used, as probe 1 says");
        return Ok(Report::new(probes, 0, Vec::new()));
    };
    let budget = asked.quota.requests_per_minute;
    let settings = args.tool.within(asked);
    let tenants = args.sources.of(&settings)?;
    let metrics = Metrics::new();
    let api = match Api::with_timeouts(&settings, &metrics, TIMEOUTS) {
        Ok(api) => api,
        Err(fault) => {
            probes[0] = Probe::of(1).find(Verdict::Failure, report::told(&fault), "check api_root and authority");
            skip_rest(&mut probes, 2..=25, "no connection can be made with these settings, as probe 1 says");
            return Ok(Report::new(probes, 0, Vec::new()));
        }
    };
    let bar = progress(0, "examining");
    let patients = tenants.iter().map(|(tenant, kinds)| Patient {
        tenant,
        api: api.tenant(tenant.id).expect("the api was made of the same settings"),
        kinds: kinds.clone(),
        manages: settings.subscriptions == Subscriptions::Manage,
        webhook: settings.webhook.public_url.as_ref(),
        fix: args.fix,
        budget,
        metrics: &metrics,
    });
    let (mut charts, broker) =
        tokio::join!(join_all(patients.map(Patient::examine)), kafka::look(&settings, args.fix, STEP));
    let is_reached = broker.brokers.is_ok();
    ledger_probes(&settings, &mut charts, is_reached).await;
    bar.finish_and_clear();

    let mut fixed: Vec<String> = Vec::new();
    for chart in charts {
        fixed.extend(chart.started.iter().map(|kind| format!("started {kind} of {}", chart.name)));
        let tenant = Some(chart.name);
        probes.extend(chart.probes.into_iter().map(|probe| Probe { tenant: tenant.clone(), ..probe }));
    }
    fixed.extend(broker.created.iter().map(|topic| format!("created the topic {topic}")));
    probes.push(kafka::judge(&broker, &settings));
    // The connections of probe 2 carry a request each.
    let requests = requests(&metrics, None) + 2 * tenants.len() as u64;
    Ok(Report::new(probes, requests, fixed))
}

/// A tenant that is to be looked at, and what that takes.
struct Patient<'a> {
    tenant: &'a Tenant,
    api: Arc<TenantApi>,
    kinds: Vec<ContentType>,
    manages: bool,
    /// Where we receive notifications, if we do.
    webhook: Option<&'a url::Url>,
    fix: bool,
    /// Of the settings: this command itself takes less.
    budget: u32,
    metrics: &'a Metrics,
}

/// What was found of a tenant.
struct Chart {
    id: TenantId,
    name: String,
    probes: Vec<Probe>,
    started: Vec<ContentType>,
    listed: Vec<Listed>,
}

/// Of a tenant; 1 and 25 are of the whole.
const OF_A_TENANT: std::ops::RangeInclusive<u8> = 2..=24;
/// All but those that need Kafka.
const OF_THE_SERVICE: std::ops::RangeInclusive<u8> = 2..=22;

impl Patient<'_> {
    /// Probes 2 to 22: up to the first that leaves nothing to go on with.
    async fn examine(self) -> Chart {
        let mut chart = Chart {
            id: self.tenant.id,
            name: self.tenant.name.clone(),
            probes: Vec::new(),
            started: Vec::new(),
            listed: Vec::new(),
        };
        let end = self.service(&mut chart).await;
        if let Err(why) = end {
            skip_rest(&mut chart.probes, OF_THE_SERVICE, &why);
        }
        chart
    }

    /// # Errors
    /// Why the rest was not looked at.
    async fn service(&self, chart: &mut Chart) -> Result<(), String> {
        let after = |number: u8| format!("after probe {number}");
        let roads = network::look(self.tenant, STEP).await;
        let road = network::judge(&roads);
        let is_blocked = road.has_failed();
        chart.probes.extend([road, network::judge_clock(&roads)]);
        if is_blocked {
            return Err(after(2));
        }
        let claims = self.api.claims().await;
        chart.probes.extend(token::judge_token(&claims));
        let allowed = match &claims {
            Err(ApiError::Unreadable { .. }) => {
                skip_rest(&mut chart.probes, 5..=7, "the token is no JWT, and need not be one");
                self.kinds.clone()
            }
            Err(_) => return Err(after(4)),
            Ok(claims) => {
                let told = token::judge_claims(claims, self.tenant, Timestamp::now());
                let is_another = told.has_failed();
                chart.probes.push(told);
                if is_another {
                    return Err(after(5));
                }
                let (roles, allowed) = token::judge_roles(claims, &self.kinds);
                chart.probes.extend(roles);
                allowed
            }
        };
        if allowed.is_empty() {
            return Err("no content type is left that the token allows".to_owned());
        }
        let seen = subscriptions::look(&self.api, &allowed, self.fix).await;
        let judged = subscriptions::judge(&seen, &allowed, self.manages, self.webhook);
        chart.probes.extend(judged.probes);
        chart.started = judged.started;
        if let Some(error) = &judged.throttled {
            chart.probes.extend(self.throttle(Some(error)));
            return Err("the service asked to wait, as probe 19 says".to_owned());
        }
        if seen.listed.is_err() {
            return Err(after(8));
        }
        if judged.running.is_empty() {
            chart.probes.extend(self.throttle(None));
            return Err("no subscription runs, as probe 10 says".to_owned());
        }
        let seen = content::look(&self.api, &judged.running, Timestamp::now()).await;
        chart.probes.extend(content::judge(&seen));
        chart.probes.extend(self.throttle(seen.throttled()));
        chart.probes.sort_by_key(|probe| probe.number);
        chart.listed = seen.contents();
        Ok(())
    }

    fn throttle(&self, throttled: Option<&ApiError>) -> Vec<Probe> {
        let spent = requests(self.metrics, Some(&self.tenant.name));
        content::judge_throttle(throttled, self.tenant.publisher_identifier, self.budget, spent)
    }
}

/// Probes 23 and 24 of every tenant, by one reading of the topics.
async fn ledger_probes(settings: &Settings, charts: &mut [Chart], is_reached: bool) {
    if is_reached {
        let oldest = charts.iter().flat_map(|chart| &chart.listed).map(|content| content.created).min();
        let of = settings.clone();
        let read = tokio::task::spawn_blocking(move || ledger::look(&of, oldest, STEP)).await;
        if let Ok(books) = read {
            let now = Timestamp::now();
            for chart in charts.iter_mut() {
                let probe = ledger::judge_ledger(&books, &chart.listed, now);
                chart.probes.extend([probe, ledger::judge_deadline(&books, chart.id, now)]);
            }
        }
    }
    for chart in charts {
        skip_rest(
            &mut chart.probes,
            OF_A_TENANT,
            "Kafka cannot be read, as probe 25 says; `o365feed reconcile` compares once it can",
        );
        chart.probes.sort_by_key(|probe| probe.number);
    }
}

/// Requests that were sent for the tenant, or for all.
fn requests(metrics: &Metrics, tenant: Option<&str>) -> u64 {
    let families = metrics.api_requests_total.collect();
    let counted = families.iter().flat_map(|family| family.get_metric()).filter(|metric| {
        let labels: HashMap<&str, &str> =
            metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
        tenant.is_none_or(|tenant| labels.get("tenant") == Some(&tenant))
    });
    counted.map(|metric| metric.get_counter().get_value() as u64).sum()
}
