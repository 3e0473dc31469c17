//! What a token says about itself. Decoded for a person to read and never verified: only the API decides by it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::Value;

use super::wire;

/// A token's claims, as far as they are there. The token itself cannot be made from them.
///
/// Source: docs/api/contract.md 2.4.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// `aud`: which API the token is for.
    pub audience: Option<String>,
    /// `tid`
    pub tenant: Option<String>,
    /// `iss`
    pub issuer: Option<String>,
    /// `appid` of the older form, `azp` of the newer.
    pub application: Option<String>,
    /// `roles`: application permissions.
    pub roles: Vec<String>,
    /// `scp`: delegated permissions, which this API's feed does not take.
    pub scopes: Vec<String>,
    pub issued: Option<Timestamp>,
    pub not_before: Option<Timestamp>,
    pub expires: Option<Timestamp>,
}

/// `None` when the token is no JWT: to a client it may be any text.
pub fn decode(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let bytes = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let Value::Object(json) = serde_json::from_slice(&bytes).ok()? else { return None };
    let text = |name: &str| match json.get(name)? {
        Value::String(text) => Some(wire::one_line(text)),
        Value::Array(items) => items.first()?.as_str().map(wire::one_line),
        _ => None,
    };
    let list = |name: &str| match json.get(name) {
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(wire::one_line).collect(),
        Some(Value::String(words)) => words.split_whitespace().map(wire::one_line).collect(),
        _ => Vec::new(),
    };
    let time = |name: &str| Timestamp::from_second(wire::number(json.get(name)?)? as i64).ok();
    Some(Claims {
        audience: text("aud"),
        tenant: text("tid"),
        issuer: text("iss"),
        application: text("appid").or_else(|| text("azp")),
        roles: list("roles"),
        scopes: list("scp"),
        issued: time("iat"),
        not_before: time("nbf"),
        expires: time("exp"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn both_forms_of_a_token_are_read_and_numbers_may_be_texts() {
        let old = json!({"aud": "https://manage.office.com", "tid": "t", "iss": "i", "appid": "a", "azp": "b",
            "roles": ["ActivityFeed.Read"], "iat": 10, "nbf": "10", "exp": 3610.0});
        let claims = decode(&token(&old)).unwrap();
        assert_eq!(claims.audience.as_deref(), Some("https://manage.office.com"));
        assert_eq!(claims.application.as_deref(), Some("a"));
        assert_eq!(claims.roles, ["ActivityFeed.Read"]);
        let at = |second| Timestamp::from_second(second).ok();
        assert_eq!((claims.issued, claims.not_before, claims.expires), (at(10), at(10), at(3610)));
        let new = decode(&token(&json!({"aud": ["x"], "azp": "b", "scp": "A B"}))).unwrap();
        assert_eq!((new.audience.as_deref(), new.application.as_deref()), (Some("x"), Some("b")));
        assert_eq!((new.scopes, new.roles), (vec!["A".to_owned(), "B".to_owned()], Vec::new()));
    }

    #[test]
    fn whatever_is_no_token_has_no_claims() {
        for text in ["", "token-1", "a.b", "a.b.c.d", "..", "e30.bm8.x", "e30.W10.x", "e30.%%.x"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    #[test]
    fn what_a_token_says_cannot_break_a_line() {
        let claims = decode(&token(&json!({"tid": "a\u{1b}[2J\nb", "exp": 1e300, "roles": [7, "r\n"]}))).unwrap();
        assert_eq!(claims.tenant.as_deref(), Some("a [2J b"));
        assert_eq!((claims.expires, claims.roles), (None, vec!["r ".to_owned()]));
    }
}
