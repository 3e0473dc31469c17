//! `o365feed token`: what each tenant's token says about itself, and never the token.

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{
    Exit, Failure,
    args::TenantArgs,
    config::counted,
    exit,
    output::{OutputArgs, table},
    tool::{self, ToolArgs},
};
use crate::{
    api::{Api, ApiError, Claims},
    config::Tenant,
    domain::Fate,
};

#[derive(Args, Clone, Debug)]
#[command(
    after_long_help = exit::with_codes("Examples:\n  o365feed token\n  o365feed token --tenant contoso --output json", &[Exit::Unexpected, Exit::Usage, Exit::Microsoft])
)]
pub(super) struct TokenArgs {
    #[command(flatten)]
    tool: ToolArgs,
    #[command(flatten)]
    tenants: TenantArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// One tenant's token, or why there is none.
#[derive(Debug, Serialize)]
struct Row {
    tenant: String,
    tenant_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<Told>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Told {
    audience: Option<String>,
    tenant: Option<String>,
    issuer: Option<String>,
    application: Option<String>,
    roles: Vec<String>,
    scopes: Vec<String>,
    issued: Option<String>,
    not_before: Option<String>,
    expires: Option<String>,
}

/// # Errors
/// [`Exit::Microsoft`] when a token is refused, [`Exit::Unexpected`] when one cannot be had for another reason.
pub(super) async fn run(args: TokenArgs) -> Result<(), Failure> {
    let settings = args.tool.settings()?;
    let tenants = args.tenants.of(&settings)?;
    let api = tool::api(&settings)?;
    let (mut rows, mut exit) = (Vec::new(), Exit::Fine);
    for tenant in tenants {
        let asked = claims(&api, tenant).await;
        exit = match asked.as_ref().err().map(ApiError::fate) {
            Some(Fate::Operator) => Exit::Microsoft,
            Some(_) if exit == Exit::Fine => Exit::Unexpected,
            _ => exit,
        };
        rows.push(row(tenant, asked));
    }
    let now = Timestamp::now();
    args.output.show(&rows, |rows| people(rows, now))?;
    match exit {
        Exit::Fine => Ok(()),
        exit => {
            let lacking = rows.iter().filter(|row| row.error.is_some()).count();
            Err(Failure::new(
                exit,
                anyhow::anyhow!("{lacking} of {} got no readable token", counted(rows.len(), "tenant")),
            ))
        }
    }
}

async fn claims(api: &Api, tenant: &Tenant) -> Result<Claims, ApiError> {
    api.tenant(tenant.id).expect("the api was made of the same settings").claims().await
}

fn row(tenant: &Tenant, asked: Result<Claims, ApiError>) -> Row {
    let (name, id) = (tenant.name.clone(), tenant.id.to_string());
    match asked {
        Ok(claims) => {
            Row { tenant: name, tenant_id: id, claims: Some(told(claims)), error: None, code: None, advice: None }
        }
        Err(error) => Row {
            tenant: name,
            tenant_id: id,
            claims: None,
            code: Some(error.code().to_owned()),
            advice: error.advice(),
            error: Some(format!("could not {:#}", anyhow::Error::from(error))),
        },
    }
}

fn told(claims: Claims) -> Told {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    Told {
        audience: claims.audience,
        tenant: claims.tenant,
        issuer: claims.issuer,
        application: claims.application,
        roles: claims.roles,
        scopes: claims.scopes,
        issued: time(claims.issued),
        not_before: time(claims.not_before),
        expires: time(claims.expires),
    }
}

fn people(rows: &[Row], now: Timestamp) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let cells = rows.iter().map(|row| match &row.claims {
        Some(claims) => [
            row.tenant.clone(),
            text(&claims.audience),
            text(&claims.tenant),
            text(&claims.application),
            if claims.roles.is_empty() { "none".to_owned() } else { claims.roles.join(" ") },
            claims.expires.as_ref().map_or_else(|| "-".to_owned(), |expires| expiry(expires, now)),
        ],
        None => {
            let [audience, tenant, application, roles] = ["none", "", "", ""].map(str::to_owned);
            [row.tenant.clone(), audience, tenant, application, roles, String::new()]
        }
    });
    let mut page = table(&["tenant", "audience", "tenant id", "application", "roles", "expires"], cells);
    for row in rows.iter().filter(|row| row.error.is_some()) {
        let error = row.error.as_deref().unwrap_or_default();
        page += &super::output::harmless(&format!("{}: {error}", row.tenant));
        page += "\n";
        page += &row.advice.map(|advice| format!("  {advice}\n")).unwrap_or_default();
    }
    page
}

/// `2026-01-31T13:00:00Z (in 59m)`
fn expiry(expires: &str, now: Timestamp) -> String {
    let Ok(at) = expires.parse::<Timestamp>() else { return expires.to_owned() };
    let left = at.duration_since(now);
    let minutes = left.abs().as_mins();
    if left < SignedDuration::ZERO {
        format!("{expires} ({minutes}m ago)")
    } else {
        format!("{expires} (in {minutes}m)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_and_its_absence_are_told() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let claims = Claims {
            audience: Some("https://manage.office.com".to_owned()),
            tenant: Some("7f3c".to_owned()),
            application: Some("3d1b".to_owned()),
            roles: vec!["ActivityFeed.Read".to_owned(), "ActivityFeed.ReadDlp".to_owned()],
            expires: "2026-01-31T13:00:00Z".parse().ok(),
            ..Claims::default()
        };
        let row = |tenant: &str, claims: Option<Told>, error: Option<&str>| Row {
            tenant: tenant.to_owned(),
            tenant_id: "7f3c".to_owned(),
            claims,
            error: error.map(str::to_owned),
            code: None,
            advice: error.map(|_| "use the secret's value"),
        };
        let refused = "could not get a token: http 401, invalid_client\u{1b}[31m";
        let rows = [row("contoso", Some(told(claims)), None), row("fabrikam", None, Some(refused))];
        insta::assert_snapshot!(people(&rows, now));
    }
}
