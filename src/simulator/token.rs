//! The login service: client credentials with a secret or an assertion, and tokens that look like tokens.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{
    answer::Answer,
    assertion,
    random::mix,
    server::{Shared, SimTenant},
};

/// What a token given out is good for.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) tenant: Arc<SimTenant>,
    pub(super) audience: String,
    pub(super) roles: Vec<String>,
    pub(super) expires: Timestamp,
}

/// Every token given out and not yet lapsed.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    given: Mutex<HashMap<String, Grant>>,
    /// The `jti` of every assertion that was believed.
    assertions: Mutex<HashSet<String>>,
}

impl Tokens {
    pub(super) fn grant(&self, token: &str) -> Option<Grant> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }

    /// Whether this is the first assertion with the number.
    pub(super) fn is_new(&self, jti: &str) -> bool {
        self.assertions.lock().unwrap_or_else(PoisonError::into_inner).insert(jti.to_owned())
    }

    fn keep(&self, token: String, grant: Grant, now: Timestamp) {
        let mut tokens = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, grant| now < grant.expires);
        tokens.insert(token, grant);
    }
}

/// The two forms of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

impl Version {
    fn path(self) -> &'static str {
        match self {
            Self::V1 => "",
            Self::V2 => "/v2.0",
        }
    }
}

/// Answers a token request for the tenant that the URL names.
pub(super) fn answer(shared: &Shared, version: Version, tenant: &str, form: &[u8]) -> Answer {
    let now = shared.clock.now();
    issue(shared, version, tenant, form, now).unwrap_or_else(|refusal| refusal.answer(shared, now))
}

fn issue(shared: &Shared, version: Version, tenant: &str, form: &[u8], now: Timestamp) -> Result<Answer, Refusal> {
    let form: HashMap<_, _> = form_urlencoded::parse(form).into_owned().collect();
    let field = |name: &str| form.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let Some(tenant) = shared.tenants.iter().find(|known| known.scenario.id.to_string().eq_ignore_ascii_case(tenant))
    else {
        let text = format!("Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID.");
        return Err(Refusal::new(400, "invalid_request", 90002, text));
    };
    let missing = |name: &str| {
        let text = format!("The request body must contain the following parameter: '{name}'.");
        Refusal::new(400, "invalid_request", 900_144, text)
    };
    if field("grant_type").ok_or_else(|| missing("grant_type"))? != "client_credentials" {
        return Err(Refusal::new(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type."));
    }
    if field("client_id").ok_or_else(|| missing("client_id"))? != tenant.scenario.client_id {
        let text = "Application with the given identifier was not found in the directory.";
        return Err(Refusal::new(400, "unauthorized_client", 700_016, text));
    }
    let audience = audience(version, field("resource"), field("scope")).map_err(|name| match name {
        Some(name) => missing(name),
        None => Refusal::new(400, "invalid_request", 901_002, "The 'resource' request parameter is not supported."),
    })?;
    let by = match (field("client_assertion"), field("client_secret")) {
        (Some(assertion), _) => {
            if field("client_assertion_type") != Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer") {
                return Err(missing("client_assertion_type"));
            }
            let endpoint = format!("/{}/oauth2{}/token", tenant.scenario.id, version.path());
            assertion::check(&shared.tokens, &tenant.scenario, (assertion, &endpoint), now)?;
            BY_ASSERTION
        }
        (None, Some(secret)) if secret == tenant.scenario.client_secret.expose_secret() => BY_SECRET,
        (None, Some(_)) => {
            return Err(Refusal::new(401, "invalid_client", 7_000_215, "Invalid client secret provided."));
        }
        (None, None) => {
            let text = "The request body must contain 'client_assertion' or 'client_secret'.";
            return Err(Refusal::new(401, "invalid_client", 7_000_218, text));
        }
    };
    Ok(granted(shared, version, tenant, (audience, by), now))
}

/// How the client proved itself, as a token tells it (docs/api/contract.md 2.4).
const BY_SECRET: &str = "1";
const BY_ASSERTION: &str = "2";

/// What the token is to be for; else the missing field, or nothing when `resource` came where it must not.
fn audience(version: Version, resource: Option<&str>, scope: Option<&str>) -> Result<String, Option<&'static str>> {
    match (version, resource, scope) {
        (Version::V1, Some(resource), _) => Ok(resource.to_owned()),
        (Version::V1, None, _) => Err(Some("resource")),
        (Version::V2, Some(_), _) => Err(None),
        (Version::V2, None, Some(scope)) => Ok(scope.strip_suffix("/.default").unwrap_or(scope).to_owned()),
        (Version::V2, None, None) => Err(Some("scope")),
    }
}

