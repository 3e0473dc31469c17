//! From an answer that was no success to what happened: status first, then the code, then the few texts that were seen
//! on the wire. Source: docs/api/contract.md 2.5 (tokens), 3.1 (start) and 5 (everything else).

use std::time::Duration;

use super::{
    error::{Answer, ApiError, Operation, TokenAnswer},
    wire::{self, TokenFault},
};

/// What of a bad answer decides.
pub struct Bad<'a> {
    pub operation: Operation,
    pub status: u16,
    pub body: &'a [u8],
    pub retry_after: Option<Duration>,
    pub request_id: Option<String>,
}

/// The documented distance between two starts (Activity API reference, since 2025-08).
const START_COOLDOWN: Duration = Duration::from_secs(15 * 60);
/// "Please retry the request again in an hour."
const AN_HOUR: Duration = Duration::from_secs(3600);
/// The authority's loop detection calms down no sooner.
const TOKEN_THROTTLE_MIN: Duration = Duration::from_secs(300);

/// An answer of the API other than 2xx.
pub fn of_service(bad: Bad<'_>) -> ApiError {
    let envelope = wire::envelope(bad.body);
    let code = envelope.af_code().map(str::to_owned);
    let answer = Box::new(Answer {
        operation: bad.operation,
        status: bad.status,
        code: code.clone(),
        message: envelope.text(),
        request_id: bad.request_id,
    });
    let code = code.as_deref().unwrap_or_default();
    let after = bad.retry_after;
    match (bad.status, code) {
        (429, _) if bad.operation == Operation::Start && envelope.is_start_cooldown() => {
            let after = envelope.cooldown().or(after).unwrap_or(START_COOLDOWN);
            ApiError::StartedTooOften { answer, after }
        }
        (_, "AF429") => ApiError::Throttled { answer, after },
        (429, _) if bad.operation == Operation::Start => {
            ApiError::StartedTooOften { answer, after: after.unwrap_or(START_COOLDOWN) }
        }
        (429, _) => ApiError::Throttled { answer, after },
        (408 | 500..=599, _) | (_, "AF50000" | "AF50005" | "AF50006") => {
            let after = after.or(envelope.says_in_an_hour().then_some(AN_HOUR));
            ApiError::Unavailable { answer, after }
        }
        (401 | 403, _) => ApiError::Denied(answer),
        (404, "") | (410, "") if bad.operation == Operation::Blob => ApiError::NotFound(answer),
        (_, "") if envelope.says_audit_is_off() => ApiError::AuditOff(answer),
        _ => of_code(answer),
    }
}

fn of_code(answer: Box<Answer>) -> ApiError {
    match (answer.code.as_deref().unwrap_or_default(), answer.operation) {
        ("AF20024", _) | ("AF20022", Operation::Stop) => ApiError::AlreadySo(answer),
        // To start again what a start could not start would go round for ever.
        ("AF20022" | "AF20023", Operation::Start) => ApiError::Misconfigured(answer),
        ("AF20022" | "AF20023", _) => ApiError::NoSubscription(answer),
        ("AF20030" | "AF20055", _) => ApiError::WindowRefused(answer),
        ("AF20031", _) => ApiError::PageExpired(answer),
        ("AF20050", _) => ApiError::NotFound(answer),
        ("AF20051", _) => ApiError::Expired(answer),
        ("AF20052", _) => ApiError::InvalidId(answer),
        ("AF10001", _) => ApiError::Denied(answer),
        ("AF20003" | "AF20021", _) => ApiError::WebhookRefused(answer),
        (
            "AF20001" | "AF20002" | "AF20010" | "AF20011" | "AF20012" | "AF20013" | "AF20020" | "AF20053" | "AF20054",
            _,
        ) => ApiError::Misconfigured(answer),
        _ => ApiError::Unknown(answer),
    }
}

/// An answer of the login authority that brought no token. `secret` is what must not be repeated in any text.
pub fn of_token(status: u16, body: &[u8], retry_after: Option<Duration>, secret: &str) -> ApiError {
    let fault = wire::token_fault(body);
    let number = fault.as_ref().and_then(TokenFault::number);
    let answer = Box::new(token_answer(status, fault.as_ref(), number, secret));
    match number {
        Some(90055 | 50196) => {
            let after = retry_after.unwrap_or_default().max(TOKEN_THROTTLE_MIN);
            return ApiError::TokenThrottled { answer, after };
        }
        Some(50033 | 90006 | 90012 | 90024 | 90033 | 90090) => {
            return ApiError::TokenUnavailable { answer, after: retry_after };
        }
        _ => {}
    }
    match (status, answer.error.as_str()) {
        // A proxy's page, an empty body, a success without a token: not the authority's word, so not final.
        (_, "" | "temporarily_unavailable" | "server_error") | (408 | 429 | 500..=599, _) => {
            ApiError::TokenUnavailable { answer, after: retry_after }
        }
        _ => ApiError::TokenRefused(answer),
    }
}

