//! What is simulated: tenants, their sources, how their contents arrive and how the service behaves.
//! Everything has a default, so a test names only what it is about.

use std::{net::SocketAddr, time::Duration};

use jiff::SignedDuration;
use secrecy::SecretString;
use url::Url;
use uuid::Uuid;

use super::{clock::Clock, fault::Faults, webhook::Notifier};
use crate::domain::{ContentType, TenantId};

/// One simulated service. The same scenario with the same clock gives the same bytes.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub clock: Clock,
    /// API and token endpoint. Default: an ephemeral loopback port.
    pub listen: SocketAddr,
    /// Truth, counts, faults and clock. Default: an ephemeral loopback port.
    pub control: SocketAddr,
    /// The root of `contentUri` and `NextPageUri`, when it is not `listen`.
    pub public_url: Option<Url>,
    /// How far the `Date` header is off.
    pub date_skew: SignedDuration,
    /// Compress when the caller accepts it. The real service: unconfirmed (docs/api/contract.md 3).
    pub gzip: bool,
    pub tenants: Vec<TenantScenario>,
    /// How webhooks are told of contents.
    pub notifier: Notifier,
    /// What goes wrong from the start; changed later through [`super::Control`].
    pub faults: Faults,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            seed: 1,
            clock: Clock::Real,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            control: SocketAddr::from(([127, 0, 0, 1], 0)),
            public_url: None,
            date_skew: SignedDuration::ZERO,
            gzip: false,
            tenants: vec![TenantScenario::default()],
            notifier: Notifier::default(),
            faults: Faults::default(),
        }
    }
}

/// One tenant and the one application registered in it.
#[derive(Clone, Debug)]
pub struct TenantScenario {
    pub id: TenantId,
    pub client_id: String,
    pub client_secret: SecretString,
    /// The certificate (PEM) that the application knows.
    pub certificate: Option<String>,
    /// Whose tokens the application trusts as well.
    pub federation: Option<Federation>,
    /// What a token must be for; the simulator's own root is accepted as well.
    pub audience: String,
    pub roles: Vec<String>,
    /// Laid over the claims of every token: another `tid`, `scp` in the place of `roles`; null takes one away. The API goes on
    /// believing what it issued.
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// At most one entry a content type. Types not named here are known to the API and stay empty.
    pub sources: Vec<(ContentType, SourceScenario)>,
    /// Per publisher and tenant, in any sliding minute.
    pub quota_per_minute: u32,
    pub start: RepeatedStart,
    /// Whether the client id is taken for the tenant in a URL (seen with another product, contract 3).
    pub client_id_as_tenant: bool,
    pub windows: WideWindow,
    /// 200 as documented, or 204 as two clients of Microsoft's expect.
    pub stop_status: u16,
    /// A start so soon after a stop says that it went well and leaves the subscription broken for ever. Zero: never.
    pub broken_by_restart_within: Duration,
    /// How long after its start a subscription is not in the list yet.
    pub listed_after: Duration,
    pub token_lifetime: Duration,
    /// Waited before every answer of the API.
    pub latency: Duration,
}

/// Another issuer of tokens, and the one subject that is believed: both are compared letter by letter.
#[derive(Clone, Debug)]
pub struct Federation {
    pub issuer: String,
    pub subject: String,
}

impl Default for TenantScenario {
    fn default() -> Self {
        Self {
            id: TenantId(Uuid::from_u128(0x7f3c_1f6e_5a0b_4d5e_9c7a_0c0a_17e5_0001)),
            client_id: "3d1b6a4e-0f4c-4a56-8a3e-51a0c0a17e02".to_owned(),
            client_secret: SecretString::from("simulated~secret+with/odd=letters"),
            certificate: None,
            federation: None,
            audience: "https://manage.office.com".to_owned(),
            roles: vec!["ActivityFeed.Read".to_owned(), "ActivityFeed.ReadDlp".to_owned()],
            claims: serde_json::Map::new(),
            sources: vec![(ContentType::SharePoint, SourceScenario::default())],
            quota_per_minute: 2_000,
            start: RepeatedStart::AlreadyEnabled,
            client_id_as_tenant: false,
            windows: WideWindow::Refused { exactly_a_day: false },
            stop_status: 200,
            broken_by_restart_within: Duration::ZERO,
            listed_after: Duration::ZERO,
            token_lifetime: Duration::from_secs(3_599),
            latency: Duration::ZERO,
        }
    }
}