fn granted(
    shared: &Shared,
    version: Version,
    tenant: &Arc<SimTenant>,
    (audience, by): (String, &str),
    now: Timestamp,
) -> Answer {
    let lifetime_s = tenant.scenario.token_lifetime.as_secs();
    let expires = now + SignedDuration::from_secs(lifetime_s.min(10 * 365 * 86_400) as i64);
    let serial = {
        let mut serial = 0;
        shared.counter.note(|counts| {
            counts.tokens += 1;
            serial = counts.tokens;
        });
        serial
    };
    let mut claims = json!({
        "aud": audience,
        "iss": format!("https://sts.windows.net/{}/", tenant.scenario.id),
        "iat": now.as_second(),
        "nbf": now.as_second(),
        "exp": expires.as_second(),
        "appid": tenant.scenario.client_id,
        "appidacr": by,
        "roles": tenant.scenario.roles,
        "tid": tenant.scenario.id.to_string(),
        "uti": serial.to_string(),
        "ver": "1.0",
    });
    for (name, value) in &tenant.scenario.claims {
        match (claims.as_object_mut(), value) {
            (Some(claims), Value::Null) => drop(claims.remove(name)),
            (Some(claims), value) => drop(claims.insert(name.clone(), value.clone())),
            (None, _) => {}
        }
    }
    let header = json!({"typ": "JWT", "alg": "none"});
    let signature: Vec<u8> = (0..4).flat_map(|at| mix(shared.seed, &[11, serial, at]).to_be_bytes()).collect();
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let token = format!("{}.{}.{}", part(&header), part(&claims), URL_SAFE_NO_PAD.encode(signature));
    let grant =
        Grant { tenant: Arc::clone(tenant), audience: audience.clone(), roles: tenant.scenario.roles.clone(), expires };
    shared.tokens.keep(token.clone(), grant, now);
    let body = match version {
        Version::V2 => {
            json!({"token_type": "Bearer", "expires_in": lifetime_s, "ext_expires_in": lifetime_s, "access_token": token})
        }
        Version::V1 => json!({
            "token_type": "Bearer",
            "expires_in": lifetime_s.to_string(),
            "ext_expires_in": lifetime_s.to_string(),
            "expires_on": expires.as_second().to_string(),
            "not_before": now.as_second().to_string(),
            "resource": audience,
            "access_token": token,
        }),
    };
    Answer::json(200, &body)
}

/// A refusal with this number, as any row of docs/api/contract.md 2.5 may come.
pub(super) fn refused(shared: &Shared, number: u32) -> Answer {
    let error = match number {
        50_033 | 90_006 | 90_012 | 90_024 | 90_033 | 90_090 => "temporarily_unavailable",
        7_000_215 | 7_000_222 | 70_002 | 700_027 | 7_000_218 => "invalid_client",
        _ => "invalid_request",
    };
    let status = if error == "invalid_client" { 401 } else { 400 };
    Refusal::new(status, error, number, "As the scenario wants it.").answer(shared, shared.clock.now())
}

/// A token that is not given, as docs/api/contract.md 2.5 lists them.
pub(super) struct Refusal {
    status: u16,
    error: &'static str,
    number: u32,
    text: String,
}

impl Refusal {
    pub(super) fn new(status: u16, error: &'static str, number: u32, text: impl Into<String>) -> Self {
        Self { status, error, number, text: text.into() }
    }

    fn answer(self, shared: &Shared, now: Timestamp) -> Answer {
        let (trace, correlation) = (shared.correlation(), shared.correlation());
        let timestamp = now.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        let number = self.number;
        let description = format!(
            "AADSTS{number}: {}\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\nTimestamp: {timestamp}",
            self.text
        );
        let body = json!({
            "error": self.error,
            "error_description": description,
            "error_codes": [number],
            "timestamp": timestamp,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": format!("https://login.microsoftonline.com/error?code={number}"),
        });
        Answer::json(self.status, &body)
    }
}