fn token_answer(status: u16, fault: Option<&TokenFault>, number: Option<u32>, secret: &str) -> TokenAnswer {
    let text = |text: Option<&str>| {
        let text = wire::one_line(text.unwrap_or_default());
        if !secret.is_empty() && text.contains(secret) { text.replace(secret, "[secret]") } else { text }
    };
    TokenAnswer {
        status,
        code: number.map_or_else(|| "token".to_owned(), |number| format!("AADSTS{number}")),
        error: text(fault.map(|f| f.error.as_str())),
        description: text(fault.and_then(|f| f.error_description.lines().next())),
        trace_id: fault.and_then(|f| f.trace_id.clone()).map(|id| text(Some(&id))),
        correlation_id: fault.and_then(|f| f.correlation_id.clone()).map(|id| text(Some(&id))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Fate, GapReason};

    fn service(operation: Operation, status: u16, body: &str) -> ApiError {
        of_service(Bad { operation, status, body: body.as_bytes(), retry_after: None, request_id: None })
    }

    fn envelope(code: &str, message: &str) -> String {
        serde_json::json!({"error": {"code": code, "message": message}}).to_string()
    }

    fn after(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    /// Every row of contract 5, then the rows of 3.1 and 3.6 that add something.
    #[test]
    fn every_documented_answer_has_its_fate() {
        use Operation::{Blob, List, Start, Stop, Subscriptions};
        let retry = Fate::Retry { after: None };
        let throttled = Fate::Throttled { after: None };
        let rows = [
            (List, 401, "AF10001", Fate::Operator),
            (List, 403, "AF10001", Fate::Operator),
            (List, 401, "", Fate::Operator),
            (Blob, 403, "", Fate::Operator),
            (List, 400, "AF20001", Fate::Operator),
            (List, 400, "AF20002", Fate::Operator),
            (Start, 400, "AF20003", Fate::Operator),
            (List, 400, "AF20010", Fate::Operator),
            (List, 403, "AF20010", Fate::Operator),
            (List, 400, "AF20011", Fate::Operator),
            (List, 400, "AF20012", Fate::Operator),
            (List, 400, "AF20013", Fate::Operator),
            (Start, 400, "AF20020", Fate::Operator),
            (Start, 400, "AF20021", Fate::Operator),
            (List, 400, "AF20022", Fate::Subscribe),
            (List, 400, "AF20023", Fate::Subscribe),
            (Start, 400, "AF20023", Fate::Operator),
            (Stop, 400, "AF20022", Fate::Done),
            (Start, 400, "AF20024", Fate::Done),
            (List, 400, "AF20030", Fate::ClampWindow),
            (List, 400, "AF20055", Fate::ClampWindow),
            (List, 400, "AF20031", Fate::Relist),
            (Blob, 400, "AF20050", Fate::Missing),
            (Blob, 404, "AF20050", Fate::Missing),
            (Blob, 404, "", Fate::Missing),
            (List, 404, "", retry),
            (Blob, 400, "AF20051", Fate::Gone(GapReason::Expired)),
            (Blob, 400, "AF20052", Fate::Gone(GapReason::InvalidId)),
            (List, 400, "AF20053", Fate::Operator),
            (List, 400, "AF20054", Fate::Operator),
            (Blob, 403, "AF429", throttled),
            (List, 429, "AF429", throttled),
            (Subscriptions, 429, "", throttled),
            (Start, 429, "", Fate::Retry { after: after(900) }),
            (Start, 403, "AF429", throttled),
            (Blob, 500, "AF50000", retry),
            (Blob, 400, "AF50000", retry),
            (Blob, 500, "AF50005", retry),
            (Blob, 503, "AF50006", retry),
            (List, 408, "", retry),
            (List, 500, "", retry),
            (List, 502, "", retry),
            (List, 503, "", retry),
            (List, 504, "", retry),
            (List, 400, "AF99999", retry),
            (List, 302, "", retry),
        ];
        for (operation, status, code, fate) in rows {
            let error = service(operation, status, &envelope(code, "words"));
            assert_eq!(error.fate(), fate, "{operation:?} {status} {code}");
            if !code.is_empty() {
                assert_eq!(error.code(), code);
            }
        }
    }

    #[test]
    fn the_few_texts_seen_on_the_wire_decide_where_the_code_does_not() {
        let tenant_missing = "Microsoft.Office.Compliance.Audit.DataServiceException: Tenant 7f3c does not exist";
        let audit_off = [envelope("StartSubscription [CorrId=1]", tenant_missing), envelope("odd", tenant_missing)];
        for body in audit_off {
            let error = service(Operation::Start, 400, &body);
            assert!(matches!(error, ApiError::AuditOff(_)), "{error}");
            assert!(error.advice().unwrap().contains("audit log on"));
        }
        let cooldown = "Too many frequent subscription start requests. Please retry again after 14m 56s";
        for body in [envelope("", cooldown), envelope("AF429", cooldown), cooldown.to_owned()] {
            let error = service(Operation::Start, 429, &body);
            assert_eq!(error.fate(), Fate::Retry { after: after(14 * 60 + 56) });
            assert_eq!(error.code(), "started_too_often");
        }
        let hour = envelope("AF50000", "An internal error occurred. Please retry the request again in an hour.");
        assert_eq!(service(Operation::List, 500, &hour).fate(), Fate::Retry { after: after(3600) });
    }

    #[test]
    fn bodies_of_every_other_shape_are_decided_by_status_alone() {
        let denied = r#"{"Message":"Authorization has been denied for this request."}"#;
        let bodies =
            [denied, "<html>busy</html>", "", "null", "[]", "{\"error\":7}", "\u{feff}{\"error\":{\"code\":7}}"];
        for body in bodies {
            assert_eq!(service(Operation::List, 401, body).fate(), Fate::Operator, "{body}");
            assert_eq!(service(Operation::List, 503, body).fate(), Fate::Retry { after: None }, "{body}");
            assert_eq!(service(Operation::List, 400, body).code(), "other", "{body}");
        }
        let bom = format!("\u{feff}{}", envelope("AF20051", ""));
        assert_eq!(service(Operation::Blob, 400, &bom).code(), "AF20051");
    }

    fn token_body(error: &str, number: u32) -> String {
        serde_json::json!({
            "error": error,
            "error_description": format!("AADSTS{number}: some words.\r\nTrace ID: t-1"),
            "error_codes": [number],
            "timestamp": "2026-01-01 00:00:00Z",
            "trace_id": "t-1",
            "correlation_id": "c-1",
        })
        .to_string()
    }

    /// Every row of contract 2.5.
    #[test]
    fn every_token_error_has_its_class() {
        let transient = [50033, 90006, 90012, 90024, 90033, 90090];
        let throttle = [90055, 50196];
        let permanent = [
            90002, 900_023, 700_016, 70001, 700_011, 7_000_112, 1_000_031, 7_000_215, 7_000_222, 70002, 700_027, 50012,
            50013, 700_030, 500_133, 700_024, 7_000_218, 700_025, 900_144, 70021, 700_211, 700_212, 700_213, 7_002_138,
            500_011, 50001, 650_052, 500_014, 65001, 650_056, 650_057, 90094, 53003, 530_032, 530_035, 900_382,
            900_432, 90038, 70011, 700_022, 901_002,
        ];
        let of = |number| of_token(400, token_body("invalid_request", number).as_bytes(), None, "");
        for number in transient {
            assert_eq!(of(number).fate(), Fate::Retry { after: None }, "{number}");
        }
        for number in throttle {
            assert_eq!(of(number).fate(), Fate::Throttled { after: after(300) }, "{number}");
        }
        for number in permanent {
            let error = of(number);
            assert_eq!(error.fate(), Fate::Operator, "{number}");
            assert_eq!(error.code(), format!("AADSTS{number}"));
            assert!(error.advice().is_some(), "{number}");
        }
    }

    #[test]
    fn a_token_error_without_a_known_number_is_decided_by_status_and_word() {
        let of = |status, body: &str| of_token(status, body.as_bytes(), after(7), "").fate();
        let retry = Fate::Retry { after: after(7) };
        assert_eq!(of(503, "<html>"), retry);
        assert_eq!(of(429, &token_body("invalid_client", 1)), retry);
        assert_eq!(of(400, &token_body("temporarily_unavailable", 1)), retry);
        assert_eq!(of(403, "<html>blocked by a proxy</html>"), retry);
        assert_eq!(of(200, "{}"), retry);
        assert_eq!(of(401, &token_body("invalid_client", 1)), Fate::Operator);
        assert_eq!(of(400, r#"{"error":"unauthorized_client"}"#), Fate::Operator);
    }

    #[test]
    fn a_token_error_keeps_the_ids_for_support_and_never_the_secret() {
        let body = token_body("invalid_client", 7_000_215).replace("some words", "secret s3cr3t~+/ is wrong");
        let text = of_token(401, body.as_bytes(), None, "s3cr3t~+/").to_string();
        assert!(text.contains("trace t-1") && text.contains("correlation c-1"), "{text}");
        assert!(!text.contains("s3cr3t"), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }
}