/// What a start call on a running subscription gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepeatedStart {
    /// 400 AF20024, as on the wire.
    AlreadyEnabled,
    /// 200.
    Fine,
    /// 429 within 15 minutes of the last start, AF20024 later.
    Cooldown,
}

/// What a listing over more than 24 hours gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WideWindow {
    /// AF20055; with `exactly_a_day`, 24 h to the second too.
    Refused { exactly_a_day: bool },
    /// Only the first 24 hours of it, without a word.
    SilentlyPartial,
}

/// One content type of one tenant.
#[derive(Clone, Debug)]
pub struct SourceScenario {
    pub history: History,
    pub live: Live,
    /// About how long a record is; never shorter than its members (some 600 bytes).
    pub record_bytes: usize,
    pub id_model: IdModel,
    /// Whether an older id of a range that has grown gives all of it, instead of the part it was listed with.
    pub old_ids_grow: bool,
    pub duplicates: Duplicates,
    /// Share of records whose `Id` also occurs in the tenant's other content types (at the same place of the same arrival).
    pub shared_ids: f64,
    /// Share of records without an `Id`; some of them equal byte for byte.
    pub without_id: f64,
    /// Share of arrivals that nobody can see until [`super::Control::insert_late`], however old they are by then.
    pub late: f64,
    /// Whether the items of a page come in no order of time.
    pub shuffled: bool,
    /// Whether the first arrival also holds every line of the type's file in docs/api/samples and of `hostile.jsonl`.
    pub samples: bool,
    pub page_size: usize,
    /// `NextPageUri`, `NextPageUrl`, in any letter case.
    pub next_page_header: String,
    /// Days from the first event of a range to its `contentExpiration`.
    pub expiration_days: u32,
    pub subscribed: bool,
    /// An administrator disabled the subscription (AF20023) that was there at the start.
    pub disabled: Option<Disabled>,
    /// How long after the first start nothing is listed yet.
    pub first_content_after: Duration,
    /// How far before the first start contents reach back.
    pub backfill: Duration,
    /// Arrivals that differ from the others in size.
    pub big: Vec<BigArrival>,
    pub layout: Layout,
}

impl Default for SourceScenario {
    fn default() -> Self {
        Self {
            history: History { arrivals: 10, span: Duration::from_secs(3_600), records: 20 },
            live: Live { arrivals_per_minute: 0.0, records: 20 },
            record_bytes: 1_500,
            id_model: IdModel::Stable,
            old_ids_grow: false,
            duplicates: Duplicates { share: 0.0, reordered: false },
            shared_ids: 0.0,
            without_id: 0.0,
            late: 0.0,
            shuffled: false,
            samples: false,
            page_size: 200,
            next_page_header: "NextPageUri".to_owned(),
            expiration_days: 7,
            subscribed: true,
            disabled: None,
            first_content_after: Duration::ZERO,
            backfill: Duration::from_secs(7 * 86_400),
            big: Vec::new(),
            layout: Layout::Compact,
        }
    }
}

/// What a start does about a subscription that an administrator disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disabled {
    UntilStarted,
    /// A start gets AF20023 too.
    ForGood,
}

/// What is there when the simulator starts: `arrivals`, evenly over `span`, the last just before the start.
#[derive(Clone, Copy, Debug)]
pub struct History {
    pub arrivals: u64,
    pub span: Duration,
    /// Records an arrival.
    pub records: u32,
}

/// What comes while it runs.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// 0 for none.
    pub arrivals_per_minute: f64,
    /// Records an arrival.
    pub records: u32,
}

/// How arrivals become contents when they are listed (docs/api/contract.md 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdModel {
    /// One arrival, one content, one id for ever: as documented.
    Stable,
    /// Up to `arrivals` form a range that is listed whole; the newest grows, and its id and creation with it: as on the wire.
    Growing { arrivals: u64 },
    /// The same ranges, but a window sees only what lies inside it, under an id of its own.
    Partial { arrivals: u64 },
}

/// Records that come again, in the same content or in a later one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Duplicates {
    pub share: f64,
    /// Half of them with their members in another order.
    pub reordered: bool,
}

/// An arrival of another size: one blob of 200 MB, one record of 9 MiB.
#[derive(Clone, Copy, Debug)]
pub struct BigArrival {
    /// Counted from the first of the history.
    pub index: u64,
    pub records: u32,
    pub record_bytes: usize,
}

/// White space around the records of a blob. The records themselves are never touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Compact,
    Spaced,
}
