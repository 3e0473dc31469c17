//! What stands for a client secret: a token of an issuer that the application trusts, or a JWT signed with the key of a
//! certificate that it knows. Source: docs/api/contract.md 2.2, 2.5.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use openssl::{
    hash::MessageDigest,
    rsa::Padding,
    sign::{RsaPssSaltlen, Verifier},
    x509::X509,
};
use serde_json::{Value, json};

use super::{
    scenario::{Federation, TenantScenario},
    token::{Refusal, Tokens},
};

/// What a federated token is for, in the public cloud.
const EXCHANGE: &str = "api://AzureADTokenExchange";

/// Whether the application believes this assertion, which came to an endpoint whose URL ends so.
pub(super) fn check(
    tokens: &Tokens,
    tenant: &TenantScenario,
    (assertion, endpoint): (&str, &str),
    now: Timestamp,
) -> Result<(), Refusal> {
    let parts: Vec<&str> = assertion.split('.').collect();
    let (Some(header), Some(claims)) = (json_of(parts.first()), json_of(parts.get(1))) else {
        return Err(refusal(50_027, "JWT token is invalid or malformed."));
    };
    let is_past = |name: &str| claims[name].as_i64().is_some_and(|second| second <= now.as_second());
    if claims["exp"].is_null() || is_past("exp") || !(claims["nbf"].is_null() || is_past("nbf")) {
        return Err(refusal(700_024, "Client assertion is not within its valid time range."));
    }
    match &tenant.certificate {
        Some(certificate) if claims["iss"] == tenant.client_id => {
            if !is_signed(certificate, &header, assertion) {
                return Err(refusal(700_027, "The certificate used to sign the client assertion is not registered."));
            }
            let is_for_us = claims["aud"].as_str().is_some_and(|url| url.ends_with(endpoint));
            let is_ours = claims["sub"] == tenant.client_id;
            let is_new = claims["jti"].as_str().is_some_and(|jti| tokens.is_new(jti));
            if is_for_us && is_ours && is_new {
                return Ok(());
            }
            Err(refusal(50_013, "Assertion failed: its audience, subject or number is not right."))
        }
        _ => is_trusted(tenant.federation.as_ref(), &claims),
    }
}

/// Whether it is signed with PS256 and the certificate's key. What another issuer signed is not looked at.
fn is_signed(certificate: &str, header: &Value, assertion: &str) -> bool {
    let verified = || {
        let certificate = X509::from_pem(certificate.as_bytes()).ok()?;
        let thumbprint = URL_SAFE_NO_PAD.encode(certificate.digest(MessageDigest::sha256()).ok()?);
        let key = certificate.public_key().ok()?;
        let mut verifier = Verifier::new(MessageDigest::sha256(), &key).ok()?;
        verifier.set_rsa_padding(Padding::PKCS1_PSS).ok()?;
        verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).ok()?;
        let (signed, signature) = assertion.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let is_valid = verifier.verify_oneshot(&signature, signed.as_bytes()).ok()?;
        Some(is_valid && header["alg"] == "PS256" && header["x5t#S256"] == thumbprint)
    };
    verified().unwrap_or(false)
}

fn is_trusted(federation: Option<&Federation>, claims: &Value) -> Result<(), Refusal> {
    let Some(Federation { issuer, subject }) = federation else {
        return Err(refusal(70_021, "No matching federated identity record found for presented assertion."));
    };
    let text = |name: &str| claims[name].as_str().unwrap_or_default();
    let differ_in_case = |registered: &str, told: &str| registered != told && registered.eq_ignore_ascii_case(told);
    if differ_in_case(issuer, text("iss")) || differ_in_case(subject, text("sub")) {
        return Err(refusal(7_002_138, "The assertion differs from the registered record in letter case."));
    }
    let wanted = [("iss", issuer.as_str(), 700_211), ("aud", EXCHANGE, 700_212), ("sub", subject, 700_213)];
    match wanted.into_iter().find(|(name, value, _)| text(name) != *value) {
        Some((name, _, number)) => {
            Err(refusal(number, &format!("No matching record found for the assertion's {name}.")))
        }
        None => Ok(()),
    }
}

impl Federation {
    /// A token as the trusted issuer gives it, with a signature that nobody looks at.
    pub fn token(&self, expires: Timestamp) -> String {
        let claims = json!({"iss": self.issuer, "sub": self.subject, "aud": EXCHANGE, "exp": expires.as_second()});
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let header = part(&json!({"typ": "JWT", "alg": "RS256"}));
        format!("{header}.{}.{}", part(&claims), URL_SAFE_NO_PAD.encode("signed"))
    }
}

fn json_of(part: Option<&&str>) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part?).ok()?).ok()
}

fn refusal(number: u32, text: &str) -> Refusal {
    let (status, error) = match number {
        700_027 => (401, "invalid_client"),
        _ => (400, "invalid_request"),
    };
    Refusal::new(status, error, number, text)
}
